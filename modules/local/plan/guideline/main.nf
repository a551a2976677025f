// Many exams in one task, as Python starts once for all of them.
process PLAN_GUIDELINE {
    tag "${metas[0].id}${metas.size() > 1 ? " and ${metas.size() - 1} more" : ''}"
    label 'process_low'
    label 'family_growth'

    input:
    tuple val(metas), path(exams)
    path atlas

    output:
    tuple val(metas), path("*_mask.nii.gz"), emit: plans, optional: true
    tuple val(metas), path("*_mask.json"), emit: sidecar, optional: true
    tuple val(metas), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    def lines = [metas, [exams].flatten()].transpose().collect { meta, exam ->
        def prefix = "${meta.id}_space-${task.ext.space}"
        "--exam ${exam} --atlas ${atlas} --out-prefix ${prefix} --failure ${prefix}_failure.json" +
            " --patient ${meta.patient} --session ${meta.session} ${args}"
    }
    """
    run_many.py make_guidelines.py <<'END_OF_LINES'
    ${lines.join('\n    ')}
    END_OF_LINES
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    touch ${metas.collectMany { meta -> ['', 'allowed'].collect { kind -> "${meta.id}_space-${task.ext.space}_desc-estroeano2023${kind}_mask.nii.gz" } }.join(' ')} versions.yml
    """
}
