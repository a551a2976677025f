process QC_DRAW {
    tag "${meta.id}"
    label 'process_single'
    label 'family_report'

    input:
    tuple val(meta), path(exam), path(maps), path(plans), path(recurrence)

    output:
    tuple val(meta), path("${meta.id}_desc-qc.png"), path("${meta.id}_desc-qc.json"), emit: picture
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    def later = recurrence ? "--recurrence ${recurrence}" : ''
    """
    draw_qc.py --exam ${exam} --maps ${maps} --plans ${plans} ${later} --out ${meta.id}_desc-qc.png ${args}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    touch ${meta.id}_desc-qc.png ${meta.id}_desc-qc.json versions.yml
    """
}
