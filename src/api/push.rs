//! The properties of the two push steps, as written.
//!
//! **Invariant:** data only. What they mean is decided in `steps`.

use super::text::{IntOrText, Pairs, Ports, Words};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Secret of the run's namespace, by name.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// Name of a Secret of type `kubernetes.io/dockerconfigjson` or `kubernetes.io/basic-auth`.
    pub secret_name: String,
}

/// What to do when a pushed layer holds the value of one of the run's Secrets.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub enum SecretsInImage {
    /// The step fails with `SecretInLayer`.
    #[default]
    Deny,
    /// The push goes on, with a warning in the step's message.
    Warn,
    /// Layers are not searched.
    Allow,
}

/// `dockerPush`: commits the box and pushes it (Wercker's `internal/docker-push`).
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DockerPush {
    /// Where to push, without tag; off Docker Hub it begins with the registry's host.
    pub repository: String,
    /// Tags; entries are split at space and comma too. Default: `latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Tags as one string, split at space and comma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Whether the build number is one more tag.
    #[serde(default = "yes")]
    pub build_number_tag: bool,
    /// The registry's host or https address; default: the repository's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    /// The Secret to log in with: the recommended way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// User name; goes with `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// One variable such as `$PASSWORD` whose value comes from a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Taken for old pipelines, not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Amazon ECR: access key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_access_key: Option<String>,
    /// Amazon ECR: one variable whose value comes from a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_secret_key: Option<String>,
    /// Amazon ECR: region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_region: Option<String>,
    /// Amazon ECR: account of the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_registry_id: Option<String>,
    /// Ports to expose: `5000`, `"5000, 8080/udp"`, `[80, "53/udp"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Ports>,
    /// Volumes to declare: a list, or a string split at space and comma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Words>,
    /// Working directory of the image; default: the box image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// User of the image; default: the box image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Command of the image, a list or shell words; default: the box image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Words>,
    /// Entry point of the image, a list or shell words; alone it clears `cmd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Words>,
    /// Variables to add: a map, a list of `A=1`, or a string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Pairs>,
    /// Labels to add: a map, a list of `a=1`, or a string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Pairs>,
    /// Author, as in MAINTAINER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Comment of the layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Signal that stops the container: a name or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<IntOrText>,
    /// Expand only what the run itself defines, nothing that steps exported.
    #[serde(default)]
    pub disable_sync: bool,
    /// What to do when a layer holds the value of one of the run's Secrets.
    #[serde(default)]
    pub secrets_in_image: SecretsInImage,
}

/// Whether file times are kept in a scratch image.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub enum Timestamps {
    /// As in the box.
    #[default]
    Keep,
    /// All at the epoch, so that the same files give the same digest.
    Zero,
}

/// `dockerScratchPush`: pushes an image from scratch that holds the output directory.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DockerScratchPush {
    /// What it shares with `dockerPush`.
    #[serde(flatten)]
    pub push: DockerPush,
    /// Directory to push; default: `$WERCKER_OUTPUT_DIR` if it holds a file, else `$WERCKER_ROOT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Owner of all files, `UID` or `UID:GID`; default: as in the box.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Whether file times are kept.
    #[serde(default)]
    pub timestamps: Timestamps,
}

fn yes() -> bool {
    true
}
