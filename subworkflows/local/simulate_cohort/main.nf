/*
    The built-in cohort: one task per simulated patient, and one samplesheet of them all.
*/

include { COHORT_SIMULATE } from '../../../modules/local/cohort/simulate/main.nf'

workflow SIMULATE_COHORT {
    take:
    ch_options // options of a run that simulates; empty for any other
    ch_atlas // value: atlas folder

    main:
    ch_index = ch_options.flatMap { _options -> (1..(params.simulate as int)).toList() }
    COHORT_SIMULATE(ch_index, ch_atlas)

    ch_rows = COHORT_SIMULATE.out.patient
        .map { _index, _folders, sheet -> sheet }
        .collectFile(name: 'samplesheet.csv', keepHeader: true, skip: 1, sort: { sheet -> sheet.text }, storeDir: "${params.outdir}/simulated")
    // The sheet's paths are relative to the folder of the task that made the patient.
    ch_bases = COHORT_SIMULATE.out.patient
        .toList()
        .filter { patients -> patients }
        .map { patients ->
            patients.collectEntries { _index, folders, _sheet ->
                [folders].flatten().collectEntries { folder -> [(folder.name - 'sub-'): folder.parent] }
            }
        }
    sheet = ch_rows.combine(ch_bases)
    versions = COHORT_SIMULATE.out.versions

    emit:
    sheet // [samplesheet, [patient: folder its paths are relative to]]
    versions
}
