//! A step: a name and exactly one kind.
//!
//! **Invariant:** data only.

use super::{
    pipeline::EnvVar,
    push::{DockerPush, DockerScratchPush},
    text::Words,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a failing step does to the run.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub enum OnFailure {
    /// The run fails; later steps are skipped.
    #[default]
    Fail,
    /// The run goes on and can succeed.
    Continue,
}

/// `storeContainer`: keeps the box's state as an artifact.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreContainer {
    /// Name of the artifact; default: the step's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Comment of the layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// `watch`: runs code, again when files change.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    /// Shell code to run.
    pub code: String,
    /// Whether it is restarted when files change.
    #[serde(default)]
    pub reload: bool,
    /// Files that do not count, in .gitignore syntax.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore: Option<Vec<String>>,
    /// Ports the code listens on, shown in the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<u16>>,
}

/// `shell`: waits for a person.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shell {
    /// The shell, a list or shell words; default: bash, else sh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Words>,
    /// Code to run in it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// One step of a pipeline.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Unique among steps and after-steps.
    pub name: String,
    /// Shown to people instead of the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Directory to run in; default: the source directory. Variables expand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Variables of this step only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// A condition in CEL over `params`; false skips the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Longest time the step may take; default: `stepTimeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// What a failure does to the run.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// How often a failed script is repeated in the same box.
    #[serde(default)]
    pub retries: u32,
    /// Shell code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// Commits the box and pushes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_push: Option<DockerPush>,
    /// Pushes an image from scratch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_scratch_push: Option<DockerScratchPush>,
    /// Keeps the box's state as an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_container: Option<StoreContainer>,
    /// Runs code, again when files change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<Watch>,
    /// Waits for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Shell>,
}

/// The kind of a step, borrowed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind<'a> {
    /// Shell code.
    Script(&'a str),
    /// Commit and push.
    DockerPush(&'a DockerPush),
    /// Push from scratch.
    DockerScratchPush(&'a DockerScratchPush),
    /// Store the box.
    StoreContainer(&'a StoreContainer),
    /// Run, and reload on change.
    Watch(&'a Watch),
    /// Wait for a person.
    Shell(&'a Shell),
}

impl StepKind<'_> {
    /// The member's name in YAML.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Script(_) => "script",
            Self::DockerPush(_) => "dockerPush",
            Self::DockerScratchPush(_) => "dockerScratchPush",
            Self::StoreContainer(_) => "storeContainer",
            Self::Watch(_) => "watch",
            Self::Shell(_) => "shell",
        }
    }
}

impl Step {
    /// The one kind that is set; `None` when none or several are (the schema refuses that).
    #[must_use]
    pub fn kind(&self) -> Option<StepKind<'_>> {
        let kinds = [
            self.script.as_deref().map(StepKind::Script),
            self.docker_push.as_ref().map(StepKind::DockerPush),
            self.docker_scratch_push.as_ref().map(StepKind::DockerScratchPush),
            self.store_container.as_ref().map(StepKind::StoreContainer),
            self.watch.as_ref().map(StepKind::Watch),
            self.shell.as_ref().map(StepKind::Shell),
        ];
        let mut set = kinds.into_iter().flatten();
        let first = set.next()?;
        set.next().is_none().then_some(first)
    }

    /// What people see: `displayName`, else the name.
    #[must_use]
    pub fn title(&self) -> &str {
        self.display_name.as_deref().unwrap_or(&self.name)
    }
}
