process MODEL_PREDICT {
    tag "${meta.id} ${meta.model}"
    label 'process_model'

    // The image of the family that the model's entry names.
    container { "${params.container_prefix}/${entry.family}:${params.container_tag}" }
    cpus { entry.cpus ?: 1 }
    memory { (entry.memory ? "${entry.memory}" as nextflow.util.MemoryUnit : 2.GB) * task.attempt }
    time { (entry.time ? "${entry.time}" as nextflow.util.Duration : 1.h) * task.attempt }

    input:
    tuple val(meta), path(exam), val(entry), path(weights, stageAs: 'weights/*')

    output:
    tuple val(meta), path("*_probseg.nii.gz"), emit: map, optional: true
    tuple val(meta), path("*_probseg.json"), emit: sidecar, optional: true
    tuple val(meta), path("*_{probseg,spread}.nii.gz"), emit: images, optional: true
    tuple val(meta), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    def prefix = "${meta.id}_space-${task.ext.space}_model-${meta.model}"
    def trained = weights ? "--weights ${weights}" : ''
    """
    cat > entry.json <<'END_OF_ENTRY'
    ${groovy.json.JsonOutput.toJson(entry)}
    END_OF_ENTRY
    run_model.py --model ${meta.model} --entry entry.json --exam ${exam} --out ${prefix}_probseg.nii.gz --cpus ${task.cpus} \\
        --failure ${prefix}_failure.json --patient ${meta.patient} --session ${meta.session} ${trained} ${args}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    touch ${meta.id}_space-${task.ext.space}_model-${meta.model}_probseg.nii.gz versions.yml
    """
}
