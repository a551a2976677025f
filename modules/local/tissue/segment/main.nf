process TISSUE_SEGMENT {
    tag "${meta.id}"
    label 'process_medium'
    label 'family_imaging'

    input:
    tuple val(meta), path(images, stageAs: 'exam/*'), path(tumor, stageAs: 'tumor/*')
    path atlas

    output:
    tuple val(meta), path("tissue/*.nii.gz"), emit: maps, optional: true
    tuple val(meta), path("${meta.id}_desc-tissue_quality.json"), emit: quality, optional: true
    tuple val(meta), path("${meta.id}_desc-tissue_qc.png"), emit: picture, optional: true
    tuple val(meta), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    """
    segment_tissue.py --exam exam --tumor-seg ${tumor} --atlas ${atlas} --out-dir tissue --threads ${task.cpus} \\
        --quality ${meta.id}_desc-tissue_quality.json --picture ${meta.id}_desc-tissue_qc.png \\
        --failure ${meta.id}_failure.json --patient ${meta.patient} --session ${meta.session} ${args}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    mkdir tissue
    for tissue in wm gm csf; do touch tissue/tissue_\$tissue.nii.gz; done
    touch ${meta.id}_desc-tissue_quality.json ${meta.id}_desc-tissue_qc.png versions.yml
    """
}
