// Many patients in one task, as Python starts once for all of them.
process VIEWER_BUILD {
    tag "${metas[0].id}${metas.size() > 1 ? " and ${metas.size() - 1} more" : ''}"
    label 'process_single'
    label 'family_report'

    input:
    tuple val(metas), path(exams), path(maps), path(plans), path(recurrences)
    path niivue

    output:
    path "sub-*.html", emit: page

    script:
    def args = task.ext.args ?: ''
    def lines = [metas, [exams].flatten()].transpose().collect { meta, exam ->
        def own = [maps: maps, plans: plans].collect { option, files -> "--${option} ${[files].flatten().findAll { path -> path.name.startsWith("${meta.id}_") }.join(' ')}" }.join(' ')
        def later = [recurrences].flatten().find { path -> path.name.startsWith("sub-${meta.patient}_") }
        "--exam ${exam} ${own} ${later ? "--recurrence ${later}" : ''} --niivue ${niivue} --out sub-${meta.patient}.html ${args}"
    }
    """
    run_many.py build_viewer.py <<'END_OF_LINES'
    ${lines.join('\n    ')}
    END_OF_LINES
    """

    stub:
    """
    touch ${metas.collect { meta -> "sub-${meta.patient}.html" }.join(' ')}
    """
}
