process FOLLOWUP_REGISTER {
    tag "${meta.id} ${method}"
    label 'process_medium'
    // The networks among the methods need PyTorch.
    label "${"${params.registration},${params.sensitivity_registrations}" ==~ (params.dirac_weights ? /.*(convexadam|dirac).*/ : /.*convexadam.*/) ? 'family_hdbet' : 'family_imaging'}"

    input:
    tuple val(meta), val(row), path(images, stageAs: 'followup/*'), path(exam, stageAs: 'exam/*'), path(sources, stageAs: 'native/*'), path(transforms, stageAs: 'xfm/*'), val(method)
    path weights, stageAs: 'weights/*'

    output:
    tuple val(meta), path("${meta.id}_space-*_desc-registered_dseg.nii.gz"), emit: segmentation, optional: true
    tuple val(meta), path("${meta.id}_followup.json"), emit: summary, optional: true
    tuple val(meta), path("${meta.id}_space-*_desc-registered_{T1c,T1w,T2w,FLAIR,ADC}.nii.gz"), emit: images, optional: true
    tuple val(meta), path("${meta.id}_space-*_from-*_xfm.nii.gz"), emit: transforms, optional: true
    tuple val(meta), path("*_desc-registration_quality.json"), emit: quality, optional: true
    tuple val(meta), path("*_desc-registration_qc.png"), emit: picture, optional: true
    tuple val(meta), path("*_failure.json"), emit: failure, optional: true
    path "versions.yml", emit: versions

    script:
    def args = task.ext.args ?: ''
    // A method that the main analysis does not use is named by its files.
    def stem = meta.algorithm ? "${meta.id}_reg-${meta.algorithm}" : meta.id
    def prefix = meta.algorithm ? "${meta.id}_space-${task.ext.space}_reg-${meta.algorithm}" : "${meta.id}_space-${task.ext.space}"
    def secondary = meta.algorithm ? '--secondary' : ''
    def network = method == 'dirac' ? [weights].flatten() : []
    def given = network.findAll { file -> !file.name.endsWith('.sha256') }.collect { file -> "--dirac-weights ${file}" }.join(' ')
    // Of a raw exam each image comes from its own grid with the transform to it, so that it is interpolated once.
    def own = [sources].flatten().collect { image -> image.toString().tokenize('/').last() - '.nii.gz' }
    def others = [t1c: 'T1c', t1: 'T1w', t2: 'T2w', flair: 'FLAIR', adc: 'ADC', tumor_seg: 'dseg']
        .collect { column, name ->
            def from = column == 'tumor_seg' ? 't1c' : column
            def aligned = row.files.containsKey(column) && !(column in ['t1c', 'tumor_seg']) ? "--also ${name}=followup/${row.files[column]}" : ''
            column in own ? "--also ${name}=native/${column}.nii.gz,xfm/${meta.id}_from-${from}_to-${task.ext.space}_xfm.tfm" : aligned
        }
        .join(' ')
    def summarised = row + [files: [registered_seg: "warped/${prefix}_desc-registered_dseg.nii.gz".toString()], registered_labels: 'canonical']
    """
    cat > row.json <<'END_OF_ROW'
    ${groovy.json.JsonOutput.toJson(summarised)}
    END_OF_ROW
    mkdir warped
    register_longitudinal.py --fixed ${exam}/*_ce-GD_T1w.nii.gz --moving followup/${row.files.t1c} \\
        --fixed-mask ${exam}/*_desc-brain_mask.nii.gz --moving-mask followup/${row.files.brain_mask} \\
        --fixed-csf ${exam}/*_label-CSF_probseg.nii.gz --fixed-seg ${exam}/*_desc-tumor_dseg.nii.gz --moving-seg followup/${row.files.tumor_seg} --moving-labels '${row.tumor_labels}' \\
        ${others} --method ${method} ${given} --out-prefix warped/${prefix} --threads ${task.cpus} \\
        --quality ${stem}_desc-registration_quality.json --picture ${stem}_desc-registration_qc.png \\
        --failure ${stem}_failure.json --patient ${meta.patient} --session ${meta.session} ${secondary} ${args}
    if [ ! -e ${stem}_failure.json ]; then
        import_registered.py --row row.json --reference ${exam} \\
            --out ${prefix}_desc-registered_dseg.nii.gz --summary ${meta.id}_followup.json \\
            --failure ${stem}_failure.json ${secondary} warped/${prefix}_desc-registered_dseg.nii.gz
        rm warped/${prefix}_desc-registered_dseg.nii.gz
    fi
    find warped -type f -exec mv {} . ';'
    print_versions.py ${task.process} > versions.yml
    """

    stub:
    """
    echo '{"patient": "${meta.patient}", "session": "${meta.session}", "recurrence_enhancing_ml": 1, "recurrence_core_ml": 1, "recurrence_all_ml": 1}' > ${meta.id}_followup.json
    touch ${meta.id}_space-${task.ext.space}_desc-registered_dseg.nii.gz ${meta.id}_space-${task.ext.space}_desc-registered_T1c.nii.gz
    touch ${meta.id}_space-${task.ext.space}_from-fixed_to-moving_xfm.nii.gz ${meta.id}_desc-registration_quality.json ${meta.id}_desc-registration_qc.png versions.yml
    """
}
