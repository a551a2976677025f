/*
    The whole road: samplesheet -> exams -> (training: networks ->) maps -> plans -> scores -> report.
    A sheet without follow-ups takes the same road; its patients get maps and plans, and no scores.
*/

include { PREPARE_COHORT } from '../subworkflows/local/prepare_cohort/main.nf'
include { TRAIN_COHORT   } from '../subworkflows/local/train_cohort/main.nf'
include { PREDICT        } from '../subworkflows/local/predict/main.nf'
include { PLAN           } from '../subworkflows/local/plan/main.nf'
include { EXPORT         } from '../subworkflows/local/export/main.nf'
include { MEASURE_DOSE   } from '../subworkflows/local/measure_dose/main.nf'
include { EVALUATE       } from '../subworkflows/local/evaluate/main.nf'
include { REPORT         } from '../subworkflows/local/report/main.nf'
include { NETWORK_SCORE  } from '../modules/local/network/score/main.nf'
include { hasWeights     } from '../subworkflows/local/initialise/main.nf'

workflow PREDICTGBM {
    take:
    ch_options // value: [models: [entry, ...], training: [[entry:, seeds:, settings:], ...], simulated: bool, sheet: path or null]

    main:
    ch_atlas = channel.value(file(params.atlas, type: 'dir', glob: false))
    PREPARE_COHORT(ch_options, ch_atlas)

    ch_model = channel.empty()
    ch_failure = PREPARE_COHORT.out.failure
    ch_versions = PREPARE_COHORT.out.versions
    // A training goes on to the benchmark, in which each patient is told by networks that never saw him or her.
    if (params.train) {
        TRAIN_COHORT(PREPARE_COHORT.out.exam, PREPARE_COHORT.out.recurrence, PREPARE_COHORT.out.selection, ch_options)
        ch_model = TRAIN_COHORT.out.model
        ch_versions = ch_versions.mix(TRAIN_COHORT.out.versions)
    }
    // What an earlier training has left, and what this one leaves.
    ch_weights = ch_options
        .flatMap { options -> options.models - options.training*.entry }
        .map { entry -> tuple(entry.name, hasWeights(params, entry) ? file("${params.weights}/${entry.name}", type: 'dir', glob: false) : []) }
        .mix(ch_model.map { folder -> tuple(folder.name, folder) })

    PREDICT(PREPARE_COHORT.out.exam, PREPARE_COHORT.out.score, ch_weights, ch_options, PREPARE_COHORT.out.batch)

    PLAN(PREPARE_COHORT.out.exam, PREDICT.out.map, ch_atlas, PREPARE_COHORT.out.batch)

    ch_failure = ch_failure.mix(PREDICT.out.failure, PLAN.out.failure)
    ch_versions = ch_versions.mix(PREDICT.out.versions, PLAN.out.versions)
    if (params.export) {
        EXPORT(PREPARE_COHORT.out.exam, PLAN.out.plan, PREPARE_COHORT.out.row, PREPARE_COHORT.out.source, PREPARE_COHORT.out.transform)
        ch_failure = ch_failure.mix(EXPORT.out.failure)
        ch_versions = ch_versions.mix(EXPORT.out.versions)
    }

    MEASURE_DOSE(PREPARE_COHORT.out.dose, PREPARE_COHORT.out.exam, PREPARE_COHORT.out.transform, PREPARE_COHORT.out.recurrence)
    ch_failure = ch_failure.mix(MEASURE_DOSE.out.failure)
    ch_versions = ch_versions.mix(MEASURE_DOSE.out.versions)

    EVALUATE(
        PREPARE_COHORT.out.selection,
        PREPARE_COHORT.out.exam,
        PREPARE_COHORT.out.recurrence,
        PREPARE_COHORT.out.other,
        PREDICT.out.map,
        PREDICT.out.spread,
        PLAN.out.plan,
        PLAN.out.guideline,
        MEASURE_DOSE.out.measures,
        ch_failure,
        PREPARE_COHORT.out.quality,
        ch_options,
        PREPARE_COHORT.out.batch,
    )
    tables = EVALUATE.out.tables

    if (params.train) {
        NETWORK_SCORE(ch_model.map { folder -> folder.name }, tables.first())
    }

    REPORT(
        PREPARE_COHORT.out.exam,
        PREDICT.out.map,
        PREDICT.out.spread,
        PLAN.out.plan,
        PREPARE_COHORT.out.recurrence,
        tables,
        PREPARE_COHORT.out.picture,
        ch_weights.filter { _model, folder -> folder }.map { _model, folder -> folder },
        ch_options,
        ch_versions.mix(EVALUATE.out.versions),
        PREPARE_COHORT.out.batch,
    )
    report = REPORT.out.report
    model = ch_model

    emit:
    report // path: multiqc_report.html
    tables // path: tables/
    model // folder of each trained model: networks and card.json
}
