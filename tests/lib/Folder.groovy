import groovy.json.JsonSlurper

/** Files of a folder, and what is in them, for assertions. */
class Folder {

    /** The one file below a folder whose name ends so; a fault if there is none, or more than one. */
    static File file(folder, String ending) {
        def found = files(folder, ending)
        if (found.size() != 1) {
            throw new AssertionError("${folder}: ${found.size()} files end in ${ending}, expected one: ${found*.name}" as Object)
        }
        return found[0]
    }

    /** All files below a folder whose names end so, by name; the links tasks read through are followed. */
    static List<File> files(folder, String ending) {
        def found = []
        new File(folder.toString()).listFiles()?.each { entry ->
            if (entry.directory) {
                found.addAll(files(entry, ending))
            }
            else if (entry.name.endsWith(ending)) {
                found << entry
            }
        }
        return found.sort { entry -> entry.path }
    }

    /** The exam folder a task was given, beside one of its outputs. */
    static File exam(output) {
        return new File(output.toString()).parentFile.listFiles().find { entry -> entry.directory && entry.name ==~ /sub-\w+_ses-\w+/ }
    }

    static Object json(path) {
        return new JsonSlurper().parse(new File(path.toString()))
    }

    /** Rows of a CSV table by column. */
    static List<Map> rows(path) {
        def lines = new File(path.toString()).readLines('UTF-8')
        def columns = cells(lines[0])
        return lines.drop(1).collect { line -> [columns, cells(line)].transpose().collectEntries { pair -> pair } }
    }

    // A cell is plain, or in quotes that are doubled inside.
    private static List<String> cells(String line) {
        return (",${line}" =~ /,(?:"((?:[^"]|"")*)"|([^,]*))/).collect { _all, quoted, plain -> quoted == null ? plain : quoted.replace('""', '"') }
    }

}
