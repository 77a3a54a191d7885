//! What users do in the simulated cluster.

use super::{
    node::{Manners, is_running},
    store::{Admission, Key, Shared},
};
use serde_json::{Value, json};
use std::time::Duration;

/// Namespace of the user.
const TEAM: &str = "team";
/// Name of the one run.
pub(super) const RUN: &str = "r";

/// One story: what is created, and what is done to it then.
#[derive(Clone, Copy)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    /// Spec of the run, in YAML.
    spec: &'static str,
    pub(super) manners: Manners,
    pub(super) agent_away: bool,
    pub(super) admission: Admission,
    act: Act,
    /// Phase of the run at the end; none: it is gone.
    pub(super) end: Option<&'static str>,
    /// Reason at the end, where the phase does not say enough.
    pub(super) reason: Option<&'static str>,
    /// Steps that must have passed at the end.
    pub(super) passed: &'static [&'static str],
    /// Whether a tag moves, which the status must tell at the end.
    pub(super) pushes: bool,
}

/// What the user does after creating the run.
#[derive(Clone, Copy)]
enum Act {
    Nothing,
    /// Creates the Pipeline after 5 s.
    CreatePipeline,
    /// While step two is shown to run.
    Cancel(&'static str),
    /// Likewise.
    Delete,
    /// Likewise writes what the controller cannot read, and deletes the run once it has ended.
    Garble,
}

const THREE: &str = "pipelineSpec: {box: {image: 'debian:12'}, steps: [{name: one, script: 'true'}, \
    {name: two, script: 'true'}, {name: three, script: 'true'}]}";
const LONG: &str = "pipelineSpec: {box: {image: 'debian:12'}, steps: [{name: one, script: 'true'}, \
    {name: two, script: 'sleep 900'}, {name: three, script: 'true'}], afterSteps: [{name: tell, script: 'true'}]}";
const MANNERS: Manners = Manners { never_starts: false, loses_first: false, pulls_badly: false, dies: false };
const PUSH: &str = "pipelineSpec: {box: {image: 'debian:12'}, \
    env: [{name: TOKEN, secretKeyRef: {name: token, key: value}}], steps: [{name: one, script: 'true'}, \
    {name: two, dockerPush: {repository: registry.test/app, credentials: {secretName: token}}}, \
    {name: three, script: 'true'}]}";
const PLAIN: Workload = Workload {
    name: "script",
    spec: THREE,
    manners: MANNERS,
    agent_away: false,
    admission: Admission::Open,
    act: Act::Nothing,
    end: Some("Succeeded"),
    reason: None,
    passed: &[],
    pushes: false,
};

/// All workloads.
pub(super) const ALL: [Workload; 18] = [
    PLAIN,
    Workload {
        name: "agent-away",
        spec: "pipelineSpec: {box: {image: 'debian:12'}, steps: [{name: one, script: 'true'}, {name: two, script: 'false'}, \
            {name: three, script: 'true'}], afterSteps: [{name: tell, script: 'true'}]}",
        agent_away: true,
        end: Some("Failed"),
        ..PLAIN
    },
    Workload { name: "push", spec: PUSH, pushes: true, ..PLAIN },
    Workload {
        name: "cancel-in-push",
        spec: PUSH,
        act: Act::Cancel("Immediate"),
        end: Some("Cancelled"),
        pushes: true,
        ..PLAIN
    },
    Workload {
        name: "cancel-graceful",
        spec: LONG,
        act: Act::Cancel("Graceful"),
        end: Some("Cancelled"),
        passed: &["one", "tell"],
        ..PLAIN
    },
    Workload { name: "cancel-immediate", spec: LONG, act: Act::Cancel("Immediate"), end: Some("Cancelled"), ..PLAIN },
    Workload {
        name: "timeout",
        spec: "pipelineSpec: {box: {image: 'debian:12'}, timeout: 40s, steps: [{name: one, script: 'true'}]}",
        manners: Manners { never_starts: true, ..MANNERS },
        end: Some("Failed"),
        ..PLAIN
    },
    Workload { name: "late-pipeline", spec: "pipelineRef: {name: p}", act: Act::CreatePipeline, ..PLAIN },
    Workload { name: "no-pipeline", spec: "pipelineRef: {name: p}", end: Some("Failed"), ..PLAIN },
    Workload {
        name: "lost-pod",
        spec: "pipelineSpec: {box: {image: 'debian:12'}, retries: 1, steps: [{name: one, script: 'true'}, \
            {name: two, script: 'sleep 30'}, {name: three, script: 'true'}]}",
        manners: Manners { loses_first: true, ..MANNERS },
        ..PLAIN
    },
    Workload { name: "slow-pull", manners: Manners { pulls_badly: true, ..MANNERS }, ..PLAIN },
    Workload {
        name: "quota",
        spec: "pipelineSpec: {box: {image: 'debian:12'}, retries: 2, steps: [{name: one, script: 'true'}]}",
        admission: Admission::Quota,
        ..PLAIN
    },
    Workload { name: "webhook-away", admission: Admission::Away(Duration::from_secs(8)), ..PLAIN },
    Workload {
        name: "webhook-gone",
        spec: "pipelineSpec: {box: {image: 'debian:12'}, timeout: 2m, steps: [{name: one, script: 'true'}]}",
        admission: Admission::Gone,
        end: Some("Failed"),
        reason: Some("PodForbidden"),
        ..PLAIN
    },
    Workload { name: "delete", spec: LONG, act: Act::Delete, end: None, ..PLAIN },
    Workload {
        name: "delete-lost-node",
        spec: LONG,
        manners: Manners { dies: true, ..MANNERS },
        act: Act::Delete,
        end: None,
        ..PLAIN
    },
    Workload { name: "unreadable", spec: LONG, act: Act::Garble, end: None, ..PLAIN },
    Workload {
        name: "ttl",
        spec: "{ttlAfterFinished: 40s, podTTLAfterFinished: 15s, \
            pipelineSpec: {box: {image: 'debian:12'}, steps: [{name: one, script: 'true'}]}}",
        end: None,
        ..PLAIN
    },
];

/// The run's place.
pub(super) fn run_key() -> Key {
    Key::new("pipelineruns", TEAM, RUN)
}

fn object(kind: &str, name: &str, spec: &str) -> Value {
    let spec: Value = serde_yaml::from_str(spec).unwrap();
    json!({"apiVersion": "windlass.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

impl Workload {
    /// Whether nothing is left to happen by itself.
    pub(super) fn is_over(&self, run: Option<&Value>) -> bool {
        match (self.end, run) {
            (None, run) => run.is_none(),
            (Some(_), Some(run)) => !run["status"]["completionTime"].is_null(),
            (Some(_), None) => false,
        }
    }

    /// The user's part.
    pub(super) async fn play(self, store: Shared) {
        let key = run_key();
        store.with(|s| s.create(&key, object("PipelineRun", RUN, self.spec))).unwrap();
        match self.act {
            Act::Nothing => {}
            Act::CreatePipeline => {
                tokio::time::sleep(Duration::from_secs(5)).await;
                let spec = THREE.strip_prefix("pipelineSpec: ").unwrap();
                store.with(|s| s.create(&Key::new("pipelines", TEAM, "p"), object("Pipeline", "p", spec))).unwrap();
            }
            Act::Cancel(how) => {
                step_two(&store).await;
                store.with(|s| s.edit(&key, |run| run["spec"]["cancel"] = json!(how))).unwrap();
            }
            Act::Delete => {
                step_two(&store).await;
                store.with(|s| s.delete(&key, &json!({}))).unwrap();
            }
            Act::Garble => {
                step_two(&store).await;
                store.with(|s| s.edit(&key, |run| run["spec"]["pipelineSpec"]["steps"] = json!("garbled"))).unwrap();
                until(&store, |run| !run["status"]["completionTime"].is_null()).await;
                store.with(|s| s.delete(&key, &json!({}))).unwrap();
            }
        }
    }
}

/// Returns once the second step is shown to run.
pub(super) async fn step_two(store: &Shared) {
    until(store, |run| is_running(run, "two")).await;
}

/// Returns once this holds of the run.
async fn until(store: &Shared, holds: impl Fn(&Value) -> bool) {
    let mut changes = store.changes();
    while !store.get(&run_key()).is_some_and(|run| holds(&run)) {
        _ = changes.changed().await;
    }
}
