//! A step: a name and exactly one kind.
//!
//! **Invariant:** data only.

use super::{
    env::EnvVar,
    here::HereStep,
    push::{DockerPush, DockerScratchPush},
    rules,
    text::Words,
};
use kube::KubeSchema;
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
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreContainer {
    /// Name of the artifact; default: the step's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::name())]
    pub name: Option<String>,
    /// Comment of the layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub message: Option<String>,
}

/// `watch`: runs code, again when files change.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    /// Shell code to run.
    #[schemars(length(min = 1, max = 65536))]
    pub code: String,
    /// Whether it is restarted when files change.
    #[serde(default)]
    pub reload: bool,
    /// Files that do not count, in .gitignore syntax.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 1024)))]
    pub ignore: Option<Vec<String>>,
    /// Ports the code listens on, shown in the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), inner(range(min = 1, max = 65535)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub ports: Option<Vec<u16>>,
}

/// `shell`: waits for a person.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shell {
    /// The shell, a list or shell words; default: bash, else sh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Words")]
    pub cmd: Option<Words>,
    /// Code to run in it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub code: Option<String>,
}

/// One step of a pipeline.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::exactly_one(
    &["script", "dockerPush", "dockerScratchPush", "storeContainer", "watch", "shell"]))]
#[x_kube(validation = Rule::new("!has(self.retries) || self.retries == 0 || has(self.script)")
    .message("retries is for script steps; pushes repeat by themselves")
    .field_path(".retries"))]
pub struct Step {
    /// Unique among steps and after-steps.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::name())]
    pub name: String,
    /// Shown to people instead of the name. Wercker: name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub display_name: Option<String>,
    /// Directory to run in; default: the source directory. Variables expand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub cwd: Option<String>,
    /// Variables of this step only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[x_kube(merge_strategy = rules::by_name())]
    pub env: Vec<EnvVar>,
    /// A condition in CEL over `params`; false skips the step. Not yet: this version refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub when: Option<String>,
    /// Longest time the step may take; default: `stepTimeout`, for `watch` and `shell` what is left of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 20))]
    #[x_kube(validation = rules::duration("1s", "168h"))]
    pub timeout: Option<String>,
    /// What a failure does to the run: it fails (`Fail`), or goes on and can succeed (`Continue`).
    #[serde(default)]
    pub on_failure: OnFailure,
    /// How often a failed script is repeated in the same box.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10))]
    pub retries: u32,
    /// Shell code, run in the box. Wercker: script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub script: Option<String>,
    /// Commits the box and pushes it. Wercker: internal/docker-push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_push: Option<DockerPush>,
    /// Pushes an image that holds the output directory only. Wercker: internal/docker-scratch-push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_scratch_push: Option<DockerScratchPush>,
    /// Keeps the box's state as an artifact. Wercker: internal/store-container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_container: Option<StoreContainer>,
    /// Runs code, again when files change. Wercker: internal/watch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<Watch>,
    /// Waits for a person. Wercker: internal/shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Shell>,
    /// What only a run on one machine does; see [`super::here`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub here: Option<HereStep>,
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
    /// What only a run on one machine does.
    Here(&'a HereStep),
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
            Self::Here(_) => "here",
        }
    }

    /// Whether the node's agent carries it out; the runner does the others by itself.
    #[must_use]
    pub fn is_of_agent(&self) -> bool {
        match self {
            Self::DockerPush(_) | Self::DockerScratchPush(_) | Self::StoreContainer(_) | Self::Here(_) => true,
            Self::Script(_) | Self::Watch(_) | Self::Shell(_) => false,
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
            self.here.as_ref().map(StepKind::Here),
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
