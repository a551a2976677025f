process DOSE_MEASURE {
    tag "${meta.id}"
    label 'process_single'
    label 'family_growth'

    input:
    tuple val(meta), path(exam), path(dose, stageAs: 'given/*'), val(prescription), path(transform), path(recurrence)

    output:
    tuple val(meta), path("*_desc-given_dose.nii.gz"), emit: dose, optional: true
    tuple val(meta), path("*_desc-given_dose.json"), emit: measures, optional: true
    tuple val(meta), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def prefix = "${meta.id}_space-${task.ext.space}_desc-given"
    def way = transform ? "--transform ${transform}" : ''
    def labels = recurrence ? "--recurrence ${recurrence}" : ''
    """
    convert_dose.py --dose ${dose} --exam ${exam} --prescription ${prescription} ${way} ${labels} \\
        --out ${prefix}_dose.nii.gz --measures ${prefix}_dose.json --failure ${prefix}_failure.json \\
        --patient ${meta.patient} --session ${meta.session}
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    touch ${meta.id}_space-${task.ext.space}_desc-given_dose.nii.gz versions.yml
    echo '{"patient": "${meta.patient}", "prescription_gy": ${prescription}, "measures": {}, "dvh": {}, "lesions": [], "organs": []}' > ${meta.id}_space-${task.ext.space}_desc-given_dose.json
    """
}
