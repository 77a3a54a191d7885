//! The agent's own work on internal steps: how far it is, and how it ended.
//!
//! `follow` keeps one [`Work`] per internal step that it began in this process; what it must not forget is in
//! the run's status, and from its end until the status says it, in a file beside the answer to the runner.
//!
//! **Invariant:** data only. The word of a verdict is the agent's, never the box's.

use crate::api::status::ImageStatus;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Work on one internal step.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// In flight.
    Running {
        /// Progress, for people.
        message: Option<String>,
        /// The image, once its digest is known.
        image: Option<ImageStatus>,
        /// Whether it was told to stop.
        stopping: bool,
    },
    /// Over.
    Done(Verdict),
}

/// How an internal step ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Verdict {
    /// It passed.
    Passed {
        /// When.
        at: Timestamp,
        /// What it pushed.
        images: Vec<ImageStatus>,
        /// A warning, for people.
        message: Option<String>,
    },
    /// It failed.
    Failed {
        /// When.
        at: Timestamp,
        /// What it pushed before that.
        images: Vec<ImageStatus>,
        /// One of `api::condition::reason`.
        reason: Cow<'static, str>,
        /// For people.
        message: String,
    },
    /// It was told to stop and did: the runner's record says why.
    Stopped {
        /// What it pushed before that.
        images: Vec<ImageStatus>,
    },
}

impl Verdict {
    /// Whether it is the agent's word on the step, and not only that it stopped when told to.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Passed { .. } | Self::Failed { .. } => true,
            Self::Stopped { .. } => false,
        }
    }
}

impl Work {
    /// Whether it is in flight.
    #[must_use]
    pub fn is_running(&self) -> bool {
        match self {
            Self::Running { .. } => true,
            Self::Done(_) => false,
        }
    }
}
