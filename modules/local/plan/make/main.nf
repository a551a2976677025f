process PLAN_MAKE {
    tag "${meta.id} ${meta.model}"
    label 'process_single'
    label 'family_growth'

    input:
    tuple val(meta), path(exam), path(map)

    output:
    tuple val(meta), path("*_desc-isovol_mask.nii.gz"), emit: plan, optional: true
    tuple val(meta), path("*_desc-isovol_mask.json"), emit: sidecar, optional: true
    tuple val(meta), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    def prefix = "${meta.id}_space-${task.ext.space}_model-${meta.model}_desc-isovol"
    """
    make_plan.py --score ${map} --tumor-seg ${exam}/*_desc-tumor_dseg.nii.gz --brain-mask ${exam}/*_desc-brain_mask.nii.gz \\
        --out ${prefix}_mask.nii.gz --failure ${prefix}_failure.json \\
        --patient ${meta.patient} --session ${meta.session} --model ${meta.model} ${args}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    touch ${meta.id}_space-${task.ext.space}_model-${meta.model}_desc-isovol_mask.nii.gz versions.yml
    """
}
