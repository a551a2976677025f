process EXAM_VALIDATE {
    tag "${meta.id}"
    label 'process_single'
    label 'family_growth'

    input:
    tuple val(meta), val(row), path(files, stageAs: 'input/?/*'), path(reference, stageAs: 'reference/*')

    output:
    tuple val(meta), path("${meta.id}_faults.json"), emit: faults

    script:
    def against = reference ? "--reference ${reference}" : ''
    """
    cat > row.json <<'END_OF_ROW'
    ${groovy.json.JsonOutput.toJson(row)}
    END_OF_ROW
    validate_exam.py --row row.json --out ${meta.id}_faults.json ${against} ${files}
    """

    stub:
    """
    echo '[]' > ${meta.id}_faults.json
    """
}
