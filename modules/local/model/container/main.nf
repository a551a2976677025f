// An outside model: its image is started by the container engine from the task itself, so that the image's own entry point
// runs and the image needs nothing beside it. Input is read-only, the network is off.
process MODEL_CONTAINER {
    tag "${meta.id} ${meta.model}"
    label 'process_model'

    cpus { entry.cpus ?: 1 }
    memory { (entry.memory ? "${entry.memory}" as nextflow.util.MemoryUnit : 4.GB) * task.attempt }
    time { (entry.time ? "${entry.time}" as nextflow.util.Duration : 2.h) * task.attempt }

    input:
    tuple val(meta), path(exam), val(entry)

    output:
    tuple val(meta), path("raw/*.nii.gz"), emit: map, optional: true
    tuple val(meta), path("*_failure.json"), emit: failure, optional: true

    script:
    def engine = task.ext.engine ?: 'auto'
    def prefix = "${meta.id}_space-${task.ext.space}_model-${meta.model}"
    """
    run_container_model.sh ${engine} '${entry.container}' ${exam} raw/${prefix}.nii.gz \\
        ${prefix}_failure.json ${meta.patient} ${meta.session} ${meta.model} ${entry.gpu ? 'gpu' : 'cpu'} ${entry.inputs.join(',')}
    """

    stub:
    """
    mkdir raw && touch raw/${meta.id}_space-${task.ext.space}_model-${meta.model}.nii.gz
    """
}
