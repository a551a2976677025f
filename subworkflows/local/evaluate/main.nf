/*
    The follow-up that counts, the score of every plan against it, and the statistics over the cohort.
*/

include { FOLLOWUP_SELECT    } from '../../../modules/local/followup/select/main.nf'
include { PLAN_EVALUATE      } from '../../../modules/local/plan/evaluate/main.nf'
include { STATISTICS_COMPUTE } from '../../../modules/local/statistics/compute/main.nf'
include { lostTasks          } from '../initialise/main.nf'
include { readDocument       } from '../initialise/main.nf'

workflow EVALUATE {
    take:
    ch_cohort // cohort.json
    ch_exam_summary // exam.json of each exam
    ch_exam // [meta, exam folder]
    ch_followup // [meta, labels on the exam's grid]
    ch_followup_summary // JSON of each follow-up
    ch_map // [meta with model, map]
    ch_plan // [meta with model, plan]
    ch_failure // JSON records of the stages before
    ch_quality // JSON records of the quality of each step
    ch_options // value: options

    main:
    FOLLOWUP_SELECT(
        ch_cohort,
        ch_followup_summary.toSortedList { a, b -> a.name <=> b.name },
        ch_exam_summary.toSortedList { a, b -> a.name <=> b.name },
        ch_failure.toSortedList { a, b -> a.name <=> b.name },
    )

    ch_selected = FOLLOWUP_SELECT.out.selection
        .flatMap { json -> readDocument(json).patients }
        .filter { patient -> patient.status == 'evaluated' }
        .map { patient -> tuple(patient.patient, patient.followup_session, patient.days) }
    ch_recurrence = ch_followup
        .map { meta, segmentation -> tuple(meta.patient, meta.session, segmentation) }
        .join(ch_selected, by: [0, 1])
        .map { patient, session, segmentation, days -> tuple(patient, [session: session, days: days], segmentation) }

    ch_run = ch_map
        .join(ch_plan)
        .map { meta, map, plan -> tuple(meta.patient, meta, map, plan) }
        .combine(ch_exam.map { meta, exam -> tuple(meta.patient, exam) }, by: 0)
        .combine(ch_recurrence, by: 0)
        .map { _patient, meta, map, plan, exam, followup, segmentation -> tuple(meta, exam, map, plan, followup, segmentation) }
    PLAN_EVALUATE(ch_run)

    ch_lost = lostTasks(
        ch_run.map { meta, _exam, _map, _plan, _followup, _segmentation -> meta },
        PLAN_EVALUATE.out.metrics.mix(PLAN_EVALUATE.out.failure).map { meta, _path -> meta },
        'evaluate',
    )

    STATISTICS_COMPUTE(
        PLAN_EVALUATE.out.metrics.map { _meta, json -> json }.toSortedList { a, b -> a.name <=> b.name },
        FOLLOWUP_SELECT.out.selection,
        ch_failure.mix(PLAN_EVALUATE.out.failure.map { _meta, json -> json }, ch_lost).toSortedList { a, b -> a.name <=> b.name },
        ch_quality.toSortedList { a, b -> a.name <=> b.name },
        ch_options.map { options -> options.simulated },
    )
    recurrence = ch_recurrence
    tables = STATISTICS_COMPUTE.out.tables
    versions = FOLLOWUP_SELECT.out.versions.mix(PLAN_EVALUATE.out.versions, STATISTICS_COMPUTE.out.versions)

    emit:
    recurrence // [patient, [session:, days:], labels]
    tables // folder
    versions
}
