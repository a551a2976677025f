/*
    Tumour labels and tissue maps for every exam that the samplesheet gives none for, and the exam folder that the
    models read. Follow-ups get tumour labels only.
*/

include { EXAM_CONFORM   } from '../../../modules/local/exam/conform/main.nf'
include { EXAM_PREPARE   } from '../../../modules/local/exam/prepare/main.nf'
include { SEGMENT_TUMOR  } from '../segment_tumor/main.nf'
include { TISSUE_SEGMENT } from '../../../modules/local/tissue/segment/main.nf'
include { columnFiles    } from '../initialise/main.nf'
include { filesByColumn  } from '../initialise/main.nf'
include { lostTasks      } from '../initialise/main.nf'
include { stageRow       } from '../initialise/main.nf'

// A row with further files, and with what made them.
def withFiles(Map row, List files, Map added, Map made) {
    return stageRow(row + [made: (row.made ?: [:]) + made], filesByColumn(row, files) + added)
}

// Whether a row still needs tumour labels or tissue maps. The atlas' own tissue maps are laid over the exam when it is prepared.
def isIncomplete(Map row) {
    return !row.files.containsKey('tumor_seg') || needsTissue(row)
}

def needsTissue(Map row) {
    return row.meta.role == 'preop' && params.tissue_segmentation != 'atlas' && !row.files.containsKey('tissue_wm')
}

workflow SEGMENT {
    take:
    ch_row // [meta, row, files]: exams in atlas space
    ch_atlas // value: atlas folder
    ch_options // value: options with the algorithms of tumour segmentation

    main:
    // Images of a sheet may lie in different voxel orders under any name, without a brain mask; what is segmented or
    // registered here has one order, one name and a mask.
    ch_state = ch_row.branch { _meta, row, _files ->
        foreign: row.made == null && (isIncomplete(row) || row.meta.role == 'followup')
        known: true
    }
    EXAM_CONFORM(ch_state.foreign)
    ch_conformed = EXAM_CONFORM.out.images
        .join(ch_state.foreign)
        .map { meta, images, row, _files ->
            def staged = stageRow(row, columnFiles(images))
            tuple(meta, staged[0], staged[1])
        }

    ch_tumor = ch_state.known
        .mix(ch_conformed)
        .branch { _meta, row, _files ->
            absent: !row.files.containsKey('tumor_seg')
            given: true
        }
    SEGMENT_TUMOR(ch_tumor.absent.map { meta, _row, files -> tuple(meta, files) }, ch_atlas, ch_options)
    ch_labelled = ch_tumor.absent
        .join(SEGMENT_TUMOR.out.segmentation)
        .map { meta, row, files, segmentation, name ->
            def staged = withFiles(row + [tumor_labels: 'canonical'], files, [tumor_seg: segmentation], [tumor_seg: "segmented (${name})".toString()])
            tuple(meta, staged[0], staged[1])
        }
        .mix(ch_tumor.given)
        .branch { meta, row, _files ->
            followup: meta.role == 'followup'
            tissue: needsTissue(row)
            complete: true
        }

    TISSUE_SEGMENT(
        ch_labelled.tissue.map { meta, row, files ->
            def columns = filesByColumn(row, files)
            tuple(meta, columns.findAll { column, _path -> column != 'tumor_seg' }.values().toList(), columns.tumor_seg)
        },
        ch_atlas,
    )
    ch_complete = ch_labelled.tissue
        .join(TISSUE_SEGMENT.out.maps)
        .map { meta, row, files, maps ->
            def staged = withFiles(row, files, columnFiles(maps), [tissue: "registered (${params.tissue_segmentation})".toString()])
            tuple(meta, staged[0], staged[1])
        }
        .mix(ch_labelled.complete)

    EXAM_PREPARE(ch_complete, ch_atlas)

    ch_lost = lostTasks(
        ch_state.foreign.map { meta, _row, _files -> meta },
        EXAM_CONFORM.out.images.mix(EXAM_CONFORM.out.failure).map { meta, _path -> meta },
        'conform exam',
    ).mix(
        lostTasks(
            ch_labelled.tissue.map { meta, _row, _files -> meta },
            TISSUE_SEGMENT.out.maps.mix(TISSUE_SEGMENT.out.failure).map { meta, _path -> meta },
            'segment tissue',
        ),
        lostTasks(
            ch_complete.map { meta, _row, _files -> meta },
            EXAM_PREPARE.out.exam.mix(EXAM_PREPARE.out.failure).map { meta, _path -> meta },
            'prepare exam',
        ),
    )
    exam = EXAM_PREPARE.out.exam
    followup = ch_labelled.followup
    summary = EXAM_PREPARE.out.summary.map { _meta, json -> json }
    quality = SEGMENT_TUMOR.out.quality.mix(TISSUE_SEGMENT.out.quality.map { _meta, json -> json })
    picture = SEGMENT_TUMOR.out.picture.mix(TISSUE_SEGMENT.out.picture.map { _meta, png -> png })
    failure = EXAM_CONFORM.out.failure
        .mix(TISSUE_SEGMENT.out.failure, EXAM_PREPARE.out.failure)
        .map { _meta, json -> json }
        .mix(SEGMENT_TUMOR.out.failure, ch_lost)
    versions = EXAM_CONFORM.out.versions.mix(SEGMENT_TUMOR.out.versions, TISSUE_SEGMENT.out.versions, EXAM_PREPARE.out.versions)

    emit:
    exam // [meta, exam folder]: pre-operative exams, complete
    followup // [meta, row, files]: follow-ups in atlas space with tumour labels
    summary // exam.json of each exam
    quality // JSON records
    picture // PNG
    failure
    versions
}
