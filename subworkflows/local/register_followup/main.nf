/*
    Follow-up labels in the space of the pre-operative exam. In this version the samplesheet gives them already
    registered (registered_seg) and they are brought to the exam's grid; registration itself belongs here.
*/

include { FOLLOWUP_IMPORT } from '../../../modules/local/followup/import/main.nf'
include { lostTasks       } from '../initialise/main.nf'

workflow REGISTER_FOLLOWUP {
    take:
    ch_row // [meta, row, files]
    ch_exam // [meta, exam folder]

    main:
    ch_pair = ch_row
        .map { meta, row, files ->
            def position = row.files.registered_seg.tokenize('/')[1] as int
            tuple(meta.patient, meta, row + [files: [registered_seg: "input/1/${files[position - 1].name}".toString()]], files[position - 1])
        }
        .combine(ch_exam.map { meta, exam -> tuple(meta.patient, exam) }, by: 0)
        .map { _patient, meta, row, segmentation, exam -> tuple(meta, row, segmentation, exam) }

    FOLLOWUP_IMPORT(ch_pair)

    ch_lost = lostTasks(
        ch_pair.map { meta, _row, _segmentation, _exam -> meta },
        FOLLOWUP_IMPORT.out.segmentation.mix(FOLLOWUP_IMPORT.out.failure).map { meta, _path -> meta },
        'register follow-up',
    )
    segmentation = FOLLOWUP_IMPORT.out.segmentation
    summary = FOLLOWUP_IMPORT.out.summary.map { _meta, json -> json }
    failure = FOLLOWUP_IMPORT.out.failure.map { _meta, json -> json }.mix(ch_lost)
    versions = FOLLOWUP_IMPORT.out.versions

    emit:
    segmentation // [meta, labels on the exam's grid]
    summary
    failure
    versions
}
