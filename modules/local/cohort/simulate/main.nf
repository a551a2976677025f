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
    def name = "sub-${String.format('%03d', index)}"
    """
    mkdir -p ${name}/ses-pre ${name}/ses-post
    for image in pre/t1 pre/t1c pre/t2 pre/flair pre/tumor post/registered; do echo stub > ${name}/ses-\$image.nii.gz; done
    cat > rows.csv <<'END_OF_ROWS'
    patient,session,cohort,role,days,space,t1,t1c,t2,flair,tumor_seg,registered_seg
    ${name},pre,stub,preop,0,${task.ext.space},${name}/ses-pre/t1.nii.gz,${name}/ses-pre/t1c.nii.gz,${name}/ses-pre/t2.nii.gz,${name}/ses-pre/flair.nii.gz,${name}/ses-pre/tumor.nii.gz,
    ${name},post,stub,followup,100,${task.ext.space},,,,,,${name}/ses-post/registered.nii.gz
    END_OF_ROWS
    touch versions.yml
    """
}
