/*
    The whole road: samplesheet -> exams -> maps -> plans -> scores -> report; or, in a training, -> exams -> networks.
    A sheet without follow-ups takes the same road; its patients get maps and plans, and no scores.
*/

include { PREPARE_COHORT } from '../subworkflows/local/prepare_cohort/main.nf'
include { TRAIN_COHORT   } from '../subworkflows/local/train_cohort/main.nf'
include { PREDICT        } from '../subworkflows/local/predict/main.nf'
include { PLAN           } from '../subworkflows/local/plan/main.nf'
include { EXPORT         } from '../subworkflows/local/export/main.nf'
include { EVALUATE       } from '../subworkflows/local/evaluate/main.nf'
include { REPORT         } from '../subworkflows/local/report/main.nf'

workflow PREDICTGBM {
    take:
    ch_options // value: [models: [entry, ...], training: [[entry:, seeds:, settings:], ...], simulated: bool, sheet: path or null]

    main:
    PREPARE_COHORT(ch_options, channel.value(file(params.atlas, type: 'dir')))

    report = channel.empty()
    tables = channel.empty()
    model = channel.empty()
    // Within one workflow, so that a benchmark finds in the cache what a training has prepared.
    if (params.train) {
        TRAIN_COHORT(PREPARE_COHORT.out.exam, PREPARE_COHORT.out.recurrence, PREPARE_COHORT.out.selection, ch_options)
        model = TRAIN_COHORT.out.model
    }
    else {
        PREDICT(PREPARE_COHORT.out.exam, PREPARE_COHORT.out.score, ch_options)

        PLAN(PREPARE_COHORT.out.exam, PREDICT.out.map)

        ch_failure = PREPARE_COHORT.out.failure.mix(PREDICT.out.failure, PLAN.out.failure)
        ch_versions = PREPARE_COHORT.out.versions.mix(PREDICT.out.versions, PLAN.out.versions)
        if (params.export) {
            EXPORT(PREPARE_COHORT.out.exam, PLAN.out.plan, PREPARE_COHORT.out.row, PREPARE_COHORT.out.source, PREPARE_COHORT.out.transform)
            ch_failure = ch_failure.mix(EXPORT.out.failure)
            ch_versions = ch_versions.mix(EXPORT.out.versions)
        }

        EVALUATE(
            PREPARE_COHORT.out.selection,
            PREPARE_COHORT.out.exam,
            PREPARE_COHORT.out.recurrence,
            PREDICT.out.map,
            PLAN.out.plan,
            ch_failure,
            PREPARE_COHORT.out.quality,
            ch_options,
        )

        REPORT(
            PREPARE_COHORT.out.exam,
            PREDICT.out.map,
            PLAN.out.plan,
            PREPARE_COHORT.out.recurrence,
            EVALUATE.out.tables,
            PREPARE_COHORT.out.picture,
            ch_options,
            ch_versions.mix(EVALUATE.out.versions),
        )
        report = REPORT.out.report
        tables = EVALUATE.out.tables
    }

    emit:
    report // path: multiqc_report.html
    tables // path: tables/
    model // folder of each trained model: networks and card.json
}
