process FOLLOWUP_SELECT {
    label 'process_single'
    label 'family_growth'

    input:
    path cohort
    path summaries, stageAs: 'followups/*'
    path exams, stageAs: 'exams/*'
    path failures, stageAs: 'failures/?/*'

    output:
    path "selection.json", emit: selection
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    """
    mkdir -p followups exams failures
    select_followups.py --cohort ${cohort} --summaries followups --exams exams --failures failures --out selection.json ${args}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    def args = task.ext.args ?: ''
    """
    mkdir -p followups exams failures
    select_followups.py --cohort ${cohort} --summaries followups --exams exams --failures failures --out selection.json ${args}
    touch versions.yml
    """
}
