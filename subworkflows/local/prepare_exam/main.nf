/*
    From the images of a pre-operative row to one exam folder in atlas space. Exams enter in SRI24 space in this version;
    conversion, co-registration, normalisation and brain extraction of raw exams belong here.
*/

include { EXAM_PREPARE } from '../../../modules/local/exam/prepare/main.nf'
include { lostTasks    } from '../initialise/main.nf'

workflow PREPARE_EXAM {
    take:
    ch_row // [meta, row, files]
    ch_atlas // value: atlas folder

    main:
    EXAM_PREPARE(ch_row, ch_atlas)

    ch_lost = lostTasks(
        ch_row.map { meta, _row, _files -> meta },
        EXAM_PREPARE.out.exam.mix(EXAM_PREPARE.out.failure).map { meta, _path -> meta },
        'prepare exam',
    )
    exam = EXAM_PREPARE.out.exam
    summary = EXAM_PREPARE.out.summary.map { _meta, json -> json }
    failure = EXAM_PREPARE.out.failure.map { _meta, json -> json }.mix(ch_lost)
    versions = EXAM_PREPARE.out.versions

    emit:
    exam // [meta, exam folder]
    summary // exam.json of each
    failure
    versions
}
