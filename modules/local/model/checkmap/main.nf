// Many maps in one task, as Python starts once for all of them.
process MODEL_CHECKMAP {
    tag "${metas[0].id} ${metas[0].model}${metas.size() > 1 ? " and ${metas.size() - 1} more" : ''}"
    label 'process_single'
    label 'family_growth'

    input:
    tuple val(metas), path(exams), path(maps, stageAs: 'given/?/*')

    output:
    tuple val(metas), path("*_probseg.nii.gz"), emit: map, optional: true
    tuple val(metas), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def lines = [metas, [exams].flatten(), [maps].flatten()].transpose().collect { meta, exam, map ->
        def prefix = "${meta.id}_space-${task.ext.space}_model-${meta.model}"
        "--map ${map} --exam ${exam} --out ${prefix}_probseg.nii.gz" +
            " --failure ${prefix}_failure.json --patient ${meta.patient} --session ${meta.session} --model ${meta.model}"
    }
    """
    run_many.py check_map.py <<'END_OF_LINES'
    ${lines.join('\n    ')}
    END_OF_LINES
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    touch ${metas.collect { meta -> "${meta.id}_space-${task.ext.space}_model-${meta.model}_probseg.nii.gz" }.join(' ')} versions.yml
    """
}
