//! `Pipeline`: what to run, in which box, with which services, source and environment.
//!
//! Its parts have files of their own; their types are found here as well.
//!
//! **Invariant:** data only; helpers here read it and decide nothing.

pub use super::{
    container::{
        BoxSecurity, BoxSpec, DropCapabilities, ExecReadiness, HttpReadiness, ImagePullPolicy, LocalName, OnExit,
        Readiness, Resources, SeccompProfile, SeccompType, Service, ServiceSecurity,
    },
    env::{EnvFrom, EnvVar, KeyRef, ObjectRef},
    source::{GitSource, ImageSource, InlineFile, InlineSource, Lfs, Nothing, Source, Submodules},
};
use super::{foreign, rules, step::Step};
use k8s_openapi::{
    api::core::v1::Toleration,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a pipeline does.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, CustomResource, KubeSchema)]
#[kube(
    group = "windlass.dev",
    version = "v1alpha1",
    kind = "Pipeline",
    doc = "Steps that run in one container and can push it as an image. A PipelineRun runs them.",
    shortname = "pl",
    category = "windlass",
    namespaced,
    status = "PipelineStatus",
    derive = "Default",
    derive = "PartialEq",
    validation = Rule::new("size(self.metadata.name) <= 52")
        .message("the name may have at most 52 characters, so that runs can be named after it"),
    validation = rules::no_dot(),
    printcolumn(name = "Accepted", type_ = "string", json_path = r#".status.conditions[?(@.type=="Accepted")].status"#),
    printcolumn(name = "Builds", type_ = "integer", json_path = ".status.lastBuildNumber"),
    printcolumn(name = "Last Run", type_ = "string", json_path = ".status.lastRun.name"),
    printcolumn(name = "Result", type_ = "string", json_path = ".status.lastRun.phase"),
    printcolumn(name = "Box", type_ = "string", json_path = ".spec.box.image", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.afterSteps) || self.afterSteps.all(a, !self.steps.exists(s, s.name == a.name))")
    .message("step names must be unique across steps and afterSteps")
    .field_path(".afterSteps"))]
#[x_kube(validation = Rule::new("!has(self.afterSteps) || self.afterSteps.all(a, !has(a.watch) && !has(a.shell))")
    .message("afterSteps cannot hold watch or shell")
    .reason(Reason::FieldValueForbidden)
    .field_path(".afterSteps"))]
#[x_kube(validation = Rule::new("self.steps.map(s, has(s.script) ? size(s.script) : 0).sum() \
    + (has(self.afterSteps) ? self.afterSteps.map(s, has(s.script) ? size(s.script) : 0).sum() : 0) <= 196608")
    .message("all scripts together may hold at most 196608 characters; move long scripts into the source")
    .field_path(".steps"))]
#[x_kube(validation = rules::env_budget())]
pub struct PipelineSpec {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Strings, used as `$(params.x)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[x_kube(merge_strategy = rules::by_name())]
    pub params: Vec<ParamSpec>,
    /// The container that the steps share.
    #[serde(rename = "box")]
    pub box_: BoxSpec,
    /// Containers that run beside the box.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = rules::by_name())]
    pub services: Vec<Service>,
    /// Where the source comes from; default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Variables of all steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    #[x_kube(merge_strategy = rules::by_name())]
    pub env: Vec<EnvVar>,
    /// Variables from whole Secrets and ConfigMaps; below `env`. Keys that are no variable names are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub env_from: Vec<EnvFrom>,
    /// What runs, in this order; the first failure ends it.
    #[schemars(length(min = 1, max = 200))]
    #[x_kube(merge_strategy = rules::by_name())]
    pub steps: Vec<Step>,
    /// What runs last, after success and failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = rules::by_name())]
    pub after_steps: Vec<Step>,
    /// Directories kept from run to run. Not yet: this version refuses it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = rules::by_name())]
    pub caches: Vec<Cache>,
    /// Files kept after the run. Not yet: this version refuses it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = rules::by_name())]
    pub artifacts: Vec<Artifact>,
    /// Longest time of the run, from the creation of its first pod.
    #[serde(default = "default_timeout")]
    #[schemars(length(min = 2, max = 20))]
    #[x_kube(validation = rules::duration("1s", "168h"))]
    pub timeout: String,
    /// Longest time of a step. Wercker: command-timeout.
    #[serde(default = "default_step_timeout")]
    #[schemars(length(min = 2, max = 20))]
    #[x_kube(validation = rules::duration("1s", "168h"))]
    pub step_timeout: String,
    /// Longest time that a script step may print nothing. Wercker: no-response-timeout.
    #[serde(default = "default_no_output_timeout")]
    #[schemars(length(min = 2, max = 20))]
    #[x_kube(validation = rules::duration("1s", "168h"))]
    pub no_output_timeout: String,
    /// How often the run is repeated after a failure of the infrastructure.
    #[serde(default)]
    #[schemars(range(min = 0, max = 5))]
    pub retries: u32,
    /// Used for image pulls only; no token is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// As in a Pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 20, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub node_selector: BTreeMap<String, String>,
    /// As in a Pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "foreign::tolerations")]
    pub tolerations: Vec<Toleration>,
}

/// A parameter of a pipeline.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.default) || !has(self.enum) || self.default in self.enum")
    .message("must be one of enum")
    .field_path(".default"))]
pub struct ParamSpec {
    /// Used as `$(params.NAME)`.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z_][A-Za-z0-9_-]*$')")
        .message("must be letters, digits, '_' and '-', beginning with a letter or '_'"))]
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Without it the run must give the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub default: Option<String>,
    /// The values that are allowed.
    #[serde(default, rename = "enum", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 50), inner(length(max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub enum_: Option<Vec<String>>,
}

/// A directory kept from run to run.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    /// Name.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::name())]
    pub name: String,
    /// Key it is saved under.
    #[schemars(length(min = 1, max = 256))]
    pub key: String,
    /// Beginnings of keys to fall back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10), inner(length(min = 1, max = 256)))]
    pub restore_keys: Option<Vec<String>>,
    /// What is kept.
    #[schemars(length(min = 1, max = 20), inner(length(min = 1, max = 1024)))]
    pub paths: Vec<String>,
}

/// When artifacts are saved.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub enum SaveOn {
    /// When the run succeeded.
    #[default]
    Success,
    /// When it failed.
    Failure,
    /// Either way.
    Always,
}

/// Files kept after the run.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Name.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::name())]
    pub name: String,
    /// What is kept.
    #[schemars(length(min = 1, max = 50), inner(length(min = 1, max = 1024)))]
    pub paths: Vec<String>,
    /// When: after success, after failure, or either way (`Always`).
    #[serde(default)]
    pub save_on: SaveOn,
}

/// What Windlass says of a pipeline.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PipelineStatus {
    /// Generation that the conditions are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted` and `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "foreign::conditions")]
    pub conditions: Vec<Condition>,
    /// A copy of the build counter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_build_number: Option<i64>,
    /// The newest run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<LastRun>,
}

/// The newest run of a pipeline.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRun {
    /// Its name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Its phase.
    #[schemars(length(max = 32))]
    pub phase: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
}

/// Longest time of a run whose pipeline does not say.
pub const DEFAULT_TIMEOUT: &str = "1h";

fn default_timeout() -> String {
    DEFAULT_TIMEOUT.into()
}
fn default_step_timeout() -> String {
    "25m".into()
}
fn default_no_output_timeout() -> String {
    "5m".into()
}

impl PipelineSpec {
    /// All steps in order, each with whether it is an after-step.
    pub fn all_steps(&self) -> impl Iterator<Item = (bool, &Step)> {
        self.steps.iter().map(|s| (false, s)).chain(self.after_steps.iter().map(|s| (true, s)))
    }
}
