//! The controller's part of a run's status: conditions, phase, times and the summary for people.
//!
//! **Invariant:** pure. All four conditions are there from the first write on, with one reason and one
//! message; `lastTransitionTime` moves only with the status.

use crate::api::{
    PipelineRun,
    condition::{kind, reason},
    duration,
    status::{PipelineRunStatus, StepPhase, StepStatus},
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use serde::Serialize;
use std::time::Duration;

/// Longest message of a condition, in characters; the API server takes 32768.
const MESSAGE_CHARS: usize = 1024;

/// What a run is at: still going on, or ended well or badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `Succeeded` is Unknown.
    GoesOn,
    /// `Succeeded` is True.
    Succeeded,
    /// `Succeeded` is False.
    Failed,
}

/// Outcome, reason and message of a run's conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Goes on, succeeded or failed.
    pub outcome: Outcome,
    /// One of `condition::reason`.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Verdict {
    /// The run goes on, and this is what it waits for or does.
    #[must_use]
    pub fn goes_on(reason: &str, message: impl Into<String>) -> Self {
        Self { outcome: Outcome::GoesOn, reason: reason.into(), message: message.into() }
    }

    /// The run ended badly.
    #[must_use]
    pub fn failed(reason: &str, message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Failed, reason: reason.into(), message: message.into() }
    }

    /// The phase that `kubectl get` shows.
    #[must_use]
    pub fn phase(&self) -> &'static str {
        match (self.outcome, self.reason.as_str()) {
            (Outcome::Succeeded, _) => "Succeeded",
            (Outcome::Failed, reason::CANCELLED) => "Cancelled",
            (Outcome::Failed, _) => "Failed",
            (_, reason::RESOLVING | reason::PIPELINE_NOT_FOUND) => "Pending",
            (_, reason::QUEUED) => "Queued",
            (_, reason::RUNNING | reason::CANCELLING) => "Running",
            (_, reason::WAITING_FOR_USER | reason::WAITING_FOR_AGENT) => "Waiting",
            _ => "Starting",
        }
    }
}

/// The fields of the status that the controller owns, as it applies them: always all of them, since
/// what a server-side apply leaves out is taken away.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields are documented where they are defined, in api::status")]
pub struct ControllerStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    pub conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    #[serde(rename = "podUID", skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Only at the end, for steps that the agent did not write.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<ControllerSummary>,
}

/// The controller's part of the summary.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the fields are documented where they are defined, in api::status")]
pub struct ControllerSummary {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// What the controller knows of the attempt's pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// From 1.
    pub attempt: Option<u32>,
    /// Name.
    pub name: Option<String>,
    /// UID, once the pod was made.
    pub uid: Option<String>,
    /// Node, once it is bound.
    pub node: Option<String>,
}

impl PodFacts {
    /// What the status says already.
    #[must_use]
    pub fn recorded(status: &PipelineRunStatus) -> Self {
        Self {
            attempt: status.attempt,
            name: status.pod_name.clone(),
            uid: status.pod_uid.clone(),
            node: status.node_name.clone(),
        }
    }
}

/// Writes the controller's status. `steps` are those to fill in at the end; empty leaves the agent's.
#[must_use]
pub fn write(
    run: &PipelineRun,
    pod: &PodFacts,
    verdict: &Verdict,
    steps: Vec<StepStatus>,
    now: Timestamp,
) -> ControllerStatus {
    let old = run.status.clone().unwrap_or_default();
    let ended = verdict.outcome != Outcome::GoesOn;
    let start_time = old.start_time.clone().or_else(|| pod.uid.is_some().then_some(Time(now)));
    let completion_time = old.completion_time.clone().or_else(|| ended.then_some(Time(now)));
    let summary = completion_time.as_ref().map(|end| summary(&old, &steps, start_time.as_ref(), end));
    // A new attempt begins anew, whatever it waits for.
    let same_reason = old.attempt == pod.attempt && old.conditions.first().is_some_and(|c| c.reason == verdict.reason);
    let reason_time = old.reason_time.clone().filter(|_| same_reason).unwrap_or(Time(now));
    ControllerStatus {
        observed_generation: run.metadata.generation,
        phase: Some(verdict.phase().to_owned()),
        conditions: conditions(&old.conditions, verdict, run.metadata.generation, now),
        reason_time: Some(reason_time),
        attempt: pod.attempt,
        pod_name: pod.name.clone(),
        pod_uid: pod.uid.clone(),
        node_name: pod.node.clone(),
        start_time,
        completion_time,
        steps,
        summary,
    }
}

/// Whether applying `new` would change nothing.
#[must_use]
pub fn is_current(run: &PipelineRun, new: &ControllerStatus) -> bool {
    let Some(old) = &run.status else { return false };
    let same_conditions = new.conditions.len() == old.conditions.len()
        && new.conditions.iter().all(|c| old.conditions.iter().any(|o| o == c));
    let same_summary = new.summary.as_ref().is_none_or(|n| {
        old.summary.as_ref().is_some_and(|o| o.duration == n.duration && o.image == n.image && o.digest == n.digest)
    });
    same_conditions
        && same_summary
        && new.observed_generation == old.observed_generation
        && new.phase == old.phase
        && new.reason_time == old.reason_time
        && PodFacts::recorded(old)
            == PodFacts {
                attempt: new.attempt,
                name: new.pod_name.clone(),
                uid: new.pod_uid.clone(),
                node: new.node_name.clone(),
            }
        && new.start_time == old.start_time
        && new.completion_time == old.completion_time
}

fn conditions(old: &[Condition], verdict: &Verdict, generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let (succeeded, reconciling, stalled) = match verdict.outcome {
        Outcome::GoesOn => ("Unknown", "True", "False"),
        Outcome::Succeeded => ("True", "False", "False"),
        Outcome::Failed => ("False", "False", "True"),
    };
    let of = |type_: &str, status: &str| {
        let same = old.iter().find(|c| c.type_ == type_ && c.status == status);
        Condition {
            type_: type_.into(),
            status: status.into(),
            reason: verdict.reason.clone(),
            message: cut(&verdict.message, MESSAGE_CHARS),
            observed_generation: generation,
            last_transition_time: same.map_or(Time(now), |c| c.last_transition_time.clone()),
        }
    };
    vec![
        of(kind::SUCCEEDED, succeeded),
        of(kind::READY, succeeded),
        of(kind::RECONCILING, reconciling),
        of(kind::STALLED, stalled),
    ]
}

fn summary(old: &PipelineRunStatus, filled: &[StepStatus], start: Option<&Time>, end: &Time) -> ControllerSummary {
    let steps = if filled.is_empty() { &old.steps } else { filled };
    let image = steps.iter().rev().flat_map(|s| s.images.iter().rev()).find(|i| !i.tags.is_empty());
    ControllerSummary {
        steps: (!filled.is_empty()).then(|| count(old, filled)),
        duration: start.map(|start| duration::human(elapsed(start.0, end.0))),
        image: image.map(|i| format!("{}:{}", i.repository, i.tags.first().map_or("", |t| t))),
        digest: image.map(|i| i.digest.chars().take("sha256:".len() + 12).collect()),
    }
}

/// `4/10`: steps that ran, of all but the after-steps, which come last.
fn count(old: &PipelineRunStatus, filled: &[StepStatus]) -> String {
    let all = old.pipeline_spec.as_ref().and_then(|s| s["steps"].as_array()).map_or(filled.len(), Vec::len);
    let ran = filled
        .iter()
        .take(all)
        .filter(|s| matches!(s.phase, StepPhase::Succeeded | StepPhase::Failed | StepPhase::Cancelled));
    format!("{}/{all}", ran.count())
}

/// Time between two moments; zero if the clock went back.
#[must_use]
pub fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// Cuts at a character and says so by an ellipsis.
#[must_use]
pub fn cut(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    text.chars().take(chars.saturating_sub(1)).chain(['…']).collect()
}
