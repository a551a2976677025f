process EXAM_ALIGN {
    tag "${meta.id}"
    label 'process_medium'
    label 'family_imaging'

    input:
    tuple val(meta), path(images, stageAs: 'native/*'), path(brain, stageAs: 'brain/*')
    path atlas

    output:
    tuple val(meta), path("aligned/*.nii.gz"), emit: images, optional: true
    tuple val(meta), path("${meta.id}_from-*_to-*_xfm.tfm"), emit: transforms, optional: true
    tuple val(meta), path("${meta.id}_desc-alignment_quality.json"), emit: quality, optional: true
    tuple val(meta), path("${meta.id}_desc-alignment_qc.png"), emit: picture, optional: true
    tuple val(meta), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    """
    align_exam.py --exam native --brain-mask ${brain} --atlas ${atlas} --out-dir aligned --threads ${task.cpus} \\
        --quality ${meta.id}_desc-alignment_quality.json --picture ${meta.id}_desc-alignment_qc.png \\
        --failure ${meta.id}_failure.json --patient ${meta.patient} --session ${meta.session} ${args}
    for transform in aligned/xfm/*.tfm; do
        if [ -e "\$transform" ]; then cp "\$transform" ${meta.id}_\$(basename "\$transform"); fi
    done
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    mkdir aligned
    for column in t1 t1c t2 flair brain_mask; do touch aligned/\$column.nii.gz; done
    touch ${meta.id}_from-t1c_to-${task.ext.space}_xfm.tfm
    touch ${meta.id}_desc-alignment_quality.json ${meta.id}_desc-alignment_qc.png versions.yml
    """
}
