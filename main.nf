#!/usr/bin/env nextflow
/*
    PREDICT-GBM: growth models of glioblastoma, judged by the recurrence that came.
*/

include { INITIALISE } from './subworkflows/local/initialise/main.nf'
include { PREDICTGBM } from './workflows/predictgbm.nf'
include { parameterHelp ; runSummary } from './subworkflows/local/initialise/main.nf'

workflow {
    if (params.help) {
        log.info(parameterHelp("${projectDir}/nextflow_schema.json"))
    }
    else {
        INITIALISE()
        PREDICTGBM(INITIALISE.out.options)
    }

    workflow.onComplete {
        if (!params.help) {
            def summary = runSummary(workflow, params)
            log.info(summary.text)
            if (summary.status) {
                System.exit(summary.status)
            }
        }
    }
}
