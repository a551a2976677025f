/*
    Follow-up labels in the space of the pre-operative exam: registered here, or given already registered by the
    samplesheet (registered_seg) and brought to the exam's grid.
*/

include { FOLLOWUP_IMPORT   } from '../../../modules/local/followup/import/main.nf'
include { FOLLOWUP_REGISTER } from '../../../modules/local/followup/register/main.nf'
include { diracWeights      } from '../initialise/main.nf'
include { filesByColumn     } from '../initialise/main.nf'
include { inBatches         } from '../initialise/main.nf'
include { lostTasks         } from '../initialise/main.nf'
include { outOfBatches      } from '../initialise/main.nf'
include { restage           } from '../initialise/main.nf'
include { stageRow          } from '../initialise/main.nf'

workflow REGISTER_FOLLOWUP {
    take:
    ch_registered // [meta, row, files]: follow-ups whose registered labels are given
    ch_followup // [meta, row, files]: follow-ups in atlas space with tumour labels, to register
    ch_exam // [meta, exam folder]
    ch_source // [meta, images by column]: raw exams on their own grids
    ch_transform // [meta, transforms from native to atlas space] of raw exams
    ch_batch // [patient, number, patients in it]: which patients one task takes

    main:
    ch_target = ch_exam
        .join(ch_transform, remainder: true)
        .filter { _meta, exam, _transforms -> exam != null }
        .map { meta, exam, transforms -> tuple(meta.patient, exam, [transforms].flatten().findAll { path -> path?.name?.contains('from-t1c_') }) }

    ch_import = ch_registered
        .map { meta, row, files ->
            def segmentation = filesByColumn(row, files).registered_seg
            def staged = stageRow(row, [registered_seg: segmentation])
            tuple(meta.patient, meta, staged[0], segmentation)
        }
        .combine(ch_target, by: 0)
        .map { _patient, meta, row, segmentation, exam, transform ->
            def beside = [exam: "input/2/${exam.name}".toString()] + (transform ? [transform: "input/3/${transform[0].name}".toString()] : [:])
            tuple(meta, row + [beside: beside], [segmentation, exam] + transform)
        }
    // A patient may have any number of follow-ups: the size of a batch is not known.
    ch_unsized = ch_batch.map { patient, number, _size -> tuple(patient, number, 0) }
    FOLLOWUP_IMPORT(inBatches(ch_import, ch_unsized).map { metas, rows, files -> restage(metas, rows, files) })

    ch_imported = outOfBatches(FOLLOWUP_IMPORT.out.segmentation)
    ch_failed = outOfBatches(FOLLOWUP_IMPORT.out.failure)

    // Bias-corrected images exist in atlas space alone.
    ch_placed = ch_source
        .filter { meta, _columns -> meta.role == 'followup' && !params.n4 }
        .join(ch_transform)
        .map { meta, columns, transforms ->
            def images = columns.subMap(['t1', 't1c', 't2', 'flair', 'adc', 'tumor_seg']).values().toList()
            tuple(meta, [images: images, transforms: [transforms].flatten()])
        }
    ch_pair = ch_followup
        .map { meta, row, files -> tuple(meta, [row: row, columns: filesByColumn(row, files)]) }
        .join(ch_placed, remainder: true)
        .filter { _meta, followup, _placed -> followup != null }
        .map { meta, followup, placed -> tuple(meta.patient, meta, followup, placed ?: [images: [], transforms: []]) }
        .combine(ch_target, by: 0)
        .map { _patient, meta, followup, placed, exam, _transform ->
            def row = followup.row + [files: followup.columns.collectEntries { column, path -> [(column): path.name] }]
            tuple(meta, row, followup.columns.values().toList(), exam, placed.images, placed.transforms, params.registration)
        }
    FOLLOWUP_REGISTER(ch_pair, diracWeights())

    ch_lost = lostTasks(
        ch_import.map { meta, _row, _files -> meta },
        ch_imported.mix(ch_failed).map { meta, _path -> meta },
        'register follow-up',
    ).mix(
        lostTasks(
            ch_pair.map { meta, _row, _images, _exam, _sources, _transforms, _method -> meta },
            FOLLOWUP_REGISTER.out.segmentation.mix(FOLLOWUP_REGISTER.out.failure).map { meta, _path -> meta },
            'register follow-up',
        )
    )
    segmentation = ch_imported.mix(FOLLOWUP_REGISTER.out.segmentation)
    summary = outOfBatches(FOLLOWUP_IMPORT.out.summary).mix(FOLLOWUP_REGISTER.out.summary).map { _meta, json -> json }
    quality = FOLLOWUP_REGISTER.out.quality.map { _meta, json -> json }
    picture = FOLLOWUP_REGISTER.out.picture.map { _meta, png -> png }
    failure = ch_failed.mix(FOLLOWUP_REGISTER.out.failure).map { _meta, json -> json }.mix(ch_lost)
    versions = FOLLOWUP_IMPORT.out.versions.mix(FOLLOWUP_REGISTER.out.versions)

    pair = ch_pair

    emit:
    pair // what FOLLOWUP_REGISTER takes
    segmentation // [meta, labels on the exam's grid]
    summary
    quality // JSON records
    picture // PNG
    failure
    versions
}
