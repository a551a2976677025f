/*
    Every model on every exam: the project's own by their function, outside ones by their container, finished score
    maps from the samplesheet. All end as maps on the exam's grid, or as a failure record of that patient and model.
*/

include { MODEL_PREDICT   } from '../../../modules/local/model/predict/main.nf'
include { MODEL_CONTAINER } from '../../../modules/local/model/container/main.nf'
include { MODEL_CHECKMAP  } from '../../../modules/local/model/checkmap/main.nf'
include { inBatches       } from '../initialise/main.nf'
include { lostTasks       } from '../initialise/main.nf'
include { outOfBatches    } from '../initialise/main.nf'

// A parameter of a model that is named as one of the pipeline's takes its value from there, so that --margin is one margin.
// Weights that an entry names are its own; --weights is a folder of many.
def withParameters(Map entry, Map values) {
    def parameters = (entry.parameters ?: [:]).collectEntries { name, value -> [(name): name != 'weights' && values.containsKey(name) ? values[name] : value] }
    return parameters ? entry + [parameters: parameters] : entry
}

workflow PREDICT {
    take:
    ch_exam // [meta, exam folder]
    ch_score // [meta with model, score map]
    ch_weights // [model, folder that a training has left, or []], each model once
    ch_options // value: options with the list of models
    ch_batch // [patient, number, patients in it]: which patients one task takes

    main:
    ch_run = ch_exam
        .combine(ch_options.flatMap { options -> options.models })
        .map { meta, exam, entry -> tuple(meta + [model: entry.name], exam, withParameters(entry, params)) }
        .branch { _meta, _exam, entry ->
            own: entry.function
            outside: entry.container
        }

    MODEL_PREDICT(
        ch_run.own
            .map { meta, exam, entry -> tuple(meta.model, meta, exam, entry) }
            .combine(ch_weights, by: 0)
            .map { _model, meta, exam, entry, weights -> tuple(meta, exam, entry, weights) }
    )
    MODEL_CONTAINER(ch_run.outside)

    ch_given = MODEL_CONTAINER.out.map
        .mix(ch_score)
        .map { meta, map -> tuple(meta.subMap(meta.keySet() - 'model'), meta, map) }
        .combine(ch_exam, by: 0)
        .map { _exam_meta, meta, map, exam -> tuple(meta, exam, map) }
    MODEL_CHECKMAP(inBatches(ch_given, ch_batch))

    ch_failure = MODEL_PREDICT.out.failure.mix(MODEL_CONTAINER.out.failure, outOfBatches(MODEL_CHECKMAP.out.failure))
    ch_checked = outOfBatches(MODEL_CHECKMAP.out.map)
    ch_map = MODEL_PREDICT.out.map.mix(ch_checked)
    ch_expected = ch_run.own.mix(ch_run.outside).map { meta, _exam, _entry -> meta }.mix(
        ch_score.map { meta, _map -> tuple(meta.subMap(meta.keySet() - 'model'), meta) }.combine(ch_exam, by: 0).map { _exam_meta, meta, _exam -> meta }
    )
    ch_lost = lostTasks(ch_expected, ch_map.mix(ch_failure).map { meta, _path -> meta }, 'predict')
    // A map's spread, or that it has none, comes with the map: who joins them waits for no other model.
    spread = MODEL_PREDICT.out.images
        .map { meta, images -> tuple(meta, [images].flatten().find { image -> image.name.endsWith('_spread.nii.gz') } ?: []) }
        .mix(ch_checked.map { meta, _map -> tuple(meta, []) })
    map = ch_map
    failure = ch_failure.map { _meta, json -> json }.mix(ch_lost)
    versions = MODEL_PREDICT.out.versions.mix(MODEL_CHECKMAP.out.versions)

    emit:
    map // [meta with model, map on the exam's grid]
    spread // [meta with model, standard deviation of the map, or [] without]
    failure
    versions
}
