process STATISTICS_COMPUTE {
    label 'process_low'
    label 'family_growth'

    input:
    path metrics, stageAs: 'metrics/*'
    path selection
    path failures, stageAs: 'failures/?/*'
    path quality, stageAs: 'quality/*'
    path given, stageAs: 'given/*'
    val simulated

    output:
    path "tables", type: 'dir', emit: tables
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    """
    mkdir -p metrics failures quality given
    compute_statistics.py --metrics metrics --cohort ${selection} --failures failures --quality quality --given-dose given --out tables ${simulated ? '--simulated' : ''} ${args}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    mkdir tables && touch tables/metrics.csv versions.yml
    """
}
