include { quoted    } from '../../../../subworkflows/local/initialise/main.nf'
include { writeRows } from '../../../../subworkflows/local/initialise/main.nf'

// Many exams in one task, as Python starts once for all of them.
process EXAM_PREPARE {
    tag "${metas[0].id}${metas.size() > 1 ? " and ${metas.size() - 1} more" : ''}"
    label 'process_single'
    label 'family_growth'

    input:
    tuple val(metas), val(rows), path(files, stageAs: 'input/?/*')
    path atlas

    output:
    tuple val(metas), path("exam/*", type: 'dir'), emit: exam, optional: true
    tuple val(metas), path("*_exam.json"), emit: summary, optional: true
    tuple val(metas), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    def lines = rows.withIndex(1).collect { row, number ->
        "--row row${number}.json --atlas ${atlas} --out-dir exam/${row.meta.id} --failure ${row.meta.id}_failure.json ${args} ${quoted(row.files.values())}"
    }
    """
    ${writeRows(rows)}
    run_many.py prepare_exam.py <<'END_OF_LINES'
    ${lines.join('\n    ')}
    END_OF_LINES
    for id in ${metas*.id.join(' ')}; do
        if [ -e exam/\$id/exam.json ]; then cp exam/\$id/exam.json \${id}_exam.json; fi
    done
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    ${metas.collect { meta -> """mkdir -p exam/${meta.id} && echo '{"patient": "${meta.patient}", "session": "${meta.session}", "tumor_core_ml": 1, "tumor_whole_ml": 1, "tissue": "given"}' | tee ${meta.id}_exam.json > exam/${meta.id}/exam.json""" }.join('\n    ')}
    touch versions.yml
    """
}
