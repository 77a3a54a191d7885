//! Arguments that several verbs share: what is run, and how it is shown.
//!
//! `run`, `dev` and `build` take them. **Invariant:** as in `args`.

use super::{BreakAt, ExitCodeOf, KeyValue, RunOutput, Show, breakpoint, key_value};
use clap::{Args, ValueHint};
use std::path::PathBuf;

/// Heading of the flags that say what is run.
pub(super) const TO_RUN: &str = "What to run";
/// Heading of the flags that say how it is shown.
pub(super) const TO_FOLLOW: &str = "How to follow it";

/// What is run.
#[derive(Args, Clone, Debug, Default)]
pub struct What {
    /// PipelineRun or Pipeline; - is stdin
    #[arg(short, long = "file", value_name = "FILE", help_heading = TO_RUN, value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Value of a parameter
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = key_value, help_heading = TO_RUN)]
    pub params: Vec<KeyValue>,
    /// A variable that wins over the pipeline's
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = key_value, help_heading = TO_RUN)]
    pub env: Vec<KeyValue>,
}

/// Where a run waits, and what is shown of it.
#[derive(Args, Clone, Debug, Default)]
pub struct Manner {
    /// Wait for you: on-failure, or before:STEP
    #[arg(long, value_name = "WHERE", value_parser = breakpoint, help_heading = TO_RUN)]
    pub breakpoint: Vec<BreakAt>,
    /// name, digest or json for stdout; the rest to stderr
    #[arg(short, long, value_name = "WHAT", help_heading = TO_FOLLOW, hide_possible_values = true)]
    pub output: Option<RunOutput>,
    /// Which step output is shown
    #[arg(long, value_name = "WHICH", default_value = "all", help_heading = TO_FOLLOW, hide_short_help = true)]
    pub show: Show,
    /// Lines repeated of the step that failed
    #[arg(long, value_name = "N", default_value_t = 20, help_heading = TO_FOLLOW, hide_short_help = true)]
    pub tail: usize,
    /// step: exit with the failed step's code
    #[arg(long, value_name = "WHOSE", default_value = "windlass", help_heading = TO_FOLLOW, hide_short_help = true, hide_possible_values = true, hide_default_value = true)]
    pub exit_code: ExitCodeOf,
}
