process MULTIQC_REPORT {
    label 'process_low'
    label 'family_report'

    input:
    path tables
    path pictures, stageAs: 'pictures/*'
    path trace, stageAs: 'trace.txt'
    path versions, stageAs: 'software_versions.yml'
    path parameters, stageAs: 'params.json'
    path cards, stageAs: 'networks/?/*'
    path models, stageAs: 'models/?/*'
    path config
    path extra_config, stageAs: 'extra/*'

    output:
    path "multiqc_report.html", emit: report
    path "figures", emit: figures
    path "ro-crate-metadata.json", emit: crate
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    def custom = extra_config ? "--config ${extra_config}" : ''
    """
    multiqc --force --config ${config} ${custom} --filename multiqc_report.html ${args} .
    describe_run.py --tables ${tables} --parameters ${parameters} --version ${workflow.manifest.version} --nextflow ${workflow.nextflow.version} --pictures pictures --out ro-crate-metadata.json
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    mkdir figures
    touch multiqc_report.html ro-crate-metadata.json versions.yml
    """
}
