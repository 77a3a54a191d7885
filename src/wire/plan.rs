//! What `prepare` tells the runner.

use serde::{Deserialize, Serialize};

/// What `prepare` tells the runner.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Plan {
    /// [`super::VERSION`].
    pub version: u32,
    /// The run.
    pub run: RunInfo,
    /// `box.workingDir`: where the source goes; default `/pipeline/source`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// The source is mounted at `working_dir`: nothing is copied, and nothing of ours goes into it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub source_mounted: bool,
    /// `box.shell`; default bash if there, else sh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// When the run's time is over, in milliseconds since the epoch.
    pub deadline_ms: u64,
    /// How much time the run has in all, in seconds; for messages.
    #[serde(default)]
    pub timeout_s: u64,
    /// Commit that was fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_revision: Option<String>,
    /// Variables of all steps; names are unique.
    pub env: Vec<Variable>,
    /// Steps, then after-steps.
    pub steps: Vec<PlanStep>,
    /// Where the run waits for a person.
    #[serde(default, skip_serializing_if = "Breakpoints::is_none")]
    pub breakpoints: Breakpoints,
}

/// Where a run waits for a person, beside its `shell` steps: `spec.breakpoint`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Breakpoints {
    /// When a step fails.
    pub at_failure: bool,
    /// Before these steps begin.
    pub before: Vec<String>,
    /// Longest wait at one of them, in seconds.
    pub timeout_s: u64,
}

impl Breakpoints {
    /// Whether the run waits nowhere.
    #[must_use]
    pub fn is_none(&self) -> bool {
        !self.at_failure && self.before.is_empty()
    }
}

/// Names and numbers of the run.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct RunInfo {
    /// Name of the run.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// Its build number.
    pub build_number: i64,
    /// Its Pipeline, if it is not inline.
    pub pipeline: Option<String>,
    /// Attempt, from 1.
    pub attempt: u32,
    /// Its pod.
    #[serde(default)]
    pub pod: String,
}

/// A variable with its value.
#[derive(Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Variable {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
    /// Whether it came from a Secret: then it is masked in logs.
    #[serde(default)]
    pub secret: bool,
}

impl std::fmt::Debug for Variable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.name, if self.secret { "***" } else { &self.value })
    }
}

/// A step as the runner knows it.
pub type PlanStep = StepOf<Variable>;

/// A step with its variables, as values ([`PlanStep`]) or as the order to find them (`OrderStep`).
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct StepOf<V> {
    /// Name.
    pub name: String,
    /// Shown in the log.
    pub title: String,
    /// Whether it runs after success and failure.
    pub after: bool,
    /// Directory; variables expand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Variables of this step only.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<V>,
    /// What it does.
    pub work: StepWork,
    /// Longest time, in seconds; none: what is left of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// Longest time without output, in seconds; script steps only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_output_timeout_s: Option<u64>,
    /// Whether the run goes on after a failure.
    pub continue_on_failure: bool,
    /// How often a failed script is repeated.
    pub retries: u32,
}

impl<V> StepOf<V> {
    /// Whether it is a `watch` step that is restarted when files change.
    #[must_use]
    pub fn reloads(&self) -> bool {
        matches!(&self.work, StepWork::Watch(watch) if watch.reload)
    }
}

// Derived, it would ask for a default variable.
impl<V> Default for StepOf<V> {
    fn default() -> Self {
        Self {
            name: String::new(),
            title: String::new(),
            after: false,
            cwd: None,
            env: Vec::new(),
            work: StepWork::default(),
            timeout_s: None,
            no_output_timeout_s: None,
            continue_on_failure: false,
            retries: 0,
        }
    }
}

/// What a step does.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum StepWork {
    /// Shell code, run in the box.
    Script(String),
    /// Work of the agent, which takes the properties from the frozen pipeline: the runner only asks.
    Agent,
    /// The same, once the runner has packed the files of a directory.
    Pack {
        /// The directory, with its variables; none: the output directory if it holds a file, else the root.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        directory: Option<String>,
        /// Whether only what the run itself defines is expanded, nothing that steps exported.
        #[serde(default)]
        disable_sync: bool,
    },
    /// A terminal for a person; leaving it ends the step.
    Shell(ShellWork),
    /// Shell code that runs until it is told to end, again when files change.
    Watch(WatchWork),
}

/// What a `shell` step opens.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct ShellWork {
    /// The program and its arguments; empty: bash if there, else sh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Shell code to run in it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// What a `watch` step runs, and when again.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct WatchWork {
    /// Shell code.
    pub code: String,
    /// Whether it is restarted when files of the source change.
    pub reload: bool,
    /// Files that do not count, in `.gitignore` syntax.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// Ports that it listens on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
}

impl StepWork {
    /// Whether the agent carries it out, in the end.
    #[must_use]
    pub fn asks_agent(&self) -> bool {
        match self {
            Self::Agent | Self::Pack { .. } => true,
            Self::Script(_) | Self::Shell(_) | Self::Watch(_) => false,
        }
    }
}

impl Default for StepWork {
    fn default() -> Self {
        Self::Script(String::new())
    }
}
