include { shownFiles } from '../../../../subworkflows/local/initialise/main.nf'

// Many patients in one task, as Python starts once for all of them.
process VIEWER_BUILD {
    tag "${metas[0].id}${metas.size() > 1 ? " and ${metas.size() - 1} more" : ''}"
    label 'process_single'
    label 'family_report'

    input:
    tuple val(metas), path(exams), path(maps), path(plans), path(recurrences), path(spreads)
    path niivue
    path models, stageAs: 'models/?/*'

    output:
    path "sub-*.html", emit: page

    script:
    def args = task.ext.args ?: ''
    def lines = [metas, [exams].flatten()].transpose().collect { meta, exam ->
        def uncertain = [spreads].flatten().findAll { image -> image.name.startsWith("${meta.id}_") }.join(' ')
        "${shownFiles(meta, exam, maps, plans, recurrences)} ${uncertain ? "--spreads ${uncertain}" : ''} --models ${models} --niivue ${niivue} --out sub-${meta.patient}.html ${args}"
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
