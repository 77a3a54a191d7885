//! The contract with the box: files that `prepare`, the runner and the agent write for each other.
//!
//! ```text
//! controller --Order (environment of the container)--> prepare --in/plan.json--> runner
//! runner --out/journal, out/request-N.json--> agent --in/answer-N.json, in/cancel--> runner
//! ```
//!
//! A run pod has three directories: `in` (tmpfs, read-only in the box), `out` (tmpfs, writable) and
//! `disk`. Their mount points lie under `/dev`, which is the container's own tmpfs, so that nothing
//! of ours is in the layer that a commit makes.
//!
//! **Invariant:** serde types and names only. Whatever stands in `out` was written by hostile code;
//! its reader (the agent) bounds it and believes it only about itself.

mod order;
mod plan;
mod record;
mod summary;

pub use order::{
    EnvFromSource, EnvItem, EnvValue, GitOrder, LoginKey, Order, OrderStep, ServiceCheck, ServiceLink, SourceOrder,
};
pub use plan::{Breakpoints, Plan, PlanStep, RunInfo, ShellWork, StepOf, StepWork, Variable, WatchWork};
pub use record::{Answer, EndReason, Failure, Note, PackFault, Packed, Record, Request, Wait};
pub use summary::{StepEnd, Summary};

/// Version of all files here; a reader refuses another.
///
/// Writer and reader of a run can be of different releases: its runner is of the image that its pod began with, the agent
/// may have been replaced since. So it is raised by a change that a reader of an earlier release would get wrong. No
/// release has been made yet, so no such reader exists, and what changed until now needs no other number.
pub const VERSION: u32 = 1;

/// Where the directories are mounted in the box and in `prepare`.
pub const IN_DIR: &str = "/dev/windlass/in";
/// See [`IN_DIR`].
pub const OUT_DIR: &str = "/dev/windlass/out";
/// See [`IN_DIR`].
pub const DISK_DIR: &str = "/dev/windlass/disk";

/// Where a run on one machine keeps its cache, if it has one; else that is a directory of the box.
pub const CACHE_DIR: &str = "/dev/windlass/cache";
/// Below it a run on one machine has the files of steps.
pub const STEPS_DIR: &str = "/dev/windlass/steps";

/// Names of the pod's volumes, which are directory names under the kubelet's folder too.
pub const IN_VOLUME: &str = "in";
/// See [`IN_VOLUME`].
pub const OUT_VOLUME: &str = "out";
/// See [`IN_VOLUME`].
pub const DISK_VOLUME: &str = "disk";

/// Where `prepare` sees the Secrets that feed the environment: one directory per Secret.
pub const SECRETS_DIR: &str = "/windlass/secrets";
/// Where `prepare` sees the ConfigMaps that feed the environment.
pub const CONFIG_MAPS_DIR: &str = "/windlass/configmaps";
/// Where `prepare` sees the Secret for git.
pub const GIT_SECRET_DIR: &str = "/windlass/git";
/// Where `prepare` sees push credentials: names only, their files have mode 0.
pub const PUSH_SECRETS_DIR: &str = "/windlass/push";

/// In `in`: the runner's executable.
pub const RUNNER_FILE: &str = "windlass-runner";
/// In `in`: the [`Plan`].
pub const PLAN_FILE: &str = "plan.json";
/// In `in`: the pod's IP address, for what a `watch` step serves.
pub const POD_IP_FILE: &str = "pod-ip";
/// In `in`: written by `prepare` when it failed, so that the waiting box ends.
pub const FAILED_FILE: &str = "failed";
/// In `in`: written by the agent to cancel the run gracefully.
pub const CANCEL_FILE: &str = "cancel";
/// In `in`: written by the agent once the end of the run stands in the status. A runner that asked the agent for anything
/// waits for it, as the pod's files go with the box.
pub const RECORDED_FILE: &str = "recorded";
/// In `out`: [`Record`]s, one JSON object a line. Its space is reserved before step 1, so the file
/// ends in NUL bytes: a reader stops at the first.
pub const JOURNAL_FILE: &str = "journal";
/// In `disk`: the source as fetched; the runner copies it into the box.
pub const SOURCE_DIR: &str = "source";
/// In `disk`: one log per step.
pub const LOGS_DIR: &str = "logs";

/// Prefix of the environment variables of `prepare` that hold the [`Order`] in pieces
/// (`WINDLASS_ORDER_0`, …): one variable may hold 128 KiB at most.
pub const ORDER_VARIABLE: &str = "WINDLASS_ORDER_";
/// Bytes of one piece.
pub const ORDER_PIECE_BYTES: usize = 96 * 1024;

/// The environment variable of `prepare` that holds the pod's IP address.
pub const POD_IP_VARIABLE: &str = "WINDLASS_POD_IP";

/// Exit code of the box when `prepare` failed; the reason is in `prepare`'s termination message.
pub const EXIT_PREPARE_FAILED: i32 = 64;

/// In `out`: the request of step `step`.
#[must_use]
pub fn request_file(step: usize) -> String {
    format!("request-{step}.json")
}

/// In `in`: how step `step` ended, by the agent for an agent that starts anew; it is there before the answer.
#[must_use]
pub fn verdict_file(step: usize) -> String {
    format!("verdict-{step}.json")
}

/// In `in`: the answer to step `step`.
#[must_use]
pub fn answer_file(step: usize) -> String {
    format!("answer-{step}.json")
}

/// In `disk`: the log of a step, masked.
#[must_use]
pub fn log_file(step: &str) -> String {
    format!("{LOGS_DIR}/{step}.log")
}

/// In `disk`: what the runner packed for step `step`, as `archive` has it. It goes when the step is over.
#[must_use]
pub fn archive_file(step: usize) -> String {
    format!("packed-{step}.tar")
}

/// The volume of the `index`th of `steps::logins::push_secrets`.
#[must_use]
pub fn push_volume(index: usize) -> String {
    format!("push-{index}")
}

/// The volume of the `index`th Secret that feeds the environment.
#[must_use]
pub fn secret_volume(index: usize) -> String {
    format!("secret-{index}")
}
