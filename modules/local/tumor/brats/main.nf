// A BraTS algorithm: its image is started by the container engine from the task itself, as modules/local/model/container does.
// Input is read-only, the network is off; what comes out is checked and made canonical before it leaves the task.
process TUMOR_BRATS {
    tag "${meta.id} ${algorithm.name}"
    label 'process_medium'

    input:
    tuple val(meta), path(images, stageAs: 'exam/*'), val(algorithm), path(weights, stageAs: 'weights')

    output:
    tuple val(meta), path("${meta.id}_desc-tumor_dseg.nii.gz"), emit: segmentation, optional: true
    tuple val(meta), path("*_quality.json"), emit: quality, optional: true
    tuple val(meta), path("*_desc-tumor_qc.png"), emit: picture, optional: true
    tuple val(meta), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def engine = task.ext.engine ?: 'auto'
    def args = task.ext.args ?: ''
    def files = weights ? '--weights weights' : ''
    // An exam may be segmented by several algorithms.
    def prefix = "${meta.id}_alg-${algorithm.name}"
    """
    cat > algorithm.json <<'END_OF_ALGORITHM'
    ${groovy.json.JsonOutput.toJson(algorithm)}
    END_OF_ALGORITHM
    run_brats.py --exam exam --space ${task.ext.space} --phase ${meta.role} --algorithm algorithm.json --engine ${engine} \\
        --out ${meta.id}_desc-tumor_dseg.nii.gz --quality ${prefix}_desc-tumor_quality.json --picture ${prefix}_desc-tumor_qc.png \\
        --failure ${prefix}_failure.json --patient ${meta.patient} --session ${meta.session} ${files} ${args}
    rm -rf brats/input
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    def prefix = "${meta.id}_alg-${algorithm.name}"
    """
    touch ${meta.id}_desc-tumor_dseg.nii.gz ${prefix}_desc-tumor_qc.png versions.yml
    echo '{"patient": "${meta.patient}", "session": "${meta.session}", "stage": "tumor", "method": "", "note": "", "measures": []}' > ${prefix}_desc-tumor_quality.json
    """
}
