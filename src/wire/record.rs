//! What the runner reports and asks, and what it is answered.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One line of the journal. Times are milliseconds since the epoch, by the box's clock.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "e", rename_all = "camelCase")]
pub enum Record {
    /// The runner has the plan, and the source is in place.
    Ready {
        /// When.
        at: u64,
        /// Where the source is.
        source_dir: String,
        /// Commit of the source.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<String>,
    },
    /// A step began.
    Started {
        /// When.
        at: u64,
        /// Index in the plan.
        step: usize,
        /// From 1; more for `retries`.
        attempt: u32,
    },
    /// A step waits for the agent; its [`Request`] is in place.
    Asked {
        /// When.
        at: u64,
        /// Index in the plan.
        step: usize,
    },
    /// A step waits for a person.
    Waiting {
        /// When.
        at: u64,
        /// Index in the plan.
        step: usize,
        /// What for.
        why: Wait,
        /// Exit code of the attempt that failed, if it had a process.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
    },
    /// A step that runs has something to say; at most once a step.
    Noted {
        /// When.
        at: u64,
        /// Index in the plan.
        step: usize,
        /// What it is about.
        note: Note,
        /// For people.
        message: String,
    },
    /// A step is over, or will not run.
    Ended {
        /// When.
        at: u64,
        /// Index in the plan.
        step: usize,
        /// Exit code; a signal is 128+N; absent if the step had no process.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
        /// How it ended.
        reason: EndReason,
        /// For people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// The run is over; nothing follows.
    Finished {
        /// When.
        at: u64,
        /// Whether every step passed or was set to continue.
        passed: bool,
        /// Reason of the run's condition when it did not pass: one of `api::condition::reason`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Index of the step that failed first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<usize>,
        /// For people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
}

/// Why a step waits for a person.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Wait {
    /// It is a `shell` step.
    Shell,
    /// There is a breakpoint before it.
    Before,
    /// It failed, and the run has a breakpoint at failures.
    Failed,
}

/// What a step that runs may say.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Note {
    /// Changes of files are not all reported by the kernel.
    WatchLimit,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[repr(u8)]
pub enum EndReason {
    /// By itself, with this exit code (0: passed). Also an internal step that passed.
    ExitCode = 0,
    /// By a signal.
    Signal = 1,
    /// Its time was over.
    TimedOut = 2,
    /// It printed nothing for too long.
    NoOutput = 3,
    /// The run was cancelled, or its own time was over.
    Cancelled = 4,
    /// Skipped: an earlier step failed.
    EarlierStepFailed = 5,
    /// The agent said that it failed; the agent's word has the reason.
    Agent = 6,
    /// The runner could not start it; the message says why.
    NotStarted = 7,
    /// It ended badly after the kernel killed a process of the box for want of memory.
    OutOfMemory = 8,
}

/// What the runner gives the agent with an internal step: the environment to expand its properties.
/// The properties themselves come from the frozen pipeline, never from here.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Request {
    /// [`super::VERSION`].
    pub version: u32,
    /// Index in the plan.
    pub step: usize,
    /// Variables that the run itself defines.
    pub run_env: BTreeMap<String, String>,
    /// The same with what steps exported.
    pub env: BTreeMap<String, String>,
    /// Of a `dockerScratchPush`: what was packed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed: Option<Packed>,
}

/// What came of packing the files of a `dockerScratchPush`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Packed {
    /// They are in [`super::archive_file`].
    Archive,
    /// They are not.
    Refused {
        /// Why, in a word.
        fault: PackFault,
        /// Why, for people.
        message: String,
    },
}

/// Why files were not packed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum PackFault {
    /// One of them must not be in an image.
    Unsafe,
    /// There are none.
    Empty,
    /// They are too large, or too many.
    TooLarge,
    /// The system refused.
    Failed,
}

/// What the agent answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Answer {
    /// [`super::VERSION`].
    pub version: u32,
    /// Whether the step passed.
    pub passed: bool,
    /// Lines for the step's log.
    pub log: Vec<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Why `prepare` failed: its termination message, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Failure {
    /// Reason of the run's condition: one of `api::condition::reason`.
    pub reason: String,
    /// For people.
    pub message: String,
}
