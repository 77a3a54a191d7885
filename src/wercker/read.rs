//! The tree of a `wercker.yml` into a [`Document`]: all that is wrong is told at once.
//!
//! **Invariant:** a key is read or it is an error. Where Wercker swallowed a mistake (a pipeline that vanished, a
//! property that became empty), this says so; where its documents and its program differ, both are taken.

mod containers;
mod finder;
mod steps;
mod workflows;

pub(super) use containers::image;

use super::document::{Document, Pipeline, Text};
use crate::yaml::{Diagnostic, Entry, Findings, Node, Span, nearest, reason};
use finder::Finder;

/// Keys of the file that are no pipelines.
const TOP: [&str; 7] =
    ["box", "services", "command-timeout", "no-response-timeout", "source-dir", "ignore-file", "workflows"];
/// Keys of a pipeline that are no deploy targets.
const PIPELINE: [&str; 6] = ["box", "services", "steps", "after-steps", "base-path", "docker"];
/// Hints for keys that stand in the wrong one of the two.
const OF_FILE: &str = "it is a key of the whole file: write it at the top, beside the pipelines";
const OF_PIPELINE: &str = "it is a key of a pipeline: write it below build, beside its steps";
/// Most pipelines of a file, and most steps of a list: as many as our own kinds take.
const MOST_ENTRIES: usize = 200;
/// Longest timeout that Wercker takes, in minutes.
const MOST_MINUTES: u32 = 60;

/// Reads a file's text.
///
/// # Errors
/// All that is wrong, up to a bound.
pub fn read(text: &str) -> Result<Document, Findings> {
    let (document, findings) = read_all(text);
    if findings.has_errors() { Err(findings) } else { Ok(document) }
}

/// Reads what can be read, and tells all that was found, warnings included.
#[must_use]
pub fn read_all(text: &str) -> (Document, Findings) {
    let mut finder = Finder::default();
    let mut document = Document::default();
    match crate::yaml::documents(text) {
        Err(faults) => finder.findings.extend(faults),
        Ok(documents) => match documents.as_slice() {
            [] => {
                let fault = Diagnostic::error(reason::WRONG_TYPE, "the file is empty");
                finder.findings.push(fault.hint("write a first one with: windlass init"));
            }
            [one] => file(&mut finder, one, &mut document),
            [_, second, ..] => {
                let what = "a wercker.yml is one document";
                finder.error(reason::WRONG_TYPE, second.at, what, "a second one begins here", None);
            }
        },
    }
    (document, finder.findings.sorted())
}

fn file(finder: &mut Finder, node: &Node, document: &mut Document) {
    let Some(entries) = finder.map("the file", node) else { return };
    if let Some(beyond) = entries.get(MOST_ENTRIES) {
        finder.error(reason::WRONG_TYPE, beyond.key_at, &format!("more than {MOST_ENTRIES} keys"), "", None);
        return;
    }
    for entry in entries {
        let value = &entry.value;
        match entry.key.as_str() {
            "box" => document.box_ = containers::container(finder, "box", value),
            "services" => document.services = containers::services(finder, "services", value),
            "command-timeout" => document.command_timeout = minutes(finder, entry),
            "no-response-timeout" => document.no_response_timeout = minutes(finder, entry),
            "source-dir" => document.source_dir = relative(finder, entry),
            "ignore-file" => document.ignore_file = finder.text("ignore-file", value),
            "workflows" => {}
            _ => document.pipelines.extend(pipeline(finder, entry)),
        }
    }
    let named = entries.iter().find(|entry| entry.key == "workflows");
    if let Some(entry) = named {
        document.workflows = workflows::workflows(finder, &entry.value, document);
    } else if document.pipelines.is_empty() && !finder.findings.has_errors() {
        let fault = Diagnostic::error(reason::WRONG_TYPE, "the file has no pipeline");
        finder.findings.push(fault.hint("a pipeline is a key such as build with steps below it"));
    }
    for pipeline in &document.pipelines {
        if pipeline.box_.is_none() && document.box_.is_none() && !entries.iter().any(|entry| entry.key == "box") {
            let what = format!("pipeline {} has no box", pipeline.name.value);
            let hint = Some("write box: IMAGE at the top of the file or in the pipeline".to_owned());
            finder.error(reason::WRONG_TYPE, pipeline.name.at, &what, "neither here nor at the top", hint);
        }
    }
}

/// Minutes, as a number.
fn minutes(finder: &mut Finder, entry: &Entry) -> Option<(u32, Span)> {
    let text = finder.text(&entry.key, &entry.value)?;
    let Some(number) = text.value.parse::<u32>().ok().filter(|minutes| *minutes > 0) else {
        let what = format!("{}: {:?} is no number of minutes", entry.key, text.value);
        finder.error(reason::WRONG_TYPE, text.at, &what, "expected a number from 1 to 60", None);
        return None;
    };
    if number > MOST_MINUTES {
        let what = format!("{}: {number} minutes count as {MOST_MINUTES}", entry.key);
        finder.warning(reason::CHANGED, text.at, &what, "the most that Wercker takes");
    }
    Some((number.min(MOST_MINUTES), text.at))
}

/// A directory below the source.
fn relative(finder: &mut Finder, entry: &Entry) -> Option<Text> {
    let mut text = finder.text(&entry.key, &entry.value)?;
    let path = text.value.trim_start_matches("./").trim_end_matches('/').to_owned();
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        let what = format!("{}: {:?} is not below the source", entry.key, text.value);
        finder.error(reason::WRONG_TYPE, text.at, &what, "expected a relative directory without ..", None);
        return None;
    }
    text.value = path;
    Some(text).filter(|text| !text.value.is_empty() && text.value != ".")
}

/// Any other key of the file.
fn pipeline(finder: &mut Finder, entry: &Entry) -> Option<Pipeline> {
    let name = Text { value: entry.key.clone(), at: entry.key_at };
    let mut pipeline = Pipeline { name, ..Pipeline::default() };
    let what = format!("pipeline {}", entry.key);
    let has_steps = entry.value.get("steps").is_some();
    if let Some(near) = nearest(&entry.key, TOP).filter(|_| !has_steps) {
        finder.unknown("the file", entry, Some(near));
        return None;
    }
    match (entry.value.list(), entry.value.map()) {
        (Some(_), _) => pipeline.steps = steps::steps(finder, &what, &entry.value),
        (_, Some(entries)) => fields(finder, &what, entries, &mut pipeline),
        (None, None) if entry.value.is_null() => {
            let hint = Some("write steps: and a list below it".to_owned());
            finder.error(reason::WRONG_TYPE, entry.key_at, &format!("{what} is empty"), "no steps", hint);
            return None;
        }
        (None, None) => {
            let said = format!("no such key: {}", entry.key);
            let is_of_pipeline = PIPELINE.contains(&entry.key.as_str());
            let hint = if is_of_pipeline { OF_PIPELINE } else { "a pipeline is a map with steps, or a list of steps" };
            let hint = Some(hint.to_owned());
            finder.error(reason::UNKNOWN_KEY, entry.key_at, &said, "neither a setting nor a pipeline", hint);
            return None;
        }
    }
    if pipeline.steps.is_empty() && pipeline.targets.is_empty() && !finder.findings.has_errors() {
        let hint = Some("write steps: and a list below it".to_owned());
        finder.error(reason::WRONG_TYPE, entry.key_at, &format!("{what} has no steps"), "", hint);
        return None;
    }
    Some(pipeline)
}

fn fields(finder: &mut Finder, what: &str, entries: &[Entry], pipeline: &mut Pipeline) {
    for entry in entries {
        let value = &entry.value;
        match entry.key.as_str() {
            "box" => pipeline.box_ = containers::container(finder, &format!("{what}: box"), value),
            "services" => pipeline.services = Some(containers::services(finder, &format!("{what}: services"), value)),
            "steps" => pipeline.steps = steps::steps(finder, what, value),
            "after-steps" => {
                pipeline.after_steps = steps::steps(finder, &format!("{what}: after-steps"), value);
                steps::no_people(finder, what, &pipeline.after_steps);
            }
            "base-path" => pipeline.base_path = base_path(finder, what, value),
            "docker" => {
                let wanted = finder.truth(&format!("{what}: docker"), value).unwrap_or(false);
                pipeline.docker = wanted.then_some(entry.key_at);
            }
            key if TOP.contains(&key) && value.list().is_none() => {
                let said = format!("{what}: no such key: {key}");
                finder.error(reason::UNKNOWN_KEY, entry.key_at, &said, "", Some(OF_FILE.to_owned()));
            }
            key => {
                let near = nearest(key, PIPELINE);
                if near.is_some() || value.list().is_none() {
                    finder.unknown(what, entry, near);
                } else {
                    let target = steps::steps(finder, &format!("{what}, target {key}"), value);
                    pipeline.targets.push((Text { value: key.to_owned(), at: entry.key_at }, target));
                }
            }
        }
    }
}

/// Where the source is put. Wercker removed the directory above it first, so `/app` removed everything.
fn base_path(finder: &mut Finder, what: &str, node: &Node) -> Option<Text> {
    let mut text = finder.text(&format!("{what}: base-path"), node)?;
    let path = text.value.trim_end_matches('/').to_owned();
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        let said = format!("{what}: base-path {:?} is no directory that the source can be put in", text.value);
        let label = "expected an absolute directory other than /, without ..";
        finder.error(reason::WRONG_TYPE, text.at, &said, label, Some("base-path: /go/src/app".into()));
        return None;
    }
    text.value = path;
    Some(text)
}
