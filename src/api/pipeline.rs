//! `Pipeline`: what to run, in which box, with which services, source and environment.
//!
//! **Invariant:** data only; helpers here read it and decide nothing.

use super::step::Step;
use k8s_openapi::{
    api::core::v1::Toleration,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Condition},
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a pipeline does.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, CustomResource, JsonSchema)]
#[kube(
    group = "windlass.dev",
    version = "v1alpha1",
    kind = "Pipeline",
    shortname = "pl",
    category = "windlass",
    namespaced,
    status = "PipelineStatus",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct PipelineSpec {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Strings, used as `$(params.x)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<ParamSpec>,
    /// The container that the steps share.
    #[serde(rename = "box")]
    pub box_: BoxSpec,
    /// Containers that run beside the box.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// Where the source comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Variables of all steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Variables from whole Secrets and ConfigMaps; below `env`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<EnvFrom>,
    /// What runs, in this order.
    pub steps: Vec<Step>,
    /// What runs last, after success and failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after_steps: Vec<Step>,
    /// Directories kept from run to run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<Cache>,
    /// Files kept after the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// Longest time of the run, from the creation of its first pod.
    #[serde(default = "default_timeout")]
    pub timeout: String,
    /// Longest time of a step.
    #[serde(default = "default_step_timeout")]
    pub step_timeout: String,
    /// Longest time that a script step may print nothing.
    #[serde(default = "default_no_output_timeout")]
    pub no_output_timeout: String,
    /// How often the run is repeated after a failure of the infrastructure.
    #[serde(default)]
    pub retries: u32,
    /// Used for image pulls only; no token is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// As in a Pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// As in a Pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
}

/// A parameter of a pipeline.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParamSpec {
    /// Used as `$(params.NAME)`.
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Without it the run must give the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// The values that are allowed.
    #[serde(default, rename = "enum", skip_serializing_if = "Option::is_none")]
    pub enum_: Option<Vec<String>>,
}

/// When an image is pulled, as in a Pod.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub enum ImagePullPolicy {
    /// Each time.
    Always,
    /// If it is not on the node.
    IfNotPresent,
    /// Never; it must be on the node.
    Never,
}

impl ImagePullPolicy {
    /// As Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// The box: the one container that all steps share.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BoxSpec {
    /// Image of the box, e.g. `debian:12`.
    pub image: String,
    /// As in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Secrets to pull the image with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalName>,
    /// Variables below the pipeline's; never in a pushed image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// `UID` or `UID:GID`; default: the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where the source is put; default: `/pipeline/source`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// The shell; default: bash if there, else sh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// As in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// A closed list of settings that only take rights away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<BoxSecurity>,
}

/// Requests and limits of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, JsonSchema)]
pub struct Resources {
    /// What the scheduler sets aside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
    /// What the container may use at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
}

/// Settings that take rights away from the box.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BoxSecurity {
    /// Refuse to start as root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_non_root: Option<bool>,
    /// `false`: setuid programs gain nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_privilege_escalation: Option<bool>,
    /// Capabilities to drop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<DropCapabilities>,
    /// The seccomp profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp_profile: Option<SeccompProfile>,
    /// Further groups of the box's processes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supplemental_groups: Vec<i64>,
}

/// Capabilities to drop.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub struct DropCapabilities {
    /// Names, or `ALL`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
}

/// The seccomp profile of the box.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub struct SeccompProfile {
    /// Only `RuntimeDefault`.
    #[serde(rename = "type")]
    pub type_: SeccompType,
}

/// Seccomp profiles that may be chosen.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub enum SeccompType {
    /// The container runtime's own.
    RuntimeDefault,
}

/// The name of an object of the same namespace.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub struct LocalName {
    /// Its name.
    pub name: String,
}

/// What happens when a service ends by itself.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub enum OnExit {
    /// The run fails with `ServiceFailed`.
    #[default]
    FailRun,
    /// Nothing.
    Ignore,
}

/// A container that runs beside the box, on the same network.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Its host name for the steps.
    pub name: String,
    /// Its image.
    pub image: String,
    /// As in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Replaces the image's entry point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Replaces the image's command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Its variables, filled by the kubelet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Ports it listens on, for link variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// `UID` or `UID:GID`; default: the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// As in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// What happens when it ends by itself.
    #[serde(default)]
    pub on_exit: OnExit,
    /// When it counts as ready; default: when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Readiness>,
}

/// When a service counts as ready: exactly one of `tcp`, `http` and `exec`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub struct Readiness {
    /// A port that accepts connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<u16>,
    /// An address that answers 2xx or 3xx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpReadiness>,
    /// A command in the service that exits 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecReadiness>,
    /// How long it may take.
    #[serde(default = "default_readiness_within")]
    pub within: String,
}

/// Readiness by HTTP.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub struct HttpReadiness {
    /// Port.
    pub port: u16,
    /// Path.
    #[serde(default = "default_http_path")]
    pub path: String,
}

/// Readiness by a command.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub struct ExecReadiness {
    /// The command and its arguments.
    pub command: Vec<String>,
}

/// Where the source comes from: exactly one of `git`, `inline`, `image` and `none`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub struct Source {
    /// A git repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSource>,
    /// Files written here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<InlineSource>,
    /// A directory of an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSource>,
    /// No source: an empty directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none: Option<Nothing>,
}

/// An empty member of a union, written `{}`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub struct Nothing {}

/// Which submodules are fetched.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub enum Submodules {
    /// None.
    #[default]
    None,
    /// Those of the repository itself.
    Direct,
    /// Those of submodules too.
    Recursive,
}

/// Whether large files are fetched.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub enum Lfs {
    /// If the repository uses Git LFS.
    #[default]
    Auto,
    /// Never.
    Never,
}

/// A git repository.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GitSource {
    /// https, ssh or file address, without a password.
    pub url: String,
    /// Branch, tag, commit or full ref; default: the remote's HEAD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Secret with `username` and `password`, or `ssh-privatekey` and `known_hosts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// How many commits of history; 0 is all.
    #[serde(default = "default_depth")]
    pub depth: u32,
    /// Which submodules are fetched.
    #[serde(default)]
    pub submodules: Submodules,
    /// Whether large files are fetched.
    #[serde(default)]
    pub lfs: Lfs,
    /// Only these directories are checked out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparse: Option<Vec<String>>,
    /// Directory of the repository that is the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}

/// Files written in the pipeline.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub struct InlineSource {
    /// The files.
    pub files: Vec<InlineFile>,
}

/// One file.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub struct InlineFile {
    /// Path below the source directory.
    pub path: String,
    /// What is in it.
    pub content: String,
    /// Octal mode such as `"0755"`.
    #[serde(default = "default_mode")]
    pub mode: String,
}

/// A directory of an image.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageSource {
    /// The image.
    pub image: String,
    /// The directory.
    #[serde(default = "default_directory")]
    pub directory: String,
    /// As in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
}

/// A variable: a name and exactly one of `value`, `secretKeyRef` and `configMapKeyRef`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Value, as data: `$VAR` in it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// A key of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
    /// A key of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
}

/// A key of a Secret or ConfigMap.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub struct KeyRef {
    /// Name of the object.
    pub name: String,
    /// Key in it.
    pub key: String,
    /// Whether it may be missing.
    #[serde(default)]
    pub optional: bool,
}

/// Variables from a whole object: exactly one of `secretRef` and `configMapRef`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvFrom {
    /// Put before each name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// A Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<ObjectRef>,
    /// A ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ObjectRef>,
}

/// A whole Secret or ConfigMap.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub struct ObjectRef {
    /// Name of the object.
    pub name: String,
    /// Whether it may be missing.
    #[serde(default)]
    pub optional: bool,
}

/// A directory kept from run to run.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    /// Name.
    pub name: String,
    /// Key it is saved under; default: the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Beginnings of keys to fall back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_keys: Option<Vec<String>>,
    /// What is kept.
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
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Name.
    pub name: String,
    /// What is kept.
    pub paths: Vec<String>,
    /// When.
    #[serde(default)]
    pub save_on: SaveOn,
}

/// What Windlass says of a pipeline.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PipelineStatus {
    /// Generation that the conditions are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted` and `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// A copy of the build counter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_build_number: Option<i64>,
    /// The newest run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<LastRun>,
}

/// The newest run of a pipeline.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub struct LastRun {
    /// Its name.
    pub name: String,
    /// Its phase.
    pub phase: String,
}

fn default_timeout() -> String {
    "1h".into()
}
fn default_step_timeout() -> String {
    "25m".into()
}
fn default_no_output_timeout() -> String {
    "5m".into()
}
fn default_readiness_within() -> String {
    "2m".into()
}
fn default_http_path() -> String {
    "/".into()
}
fn default_depth() -> u32 {
    1
}
fn default_mode() -> String {
    "0644".into()
}
fn default_directory() -> String {
    "/".into()
}

impl PipelineSpec {
    /// All steps in order, each with whether it is an after-step.
    pub fn all_steps(&self) -> impl Iterator<Item = (bool, &Step)> {
        self.steps.iter().map(|s| (false, s)).chain(self.after_steps.iter().map(|s| (true, s)))
    }

    /// Names of the Secrets that push steps log in with, each once, in order of first use.
    /// The index in this list names the volume that carries it (`wire::push_volume`).
    #[must_use]
    pub fn push_secrets(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for (_, step) in self.all_steps() {
            let push = step.docker_push.as_ref().or(step.docker_scratch_push.as_ref().map(|s| &s.push));
            if let Some(c) = push.and_then(|p| p.credentials.as_ref())
                && !names.contains(&c.secret_name.as_str())
            {
                names.push(c.secret_name.as_str());
            }
        }
        names
    }
}
