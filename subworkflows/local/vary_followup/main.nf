/*
    The recurrence as other choices give it: another follow-up of the same patient, or the same one registered by another
    method. Plans are scored against each of them, to see whether the ranking of the models survives.
*/

include { FOLLOWUP_REGISTER as FOLLOWUP_REGISTER_OTHERWISE } from '../../../modules/local/followup/register/main.nf'
include { diracWeights                                     } from '../initialise/main.nf'
include { lostTasks                                        } from '../initialise/main.nf'
include { readDocument                                     } from '../initialise/main.nf'
include { registrations                                    } from '../initialise/main.nf'

workflow VARY_FOLLOWUP {
    take:
    ch_selection // JSON: each patient's follow-up that counts, and those that other choices would have picked
    ch_pair // what FOLLOWUP_REGISTER takes
    ch_segmentation // [meta, labels on the exam's grid] of each follow-up, by the method of the main analysis

    main:
    ch_patient = ch_selection
        .flatMap { json -> readDocument(json).patients }
        .filter { patient -> patient.status == 'evaluated' }

    ch_other = ch_patient
        .flatMap { patient -> patient.others.collect { other -> tuple(patient.patient, other.session, "${other.axis}:${other.setting}".toString()) } }
        .combine(ch_segmentation.map { meta, labels -> tuple(meta.patient, meta.session, labels) }, by: [0, 1])
        .map { patient, _session, choice, labels -> tuple(patient, choice, labels) }

    ch_again = ch_pair
        .map { inputs -> tuple(inputs[0].patient, inputs[0].session, inputs) }
        .join(ch_patient.map { patient -> tuple(patient.patient, patient.followup_session) }, by: [0, 1])
        .combine(channel.fromList(registrations() - params.registration))
        .map { _patient, _session, inputs, method -> [inputs[0] + [algorithm: method]] + inputs[1..5] + [method] }
    FOLLOWUP_REGISTER_OTHERWISE(ch_again, diracWeights())

    ch_lost = lostTasks(
        ch_again.map { inputs -> inputs[0] },
        FOLLOWUP_REGISTER_OTHERWISE.out.segmentation.mix(FOLLOWUP_REGISTER_OTHERWISE.out.failure).map { meta, _path -> meta },
        'register follow-up',
        'secondary',
    )
    recurrence = FOLLOWUP_REGISTER_OTHERWISE.out.segmentation
        .map { meta, labels -> tuple(meta.patient, "registration:${meta.algorithm}".toString(), labels) }
        .mix(ch_other)
        .groupTuple()
        .map { patient, choices, labels ->
            // In one order, whichever task ended first: a rerun then finds the scores in the cache.
            def sorted = [choices, labels].transpose().sort { a, b -> a[0] <=> b[0] }.transpose()
            tuple(patient, sorted[0], sorted[1])
        }
    failure = FOLLOWUP_REGISTER_OTHERWISE.out.failure.map { _meta, json -> json }.mix(ch_lost)
    versions = FOLLOWUP_REGISTER_OTHERWISE.out.versions

    emit:
    recurrence // [patient, [axis:setting, ...], [labels on the exam's grid, ...]]
    failure // JSON records
    versions
}
