// Many plans in one task, as Python starts once for all of them.
process PLAN_EVALUATE {
    tag "${metas[0].id} ${metas[0].model}${metas.size() > 1 ? " and ${metas.size() - 1} more" : ''}"
    label 'process_single'
    label 'family_growth'

    input:
    tuple val(metas), path(exams), path(maps), path(spreads), path(plans), path(guidelines), val(followups), path(recurrences), path(others, stageAs: 'other/?/*'), val(outputs)

    output:
    tuple val(metas), path("*_metrics.json"), emit: metrics, optional: true
    tuple val(metas), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    def masks = [guidelines].flatten()
    def uncertain = [spreads].flatten()
    def varied = [others].flatten()
    def lines = [metas, [exams].flatten(), [maps].flatten(), [plans].flatten(), followups, [recurrences].flatten(), outputs].transpose().collect { meta, exam, map, plan, followup, recurrence, output ->
        // The recurrence as other choices give it, in the order of their names; each patient's after those of the patient before.
        def own = varied.take(followup.others.size())
        varied = varied.drop(followup.others.size())
        def otherwise = [followup.others, own].transpose().collect { choice, path -> "--other-recurrence ${choice}=${path}" }.join(' ')
        def guideline = masks.findAll { mask -> mask.name.startsWith("${meta.id}_") }.join(' ')
        def spread = uncertain.find { image -> image.name.startsWith("${meta.id}_") }
        def prefix = "${meta.id}_space-${task.ext.space}_model-${meta.model}"
        "--plan ${plan} --recurrence ${recurrence} --brain-mask ${exam}/*_desc-brain_mask.nii.gz" +
            " --score ${map} ${spread ? "--spread ${spread}" : ''} --tumor-seg ${exam}/*_desc-tumor_dseg.nii.gz --out ${prefix}_metrics.json --failure ${prefix}_failure.json" +
            " --patient ${meta.patient} --session ${meta.session} --cohort '${meta.cohort}' --model ${meta.model}" +
            " --wm ${exam}/*_label-WM_probseg.nii.gz --gm ${exam}/*_label-GM_probseg.nii.gz --csf ${exam}/*_label-CSF_probseg.nii.gz --organs ${exam}" +
            " --followup-session ${followup.session} --days ${followup.days} ${output == 'probability' ? '--probability' : ''}" +
            " ${guideline ? "--guidelines ${guideline}" : ''} ${otherwise} ${args}"
    }
    """
    run_many.py evaluate_plan.py <<'END_OF_LINES'
    ${lines.join('\n    ')}
    END_OF_LINES
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    touch ${metas.collect { meta -> "${meta.id}_space-${task.ext.space}_model-${meta.model}_metrics.json" }.join(' ')} versions.yml
    """
}
