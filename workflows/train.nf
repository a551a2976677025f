/*
    Training on a cohort: samplesheet -> exams with recurrence -> splits -> networks -> one folder per model.
*/

include { PREPARE_COHORT } from '../subworkflows/local/prepare_cohort/main.nf'
include { TRAIN_COHORT   } from '../subworkflows/local/train_cohort/main.nf'

workflow TRAIN {
    take:
    ch_options // value: [training: [[entry:, seeds:, settings:], ...], simulated: bool, sheet: path or null]

    main:
    PREPARE_COHORT(ch_options, channel.value(file(params.atlas, type: 'dir')))

    TRAIN_COHORT(PREPARE_COHORT.out.exam, PREPARE_COHORT.out.recurrence, PREPARE_COHORT.out.selection, ch_options)
    model = TRAIN_COHORT.out.model

    emit:
    model // folder of each model: networks and card.json
}
