process MODEL_CHECKMAP {
    tag "${meta.id} ${meta.model}"
    label 'process_single'
    label 'family_growth'

    input:
    tuple val(meta), path(exam), path(map, stageAs: 'given/*')

    output:
    tuple val(meta), path("*_probseg.nii.gz"), emit: map, optional: true
    tuple val(meta), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def prefix = "${meta.id}_space-${task.ext.space}_model-${meta.model}"
    """
    check_map.py --map ${map} --exam ${exam} --out ${prefix}_probseg.nii.gz \\
        --failure ${prefix}_failure.json --patient ${meta.patient} --session ${meta.session} --model ${meta.model}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    touch ${meta.id}_space-${task.ext.space}_model-${meta.model}_probseg.nii.gz versions.yml
    """
}
