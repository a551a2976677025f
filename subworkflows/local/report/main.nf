/*
    A picture and a viewer page for every patient, and one MultiQC report for the cohort.
*/

include { QC_DRAW        } from '../../../modules/local/qc/draw/main.nf'
include { VIEWER_BUILD   } from '../../../modules/local/viewer/build/main.nf'
include { MULTIQC_REPORT } from '../../../modules/local/multiqc/report/main.nf'
include { flatFiles      } from '../initialise/main.nf'
include { inBatches      } from '../initialise/main.nf'
include { modelLists     } from '../initialise/main.nf'

workflow REPORT {
    take:
    ch_exam // [meta, exam folder]
    ch_map // [meta with model, map]
    ch_spread // [meta with model, standard deviation of the map, or [] without]
    ch_plan // [meta with model, plan]
    ch_recurrence // [patient, [session:, days:], labels]
    ch_tables // tables of the statistics
    ch_quality_picture // pictures of the steps from raw exams to labels
    ch_network // folders of trained models that took part
    ch_options // value: options
    ch_versions // versions.yml of the tasks
    ch_batch // [patient, number, patients in it]: which patients one task takes

    main:
    ch_patient = ch_map
        .join(ch_spread)
        .join(ch_plan)
        .map { meta, map, spread, plan -> tuple(meta.subMap(meta.keySet() - 'model'), map, spread, plan) }
        .groupTuple()
        .join(ch_exam)
        .map { meta, maps, spreads, plans, exam -> tuple(meta.patient, meta, exam, maps.sort { map -> map.name }, plans.sort { plan -> plan.name }, spreads.flatten().sort { spread -> spread.name }) }
        .join(ch_recurrence.map { patient, _followup, segmentation -> tuple(patient, segmentation) }, remainder: true)
        .filter { row -> row[1] != null }
        .map { _patient, meta, exam, maps, plans, spreads, segmentation -> tuple(meta, exam, maps, plans, segmentation ?: [], spreads) }

    ch_run = inBatches(ch_patient, ch_batch).map { columns -> flatFiles(columns) }
    QC_DRAW(ch_run.map { columns -> columns[0..4] })
    VIEWER_BUILD(ch_run, file("${projectDir}/assets/niivue/niivue.umd.js", checkIfExists: true), modelLists())

    ch_pictures = QC_DRAW.out.picture
        .mix(QC_DRAW.out.caption, QC_DRAW.out.missed)
        .flatten()
        .mix(ch_quality_picture)
        .toSortedList { a, b -> a.name <=> b.name }
    ch_collected = ch_versions
        .mix(QC_DRAW.out.versions)
        .map { yml -> yml.text }
        .unique()
        .mix(channel.of("Workflow:\n  predict-gbm/predictgbm: \"${workflow.manifest.version}\"\n  Nextflow: \"${workflow.nextflow.version}\"\n".toString()))
        .collectFile(name: 'software_versions.yml', sort: true)
    ch_parameters = ch_options
        .map { _options -> groovy.json.JsonOutput.prettyPrint(groovy.json.JsonOutput.toJson(params.findAll { name, value -> value != null && !name.contains('-') && name != 'trace_report_suffix' })) }
        .collectFile(name: 'params.json', storeDir: "${params.outdir}/pipeline_info")
    // What the models were, for whoever compares this run with another.
    ch_options
        .map { options -> groovy.json.JsonOutput.prettyPrint(groovy.json.JsonOutput.toJson([models: options.models])) }
        .collectFile(name: 'models.json', storeDir: "${params.outdir}/pipeline_info")
    // The results folder is a BIDS derivative of the exams it was made from.
    ch_options
        .map { options ->
            def authors = (params.results_authors ?: '').tokenize(';').collect { person -> person.replaceFirst(/\(.*/, '').trim() }
            def description = [
                Name: 'PREDICT-GBM: maps, plans and scores',
                BIDSVersion: '1.9.0',
                DatasetType: 'derivative',
                GeneratedBy: [[Name: workflow.manifest.name, Version: workflow.manifest.version, CodeURL: workflow.manifest.homePage]],
                SourceDatasets: [
                    [URL: options.simulated ? 'simulated' : options.sheet.name],
                    (options.atlas.doi ? [DOI: options.atlas.doi] : [:]) + [Version: options.atlas.space],
                ],
                Simulated: options.simulated,
            ] + (params.results_license ? [License: params.results_license] : [:]) + (authors ? [Authors: authors] : [:])
            groovy.json.JsonOutput.prettyPrint(groovy.json.JsonOutput.toJson(description))
        }
        .collectFile(name: 'dataset_description.json', storeDir: params.outdir)
    // What BIDS asks of every image of a kind, once for all patients; and what it has no names for.
    ch_options
        .flatMap { options ->
            def reference = options.atlas.doi ? "https://doi.org/${options.atlas.doi}".toString() : options.atlas.space
            def common = [SpatialReference: reference]
            def image = common + [SkullStripped: true]
            [
                T1w: image + [Description: 'T1-weighted image in the space of the atlas'],
                T2w: image + [Description: 'T2-weighted image in the space of the atlas'],
                FLAIR: image + [Description: 'FLAIR image in the space of the atlas'],
                mask: common + [Description: 'Region in the space of the atlas: 1 inside, 0 outside'],
                dseg: common + [Description: 'Tumour labels: 1 necrosis, 2 oedema, 3 enhancing tumour, 4 resection cavity'],
                probseg: common + [Description: 'Map in the space of the atlas: a tissue (label) or what a model expects'],
            ].collect { suffix, fields ->
                tuple("space-${options.atlas.space}_${suffix}.json".toString(), groovy.json.JsonOutput.prettyPrint(groovy.json.JsonOutput.toJson(fields)))
            }
        }
        .collectFile(storeDir: params.outdir)
    channel.fromPath("${projectDir}/assets/bidsignore", checkIfExists: true).collectFile(name: '.bidsignore', storeDir: params.outdir)
    // On whom a model was trained is kept with its results, wherever its networks lie; LMI calls its card by its own name.
    ch_card = ch_network.flatMap { folder ->
        ['card.json', "${folder.name}.json"].collect { name -> folder.resolve(name) }.findAll { card -> card.exists() }
    }
    ch_card.collectFile(storeDir: "${params.outdir}/pipeline_info/cards") { card -> ["${card.parent.name}.json".toString(), card.text] }
    // The trace so far: every task but the report's own has been written when pictures and tables are there.
    ch_trace = ch_tables
        .combine(ch_pictures.map { pictures -> [pictures] })
        .combine(VIEWER_BUILD.out.page.toList().map { pages -> [pages] })
        .map { _row -> file("${params.outdir}/pipeline_info/execution_trace_${params.trace_report_suffix}.txt", glob: false) }

    MULTIQC_REPORT(
        ch_tables,
        ch_pictures,
        ch_trace,
        ch_collected,
        ch_parameters,
        ch_card.filter { card -> card.name == 'card.json' }.toSortedList(),
        modelLists(),
        file("${projectDir}/assets/multiqc_config.yml"),
        params.multiqc_config ? file(params.multiqc_config, checkIfExists: true, glob: false) : [],
    )
    report = MULTIQC_REPORT.out.report

    emit:
    report
}
