//! `PipelineRun`: one run of a pipeline.
//!
//! **Invariant:** `spec` never changes after creation, but for `cancel` and the two TTLs.

use super::{
    pipeline::{EnvVar, LocalName, PipelineSpec, Source},
    status::PipelineRunStatus,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a run is cancelled.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub enum Cancel {
    /// The step is ended, after-steps run.
    Graceful,
    /// The pod is deleted.
    Immediate,
}

/// What to run: exactly one of `pipelineRef` and `pipelineSpec`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, CustomResource, JsonSchema)]
#[kube(
    group = "windlass.dev",
    version = "v1alpha1",
    kind = "PipelineRun",
    shortname = "plr",
    category = "windlass",
    namespaced,
    status = "PipelineRunStatus",
    selectable = ".spec.pipelineRef.name",
    selectable = ".status.phase",
    selectable = ".status.nodeName",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct PipelineRunSpec {
    /// A Pipeline of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline_ref: Option<LocalName>,
    /// The pipeline itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline_spec: Option<PipelineSpec>,
    /// Values of the pipeline's parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Param>,
    /// Variables that win over the pipeline's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Replaces the pipeline's source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Replaces `source.git.revision`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Replaces the pipeline's timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Higher goes first.
    #[serde(default)]
    pub priority: i32,
    /// Ends the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<Cancel>,
    /// The run is deleted this long after its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_finished: Option<String>,
    /// The pod is deleted this long after the run's end.
    #[serde(default = "default_pod_ttl", rename = "podTTLAfterFinished")]
    pub pod_ttl_after_finished: String,
}

/// The value of a parameter.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub struct Param {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

fn default_pod_ttl() -> String {
    "1h".into()
}

/// The pod of an attempt: a function of run and attempt, so that no stale cache can make a second one.
#[must_use]
pub fn pod_name(run: &str, attempt: u32) -> String {
    format!("{run}-{attempt}")
}
