//! Workflows: pipelines in an order.
//!
//! **Invariant:** what is returned can run: one beginning, no cycle, every pipeline exists, and what one begins with was
//! made before it. Its nodes stand in such an order.

use super::{
    super::document::{Document, Text, Workflow, WorkflowNode},
    MOST_ENTRIES,
    finder::Finder,
};
use crate::{
    api::condition::reason::PIPELINE_NOT_FOUND,
    yaml::{Node, nearest, reason},
};
use std::{
    collections::BTreeSet,
    path::{Component, Path},
};

const WORKFLOW: [&str; 2] = ["name", "pipelines"];
const NODE: [&str; 5] = ["name", "pipelineName", "requires", "artifactPipeline", "envFile"];

/// The workflows of a file.
pub(super) fn workflows(finder: &mut Finder, node: &Node, document: &Document) -> Vec<Workflow> {
    let mut found: Vec<Workflow> = Vec::new();
    let items = finder.list("workflows", node).unwrap_or_default();
    for item in items.iter().take(MOST_ENTRIES) {
        let Some(workflow) = workflow(finder, item, document) else { continue };
        if found.iter().any(|other| other.name.value == workflow.name.value) {
            let said = format!("workflow {} stands twice", workflow.name.value);
            finder.error(reason::INVALID_WORKFLOW, workflow.name.at, &said, "the second", None);
        }
        found.push(workflow);
    }
    found
}

fn workflow(finder: &mut Finder, node: &Node, document: &Document) -> Option<Workflow> {
    let entries = finder.map("a workflow", node)?;
    for entry in entries.iter().filter(|entry| !WORKFLOW.contains(&entry.key.as_str())) {
        finder.unknown("workflow", entry, nearest(&entry.key, WORKFLOW));
    }
    let Some(name) = node.get("name").and_then(|name| finder.text("workflow: name", name)) else {
        finder.error(reason::INVALID_WORKFLOW, node.at, "a workflow has no name", "expected name: NAME", None);
        return None;
    };
    let what = format!("workflow {}", name.value);
    let items = node.get("pipelines").and_then(|list| finder.list(&format!("{what}: pipelines"), list));
    let nodes: Vec<WorkflowNode> = items
        .unwrap_or_default()
        .iter()
        .take(MOST_ENTRIES)
        .filter_map(|item| workflow_node(finder, &what, item))
        .collect();
    if nodes.is_empty() {
        let hint = Some("pipelines: [{name: build}, {name: deploy, requires: [build]}]".to_owned());
        finder.error(reason::INVALID_WORKFLOW, name.at, &format!("{what} has no pipelines"), "", hint);
        return None;
    }
    judge(finder, &what, &nodes, document);
    let nodes = ordered(finder, &what, &name, nodes)?;
    Some(Workflow { name, nodes })
}

fn workflow_node(finder: &mut Finder, what: &str, node: &Node) -> Option<WorkflowNode> {
    if let Some(name) = node.text() {
        let name = Text { value: name.to_owned(), at: node.at };
        return Some(WorkflowNode {
            pipeline: name.clone(),
            name,
            requires: Vec::new(),
            artifact: None,
            env_file: None,
        });
    }
    let entries = finder.map(&format!("{what}: a pipeline"), node)?;
    for entry in entries.iter().filter(|entry| !NODE.contains(&entry.key.as_str())) {
        finder.unknown(what, entry, nearest(&entry.key, NODE));
    }
    let mut text = |key: &str| node.get(key).and_then(|value| finder.text(&format!("{what}: {key}"), value));
    let (name, pipeline, artifact, env_file) =
        (text("name"), text("pipelineName"), text("artifactPipeline"), text("envFile"));
    let requires = node.get("requires").filter(|list| !list.is_null());
    let requires = requires.map(|list| finder.texts(&format!("{what}: requires"), list)).unwrap_or_default();
    let Some(name) = name.or_else(|| pipeline.clone()) else {
        finder.error(
            reason::INVALID_WORKFLOW,
            node.at,
            &format!("{what}: a pipeline has no name"),
            "expected name: NAME",
            None,
        );
        return None;
    };
    let pipeline = pipeline.unwrap_or_else(|| name.clone());
    Some(WorkflowNode { name, pipeline, requires, artifact, env_file })
}

fn judge(finder: &mut Finder, what: &str, nodes: &[WorkflowNode], document: &Document) {
    let known: Vec<&str> = document.pipelines.iter().map(|pipeline| pipeline.name.value.as_str()).collect();
    let names: Vec<&str> = nodes.iter().map(|node| node.name.value.as_str()).collect();
    let mut seen = BTreeSet::new();
    for node in nodes {
        let wanted = node.pipeline.value.as_str();
        if !known.contains(&wanted) {
            let label =
                nearest(wanted, known.iter().copied()).map_or_else(String::new, |near| format!("did you mean {near}?"));
            let hint = (!known.is_empty()).then(|| format!("the file has {}", known.join(", ")));
            finder.error(
                PIPELINE_NOT_FOUND,
                node.pipeline.at,
                &format!("{what}: no pipeline {wanted:?}"),
                &label,
                hint,
            );
        }
        if !seen.insert(node.name.value.as_str()) {
            let said = format!("{what}: {} stands twice", node.name.value);
            let hint = Some("give the second a name of its own and say pipelineName".to_owned());
            finder.error(reason::INVALID_WORKFLOW, node.name.at, &said, "the second", hint);
        }
        beginning(finder, what, node, nodes);
        for required in node.requires.iter().chain(&node.artifact) {
            if !names.contains(&required.value.as_str()) {
                let said =
                    format!("{what}: {} requires {:?}, which is not in the workflow", node.name.value, required.value);
                let near = nearest(&required.value, names.iter().copied());
                let label = near.map_or_else(String::new, |near| format!("did you mean {near}?"));
                finder.error(reason::INVALID_WORKFLOW, required.at, &said, &label, None);
            }
        }
    }
}

/// Judges what a pipeline begins with: files of the project, and of a pipeline that ran.
fn beginning(finder: &mut Finder, what: &str, node: &WorkflowNode, nodes: &[WorkflowNode]) {
    let name = &node.name.value;
    if let Some(file) = &node.env_file {
        let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if !Path::new(&file.value).components().all(inside) {
            let said = format!("{what}: envFile {:?} of {name} is outside of the project", file.value);
            let hint = "windlass workflow NAME --environment FILE reads a file from anywhere".to_owned();
            finder.error(reason::INVALID_WORKFLOW, file.at, &said, "expected a path below this file", Some(hint));
        }
    }
    let Some(artifact) = &node.artifact else { return };
    let is_there = nodes.iter().any(|other| other.name.value == artifact.value);
    if is_there && !before(node, nodes).contains(artifact.value.as_str()) {
        let said = format!("{what}: {name} begins with what {} leaves, which need not have run", artifact.value);
        let required: Vec<&str> = node.requires.iter().map(|required| required.value.as_str()).collect();
        let hint = match artifact.value == *name {
            true => "name one that it requires".to_owned(),
            false => format!("requires: [{}]", [&required[..], &[&artifact.value]].concat().join(", ")),
        };
        finder.error(reason::INVALID_WORKFLOW, artifact.at, &said, "not among what it requires", Some(hint));
    }
}

/// All that a pipeline requires, and what those require.
fn before<'a>(node: &'a WorkflowNode, nodes: &'a [WorkflowNode]) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&WorkflowNode> = vec![node];
    while let Some(next) = open.pop() {
        for required in &next.requires {
            if found.insert(required.value.as_str()) {
                open.extend(nodes.iter().filter(|other| other.name.value == required.value));
            }
        }
    }
    found
}

/// The nodes in an order in which each comes after what it requires.
fn ordered(finder: &mut Finder, what: &str, name: &Text, nodes: Vec<WorkflowNode>) -> Option<Vec<WorkflowNode>> {
    let roots: Vec<&str> = nodes.iter().filter(|n| n.requires.is_empty()).map(|n| n.name.value.as_str()).collect();
    if let [first, _, ..] = roots.as_slice() {
        let said = format!("{what} begins with several pipelines: {}", roots.join(", "));
        let hint = Some(format!("one begins; let the others say requires: [{first}]"));
        finder.error(reason::INVALID_WORKFLOW, name.at, &said, "", hint);
    }
    let mut left = nodes;
    let mut order: Vec<WorkflowNode> = Vec::new();
    while !left.is_empty() {
        let done: BTreeSet<String> = order.iter().map(|node| node.name.value.clone()).collect();
        let waiting: BTreeSet<String> = left.iter().map(|node| node.name.value.clone()).collect();
        // What is not in the workflow was told already.
        let ready = left.iter().position(|node| {
            node.requires.iter().all(|required| done.contains(&required.value) || !waiting.contains(&required.value))
        });
        let Some(ready) = ready else {
            let cycle: Vec<&str> = left.iter().map(|node| node.name.value.as_str()).collect();
            let said = format!("{what} goes round in a circle: {}", cycle.join(", "));
            let at = left.first().map_or(name.at, |node| node.name.at);
            finder.error(reason::INVALID_WORKFLOW, at, &said, "each waits for another", None);
            return None;
        };
        order.push(left.remove(ready));
    }
    Some(order)
}
