//! The command line: parses arguments and hands over to a role. Roles are subcommands of one executable.
//!
//! **Invariant:** no work is done here.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "windlass", version, about = "Pipelines on Kubernetes that end in an image")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the custom resource definitions as YAML
    #[command(hide = true)]
    Crds,
    /// Prepare a run pod: source, plan and runner
    #[command(hide = true)]
    Prepare(crate::prepare::Arguments),
}

/// Runs the command line to its exit code.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Crds => ExitCode::SUCCESS,
        Command::Prepare(arguments) => crate::prepare::main(&arguments),
    }
}
