process STATISTICS_COMPUTE {
    label 'process_low'
    label 'family_growth'

    input:
    path metrics, stageAs: 'metrics/*'
    path selection
    path failures, stageAs: 'failures/*'
    val simulated

    output:
    path "tables", type: 'dir', emit: tables
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    """
    mkdir -p metrics failures
    compute_statistics.py --metrics metrics --cohort ${selection} --failures failures --out tables ${simulated ? '--simulated' : ''} ${args}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    mkdir tables && touch tables/metrics.csv versions.yml
    """
}
