process SPLITS_DRAW {
    label 'process_single'
    label 'family_growth'

    input:
    path selection
    path given, stageAs: 'given/*'

    output:
    path "splits.json", emit: splits
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    def take = given ? "--given ${given}" : ''
    """
    draw_splits.py --selection ${selection} --out splits.json ${take} ${args}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    def args = task.ext.args ?: ''
    def take = given ? "--given ${given}" : ''
    """
    draw_splits.py --selection ${selection} --out splits.json ${take} ${args}
    touch versions.yml
    """
}
