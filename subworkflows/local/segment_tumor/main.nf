/*
    Tumour labels by the algorithms of the run: the built-in segmenter for trials, or containers of the BraTS challenge.
    Several algorithms are fused by majority. Pre-operative exams and follow-ups have algorithms of their own.
*/

include { TUMOR_BRATS   } from '../../../modules/local/tumor/brats/main.nf'
include { TUMOR_FUSE    } from '../../../modules/local/tumor/fuse/main.nf'
include { TUMOR_SEGMENT } from '../../../modules/local/tumor/segment/main.nf'
include { lostTasks     } from '../initialise/main.nf'

workflow SEGMENT_TUMOR {
    take:
    ch_exam // [meta, images named by their column]
    ch_atlas // value: atlas folder
    ch_options // value: options with the algorithms of each phase

    main:
    ch_run = ch_exam
        .combine(ch_options)
        .flatMap { meta, images, options ->
            options.tumor_algorithms[meta.role].collect { algorithm -> tuple(meta, images, algorithm) }
        }
        .branch { _meta, _images, algorithm ->
            trial: algorithm.name == 'trial'
            container: true
        }

    TUMOR_SEGMENT(ch_run.trial.map { meta, images, _algorithm -> tuple(meta, images) }, ch_atlas)
    // An exam may go to several algorithms, whose tasks are told apart by it.
    ch_container = ch_run.container.map { meta, images, algorithm ->
        def weights = algorithm.weights ? file("${params.tumor_weights}/${algorithm.name}", glob: false) : []
        tuple(meta + [algorithm: algorithm.name], images, algorithm, weights)
    }
    TUMOR_BRATS(ch_container)

    // Until an exam has the result of each of its algorithms, it has none.
    ch_result = TUMOR_SEGMENT.out.segmentation
        .map { meta, segmentation -> tuple(meta, [name: 'trial', path: segmentation]) }
        .mix(TUMOR_BRATS.out.segmentation.map { meta, segmentation -> tuple(meta.findAll { key, _value -> key != 'algorithm' }, [name: meta.algorithm, path: segmentation]) })
        .combine(ch_options)
        .map { meta, result, options -> tuple(groupKey(meta, options.tumor_algorithms[meta.role].size()), result) }
        .groupTuple(remainder: true)
        .combine(ch_options)
        .map { key, results, options ->
            def names = options.tumor_algorithms[key.getGroupTarget().role]*.name
            // In the order of the algorithms, so that a rerun finds the task in the cache.
            tuple(key.getGroupTarget(), results.sort { result -> names.indexOf(result.name) }*.path, names)
        }
        .filter { _meta, segmentations, names -> segmentations.size() == names.size() }
        .branch { _meta, segmentations, _names ->
            single: segmentations.size() == 1
            several: true
        }
    TUMOR_FUSE(ch_result.several.map { meta, segmentations, _names -> tuple(meta, segmentations) })

    ch_lost = lostTasks(
        ch_run.trial.map { meta, _images, _algorithm -> meta },
        TUMOR_SEGMENT.out.segmentation.mix(TUMOR_SEGMENT.out.failure).map { meta, _path -> meta },
        'segment tumour',
    ).mix(
        lostTasks(
            ch_container.map { meta, _images, _algorithm, _weights -> meta },
            TUMOR_BRATS.out.segmentation.mix(TUMOR_BRATS.out.failure).map { meta, _path -> meta },
            'segment tumour',
        ),
        lostTasks(
            ch_result.several.map { meta, _segmentations, _names -> meta },
            TUMOR_FUSE.out.segmentation.mix(TUMOR_FUSE.out.failure).map { meta, _path -> meta },
            'fuse tumour labels',
        ),
    )
    segmentation = ch_result.single
        .map { meta, segmentations, names -> tuple(meta, segmentations[0], names[0]) }
        .mix(TUMOR_FUSE.out.segmentation.join(ch_result.several.map { meta, _segmentations, names -> tuple(meta, names.join(' + ')) }))
    quality = TUMOR_SEGMENT.out.quality.mix(TUMOR_BRATS.out.quality).map { _meta, json -> json }
    picture = TUMOR_SEGMENT.out.picture.mix(TUMOR_BRATS.out.picture).map { _meta, png -> png }
    failure = TUMOR_SEGMENT.out.failure.mix(TUMOR_BRATS.out.failure, TUMOR_FUSE.out.failure).map { _meta, json -> json }.mix(ch_lost)
    versions = TUMOR_SEGMENT.out.versions.mix(TUMOR_BRATS.out.versions, TUMOR_FUSE.out.versions)

    emit:
    segmentation // [meta, tumour labels, name of the algorithm]
    quality // JSON records
    picture // PNG
    failure
    versions
}
