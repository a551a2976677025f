/*
    Every exam in atlas space, skull removed, all images on one grid. Raw exams are converted, their brain is
    extracted, their contrasts are registered to the T1c and that to the atlas; exams in atlas space pass.
*/

include { BRAIN_EXTRACT } from '../../../modules/local/brain/extract/main.nf'
include { EXAM_ALIGN    } from '../../../modules/local/exam/align/main.nf'
include { EXAM_CONVERT  } from '../../../modules/local/exam/convert/main.nf'
include { columnFiles   } from '../initialise/main.nf'
include { lostTasks     } from '../initialise/main.nf'
include { stageRow      } from '../initialise/main.nf'

workflow PREPARE_EXAM {
    take:
    ch_row // [meta, row, files]
    ch_atlas // value: atlas folder

    main:
    ch_space = ch_row.branch { _meta, row, _files ->
        raw: row.space == 'native'
        aligned: true
    }

    EXAM_CONVERT(ch_space.raw)

    ch_native = EXAM_CONVERT.out.images.map { meta, images -> tuple(meta, columnFiles(images)) }
    ch_brain = ch_native.branch { _meta, columns ->
        given: columns.containsKey('brain_mask')
        absent: true
    }
    BRAIN_EXTRACT(
        ch_brain.absent.map { meta, columns -> tuple(meta, columns.t1c) },
        ch_atlas,
        params.hdbet_weights ? file(params.hdbet_weights, checkIfExists: true, glob: false) : [],
    )
    ch_mask = ch_brain.given.map { meta, columns -> tuple(meta, columns.brain_mask) }.mix(BRAIN_EXTRACT.out.mask)
    // No model reads the tensor of a follow-up.
    ch_ready = ch_native
        .join(ch_mask)
        .map { meta, columns, mask -> tuple(meta, columns.findAll { column, _path -> column != 'brain_mask' && !(column == 'tensor' && meta.role == 'followup') }.values().toList(), mask) }

    EXAM_ALIGN(ch_ready, ch_atlas)

    ch_aligned = EXAM_ALIGN.out.images
        .join(ch_space.raw)
        .map { meta, images, row, _files ->
            def made = row.files.containsKey('brain_mask') ? [:] : [brain_mask: "extracted (${params.brain_extraction})".toString()]
            def staged = stageRow(row + [space: params.atlas_space, made: made], columnFiles(images))
            tuple(meta, staged[0], staged[1])
        }

    ch_lost = lostTasks(
        ch_space.raw.map { meta, _row, _files -> meta },
        EXAM_CONVERT.out.images.mix(EXAM_CONVERT.out.failure).map { meta, _path -> meta },
        'convert exam',
    ).mix(
        lostTasks(
            ch_brain.absent.map { meta, _columns -> meta },
            BRAIN_EXTRACT.out.mask.mix(BRAIN_EXTRACT.out.failure).map { meta, _path -> meta },
            'extract brain',
        ),
        lostTasks(
            ch_ready.map { meta, _images, _mask -> meta },
            EXAM_ALIGN.out.images.mix(EXAM_ALIGN.out.failure).map { meta, _path -> meta },
            'align exam',
        ),
    )
    exam = ch_space.aligned.mix(ch_aligned)
    source = ch_native
    transform = EXAM_ALIGN.out.transforms
    quality = EXAM_CONVERT.out.quality.mix(BRAIN_EXTRACT.out.quality, EXAM_ALIGN.out.quality).map { _meta, json -> json }
    picture = EXAM_CONVERT.out.picture.mix(BRAIN_EXTRACT.out.picture, EXAM_ALIGN.out.picture).map { _meta, png -> png }
    failure = EXAM_CONVERT.out.failure
        .mix(BRAIN_EXTRACT.out.failure, EXAM_ALIGN.out.failure)
        .map { _meta, json -> json }
        .mix(ch_lost)
    versions = EXAM_CONVERT.out.versions.mix(BRAIN_EXTRACT.out.versions, EXAM_ALIGN.out.versions)

    emit:
    exam // [meta, row, files]: images of the row in atlas space
    source // [meta, images by column]: raw exams on their own grids
    transform // [meta, transforms from native to atlas space]
    quality // JSON records
    picture // PNG
    failure
    versions
}
