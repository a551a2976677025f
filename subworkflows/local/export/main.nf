/*
    Plans in the formats of the clinic, one set for each pre-operative exam that came raw.
*/

include { PLAN_EXPORT   } from '../../../modules/local/plan/export/main.nf'
include { filesByColumn } from '../initialise/main.nf'
include { lostTasks     } from '../initialise/main.nf'
include { modelLists    } from '../initialise/main.nf'

// The DICOM folder that holds the T1c of a raw exam; nothing where it came as NIfTI.
def dicomFolder(Map columns) {
    def place = columns.t1c ?: columns.dicom
    return place && !(place.name.toLowerCase() ==~ /.*\.nii(\.gz)?/) ? place : []
}

workflow EXPORT {
    take:
    ch_exam // [meta, exam folder]
    ch_plan // [meta with model, plan]
    ch_row // [meta, row, files] as the samplesheet gives the exam
    ch_source // [meta, images by column] of raw exams, on their own grids
    ch_transform // [meta, transforms from native to atlas space] of raw exams

    main:
    ch_came = ch_row.branch { _meta, row, _files ->
        raw: row.space == 'native'
        aligned: true
    }
    ch_came.aligned.subscribe { meta, _row, _files ->
        log.warn("--export: ${meta.id} came in atlas space, there is no native grid to take its plans to; they stay as they are in its folder")
    }

    ch_run = ch_plan
        .map { meta, plan -> tuple(meta.subMap(meta.keySet() - 'model'), plan) }
        .groupTuple()
        .join(ch_exam)
        .join(ch_source.map { meta, columns -> tuple(meta, columns.t1c) })
        .join(ch_transform.map { meta, transforms -> tuple(meta, [transforms].flatten().find { path -> path.name.contains('_from-t1c_') }) })
        .join(ch_came.raw.map { meta, row, files -> tuple(meta, dicomFolder(filesByColumn(row, files))) })
        .map { meta, plans, exam, native_t1c, transform, dicom -> tuple(meta, exam, plans.sort { plan -> plan.name }, native_t1c, transform, dicom) }
    PLAN_EXPORT(ch_run, modelLists())

    ch_lost = lostTasks(
        ch_run.map { meta, _exam, _plans, _native, _transform, _dicom -> meta },
        PLAN_EXPORT.out.summary.mix(PLAN_EXPORT.out.failure).map { meta, _path -> meta },
        'export plan',
    )
    rtstruct = PLAN_EXPORT.out.rtstruct
    segmentation = PLAN_EXPORT.out.segmentation
    masks = PLAN_EXPORT.out.masks
    failure = PLAN_EXPORT.out.failure.map { _meta, json -> json }.mix(ch_lost)
    versions = PLAN_EXPORT.out.versions

    emit:
    rtstruct // [meta, RTSTRUCT]
    segmentation // [meta, DICOM-SEG]
    masks // [meta, masks on the native grid of the T1c]
    failure
    versions
}
