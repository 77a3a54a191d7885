//! `convert`: a `wercker.yml` into Pipelines.
//!
//! Finds the file, the files of steps that it names and the address of its repository; `wercker` does the rest.
//!
//! **Invariant:** all or nothing: what a cluster could not run is not written. No file is written over.

use super::{
    Session,
    args::ConvertArgs,
    check::{Input, kinds},
    exit::Exit,
    fault::{Fault, Stop, reason},
    findings::Report,
    style::Mode,
};
use crate::wercker::{
    convert::{LocalStep, Options, convert as into_pipelines, step_key, wanted},
    document::{Document, Step},
    read_all,
};
use crate::yaml::Diagnostic;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
};

/// Names of the file, in the order in which Wercker looked for them.
pub(super) const NAMES: [&str; 2] = ["wercker.yml", ".wercker.yml"];
/// Longest file of a step.
const MOST_STEP_BYTES: u64 = 64 << 10;
/// Most steps whose files are read, and most names of other files.
const MOST_FILES: usize = 200;

/// `convert`.
///
/// # Errors
/// When the file cannot be read, or the result not be written.
pub(super) fn convert(session: &mut Session, args: &ConvertArgs) -> Result<Exit, Stop> {
    let path = match &args.file {
        Some(path) => path.clone(),
        None => NAMES.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or_else(|| {
            Fault::usage("no wercker.yml in this directory").hint(format!("{} convert FILE", session.name))
        })?,
    };
    if session.look.mode == Mode::Json && args.output.is_none() {
        return Err(Fault::usage("--json and the Pipelines both go to stdout; give -o FILE").into());
    }
    let input = Input::read(&path)?;
    let mut report = Report::begin(session)?;
    let (document, mut findings) = read_all(&input.text);
    let mut converted = None;
    if !findings.has_errors() {
        let options = Options {
            file: input.name.clone(),
            git: args.git.clone().or_else(|| origin(&path)),
            local: local_steps(&document, &steps_beside(&path, args.steps.as_deref())),
            here: None,
        };
        match into_pipelines(&document, &options) {
            Ok(done) => {
                findings.extend(done.findings.list().iter().cloned());
                // Limits of our own kinds, which Wercker did not have.
                let made = kinds::judge(&done.yaml).0;
                findings.extend(made.list().iter().map(|found| Diagnostic {
                    message: format!("the Pipeline made of it: {}, {}", found.message, found.label),
                    at: None,
                    ..found.clone()
                }));
                converted = (!made.has_errors()).then_some(done);
            }
            Err(more) => findings.extend(more.list().iter().cloned()),
        }
    }
    report.file(session, &input.name, &input.text, &findings.sorted())?;
    let Some(converted) = converted else {
        return report.end(session, Exit::Usage);
    };
    match &args.output {
        None => session.screen.data(&converted.yaml)?,
        Some(output) => {
            write_new(output, &converted.yaml)?;
            let names = converted.names.join(", ");
            session.screen.message(&format!("{}: Pipelines {names}", output.display()))?;
            session.screen.message(&format!("hint: kubectl apply -f {}", output.display()))?;
        }
    }
    report.end(session, Exit::Success)
}

/// Writes a file that is not there yet.
pub(super) fn write_new(path: &Path, text: &str) -> Result<(), Stop> {
    let made =
        File::options().write(true).create_new(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    made.map_err(|error| {
        let name = path.display();
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                let fault = Fault::new(reason::ALREADY_EXISTS, Exit::Usage, format!("{name} exists"));
                fault.note("nothing was written").hint(format!("move it away first: mv {name} {name}.old")).into()
            }
            _ => Fault::new(reason::OUTPUT_FAILED, Exit::World, format!("cannot write {name}: {error}")).into(),
        }
    })
}

/// Where the steps of a file are.
pub(super) fn steps_beside(file: &Path, given: Option<&Path>) -> PathBuf {
    let beside = || file.parent().unwrap_or(Path::new("")).join(".wercker/steps");
    given.map_or_else(beside, Path::to_owned)
}

/// The files of the steps that a document names, as far as they are there.
pub(super) fn local_steps(document: &Document, directory: &Path) -> BTreeMap<String, LocalStep> {
    let mut found = BTreeMap::new();
    for step in wanted(document).take(MOST_FILES) {
        let key = step_key(step);
        if let Some(files) = candidates(step, directory).iter().find_map(|place| read_step(place)) {
            found.insert(key, files);
        }
    }
    found
}

fn candidates(step: &Step, directory: &Path) -> Vec<PathBuf> {
    match step.url.as_deref().map(|url| url.strip_prefix("file://")) {
        Some(Some(path)) => vec![PathBuf::from(path)],
        Some(None) => Vec::new(),
        // A name is one directory, never a way out of this one.
        None if [&step.owner, &step.id].iter().any(|part| part.contains(['/', '\\']) || part.starts_with('.')) => {
            Vec::new()
        }
        None => [format!("{}-{}", step.owner, step.id), format!("{}/{}", step.owner, step.id), step.id.clone()]
            .map(|name| directory.join(name))
            .to_vec(),
    }
}

/// A regular file of a step's size; a pipe would be waited for.
fn read_small(path: &Path) -> Option<String> {
    let there = fs::metadata(path).ok()?;
    if !there.is_file() || there.len() > MOST_STEP_BYTES {
        return None;
    }
    let mut text = String::new();
    File::open(path).ok()?.take(MOST_STEP_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

fn read_step(directory: &Path) -> Option<LocalStep> {
    let text = |name: &str| read_small(&directory.join(name));
    let known = ["run.sh", "init.sh", "step.yml", "wercker-step.yml", "README.md", "LICENSE"];
    let others =
        fs::read_dir(directory).ok()?.take(MOST_FILES).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Some(LocalStep {
        directory: directory.to_owned(),
        run: text("run.sh")?,
        init: text("init.sh"),
        manifest: text("step.yml").or_else(|| text("wercker-step.yml")),
        others: others.filter(|name| !known.contains(&name.as_str()) && !name.starts_with('.')).collect(),
    })
}

/// The address of `origin` in the repository of a file, if a cluster could use it.
fn origin(file: &Path) -> Option<String> {
    let config = file.parent().unwrap_or(Path::new("")).join(".git/config");
    address(&read_small(&config)?)
}

fn address(config: &str) -> Option<String> {
    let section = config.split("\n[").find(|part| part.trim_start_matches('[').starts_with("remote \"origin\"]"))?;
    let url = section.lines().find_map(|line| line.trim().strip_prefix("url")?.trim().strip_prefix('='))?.trim();
    // A login in the address does not belong into a Pipeline.
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let bare = match (scheme, rest.split_once('@')) {
        ("http" | "https", Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    };
    let usable =
        ["https", "http", "ssh"].contains(&scheme) || scheme.is_empty() && bare.contains('@') && bare.contains(':');
    (usable && !bare.contains(char::is_whitespace)).then_some(bare)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("https://git.example.com/a.git", Some("https://git.example.com/a.git"))]
    #[case("https://me:token@git.example.com/a.git", Some("https://git.example.com/a.git"))]
    #[case("git@git.example.com:a/b.git", Some("git@git.example.com:a/b.git"))]
    #[case("ssh://git@git.example.com/a.git", Some("ssh://git@git.example.com/a.git"))]
    #[case("../other", None)]
    #[case("file:///srv/a.git", None)]
    fn origin_is_used_if_a_cluster_could_reach_it(#[case] url: &str, #[case] expected: Option<&str>) {
        let config =
            format!("[core]\n\tbare = false\n[remote \"origin\"]\n\turl = {url}\n\tfetch = x\n[branch \"main\"]\n");
        assert_eq!(address(&config).as_deref(), expected);
        assert_eq!(address("[remote \"other\"]\nurl = https://x/y\n"), None);
    }
}
