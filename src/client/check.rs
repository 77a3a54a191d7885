//! `check`: what is wrong with files, told without a cluster.
//!
//! A file is a `wercker.yml`, or documents of our own kinds and of others, which are passed over.
//!
//! **Invariant:** nothing is asked of a cluster, an engine or the network, and nothing is written.

pub(super) mod kinds;
mod schema;

use super::{
    Session,
    args::CheckArgs,
    convert::{NAMES, local_steps, steps_beside},
    exit::Exit,
    fault::{Fault, Stop, one_line},
    findings::{Report, counted},
    manifest,
    style::Mode,
};
use crate::{
    api::condition::reason::{INVALID_PROPERTY, UNDEFINED_VARIABLE},
    wercker::{
        convert::{Here, LocalStep, MadeHere, Options, gone, here::here},
        document::{Document, Pipeline},
        read_all,
    },
    yaml::{self, Diagnostic, Findings, Severity},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Files of our own kinds that are looked for.
pub(super) const OURS: [&str; 2] = ["windlass.yaml", "windlass.yml"];

/// A file that was read.
pub(super) struct Input {
    /// For people.
    pub(super) name: String,
    /// What is in it.
    pub(super) text: String,
}

impl Input {
    /// Reads a file, or stdin for `-`.
    ///
    /// # Errors
    /// `UnreadableFile`.
    pub(super) fn read(path: &Path) -> Result<Self, Stop> {
        let name = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
        Ok(Self { name, text: manifest::read(path)? })
    }
}

/// `check`.
///
/// # Errors
/// When a file cannot be read.
pub(super) fn check(session: &mut Session, args: &CheckArgs) -> Result<Exit, Stop> {
    let mut paths = args.files.clone();
    if paths.is_empty() {
        paths = NAMES.iter().chain(&OURS).map(PathBuf::from).filter(|path| path.is_file()).collect();
    }
    if paths.is_empty() {
        let fault = Fault::usage(format!("this directory has none of {}", [NAMES, OURS].concat().join(", ")));
        return Err(fault.hint(format!("{} init   writes a first one", session.name)).into());
    }
    let mut inputs = Vec::new();
    for path in &paths {
        inputs.push((path, Input::read(path)?));
    }
    let mut report = Report::begin(session)?;
    for (path, input) in &inputs {
        let (findings, good) = judge(path, input, args);
        report.file(session, &input.name, &input.text, &findings)?;
        if findings.list().is_empty() && session.look.mode != Mode::Json {
            session.screen.message(&one_line(&format!("ok {}: {good}", input.name)))?;
        }
    }
    let exit = if report.failed(args.strict) { Exit::Failed } else { Exit::Success };
    report.end(session, exit)
}

/// What is found in a file, and what is said if nothing is.
fn judge(path: &Path, input: &Input, args: &CheckArgs) -> (Findings, String) {
    if !is_wercker(path, &input.text) {
        return kinds::judge(&input.text);
    }
    let (document, mut findings) = read_all(&input.text);
    if !findings.has_errors() {
        let local = local_steps(&document, &steps_beside(path, args.steps.as_deref()));
        findings.extend(gone(&document, |key| local.contains_key(key)));
        findings = with_new(findings, of_runs(&document, local));
    }
    (findings.sorted(), summary(&document))
}

/// What runs on this machine would say before they start, whatever their variables are.
fn of_runs(document: &Document, local: BTreeMap<String, LocalStep>) -> Vec<Diagnostic> {
    let options = Options { local, here: Some(Here::default()), ..Options::default() };
    let mut all = Vec::new();
    for pipeline in &document.pipelines {
        for target in pipeline.turns() {
            let found = match here(document, &options, pipeline, target) {
                Ok(made) => of_made(pipeline, &made),
                Err(found) => found,
            };
            // A text whose variable is not known says little of the run's.
            let unknown = found.list().iter().any(|found| found.reason == UNDEFINED_VARIABLE);
            let counts = |found: &&Diagnostic| {
                !unknown || found.severity == Severity::Warning || found.reason == INVALID_PROPERTY
            };
            all.extend(found.list().iter().filter(counts).cloned());
        }
    }
    all
}

/// What is said of a pipeline that can be made: that of the conversion, and the limits of our own kinds, which Wercker did
/// not have.
pub(super) fn of_made(pipeline: &Pipeline, made: &MadeHere) -> Findings {
    let mut findings = made.findings.clone();
    let judged = kinds::judge(&made.yaml).0;
    findings.extend(judged.list().iter().map(|found| Diagnostic {
        message: format!("the Pipeline made of {}: {}, {}", pipeline.name.value, found.message, found.label),
        at: Some(pipeline.name.at),
        label: String::new(),
        ..found.clone()
    }));
    findings
}

/// With those that were not found before: several pipelines have the same box.
fn with_new(mut findings: Findings, more: Vec<Diagnostic>) -> Findings {
    for found in more {
        if !findings.list().contains(&found) {
            findings.push(found);
        }
    }
    findings
}

/// Whether a file is a `wercker.yml`: by its name, or by not being objects of a cluster.
pub(super) fn is_wercker(path: &Path, text: &str) -> bool {
    if path.file_name().is_some_and(|name| NAMES.iter().any(|known| *known == name)) {
        return true;
    }
    match yaml::documents(text) {
        Ok(documents) => {
            !documents.iter().any(|document| document.get("apiVersion").is_some() || document.get("kind").is_some())
        }
        Err(_) => !text.lines().any(|line| line.starts_with("apiVersion:") || line.starts_with("kind:")),
    }
}

fn summary(document: &Document) -> String {
    let names: Vec<&str> = document.pipelines.iter().map(|pipeline| pipeline.name.value.as_str()).collect();
    let pipelines = format!("{} ({})", counted(names.len(), "pipeline"), names.join(", "));
    match document.workflows.len() {
        0 => pipelines,
        count => format!("{pipelines}, {}", counted(count, "workflow")),
    }
}

/// What is found in objects, as printed.
#[cfg(test)]
pub(super) fn faults_of(text: &str) -> String {
    kinds::judge(text).0.list().iter().map(|found| found.render("windlass.yaml", text)).collect()
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
