/*
    Before any task runs: parameters against nextflow_schema.json, the model list, the output folder.
    Every fault is collected and reported at once.
*/

// A JSON or YAML file as plain maps and lists, in the order of the file.
def readDocument(path) {
    return new org.yaml.snakeyaml.Yaml().load(file(path, glob: false).getText('UTF-8'))
}

// All parameters the schema knows, by name.
def schemaProperties(String path) {
    def schema = readDocument(path)
    return schema['$defs'].values().collectEntries { section -> section.properties }
}

// Text for --help, section by section.
def parameterHelp(String path) {
    def schema = readDocument(path)
    def lines = ['', schema.description, '', 'Usage: ./predictgbm run --input samplesheet.csv --outdir results [options]']
    schema['$defs'].values().each { section ->
        def shown = section.properties.findAll { _name, property -> !property.hidden }
        if (shown) {
            lines << ''
            lines << "${section.title}".toString()
            shown.each { name, property ->
                def value = property.containsKey('default') ? ", default ${property['default']}" : ''
                def choice = property['enum'] ? ", one of ${property['enum'].join(', ')}" : ''
                lines << "  --${name} [${property.type}${choice}${value}]".toString()
                lines << "      ${property.description}".toString()
            }
        }
    }
    return lines.join('\n') + '\n'
}

// True where a value has the JSON-schema type; the command line hands numbers and booleans over as such.
def hasType(value, String type) {
    if (type == 'integer') {
        return value instanceof Integer || value instanceof Long
    }
    if (type == 'number') {
        return value instanceof Number
    }
    if (type == 'boolean') {
        return value instanceof Boolean
    }
    return value instanceof CharSequence || value instanceof Number
}

// What is wrong with one parameter, as text; null if nothing is.
def parameterFault(String name, value, Map property) {
    if (!hasType(value, property.type as String)) {
        return "--${name}: '${value}' is not of type ${property.type}; ${property.description}"
    }
    if (property['enum'] && !(value.toString() in property['enum']*.toString())) {
        return "--${name}: '${value}' is not one of ${property['enum'].join(', ')}"
    }
    if (property.pattern && !(value.toString() ==~ property.pattern)) {
        return "--${name}: '${value}' is not accepted; ${property.description}"
    }
    if (property.minimum != null && value < property.minimum) {
        return "--${name}: ${value} is below the smallest allowed value ${property.minimum}"
    }
    if (property.maximum != null && value > property.maximum) {
        return "--${name}: ${value} is above the largest allowed value ${property.maximum}"
    }
    // Nextflow keeps blanks and quotes of a path from the shell, but not these.
    if (property.format in ['file-path', 'directory-path'] && value.toString() =~ /[$`]/) {
        return "--${name}: '${value}' has a \$ or a backtick, which shells read; rename the folder or file"
    }
    if (property.exists && !file(value.toString(), glob: false).exists()) {
        return "--${name}: '${value}' does not exist; check the path"
    }
    return null
}

// What the manifest of the atlas folder says; nothing where it has none.
def readAtlas(folder) {
    def manifest = file("${folder}/manifest.json", glob: false)
    return manifest.exists() ? readDocument(manifest) : [:]
}

// What is wrong with the space that an atlas folder names, as text; null if it is that of the run.
def atlasFault(String folder, String wanted) {
    def space = readAtlas(folder).space
    if (!space) {
        return "--atlas: ${folder} does not name its space, as folders of an earlier version do not; make it anew by bin/prepare_atlas.py --space ${wanted} --out DIR"
    }
    if (space != wanted) {
        return "--atlas_space: the run is in ${wanted}, the atlas in ${folder} in ${space}; give --atlas_space ${space}, or the folder of an atlas in ${wanted}"
    }
    return null
}

def parameterFaults(Map values, String schema) {
    def properties = schemaProperties(schema)
    // nf-test hands its own parameter to every workflow it tests.
    def given = values.findAll { name, value -> value != null && !name.contains('-') && name != 'nf_test_output' }
    def unknown = given.keySet().findAll { name -> !properties.containsKey(name) }.collect { name ->
        def near = properties.keySet().closest(name).take(1)
        "--${name}: unknown parameter" + (near ? "; did you mean --${near[0]}?" : '; see --help')
    }
    def wrong = given
        .findAll { name, _value -> properties.containsKey(name) }
        .collect { name, value -> parameterFault(name, value, properties[name]) }
        .findAll { fault -> fault }
    def input = []
    def trained = values.train ? values.train.toString().tokenize(',') : []
    if ('lmi' in trained && (trained.size() > 1 || values.input || values.simulate)) {
        input << '--train: lmi learns from tumours of its own; train it alone, without --input and --simulate'
    }
    if (values.input && values.simulate) {
        input << '--input and --simulate: give one of the two, a samplesheet or a number of patients to simulate'
    }
    if (!values.input && !values.simulate && !('lmi' in trained)) {
        input << '--input: no samplesheet given; use --input samplesheet.csv (docs/usage.md shows one), or --simulate 6 to try without data'
    }
    if (!values.outdir) {
        input << '--outdir: no folder for the results given; use --outdir results'
    }
    // The range of each guideline, as src/predictgbm/guidelines/presets.py has it; the schema knows the widest.
    if (values.guideline_margin && values.guideline_margin.toString().toBigDecimal() != 15 && 'estroeano2023' in (values.guidelines ?: '').toString().tokenize(',')) {
        input << "--guideline_margin: estroeano2023 takes 15 mm alone, found ${values.guideline_margin}; give astro2025 alone to --guidelines for another margin".toString()
    }
    if (values.brain_extraction == 'hdbet2' && !values.hdbet_weights) {
        input << '--hdbet_weights: no folder with the weights of HD-BET 2 given; docs/preprocessing.md says where they come from'
    }
    if (!values.atlas) {
        input << "--atlas: no atlas folder given; ./predictgbm sets it, or prepare one by bin/prepare_atlas.py --space ${values.atlas_space} --out DIR".toString()
    }
    else if (file(values.atlas.toString(), glob: false).exists()) {
        input << atlasFault(values.atlas.toString(), values.atlas_space.toString())
    }
    return unknown + wrong + input.findAll { fault -> fault }
}

// What is wrong with one entry of a model list, by the required and known fields of assets/schema_models.json.
def modelFaults(entry, Map schema, boolean outside) {
    def fields = schema.model
    if (!(entry instanceof Map)) {
        return ["'${entry}' is not an entry with fields"]
    }
    def missing = fields.required.findAll { name -> entry[name] == null }.collect { name -> "${entry.name}: ${name}: is missing" }
    def unknown = entry.keySet().findAll { name -> !fields.properties.containsKey(name) }.collect { name -> "${entry.name}: ${name}: unknown field" }
    def named = entry.name ==~ fields.properties.name.pattern ? [] : ["${entry.name}: name: ${fields.properties.name.description}"]
    // Code of the user's own would be missing on other machines; the package's functions are where the pipeline is.
    def inside = !outside || "${entry.function}".startsWith('predictgbm.')
    def bare = entry.container || (entry.function && inside) ? [] : ["${entry.name}: container: is missing; an outside model comes as one, or is a function of this package (predictgbm.) with other parameters"]
    // They become part of a command.
    def strange = [entry.inputs ?: [], entry.optional_inputs ?: []].flatten() - schema.input['enum']
    def inputs = strange ? ["${entry.name}: inputs: ${strange.join(', ')} is unknown; known are ${schema.input['enum'].join(', ')}"] : []
    def image = !entry.container || "${entry.container}" ==~ fields.properties.container.pattern ? [] : ["${entry.name}: container: ${fields.properties.container.description}"]
    return named + missing + unknown + bare + inputs + image
}

// The models of a list file; entries of an outside list name a container, or a function of the package.
def readModels(String path, boolean outside) {
    def schema = readDocument("${projectDir}/assets/schema_models.json")['$defs']
    def parsed = readDocument(path)
    def models = parsed instanceof Map && parsed.models instanceof List ? parsed.models : null
    def faults = models ? models.collectMany { entry -> modelFaults(entry, schema, outside) } : ["expected a list 'models:'"]
    if (faults) {
        error("The model list ${path} has ${faults.size()} fault(s), docs/add_a_model.md shows a good one:\n" + faults.collect { fault -> "  ${fault}" }.join('\n'))
    }
    return models
}

// The methods that register follow-ups: that of the main analysis first, then those it is compared with.
def registrations() {
    return ([params.registration] + params.sensitivity_registrations.tokenize(',') - 'none').unique()
}

// Weights of DIRAC's network with the checksum beside them, where there is one; nothing where no method needs them.
def diracWeights() {
    return 'dirac' in registrations() && params.dirac_weights
        ? [params.dirac_weights, "${params.dirac_weights}.sha256"].collect { path -> file(path, glob: false) }.findAll { path -> path.exists() }
        : []
}

// Whether a training has left something for a model.
def hasWeights(Map values, Map entry) {
    return values.weights && file("${values.weights}/${entry.name}", glob: false).isDirectory()
}

// The models to train on a cohort, by name.
def trainedModels(Map values) {
    return values.train ? values.train.toString().tokenize(',')*.trim() - 'lmi' : []
}

// Whether a model can be run: it learns from no cohort, or has learned, or does so in this run.
def isReady(Map values, Map entry) {
    return !entry.training || entry.name in trainedModels(values) || hasWeights(values, entry)
}

// The models a run asks for, in the order of the lists. Those that learn from a cohort need what a training has left.
def selectModels(Map values, List known) {
    def names = known*.name
    def twice = names.findAll { name -> names.count(name) > 1 }.unique()
    if (twice) {
        error("model ${twice.join(', ')} is listed twice; rename it in the file given by --external_models")
    }
    if (!values.models) {
        return known.findAll { entry -> isReady(values, entry) }
    }
    def wanted = values.models.toString().tokenize(',')*.trim()
    def missing = wanted - names
    if (missing) {
        error("--models: unknown model ${missing.join(', ')}; known are ${names.join(', ')}")
    }
    // Models that this run trains take part in it.
    def selected = known.findAll { entry -> entry.name in wanted + trainedModels(values) }
    def untrained = selected.findAll { entry -> !isReady(values, entry) }*.name
    if (untrained) {
        error("--models: ${untrained.join(', ')} learns from a cohort; train it (--train ${untrained.join(',')} --input samplesheet.csv) and name the folder models/ of the results by --weights")
    }
    return selected
}

// Stops the run where the family of tests names what is compared with nothing; score maps of a sheet are models, too.
def checkFamily(List names) {
    def wanted = params.family_models ? params.family_models.toString().tokenize(',')*.trim() : []
    if ('soc' in wanted) {
        error('--family_models: soc is the standard plan, with which the models are compared; leave it out')
    }
    def unknown = wanted - names
    if (unknown) {
        error("--family_models: no model of this run is called ${unknown.join(', ')}; there are ${(names - 'soc').join(', ')}")
    }
}

// The models to train on a cohort, with the number of networks per split and the settings of each.
def selectTraining(Map values, List known) {
    def wanted = trainedModels(values)
    def able = known.findAll { entry -> entry.training }
    def unable = wanted - able*.name
    if (unable) {
        error("--train: ${unable.join(', ')} cannot be trained; lmi and ${able*.name.join(', ')} can")
    }
    def settings = values.train_settings ? readDocument(values.train_settings.toString()) : [:]
    if (!(settings instanceof Map) || settings.any { _name, values_of_model -> !(values_of_model instanceof Map) }) {
        error("--train_settings: ${values.train_settings} is no list of settings by model, such as unet: {epochs: 50}")
    }
    def strange = settings.keySet() - able*.name
    if (strange) {
        error("--train_settings: ${strange.join(', ')} is no model that can be trained; ${able*.name.join(', ')} can")
    }
    return able.findAll { entry -> entry.name in wanted }.collect { entry -> [entry: entry, seeds: values.train_seeds, settings: settings[entry.name] ?: [:]] }
}

// The algorithms that segment tumours in exams of one role, by the parameter that names them.
def selectAlgorithms(String parameter, String wanted, String role) {
    def list = params.tumor_algorithms ?: "${projectDir}/assets/tumor_algorithms.yml"
    def known = readDocument(list.toString()).algorithms
    def names = wanted.tokenize(',').unique()
    def missing = names.findAll { name -> name != 'trial' && !known.any { entry -> entry.name == name } }
    if (missing) {
        error("--${parameter}: unknown algorithm ${missing.join(', ')}; known are trial, ${known*.name.join(', ')}")
    }
    def unfit = known.findAll { entry -> entry.name in names && !(entry.phase in [role, 'both']) }
    if (unfit) {
        error("--${parameter}: ${unfit*.name.join(', ')} is not made for ${role == 'preop' ? 'pre-operative exams' : 'follow-ups'}; ${list} says what each is for")
    }
    def bare = known.findAll { entry -> entry.name in names && entry.weights && !(params.tumor_weights && file("${params.tumor_weights}/${entry.name}", glob: false).isDirectory()) }
    if (bare) {
        error("--${parameter}: ${bare*.name.join(', ')} needs files beside the image; unpack Zenodo record ${bare*.weights*.zenodo.join(', ')} into a folder named as the algorithm, and name the folder above it by --tumor_weights")
    }
    return names.collect { name -> known.find { entry -> entry.name == name } ?: [name: name] }
}

// Failure records for the tasks that ended without a result and without a record of their own (killed, out of memory or time).
def lostTasks(ch_expected, ch_obtained, String stage, String analysis = 'main') {
    return ch_expected
        .map { meta -> tuple(meta, true) }
        .join(ch_obtained.map { meta -> tuple(meta, true) }, remainder: true)
        .filter { _meta, _expected, obtained -> obtained == null }
        .collectFile { meta, _expected, _obtained ->
            def record = [
                patient: meta.patient,
                session: meta.session,
                model: meta.model,
                stage: meta.algorithm ? "${stage} (${meta.algorithm})".toString() : stage,
                kind: 'lost',
                analysis: analysis,
                reason: 'the task was killed or ran out of memory or time; its exit status is in pipeline_info, its log in the work folder',
            ]
            ["${meta.id}_${meta.model ?: meta.algorithm ?: stage}_failure.json".toString(), groovy.json.JsonOutput.toJson(record)]
        }
}

// What one task takes: rows of one model, of as many patients as --patients_per_task, turned into one list for each column.
// Patients go together by their place in the samplesheet and stand in one order, so that a rerun finds its tasks in the cache;
// a task starts when its last row is there, and at the end with what there is.
def inBatches(ch_row, ch_batch) {
    return ch_row
        .map { row -> tuple(row[0].patient, row) }
        .combine(ch_batch, by: 0)
        .map { _patient, row, number, size -> tuple(groupKey([number, row[0].model], size), row) }
        .groupTuple(remainder: true)
        .map { _key, rows -> rows.toSorted { a, b -> a[0].id <=> b[0].id }.transpose() }
}

// The columns of such rows with one list of files for all rows where each has a list of its own.
def flatFiles(List columns) {
    return columns.collect { column -> column.any { entry -> entry instanceof List } ? column.flatten() : column }
}

// What such a task has left, each with the meta it belongs to: names begin with patient and session.
def outOfBatches(ch_batch) {
    return ch_batch.flatMap { metas, paths ->
        metas
            .collect { meta -> tuple(meta, [paths].flatten().findAll { path -> path.name == meta.id || path.name.startsWith("${meta.id}_") }) }
            .findAll { _meta, own -> own }
            .collect { meta, own -> tuple(meta, own.size() == 1 ? own[0] : own) }
    }
}

// A row as its task sees it and the files that go with it: each column's file under the name it is staged by.
def stageRow(Map row, Map located) {
    def position = 0
    def staged = located.collectEntries { column, path ->
        position += 1
        [(column): "input/${position}/${path.name}".toString()]
    }
    return [row + [files: staged], located.values().toList()]
}

// The columns of rows with files that one task takes, the files numbered through as they are staged. What a row names beside the
// files of its exam is staged as they are.
def restage(List metas, List rows, List files) {
    def offset = 0
    def restaged = [rows, files].transpose().collect { row, own ->
        def moved = ['files', 'scores', 'beside'].collectEntries { kind ->
            [(kind): (row[kind] ?: [:]).collectEntries { column, staged ->
                def parts = staged.split('/', 3)
                [(column): "input/${(parts[1] as int) + offset}/${parts[2]}".toString()]
            }]
        }
        offset += own.size()
        row + moved
    }
    return tuple(metas, restaged, files.flatten())
}

// The shell lines that write each row as JSON, row1.json and so on.
def writeRows(List rows) {
    return rows.withIndex(1).collect { row, number -> "cat > row${number}.json <<'END_OF_ROW'\n    ${groovy.json.JsonOutput.toJson(row)}\n    END_OF_ROW" }.join('\n    ')
}

// The options that say what is shown of a patient, of the files of all patients of a task: names begin with the patient.
def shownFiles(Map meta, exam, maps, plans, recurrences) {
    def own = [maps: maps, plans: plans].collect { option, files -> "--${option} ${[files].flatten().findAll { path -> path.name.startsWith("${meta.id}_") }.join(' ')}" }.join(' ')
    def later = [recurrences].flatten().find { path -> path.name.startsWith("sub-${meta.patient}_") }
    return "--exam ${exam} ${own} ${later ? "--recurrence ${later}" : ''}"
}

// The lists of models, whose order gives each of them its colour in report, viewer and exported plans.
def modelLists() {
    return [file("${projectDir}/assets/models.yml")] + (params.external_models ? [file(params.external_models, glob: false)] : [])
}

// Names of files as one word each of a line that bin/run_many.py reads.
def quoted(files) {
    return files.collect { name -> "'" + name.replace("'", "'\"'\"'") + "'" }.join(' ')
}

// The file of each column of a row that stageRow has made, scores not among them.
def filesByColumn(Map row, List files) {
    return row.files.collectEntries { column, staged -> [(column): files[(staged.tokenize('/')[1] as int) - 1]] }
}

// Files that are called by their column (t1c.nii.gz), by column.
def columnFiles(paths) {
    return [paths].flatten().sort { path -> path.name }.collectEntries { path -> [(path.name - '.nii.gz'): path] }
}

// Last words of a run: where the report is, how many steps failed, and the exit status. What only another choice in the
// evaluation lacks is told, and fails no run.
def runSummary(outdir, train, boolean strict) {
    if (!workflow.success) {
        return [text: '', status: 0]
    }
    def text = train ? ["Networks, card and curves: ${outdir}/models"] : []
    if (train == 'lmi') {
        return [text: text.join('\n'), status: 0]
    }
    def statistics = file("${outdir}/tables/statistics.json", glob: false)
    def failures = statistics.exists() ? readDocument(statistics).failures : [main: 0, secondary: 0]
    text << "Report: ${outdir}/multiqc/multiqc_report.html"
    if (failures.main > 0) {
        text << "${failures.main} step(s) failed for single patients; they are named in the report and in ${outdir}/tables/failures.csv"
    }
    if (failures.secondary > 0) {
        text << "${failures.secondary} step(s) of other choices in the evaluation failed; the main results are whole, and the report names them"
    }
    return [text: text.join('\n'), status: failures.main > 0 && strict ? 3 : 0]
}

workflow INITIALISE {
    main:
    def faults = parameterFaults(params, "${projectDir}/nextflow_schema.json")
    if (faults) {
        error("The parameters have ${faults.size()} fault(s), nothing was run:\n" + faults.collect { fault -> "  ${fault}" }.join('\n'))
    }

    def known = readModels("${projectDir}/assets/models.yml", false)
    if (params.external_models) {
        known = known + readModels(params.external_models.toString(), true)
    }
    def models = selectModels(params, known)
    // The score maps of a samplesheet are known when it has been read.
    if (params.simulate) {
        checkFamily(models*.name)
    }
    ch_options = channel.value([
        models: models,
        training: selectTraining(params, known),
        tumor_algorithms: [
            preop: selectAlgorithms('tumor_preop', params.tumor_preop, 'preop'),
            followup: selectAlgorithms('tumor_followup', params.tumor_followup, 'followup'),
        ],
        atlas: readAtlas(params.atlas).subMap(['space', 'doi']),
        simulated: params.simulate != null,
        sheet: params.input ? file(params.input, checkIfExists: true, glob: false) : null,
    ])
    options = ch_options

    emit:
    options // value: [models: [entry, ...], training: [[entry:, seeds:, settings:], ...], tumor_algorithms: [preop: [entry, ...], followup: [...]], atlas: [space:, doi:], simulated: bool, sheet: path or null]
}
