process VIEWER_BUILD {
    tag "${meta.id}"
    label 'process_single'
    label 'family_report'

    input:
    tuple val(meta), path(exam), path(maps), path(plans), path(recurrence)
    path niivue

    output:
    tuple val(meta), path("sub-${meta.patient}.html"), emit: page

    script:
    def args = task.ext.args ?: ''
    def later = recurrence ? "--recurrence ${recurrence}" : ''
    """
    build_viewer.py --exam ${exam} --maps ${maps} --plans ${plans} ${later} --niivue ${niivue} --out sub-${meta.patient}.html ${args}
    """

    stub:
    """
    touch sub-${meta.patient}.html
    """
}
