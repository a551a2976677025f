// Many plans in one task, as Python starts once for all of them.
process PLAN_MAKE {
    tag "${metas[0].id} ${metas[0].model}${metas.size() > 1 ? " and ${metas.size() - 1} more" : ''}"
    label 'process_single'
    label 'family_growth'

    input:
    tuple val(metas), path(exams), path(maps)

    output:
    tuple val(metas), path("*_desc-isovol_mask.nii.gz"), emit: plan, optional: true
    tuple val(metas), path("*_desc-isovol_mask.json"), emit: sidecar, optional: true
    tuple val(metas), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    def lines = [metas, [exams].flatten(), [maps].flatten()].transpose().collect { meta, exam, map ->
        def prefix = "${meta.id}_space-${task.ext.space}_model-${meta.model}_desc-isovol"
        "--score ${map} --tumor-seg ${exam}/*_desc-tumor_dseg.nii.gz --brain-mask ${exam}/*_desc-brain_mask.nii.gz" +
            " --out ${prefix}_mask.nii.gz --failure ${prefix}_failure.json" +
            " --patient ${meta.patient} --session ${meta.session} --model ${meta.model} ${args}"
    }
    """
    run_many.py make_plan.py <<'END_OF_LINES'
    ${lines.join('\n    ')}
    END_OF_LINES
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    touch ${metas.collect { meta -> "${meta.id}_space-${task.ext.space}_model-${meta.model}_desc-isovol_mask.nii.gz" }.join(' ')} versions.yml
    """
}
