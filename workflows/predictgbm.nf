/*
    The whole road: samplesheet -> exams -> (training: networks ->) maps -> plans -> scores -> report.
    A sheet without follow-ups takes the same road; its patients get maps and plans, and no scores.
*/

include { PREPARE_COHORT } from '../subworkflows/local/prepare_cohort/main.nf'
include { TRAIN_COHORT   } from '../subworkflows/local/train_cohort/main.nf'
include { PREDICT        } from '../subworkflows/local/predict/main.nf'
include { PLAN           } from '../subworkflows/local/plan/main.nf'
include { EVALUATE       } from '../subworkflows/local/evaluate/main.nf'
include { REPORT         } from '../subworkflows/local/report/main.nf'
include { NETWORK_SCORE  } from '../modules/local/network/score/main.nf'
include { hasWeights     } from '../subworkflows/local/initialise/main.nf'

workflow PREDICTGBM {
    take:
    ch_options // value: [models: [entry, ...], training: [[entry:, seeds:, settings:], ...], simulated: bool, sheet: path or null]

    main:
    PREPARE_COHORT(ch_options, channel.value(file(params.atlas, type: 'dir')))

    // A training goes on to the benchmark, in which each patient is told by networks that never saw him or her.
    TRAIN_COHORT(PREPARE_COHORT.out.exam, PREPARE_COHORT.out.recurrence, PREPARE_COHORT.out.selection, ch_options)
    // What an earlier training has left, and what this one leaves.
    ch_weights = ch_options
        .flatMap { options -> options.models - options.training*.entry }
        .map { entry -> tuple(entry.name, hasWeights(params, entry) ? file("${params.weights}/${entry.name}", type: 'dir') : []) }
        .mix(TRAIN_COHORT.out.model.map { folder -> tuple(folder.name, folder) })

    PREDICT(PREPARE_COHORT.out.exam, PREPARE_COHORT.out.score, ch_weights, ch_options)

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
    tables = EVALUATE.out.tables

    NETWORK_SCORE(TRAIN_COHORT.out.model.map { folder -> folder.name }, tables.first())

    REPORT(
        PREPARE_COHORT.out.exam,
        PREDICT.out.map,
        PLAN.out.plan,
        PREPARE_COHORT.out.recurrence,
        tables,
        PREPARE_COHORT.out.picture,
        ch_weights.filter { _model, folder -> folder }.map { _model, folder -> folder },
        ch_options,
        PREPARE_COHORT.out.versions.mix(TRAIN_COHORT.out.versions, PREDICT.out.versions, PLAN.out.versions, EVALUATE.out.versions),
    )
    report = REPORT.out.report
    model = TRAIN_COHORT.out.model

    emit:
    report // path: multiqc_report.html
    tables // path: tables/
    model // folder of each trained model: networks and card.json
}
