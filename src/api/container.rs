//! The containers of a run: the box and the services beside it.
//!
//! **Invariant:** data only. Nothing here can give a container more rights than its image has.

use super::{env::EnvVar, foreign, rules};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BoxSpec {
    /// Image of the box, e.g. `debian:12`. Wercker: box id.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = rules::image())]
    pub image: String,
    /// As in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Secrets to pull the images of the run with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = rules::by_name())]
    pub image_pull_secrets: Vec<LocalName>,
    /// Variables below the pipeline's; never in a pushed image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = rules::by_name())]
    pub env: Vec<EnvVar>,
    /// `UID` or `UID:GID`; default: the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 21))]
    #[x_kube(validation = rules::user())]
    pub user: Option<String>,
    /// Where the source is put; default: `/pipeline/source`. Wercker: base-path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new(
        "self.startsWith('/') && self != '/' && !self.contains('/../') && !self.endsWith('/..')")
        .message("must be an absolute directory other than /, without .."))]
    pub working_dir: Option<String>,
    /// The shell; default: bash if there, else sh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("must be an absolute path such as /bin/bash"))]
    pub shell: Option<String>,
    /// As in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// A closed list of settings that only take rights away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<BoxSecurity>,
}

/// Requests and limits of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, KubeSchema)]
pub struct Resources {
    /// What the scheduler sets aside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "foreign::quantities")]
    pub requests: BTreeMap<String, Quantity>,
    /// What the container may use at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "foreign::quantities")]
    pub limits: BTreeMap<String, Quantity>,
}

/// Settings that take rights away from a service.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSecurity {
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
}

/// Settings that take rights away from the box.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
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
    #[schemars(length(max = 32), inner(range(min = 0, max = 2_147_483_647)))]
    pub supplemental_groups: Vec<i64>,
}

impl BoxSecurity {
    /// What a service may have as well: all but the groups, which Kubernetes gives to a pod only.
    #[must_use]
    pub fn of_container(&self) -> ServiceSecurity {
        ServiceSecurity {
            run_as_non_root: self.run_as_non_root,
            allow_privilege_escalation: self.allow_privilege_escalation,
            capabilities: self.capabilities.clone(),
            seccomp_profile: self.seccomp_profile.clone(),
        }
    }
}

/// Capabilities to drop.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
pub struct DropCapabilities {
    /// Names, or `ALL`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 40), inner(length(min = 1, max = 64)))]
    pub drop: Vec<String>,
}

/// The seccomp profile of a container.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
pub struct SeccompProfile {
    /// Only `RuntimeDefault`, the container runtime's own.
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
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
pub struct LocalName {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
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
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Its host name for the steps.
    #[schemars(length(min = 1, max = 59))]
    #[x_kube(validation = rules::name())]
    #[x_kube(validation = Rule::new("!(self in ['localhost', 'box', 'prepare'])")
        .message("this name is taken; choose another"))]
    pub name: String,
    /// Its image. Wercker: id.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = rules::image())]
    pub image: String,
    /// As in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Replaces the image's entry point. Wercker: entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 4096)))]
    pub command: Vec<String>,
    /// Replaces the image's command. Wercker: cmd.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 4096)))]
    pub args: Vec<String>,
    /// Its variables, filled by the kubelet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = rules::by_name())]
    pub env: Vec<EnvVar>,
    /// Ports it listens on, for link variables. The box and all services share one network: a port can be
    /// one service's only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(range(min = 1, max = 65535)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub ports: Vec<u16>,
    /// `UID` or `UID:GID`; default: the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 21))]
    #[x_kube(validation = rules::user())]
    pub user: Option<String>,
    /// As in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// A closed list of settings that only take rights away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<ServiceSecurity>,
    /// What happens when it ends by itself: the run fails (`FailRun`), or nothing (`Ignore`).
    #[serde(default)]
    pub on_exit: OnExit,
    /// When it counts as ready; default: when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Readiness>,
}

/// When a service counts as ready: exactly one of `tcp`, `http` and `exec`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
#[x_kube(validation = rules::exactly_one(&["tcp", "http", "exec"]))]
pub struct Readiness {
    /// A port that accepts connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub tcp: Option<u16>,
    /// An address that answers 2xx or 3xx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpReadiness>,
    /// A command in the service that exits 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecReadiness>,
    /// How long it may take, 1s to 30m.
    #[serde(default = "default_readiness_within")]
    #[schemars(length(min = 2, max = 20))]
    #[x_kube(validation = rules::duration("1s", "30m"))]
    pub within: String,
}

/// Readiness by HTTP.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
pub struct HttpReadiness {
    /// Port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Path.
    #[serde(default = "default_http_path")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("must begin with /"))]
    pub path: String,
}

/// Readiness by a command.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
pub struct ExecReadiness {
    /// The command and its arguments.
    #[schemars(length(min = 1, max = 50), inner(length(max = 4096)))]
    pub command: Vec<String>,
}

fn default_readiness_within() -> String {
    "2m".into()
}
fn default_http_path() -> String {
    "/".into()
}
