/*
    Every map becomes a plan of exactly the standard plan's volume.
*/

include { PLAN_MAKE } from '../../../modules/local/plan/make/main.nf'
include { lostTasks } from '../initialise/main.nf'

workflow PLAN {
    take:
    ch_exam // [meta, exam folder]
    ch_map // [meta with model, map]

    main:
    ch_run = ch_map
        .map { meta, map -> tuple(meta.subMap(meta.keySet() - 'model'), meta, map) }
        .combine(ch_exam, by: 0)
        .map { _exam_meta, meta, map, exam -> tuple(meta, exam, map) }
    PLAN_MAKE(ch_run)

    ch_lost = lostTasks(
        ch_map.map { meta, _map -> meta },
        PLAN_MAKE.out.plan.mix(PLAN_MAKE.out.failure).map { meta, _path -> meta },
        'plan',
    )
    plan = PLAN_MAKE.out.plan
    failure = PLAN_MAKE.out.failure.map { _meta, json -> json }.mix(ch_lost)
    versions = PLAN_MAKE.out.versions

    emit:
    plan // [meta with model, plan]
    failure
    versions
}
