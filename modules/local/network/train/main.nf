process NETWORK_TRAIN {
    tag "${meta.model} split ${meta.split} seed ${meta.seed}"
    label 'process_training'
    label 'family_learning'
    // The folder of unfinished trainings is no input, so that its changes are no reason to train again: a container has to be
    // told of it, and of the GPU.
    containerOptions {
        def docker = workflow.containerEngine in ['docker', 'podman']
        def folder = checkpoints ? "${docker ? '--volume' : '--bind'} '${checkpoints}:${checkpoints}'" : ''
        def gpu = !task.accelerator ? '' : docker ? '--gpus all' : '--nv'
        // Processes that prepare samples hand them over in shared memory, of which these engines give little.
        def shared = docker ? '--shm-size 8g' : ''
        workflow.containerEngine ? "${folder} ${gpu} ${shared}".trim() : ''
    }

    input:
    tuple val(meta), val(entry), val(settings)
    path exams, stageAs: 'exams/*'
    path recurrences, stageAs: 'recurrences/*'
    path splits
    val checkpoints

    output:
    tuple val(meta), path("${meta.id}.net"), path("${meta.id}_log"), emit: network
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    def keep = checkpoints ? "--checkpoint '${checkpoints}/${meta.id}.part'" : ''
    """
    cat > entry.json <<'END_OF_ENTRY'
    ${groovy.json.JsonOutput.toJson(entry)}
    END_OF_ENTRY
    cat > settings.json <<'END_OF_SETTINGS'
    ${groovy.json.JsonOutput.toJson(settings)}
    END_OF_SETTINGS
    train_network.py --entry entry.json --exams exams --recurrences recurrences --splits ${splits} --split ${meta.split} \\
        --seed ${meta.seed} --settings settings.json --out ${meta.id} --cpus ${task.cpus} ${keep} ${args}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    mkdir ${meta.id}_log
    touch ${meta.id}.net versions.yml
    """
}
