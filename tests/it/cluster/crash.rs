//! Controller and agent end by SIGKILL at chosen moments of a run: each time the run ends well, had one pod, moved
//! each tag once, and its image works.

use super::{
    installation::{AGENT, CONTROLLER, crash, kill, until},
    push::repository,
    world::{World, step, tool, verdict},
};
use std::{collections::BTreeSet, fs, time::Duration};
use windlass::api::status::{PipelineRunStatus, StepPhase};

/// How long a moment is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the registry answered a request well.
fn requests(start: &str, code: u16) -> usize {
    let log = fs::read_to_string(format!("{}/registry.log", std::env::var("WINDLASS_CLUSTER_LOGS").unwrap())).unwrap();
    let end = format!("\" {code} ");
    log.lines().filter(|line| line.contains(&format!("\"{start}")) && line.contains(&end)).count()
}

/// How often a tag was moved.
fn moved(repository: &str, tag: &str) -> usize {
    let path = repository.split_once('/').unwrap().1;
    requests(&format!("PUT /v2/{path}/manifests/{tag} "), 201)
}

/// How many pods of this namespace were ever given to a node.
fn scheduled(world: &World) -> usize {
    world.kubectl(&["get", "events", "--field-selector=reason=Scheduled", "-o", "name"], "").unwrap().lines().count()
}

/// A run whose step `make` leaves a file, then pushes under two tags.
fn pipeline(repository: &str, make: &str, last: &str) -> String {
    format!(
        "    box: {{image: 'busybox:local'}}
    steps:
    - {{name: make, script: 'echo it > /made; {make}'}}
    - {{name: push, dockerPush: {{repository: '{repository}', tags: [one, two], buildNumberTag: false}}}}
    - {{name: last, script: '{last}'}}"
    )
}

/// What must hold of a run of [`pipeline`], whatever happened to it.
fn check(world: &World, run: &str, status: &PipelineRunStatus, repository: &str) {
    assert_eq!(verdict(status).0, "Succeeded", "{:?}\n{:?}", verdict(status), status.steps);
    for step in &status.steps {
        assert!(step.phase == StepPhase::Succeeded && step.finished_at.is_some(), "{step:?}");
    }
    let pod = world.kubectl(&["get", "pod", &format!("{run}-1"), "-o", "jsonpath={.metadata.uid}"], "").unwrap();
    assert_eq!(status.pod_uid.as_ref(), Some(&pod));
    let image = &step(status, "push").images[0];
    assert_eq!(image.tags, ["one", "two"]);
    for tag in ["one", "two"] {
        assert_eq!(moved(repository, tag), 1, "{repository}:{tag} was moved once");
        let image = format!("{repository}:{tag}");
        let made = tool("docker", &["run", "--rm", "--pull=always", "-q", &image, "cat", "/made"], "");
        assert_eq!(made.as_deref(), Ok("it\n"));
        tool("docker", &["rmi", "-f", &image], "").unwrap();
    }
}

/// Nothing of a run is left in the engine.
fn nothing_left(world: &World, run: &str) {
    let uid = world.kubectl(&["get", "plr", run, "-o", "jsonpath={.metadata.uid}"], "").unwrap();
    let format = ["image", "ls", "-aq", "--no-trunc", "--filter", "label=windlass.dev/commit"];
    let committed = tool("docker", &format, "").unwrap();
    for image in committed.lines() {
        // Another test's image may go while we look.
        let labels = tool("docker", &["image", "inspect", "-f", "{{json .Config.Labels}}", image], "");
        assert!(!labels.unwrap_or_default().contains(&uid), "image {image} of run {run} is left");
    }
    let paused = tool("docker", &["ps", "--filter=status=paused", "--format={{.Names}}"], "").unwrap();
    assert!(!paused.contains(&world.namespace), "{paused}");
}

/// Waits until a step runs.
async fn running(world: &World, run: &str, name: &str) {
    let runs = |s: &PipelineRunStatus| s.steps.iter().any(|s| s.name == name && s.phase == StepPhase::Running);
    world.until(run, &format!("at step {name}"), runs).await;
}

#[tokio::test]
async fn before_the_pod_exists() {
    let world = World::alone().await;
    const RUNS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    // With the first run on its way, the others are caught at all moments before.
    for run in RUNS {
        world.start(run, &pipeline(&repository(&world, run), ":", ":"));
        if run == "d" {
            kill(CONTROLLER);
        }
    }
    let mut numbers = BTreeSet::new();
    for run in RUNS {
        let status = world.end(run).await;
        check(&world, run, &status, &repository(&world, run));
        numbers.insert(status.build_number.unwrap());
    }
    assert_eq!(numbers.len(), RUNS.len(), "each run has its own build number: {numbers:?}");
    assert_eq!(scheduled(&world), RUNS.len());
}

#[tokio::test]
async fn in_the_middle_of_a_step() {
    let world = World::alone().await;
    let repository = repository(&world, "r");
    world.start("r", &pipeline(&repository, "sleep 3", ":"));
    running(&world, "r", "make").await;
    crash(CONTROLLER);
    kill(AGENT);
    let status = world.end("r").await;
    check(&world, "r", &status, &repository);
    assert_eq!(scheduled(&world), 1);
}

/// Noise does not compress, so that its commit and its transfer last.
const NOISE: &str = "head -c 100000000 /dev/urandom > /noise";

#[tokio::test]
async fn in_the_middle_of_a_commit() {
    let world = World::alone().await;
    let repository = repository(&world, "r");
    world.start("r", &pipeline(&repository, NOISE, ":"));
    let name = format!("name=k8s_box_r-1_{}", world.namespace);
    until("the box is frozen", PATIENCE, || {
        let paused = tool("docker", &["ps", "-q", "--filter=status=paused", "--filter", &name], "").unwrap();
        (!paused.is_empty()).then_some(())
    })
    .unwrap();
    kill(AGENT);
    assert_eq!(moved(&repository, "one"), 0, "the agent was killed too late");
    let status = world.end("r").await;
    check(&world, "r", &status, &repository);
    nothing_left(&world, "r");
    assert_eq!(scheduled(&world), 1);
}

#[tokio::test]
async fn in_the_middle_of_a_push() {
    let world = World::alone().await;
    let repository = repository(&world, "r");
    world.start("r", &pipeline(&repository, NOISE, ":"));
    let path = repository.split_once('/').unwrap().1;
    until("an upload begins", PATIENCE, || {
        (requests(&format!("POST /v2/{path}/blobs/uploads/"), 202) > 0).then_some(())
    })
    .unwrap();
    kill(AGENT);
    assert_eq!(moved(&repository, "one"), 0, "the agent was killed too late");
    let status = world.end("r").await;
    check(&world, "r", &status, &repository);
    nothing_left(&world, "r");
    assert_eq!(scheduled(&world), 1);
}

#[tokio::test]
async fn before_the_final_status() {
    let world = World::alone().await;
    let repository = repository(&world, "r");
    world.start("r", &pipeline(&repository, ":", "sleep 3"));
    running(&world, "r", "last").await;
    kill(AGENT);
    kill(CONTROLLER);
    let status = world.end("r").await;
    check(&world, "r", &status, &repository);
    nothing_left(&world, "r");
    assert_eq!(scheduled(&world), 1);
}
