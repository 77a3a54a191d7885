//! `PipelineRun`: one run of a pipeline.
//!
//! **Invariant:** `spec` never changes after creation, but for `cancel` and the two TTLs.

use super::{env::EnvVar, pipeline::PipelineSpec, rules, source::Source, status::PipelineRunStatus};
use kube::{CustomResource, KubeSchema};
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

/// Where a run waits for a person, who looks into its box and lets it go on.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.atFailure || (has(self.before) && size(self.before) > 0)")
    .message("set atFailure: true, or name steps in before"))]
pub struct Breakpoint {
    /// When a step fails: before the after-steps run, and before the run has failed.
    #[serde(default)]
    pub at_failure: bool,
    /// Before each of these steps begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub before: Vec<String>,
}

/// What to run: exactly one of `pipelineRef` and `pipelineSpec`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, CustomResource, KubeSchema)]
#[kube(
    group = "windlass.dev",
    version = "v1alpha1",
    kind = "PipelineRun",
    doc = "One run of a pipeline.",
    shortname = "plr",
    category = "windlass",
    namespaced,
    status = "PipelineRunStatus",
    selectable = ".spec.pipelineRef.name",
    selectable = ".status.phase",
    selectable = ".status.nodeName",
    derive = "Default",
    derive = "PartialEq",
    validation = Rule::new("size(self.metadata.name) <= 58")
        .message("the name may have at most 58 characters, so that its pod can be named after it"),
    validation = rules::no_dot(),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.summary.steps"),
    printcolumn(name = "Duration", type_ = "string", json_path = ".status.summary.duration"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.summary.digest"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Succeeded")].reason"#,
        priority = 1
    ),
    printcolumn(name = "Build", type_ = "integer", json_path = ".status.buildNumber", priority = 1),
    printcolumn(name = "Pipeline", type_ = "string", json_path = ".spec.pipelineRef.name", priority = 1),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.nodeName", priority = 1),
    printcolumn(name = "Pod", type_ = "string", json_path = ".status.podName", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::exactly_one(&["pipelineRef", "pipelineSpec"]))]
#[x_kube(validation = Rule::new("!(has(self.source) && has(self.revision))")
    .message("set source or revision, not both")
    .field_path(".revision"))]
#[x_kube(validation = rules::fixed_presence(
    &["pipelineRef", "pipelineSpec", "params", "env", "source", "revision", "timeout", "priority", "breakpoint"]))]
#[x_kube(validation = Rule::new("!has(oldSelf.cancel) \
    || (has(self.cancel) && (self.cancel == oldSelf.cancel || self.cancel == 'Immediate'))")
    .message("a cancel cannot be taken back; Graceful may become Immediate")
    .reason(Reason::FieldValueForbidden)
    .field_path(".cancel"))]
#[x_kube(validation = rules::env_budget())]
pub struct PipelineRunSpec {
    /// A Pipeline of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::fixed())]
    pub pipeline_ref: Option<PipelineRef>,
    /// The pipeline itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::fixed())]
    pub pipeline_spec: Option<PipelineSpec>,
    /// Values of the pipeline's parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[x_kube(validation = rules::fixed())]
    #[x_kube(merge_strategy = rules::by_name())]
    pub params: Vec<Param>,
    /// Variables that win over the pipeline's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    #[x_kube(validation = rules::fixed())]
    #[x_kube(merge_strategy = rules::by_name())]
    pub env: Vec<EnvVar>,
    /// Replaces the pipeline's source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::fixed())]
    pub source: Option<Source>,
    /// Replaces `source.git.revision`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::revision())]
    #[x_kube(validation = rules::fixed())]
    pub revision: Option<String>,
    /// Replaces the pipeline's timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 20))]
    #[x_kube(validation = rules::duration("1s", "168h"))]
    #[x_kube(validation = rules::fixed())]
    pub timeout: Option<String>,
    /// Where the run waits for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::fixed())]
    pub breakpoint: Option<Breakpoint>,
    /// Longest wait at a breakpoint. Then a step that failed has failed, and one that was not let begin fails.
    #[serde(default = "default_breakpoint_timeout")]
    #[schemars(length(min = 2, max = 20))]
    #[x_kube(validation = rules::duration("1s", "168h"))]
    #[x_kube(validation = rules::fixed())]
    pub breakpoint_timeout: String,
    /// Higher goes first. Without effect yet: no run waits for another.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    #[x_kube(validation = rules::fixed())]
    pub priority: i32,
    /// Ends the run: the step is ended and after-steps run (`Graceful`), or the pod is deleted (`Immediate`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<Cancel>,
    /// The run is deleted this long after its end; default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 20))]
    #[x_kube(validation = rules::duration("0s", "8760h"))]
    pub ttl_after_finished: Option<String>,
    /// The pod is deleted this long after the run's end, and its output with it; the run stays.
    #[serde(default = "default_pod_ttl", rename = "podTTLAfterFinished")]
    #[schemars(length(min = 2, max = 20))]
    #[x_kube(validation = rules::duration("0s", "168h"))]
    pub pod_ttl_after_finished: String,
}

/// A Pipeline of the same namespace.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
pub struct PipelineRef {
    /// Its name.
    #[schemars(length(min = 1, max = 52))]
    pub name: String,
}

/// The value of a parameter.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
pub struct Param {
    /// Name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Value.
    #[schemars(length(max = 8192))]
    pub value: String,
}

fn default_pod_ttl() -> String {
    "1h".into()
}

fn default_breakpoint_timeout() -> String {
    "30m".into()
}

/// The pod of an attempt: a function of run and attempt, so that no stale cache can make a second one.
#[must_use]
pub fn pod_name(run: &str, attempt: u32) -> String {
    format!("{run}-{attempt}")
}
