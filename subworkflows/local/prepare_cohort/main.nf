/*
    From a samplesheet, or from nothing but a number of patients to simulate, to exams in atlas space with their
    recurrence: what models are trained on and scored against.
*/

include { SIMULATE_COHORT   } from '../simulate_cohort/main.nf'
include { VALIDATE_COHORT   } from '../validate_cohort/main.nf'
include { PREPARE_EXAM      } from '../prepare_exam/main.nf'
include { SEGMENT           } from '../segment/main.nf'
include { REGISTER_FOLLOWUP } from '../register_followup/main.nf'
include { FOLLOWUP_SELECT   } from '../../../modules/local/followup/select/main.nf'
include { VARY_FOLLOWUP     } from '../vary_followup/main.nf'
include { readDocument      } from '../initialise/main.nf'

workflow PREPARE_COHORT {
    take:
    ch_options // value: options
    ch_atlas // value: atlas folder

    main:
    ch_sheet = ch_options.filter { options -> !options.simulated }.map { options -> tuple(options.sheet, [:]) }
    ch_versions = channel.empty()
    // Its folder among the results would be there, and empty, for patients who are none of it.
    if (params.simulate) {
        SIMULATE_COHORT(ch_options, ch_atlas)
        ch_sheet = SIMULATE_COHORT.out.sheet
        ch_versions = SIMULATE_COHORT.out.versions
    }

    VALIDATE_COHORT(ch_sheet, ch_options)

    // Follow-ups whose labels are given in the space of the pre-operative exam need no images.
    ch_followup = VALIDATE_COHORT.out.followup.branch { _meta, row, _files ->
        registered: row.files.containsKey('registered_seg')
        raw: true
    }

    PREPARE_EXAM(VALIDATE_COHORT.out.preoperative.mix(ch_followup.raw), ch_atlas)

    SEGMENT(PREPARE_EXAM.out.exam, ch_atlas, ch_options)

    REGISTER_FOLLOWUP(ch_followup.registered, SEGMENT.out.followup, SEGMENT.out.exam, PREPARE_EXAM.out.source, PREPARE_EXAM.out.transform, VALIDATE_COHORT.out.batch)

    ch_failure = VALIDATE_COHORT.out.failure.mix(PREPARE_EXAM.out.failure, SEGMENT.out.failure, REGISTER_FOLLOWUP.out.failure)
    FOLLOWUP_SELECT(
        VALIDATE_COHORT.out.cohort,
        REGISTER_FOLLOWUP.out.summary.toSortedList { a, b -> a.name <=> b.name },
        SEGMENT.out.summary.toSortedList { a, b -> a.name <=> b.name },
        ch_failure.toSortedList { a, b -> a.name <=> b.name },
    )

    ch_selected = FOLLOWUP_SELECT.out.selection
        .flatMap { json -> readDocument(json).patients }
        .filter { patient -> patient.status == 'evaluated' }
        .map { patient -> tuple(patient.patient, patient.followup_session, patient.days) }

    VARY_FOLLOWUP(FOLLOWUP_SELECT.out.selection, REGISTER_FOLLOWUP.out.pair, REGISTER_FOLLOWUP.out.segmentation)

    batch = VALIDATE_COHORT.out.batch
    exam = SEGMENT.out.exam
    row = VALIDATE_COHORT.out.preoperative
    source = PREPARE_EXAM.out.source
    transform = PREPARE_EXAM.out.transform
    score = VALIDATE_COHORT.out.score
    dose = VALIDATE_COHORT.out.dose
    selection = FOLLOWUP_SELECT.out.selection
    recurrence = REGISTER_FOLLOWUP.out.segmentation
        .map { meta, segmentation -> tuple(meta.patient, meta.session, segmentation) }
        .join(ch_selected, by: [0, 1])
        .map { patient, session, segmentation, days -> tuple(patient, [session: session, days: days], segmentation) }
    other = VARY_FOLLOWUP.out.recurrence
    failure = ch_failure.mix(VARY_FOLLOWUP.out.failure)
    quality = PREPARE_EXAM.out.quality.mix(SEGMENT.out.quality, REGISTER_FOLLOWUP.out.quality)
    picture = PREPARE_EXAM.out.picture.mix(SEGMENT.out.picture, REGISTER_FOLLOWUP.out.picture)
    versions = ch_versions.mix(
        VALIDATE_COHORT.out.versions,
        PREPARE_EXAM.out.versions,
        SEGMENT.out.versions,
        REGISTER_FOLLOWUP.out.versions,
        FOLLOWUP_SELECT.out.versions,
        VARY_FOLLOWUP.out.versions,
    )

    emit:
    batch // [patient, number, patients in it]: which patients one task takes
    exam // [meta, exam folder] of each pre-operative exam
    row // [meta, row, files] of each pre-operative exam, as the samplesheet gives it
    source // [meta, images by column] of raw exams, on their own grids
    transform // [meta, transforms from native to atlas space] of raw exams
    score // [meta with model, score map] of the samplesheet
    dose // [meta, dose that was given, prescribed dose in Gy] of the samplesheet
    selection // JSON: each patient's follow-up that counts, or why there is none
    recurrence // [patient, [session:, days:], labels on the exam's grid]
    other // [patient, [axis:setting, ...], [labels on the exam's grid, ...]]: the recurrence as other choices give it
    failure // JSON records
    quality // JSON records
    picture // PNG
    versions
}
