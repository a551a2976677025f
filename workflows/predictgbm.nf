/*
    The whole road: samplesheet -> exams -> maps -> plans -> scores -> report.
    A sheet without follow-ups takes the same road; its patients get maps and plans, and no scores.
*/

include { PREPARE_COHORT } from '../subworkflows/local/prepare_cohort/main.nf'
include { PREDICT        } from '../subworkflows/local/predict/main.nf'
include { PLAN           } from '../subworkflows/local/plan/main.nf'
include { EVALUATE       } from '../subworkflows/local/evaluate/main.nf'
include { REPORT         } from '../subworkflows/local/report/main.nf'

workflow PREDICTGBM {
    take:
    ch_options // value: [models: [entry, ...], simulated: bool, sheet: path or null]

    main:
    PREPARE_COHORT(ch_options, channel.value(file(params.atlas, type: 'dir')))

    PREDICT(PREPARE_COHORT.out.exam, PREPARE_COHORT.out.score, ch_options)

    PLAN(PREPARE_COHORT.out.exam, PREDICT.out.map)

    EVALUATE(
        PREPARE_COHORT.out.selection,
        PREPARE_COHORT.out.exam,
        PREPARE_COHORT.out.recurrence,
        PREDICT.out.map,
        PLAN.out.plan,
        PREPARE_COHORT.out.failure.mix(PREDICT.out.failure, PLAN.out.failure),
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
        PREPARE_COHORT.out.versions.mix(PREDICT.out.versions, PLAN.out.versions, EVALUATE.out.versions),
    )
    report = REPORT.out.report
    tables = EVALUATE.out.tables

    emit:
    report // path: multiqc_report.html
    tables // path: tables/
}
