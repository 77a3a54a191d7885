//! Pipelines and runs in a file: schema, then what the controller would refuse.
//!
//! **Invariant:** what is refused here is refused by the cluster too. Objects of other APIs are not judged.

use super::schema;
use crate::{
    api::{GROUP, Pipeline, PipelineRun, PipelineSpec, VERSION},
    client::{fault::reason::UNKNOWN_KIND, findings::counted, manifest},
    steps::{self, StepError, params},
    yaml::{self, Diagnostic, Findings, Node, Span, nearest, reason},
};
use serde_json::Value;
use std::collections::BTreeSet;

/// Judges all documents of a text; and says what they are.
pub(in crate::client) fn judge(text: &str) -> (Findings, String) {
    let mut findings = Findings::default();
    let documents = match yaml::documents(text) {
        Ok(documents) => documents,
        Err(faults) => {
            findings.extend(faults);
            Vec::new()
        }
    };
    if documents.is_empty() && !findings.has_errors() {
        findings.push(Diagnostic::error(reason::WRONG_TYPE, "the file is empty"));
    }
    let mut names = Vec::new();
    for object in documents.iter().flat_map(items) {
        names.extend(one(object, &mut findings));
    }
    let what = match names.len() {
        0 => "nothing of Windlass in it".to_owned(),
        count => format!("{} ({})", counted(count, "object"), names.join(", ")),
    };
    (findings.sorted(), what)
}

/// The objects of a List; else the document itself.
fn items(document: &Node) -> Vec<&Node> {
    let is_list = document.get("kind").and_then(Node::text) == Some("List");
    match document.get("items").and_then(Node::list).filter(|_| is_list) {
        Some(items) => items.iter().collect(),
        None => vec![document],
    }
}

fn one(object: &Node, findings: &mut Findings) -> Option<String> {
    let word = |key: &str| object.get(key).and_then(Node::text).unwrap_or_default();
    let (version, kind) = (word("apiVersion"), word("kind"));
    let wanted = format!("{GROUP}/{VERSION}");
    let place = |key: &str| object.get(key).map_or(object.at, |node| node.at);
    if kind.is_empty() || version.is_empty() {
        let what = if kind.is_empty() { "kind" } else { "apiVersion" };
        let hint = match manifest::is_wercker(|key| object.get(key).is_some()) {
            true => manifest::wercker_hint("-"),
            false => "apiVersion: windlass.dev/v1alpha1, kind: Pipeline or PipelineRun".into(),
        };
        let found = Diagnostic::error(UNKNOWN_KIND, format!("the object has no {what}"));
        findings.push(found.at(object.at, "").hint(hint));
        return None;
    }
    let ours = ["Pipeline", "PipelineRun"];
    if version != wanted {
        if version.starts_with(&format!("{GROUP}/")) {
            let found = Diagnostic::error(UNKNOWN_KIND, format!("apiVersion {version:?} is not known"));
            findings.push(found.at(place("apiVersion"), format!("expected {wanted}")));
        }
        return None;
    }
    if !ours.contains(&kind) {
        let label = nearest(kind, ours).map_or_else(String::new, |near| format!("did you mean {near}?"));
        findings.push(Diagnostic::error(UNKNOWN_KIND, format!("kind {kind:?} is not known")).at(place("kind"), label));
        return None;
    }
    let before = findings.list().len() + findings.left_out();
    schema::check(object, kind, findings);
    let name = object.get("metadata").and_then(|metadata| metadata.get("name").or(metadata.get("generateName")));
    let name = name.and_then(Node::text).unwrap_or_default().to_owned();
    judge_name(object, kind, findings);
    judge_names(object, kind, findings);
    // What the schema refuses has no meaning to be judged.
    if findings.list().len() + findings.left_out() == before {
        meaning(object, kind, findings);
    }
    Some(name)
}

/// Names of other things are made of the name.
fn judge_name(object: &Node, kind: &str, findings: &mut Findings) {
    let metadata = object.get("metadata");
    let Some(name) = metadata.and_then(|metadata| metadata.get("name")) else {
        if metadata.and_then(|metadata| metadata.get("generateName")).is_none() {
            findings.push(
                Diagnostic::error(reason::WRONG_TYPE, "the object has no name")
                    .at(object.at, "")
                    .hint("metadata: {name: NAME}"),
            );
        }
        return;
    };
    let text = name.text().unwrap_or_default();
    let most = if kind == "Pipeline" { 52 } else { 58 };
    if text.len() > most || !is_dashed(text) {
        let found = Diagnostic::error(reason::WRONG_TYPE, format!("metadata.name {text:?} cannot be a name"));
        findings.push(found.at(name.at, format!("expected lower-case letters, digits and -, at most {most}")));
    }
}

/// Rules of the definitions that the schema alone does not judge: how steps and services are called, and that no two of
/// them have one name.
fn judge_names(object: &Node, kind: &str, findings: &mut Findings) {
    let spec = object.get("spec");
    let (pipeline, path) = if kind == "Pipeline" {
        (spec, "spec")
    } else {
        (spec.and_then(|spec| spec.get("pipelineSpec")), "spec.pipelineSpec")
    };
    let mut taken = BTreeSet::new();
    for list in ["steps", "afterSteps", "services"] {
        let items = pipeline.and_then(|pipeline| pipeline.get(list)).and_then(Node::list).unwrap_or_default();
        for (index, item) in items.iter().enumerate() {
            let Some((node, name)) = item.get("name").and_then(|node| Some((node, node.text()?))) else { continue };
            let wrong = |what: &str| {
                Diagnostic::error(reason::WRONG_TYPE, format!("{path}.{list}[{index}].name {name:?} {what}"))
            };
            if !is_dashed(name) {
                findings.push(wrong("cannot be a name").at(node.at, "expected lower-case letters, digits and -"));
            } else if !taken.insert((list == "services", name)) {
                findings.push(wrong("stands twice").at(node.at, "choose another"));
            }
        }
    }
}

/// Lower-case letters, digits and `-`, which is neither first nor last.
fn is_dashed(name: &str) -> bool {
    !name.is_empty()
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// What the controller would say of the pipeline.
fn meaning(object: &Node, kind: &str, findings: &mut Findings) {
    let unreadable =
        |error: serde_json::Error| Diagnostic::error(reason::WRONG_TYPE, error.to_string()).at(object.at, "");
    let json = without_nulls(object.json());
    let (spec, below) = if kind == "Pipeline" {
        match serde_json::from_value::<Pipeline>(json) {
            Ok(pipeline) => (Some(pipeline.spec), "spec"),
            Err(error) => return findings.push(unreadable(error)),
        }
    } else {
        match serde_json::from_value::<PipelineRun>(json) {
            Ok(run) => (run.spec.pipeline_spec, "spec.pipelineSpec"),
            Err(error) => return findings.push(unreadable(error)),
        }
    };
    for fault in spec.iter().flat_map(faults) {
        let path = fault.message.split([' ', ':']).next().unwrap_or_default();
        let at = place(object, &format!("{below}.{path}")).unwrap_or(object.at);
        findings.push(Diagnostic::error(fault.reason, fault.message).at(at, ""));
    }
}

/// The server drops nulls from maps before it stores an object.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// Parameters without a value stand for themselves, as no run gives them here.
fn faults(spec: &PipelineSpec) -> Vec<StepError> {
    match params::with_stand_ins(spec) {
        Ok(spec) => steps::pipeline::faults(&spec),
        Err(error) => vec![error],
    }
}

/// The place of `a.b[2].c`, or of what is there of it.
pub(super) fn place(object: &Node, path: &str) -> Option<Span> {
    let mut node = object;
    let mut at = None;
    for part in path.split('.') {
        let (key, index) = part.split_once('[').unwrap_or((part, ""));
        let Some(entry) = node.map().and_then(|entries| entries.iter().find(|entry| entry.key == key)) else { break };
        (node, at) = (&entry.value, Some(entry.value.at));
        let item = index.trim_end_matches(']').parse::<usize>().ok().and_then(|index| node.list()?.get(index));
        if let Some(item) = item {
            (node, at) = (item, Some(item.at));
        }
    }
    at
}
