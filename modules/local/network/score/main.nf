process NETWORK_SCORE {
    tag "${model}"
    label 'process_single'
    label 'family_growth'

    input:
    val model
    path tables

    output:
    path "${model}_metrics.json", emit: metrics
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    """
    score_networks.py --model ${model} --tables ${tables} --out ${model}_metrics.json ${args}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    touch ${model}_metrics.json versions.yml
    """
}
