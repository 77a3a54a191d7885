//! Arguments of runs on the engine of this machine.
//!
//! `here` carries them out. **Invariant:** as in `args`.

use super::{
    BreakAt, ExitCodeOf, KeyValue, Publish, RunOutput, Show, TO_FOLLOW, TO_RUN, breakpoint, key_value, publish,
};
use clap::{Args, ValueHint};
use std::path::PathBuf;

/// Heading of the flags that only a run on Docker takes.
pub const HERE: &str = "On Docker";

/// What a run on this machine takes beside the rest.
#[derive(Args, Clone, Debug, Default)]
pub struct HereArgs {
    /// Directory that is the source [default: that of windlass.yaml]
    #[arg(long, value_name = "DIR", help_heading = HERE, value_hint = ValueHint::DirPath, hide_short_help = true)]
    pub source: Option<PathBuf>,
    /// Variables, as NAME=VALUE lines
    #[arg(long, value_name = "FILE", help_heading = HERE, value_hint = ValueHint::FilePath, hide_short_help = true)]
    pub env_file: Vec<PathBuf>,
    /// The same; masked, and kept out of images
    #[arg(long, value_name = "FILE", help_heading = HERE, value_hint = ValueHint::FilePath, hide_short_help = true)]
    pub secret_env: Vec<PathBuf>,
    /// A Secret: a directory, or NAME=VALUE lines
    #[arg(long, value_name = "NAME=PATH", value_parser = key_value, help_heading = HERE, hide_short_help = true)]
    pub secret: Vec<KeyValue>,
    /// A ConfigMap, in the same way
    #[arg(long, value_name = "NAME=PATH", value_parser = key_value, help_heading = HERE, hide_short_help = true)]
    pub config_map: Vec<KeyValue>,
    /// A port of the box on 127.0.0.1: PORT or HERE:BOX
    #[arg(long, value_name = "PORT", value_parser = publish, help_heading = HERE, hide_short_help = true)]
    pub publish: Vec<Publish>,
    /// CA of a registry that is pushed to
    #[arg(long, value_name = "HOST=FILE", value_parser = key_value, help_heading = HERE, hide_short_help = true)]
    pub registry_ca: Vec<KeyValue>,
}

/// `build`.
#[derive(Args, Clone, Debug, Default)]
pub struct BuildArgs {
    /// Another file than windlass.yaml
    #[arg(short, long = "file", value_name = "FILE", help_heading = TO_RUN, value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Value of a parameter
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = key_value, help_heading = TO_RUN)]
    pub params: Vec<KeyValue>,
    /// A variable that wins over the pipeline's
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = key_value, help_heading = TO_RUN)]
    pub env: Vec<KeyValue>,
    /// Wait for you: on-failure, or before:STEP
    #[arg(long, value_name = "WHERE", value_parser = breakpoint, help_heading = TO_RUN)]
    pub breakpoint: Vec<BreakAt>,
    /// name, digest or json for stdout; the rest to stderr
    #[arg(short, long, value_name = "WHAT", help_heading = TO_FOLLOW, hide_possible_values = true)]
    pub output: Option<RunOutput>,
    /// Which step output is shown
    #[arg(long, value_name = "WHICH", default_value = "all", hide = true)]
    pub show: Show,
    /// Lines repeated of the step that failed
    #[arg(long, value_name = "N", default_value_t = 20, hide = true)]
    pub tail: usize,
    /// step: exit with the failed step's code
    #[arg(long, value_name = "WHOSE", default_value = "windlass", help_heading = TO_FOLLOW, hide_short_help = true, hide_possible_values = true, hide_default_value = true)]
    pub exit_code: ExitCodeOf,
    /// What only a run on Docker takes.
    #[command(flatten)]
    pub here: HereArgs,
}
