//! Arguments of runs on the engine of this machine.
//!
//! `here` carries them out. **Invariant:** as in `args`.

use super::{super::complete, KeyValue, Manner, Publish, TO_RUN, WerckerArgs, What, host_file, name_path, publish};
use clap::{Args, ValueHint};
use clap_complete::engine::ArgValueCandidates;
use std::path::PathBuf;

/// Heading of the flags that only a run on Docker takes.
pub const HERE: &str = "On Docker";

/// What a run on this machine takes beside the rest.
#[derive(Args, Clone, Debug, Default)]
pub struct HereArgs {
    /// Directory that is the source [default: that of the file]
    #[arg(long, value_name = "DIR", help_heading = HERE, value_hint = ValueHint::DirPath, hide_short_help = true)]
    pub source: Option<PathBuf>,
    /// Variables, as NAME=VALUE lines
    #[arg(long, value_name = "FILE", help_heading = HERE, value_hint = ValueHint::FilePath, hide_short_help = true)]
    pub env_file: Vec<PathBuf>,
    /// The same; masked, and kept out of images
    #[arg(long, value_name = "FILE", help_heading = HERE, value_hint = ValueHint::FilePath, hide_short_help = true)]
    pub secret_env: Vec<PathBuf>,
    /// A Secret: a directory, or NAME=VALUE lines
    #[arg(long, value_name = "NAME=PATH", value_parser = name_path, help_heading = HERE, hide_short_help = true)]
    pub secret: Vec<KeyValue>,
    /// A ConfigMap, in the same way
    #[arg(long, value_name = "NAME=PATH", value_parser = name_path, help_heading = HERE, hide_short_help = true)]
    pub config_map: Vec<KeyValue>,
    /// A port of the box on 127.0.0.1: PORT or HERE:BOX
    #[arg(long, value_name = "PORT", value_parser = publish, help_heading = HERE, hide_short_help = true)]
    pub publish: Vec<Publish>,
    /// Steps work in the directory itself, not on a copy
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = HERE, hide_short_help = true, hide_possible_values = true)]
    pub direct_mount: Option<bool>,
    /// CA of a registry that is pushed to
    #[arg(long, value_name = "HOST=FILE", value_parser = host_file, help_heading = HERE, hide_short_help = true)]
    pub registry_ca: Vec<KeyValue>,
    /// What only a wercker.yml takes.
    #[command(flatten)]
    pub wercker: WerckerArgs,
}

impl HereArgs {
    /// The flags that were given, of those that only a run on Docker takes: all but the source and the ports, which `dev`
    /// has in a cluster, too.
    #[must_use]
    pub fn given(&self) -> Vec<(bool, &'static str)> {
        let mut given = vec![
            (!self.env_file.is_empty(), "--env-file"),
            (!self.secret_env.is_empty(), "--secret-env"),
            (!self.secret.is_empty(), "--secret"),
            (!self.config_map.is_empty(), "--config-map"),
            (!self.registry_ca.is_empty(), "--registry-ca"),
            (self.direct_mount.is_some(), "--direct-mount"),
            (self.wercker.attach_on_error, "--attach-on-error"),
        ];
        given.extend(self.wercker.given());
        given
    }
}

/// `workflow`.
#[derive(Args, Clone, Debug, Default)]
pub struct WorkflowArgs {
    /// Name of the workflow
    #[arg(value_name = "NAME", help_heading = TO_RUN, add = ArgValueCandidates::new(complete::workflows_here))]
    pub name: String,
    /// As `build`.
    #[command(flatten)]
    pub run: BuildArgs,
}

/// `build`.
#[derive(Args, Clone, Debug, Default)]
#[command(mut_arg("file", |file| file.help("Another file than windlass.yaml or wercker.yml")))]
pub struct BuildArgs {
    /// What is run.
    #[command(flatten)]
    pub what: What,
    /// Where it waits, and what is shown.
    #[command(flatten)]
    pub manner: Manner,
    /// What only a run on Docker takes.
    #[command(flatten)]
    pub here: HereArgs,
}
