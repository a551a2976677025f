process PLAN_EXPORT {
    tag "${meta.id}"
    label 'process_low'
    label 'family_imaging'

    input:
    tuple val(meta), path(exam), path(plans), path(image, stageAs: 'native/*'), path(transform), path(dicom, stageAs: 'dicom/*')
    path models, stageAs: 'models/?/*'

    output:
    tuple val(meta), path("export/*_space-t1c_*_mask.nii.gz"), emit: masks, optional: true
    tuple val(meta), path("export/*_desc-plans_rtstruct.dcm"), emit: rtstruct, optional: true
    tuple val(meta), path("export/*_desc-plans_seg.dcm"), emit: segmentation, optional: true
    tuple val(meta), path("export/*_desc-plans_export.json"), emit: summary, optional: true
    tuple val(meta), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    def series = dicom ? "--dicom ${dicom}" : ''
    """
    export_plan.py --plans ${plans} --models ${models} --tumor-seg ${exam}/*_desc-tumor_dseg.nii.gz --brain-mask ${exam}/*_desc-brain_mask.nii.gz \\
        --transform ${transform} --native ${image} ${series} --out-dir export --prefix ${meta.id} \\
        --failure ${meta.id}_failure.json --patient ${meta.patient} --session ${meta.session} ${args}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    mkdir export
    touch export/${meta.id}_space-t1c_desc-core_mask.nii.gz export/${meta.id}_desc-plans_export.json versions.yml
    touch export/${meta.id}_desc-plans_rtstruct.dcm export/${meta.id}_desc-plans_seg.dcm
    """
}
