//! What the controller tells `prepare`. It holds names of Secrets, never values.

use super::plan::{Breakpoints, RunInfo, StepOf};
use serde::{Deserialize, Serialize};

/// What the controller tells `prepare`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Order {
    /// [`super::VERSION`].
    pub version: u32,
    /// The run.
    pub run: RunInfo,
    /// `box.workingDir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// `box.shell`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// When the run's time is over, in milliseconds since the epoch by the controller's clock. The node's own clock is
    /// asked, so the run ends earlier by as much as that is ahead; behind, later, until the pod's `activeDeadlineSeconds`.
    pub deadline_ms: u64,
    /// How much time the run has in all, in seconds; for messages.
    #[serde(default)]
    pub timeout_s: u64,
    /// Variables of all steps; a later one wins.
    pub env: Vec<EnvItem>,
    /// Where the source comes from.
    pub source: SourceOrder,
    /// Services to wait for.
    pub services: Vec<ServiceCheck>,
    /// Services that steps find by variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<ServiceLink>,
    /// Push credentials that must be there: name of the step, name of the Secret.
    pub push_secrets: Vec<(String, String)>,
    /// Keys of push credentials that must be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub login_keys: Vec<LoginKey>,
    /// Variables of Secrets that only the agent may see.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<String>,
    /// Steps, then after-steps.
    pub steps: Vec<OrderStep>,
    /// Where the run waits for a person.
    #[serde(default, skip_serializing_if = "Breakpoints::is_none")]
    pub breakpoints: Breakpoints,
}

/// A step as the controller knows it.
pub type OrderStep = StepOf<EnvItem>;

/// Where variables come from: one variable, or all keys of an object.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum EnvItem {
    /// One variable.
    One {
        /// Its name.
        name: String,
        /// Its value.
        value: EnvValue,
    },
    /// All keys of a Secret or ConfigMap that are valid names.
    All(EnvFromSource),
}

/// The value of one variable.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum EnvValue {
    /// As written.
    Text(String),
    /// A key of a Secret.
    Secret {
        /// Name of the Secret.
        name: String,
        /// Key in it.
        key: String,
        /// Whether it may be missing.
        optional: bool,
    },
    /// A key of a ConfigMap.
    ConfigMap {
        /// Name of the ConfigMap.
        name: String,
        /// Key in it.
        key: String,
        /// Whether it may be missing.
        optional: bool,
    },
}

/// A key of a Secret that a push step logs in with, by a variable.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct LoginKey {
    /// Name of the step.
    pub step: String,
    /// The variable.
    pub variable: String,
    /// Name of the Secret.
    pub secret: String,
    /// Key in it.
    pub key: String,
}

/// All keys of an object.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct EnvFromSource {
    /// Put before each name.
    pub prefix: String,
    /// Whether it is a Secret (else a ConfigMap).
    pub secret: bool,
    /// Name of the object.
    pub name: String,
    /// Whether it may be missing.
    pub optional: bool,
}

/// Where the source comes from.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum SourceOrder {
    /// Nothing: an empty directory.
    #[default]
    None,
    /// Files: path, content, mode.
    Inline(Vec<(String, String, u32)>),
    /// A git repository.
    Git(GitOrder),
}

/// A git repository.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct GitOrder {
    /// Address.
    pub url: String,
    /// Branch, tag, commit or full ref; none: the remote's HEAD.
    pub revision: Option<String>,
    /// Whether [`super::GIT_SECRET_DIR`] is mounted, and the Secret's name.
    pub secret_name: Option<String>,
    /// Commits of history; 0: all.
    pub depth: u32,
    /// Submodules: none, direct or recursive.
    pub submodules: u8,
    /// Whether Git LFS may be used.
    pub lfs: bool,
    /// Only these directories.
    pub sparse: Vec<String>,
    /// Directory of the repository that is the source.
    pub directory: Option<String>,
}

/// A service that names its ports.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct ServiceLink {
    /// Name of the service.
    pub name: String,
    /// Ports it listens on, TCP.
    pub ports: Vec<u16>,
    /// Its variables that are written out in the pipeline.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<(String, String)>,
}

/// How to tell that a service is ready. Exec checks are the kubelet's.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct ServiceCheck {
    /// Name of the service.
    pub name: String,
    /// Port on localhost.
    pub port: u16,
    /// Path that must answer 2xx or 3xx; none: the port accepts connections.
    pub http_path: Option<String>,
    /// How long it may take, in seconds.
    pub within_s: u64,
}
