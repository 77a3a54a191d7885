//! Arguments of the verbs for people in a cluster.
//!
//! `cli` parses them, `client::main` carries them out. **Invariant:** no verb asks anything on the
//! terminal; what a verb needs is in its arguments.

use clap::{Args, Subcommand, ValueEnum};
use std::{path::PathBuf, time::Duration};

/// The verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Start a run and follow it
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Show one run: steps, images, why it waits
    Status(StatusArgs),
    /// List runs, newest first
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Print step output
    Logs(LogsArgs),
    /// Cancel runs; after-steps still run
    Cancel(CancelArgs),
    /// Start a run again from its frozen pipeline
    Retry(RetryArgs),
    /// What a reason means and what to do; works offline
    Explain(ExplainArgs),
    /// Print the completion script of a shell
    Completion(CompletionArgs),
    /// Print the version
    Version(VersionArgs),
    /// Help for a verb or a topic: exit-codes, environment, json, accessibility
    Help(HelpArgs),
}

const RUN_EXAMPLES: &str = "\
Examples:
  windlass run -f hello.yaml                     start, follow, exit with the result
  windlass run --from pipeline/release -p version=1.4
  DIGEST=$(windlass run -f hello.yaml -o digest)";

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
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace [default: the context's]
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Longest wait for one answer of the cluster
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = duration, hide_default_value = true)]
    pub request_timeout: Option<Duration>,
}

/// How to show.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "How to show")]
pub struct Display {
    /// auto, live, plain or none: how a followed run is shown
    #[arg(long, global = true, value_name = "HOW", hide_possible_values = true, env = "WINDLASS_PROGRESS", hide_env = true, conflicts_with_all = ["plain", "json"])]
    pub progress: Option<Progress>,
    /// Whole lines, no repainting: --progress plain
    #[arg(long, global = true, conflicts_with = "json")]
    pub plain: bool,
    /// Events on stdout, one JSON object per line
    #[arg(long, global = true)]
    pub json: bool,
    /// auto, always or never
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        hide_possible_values = true,
        default_value = "auto",
        hide_default_value = true
    )]
    pub color: Color,
    /// Tables without their first line
    #[arg(long, global = true)]
    pub no_headers: bool,
    /// Errors and data only; twice: the exit code only
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "verbose")]
    pub quiet: u8,
    /// More: pods, nodes, and the kubectl form of what is done
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
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

/// A `NAME=VALUE` argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// Before the first `=`.
    pub name: String,
    /// After it.
    pub value: String,
}

/// `run`.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// File with a PipelineRun, or with one Pipeline; `-` reads stdin
    #[arg(short, long = "file", value_name = "FILE", conflicts_with = "from")]
    pub file: Option<PathBuf>,
    /// Run this Pipeline of the namespace
    #[arg(long, value_name = "pipeline/NAME")]
    pub from: Option<String>,
    /// Value of a parameter
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = key_value)]
    pub params: Vec<KeyValue>,
    /// A variable that wins over the pipeline's
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = key_value)]
    pub env: Vec<KeyValue>,
    /// Branch, tag or commit instead of the pipeline's
    #[arg(long, value_name = "REF")]
    pub revision: Option<String>,
    /// Do not follow the run
    #[arg(short, long)]
    pub detach: bool,
    /// Stop following after this time (exit 7); the run goes on
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// What stdout gets; step output then goes to stderr
    #[arg(short, long, value_name = "WHAT")]
    pub output: Option<RunOutput>,
    /// Show what would be made; `server` lets the cluster check it too
    #[arg(long, value_name = "WHERE", conflicts_with = "detach")]
    pub dry_run: Option<DryRun>,
    /// What the first Ctrl-C does
    #[arg(long, value_name = "WHAT", default_value = "cancel")]
    pub on_interrupt: OnInterrupt,
    /// Which step output is shown
    #[arg(long, value_name = "WHICH", default_value = "all")]
    pub show: Show,
    /// Lines repeated of the step that failed
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub tail: usize,
    /// `step`: exit with the failed step's code
    #[arg(long, value_name = "WHOSE", default_value = "windlass")]
    pub exit_code: ExitCodeOf,
    /// Name of a pipeline of a project file (not possible here)
    #[arg(value_name = "PIPELINE", hide = true)]
    pub pipeline: Option<String>,
}

/// Values of `run -o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RunOutput {
    /// pipelinerun.windlass.dev/NAME, when it is made
    Name,
    /// repository@digest of each pushed image, at the end
    Digest,
    /// The whole object, at the end
    Json,
}

/// Values of `--dry-run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// Nothing is sent
    Client,
    /// The cluster checks, and keeps nothing
    Server,
}

/// Values of `--on-interrupt`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnInterrupt {
    /// Cancel the run and go on following
    #[default]
    Cancel,
    /// Leave; the run goes on
    Detach,
}

/// Values of `--show`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Show {
    /// All output
    #[default]
    All,
    /// Only that of a step that fails, when it fails
    Failed,
}

/// Values of `--exit-code`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ExitCodeOf {
    /// The codes of `windlass help exit-codes`
    #[default]
    Windlass,
    /// The failed step's own code
    Step,
}

/// `status`.
#[derive(Args, Clone, Debug, Default)]
pub struct StatusArgs {
    /// A name or @latest [default: the latest of the namespace]
    #[arg(value_name = "RUN")]
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
    /// Format
    #[arg(short, long, value_name = "WHAT")]
    pub output: Option<ObjectOutput>,
}

/// Values of `status -o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ObjectOutput {
    /// The object as JSON
    Json,
    /// The object as YAML
    Yaml,
    /// pipelinerun.windlass.dev/NAME
    Name,
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
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// Runs in this phase, e.g. failed
    #[arg(long, value_name = "PHASE")]
    pub status: Option<String>,
    /// How many at most; 0 is all
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
    /// Format
    #[arg(short, long, value_name = "WHAT")]
    pub output: Option<ListOutput>,
}

/// Values of `list -o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListOutput {
    /// More columns
    Wide,
    /// A list of objects as JSON
    Json,
    /// One pipelinerun.windlass.dev/NAME per line
    Name,
}

/// `logs`.
#[derive(Args, Clone, Debug, Default)]
pub struct LogsArgs {
    /// A name or @latest [default: the latest of the namespace]
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// Follow to the end and exit with the result
    #[arg(short, long)]
    pub follow: bool,
    /// Only this step
    #[arg(long, value_name = "STEP", conflicts_with = "failed")]
    pub step: Option<String>,
    /// Only the step that failed
    #[arg(long, conflicts_with = "follow")]
    pub failed: bool,
    /// Only the last lines
    #[arg(long, value_name = "N", conflicts_with = "follow")]
    pub tail: Option<usize>,
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
    /// Names, or @latest
    #[arg(value_name = "RUN", required = true)]
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
    /// A name or @latest
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Do not follow the run
    #[arg(short, long)]
    pub detach: bool,
    /// Stop following after this time (exit 7); the run goes on
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// What stdout gets; step output then goes to stderr
    #[arg(short, long, value_name = "WHAT")]
    pub output: Option<RunOutput>,
    /// What the first Ctrl-C does
    #[arg(long, value_name = "WHAT", default_value = "cancel")]
    pub on_interrupt: OnInterrupt,
}

/// `explain`.
#[derive(Args, Clone, Debug, Default)]
pub struct ExplainArgs {
    /// A reason such as StepFailed; left out: all of them
    #[arg(value_name = "REASON")]
    pub reason: Option<String>,
}

/// `completion`.
#[derive(Args, Clone, Debug)]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Shells with a completion script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// Bash
    Bash,
    /// Zsh
    Zsh,
    /// Fish
    Fish,
    /// PowerShell
    #[value(name = "powershell")]
    PowerShell,
}

/// `version`.
#[derive(Args, Clone, Debug, Default)]
pub struct VersionArgs {}

/// `help`.
#[derive(Args, Clone, Debug, Default)]
pub struct HelpArgs {
    /// A verb or a topic
    #[arg(value_name = "VERB|TOPIC")]
    pub topic: Option<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::api::duration::parse(text)
}

fn key_value(text: &str) -> Result<KeyValue, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(KeyValue { name: name.into(), value: value.into() }),
        _ => Err(format!("{text:?} is not NAME=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_hold_an_equals_sign_and_be_empty() {
        assert_eq!(key_value("A=b=c"), Ok(KeyValue { name: "A".into(), value: "b=c".into() }));
        assert_eq!(key_value("A="), Ok(KeyValue { name: "A".into(), value: String::new() }));
        assert!(key_value("A").is_err());
        assert!(key_value("=b").is_err());
    }
}
