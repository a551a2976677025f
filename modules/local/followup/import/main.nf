process FOLLOWUP_IMPORT {
    tag "${meta.id}"
    label 'process_single'
    label 'family_growth'

    input:
    tuple val(meta), val(row), path(segmentation, stageAs: 'input/1/*'), path(exam, stageAs: 'exam/*'), path(transform, stageAs: 'transform/*')

    output:
    tuple val(meta), path("${meta.id}_space-*_desc-registered_dseg.nii.gz"), emit: segmentation, optional: true
    tuple val(meta), path("${meta.id}_followup.json"), emit: summary, optional: true
    tuple val(meta), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def placed = transform ? "--transform ${transform}" : ''
    """
    cat > row.json <<'END_OF_ROW'
    ${groovy.json.JsonOutput.toJson(row)}
    END_OF_ROW
    import_registered.py --row row.json --reference ${exam} ${placed} \\
        --out ${meta.id}_space-${task.ext.space}_desc-registered_dseg.nii.gz --summary ${meta.id}_followup.json \\
        --failure ${meta.id}_failure.json ${segmentation}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    echo '{"patient": "${meta.patient}", "session": "${meta.session}", "recurrence_enhancing_ml": 1, "recurrence_core_ml": 1, "recurrence_all_ml": 1}' > ${meta.id}_followup.json
    touch ${meta.id}_space-${task.ext.space}_desc-registered_dseg.nii.gz versions.yml
    """
}
