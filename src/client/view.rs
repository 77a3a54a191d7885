//! A run as the command line sees it, read leniently from the object.
//!
//! All verbs that show runs use it. **Invariant:** an object that a newer server wrote is still shown:
//! what cannot be read is left out, never an error.

use crate::api::{
    condition::{kind, reason},
    status::{ImageStatus, PipelineRunStatus, StepPhase, StepStatus},
};
use jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::Value;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// `Succeeded` is True.
    Succeeded,
    /// `Succeeded` is False.
    Failed,
    /// `Succeeded` is False with reason `Cancelled`.
    Cancelled,
}

impl Outcome {
    /// The word in JSON and in sentences.
    #[must_use]
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A step of the frozen pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StepInfo {
    /// Name.
    pub name: String,
    /// `script`, `dockerPush`, …
    pub kind: String,
    /// Whether it is an after-step.
    pub after: bool,
    /// Place in its own list, from 1.
    pub index: usize,
    /// Length of its own list.
    pub of: usize,
}

impl StepInfo {
    /// `2/3 test`; after-steps have no number.
    #[must_use]
    pub(super) fn label(&self) -> String {
        if self.after { self.name.clone() } else { format!("{}/{} {}", self.index, self.of, self.name) }
    }
}

/// A run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RunView {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// When the object was made.
    pub created: Option<Timestamp>,
    /// The Pipeline it refers to.
    pub pipeline: Option<String>,
    /// `spec.cancel`.
    pub cancel: Option<String>,
    /// Steps, then after-steps.
    pub steps: Vec<StepInfo>,
    /// What Windlass says of it.
    pub status: PipelineRunStatus,
}

impl RunView {
    /// Reads an object of kind PipelineRun.
    #[must_use]
    pub(super) fn read(object: &DynamicObject) -> Self {
        let spec = object.data.get("spec").unwrap_or(&Value::Null);
        let status = read_status(object.data.get("status"));
        let frozen = status.pipeline_spec.as_ref().or_else(|| spec.get("pipelineSpec"));
        Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            created: object.metadata.creation_timestamp.as_ref().map(|t| t.0),
            pipeline: spec.pointer("/pipelineRef/name").and_then(Value::as_str).map(str::to_owned),
            cancel: spec.get("cancel").and_then(Value::as_str).map(str::to_owned),
            steps: frozen.map(read_steps).unwrap_or_default(),
            status,
        }
    }

    /// Reason and message of the condition `Succeeded`.
    #[must_use]
    pub(super) fn why(&self) -> (&str, &str) {
        self.succeeded().map_or(("", ""), |c| (c.reason.as_str(), c.message.as_str()))
    }

    /// How it ended, once it has.
    #[must_use]
    pub(super) fn outcome(&self) -> Option<Outcome> {
        let condition = self.succeeded()?;
        match condition.status.as_str() {
            "True" => Some(Outcome::Succeeded),
            "False" if condition.reason == reason::CANCELLED => Some(Outcome::Cancelled),
            "False" => Some(Outcome::Failed),
            _ => None,
        }
    }

    /// The phase; a run that nobody has looked at is Pending.
    #[must_use]
    pub(super) fn phase(&self) -> &str {
        self.status.phase.as_deref().unwrap_or("Pending")
    }

    /// Whole seconds from start to end.
    #[must_use]
    pub(super) fn took_ms(&self) -> Option<u64> {
        let start = self.status.start_time.as_ref().map(|t| t.0).or(self.created)?;
        millis_between(start, self.status.completion_time.as_ref()?.0)
    }

    /// The status of a step.
    #[must_use]
    pub(super) fn step(&self, name: &str) -> Option<&StepStatus> {
        self.status.steps.iter().find(|s| s.name == name)
    }

    /// The step that failed first, among those that fail the run if there are such.
    #[must_use]
    pub(super) fn failed_step(&self) -> Option<&StepStatus> {
        let reported = self.status.report.as_ref().and_then(|r| r.failed_step.as_deref());
        reported
            .and_then(|name| self.step(name))
            .or_else(|| self.status.steps.iter().find(|s| s.phase == StepPhase::Failed))
    }

    /// Images that were pushed, in order.
    pub(super) fn images(&self) -> impl Iterator<Item = &ImageStatus> {
        self.status.steps.iter().flat_map(|s| &s.images)
    }

    fn succeeded(&self) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
        self.status.conditions.iter().find(|c| c.type_ == kind::SUCCEEDED)
    }
}

/// Milliseconds from one time to a later one.
#[must_use]
pub(super) fn millis_between(from: Timestamp, to: Timestamp) -> Option<u64> {
    u64::try_from(to.as_millisecond() - from.as_millisecond()).ok()
}

/// A step with an unknown phase does not hide the rest of the status.
fn read_status(value: Option<&Value>) -> PipelineRunStatus {
    let Some(value) = value else { return PipelineRunStatus::default() };
    if let Ok(status) = serde_json::from_value(value.clone()) {
        return status;
    }
    let mut rest = value.clone();
    let steps = rest.as_object_mut().and_then(|o| o.remove("steps"));
    let mut status: PipelineRunStatus = serde_json::from_value(rest).unwrap_or_else(|_| {
        let conditions = value.get("conditions").cloned().unwrap_or_default();
        PipelineRunStatus {
            phase: value.get("phase").and_then(Value::as_str).map(str::to_owned),
            conditions: serde_json::from_value(conditions).unwrap_or_default(),
            ..PipelineRunStatus::default()
        }
    });
    let steps = steps.as_ref().and_then(Value::as_array).into_iter().flatten();
    status.steps = steps.filter_map(|s| serde_json::from_value(s.clone()).ok()).collect();
    status
}

fn read_steps(spec: &Value) -> Vec<StepInfo> {
    const KINDS: [&str; 6] = ["script", "dockerPush", "dockerScratchPush", "storeContainer", "watch", "shell"];
    let list = |key: &str, after: bool| {
        let items: &[Value] = spec.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice);
        let of = items.len();
        let read = move |(i, step): (usize, &Value)| StepInfo {
            name: step.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
            kind: KINDS.iter().find(|k| step.get(**k).is_some()).copied().unwrap_or("unknown").to_owned(),
            after,
            index: i + 1,
            of,
        };
        items.iter().enumerate().map(read).collect::<Vec<_>>()
    };
    let mut steps = list("steps", false);
    steps.extend(list("afterSteps", true));
    steps
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A run from YAML, as the API server would give it.
    pub(crate) fn a_run(yaml: &str) -> RunView {
        RunView::read(&serde_yaml::from_str(yaml).expect("a run"))
    }

    #[test]
    fn reads_what_a_newer_server_wrote() {
        let run = a_run(
            r#"
            apiVersion: windlass.dev/v1alpha1
            kind: PipelineRun
            metadata: {name: hello-7, namespace: team-a, creationTimestamp: "2026-11-21T13:03:07Z"}
            spec: {pipelineSpec: {box: {image: "debian:12"}, steps: [{name: a, script: x}, {name: b, quantumPush: {}}]}}
            status:
              phase: Entangled
              conditions: [{type: Succeeded, status: Unknown, reason: Entangling, message: m, lastTransitionTime: "2026-11-21T13:03:07Z"}]
              steps: [{name: a, phase: Succeeded, exitCode: 0}, {name: b, phase: Superposed}]
            "#,
        );
        assert_eq!(run.phase(), "Entangled");
        assert_eq!(run.why(), ("Entangling", "m"));
        assert_eq!(run.outcome(), None);
        assert_eq!(run.step("a").map(|s| s.phase), Some(StepPhase::Succeeded));
        assert_eq!(run.step("b"), None);
        let labels: Vec<_> = run.steps.iter().map(|s| (s.label(), s.kind.as_str())).collect();
        assert_eq!(labels, [("1/2 a".into(), "script"), ("2/2 b".into(), "unknown")]);
    }

    #[test]
    fn a_run_that_nobody_looked_at_is_pending() {
        let run = a_run("{apiVersion: windlass.dev/v1alpha1, kind: PipelineRun, metadata: {name: x}, spec: {}}");
        assert_eq!((run.phase(), run.why(), run.outcome()), ("Pending", ("", ""), None));
    }
}
