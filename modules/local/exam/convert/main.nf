process EXAM_CONVERT {
    tag "${meta.id}"
    label 'process_low'
    label 'family_imaging'

    input:
    tuple val(meta), val(row), path(files, stageAs: 'input/?/*')

    output:
    tuple val(meta), path("native/*.nii.gz"), emit: images, optional: true
    tuple val(meta), path("native/*.json"), emit: sidecars, optional: true
    tuple val(meta), path("${meta.id}_desc-conversion_quality.json"), emit: quality, optional: true
    tuple val(meta), path("${meta.id}_desc-conversion_qc.png"), emit: picture, optional: true
    tuple val(meta), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    """
    cat > row.json <<'END_OF_ROW'
    ${groovy.json.JsonOutput.toJson(row)}
    END_OF_ROW
    convert_exam.py --row row.json --out-dir native \\
        --quality ${meta.id}_desc-conversion_quality.json --picture ${meta.id}_desc-conversion_qc.png \\
        --failure ${meta.id}_failure.json ${args} ${files}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    mkdir native
    for column in t1 t1c t2 flair; do touch native/\$column.nii.gz; done
    touch native/conversion.json ${meta.id}_desc-conversion_quality.json ${meta.id}_desc-conversion_qc.png versions.yml
    """
}
