/*
    The score of every plan against the recurrence that came, and the statistics over the cohort.
*/

include { PLAN_EVALUATE      } from '../../../modules/local/plan/evaluate/main.nf'
include { STATISTICS_COMPUTE } from '../../../modules/local/statistics/compute/main.nf'
include { flatFiles          } from '../initialise/main.nf'
include { inBatches          } from '../initialise/main.nf'
include { lostTasks          } from '../initialise/main.nf'
include { outOfBatches       } from '../initialise/main.nf'

workflow EVALUATE {
    take:
    ch_selection // JSON: each patient's follow-up that counts
    ch_exam // [meta, exam folder]
    ch_recurrence // [patient, [session:, days:], labels on the exam's grid]
    ch_other // [patient, [axis:setting, ...], [labels on the exam's grid, ...]]: the recurrence as other choices give it
    ch_map // [meta with model, map]
    ch_spread // [meta with model, standard deviation of the map, or [] without]
    ch_plan // [meta with model, plan]
    ch_guideline // [meta, masks of guidelines], where there are any
    ch_given // JSON records of the doses that were given
    ch_failure // JSON records of the stages before
    ch_quality // JSON records of the quality of each step
    ch_options // value: options
    ch_batch // [patient, number, patients in it]: which patients one task takes

    main:
    ch_target = ch_recurrence
        // As one value: of a patient without any, join gives one null.
        .join(ch_other.map { patient, choices, others -> tuple(patient, [choices: choices, labels: others]) }, remainder: true)
        .filter { row -> row[1] != null }
        .map { patient, followup, segmentation, others -> tuple(patient, followup + [others: others ? others.choices : []], segmentation, others ? others.labels : []) }

    ch_run = ch_map
        .join(ch_spread)
        .join(ch_plan)
        .map { meta, map, spread, plan -> tuple(meta.patient, meta, map, spread, plan) }
        .combine(ch_exam.join(ch_guideline, remainder: true).map { meta, exam, masks -> tuple(meta.patient, exam, masks ?: []) }, by: 0)
        .combine(ch_target, by: 0)
        .combine(ch_options.map { options -> [options.models.collectEntries { entry -> [entry.name, entry.output] }] })
        .map { _patient, meta, map, spread, plan, exam, masks, followup, segmentation, others, outputs -> tuple(meta, exam, map, spread, plan, masks, followup, segmentation, others, outputs[meta.model] ?: '') }
    PLAN_EVALUATE(inBatches(ch_run, ch_batch).map { columns -> flatFiles(columns) })

    ch_metrics = outOfBatches(PLAN_EVALUATE.out.metrics)
    ch_failed = outOfBatches(PLAN_EVALUATE.out.failure)

    ch_lost = lostTasks(
        ch_run.map { meta, _exam, _map, _spread, _plan, _masks, _followup, _segmentation, _others, _output -> meta },
        ch_metrics.mix(ch_failed).map { meta, _path -> meta },
        'evaluate',
    )

    STATISTICS_COMPUTE(
        ch_metrics.map { _meta, json -> json }.toSortedList { a, b -> a.name <=> b.name },
        ch_selection,
        ch_failure.mix(ch_failed.map { _meta, json -> json }, ch_lost).toSortedList { a, b -> a.name <=> b.name },
        ch_quality.toSortedList { a, b -> a.name <=> b.name },
        ch_given.toSortedList { a, b -> a.name <=> b.name },
        ch_options.map { options -> options.simulated },
    )
    tables = STATISTICS_COMPUTE.out.tables
    versions = PLAN_EVALUATE.out.versions.mix(STATISTICS_COMPUTE.out.versions)

    emit:
    tables // folder
    versions
}
