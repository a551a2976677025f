/**
 * A run of the whole pipeline as a map: its parameters, its samplesheet where it has one, and what must come out.
 *
 *   params  parameters of the run
 *   sheet   closure that makes the samplesheet's rows of the rows of a simulated cohort of 2 patients
 *   status  status of every patient in the cohort table, in its order
 *   models  models that were planned
 *   stub    true for a stub run, of which only the files are looked at
 */
class Scenario {

    static Closure test(Map scenario) {
        return {
            tag 'pipeline'
            if (scenario.stub) {
                options '-stub'
            }

            when {
                params {
                    outdir = "${outputDir}/results".toString()
                    scenario.params.each { key, value -> delegate."$key" = value }
                    if (scenario.sheet) {
                        simulate = null
                        input = Scenario.samplesheet("${outputDir}/cohort", scenario.sheet)
                    }
                }
            }

            then {
                assert workflow.success
                def found = Scenario.results(params.outdir, scenario.stub ?: false)
                assertAll(
                    { assert found.files.containsAll(['multiqc_report.html', 'cohort.csv'] - (scenario.stub ? ['cohort.csv'] : [])) },
                    { assert found.models == scenario.models },
                    { assert scenario.stub || found.status == scenario.status },
                    // Every plan of a patient has one volume, and every patient that is scored is so by every model.
                    { assert scenario.stub || found.volumes.every { _exam, volumes -> volumes.unique().size() == 1 && volumes[0] > 0 } },
                    { assert scenario.stub || found.scored == scenario.status.count('evaluated') * scenario.models.size() },
                    { assert snapshot(found.files, found.plans ?: 'stub').match() }
                )
            }
        }
    }

    /** What a finished run left in its results folder. */
    static Map results(outdir, boolean stub) {
        def plans = Folder.files(outdir, '_desc-isovol_mask.nii.gz')
        def models = plans.collect { plan -> (plan.name =~ /_model-([a-z0-9_]+)_/)[0][1] }.unique().sort()
        def files = Folder.files(outdir, '').findAll { file -> !file.path.contains('/pipeline_info/') && !file.path.contains('/multiqc_report_data/') }*.name.sort()
        if (stub) {
            return [files: files, models: models]
        }
        return [
            files: files,
            models: models,
            status: Folder.rows("${outdir}/tables/cohort.csv")*.status,
            scored: Folder.rows("${outdir}/tables/metrics.csv").size(),
            plans: plans.collect { plan -> [plan.name, Nifti.content(plan)] },
            volumes: plans.groupBy { plan -> plan.parent }.collectEntries { exam, own -> [exam, own.collect { plan -> Nifti.content(plan).positive }] },
        ]
    }

    /** Samplesheet of two patients, simulated by the project's own command, whose rows the closure may change. */
    static String samplesheet(folder, Closure change) {
        def python = new File('.venv/bin/python3').exists() ? '.venv/bin/python3' : 'python3'
        def atlas = System.getenv('PREDICTGBM_ATLAS')
        def command = [python, 'bin/simulate_cohort.py', '--atlas', atlas, '--out', folder, '--patients', 2, '--spacing', 4]*.toString()
        def process = new ProcessBuilder(command).redirectErrorStream(true).start()
        def told = process.inputStream.text
        if (process.waitFor() != 0) {
            throw new AssertionError("${command.join(' ')}\n${told}" as Object)
        }
        def rows = change(Folder.rows("${folder}/samplesheet.csv"))
        def lines = [rows[0].keySet().join(',')] + rows.collect { row -> row.values().join(',') }
        def sheet = new File(folder.toString(), 'sheet.csv')
        sheet.text = lines.join('\n') + '\n'
        return sheet.path
    }

}
