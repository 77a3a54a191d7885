//! Arguments of the verbs for stored containers.
//!
//! **Invariant:** as that of the others.

use crate::{client::complete, engine::docker::containers::Publish};
use clap::{Args, ValueHint};
use clap_complete::engine::ArgValueCandidates;
use std::path::PathBuf;

/// `pull`.
#[derive(Args, Clone, Debug, Default)]
pub struct PullArgs {
    /// A name, @latest or PIPELINE#7
    #[arg(value_name = "RUN", add = ArgValueCandidates::new(complete::runs))]
    pub run: String,
    /// Write the image archive here [default: RUN.tar]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Load it into the Docker of this machine
    #[arg(long)]
    pub load: bool,
    /// Which one, if the run stored several
    #[arg(long, value_name = "NAME")]
    pub artifact: Option<String>,
}

/// `open`.
#[derive(Args, Clone, Debug, Default)]
pub struct OpenArgs {
    /// A name, @latest or PIPELINE#7
    #[arg(value_name = "RUN", add = ArgValueCandidates::new(complete::runs))]
    pub run: String,
    /// Start this instead of a shell
    #[arg(long, value_name = "COMMAND", conflicts_with = "own_cmd")]
    pub cmd: Option<String>,
    /// Start what the image has of its own instead of a shell
    #[arg(long)]
    pub own_cmd: bool,
    /// Publish a port on this machine, as 8080:80 (repeat for more)
    #[arg(long, value_name = "PORTS")]
    pub publish: Vec<Publish>,
    /// Which one, if the run stored several
    #[arg(long, value_name = "NAME")]
    pub artifact: Option<String>,
}
