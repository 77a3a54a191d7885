//! The properties of the two push steps, as written.
//!
//! **Invariant:** data only. What they mean is decided in `steps`.

use super::{
    rules,
    text::{self, IntOrText, Pairs, Ports, Words},
};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! without_tls {
    () => {
        "registries without TLS are listed by the administrator"
    };
}

/// What can be done about a registry without TLS. `local` has other words for it.
pub const WITHOUT_TLS: &str = without_tls!();
/// What is said of a registry whose address is no https address.
pub const HTTPS_ONLY: &str = concat!("must be https; ", without_tls!());

/// A Secret of the run's namespace, by name.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// Name of a Secret of type `kubernetes.io/dockerconfigjson` or `kubernetes.io/basic-auth`.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}

/// What to do when a pushed layer holds the value of one of the run's Secrets.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub enum SecretsInImage {
    /// The step fails with `SecretInLayer`; with `SecretsNotSearched` if a layer or a value cannot be searched.
    #[default]
    Deny,
    /// The push goes on, with a warning in the step's message.
    Warn,
    /// Layers are not searched.
    Allow,
}

/// `dockerPush`: commits the box and pushes it (Wercker's `internal/docker-push`).
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.tag) && has(self.tags))")
    .message("set tag or tags, not both")
    .field_path(".tags"))]
#[x_kube(validation = Rule::new("has(self.username) == has(self.password)")
    .message("username and password go together")
    .field_path(".password"))]
#[x_kube(validation = rules::one_login(
    "!(has(self.credentials) && (has(self.username) || has(self.awsAccessKey)))", ".credentials"))]
#[x_kube(validation = Rule::new("has(self.awsAccessKey) == has(self.awsSecretKey) \
    && has(self.awsAccessKey) == has(self.awsRegion) && has(self.awsAccessKey) == has(self.awsRegistryId)")
    .message("awsAccessKey, awsSecretKey, awsRegion and awsRegistryId go together"))]
#[x_kube(validation = rules::one_login("!(has(self.username) && has(self.awsAccessKey))", ".username"))]
pub struct DockerPush {
    /// Where to push, without tag; off Docker Hub it begins with the registry's host.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("!self.contains('@') && !self.matches(':[^/]*$')")
        .message("must not hold a tag or digest; put the tag into tags"))]
    #[x_kube(validation = Rule::new("!self.matches('^[a-zA-Z]+://')")
        .message("must not begin with https://; write registry.example.com/team/app"))]
    pub repository: String,
    /// Tags; entries are split at space and comma too. Default: `latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 50), inner(length(min = 1, max = 512)))]
    pub tags: Option<Vec<String>>,
    /// Tags as one string, split at space and comma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub tag: Option<String>,
    /// Whether the build number is one more tag.
    #[serde(default = "yes")]
    pub build_number_tag: bool,
    /// The registry's host or https address; default: the repository's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("!self.startsWith('http://')")
        .message(HTTPS_ONLY))]
    #[x_kube(validation = Rule::new("!self.matches('/v1/?$')")
        .message("the registry API v1 no longer exists; end the address with /v2 or leave it out"))]
    pub registry: Option<String>,
    /// The Secret to log in with: the recommended way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// User name; goes with `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub username: Option<String>,
    /// One variable such as `$PASSWORD` whose value comes from a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = rules::one_variable("PASSWORD"))]
    pub password: Option<String>,
    /// Taken for old pipelines, not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 320))]
    pub email: Option<String>,
    /// Amazon ECR: access key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub aws_access_key: Option<String>,
    /// Amazon ECR: one variable whose value comes from a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = rules::one_variable("AWS_SECRET_ACCESS_KEY"))]
    pub aws_secret_key: Option<String>,
    /// Amazon ECR: region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub aws_region: Option<String>,
    /// Amazon ECR: account of the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub aws_registry_id: Option<String>,
    /// Ports to expose: a number, a string or a list of both; `5000`, `"5000, 8080/udp"`, `[80, "53/udp"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Ports")]
    pub ports: Option<Ports>,
    /// Volumes to declare: a list, or a string split at space and comma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::volumes")]
    pub volumes: Option<Words>,
    /// Working directory of the image; default: the box image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub working_dir: Option<String>,
    /// User of the image; default: the box image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub user: Option<String>,
    /// Command of the image, a list or shell words; default: the box image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Words")]
    pub cmd: Option<Words>,
    /// Entry point of the image, a list or shell words; alone it clears `cmd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Words")]
    pub entrypoint: Option<Words>,
    /// Variables to add: a map, a list of `A=1`, or a string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Pairs")]
    pub env: Option<Pairs>,
    /// Labels to add: a map, a list of `a=1`, or a string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Pairs")]
    pub labels: Option<Pairs>,
    /// Author, as in MAINTAINER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub author: Option<String>,
    /// Comment of the layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub message: Option<String>,
    /// Signal that stops the container: a name or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "IntOrText")]
    #[x_kube(validation = Rule::new("type(self) == int ? (self >= 1 && self <= 64) \
        : self.matches('^([0-9]{1,2}|(SIG)?[A-Z][A-Z0-9+-]{1,15}|.*\\\\$.*)$')")
        .message("must be a signal such as SIGTERM, or a number from 1 to 64"))]
    pub stop_signal: Option<IntOrText>,
    /// Expand only what the run itself defines, nothing that steps exported.
    #[serde(default)]
    pub disable_sync: bool,
    /// When a layer holds the value of a variable from a Secret, or of the login, or cannot be searched for them: fail
    /// (`Deny`), push and say so (`Warn`), or do not look (`Allow`). Values of less than 6 bytes are not looked for.
    #[serde(default)]
    pub secrets_in_image: SecretsInImage,
    /// An image that a `here` step of the same run built, in place of the box; see [`super::here`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub image_name: Option<String>,
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
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DockerScratchPush {
    /// What it shares with `dockerPush`.
    #[serde(flatten)]
    pub push: DockerPush,
    /// Directory to push; default: `$WERCKER_OUTPUT_DIR` if it holds a file, else `$WERCKER_ROOT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub directory: Option<String>,
    /// Owner of all files, `UID` or `UID:GID`; default: as in the box.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 21))]
    #[x_kube(validation = rules::user())]
    pub owner: Option<String>,
    /// File times are kept (`Keep`), or all set to the epoch (`Zero`): the same files then give the same digest.
    #[serde(default)]
    pub timestamps: Timestamps,
}

fn yes() -> bool {
    true
}
