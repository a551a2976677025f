process TUMORS_GROW {
    tag "individual ${index}"
    label 'process_medium'
    label 'family_growth'

    input:
    val index
    path atlas

    output:
    path "tumors_*.npz", emit: tumors
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    def number = String.format('%04d', index)
    """
    grow_tumors.py --atlas ${atlas} --individual ${index} --out tumors_${number}.npz ${args}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    def number = String.format('%04d', index)
    """
    touch tumors_${number}.npz versions.yml
    """
}
