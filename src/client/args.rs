//! Arguments of the verbs for people in a cluster.
//!
//! `cli` parses them, `client::main` carries them out. **Invariant:** no verb asks anything on the
//! terminal; what a verb needs is in its arguments.

use super::{complete, examples, jsonpath::Template};
use clap::{Args, Subcommand, ValueEnum, ValueHint};
use clap_complete::engine::ArgValueCandidates;
use jiff::Timestamp;
use std::{path::PathBuf, time::Duration};

/// The verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Start a run and follow it
    #[command(before_long_help = examples::RUN)]
    Run(RunArgs),
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
    /// Let a run go on that waits at a breakpoint or a shell
    #[command(before_long_help = examples::CONTINUE)]
    Continue(AskArgs),
    /// End a step that waits to be told, with success
    Finish(AskArgs),
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
    /// PipelineRun or Pipeline; - is stdin
    #[arg(short, long = "file", value_name = "FILE", conflicts_with = "from", help_heading = TO_RUN, value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Run this Pipeline of the namespace
    #[arg(long, value_name = "pipeline/NAME", help_heading = TO_RUN, add = ArgValueCandidates::new(complete::sources))]
    pub from: Option<String>,
    /// Value of a parameter
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = key_value, help_heading = TO_RUN)]
    pub params: Vec<KeyValue>,
    /// A variable that wins over the pipeline's
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = key_value, help_heading = TO_RUN)]
    pub env: Vec<KeyValue>,
    /// Branch, tag or commit instead of the pipeline's
    #[arg(long, value_name = "REF", help_heading = TO_RUN)]
    pub revision: Option<String>,
    /// Wait for you: on-failure, or before:STEP
    #[arg(long, value_name = "WHERE", value_parser = breakpoint, help_heading = TO_RUN)]
    pub breakpoint: Vec<BreakAt>,
    /// Show what would be made; server: the cluster checks it
    #[arg(long, value_name = "WHERE", conflicts_with = "detach", help_heading = TO_RUN)]
    pub dry_run: Option<DryRun>,
    /// Do not follow the run
    #[arg(short, long, help_heading = TO_FOLLOW)]
    pub detach: bool,
    /// Stop following after this time (exit 7); the run goes on
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = TO_FOLLOW)]
    pub timeout: Option<Duration>,
    /// For stdout; step output then goes to stderr
    #[arg(short, long, value_name = "WHAT", help_heading = TO_FOLLOW)]
    pub output: Option<RunOutput>,
    /// Which step output is shown
    #[arg(long, value_name = "WHICH", default_value = "all", help_heading = TO_FOLLOW, hide_short_help = true)]
    pub show: Show,
    /// Lines repeated of the step that failed
    #[arg(long, value_name = "N", default_value_t = 20, help_heading = TO_FOLLOW, hide_short_help = true)]
    pub tail: usize,
    /// What the first Ctrl-C does
    #[arg(long, value_name = "WHAT", default_value = "cancel", help_heading = TO_FOLLOW, hide_short_help = true)]
    pub on_interrupt: OnInterrupt,
    /// step: exit with the failed step's code
    #[arg(long, value_name = "WHOSE", default_value = "windlass", help_heading = TO_FOLLOW, hide_short_help = true)]
    pub exit_code: ExitCodeOf,
    /// Name of a pipeline of a project file (not possible here)
    #[arg(value_name = "PIPELINE", hide = true)]
    pub pipeline: Option<String>,
}

const TO_RUN: &str = "What to run";
const TO_FOLLOW: &str = "How to follow it";

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

/// Values of `status -o`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectOutput {
    /// The object as JSON
    Json,
    /// The object as YAML
    Yaml,
    /// pipelinerun.windlass.dev/NAME
    Name,
    /// What a template finds in it
    JsonPath(Template),
}

impl std::str::FromStr for ObjectOutput {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("jsonpath=")) {
            ("json", _) => Ok(Self::Json),
            ("yaml", _) => Ok(Self::Yaml),
            ("name", _) => Ok(Self::Name),
            (_, Some(template)) => template.parse().map(Self::JsonPath),
            _ => Err("expected json, yaml, name or jsonpath=TEMPLATE".into()),
        }
    }
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
    /// Only the last lines
    #[arg(long, value_name = "N", conflicts_with = "follow")]
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

/// A value of `--breakpoint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BreakAt {
    /// `on-failure`
    Failure,
    /// `before:STEP`
    Before(String),
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
    /// The script by which kubectl completes its plugin: kubectl_complete-windlass
    Kubectl,
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

fn duration(text: &str) -> Result<Duration, String> {
    crate::api::duration::parse(text)
}

/// A time of the past: RFC 3339, or how long ago.
fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago =
        duration(text).map_err(|_| format!("{text:?} is neither a time ago such as 5m nor as 2026-11-21T13:03:07Z"))?;
    Timestamp::now().checked_sub(ago).map_err(|_| format!("{text:?} is too long ago"))
}

/// Phases that a run can be in.
pub(super) const PHASES: [&str; 8] =
    ["Pending", "Queued", "Starting", "Running", "Waiting", "Succeeded", "Failed", "Cancelled"];

/// A phase, written as the status has it.
fn phase(text: &str) -> Result<String, String> {
    let found = PHASES.iter().find(|phase| phase.eq_ignore_ascii_case(text));
    found
        .map(|phase| (*phase).to_owned())
        .ok_or_else(|| format!("expected one of {}", PHASES.join(", ").to_lowercase()))
}

fn breakpoint(text: &str) -> Result<BreakAt, String> {
    match text.split_once(':') {
        None if text == "on-failure" => Ok(BreakAt::Failure),
        Some(("before", step)) if !step.is_empty() => Ok(BreakAt::Before(step.into())),
        _ => Err(format!("{text:?} is not on-failure or before:STEP")),
    }
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
    fn a_time_is_absolute_or_ago() {
        assert_eq!(since("2026-11-21T13:03:07Z"), Ok("2026-11-21T13:03:07Z".parse().expect("a time")));
        let then = since("1h30m").expect("a time ago");
        let ago = Timestamp::now().duration_since(then);
        assert!((5_400..5_410).contains(&ago.as_secs()), "{ago:?}");
        for text in ["", "yesterday", "5", "99999999h"] {
            assert!(since(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_phase_is_one_that_exists() {
        assert_eq!(phase("failed"), Ok("Failed".into()));
        assert!(phase("faild").unwrap_err().contains("succeeded, failed, cancelled"));
    }

    #[test]
    fn a_value_may_hold_an_equals_sign_and_be_empty() {
        assert_eq!(key_value("A=b=c"), Ok(KeyValue { name: "A".into(), value: "b=c".into() }));
        assert_eq!(key_value("A="), Ok(KeyValue { name: "A".into(), value: String::new() }));
        assert!(key_value("A").is_err());
        assert!(key_value("=b").is_err());
    }

    #[test]
    fn breakpoints_are_on_failure_or_before_a_step() {
        assert_eq!(breakpoint("on-failure"), Ok(BreakAt::Failure));
        assert_eq!(breakpoint("before:deploy"), Ok(BreakAt::Before("deploy".into())));
        for bad in ["", "before", "before:", "onfailure", "after:x"] {
            assert!(breakpoint(bad).is_err(), "{bad}");
        }
    }
}
