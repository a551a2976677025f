#!/usr/bin/env nextflow
/*
    PREDICT-GBM: growth models of glioblastoma, judged by the recurrence that came.
*/

include { INITIALISE } from './subworkflows/local/initialise/main.nf'
include { PREDICTGBM } from './workflows/predictgbm.nf'
include { TRAIN_LMI  } from './subworkflows/local/train_lmi/main.nf'
include { parameterHelp ; runSummary } from './subworkflows/local/initialise/main.nf'

workflow {
    def help = params.help
    def train = params.train
    def outdir = params.outdir
    def strict = params.strict

    if (help) {
        log.info(parameterHelp("${projectDir}/nextflow_schema.json"))
    }
    else {
        INITIALISE()
        if (train == 'lmi') {
            TRAIN_LMI(INITIALISE.out.options, channel.value(file(params.atlas, type: 'dir', glob: false)))
        }
        else {
            PREDICTGBM(INITIALISE.out.options)
        }
    }

    workflow.onComplete {
        def summary = help ? [text: '', status: 0] : runSummary(outdir, train, strict)
        log.info(summary.text)
        if (summary.status) {
            // Leaving from here would skip the timeline and the run's other last files; they are written by then.
            Runtime.runtime.addShutdownHook(new Thread({ -> Runtime.runtime.halt(summary.status) } as Runnable))
        }
    }
}
