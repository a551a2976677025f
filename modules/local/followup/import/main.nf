include { quoted    } from '../../../../subworkflows/local/initialise/main.nf'
include { writeRows } from '../../../../subworkflows/local/initialise/main.nf'

// Many exams in one task, as Python starts once for all of them.
process FOLLOWUP_IMPORT {
    tag "${metas[0].id}${metas.size() > 1 ? " and ${metas.size() - 1} more" : ''}"
    label 'process_single'
    label 'family_growth'

    input:
    tuple val(metas), val(rows), path(files, stageAs: 'input/?/*')

    output:
    tuple val(metas), path("*_space-*_desc-registered_dseg.nii.gz"), emit: segmentation, optional: true
    tuple val(metas), path("*_followup.json"), emit: summary, optional: true
    tuple val(metas), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def lines = rows.withIndex(1).collect { row, number ->
        def placed = row.beside.transform ? "--transform ${quoted([row.beside.transform])}" : ''
        "--row row${number}.json --reference ${quoted([row.beside.exam])} ${placed} --failure ${row.meta.id}_failure.json" +
            " --out ${row.meta.id}_space-${task.ext.space}_desc-registered_dseg.nii.gz --summary ${row.meta.id}_followup.json ${quoted(row.files.values())}"
    }
    """
    ${writeRows(rows)}
    run_many.py import_registered.py <<'END_OF_LINES'
    ${lines.join('\n    ')}
    END_OF_LINES
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    ${metas.collect { meta -> """echo '{"patient": "${meta.patient}", "session": "${meta.session}", "recurrence_enhancing_ml": 1, "recurrence_core_ml": 1, "recurrence_all_ml": 1}' > ${meta.id}_followup.json""" }.join('\n    ')}
    touch ${metas.collect { meta -> "${meta.id}_space-${task.ext.space}_desc-registered_dseg.nii.gz" }.join(' ')} versions.yml
    """
}
