/*
    What recurrence, brain and organs at risk got of the dose that was given, once for each patient whose dose is known.
*/

include { DOSE_MEASURE } from '../../../modules/local/dose/measure/main.nf'
include { lostTasks    } from '../initialise/main.nf'

workflow MEASURE_DOSE {
    take:
    ch_dose // [meta, dose of the samplesheet, prescribed dose in Gy]
    ch_exam // [meta, exam folder]
    ch_transform // [meta, transforms from native to atlas space] of raw exams
    ch_recurrence // [patient, [session:, days:], labels on the exam's grid]

    main:
    ch_run = ch_dose
        .join(ch_exam)
        // As one value, so that a row without its left side is told by one null.
        .map { meta, dose, prescription, exam -> tuple(meta, [dose: dose, prescription: prescription, exam: exam]) }
        .join(ch_transform, remainder: true)
        .filter { row -> row[1] != null }
        .map { meta, given, transforms -> tuple(meta.patient, given + [meta: meta, transform: [transforms].flatten().findAll { path -> path?.name?.contains('_from-t1c_') }]) }
        .join(ch_recurrence.map { patient, _followup, labels -> tuple(patient, labels) }, remainder: true)
        .filter { row -> row[1] != null }
        .map { _patient, given, labels -> tuple(given.meta, given.exam, given.dose, given.prescription, given.transform, labels ?: []) }
    DOSE_MEASURE(ch_run)

    ch_lost = lostTasks(
        ch_run.map { meta, _exam, _dose, _prescription, _transform, _labels -> meta },
        DOSE_MEASURE.out.measures.mix(DOSE_MEASURE.out.failure).map { meta, _path -> meta },
        'given dose',
    )
    measures = DOSE_MEASURE.out.measures.map { _meta, json -> json }
    failure = DOSE_MEASURE.out.failure.map { _meta, json -> json }.mix(ch_lost)
    versions = DOSE_MEASURE.out.versions

    emit:
    measures // JSON of each patient
    failure // JSON records
    versions
}
