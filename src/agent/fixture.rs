//! Runs and records for the tests of this role.
//!
//! **Invariant:** runs are made by [`Run::read`], as in the cluster.

use super::run::{Run, Seen};
use crate::{
    api::{PipelineRun, status::StepPhase, status::StepStatus},
    wire::{EndReason, Record},
};
use serde_json::{Value, json};

/// UID of the pod of [`run`].
pub(super) const POD_UID: &str = "0f1e2d3c-aaaa-bbbb-cccc-000011112222";

/// Two scripts with a push between them, and an after-step.
pub(super) fn run() -> Run {
    run_of(json!({
        "box": {"image": "debian"},
        "env": [{"name": "API_KEY", "secretKeyRef": {"name": "keys", "key": "api"}}],
        "steps": [
            {"name": "build", "script": "make"},
            {"name": "push", "dockerPush": {
                "repository": "registry.example.com/team/app", "tags": ["$VERSION", "latest"], "buildNumberTag": false,
                "credentials": {"secretName": "login"},
            }},
            {"name": "test", "script": "true"},
        ],
        "afterSteps": [{"name": "tell", "script": "true"}],
    }))
}

/// A run of this pipeline.
pub(super) fn run_of(spec: Value) -> Run {
    run_with(spec, Value::Null)
}

/// The same with `spec.breakpoint`.
pub(super) fn run_with(spec: Value, breakpoint: Value) -> Run {
    let object: PipelineRun = serde_json::from_value(json!({
        "apiVersion": "windlass.dev/v1alpha1", "kind": "PipelineRun",
        "metadata": {"name": "hello-7", "namespace": "team", "uid": "11111111-2222-3333-4444-555555555555"},
        "spec": {"pipelineSpec": spec, "breakpoint": breakpoint},
        "status": {"pipelineSpec": spec, "podUID": POD_UID, "attempt": 1, "buildNumber": 7},
    }))
    .unwrap();
    match Run::read(&object) {
        Seen::Follow { run, .. } => *run,
        other => panic!("not followed: {other:?}"),
    }
}

/// A step began, `step` seconds after the epoch.
pub(super) fn started(step: usize) -> Record {
    Record::Started { at: 1000 * step as u64, step, attempt: 1 }
}

/// A step waits for the agent.
pub(super) fn asked(step: usize) -> Record {
    Record::Asked { at: 1000 * step as u64, step }
}

/// A step exited.
pub(super) fn exited(step: usize, code: i32) -> Record {
    Record::Ended { at: 1000 * step as u64 + 500, step, code: Some(code), reason: EndReason::ExitCode, message: None }
}

/// A step ended another way.
pub(super) fn ended(step: usize, reason: EndReason) -> Record {
    Record::Ended { at: 1000 * step as u64 + 500, step, code: None, reason, message: None }
}

/// The run passed, by the runner's word.
pub(super) fn passed() -> Record {
    Record::Finished { at: 9000, passed: true, reason: None, failed: None, message: None }
}

/// The run failed, by the runner's word.
pub(super) fn failed(reason: &str, step: usize) -> Record {
    Record::Finished { at: 9000, passed: false, reason: Some(reason.into()), failed: Some(step), message: None }
}

/// Phases in order.
pub(super) fn phases(steps: &[StepStatus]) -> Vec<StepPhase> {
    steps.iter().map(|step| step.phase).collect()
}
