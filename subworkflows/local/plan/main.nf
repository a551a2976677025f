/*
    Every map becomes a plan of exactly the standard plan's volume; each exam gets the plans of the guidelines asked for.
*/

include { PLAN_MAKE      } from '../../../modules/local/plan/make/main.nf'
include { PLAN_GUIDELINE } from '../../../modules/local/plan/guideline/main.nf'
include { inBatches      } from '../initialise/main.nf'
include { lostTasks      } from '../initialise/main.nf'
include { outOfBatches   } from '../initialise/main.nf'

workflow PLAN {
    take:
    ch_exam // [meta, exam folder]
    ch_map // [meta with model, map]
    ch_atlas // value: atlas folder
    ch_batch // [patient, number, patients in it]: which patients one task takes

    main:
    ch_run = ch_map
        .map { meta, map -> tuple(meta.subMap(meta.keySet() - 'model'), meta, map) }
        .combine(ch_exam, by: 0)
        .map { _exam_meta, meta, map, exam -> tuple(meta, exam, map) }
    PLAN_MAKE(inBatches(ch_run, ch_batch))

    ch_wanted = params.guidelines ? ch_exam : channel.empty()
    PLAN_GUIDELINE(inBatches(ch_wanted, ch_batch), ch_atlas)

    ch_plan = outOfBatches(PLAN_MAKE.out.plan)
    ch_guideline = outOfBatches(PLAN_GUIDELINE.out.plans)
    ch_failed_plan = outOfBatches(PLAN_MAKE.out.failure)
    ch_failed_guideline = outOfBatches(PLAN_GUIDELINE.out.failure)

    ch_lost = lostTasks(
        ch_map.map { meta, _map -> meta },
        ch_plan.mix(ch_failed_plan).map { meta, _path -> meta },
        'plan',
    ).mix(lostTasks(
        ch_wanted.map { meta, _exam -> meta },
        ch_guideline.mix(ch_failed_guideline).map { meta, _path -> meta },
        'guidelines',
    ))
    plan = ch_plan
    guideline = ch_guideline
    failure = ch_failed_plan.mix(ch_failed_guideline).map { _meta, json -> json }.mix(ch_lost)
    versions = PLAN_MAKE.out.versions.mix(PLAN_GUIDELINE.out.versions)

    emit:
    plan // [meta with model, plan]
    guideline // [meta, masks]: plan and allowed region of each guideline
    failure
    versions
}
