process TUMOR_SEGMENT {
    tag "${meta.id}"
    label 'process_single'
    label 'family_imaging'

    input:
    tuple val(meta), path(images, stageAs: 'exam/*')
    path atlas

    output:
    tuple val(meta), path("${meta.id}_desc-tumor_dseg.nii.gz"), emit: segmentation, optional: true
    tuple val(meta), path("${meta.id}_desc-tumor_dseg.json"), emit: summary, optional: true
    tuple val(meta), path("*_quality.json"), emit: quality, optional: true
    tuple val(meta), path("*_desc-tumor_qc.png"), emit: picture, optional: true
    tuple val(meta), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    """
    segment_tumor.py --exam exam --phase ${meta.role} --atlas ${atlas} --out ${meta.id}_desc-tumor_dseg.nii.gz \\
        --summary ${meta.id}_desc-tumor_dseg.json --quality ${meta.id}_desc-tumor_quality.json --picture ${meta.id}_desc-tumor_qc.png \\
        --failure ${meta.id}_failure.json --patient ${meta.patient} --session ${meta.session} ${args}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    touch ${meta.id}_desc-tumor_dseg.nii.gz ${meta.id}_desc-tumor_qc.png versions.yml
    echo '{"patient": "${meta.patient}", "session": "${meta.session}", "tumor_method": "trial", "tumor_quality": "trial"}' > ${meta.id}_desc-tumor_dseg.json
    echo '{"patient": "${meta.patient}", "session": "${meta.session}", "stage": "tumor", "method": "", "note": "", "measures": []}' > ${meta.id}_desc-tumor_quality.json
    """
}
