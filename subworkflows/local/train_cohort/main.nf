/*
    Models that learn from patients: splits of the cohort, one task per network, one folder per model with a card.
*/

include { SPLITS_DRAW      } from '../../../modules/local/splits/draw/main.nf'
include { NETWORK_TRAIN    } from '../../../modules/local/network/train/main.nf'
include { NETWORK_ASSEMBLE } from '../../../modules/local/network/assemble/main.nf'
include { readDocument     } from '../initialise/main.nf'

workflow TRAIN_COHORT {
    take:
    ch_exam // [meta, exam folder]
    ch_recurrence // [patient, [session:, days:], labels on the exam's grid]
    ch_selection // JSON: each patient's follow-up that counts
    ch_options // value: options with the models to train

    main:
    SPLITS_DRAW(ch_selection, params.train_splits_file ? file(params.train_splits_file, checkIfExists: true, glob: false) : [])
    ch_splits = SPLITS_DRAW.out.splits.first()

    // Only patients whose recurrence is known can be learned from.
    ch_case = ch_exam
        .map { meta, exam -> tuple(meta.patient, exam) }
        .join(ch_recurrence.map { patient, _followup, segmentation -> tuple(patient, segmentation) })
        .toSortedList { a, b -> a[0] <=> b[0] }

    ch_network = ch_splits
        .combine(ch_options.flatMap { options -> options.training })
        .flatMap { splits, training ->
            def seeds = (0..<training.seeds).collect { number -> params.seed + number }
            [readDocument(splits).splits.keySet().toList(), seeds].combinations { split, seed ->
                def id = "${training.entry.name}_split-${split}_seed-${seed}".toString()
                tuple([id: id, model: training.entry.name, split: split, seed: seed], training.entry, training.settings)
            }
        }
    def checkpoints = params.train_checkpoints ? file(params.train_checkpoints, type: 'dir', glob: false) : null
    // A container could not be given a folder that is not there yet.
    checkpoints?.mkdirs()
    NETWORK_TRAIN(
        ch_network,
        ch_case.map { cases -> cases.collect { _patient, exam, _segmentation -> exam } },
        ch_case.map { cases -> cases.collect { _patient, _exam, segmentation -> segmentation } },
        ch_splits,
        checkpoints ? checkpoints.toString() : '',
    )

    NETWORK_ASSEMBLE(
        NETWORK_TRAIN.out.network
            .map { meta, network, log -> tuple(meta.model, [network, log]) }
            .groupTuple()
            .combine(ch_options.flatMap { options -> options.training.collect { training -> tuple(training.entry.name, training.entry) } }, by: 0)
            .map { model, files, entry -> tuple(model, entry, files.flatten().sort { path -> path.name }) },
        ch_splits,
        ch_options.map { options -> options.simulated },
    )
    model = NETWORK_ASSEMBLE.out.model
    splits = ch_splits
    versions = SPLITS_DRAW.out.versions.mix(NETWORK_TRAIN.out.versions, NETWORK_ASSEMBLE.out.versions)

    emit:
    model // folder: networks and card.json
    splits // JSON
    versions
}
