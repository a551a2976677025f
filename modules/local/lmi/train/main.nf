process LMI_TRAIN {
    label 'process_training'
    label 'family_hdbet'

    input:
    path tumors

    output:
    path "lmi.*", emit: model
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    """
    train_lmi.py ${tumors} --cpus ${task.cpus} ${args}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    touch lmi.npz lmi.json lmi.csv versions.yml
    """
}
