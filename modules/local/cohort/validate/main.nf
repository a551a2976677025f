process COHORT_VALIDATE {
    tag "${sheet.name}"
    label 'process_single'
    label 'family_growth'

    input:
    path sheet, stageAs: 'sheet/*'
    path schema

    output:
    path "cohort.json", emit: cohort
    path "versions.yml", emit: versions

    script:
    """
    validate_samplesheet.py --sheet ${sheet} --schema ${schema} --space ${task.ext.space} --out cohort.json
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    validate_samplesheet.py --sheet ${sheet} --schema ${schema} --space ${task.ext.space} --out cohort.json
    touch versions.yml
    """
}
