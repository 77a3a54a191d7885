//! Flags of all verbs: which cluster, and how to show. Part of the arguments.
//!
//! **Invariant:** each has a default, so that no verb needs one.

use super::values::duration;
use clap::{Args, ValueEnum, ValueHint};
use std::{path::PathBuf, time::Duration};

/// Flags of all verbs, before or after the verb.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// How to show.
    #[command(flatten)]
    pub display: Display,
}

/// Which cluster and namespace.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Where")]
pub struct Place {
    /// Path of the kubeconfig file [default: $KUBECONFIG, then ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, hide_short_help = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub context: Option<String>,
    /// Namespace [default: the context's]
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Longest wait for one answer of the cluster
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = duration, hide_default_value = true, hide_short_help = true)]
    pub request_timeout: Option<Duration>,
    /// Act as this user, as in kubectl
    #[arg(long = "as", global = true, value_name = "USER", hide_short_help = true)]
    pub as_user: Option<String>,
    /// Act as a member of this group
    #[arg(long, global = true, value_name = "GROUP", hide_short_help = true)]
    pub as_group: Vec<String>,
}

/// How to show.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "How to show")]
pub struct Display {
    /// auto, live, plain or none: how a followed run is shown
    #[arg(long, global = true, value_name = "HOW", hide_possible_values = true, env = "WINDLASS_PROGRESS", hide_env = true, hide_short_help = true, conflicts_with_all = ["plain", "json"])]
    pub progress: Option<Progress>,
    /// Whole lines, no repainting: --progress plain
    #[arg(long, global = true, conflicts_with = "json", hide_short_help = true)]
    pub plain: bool,
    /// Events on stdout, one JSON object per line
    #[arg(long, global = true, hide_short_help = true)]
    pub json: bool,
    /// auto, always or never
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        hide_possible_values = true,
        default_value = "auto",
        hide_short_help = true,
        hide_default_value = true
    )]
    pub color: Color,
    /// Tables without their first line
    #[arg(long, global = true, hide_short_help = true)]
    pub no_headers: bool,
    /// Absolute times in UTC, not in local time
    #[arg(long, global = true, hide_short_help = true)]
    pub utc: bool,
    /// Errors and data only; twice: the exit code only
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "verbose", hide_short_help = true)]
    pub quiet: u8,
    /// Pods, nodes, events, the kubectl form; twice: each request too
    #[arg(short, long, global = true, action = clap::ArgAction::Count, hide_short_help = true)]
    pub verbose: u8,
}

impl Display {
    /// What `--progress` and its short forms ask for.
    #[must_use]
    pub fn progress_asked(&self) -> Progress {
        if self.plain { Progress::Plain } else { self.progress.unwrap_or_default() }
    }
}

/// Values of `--progress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// Live on a terminal, else plain
    #[default]
    Auto,
    /// A footer that is repainted
    Live,
    /// Whole lines only
    Plain,
    /// Step output and errors only
    None,
}

/// Values of `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, and as NO_COLOR, CLICOLOR_FORCE and CLICOLOR say
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}
