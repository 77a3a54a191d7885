//! A run as the command line sees it, read leniently from the object.
//!
//! All verbs that show runs use it. **Invariant:** an object that a newer server wrote is still shown:
//! what cannot be read is left out, never an error.

use super::event::Pushed;
use crate::{
    api::{
        condition::{kind, reason},
        duration,
        status::{ImageStatus, PipelineRunStatus, StepPhase, StepStatus},
    },
    steps::grammar,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::DynamicObject;
use serde_json::Value;
use std::time::Duration;

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
    /// Ports that its image exposes, as `5000/tcp`.
    pub ports: Vec<String>,
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
    /// What tells it from other runs of its name, earlier and later.
    pub uid: String,
    /// When the object was made.
    pub created: Option<Timestamp>,
    /// The Pipeline it refers to.
    pub pipeline: Option<String>,
    /// `spec.cancel`.
    pub cancel: Option<String>,
    /// Steps, then after-steps.
    pub steps: Vec<StepInfo>,
    /// Names of its services.
    pub services: Vec<String>,
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
            uid: object.metadata.uid.clone().unwrap_or_default(),
            created: object.metadata.creation_timestamp.as_ref().map(|t| t.0),
            pipeline: spec.pointer("/pipelineRef/name").and_then(Value::as_str).map(str::to_owned),
            cancel: spec.get("cancel").and_then(Value::as_str).map(str::to_owned),
            steps: frozen.map(read_steps).unwrap_or_default(),
            services: frozen.map(read_services).unwrap_or_default(),
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

    /// How long it took: what `kubectl get` and the run's message say, so that nobody reads two numbers. From a
    /// server that does not say it: whole seconds from start to end.
    #[must_use]
    pub(super) fn took_ms(&self) -> Option<u64> {
        let end = self.status.completion_time.as_ref()?.0;
        let start = self.status.start_time.as_ref().map(|t| t.0).or(self.created);
        let measured = start.and_then(|start| millis_between(start, end));
        let Some(told) = self.status.summary.as_ref().and_then(|s| s.duration.as_deref()) else { return measured };
        // A long time is told in minutes; the seconds are kept if they say the same.
        match measured {
            Some(ms) if duration::human(Duration::from_millis(ms)) == told => Some(ms),
            _ => duration::from_human(told).and_then(|took| u64::try_from(took.as_millis()).ok()).or(measured),
        }
    }

    /// When its time begins to count. One that waited for its turn counts from when it was made: its waiting is
    /// shown. Else from its first pod, as its status does; both are whole seconds.
    #[must_use]
    pub(super) fn began(&self) -> Option<Timestamp> {
        let start = self.status.start_time.as_ref().map(|t| t.0);
        match (self.created, start) {
            (Some(created), Some(start)) => {
                let waited_ms = millis_between(created, start).unwrap_or_default();
                Some(if waited_ms <= 2_000 { start } else { created })
            }
            (created, start) => created.or(start),
        }
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

    /// Images that were pushed, in order: a digest without a tag was only about to be.
    pub(super) fn images(&self) -> impl Iterator<Item = &ImageStatus> {
        self.status.steps.iter().flat_map(|s| &s.images).filter(|image| !image.tags.is_empty())
    }

    /// The same, with the ports that their steps name.
    pub(super) fn pushed(&self) -> Vec<Pushed> {
        let mut pushed = Vec::new();
        for status in &self.status.steps {
            let ports = self.steps.iter().find(|s| s.name == status.name).map(|s| s.ports.clone()).unwrap_or_default();
            pushed.extend(
                status
                    .images
                    .iter()
                    .filter(|image| !image.tags.is_empty())
                    .map(|image| Pushed { image: image.clone(), ports: ports.clone() }),
            );
        }
        pushed
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

/// Whether a time of a step has more than whole seconds, which is all that earlier versions wrote.
#[must_use]
pub(super) fn is_fine(time: &MicroTime) -> bool {
    time.0.as_millisecond() % 1000 != 0
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
            ports: ports(step),
        };
        items.iter().enumerate().map(read).collect::<Vec<_>>()
    };
    let mut steps = list("steps", false);
    steps.extend(list("afterSteps", true));
    steps
}

fn read_services(spec: &Value) -> Vec<String> {
    let services = spec.get("services").and_then(Value::as_array).into_iter().flatten();
    services.filter_map(|s| s.get("name").and_then(Value::as_str)).map(str::to_owned).collect()
}

/// What a push step says in `ports`; what holds a variable is not known here.
fn ports(step: &Value) -> Vec<String> {
    let written = ["dockerPush", "dockerScratchPush"].iter().find_map(|kind| step.get(*kind)?.get("ports"));
    let text = match written {
        Some(Value::Array(list)) => list.iter().map(word).collect::<Vec<_>>().join(" "),
        Some(one) => word(one),
        None => return Vec::new(),
    };
    grammar::ports(&text).into_iter().filter_map(Result::ok).flatten().collect()
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.as_u64().map(|n| n.to_string()).unwrap_or_default(), str::to_owned)
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
    fn the_ports_of_an_image_are_read_in_every_notation() {
        let run = a_run(
            "{metadata: {name: x}, spec: {pipelineSpec: {steps: [{name: a, dockerPush: {ports: 5000}}, \
             {name: b, dockerPush: {ports: [80, \"53/udp\"]}}, {name: c, dockerPush: {ports: \"8000-8001, $PORT\"}}, \
             {name: d, script: x}]}}, apiVersion: windlass.dev/v1alpha1, kind: PipelineRun}",
        );
        let ports: Vec<_> = run.steps.iter().map(|s| s.ports.join(" ")).collect();
        assert_eq!(ports, ["5000/tcp", "80/tcp 53/udp", "8000/tcp 8001/tcp", ""]);
    }

    #[test]
    fn the_time_it_took_is_that_of_its_summary() {
        let run = |summary: &str| {
            a_run(&format!(
                "{{apiVersion: windlass.dev/v1alpha1, kind: PipelineRun, metadata: {{name: x, creationTimestamp: \
                 \"2026-11-21T13:03:07Z\"}}, spec: {{}}, status: {{startTime: \"2026-11-21T13:03:08Z\", \
                 completionTime: \"2026-11-21T13:03:11Z\"{summary}}}}}"
            ))
        };
        assert_eq!(run(", summary: {duration: 3.8s}").took_ms(), Some(3_800));
        assert_eq!(run("").took_ms(), Some(3_000));
        assert_eq!(run("").began(), Some("2026-11-21T13:03:08Z".parse().unwrap()));
    }

    #[test]
    fn a_run_that_nobody_looked_at_is_pending() {
        let run = a_run("{apiVersion: windlass.dev/v1alpha1, kind: PipelineRun, metadata: {name: x}, spec: {}}");
        assert_eq!((run.phase(), run.why(), run.outcome()), ("Pending", ("", ""), None));
    }
}
