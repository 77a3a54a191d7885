//! What only a run on one machine does, as it has the engine to itself.
//!
//! `client` makes such steps of a `wercker.yml`; `local` carries them out.
//!
//! **Invariant:** data only, and not in the definitions of the resources: an API server drops it, so that a step has
//! nothing to do and is refused. No steps of a cluster get the node's engine.

use super::push::DockerPush;
use serde::{Deserialize, Serialize};

/// A step of a run on one machine.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum HereStep {
    /// Builds an image from a Dockerfile of the source. Wercker: internal/docker-build.
    DockerBuild(DockerBuild),
    /// Starts a container in the network of the run. Wercker: internal/docker-run.
    DockerRun(DockerRun),
    /// Ends such a container. Wercker: internal/docker-kill.
    DockerKill(String),
    /// Commits the box as an image of this engine. Wercker: checkpoint, --commit, --docker-local.
    Commit(Box<DockerPush>),
    /// Keeps the output directory, or the source if that is empty. Wercker: --artifacts.
    Keep,
}

/// `internal/docker-build`. In its texts variables are expanded.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct DockerBuild {
    /// What later steps of the run call the image.
    pub image_name: String,
    /// The file, below the context.
    pub dockerfile: Option<String>,
    /// Directory below the source.
    pub context: Option<String>,
    /// `NAME=value`.
    pub build_args: Vec<String>,
    /// `NAME=value`.
    pub labels: Vec<String>,
    /// `NAME:address`.
    pub extra_hosts: Vec<String>,
    /// Whether only the result is told.
    pub quiet: bool,
    /// Whether every instruction is carried out anew.
    pub no_cache: bool,
    /// Whether the layers become one.
    pub squash: bool,
    /// Logins for pulls, as JSON: `{"registry": {"Username": "u", "Password": "p"}}`.
    pub logins: Option<String>,
    /// Whether nothing that steps exported is expanded.
    pub disable_sync: bool,
}

/// `internal/docker-run`. In its texts, but for the name, variables are expanded.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct DockerRun {
    /// Its name in the network of the run.
    pub name: String,
    /// The image: one that the run built, else one of this machine or of a registry.
    pub image: String,
    /// Replaces the image's own; empty: as in the image.
    pub entrypoint: Vec<String>,
    /// Replaces the image's own; empty: as in the image.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Ports that are opened on this machine, as `IP:HERE:PORT/PROTOCOL`.
    pub ports: Vec<String>,
    /// Where it starts.
    pub working_dir: Option<String>,
    /// Who it is.
    pub user: Option<String>,
    /// The registry of an image that names none.
    pub registry: Option<String>,
    /// User name and password for the pull.
    pub login: Option<(String, String)>,
    /// Whether nothing that steps exported is expanded.
    pub disable_sync: bool,
}

impl HereStep {
    /// What of the box the runner packs first: the directory, with its variables.
    #[must_use]
    pub fn packs(&self) -> Option<Option<String>> {
        match self {
            Self::DockerBuild(build) => {
                let below = build.context.as_deref().map(|context| context.trim_matches('/'));
                let below = below.filter(|below| !below.is_empty() && *below != ".");
                Some(Some(below.map_or_else(|| "$WERCKER_ROOT".into(), |below| format!("$WERCKER_ROOT/{below}"))))
            }
            Self::Keep => Some(None),
            Self::DockerRun(_) | Self::DockerKill(_) | Self::Commit(_) => None,
        }
    }

    /// Whether nothing that steps exported is expanded.
    #[must_use]
    pub fn disable_sync(&self) -> bool {
        match self {
            Self::DockerBuild(build) => build.disable_sync,
            Self::DockerRun(run) => run.disable_sync,
            Self::Commit(push) => push.disable_sync,
            Self::DockerKill(_) | Self::Keep => false,
        }
    }
}
