//! What Windlass says of a run. Each field has one owner (see `api::manager`).
//!
//! **Invariant:** `pipelineSpec`, `buildNumber` and `completionTime` are written once, by anyone.

use super::{
    foreign, rules,
    run::{Param, PipelineRun},
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{KubeSchema, Resource};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What Windlass says of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(!has(oldSelf.pipelineSpec) || has(self.pipelineSpec)) \
    && (!has(oldSelf.buildNumber) || has(self.buildNumber)) \
    && (!has(oldSelf.completionTime) || has(self.completionTime))")
    .message("pipelineSpec, buildNumber and completionTime are written once and never removed")
    .reason(Reason::FieldValueForbidden))]
pub struct PipelineRunStatus {
    /// Generation that the conditions are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// For people; derived from the condition `Succeeded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub phase: Option<String>,
    /// `Succeeded`, `Ready`, `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "foreign::conditions")]
    pub conditions: Vec<Condition>,
    /// Since when the conditions have their reason, in this attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_time: Option<Time>,
    /// The pipeline as it runs, frozen. Untyped here, so that its schema stands once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "foreign::opaque_object")]
    #[x_kube(validation = rules::written_once())]
    pub pipeline_spec: Option<serde_json::Value>,
    /// Parameters as used, defaults included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub params: Vec<Param>,
    /// Rises per Pipeline, inline runs per namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::written_once())]
    pub build_number: Option<i64>,
    /// From 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Pod of the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod_name: Option<String>,
    /// Its UID, pinned.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "podUID")]
    #[schemars(length(max = 64))]
    pub pod_uid: Option<String>,
    /// Node of the pod; the agent of this node follows the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node_name: Option<String>,
    /// When the first pod was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::written_once())]
    pub completion_time: Option<Time>,
    /// Commit that was fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub source_revision: Option<String>,
    /// Every step, from the agent's first write on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 220))]
    #[x_kube(merge_strategy = rules::by_name())]
    pub steps: Vec<StepStatus>,
    /// What was stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 40))]
    #[x_kube(merge_strategy = rules::by_name())]
    pub artifacts: Vec<ArtifactStatus>,
    /// The runner's last record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
}

/// Phases of a step.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub enum StepPhase {
    /// Not reached.
    #[default]
    Pending,
    /// Runs.
    Running,
    /// Waits for a person or the agent.
    Waiting,
    /// Its own exit record said 0.
    Succeeded,
    /// Failed, also with `onFailure: Continue`.
    Failed,
    /// Not run.
    Skipped,
    /// Ended by a cancel.
    Cancelled,
}

impl StepPhase {
    /// Whether the step is over.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Running | Self::Waiting => false,
            Self::Succeeded | Self::Failed | Self::Skipped | Self::Cancelled => true,
        }
    }
}

/// One step of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Name of the step.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Phase.
    #[schemars(with = "String", length(max = 32))]
    pub phase: StepPhase,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// For people, at most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// Exit code; absent for a step that had no process; a signal is 128+N.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How often it was tried, if more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<MicroTime>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<MicroTime>,
    /// Images it pushed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub images: Vec<ImageStatus>,
    /// Where its program is reachable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 256)))]
    pub addresses: Vec<String>,
    /// What it handed over, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 20, "additionalProperties" = {"type": "string", "maxLength": 1024}))]
    pub results: BTreeMap<String, String>,
}

/// An image that a step pushed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
pub struct ImageStatus {
    /// Canonical repository.
    #[schemars(length(max = 512))]
    pub repository: String,
    /// Tags, as they moved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 51), inner(length(max = 128)))]
    pub tags: Vec<String>,
    /// Digest of the manifest; written before the first tag moves.
    #[schemars(length(max = 128))]
    pub digest: String,
    /// Bytes of the manifest, the config and all layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
}

/// Something stored.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
pub struct ArtifactStatus {
    /// Name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub location: Option<String>,
    /// Digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub digest: Option<String>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
}

/// How the runner ended.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub enum ReportResult {
    /// Every step passed, or was set to continue.
    Passed,
    /// Not so.
    #[default]
    Failed,
}

/// The runner's last record; the controller turns it into conditions.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Attempt it is about.
    pub attempt: u32,
    /// How it ended.
    #[schemars(with = "String", length(max = 32))]
    pub result: ReportResult,
    /// Reason of the run's condition, such as `StepFailed`, `StepTimedOut`, `NoOutput`, `RunTimedOut` or `Cancelled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// The step that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub failed_step: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<MicroTime>,
}

/// For people; programs read the other fields.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
pub struct Summary {
    /// `4/10`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub steps: Option<String>,
    /// `2m31s`, once the run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub duration: Option<String>,
    /// The image pushed last, with its first tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub image: Option<String>,
    /// Its digest, cut to 12 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub digest: Option<String>,
}

/// A time of a step, in whole milliseconds: what is read back then equals what was written.
#[must_use]
pub fn moment(at: Timestamp) -> MicroTime {
    MicroTime(Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at))
}

/// The body of a server-side apply of a run's status: these fields, for the run with this UID, so that it can never land on
/// another of the same name; for this version of the object only, if one is given.
#[must_use]
pub fn apply_body(run: &ObjectMeta, version: Option<&str>, status: &Value) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".into(), json!(run.name));
    metadata.insert("namespace".into(), json!(run.namespace));
    metadata.insert("uid".into(), json!(run.uid));
    if let Some(version) = version {
        metadata.insert("resourceVersion".into(), json!(version));
    }
    json!({
        "apiVersion": PipelineRun::api_version(&()),
        "kind": PipelineRun::kind(&()),
        "metadata": metadata,
        "status": status,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_steps_have_milliseconds() {
        let at: Timestamp = "2026-11-21T14:03:07.123987654Z".parse().unwrap();
        let written = serde_json::to_value(moment(at)).unwrap();
        assert_eq!(written, "2026-11-21T14:03:07.123000Z");
        assert_eq!(serde_json::from_value::<MicroTime>(written).unwrap(), moment(at));
    }

    /// As earlier versions wrote them.
    #[test]
    fn times_of_whole_seconds_are_read() {
        let step = json!({"name": "a", "phase": "Running", "startedAt": "2026-11-21T14:03:07Z"});
        let step: StepStatus = serde_json::from_value(step).unwrap();
        assert_eq!(step.started_at.unwrap().0.as_millisecond() % 1000, 0);
    }

    #[test]
    fn an_apply_names_the_run() {
        let run = ObjectMeta {
            name: Some("r".into()),
            namespace: Some("n".into()),
            uid: Some("u".into()),
            resource_version: Some("1".into()),
            ..ObjectMeta::default()
        };
        let body = apply_body(&run, None, &json!({"phase": "x"}));
        let expected = json!({"apiVersion": "windlass.dev/v1alpha1", "kind": "PipelineRun",
            "metadata": {"name": "r", "namespace": "n", "uid": "u"}, "status": {"phase": "x"}});
        assert_eq!(body, expected);
        assert_eq!(apply_body(&run, Some("7"), &json!({}))["metadata"]["resourceVersion"], "7");
    }
}
