/*
    The samplesheet and every image it names, checked before anything else runs.
    All faults come in one list; with --strict false the patients they concern are left out and the rest goes on.
*/

include { COHORT_VALIDATE } from '../../../modules/local/cohort/validate/main.nf'
include { EXAM_VALIDATE   } from '../../../modules/local/exam/validate/main.nf'
include { checkFamily     } from '../initialise/main.nf'
include { filesByColumn   } from '../initialise/main.nf'
include { outOfBatches    } from '../initialise/main.nf'
include { readDocument    } from '../initialise/main.nf'
include { restage         } from '../initialise/main.nf'
include { stageRow        } from '../initialise/main.nf'

// A file a sheet names: absolute, a URL, or relative to the sheet (to the patient's own folder in a simulated cohort).
def locate(String name, String patient, sheet, Map bases) {
    def base = bases[patient] ?: sheet.parent
    return name.startsWith('/') || name.contains('://') ? file(name, glob: false) : file("${base}/${name}", glob: false)
}

// What is wrong with the file of one column; null if nothing is. A DICOM folder stands where a name does not end like NIfTI.
def pathFault(String column, path) {
    def wanted = column == 'dicom' || (column in ['t1', 't1c', 't2', 'flair', 'adc', 'dti', 'pet'] && !(path.name ==~ /.*\.nii(\.gz)?/))
    if (path.toString() =~ /[$`]/) {
        return 'has a $ or a backtick in its path, which shells read'
    }
    if (!path.exists()) {
        return 'does not exist'
    }
    if (path.isDirectory() != wanted) {
        return wanted ? 'is not a folder' : 'is a folder'
    }
    return !wanted && path.size() == 0 ? 'is empty (0 bytes)' : null
}

// A fault for every file of a row that is absent or empty.
def missingFiles(Map row, Map located) {
    return located
        .collectEntries { column, path -> [(column): [path: path, fault: pathFault(column, path)]] }
        .findAll { _column, found -> found.fault }
        .collect { column, found ->
            [
                line: row.line, column: column, patient: row.meta.patient,
                what: "file ${found.path} ${found.fault}".toString(),
                expected: 'a NIfTI image, or for a raw exam a folder with DICOM files; check the path (relative paths start at the sheet) or export the image again',
            ]
        }
}

// The row as its task sees it, files and score maps in the order they are staged.
def stagedRow(Map row, Map located) {
    def staged = stageRow(row, located)[0].files
    return row + [
        files: staged.findAll { column, _name -> row.files.containsKey(column) },
        scores: staged.findAll { column, _name -> !row.files.containsKey(column) }.collectEntries { column, name -> [(column - 'score_'): name] },
    ]
}

// A fault for every score map of the sheet that is called like a model of this run.
def ambiguousScores(Map cohort, List models) {
    return (cohort.models_scores ?: []).findAll { name -> name in models }.collect { name ->
        [
            line: 1, column: "score_${name}".toString(), patient: null,
            what: "a model of this run is called '${name}', too",
            expected: 'another name, or leave that model out by --models',
        ]
    }
}

def faultText(sheet, List faults) {
    def lines = faults
        .sort { a, b -> (a.line ?: 0) <=> (b.line ?: 0) ?: "${a.column}" <=> "${b.column}" }
        .collect { fault -> "  ${sheet.name}:${fault.line}: ${fault.column}: ${fault.what}; expected ${fault.expected}".toString() }
    return "The samplesheet ${sheet} has ${faults.size()} fault(s), nothing was run:\n${lines.join('\n')}\n  Mend them and start again; --strict false leaves out the patients concerned instead."
}

// The patients to leave out, by name, with their faults; stops the run where the faults are to stop it.
def refusedPatients(sheet, Map cohort, List faults) {
    if (!faults && !cohort.rows) {
        error("The samplesheet ${sheet} has no exams; add a line for each")
    }
    def patients = faults*.patient.unique()
    def healthy = cohort.rows*.meta*.patient.unique() - patients
    if (faults && (params.strict || patients.contains(null) || !healthy)) {
        error(faultText(sheet, faults))
    }
    if (faults) {
        log.warn(faultText(sheet, faults).replaceFirst('nothing was run', 'the patients concerned are left out'))
    }
    return faults.groupBy { fault -> fault.patient }
}

workflow VALIDATE_COHORT {
    take:
    ch_sheet // [samplesheet, [patient: base folder of its files]]
    ch_options // value: options with the list of models

    main:
    COHORT_VALIDATE(ch_sheet.map { sheet, _bases -> sheet }, file("${projectDir}/assets/schema_input.json"))

    ch_cohort = ch_sheet
        .combine(COHORT_VALIDATE.out.cohort)
        .combine(ch_options)
        .map { sheet, bases, json, options ->
            def cohort = readDocument(json)
            checkFamily(options.models*.name + (cohort.models_scores ?: []))
            def located = cohort.rows.collectEntries { row ->
                def named = row.files + row.scores.collectEntries { name, path -> [("score_${name}".toString()): path] }
                [(row.meta.id): named.collectEntries { column, name -> [(column): locate(name, row.meta.patient, sheet, bases)] }]
            }
            def missing = cohort.rows.collectMany { row -> missingFiles(row, located[row.meta.id]) } + ambiguousScores(cohort, options.models*.name)
            tuple(sheet, cohort, located, missing)
        }

    ch_exam = ch_cohort.flatMap { _sheet, cohort, located, missing ->
        def broken = missing*.line
        cohort.rows.findAll { row -> !(row.line in broken) }.collect { row ->
            def preoperative = cohort.rows.find { other -> other.meta.patient == row.meta.patient && other.meta.role == 'preop' && !(other.line in broken) }
            def reference = row.meta.role == 'followup' && preoperative ? located[preoperative.meta.id].t1c ?: [] : []
            tuple(row.meta.subMap(['id', 'patient', 'session', 'cohort', 'role']), stagedRow(row, located[row.meta.id]), located[row.meta.id].values().toList(), reference)
        }
    }

    ch_check = ch_exam
        .toList()
        .flatMap { exams ->
            exams.groupBy { meta, _row, _files, _reference -> meta.patient }.values().toList().collate(params.patients_per_task)
        }
        .map { patients ->
            def exams = patients.collectMany { own -> own }.collect { meta, row, files, reference ->
                def beside = reference ? [reference: "input/${files.size() + 1}/${reference.name}".toString()] : [:]
                [meta, row + [beside: beside], files + (reference ? [reference] : [])]
            }
            restage(exams*.get(0), exams*.get(1), exams*.get(2))
        }
    EXAM_VALIDATE(ch_check)

    // The gate: downstream starts only when every exam was checked.
    ch_refused = ch_cohort
        .combine(outOfBatches(EXAM_VALIDATE.out.faults).map { _meta, json -> json }.toList().map { list -> [list] })
        .map { sheet, cohort, _located, missing, files ->
            def faults = cohort.faults + missing + files.collectMany { json -> readDocument(json) }
            refusedPatients(sheet, cohort, faults)
        }

    ch_accepted = ch_exam
        .combine(ch_refused.map { refused -> [refused] })
        .filter { meta, _row, _files, _reference, refused -> !refused.containsKey(meta.patient) }
        .branch { meta, row, files, _reference, _refused ->
            preoperative: meta.role == 'preop'
            return tuple(meta, row, files)
            followup: true
            return tuple(meta, row, files)
        }

    // Neither dose nor score maps take part in the preparation of the exam, so that another one does not repeat it.
    ch_preoperative = ch_accepted.preoperative.map { meta, row, files ->
        def images = filesByColumn(row, files).findAll { column, _path -> column != 'dose' }
        def staged = stageRow(row.findAll { key, _value -> key != 'prescription_gy' } + [scores: [:]], images)
        tuple(meta, staged[0], staged[1])
    }

    ch_failure = ch_refused.flatMap { refused -> refused.entrySet().toList() }.collectFile { entry ->
        def reason = entry.value.collect { fault -> "line ${fault.line}: ${fault.column}: ${fault.what}" }.join(' | ')
        ["sub-${entry.key}_input_failure.json".toString(), groovy.json.JsonOutput.toJson([patient: entry.key, session: null, model: null, stage: 'input', kind: 'refused', analysis: 'main', reason: reason])]
    }
    ch_batch = ch_cohort
        .combine(ch_refused.map { refused -> [refused] })
        .flatMap { _sheet, cohort, _located, _missing, refused ->
            cohort.rows*.meta*.patient.unique().collate(params.patients_per_task).withIndex().collectMany { patients, number ->
                def accepted = patients.findAll { patient -> !refused.containsKey(patient) }
                accepted.collect { patient -> tuple(patient, number, accepted.size()) }
            }
        }
    cohort = COHORT_VALIDATE.out.cohort
    batch = ch_batch
    preoperative = ch_preoperative
    followup = ch_accepted.followup
    score = ch_accepted.preoperative.flatMap { meta, row, files ->
        row.scores.collect { name, staged -> tuple(meta + [model: name], files[(staged.tokenize('/')[1] as int) - 1]) }
    }
    dose = ch_accepted.preoperative
        .filter { _meta, row, _files -> row.files.containsKey('dose') }
        .map { meta, row, files -> tuple(meta, filesByColumn(row, files).dose, row.prescription_gy ?: params.prescription) }
    failure = ch_failure
    versions = COHORT_VALIDATE.out.versions

    emit:
    cohort // cohort.json
    batch // [patient, number, patients in it]: which patients one task takes
    preoperative // [meta, row, files]
    followup // [meta, row, files]
    score // [meta with model, score map]
    dose // [meta, dose that was given, prescribed dose in Gy]
    failure // JSON records
    versions
}
