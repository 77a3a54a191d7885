//! The agent's own work on internal steps: how far it is, and how it ended.
//!
//! `follow` keeps one [`Work`] per internal step that it began in this process; what it must not forget is in
//! the run's status, and from its end until the status says it, in a file beside the answer to the runner.
//!
//! **Invariant:** data only. The word of a verdict is the agent's, never the box's.

use crate::api::{condition::reason, status::ImageStatus};
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

/// Version of [`Kept`].
const KEPT_VERSION: u32 = 1;

/// A verdict as an agent keeps it for the next one, which may be of another release.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    step: usize,
    verdict: serde_json::Value,
}

impl Verdict {
    /// As it is kept.
    #[must_use]
    pub fn to_bytes(&self, step: usize) -> Vec<u8> {
        // Strings, numbers and times only: this cannot fail.
        let verdict = serde_json::to_value(self).unwrap_or_default();
        serde_json::to_vec(&Kept { version: KEPT_VERSION, step, verdict }).unwrap_or_default()
    }

    /// What an agent kept; `None` if it is of another step. The agent did carry the step out, so what cannot be read is
    /// a failure, and never a reason to do so again.
    #[must_use]
    pub fn from_bytes(step: usize, bytes: &[u8]) -> Option<Self> {
        let kept = serde_json::from_slice::<Kept>(bytes).ok();
        if kept.as_ref().is_some_and(|kept| kept.step != step) {
            return None;
        }
        let known = kept.filter(|kept| kept.version == KEPT_VERSION);
        let verdict = known.and_then(|kept| serde_json::from_value(kept.verdict).ok());
        Some(verdict.unwrap_or_else(|| Self::Failed {
            at: Timestamp::now(),
            images: Vec::new(),
            reason: reason::INTERRUPTED.into(),
            message: "an agent of another version carried out this step, and what it left cannot be read".into(),
        }))
    }

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
