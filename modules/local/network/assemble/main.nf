process NETWORK_ASSEMBLE {
    tag "${model}"
    label 'process_single'
    label 'family_learning'

    input:
    tuple val(model), val(entry), path(networks, stageAs: 'networks/*')
    path splits
    val simulated

    output:
    path "${model}", emit: model
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    """
    cat > entry.json <<'END_OF_ENTRY'
    ${groovy.json.JsonOutput.toJson(entry)}
    END_OF_ENTRY
    assemble_networks.py --entry entry.json --splits ${splits} --out ${model} ${simulated ? '--simulated' : ''} ${args} networks/*
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    mkdir ${model}
    touch ${model}/card.json versions.yml
    """
}
