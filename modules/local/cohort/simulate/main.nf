process COHORT_SIMULATE {
    tag "patient ${index}"
    label 'process_medium'
    label 'family_growth'

    input:
    val index
    path atlas

    output:
    tuple val(index), path("sub-*", type: 'dir'), path("rows.csv"), emit: patient
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    """
    simulate_cohort.py --atlas ${atlas} --out . --patients ${index} --patient-index ${index} --jobs ${task.cpus} ${args}
    mv samplesheet.csv rows.csv
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    mkdir -p sub-${String.format('%03d', index)}
    touch rows.csv versions.yml
    """
}
