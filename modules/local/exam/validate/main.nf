include { quoted    } from '../../../../subworkflows/local/initialise/main.nf'
include { writeRows } from '../../../../subworkflows/local/initialise/main.nf'

// Many exams in one task, as Python starts once for all of them.
process EXAM_VALIDATE {
    tag "${metas[0].id}${metas.size() > 1 ? " and ${metas.size() - 1} more" : ''}"
    label 'process_single'
    label 'family_growth'

    input:
    tuple val(metas), val(rows), path(files, stageAs: 'input/?/*')

    output:
    tuple val(metas), path("*_faults.json"), emit: faults

    script:
    def lines = rows.withIndex(1).collect { row, number ->
        def against = row.beside.reference ? "--reference ${quoted([row.beside.reference])}" : ''
        "--row row${number}.json --out ${row.meta.id}_faults.json ${against} ${quoted(row.files.values() + row.scores.values())}"
    }
    """
    ${writeRows(rows)}
    run_many.py validate_exam.py <<'END_OF_LINES'
    ${lines.join('\n    ')}
    END_OF_LINES
    # An exam that could not be checked is not one without faults.
    ls ${metas.collect { meta -> "${meta.id}_faults.json" }.join(' ')}
    """

    stub:
    """
    for id in ${metas*.id.join(' ')}; do echo '[]' > \${id}_faults.json; done
    """
}
