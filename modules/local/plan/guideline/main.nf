process PLAN_GUIDELINE {
    tag "${meta.id}"
    label 'process_single'
    label 'family_growth'

    input:
    tuple val(meta), path(exam)
    path atlas

    output:
    tuple val(meta), path("*_mask.nii.gz"), emit: plans, optional: true
    tuple val(meta), path("*_mask.json"), emit: sidecar, optional: true
    tuple val(meta), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    def prefix = "${meta.id}_space-${task.ext.space}"
    """
    make_guidelines.py --exam ${exam} --atlas ${atlas} --out-prefix ${prefix} --failure ${prefix}_failure.json \\
        --patient ${meta.patient} --session ${meta.session} ${args}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    touch ${meta.id}_space-${task.ext.space}_desc-estroeano2023_mask.nii.gz ${meta.id}_space-${task.ext.space}_desc-estroeano2023allowed_mask.nii.gz versions.yml
    """
}
