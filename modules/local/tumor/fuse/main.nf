process TUMOR_FUSE {
    tag "${meta.id}"
    label 'process_single'
    label 'family_growth'

    input:
    tuple val(meta), path(segmentations, stageAs: 'input/?/*')

    output:
    tuple val(meta), path("${meta.id}_desc-tumor_dseg.nii.gz"), emit: segmentation, optional: true
    tuple val(meta), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    """
    fuse_segmentations.py --out ${meta.id}_desc-tumor_dseg.nii.gz \\
        --failure ${meta.id}_failure.json --patient ${meta.patient} --session ${meta.session} ${segmentations}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    touch ${meta.id}_desc-tumor_dseg.nii.gz versions.yml
    """
}
