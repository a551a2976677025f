process EXAM_PREPARE {
    tag "${meta.id}"
    label 'process_single'
    label 'family_growth'

    input:
    tuple val(meta), val(row), path(files, stageAs: 'input/?/*')
    path atlas

    output:
    tuple val(meta), path("exam/${meta.id}", type: 'dir'), emit: exam, optional: true
    tuple val(meta), path("${meta.id}_exam.json"), emit: summary, optional: true
    tuple val(meta), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    """
    cat > row.json <<'END_OF_ROW'
    ${groovy.json.JsonOutput.toJson(row)}
    END_OF_ROW
    prepare_exam.py --row row.json --atlas ${atlas} --out-dir exam/${meta.id} --failure ${meta.id}_failure.json ${args} ${files}
    if [ -e exam/${meta.id}/exam.json ]; then cp exam/${meta.id}/exam.json ${meta.id}_exam.json; fi
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    mkdir -p exam/${meta.id}
    echo '{"patient": "${meta.patient}", "session": "${meta.session}", "tumor_core_ml": 1, "tumor_whole_ml": 1, "tissue": "given"}' > ${meta.id}_exam.json
    cp ${meta.id}_exam.json exam/${meta.id}/exam.json
    touch versions.yml
    """
}
