process PLAN_EVALUATE {
    tag "${meta.id} ${meta.model}"
    label 'process_single'
    label 'family_growth'

    input:
    tuple val(meta), path(exam), path(map), path(plan), path(guidelines), val(followup), path(recurrence), path(others, stageAs: 'other/?/*'), val(output)

    output:
    tuple val(meta), path("*_metrics.json"), emit: metrics, optional: true
    tuple val(meta), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    // The recurrence as other choices give it, in the order of their names.
    def otherwise = [followup.others, [others].flatten()].transpose().collect { choice, path -> "--other-recurrence ${choice}=${path}" }.join(' ')
    def probability = output == 'probability' ? '--probability' : ''
    def masks = guidelines ? "--guidelines ${guidelines}" : ''
    def prefix = "${meta.id}_space-${task.ext.space}_model-${meta.model}"
    """
    evaluate_plan.py --plan ${plan} --recurrence ${recurrence} --brain-mask ${exam}/*_desc-brain_mask.nii.gz \\
        --score ${map} --tumor-seg ${exam}/*_desc-tumor_dseg.nii.gz --out ${prefix}_metrics.json --failure ${prefix}_failure.json \\
        --patient ${meta.patient} --session ${meta.session} --cohort '${meta.cohort}' --model ${meta.model} \\
        --wm ${exam}/*_label-WM_probseg.nii.gz --gm ${exam}/*_label-GM_probseg.nii.gz --csf ${exam}/*_label-CSF_probseg.nii.gz \\
        --followup-session ${followup.session} --days ${followup.days} ${probability} ${masks} ${otherwise} ${args}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    touch ${meta.id}_space-${task.ext.space}_model-${meta.model}_metrics.json versions.yml
    """
}
