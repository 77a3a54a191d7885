//! The command line: parses arguments and hands over to a role. Roles are subcommands of one executable.
//!
//! **Invariant:** no work is done here.

use crate::api;
use clap::{Parser, Subcommand};
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

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
    Crds {
        /// Write them into this directory instead, one file each
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Turn PipelineRuns into pods (run by the chart's Deployment)
    #[command(hide = true)]
    Controller(crate::controller::Options),
    /// Follow the runs of a node and carry out their internal steps (run by the chart's DaemonSet)
    #[command(hide = true)]
    Agent(crate::agent::Options),
    /// Prepare a run pod: source, plan and runner
    #[command(hide = true)]
    Prepare(crate::prepare::Arguments),
}

/// Runs the command line to its exit code.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Crds { dir } => crds(dir.as_deref()),
        Command::Controller(options) => serve(crate::controller::run(options)),
        Command::Agent(options) => serve(crate::agent::run(options)),
        Command::Prepare(arguments) => crate::prepare::main(&arguments),
    }
}

fn crds(dir: Option<&Path>) -> ExitCode {
    let done = match dir {
        None => io::stdout().write_all(api::crds::yaml().as_bytes()),
        Some(dir) => api::crds::files().iter().try_for_each(|file| fs::write(dir.join(file.name), &file.text)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("windlass crds: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a long-running role; its failure is the last line of its log and its exit code.
fn serve(role: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    crate::telemetry::start();
    let _set_before = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(role));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("ended: {error:#}");
            ExitCode::FAILURE
        }
    }
}
