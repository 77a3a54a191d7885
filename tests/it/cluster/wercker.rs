//! What `windlass convert` makes of the files of `tests/wercker`, on a real cluster.

use super::world::{World, step, verdict};
use crate::fast::wercker::{converted, files};
use serde_json::Value;
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

/// A run of a Pipeline, with files as its source.
fn run_of(pipeline: &str, sources: &[(&str, &str)]) -> String {
    let files: Vec<Value> =
        sources.iter().map(|(path, content)| serde_json::json!({"path": path, "content": content})).collect();
    let source = if files.is_empty() {
        serde_json::json!({"none": {}})
    } else {
        serde_json::json!({"inline": {"files": files}})
    };
    serde_json::json!({
        "apiVersion": "windlass.dev/v1alpha1", "kind": "PipelineRun", "metadata": {"name": format!("{pipeline}-1")},
        "spec": {"pipelineRef": {"name": pipeline}, "source": source},
    })
    .to_string()
}

/// File, Pipeline, source; the run's reason, exit codes of steps, lines of the output and lines that must not be there.
type Case<'a> =
    (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, &'a [(&'a str, i32)], &'a [&'a str], &'a [&'a str]);

const CASES: [Case<'_>; 5] = [
    (
        "shared-variable",
        "build",
        &[],
        "Succeeded",
        &[("set", 0), ("use", 0), ("tell", 0)],
        &["version is 1.4", "the run has passed after 1.4"],
        &[],
    ),
    (
        "helpers-fail",
        "build",
        &[],
        "StepFailed",
        &[("look", 1), ("tell", 0)],
        &["info: looking", "failed: no Makefile", "look has failed"],
        &["never"],
    ),
    (
        "shebang-and-done-wrong",
        "build",
        &[],
        "Succeeded",
        &[("goes-on", 0), ("create-file", 0), ("script", 0)],
        &["hello goes on", "made by \"create-file\""],
        &[],
    ),
    (
        "source-dir-and-base-path",
        "build",
        &[("services/api/name.txt", "the api\n"), ("services/api/sub/x", "")],
        "Succeeded",
        &[("where", 0), ("below", 0)],
        &["in /srv/app/services/api of /srv/app/services/api", "the api", "then in /srv/app/services/api/sub"],
        &[],
    ),
    ("targets-and-code", "deploy-staging", &[], "StepFailed", &[("to", 7)], &["to staging, deploy is true"], &[]),
];

#[tokio::test]
async fn converted_pipelines_do_what_wercker_did() {
    let play = async |(name, pipeline, sources, reason, codes, lines, others): Case<'_>| {
        let world = World::new().await;
        world.apply(&file(name));
        world.apply(&run_of(pipeline, sources));
        let run = format!("{pipeline}-1");
        let status = world.end(&run).await;
        let log = world.log(&run).await;
        assert_eq!(verdict(&status).0, reason, "{name}: {:?}\n{log}", verdict(&status));
        for (wanted, code) in codes {
            assert_eq!(step(&status, wanted).exit_code, Some(*code), "{name}: {wanted}\n{log}");
        }
        for line in lines {
            assert!(log.lines().any(|found| found == *line), "{name}: {line:?} is not in\n{log}");
        }
        for line in others {
            assert!(!log.lines().any(|found| found == *line), "{name}: {line:?} is in\n{log}");
        }
    };
    futures::future::join_all(CASES.map(play)).await;
}
