//! Arguments of the verbs for people in a cluster.
//!
//! `cli` parses them, `client::main` carries them out. **Invariant:** no verb asks anything on the
//! terminal; what a verb needs is in its arguments.

mod files;
mod global;
mod here;
mod stored;
mod values;
mod wercker;
mod what;

pub use files::{CheckArgs, ConvertArgs, InitArgs};
pub use global::{Color, Display, Global, Place, Progress};
pub use here::{BuildArgs, HERE, HereArgs, WorkflowArgs};
pub use stored::{OpenArgs, PullArgs};
pub(super) use values::PHASES;
pub use values::{
    BreakAt, DryRun, ExitCodeOf, KeyValue, ListOutput, ObjectOutput, OnInterrupt, Publish, RunOutput, Shell, Show,
};
pub use what::{Manner, What};

pub use wercker::{OF_WERCKER, WerckerArgs};

use super::{complete, examples};
use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates;
use jiff::Timestamp;
use std::time::Duration;
use values::{breakpoint, duration, host_file, key_value, name_path, phase, publish, since};
use what::{TO_FOLLOW, TO_RUN};

/// The verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Start a run and follow it
    #[command(before_long_help = examples::RUN)]
    Run(RunArgs),
    /// Run what you are writing, and again on each save
    #[command(before_long_help = examples::DEV)]
    Dev(DevArgs),
    /// Run the pipeline build of this project on Docker
    #[command(before_long_help = examples::BUILD)]
    #[command(alias = "b")]
    Build(BuildArgs),
    /// Run the pipeline deploy of this project on Docker
    #[command(alias = "d", before_long_help = examples::DEPLOY)]
    Deploy(BuildArgs),
    /// Run the pipelines of a workflow of wercker.yml on Docker
    #[command(alias = "w", before_long_help = examples::WORKFLOW)]
    Workflow(WorkflowArgs),
    /// Show one run: steps, images, why it waits
    #[command(before_long_help = examples::STATUS)]
    Status(StatusArgs),
    /// List runs, newest first
    #[command(visible_alias = "ls", before_long_help = examples::LIST)]
    List(ListArgs),
    /// Print step output
    #[command(before_long_help = examples::LOGS)]
    Logs(LogsArgs),
    /// Cancel runs; after-steps still run
    #[command(before_long_help = examples::CANCEL)]
    Cancel(CancelArgs),
    /// Start a run again from its frozen pipeline
    #[command(before_long_help = examples::RETRY)]
    Retry(RetryArgs),
    /// Open a terminal in a run's box, or run a command there
    #[command(before_long_help = examples::SHELL)]
    Shell(ShellArgs),
    /// Fetch a stored container
    #[command(before_long_help = examples::PULL)]
    Pull(PullArgs),
    /// Start a stored container on this machine
    #[command(before_long_help = examples::OPEN)]
    Open(OpenArgs),
    /// Let a run go on that waits at a breakpoint or a shell
    #[command(before_long_help = examples::CONTINUE)]
    Continue(AskArgs),
    /// End a step that waits to be told, with success
    Finish(AskArgs),
    /// Check files, start nothing, need nothing
    #[command(before_long_help = examples::CHECK)]
    Check(CheckArgs),
    /// Turn wercker.yml into Pipeline YAML
    #[command(before_long_help = examples::CONVERT)]
    Convert(ConvertArgs),
    /// Write a first pipeline for this project
    #[command(before_long_help = examples::INIT)]
    Init(InitArgs),
    /// What a reason means and what to do; works offline
    #[command(before_long_help = examples::EXPLAIN)]
    Explain(ExplainArgs),
    /// Print the completion script of a shell
    #[command(before_long_help = examples::COMPLETION)]
    Completion(CompletionArgs),
    /// Print the version
    Version(VersionArgs),
    /// Help for a verb or a topic
    Help(HelpArgs),
}

/// `run`.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// What is run.
    #[command(flatten)]
    pub what: What,
    /// Run this Pipeline of the namespace
    #[arg(long, value_name = "pipeline/NAME", conflicts_with = "file", help_heading = TO_RUN, add = ArgValueCandidates::new(complete::sources))]
    pub from: Option<String>,
    /// Branch, tag or commit instead of the pipeline's
    #[arg(long, value_name = "REF", help_heading = TO_RUN, hide_short_help = true)]
    pub revision: Option<String>,
    /// client: show what would be made; server: check it
    #[arg(long, value_name = "WHERE", conflicts_with = "detach", help_heading = TO_RUN, hide_possible_values = true)]
    pub dry_run: Option<DryRun>,
    /// Where it waits, and what is shown.
    #[command(flatten)]
    pub manner: Manner,
    /// Do not follow the run
    #[arg(short, long, help_heading = TO_FOLLOW)]
    pub detach: bool,
    /// Stop following after this time (exit 7); the run goes on
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = TO_FOLLOW)]
    pub timeout: Option<Duration>,
    /// What the first Ctrl-C does: cancel, or detach
    #[arg(long, value_name = "WHAT", default_value = "cancel", help_heading = TO_FOLLOW, hide_short_help = true, hide_possible_values = true, hide_default_value = true)]
    pub on_interrupt: OnInterrupt,
    /// On Docker, with the flags of windlass build
    #[arg(long, help_heading = TO_RUN)]
    pub local: bool,
    /// On Docker: a pipeline of windlass.yaml or wercker.yml, or of -f --local
    #[arg(value_name = "PIPELINE", conflicts_with = "from", hide_short_help = true, add = ArgValueCandidates::new(complete::pipelines_here))]
    pub pipeline: Option<String>,
    /// What only a run on Docker takes.
    #[command(flatten)]
    pub here: HereArgs,
}

/// `dev`.
#[derive(Args, Clone, Debug, Default)]
#[command(mut_arg("publish", |publish| publish.hide_short_help(false)))]
#[command(mut_arg("direct_mount", |mount| mount.hide_short_help(false)))]
pub struct DevArgs {
    /// What is run.
    #[command(flatten)]
    pub what: What,
    /// Run this Pipeline of the namespace
    #[arg(long, value_name = "pipeline/NAME", conflicts_with = "file", help_heading = TO_RUN, add = ArgValueCandidates::new(complete::sources))]
    pub from: Option<String>,
    /// On Docker also with -f
    #[arg(long, conflicts_with_all = ["from", "cluster"], help_heading = TO_RUN, hide_short_help = true)]
    pub local: bool,
    /// In the cluster; so it is with -f or --from
    #[arg(long, help_heading = TO_RUN)]
    pub cluster: bool,
    /// Not sent to the cluster: patterns as in .gitignore
    #[arg(long, value_name = "PATTERN", help_heading = "In a cluster", hide_short_help = true)]
    pub ignore: Vec<String>,
    /// Another pipeline than dev, on Docker
    #[arg(value_name = "PIPELINE", conflicts_with_all = ["from", "cluster"], add = ArgValueCandidates::new(complete::pipelines_here))]
    pub pipeline: Option<String>,
    /// What a run on Docker takes; the source and ports are for both.
    #[command(flatten)]
    pub here: HereArgs,
}

/// `status`.
#[derive(Args, Clone, Debug, Default)]
pub struct StatusArgs {
    /// A name, @latest or PIPELINE#7 [default: @latest]
    #[arg(value_name = "RUN", add = ArgValueCandidates::new(complete::runs))]
    pub run: Option<String>,
    /// Wait for the end and exit with the result
    #[arg(long)]
    pub wait: bool,
    /// Exit with the result; 8 if it is not finished
    #[arg(long)]
    pub exit_status: bool,
    /// Show each change until the end
    #[arg(short, long)]
    pub watch: bool,
    /// Give up waiting after this time (exit 7)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// json, yaml, name or jsonpath=TEMPLATE
    #[arg(short, long, value_name = "WHAT")]
    pub output: Option<ObjectOutput>,
}

/// `list`.
#[derive(Args, Clone, Debug, Default)]
pub struct ListArgs {
    /// Runs of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Label selector, as in kubectl
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Runs of this Pipeline
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::pipelines))]
    pub pipeline: Option<String>,
    /// Runs in this phase, such as failed
    #[arg(long, value_name = "PHASE", value_parser = phase, add = ArgValueCandidates::new(complete::phases))]
    pub status: Option<String>,
    /// How many at most; 0 is all
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
    /// Go on with a line for each change until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
    /// Format
    #[arg(short, long, value_name = "WHAT")]
    pub output: Option<ListOutput>,
}

/// `logs`.
#[derive(Args, Clone, Debug, Default)]
pub struct LogsArgs {
    /// A name, @latest or PIPELINE#7 [default: @latest]
    #[arg(value_name = "RUN", add = ArgValueCandidates::new(complete::runs))]
    pub run: Option<String>,
    /// Follow to the end and exit with the result
    #[arg(short, long)]
    pub follow: bool,
    /// Only this step
    #[arg(long, value_name = "STEP", conflicts_with = "failed", add = ArgValueCandidates::new(complete::steps))]
    pub step: Option<String>,
    /// The output of this service instead
    #[arg(long, value_name = "SERVICE", conflicts_with_all = ["step", "failed"], add = ArgValueCandidates::new(complete::services))]
    pub service: Option<String>,
    /// Only the step that failed
    #[arg(long, conflicts_with = "follow")]
    pub failed: bool,
    /// Only the last lines; with -f of those that are there, then all
    #[arg(long, value_name = "N")]
    pub tail: Option<usize>,
    /// Only what is newer: a time, or how long ago, as 5m
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Timestamp>,
    /// Before each line, the step that printed it
    #[arg(long)]
    pub prefix: bool,
    /// Before each line, when it was printed
    #[arg(long)]
    pub timestamps: bool,
    /// Keep all escapes, also on a terminal
    #[arg(long)]
    pub raw: bool,
}

/// `cancel`.
#[derive(Args, Clone, Debug, Default)]
pub struct CancelArgs {
    /// Names, @latest or PIPELINE#7
    #[arg(value_name = "RUN", required = true, add = ArgValueCandidates::new(complete::runs))]
    pub runs: Vec<String>,
    /// At once: after-steps do not run
    #[arg(long)]
    pub now: bool,
    /// Wait until they have ended
    #[arg(long)]
    pub wait: bool,
    /// Give up waiting after this time (exit 7)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
}

/// `retry`.
#[derive(Args, Clone, Debug, Default)]
pub struct RetryArgs {
    /// A name, @latest or PIPELINE#7
    #[arg(value_name = "RUN", add = ArgValueCandidates::new(complete::runs))]
    pub run: String,
    /// Repeat this step, at whose failure the run waits, in the same box
    #[arg(long, value_name = "STEP", conflicts_with_all = ["breakpoint", "detach", "timeout", "output", "on_interrupt"], add = ArgValueCandidates::new(complete::steps))]
    pub step: Option<String>,
    /// Wait for you: on-failure, or before:STEP
    #[arg(long, value_name = "WHERE", value_parser = breakpoint)]
    pub breakpoint: Vec<BreakAt>,
    /// Do not follow the run
    #[arg(short, long)]
    pub detach: bool,
    /// Stop following after this time (exit 7); the run goes on
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// For stdout; step output then goes to stderr
    #[arg(short, long, value_name = "WHAT")]
    pub output: Option<RunOutput>,
    /// What the first Ctrl-C does
    #[arg(long, value_name = "WHAT", default_value = "cancel")]
    pub on_interrupt: OnInterrupt,
}

/// `shell`.
#[derive(Args, Clone, Debug, Default)]
pub struct ShellArgs {
    /// A name, @latest or PIPELINE#7 [default: the latest of the namespace]
    #[arg(value_name = "RUN", add = ArgValueCandidates::new(complete::runs))]
    pub run: Option<String>,
    /// A command instead of a shell, with its own exit code
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// `continue`, `finish`.
#[derive(Args, Clone, Debug, Default)]
pub struct AskArgs {
    /// A name, @latest or PIPELINE#7
    #[arg(value_name = "RUN", add = ArgValueCandidates::new(complete::runs))]
    pub run: String,
    /// Only if the run is at this step
    #[arg(long, value_name = "STEP", add = ArgValueCandidates::new(complete::steps))]
    pub step: Option<String>,
}

/// `explain`.
#[derive(Args, Clone, Debug, Default)]
pub struct ExplainArgs {
    /// A reason such as StepFailed; left out: all of them
    #[arg(value_name = "REASON", add = ArgValueCandidates::new(complete::reasons))]
    pub reason: Option<String>,
}

/// `completion`.
#[derive(Args, Clone, Debug)]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// `version`.
#[derive(Args, Clone, Debug, Default)]
pub struct VersionArgs {}

/// `help`.
#[derive(Args, Clone, Debug, Default)]
pub struct HelpArgs {
    /// A verb or a topic
    #[arg(value_name = "VERB|TOPIC", add = ArgValueCandidates::new(complete::topics))]
    pub topic: Option<String>,
}
