//! A [`Document`] into our own kinds: one `Pipeline` per pipeline and deploy target, as YAML with comments.
//!
//! **Invariant:** nothing is dropped without a word. What the cluster does in another way is a comment; what it does not
//! do at all is a comment and a warning; what would fail there is an error, and nothing is written.

mod containers;
mod engine;
pub mod here;
mod pipeline;
mod push;
mod registry;
mod scripts;
mod steps;

use super::{
    document::{Document, Pipeline, Step, Text},
    out::{Map, comment, map},
};
use crate::{
    api::{GROUP, VERSION},
    yaml::{Diagnostic, Findings, Span, reason},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

pub use engine::CHECKPOINT;
pub use here::{Here, MadeHere, here};
pub use registry::gone;

/// Name of the Secret of what was protected in Wercker.
pub const SECRET: &str = "wercker-secrets";
/// Name of the ConfigMap of the other variables.
pub const CONFIG_MAP: &str = "wercker-env";
/// Longest name of a Pipeline.
const MOST_NAME: usize = 52;
/// Longest name of a step or service.
const MOST_STEP_NAME: usize = 59;

/// What the caller knows besides the file.
#[derive(Clone, Default)]
pub struct Options {
    /// Name of the file, for the first comment.
    pub file: String,
    /// Address of the git repository that the source comes from.
    pub git: Option<String>,
    /// Steps that are there as files, by [`step_key`].
    pub local: BTreeMap<String, LocalStep>,
    /// The run is one on this machine, and begins with these variables; none: it is one in a cluster.
    pub here: Option<Here>,
}

/// The files of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalStep {
    /// Where they are.
    pub directory: PathBuf,
    /// `run.sh`.
    pub run: String,
    /// `init.sh`.
    pub init: Option<String>,
    /// `step.yml` or `wercker-step.yml`.
    pub manifest: Option<String>,
    /// Names of its other files.
    pub others: Vec<String>,
}

/// The result.
#[derive(Clone, Debug)]
pub struct Converted {
    /// Pipelines as YAML.
    pub yaml: String,
    /// Their names.
    pub names: Vec<String>,
    /// Warnings.
    pub findings: Findings,
}

/// By what a step's files are handed in: its address, else its id with owner.
#[must_use]
pub fn step_key(step: &Step) -> String {
    step.url.clone().unwrap_or_else(|| step.full_id())
}

/// Steps whose files can be handed in: those with an address, and those that are neither Wercker's own nor ours.
pub fn wanted(document: &Document) -> impl Iterator<Item = &Step> {
    document.steps().filter(|step| {
        !step.is_internal() && !step.is_script() && (step.url.is_some() || registry::shipped(&step.id).is_none())
    })
}

/// Converts a file.
///
/// # Errors
/// All that a cluster cannot do, with what to do instead.
pub fn convert(document: &Document, options: &Options) -> Result<Converted, Findings> {
    let mut converter = Converter::new(document, options);
    let mut names = BTreeSet::new();
    let mut documents = Vec::new();
    for pipeline in &document.pipelines {
        for target in pipeline.turns() {
            let written = target.map_or_else(
                || pipeline.name.value.clone(),
                |(target, _)| format!("{}-{}", pipeline.name.value, target.value),
            );
            let name = unique(&slug(&written, MOST_NAME, "pipeline"), MOST_NAME, &mut names);
            documents.push((name.clone(), converter.object(pipeline, target, &name, &written)));
        }
    }
    let findings = converter.findings.sorted();
    if findings.has_errors() {
        return Err(findings);
    }
    let mut yaml = String::new();
    comment(&mut yaml, &format!("Made by `windlass convert` from {}.", options.file), 0);
    for (index, (_, object)) in documents.iter().enumerate() {
        if index > 0 {
            yaml.push_str("---\n");
        }
        yaml.push_str(&object.yaml());
    }
    Ok(Converted { yaml, names: documents.into_iter().map(|(name, _)| name).collect(), findings })
}

/// What all parts share.
struct Converter<'a> {
    document: &'a Document,
    options: &'a Options,
    findings: Findings,
    /// What a run on this machine has beside its Pipeline.
    beside: MadeHere,
}

impl<'a> Converter<'a> {
    fn new(document: &'a Document, options: &'a Options) -> Self {
        Self { document, options, findings: Findings::default(), beside: MadeHere::default() }
    }

    /// Whether the run is one on this machine.
    fn is_here(&self) -> bool {
        self.options.here.is_some()
    }

    /// What a cluster cannot do.
    fn refuse(&mut self, reason: &'static str, at: Span, message: &str, hint: &str) {
        // A run on this machine says the same of what it cannot do.
        let reason = match reason {
            reason::NOT_IN_CLUSTER if self.is_here() => crate::api::condition::reason::INVALID_PIPELINE,
            reason => reason,
        };
        let found = Diagnostic::error(reason, message).at(at, "");
        self.findings.push(if hint.is_empty() { found } else { found.hint(hint) });
    }

    /// What is not done, or in another way: a warning, and the same as a comment.
    fn lost(&mut self, at: Span, message: &str) -> String {
        self.findings.push(Diagnostic::warning(reason::CHANGED, message).at(at, ""));
        message.to_owned()
    }

    /// The object of a pipeline.
    fn object(&mut self, pipeline: &Pipeline, target: Option<&(Text, Vec<Step>)>, name: &str, written: &str) -> Map {
        let mut object = Map::default();
        object.notes(self.workflow_notes(pipeline));
        object.text("apiVersion", format!("{GROUP}/{VERSION}"));
        object.text("kind", "Pipeline");
        let mut metadata = Map::default();
        if name != written {
            metadata
                .note(format!("{written} in {}; names here are lower-case letters, digits and -", self.options.file));
        }
        metadata.text("name", name);
        object.put("metadata", super::out::Out::Map(metadata));
        let spec = pipeline::spec(self, pipeline, target);
        object.put("spec", super::out::Out::Map(spec));
        object
    }

    /// What workflows said of a pipeline: Windlass has no chains of pipelines yet.
    fn workflow_notes(&mut self, pipeline: &Pipeline) -> Vec<String> {
        let mut notes = Vec::new();
        // Here the command line runs them in their order.
        let workflows = if self.is_here() { &[][..] } else { &self.document.workflows };
        for workflow in workflows {
            for node in workflow.nodes.iter().filter(|node| node.pipeline.value == pipeline.name.value) {
                let requires: Vec<&str> = node.requires.iter().map(|required| required.value.as_str()).collect();
                if requires.is_empty() {
                    notes.push(format!("Workflow {} begins with it.", workflow.name.value));
                    continue;
                }
                let message = format!(
                    "Workflow {} ran {} after {} and on the files that it left; here pipelines do not start each other \
                     yet: start them in this order (windlass run --from pipeline/NAME), or make one pipeline of their steps.",
                    workflow.name.value,
                    node.name.value,
                    requires.join(", ")
                );
                notes.push(self.lost(node.name.at, &message));
            }
        }
        notes
    }
}

/// Letters, digits and `-`, as names here are.
fn slug(text: &str, most: usize, fallback: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let c = if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        if c != '-' || !(out.is_empty() || out.ends_with('-')) {
            out.push(c);
        }
    }
    out.truncate(most);
    let out = out.trim_end_matches('-');
    if out.is_empty() { fallback.to_owned() } else { out.to_owned() }
}

/// The name, or the name with the first number that is free.
fn unique(name: &str, most: usize, taken: &mut BTreeSet<String>) -> String {
    let mut candidate = name.to_owned();
    let mut number = 1;
    while !taken.insert(candidate.clone()) {
        number += 1;
        let end = format!("-{number}");
        let start: String = name.chars().take(most - end.len()).collect();
        candidate = format!("{}{end}", start.trim_end_matches('-'));
    }
    candidate
}

/// A variable from a key of an object.
fn from_key(name: &str, kind: &str, object: &str, key: &str) -> Map {
    let mut entry = map([("name", name)]);
    entry.put(kind, super::out::Out::Map(map([("name", object), ("key", key)])));
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_and_stay_unique() {
        assert_eq!(slug("Build_App  v2!", 52, "x"), "build-app-v2");
        assert_eq!(slug("éé", 52, "step"), "step");
        assert_eq!(slug(&"a".repeat(99), 10, "x"), "a".repeat(10));
        let mut taken = BTreeSet::new();
        assert_eq!(["a", "a", "a"].map(|name| unique(name, 52, &mut taken)), ["a", "a-2", "a-3"]);
        assert_eq!(unique(&"a".repeat(52), 52, &mut taken).len(), 52);
        assert_eq!(unique(&"a".repeat(52), 52, &mut taken).len(), 52);
    }
}
