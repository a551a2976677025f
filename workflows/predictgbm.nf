/*
    The whole road: samplesheet -> exams -> maps -> plans -> scores -> report.
    A sheet without follow-ups takes the same road; its patients get maps and plans, and no scores.
*/

include { SIMULATE_COHORT   } from '../subworkflows/local/simulate_cohort/main.nf'
include { VALIDATE_COHORT   } from '../subworkflows/local/validate_cohort/main.nf'
include { PREPARE_EXAM      } from '../subworkflows/local/prepare_exam/main.nf'
include { SEGMENT           } from '../subworkflows/local/segment/main.nf'
include { REGISTER_FOLLOWUP } from '../subworkflows/local/register_followup/main.nf'
include { PREDICT           } from '../subworkflows/local/predict/main.nf'
include { PLAN              } from '../subworkflows/local/plan/main.nf'
include { EVALUATE          } from '../subworkflows/local/evaluate/main.nf'
include { REPORT            } from '../subworkflows/local/report/main.nf'

workflow PREDICTGBM {
    take:
    ch_options // value: [models: [entry, ...], simulated: bool, sheet: path or null]

    main:
    ch_atlas = channel.value(file(params.atlas, type: 'dir'))

    SIMULATE_COHORT(ch_options.filter { options -> options.simulated }, ch_atlas)

    ch_sheet = ch_options
        .filter { options -> !options.simulated }
        .map { options -> tuple(options.sheet, [:]) }
        .mix(SIMULATE_COHORT.out.sheet)

    VALIDATE_COHORT(ch_sheet, ch_options)

    // Follow-ups whose labels are given in the space of the pre-operative exam need no images.
    ch_followup = VALIDATE_COHORT.out.followup.branch { _meta, row, _files ->
        registered: row.files.containsKey('registered_seg')
        raw: true
    }

    PREPARE_EXAM(VALIDATE_COHORT.out.preoperative.mix(ch_followup.raw), ch_atlas)

    SEGMENT(PREPARE_EXAM.out.exam, ch_atlas, ch_options)

    REGISTER_FOLLOWUP(ch_followup.registered, SEGMENT.out.followup, SEGMENT.out.exam, PREPARE_EXAM.out.source, PREPARE_EXAM.out.transform)

    PREDICT(SEGMENT.out.exam, VALIDATE_COHORT.out.score, ch_options)

    PLAN(SEGMENT.out.exam, PREDICT.out.map)

    EVALUATE(
        VALIDATE_COHORT.out.cohort,
        SEGMENT.out.summary,
        SEGMENT.out.exam,
        REGISTER_FOLLOWUP.out.segmentation,
        REGISTER_FOLLOWUP.out.summary,
        PREDICT.out.map,
        PLAN.out.plan,
        VALIDATE_COHORT.out.failure.mix(
            PREPARE_EXAM.out.failure,
            SEGMENT.out.failure,
            REGISTER_FOLLOWUP.out.failure,
            PREDICT.out.failure,
            PLAN.out.failure,
        ),
        PREPARE_EXAM.out.quality.mix(SEGMENT.out.quality, REGISTER_FOLLOWUP.out.quality),
        ch_options,
    )

    ch_versions = SIMULATE_COHORT.out.versions.mix(
        VALIDATE_COHORT.out.versions,
        PREPARE_EXAM.out.versions,
        SEGMENT.out.versions,
        REGISTER_FOLLOWUP.out.versions,
        PREDICT.out.versions,
        PLAN.out.versions,
        EVALUATE.out.versions,
    )

    REPORT(
        SEGMENT.out.exam,
        PREDICT.out.map,
        PLAN.out.plan,
        EVALUATE.out.recurrence,
        EVALUATE.out.tables,
        PREPARE_EXAM.out.picture.mix(SEGMENT.out.picture, REGISTER_FOLLOWUP.out.picture),
        ch_options,
        ch_versions,
    )
    report = REPORT.out.report
    tables = EVALUATE.out.tables

    emit:
    report // path: multiqc_report.html
    tables // path: tables/
}
