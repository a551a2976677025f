/*
    Weights for LMI: one task per simulated individual grows tumours in it, one trains the network on them all.
*/

include { TUMORS_GROW } from '../../../modules/local/tumors/grow/main.nf'
include { LMI_TRAIN   } from '../../../modules/local/lmi/train/main.nf'

workflow TRAIN_LMI {
    take:
    ch_options // options of a run that trains LMI; empty for any other
    ch_atlas // value: atlas folder

    main:
    ch_index = ch_options.flatMap { _options -> (1..(params.train_individuals + params.train_held_out)).toList() }
    TUMORS_GROW(ch_index, ch_atlas)

    LMI_TRAIN(TUMORS_GROW.out.tumors.collect(sort: { file -> file.name }))
    model = LMI_TRAIN.out.model
    versions = TUMORS_GROW.out.versions.mix(LMI_TRAIN.out.versions)

    emit:
    model // [lmi.csv, lmi.json, lmi.npz]
    versions
}
