//! The documents against the code: what a page lists is what there is, and what it points to exists.

use super::crds::definitions;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const README_MOST_LINES: usize = 150;
/// Folders that are no part of the repository.
const NOT_OURS: [&str; 2] = [".git", "target"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All text files of the repository, with their path in it.
fn texts() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if NOT_OURS.iter().any(|name| *name == entry.file_name()) {
                continue;
            }
            // A link leads to what is found anyway.
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file()
                && let Ok(text) = fs::read_to_string(&path)
            {
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    found
}

fn documents() -> Vec<(PathBuf, String)> {
    texts().into_iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "md")).collect()
}

/// The rows of a page's tables whose first cell is one word of code: that word, and the next cell.
fn rows(text: &str) -> Vec<(String, String)> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let first = cells.next()?.strip_suffix('`')?.to_owned();
        Some((first, cells.next()?.trim().to_owned()))
    };
    text.lines().filter_map(row).collect()
}

/// Sorted, and each there once.
fn unique(names: impl IntoIterator<Item = String>, what: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for name in names {
        assert!(seen.insert(name.clone()), "{what}: {name} stands there twice");
    }
    assert!(!seen.is_empty(), "{what}: nothing was found");
    seen
}

#[test]
fn the_readme_fits_a_reader() {
    let lines = read("README.md").lines().count();
    assert!(lines <= README_MOST_LINES, "README.md has {lines} lines, at most {README_MOST_LINES}");
}

/// Every constant of the modules of reasons: those of runs, of files, and of the command line.
fn reasons() -> Vec<String> {
    let files = ["src/api/condition.rs", "src/yaml/diagnostic.rs", "src/client/fault.rs"].map(read);
    let constants = files.iter().flat_map(|code| {
        let (_, module) = code.split_once("mod reason {").expect("a module of reasons");
        // It ends where a line is not indented any more.
        let module = module.split_once("\n}").map_or(module, |(module, _)| module);
        let constants: Vec<&str> = module.split("&str = \"").skip(1).collect();
        assert!(constants.len() > 8, "{module}");
        constants
    });
    constants.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

#[test]
fn every_reason_has_an_entry_and_every_entry_a_reason() {
    let constants = reasons();
    let page = read("docs/reference/errors.md");
    let entries: Vec<_> = page.split("\n### ").skip(1).collect();
    for entry in &entries {
        assert!(entry.lines().skip(1).any(|line| !line.is_empty()), "errors.md: nothing is said of {entry}");
    }
    let names = entries.iter().map(|entry| entry.lines().next().unwrap().trim().to_owned());
    assert_eq!(unique(names, "errors.md"), unique(constants, "the modules of reasons"));
}

#[test]
fn every_property_of_a_step_has_a_row_and_every_row_a_property() {
    let pipeline = definitions().iter().find(|crd| crd["spec"]["names"]["kind"] == "Pipeline").unwrap();
    let steps = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/steps/items/properties";
    for (kind, page) in [
        ("dockerPush", "docker-push.md"),
        ("dockerScratchPush", "docker-scratch-push.md"),
        ("shell", "shell.md"),
        ("storeContainer", "store-container.md"),
        ("watch", "watch.md"),
    ] {
        let properties = pipeline.pointer(&format!("{steps}/{kind}/properties")).and_then(Value::as_object).unwrap();
        let listed = rows(&read(&format!("docs/reference/steps/{page}"))).into_iter().map(|(name, _)| name);
        assert_eq!(unique(listed, page), unique(properties.keys().cloned(), kind));
    }
}

/// The values of a chart, by their path. Maps that a user fills, and requests and limits, count as one.
fn values(value: &Value, path: &str, found: &mut BTreeMap<String, Value>) {
    match value.as_object().filter(|fields| !fields.is_empty() && !path.ends_with(".resources")) {
        Some(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                values(field, &path, found);
            }
        }
        None => {
            found.insert(path.to_owned(), value.clone());
        }
    }
}

#[test]
fn every_value_of_the_chart_has_a_row_with_its_default() {
    let chart: Value = serde_yaml::from_str(&read("charts/windlass/values.yaml")).unwrap();
    let mut there = BTreeMap::new();
    values(&chart, "", &mut there);
    let page = read("docs/reference/chart-values.md");
    let (all, registries) = page.split_once("\n## registries[]").unwrap();
    let listed = rows(all);
    assert_eq!(unique(listed.iter().map(|(name, _)| name.clone()), "chart-values.md"), there.keys().cloned().collect());
    for (name, default) in &listed {
        let value = &there[name];
        if !name.ends_with(".resources") {
            let text = value.as_str().filter(|text| !text.is_empty()).map_or_else(|| value.to_string(), str::to_owned);
            assert_eq!(*default, format!("`{text}`"), "chart-values.md: the default of {name}");
        }
    }
    let schema: Value = serde_json::from_str(&read("charts/windlass/values.schema.json")).unwrap();
    let fields = schema.pointer("/properties/registries/items/properties").and_then(Value::as_object).unwrap();
    let rows = rows(registries).into_iter().map(|(name, _)| name);
    assert_eq!(unique(rows, "registries[]"), fields.keys().cloned().collect());
}

#[test]
fn exit_codes_are_those_of_the_help() {
    let output = Command::new(env!("CARGO_BIN_EXE_windlass")).args(["help", "exit-codes"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let codes = help.lines().filter_map(|line| line.trim_start().split_once("  "));
    let codes: Vec<String> = codes.map(|(code, means)| format!("| {code} | {means} |")).collect();
    let page = read("docs/reference/exit-codes.md").replace('`', "");
    let listed: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| ") && *line != "| code | meaning |").collect();
    assert!(codes.len() > 10, "{help}");
    assert_eq!(listed, codes);
}

#[test]
fn every_variable_of_steps_has_a_row() {
    let page = read("docs/reference/variables.md");
    let mut count = 0;
    for file in ["src/runner/env.rs", "src/prepare/source/mod.rs"] {
        let code = read(file);
        let code = code.split("#[cfg(test)]").next().unwrap();
        // Pairs such as ("ROOT", …): only variables are written so.
        for name in code.split("(\"").skip(1).filter_map(|rest| rest.split_once("\",")).map(|(name, _)| name) {
            if name.len() > 1 && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') {
                count += 1;
                let named = page.contains(&format!("`WERCKER_{name}`")) || page.contains(&format!("`{name}`"));
                assert!(named, "variables.md does not name {name} of {file}");
            }
        }
    }
    assert!(count > 20, "only {count} variables were found in the code");
}

/// What the links of a page point to.
fn links(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

#[test]
fn pictures_are_those_of_their_recordings() {
    let script = root().join("docs/pictures/record.py");
    let checked = std::process::Command::new("python3").arg(script).arg("--check").output().expect("python3");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn local_links_lead_somewhere() {
    let (mut count, mut broken) = (0, Vec::new());
    for (path, text) in documents() {
        let folder = root().join(&path).parent().unwrap().to_owned();
        for target in links(&text).into_iter().filter(|target| !target.contains("://")) {
            count += 1;
            let file = target.split('#').next().unwrap();
            if !file.is_empty() && !folder.join(file).exists() {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(count > 20, "only {count} links were found");
    assert!(broken.is_empty(), "links that lead nowhere: {broken:#?}");
}

#[test]
fn files_that_architecture_names_exist() {
    let page = read("ARCHITECTURE.md");
    let folders = ["src/", "tests/", "docs/", "charts/", "examples/", "crds/"];
    // Placeholders and lists in braces are no paths.
    let is_path = |word: &&str| {
        folders.iter().any(|folder| word.starts_with(folder))
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._/-".contains(c))
    };
    let named: Vec<&str> = page.split('`').skip(1).step_by(2).filter(is_path).collect();
    let gone: Vec<&&str> = named.iter().filter(|path| !root().join(path).exists()).collect();
    assert!(named.len() > 20, "{named:?}");
    assert!(gone.is_empty(), "ARCHITECTURE.md names what is not there: {gone:?}");
}

#[test]
fn make_targets_that_documents_name_exist() {
    let makefile = read("Makefile");
    let mut count = 0;
    for (path, text) in documents() {
        let in_words = text.split("`make ").skip(1);
        let in_blocks = text.split("\nmake ").skip(1);
        for rest in in_words.chain(in_blocks) {
            let target: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            count += 1;
            assert!(makefile.contains(&format!("\n{target}: ")), "{}: make {target}", path.display());
        }
    }
    assert!(count >= 4, "only {count} targets were found");
}

/// Whether `text` names `path` or something below it, as an absolute path.
fn names_path(text: &str, path: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    text.match_indices(path).any(|(at, _)| {
        let before = text[..at].chars().next_back().is_some_and(|c| part(c) || matches!(c, '.' | '/' | '~' | '}'));
        let after = text[at + path.len()..].chars().next().is_some_and(part);
        !before && !after
    })
}

/// Where somebody's checkout and home are is nobody else's business. In code `/root` is also the home in a box.
#[test]
fn no_file_names_a_folder_of_the_machine_it_was_written_on() {
    let [work, home] = ["work", "root"].map(|name| format!("/{name}"));
    let below_home = [".cache", ".cargo", ".kube", ".local", ".rustup"].map(|folder| format!("{home}/{folder}"));
    assert!(names_path(&format!("cd {work}/main"), &work) && !names_path(&format!("/tmp{work}"), &work));
    for (path, text) in texts() {
        let is_prose =
            path.extension().is_some_and(|end| ["md", "yaml", "yml", "txt"].iter().any(|prose| *prose == end));
        let mut forbidden = vec![&work];
        forbidden.extend(&below_home);
        forbidden.extend(is_prose.then_some(&home));
        for wrong in forbidden {
            assert!(!names_path(&text, wrong), "{} names {wrong}", path.display());
        }
    }
}
