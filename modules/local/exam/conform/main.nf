process EXAM_CONFORM {
    tag "${meta.id}"
    label 'process_single'
    label 'family_growth'

    input:
    tuple val(meta), val(row), path(files, stageAs: 'input/?/*')

    output:
    tuple val(meta), path("conformed/*.nii.gz"), emit: images, optional: true
    tuple val(meta), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    """
    cat > row.json <<'END_OF_ROW'
    ${groovy.json.JsonOutput.toJson(row)}
    END_OF_ROW
    conform_exam.py --row row.json --out-dir conformed --failure ${meta.id}_failure.json ${files}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    mkdir conformed
    for column in t1 t1c t2 flair brain_mask; do touch conformed/\$column.nii.gz; done
    touch versions.yml
    """
}
