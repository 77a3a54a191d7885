//! Words for people, and the reasons that go with them. Called by `schedule`, `supervisor` and `output`.
//!
//! **Invariant:** reasons are those of `api::condition::reason`, which this build cannot name; a
//! test holds them together.

use super::schedule::End;
use crate::watcher::Limit;
use crate::wire::{EndReason, PlanStep, StepWork};
use nix::sys::signal::Signal;
use std::path::Path;

/// A step failed.
pub(super) const STEP_FAILED: &str = "StepFailed";
/// A step took too long.
pub(super) const STEP_TIMED_OUT: &str = "StepTimedOut";
/// A step printed nothing for too long.
pub(super) const NO_OUTPUT: &str = "NoOutput";
/// The run took too long.
pub(super) const RUN_TIMED_OUT: &str = "RunTimedOut";
/// The box used more memory than it may.
pub(super) const OUT_OF_MEMORY: &str = "OutOfMemory";
/// Somebody cancelled the run.
pub(super) const CANCELLED: &str = "Cancelled";
/// There is no place for the source.
pub(super) const SOURCE_NOT_WRITABLE: &str = "SourceNotWritable";
/// A run that did not pass though no step failed: cannot be, and must not look green.
pub(super) const UNKNOWN: &str = STEP_FAILED;

/// What a step is said to have done that nobody let begin.
const AT_BREAKPOINT: &str = "at its breakpoint";

/// Why a run was ended from outside: reason and message.
pub(super) fn halted(cancelled: bool, step: &str, timeout_s: u64) -> (&'static str, String) {
    if cancelled {
        (CANCELLED, format!("cancelled (Graceful) at step {step}"))
    } else {
        (RUN_TIMED_OUT, format!("{}; step {step} was running", run_took_longer(timeout_s)))
    }
}

/// What a run did whose time was over.
pub(super) fn run_took_longer(timeout_s: u64) -> String {
    format!("the run took longer than {}", duration(timeout_s))
}

/// Why a run failed at this step: reason and message.
pub(super) fn failed(step: &PlanStep, end: &End, number: usize, total: usize) -> (&'static str, String) {
    let name = &step.name;
    let said = end.message.as_deref().unwrap_or("no message");
    match end.reason {
        EndReason::TimedOut if said.ends_with(AT_BREAKPOINT) => {
            (STEP_TIMED_OUT, format!("step {name} {said}; raise breakpointTimeout"))
        }
        EndReason::TimedOut => (STEP_TIMED_OUT, format!("step {name} {said}; raise its timeout")),
        EndReason::NoOutput => (NO_OUTPUT, format!("step {name} {said}; raise noOutputTimeout")),
        EndReason::OutOfMemory => (
            OUT_OF_MEMORY,
            format!("step {name} ({number} of {total}) ran out of memory; raise box.resources.limits.memory"),
        ),
        EndReason::NotStarted => (STEP_FAILED, format!("step {name} ({number} of {total}) could not start: {said}")),
        EndReason::Agent => (STEP_FAILED, format!("step {name} failed: {said}")),
        _ if step.work == StepWork::Agent => (STEP_FAILED, format!("step {name} failed: {said}")),
        _ => {
            let code = end.code.unwrap_or_default();
            let note = end.message.as_ref().map(|message| format!(", {message}")).unwrap_or_default();
            (STEP_FAILED, format!("step {name} ({number} of {total}) failed with exit code {code}{note}"))
        }
    }
}

/// That a step cannot begin where it is to begin; `gone`: why, if that is known.
pub(super) fn no_directory(cwd: &Path, gone: Option<&str>) -> String {
    let gone = gone.map(|gone| format!("; {gone}")).unwrap_or_default();
    format!("cwd {}: no such directory{gone}", cwd.display())
}

/// That the source is not there any more, and which step left without it.
pub(super) fn gone(source: &Path, since: Option<&str>) -> String {
    let since = since.map(|step| format!(" since step {step}")).unwrap_or_default();
    format!("the source {} is gone{since}", source.display())
}

/// How a step ended, in a few words.
pub(super) fn ended(end: &End) -> String {
    match (end.reason, end.code) {
        (EndReason::ExitCode, Some(code)) => format!("exit code {code}"),
        (EndReason::Cancelled, _) => end.message.clone().unwrap_or_else(|| "cancelled".into()),
        (EndReason::EarlierStepFailed, _) => "skipped".into(),
        (_, code) => {
            let code = code.map(|code| format!("exit code {code}"));
            [code.as_deref(), end.message.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(", ")
        }
    }
}

/// The line that tells people how a step ended: at `at`, and after `took` if it began.
pub(super) fn closed(end: &End, at: &str, name: &str, took: Option<&str>) -> String {
    let took = took.map(|took| format!(" {took}")).unwrap_or_default();
    let word = match end.reason {
        _ if end.passed() => return format!("ok    [{at}] {name}{took}"),
        EndReason::EarlierStepFailed | EndReason::Cancelled if took.is_empty() => "skip",
        _ => "FAIL",
    };
    format!("{word}  [{at}] {name}{took}: {}", ended(end))
}

/// What a step did whose time was over.
pub(super) fn ran_longer(step: &PlanStep) -> String {
    format!("ran longer than {}", duration(step.timeout_s.unwrap_or_default()))
}

/// What a step did that nobody let begin.
pub(super) fn waited(timeout_s: u64) -> String {
    format!("waited longer than {} {AT_BREAKPOINT}", duration(timeout_s))
}

/// What a step did that printed nothing.
pub(super) fn printed_nothing(step: &PlanStep) -> String {
    format!("printed nothing for {}", duration(step.no_output_timeout_s.unwrap_or_default()))
}

/// Why changes of files are not all reported by the kernel, and what follows.
pub(super) fn watch_limit(limit: Limit) -> String {
    let sysctl = |name: &str| {
        let value = std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).unwrap_or_default();
        format!("fs.inotify.{name} is {}; an administrator can raise it on the node by sysctl -w", value.trim())
    };
    let why = match limit {
        Limit::Watches => format!("the kernel watches no more directories: {}", sysctl("max_user_watches")),
        Limit::Instances => format!("the kernel makes no more watchers: {}", sysctl("max_user_instances")),
        Limit::Moved => "the source directory was moved or removed".into(),
        Limit::Refused(errno) => format!("the kernel does not watch files: {}", errno.desc()),
    };
    format!("{why}; until then changes are looked for every second, in large trees less often")
}

/// What a signal did, by the exit code that stands for it.
pub(super) fn killed(code: i32) -> String {
    match Signal::try_from(code - 128) {
        Ok(signal) => format!("killed ({signal})"),
        Err(_) => format!("killed (signal {})", code - 128),
    }
}

/// A limit as users write it: `90s`, `25m`, `1h30m`.
fn duration(seconds: u64) -> String {
    let parts = [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".into() } else { text }
}

/// A time that something took: `0.4s`, `3m05s`, `1h02m`.
pub(super) fn took(ms: u64) -> String {
    match ms / 1000 {
        0..60 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        s @ 60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        s => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_durations() {
        for (seconds, text) in [(0, "0s"), (90, "1m30s"), (1500, "25m"), (5400, "1h30m"), (604_800, "168h")] {
            assert_eq!(duration(seconds), text);
        }
        for (ms, text) in [(449, "0.4s"), (59_999, "59.9s"), (185_000, "3m05s"), (3_720_000, "1h02m")] {
            assert_eq!(took(ms), text);
        }
        assert_eq!(killed(137), "killed (SIGKILL)");
        assert_eq!(killed(128 + 64), "killed (signal 64)");
    }

    #[test]
    fn closes_a_step_with_what_happened() {
        let end = |reason, code, message: Option<&str>| End { reason, code, message: message.map(str::to_owned) };
        for (end, took, want) in [
            (end(EndReason::ExitCode, Some(0), None), Some("0.4s"), "ok    [1.0s] 1/2 a 0.4s"),
            (end(EndReason::ExitCode, Some(3), None), Some("0.4s"), "FAIL  [1.0s] 1/2 a 0.4s: exit code 3"),
            (end(EndReason::Cancelled, None, None), Some("0.4s"), "FAIL  [1.0s] 1/2 a 0.4s: cancelled"),
            (end(EndReason::Cancelled, None, None), None, "skip  [1.0s] 1/2 a: cancelled"),
            (
                end(EndReason::Cancelled, Some(143), Some(&run_took_longer(5))),
                Some("5.0s"),
                "FAIL  [1.0s] 1/2 a 5.0s: the run took longer than 5s",
            ),
            (end(EndReason::EarlierStepFailed, None, None), None, "skip  [1.0s] 1/2 a: skipped"),
            (
                end(EndReason::TimedOut, None, Some(&waited(1))),
                None,
                "FAIL  [1.0s] 1/2 a: waited longer than 1s at its breakpoint",
            ),
        ] {
            assert_eq!(closed(&end, "1.0s", "1/2 a", took), want);
        }
    }

    #[cfg(feature = "full")]
    #[test]
    fn reasons_are_those_of_the_api() {
        use crate::api::condition::reason;
        assert_eq!(
            [STEP_FAILED, STEP_TIMED_OUT, NO_OUTPUT, RUN_TIMED_OUT, CANCELLED, SOURCE_NOT_WRITABLE],
            [
                reason::STEP_FAILED,
                reason::STEP_TIMED_OUT,
                reason::NO_OUTPUT,
                reason::RUN_TIMED_OUT,
                reason::CANCELLED,
                reason::SOURCE_NOT_WRITABLE
            ]
        );
    }
}
