//! The agent's own work on internal steps: how far it is, and how it ended.
//!
//! `follow` keeps one [`Work`] per internal step that it began in this process; what it must not forget is in
//! the run's status.
//!
//! **Invariant:** data only. The word of a verdict is the agent's, never the box's.

use crate::api::status::ImageStatus;
use jiff::Timestamp;

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
#[derive(Clone, Debug, PartialEq)]
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
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// It was told to stop and did: the runner's record says why.
    Stopped {
        /// What it pushed before that.
        images: Vec<ImageStatus>,
    },
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
