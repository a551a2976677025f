include { shownFiles } from '../../../../subworkflows/local/initialise/main.nf'

// Many patients in one task, as Python starts once for all of them.
process QC_DRAW {
    tag "${metas[0].id}${metas.size() > 1 ? " and ${metas.size() - 1} more" : ''}"
    label 'process_single'
    label 'family_report'

    input:
    tuple val(metas), path(exams), path(maps), path(plans), path(recurrences)

    output:
    path "*_desc-qc.png", emit: picture
    path "*_desc-qc.json", emit: caption
    path "*_desc-missed", emit: missed, type: 'dir', optional: true
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    def lines = [metas, [exams].flatten()].transpose().collect { meta, exam ->
        "${shownFiles(meta, exam, maps, plans, recurrences)} --out ${meta.id}_desc-qc.png --missed ${meta.id}_desc-missed ${args}"
    }
    """
    run_many.py draw_qc.py <<'END_OF_LINES'
    ${lines.join('\n    ')}
    END_OF_LINES
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    touch ${metas.collect { meta -> "${meta.id}_desc-qc.png ${meta.id}_desc-qc.json" }.join(' ')} versions.yml
    """
}
