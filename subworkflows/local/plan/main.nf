/*
    Every map becomes a plan of exactly the standard plan's volume; each exam gets the plans of the guidelines asked for.
*/

include { PLAN_MAKE      } from '../../../modules/local/plan/make/main.nf'
include { PLAN_GUIDELINE } from '../../../modules/local/plan/guideline/main.nf'
include { lostTasks      } from '../initialise/main.nf'

workflow PLAN {
    take:
    ch_exam // [meta, exam folder]
    ch_map // [meta with model, map]
    ch_atlas // value: atlas folder

    main:
    ch_run = ch_map
        .map { meta, map -> tuple(meta.subMap(meta.keySet() - 'model'), meta, map) }
        .combine(ch_exam, by: 0)
        .map { _exam_meta, meta, map, exam -> tuple(meta, exam, map) }
    PLAN_MAKE(ch_run)

    ch_wanted = params.guidelines ? ch_exam : channel.empty()
    PLAN_GUIDELINE(ch_wanted, ch_atlas)

    ch_lost = lostTasks(
        ch_map.map { meta, _map -> meta },
        PLAN_MAKE.out.plan.mix(PLAN_MAKE.out.failure).map { meta, _path -> meta },
        'plan',
    ).mix(lostTasks(
        ch_wanted.map { meta, _exam -> meta },
        PLAN_GUIDELINE.out.plans.mix(PLAN_GUIDELINE.out.failure).map { meta, _path -> meta },
        'guidelines',
    ))
    plan = PLAN_MAKE.out.plan
    guideline = PLAN_GUIDELINE.out.plans
    failure = PLAN_MAKE.out.failure.mix(PLAN_GUIDELINE.out.failure).map { _meta, json -> json }.mix(ch_lost)
    versions = PLAN_MAKE.out.versions.mix(PLAN_GUIDELINE.out.versions)

    emit:
    plan // [meta with model, plan]
    guideline // [meta, masks]: plan and allowed region of each guideline
    failure
    versions
}
