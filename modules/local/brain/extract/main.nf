process BRAIN_EXTRACT {
    tag "${meta.id}"
    label 'process_medium'
    label "${params.brain_extraction == 'atlas' ? 'family_imaging' : 'family_hdbet'}"

    input:
    tuple val(meta), path(t1c, stageAs: 'input/*')
    path atlas
    path weights, stageAs: 'weights/*'

    output:
    tuple val(meta), path("brain_mask.nii.gz"), emit: mask, optional: true
    tuple val(meta), path("${meta.id}_desc-brain_quality.json"), emit: quality, optional: true
    tuple val(meta), path("${meta.id}_desc-brain_qc.png"), emit: picture, optional: true
    tuple val(meta), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    def given = weights ? "--weights ${weights}" : ''
    def device = task.accelerator ? 'cuda' : 'cpu'
    """
    extract_brain.py --image ${t1c} --atlas ${atlas} ${given} --device ${device} --threads ${task.cpus} --out brain_mask.nii.gz \\
        --quality ${meta.id}_desc-brain_quality.json --picture ${meta.id}_desc-brain_qc.png \\
        --failure ${meta.id}_failure.json --patient ${meta.patient} --session ${meta.session} ${args}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    touch brain_mask.nii.gz ${meta.id}_desc-brain_quality.json ${meta.id}_desc-brain_qc.png versions.yml
    """
}
