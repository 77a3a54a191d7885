//! Arguments that only a run of a `wercker.yml` takes.
//!
//! `wercker` carries them out. **Invariant:** as in `args`; the names are those of Wercker's command line.

use clap::{Args, ValueHint};
use std::path::PathBuf;

/// Heading of the flags that only a run of a `wercker.yml` takes.
pub const OF_WERCKER: &str = "Of wercker.yml";

/// What a run of a `wercker.yml` takes beside the rest.
#[derive(Args, Clone, Debug, Default)]
pub struct WerckerArgs {
    /// A file of variables [default: ENVIRONMENT]
    #[arg(long, value_name = "FILE", env = "WERCKER_ENVIRONMENT_FILE", hide_env = true, help_heading = OF_WERCKER, value_hint = ValueHint::FilePath, hide_short_help = true)]
    pub environment: Option<PathBuf>,
    /// The deploy target
    #[arg(long, value_name = "NAME", help_heading = OF_WERCKER, hide_short_help = true)]
    pub deploy_target: Option<String>,
    /// Where steps are as files [default: .wercker/steps]
    #[arg(long, value_name = "DIR", help_heading = OF_WERCKER, value_hint = ValueHint::DirPath, hide_short_help = true)]
    pub steps: Option<PathBuf>,
    /// Open the ports of box and services on 127.0.0.1
    #[arg(long, help_heading = OF_WERCKER, hide_short_help = true)]
    pub expose_ports: bool,
    /// Mount the volumes of box and services
    #[arg(long, help_heading = OF_WERCKER, hide_short_help = true)]
    pub enable_volumes: bool,
    /// Images of this machine only: nothing is pulled
    #[arg(long, help_heading = OF_WERCKER, hide_short_help = true)]
    pub docker_local: bool,
    /// Keep the output in .wercker/latest, for deploy
    #[arg(long, help_heading = OF_WERCKER, hide_short_help = true)]
    pub artifacts: bool,
    /// An image of the box in the end, also of a failure
    #[arg(long, value_name = "NAME", help_heading = OF_WERCKER, hide_short_help = true)]
    pub commit: Option<String>,
    /// Its tag
    #[arg(long, value_name = "TAG", requires = "commit", default_value = "latest", hide_default_value = true, help_heading = OF_WERCKER, hide_short_help = true)]
    pub tag: String,
    /// Its comment
    #[arg(long, value_name = "TEXT", requires = "commit", help_heading = OF_WERCKER, hide_short_help = true)]
    pub message: Option<String>,
    /// The box is the image of this checkpoint
    #[arg(long, value_name = "NAME", help_heading = OF_WERCKER, hide_short_help = true)]
    pub checkpoint: Option<String>,
    /// Wait for you when a step fails
    #[arg(long, help_heading = OF_WERCKER, hide_short_help = true)]
    pub attach_on_error: bool,
    /// Keep the containers
    #[arg(long, help_heading = OF_WERCKER, hide_short_help = true)]
    pub no_remove: bool,
}

impl WerckerArgs {
    /// The flags that were given, of those that mean nothing to our own kinds.
    #[must_use]
    pub fn given(&self) -> Vec<(bool, &'static str)> {
        vec![
            (self.environment.is_some() && std::env::var_os("WERCKER_ENVIRONMENT_FILE").is_none(), "--environment"),
            (self.deploy_target.is_some(), "--deploy-target"),
            (self.steps.is_some(), "--steps"),
            (self.expose_ports, "--expose-ports"),
            (self.enable_volumes, "--enable-volumes"),
            (self.docker_local, "--docker-local"),
            (self.artifacts, "--artifacts"),
            (self.commit.is_some(), "--commit"),
            (self.checkpoint.is_some(), "--checkpoint"),
            (self.no_remove, "--no-remove"),
        ]
    }
}
