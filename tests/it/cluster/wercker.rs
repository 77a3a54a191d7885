//! What `windlass convert` makes of the files of `tests/wercker`, on a real cluster.

use super::{
    world::{World, verdict},
    yml::{self, Case},
};
use crate::fast::wercker::{converted, files};
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::fs;

fn file(name: &str) -> String {
    let path = files("good").into_iter().find(|path| path.file_stem().is_some_and(|stem| stem == name)).expect(name);
    converted(&fs::read_to_string(path).unwrap()).1.unwrap()
}

/// Rules of the schema are evaluated by the server alone.
#[tokio::test]
async fn every_converted_pipeline_is_accepted() {
    let world = World::new().await;
    let all: Vec<String> = files("good")
        .iter()
        .flat_map(|path| {
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            let yaml = converted(&fs::read_to_string(path).unwrap()).1.unwrap();
            let objects = serde_yaml::Deserializer::from_str(&yaml);
            let objects: Vec<Value> = objects.map(|d| serde::Deserialize::deserialize(d).unwrap()).collect();
            // One name for each, so that one request is enough.
            objects.into_iter().enumerate().map(move |(index, mut object)| {
                let name = format!("{}-{index}", stem.chars().take(40).collect::<String>());
                object["metadata"]["name"] = name.into();
                object.to_string()
            })
        })
        .collect();
    assert!(all.len() > 60, "{}", all.len());
    let said = world.kubectl(&["apply", "--dry-run=server", "-f", "-"], &all.join("\n---\n")).unwrap();
    assert_eq!(said.lines().count(), all.len(), "{said}");
}

/// Runs at one time.
const AT_ONCE: usize = 6;

/// Steps with their exit codes, as the status has them.
fn codes(steps: &Value) -> Vec<(String, Value)> {
    let steps = steps.as_array().cloned().unwrap_or_default();
    let code = |step: Value| (step["name"].as_str().unwrap_or_default().to_owned(), step["exitCode"].clone());
    steps.into_iter().map(code).collect()
}

/// The Pipeline of a case: that of its verb, and of its target.
fn pipeline(case: &Case) -> String {
    let target = case.arguments.iter().position(|argument| *argument == "--deploy-target");
    let name = match (case.arguments, target) {
        (["run", name, ..], _) => (*name).to_owned(),
        ([verb, ..], Some(at)) => format!("{verb}-{}", case.arguments[at + 1]),
        ([verb, ..], None) => (*verb).to_owned(),
        ([], _) => unreachable!("every case has arguments"),
    };
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}

/// A run with the project's files as its source, and the variables that the machine would have given.
fn run_of(pipeline: &str, case: &Case) -> String {
    let file = |(path, content): (String, String)| json!({"path": path, "content": content, "mode": "0755"});
    let files: Vec<Value> = yml::project_files(case).into_iter().map(file).collect();
    let variables = case.variables.iter().chain(&[("X_PATH", yml::PATH)]);
    let env: Vec<Value> = variables
        .map(|(name, value)| json!({"name": name.trim_start_matches("XX").trim_start_matches("X_"), "value": value}))
        .collect();
    json!({
        "apiVersion": "windlass.dev/v1alpha1", "kind": "PipelineRun", "metadata": {"name": format!("{pipeline}-1")},
        "spec": {"pipelineRef": {"name": pipeline}, "source": {"inline": {"files": files}}, "env": env},
    })
    .to_string()
}

/// What comes of a file in the cluster is what comes of it on a machine: the same steps, with the same exit codes, and the
/// same lines.
#[tokio::test]
async fn converted_pipelines_do_what_their_files_do() {
    let play = async |case: Case| {
        let name = pipeline(&case);
        let world = World::new().await;
        world.apply(&file(case.file));
        world.apply(&run_of(&name, &case));
        let here = tokio::task::spawn_blocking(move || (yml::object_of(&case), case));
        let run = format!("{name}-1");
        let status = world.end(&run).await;
        let log = world.log(&run).await;
        let (here, case) = here.await.unwrap();
        let reason = if case.code == 0 { "Succeeded" } else { "StepFailed" };
        assert_eq!(verdict(&status).0, reason, "{}: {:?}\n{log}", case.file, verdict(&status));
        let there = codes(&serde_json::to_value(&status.steps).unwrap());
        assert!(!there.is_empty() && there == codes(&here["status"]["steps"]), "{}: {there:?} {here:#}", case.file);
        let mut left = log.lines();
        for line in case.lines {
            assert!(left.any(|found| found == *line), "{}: {line:?} is not in\n{log}", case.file);
        }
        for part in case.unsaid {
            assert!(!log.contains(part), "{}: {part:?} is in\n{log}", case.file);
        }
    };
    let cases = yml::in_cluster();
    assert!(cases.len() >= 25, "{}", cases.len());
    futures::stream::iter(cases).for_each_concurrent(AT_ONCE, play).await;
}
