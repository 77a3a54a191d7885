//! What happens to a run, as one stream of events: the only thing that renderers see.
//!
//! `track` makes them, `render` shows them. **Invariant:** plain data; nothing here is shown in one
//! renderer and hidden from the others.

use super::view::{Outcome, StepInfo};
use crate::api::status::ImageStatus;

/// When something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    /// Milliseconds since the run began, as its status counts them.
    pub run_ms: u64,
    /// The same clock at the moment of telling; what is told late has a `run_ms` below it.
    pub now_ms: u64,
    /// By the wall clock of the cluster.
    pub wall: jiff::Timestamp,
}

impl At {
    /// Now, of what is no run's.
    #[must_use]
    pub(super) fn outside() -> Self {
        Self { run_ms: 0, now_ms: 0, wall: jiff::Timestamp::now() }
    }
}

/// An image, with the ports that it was told to expose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pushed {
    /// The image.
    pub image: ImageStatus,
    /// `5000/tcp`; none if they are not known before the push expands variables.
    pub ports: Vec<String>,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepResult {
    /// Passed.
    Succeeded,
    /// Failed.
    Failed,
    /// Ended by a cancel.
    Cancelled,
    /// Not run.
    Skipped,
}

impl StepResult {
    /// The word in JSON.
    #[must_use]
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

/// The end of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StepEnd {
    /// The step.
    pub step: StepInfo,
    /// How it ended.
    pub result: StepResult,
    /// Exit code, if it had a process.
    pub exit_code: Option<i32>,
    /// CamelCase word; empty if it passed.
    pub reason: String,
    /// For people.
    pub message: String,
    /// How long it took, if it ran.
    pub took_ms: Option<u64>,
    /// Images it pushed.
    pub images: Vec<ImageStatus>,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunEnd {
    /// How it ended.
    pub outcome: Outcome,
    /// CamelCase word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// How long it took.
    pub took_ms: u64,
    /// The step that failed, or that was running when it was cancelled.
    pub step: Option<String>,
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// Images that were pushed.
    pub images: Vec<Pushed>,
}

/// What happened to a watched step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watched {
    /// Files changed: its code starts again.
    Restarts,
    /// Its code ended by itself: well, or not.
    Rests {
        /// Whether the exit code was 0.
        well: bool,
    },
    /// Something else about it.
    Told,
}

impl Watched {
    /// What the runner's words mean.
    #[must_use]
    pub(super) fn of(message: &str) -> Self {
        match message.strip_suffix("; waits for the next change") {
            Some(end) => Self::Rests { well: end == "exit code 0" },
            None if message.ends_with(" changed; starts again") => Self::Restarts,
            None => Self::Told,
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The run exists; first of all events.
    RunCreated {
        /// Its name.
        run: String,
        /// Its namespace.
        namespace: String,
        /// The context of the kubeconfig.
        cluster: String,
        /// The Pipeline it refers to.
        pipeline: Option<String>,
        /// Steps, as far as they are known before the run is resolved.
        steps: Vec<StepInfo>,
    },
    /// The steps and the build number are known for good.
    Resolved {
        /// Build number.
        build: Option<i64>,
        /// Steps.
        steps: Vec<StepInfo>,
    },
    /// The run waits.
    Waiting {
        /// CamelCase word.
        reason: String,
        /// For people.
        message: String,
    },
    /// Everything is in place; the first step begins.
    Prepared {
        /// Pod.
        pod: String,
        /// Node.
        node: String,
        /// Commit of the source.
        source: Option<String>,
        /// How long it took from the creation of the run.
        took_ms: u64,
    },
    /// A step began.
    StepStarted {
        /// The step.
        step: StepInfo,
    },
    /// Step output, as it came.
    Log {
        /// The step; none before the first header.
        step: Option<String>,
        /// Time of the line, on its first piece.
        stamp: Option<String>,
        /// What was printed.
        bytes: Vec<u8>,
    },
    /// What a running step is doing.
    Progress {
        /// The step.
        step: StepInfo,
        /// For people.
        message: String,
    },
    /// An image was pushed.
    Image {
        /// The step.
        step: String,
        /// The image.
        image: ImageStatus,
    },
    /// A step is over.
    StepFinished(StepEnd),
    /// The run is over; last of all events about it.
    RunFinished(RunEnd),
    /// What became of a watched step's code, or of its files.
    Watch {
        /// The step.
        step: StepInfo,
        /// What happened.
        news: Watched,
        /// For people.
        message: String,
    },
    /// Something about following, not about the run.
    Notice {
        /// For people.
        message: String,
    },
}
