//! Restarts of a watched step: when changes rest, its code is stopped and started again. Part of
//! the schedule.
//!
//! ```text
//! code runs ── change ──> changes rest ──> its session is stopped ──> code runs again
//! code ended by itself ── waits for the next change, with what it left behind still there
//! ```
//!
//! **Invariant:** as the schedule's. A change that comes while the code is stopped or started is
//! never lost: the code runs again after it.

use super::{Act, End, EndReason, Exit, Schedule, State, Why, by_itself};
use crate::wire::PlanStep;
use std::path::PathBuf;

/// Changes rest when none came for this long: editors and tools write in several goes.
const QUIET_MS: u64 = 100;
/// Changes that do not rest hold the code back no longer than this.
const LONGEST_BURST_MS: u64 = 5_000;
/// A change that comes sooner after the start may be the code's own.
const SOON_MS: u64 = 1_000;
/// After so many of them in a row, of one file, the code is started no more often than [`PAUSE_MS`].
const SOON_TIMES: u32 = 8;
/// See [`SOON_TIMES`].
const PAUSE_MS: u64 = 5_000;
/// Exit code that stands for code that could not be started again.
const NOT_STARTED: i32 = 126;

/// What became of a watched step's code, and of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reload {
    /// The step's own limit: restarts do not renew it.
    limit: Option<u64>,
    /// When the first and the last change came that the code does not know of.
    burst: Option<(u64, u64)>,
    /// The file of the first of them, or for which the code is being stopped.
    file: PathBuf,
    /// How the code ended, if it does not run.
    pub(super) ended: Option<Exit>,
    /// The code is being stopped, to start again.
    stopping: bool,
    /// Nothing is left of it.
    stopped: bool,
    /// When it was started last.
    started: u64,
    /// Whether that was a restart.
    again: bool,
    /// How often in a row the same file was the first to change, soon after the start.
    soon: u32,
}

impl Reload {
    /// When the code is to be stopped, or started if it is stopped.
    fn due(&self) -> Option<u64> {
        let rests = self.burst.map(|(first, last)| (last + QUIET_MS).min(first + LONGEST_BURST_MS));
        let earliest = if self.soon < SOON_TIMES { 0 } else { self.started + PAUSE_MS };
        rests.or(self.stopped.then_some(0)).map(|at| at.max(earliest))
    }

    fn changed(&mut self, now: u64, file: PathBuf) {
        if self.burst.is_none() && !self.stopping {
            let again = now < self.started + SOON_MS && (self.file == file || self.soon == 0);
            self.soon = if again { self.soon.saturating_add(1) } else { 0 };
            self.file = file;
        }
        self.burst = Some((self.burst.map_or(now, |(first, _)| first), now));
    }
}

impl Schedule {
    /// A step begins, perhaps one that is restarted.
    pub(super) fn watch(&mut self, now: u64, step: usize, limit: Option<u64>) {
        let reloads = self.steps.get(step).is_some_and(PlanStep::reloads);
        self.reload = reloads.then(|| Reload { limit, started: now, ..Reload::default() });
    }

    /// When to come back for the restart.
    pub(super) fn reload_wake(&self) -> Option<u64> {
        self.reload.as_ref().and_then(Reload::due)
    }

    /// Whether watched code has ended and did not start again.
    pub(in crate::runner) fn is_at_rest(&self) -> bool {
        self.reload.as_ref().is_some_and(|reload| reload.ended.is_some())
    }

    /// Files changed, this one first.
    pub(super) fn changed(&mut self, now: u64, file: PathBuf) {
        if let Some(reload) = &mut self.reload {
            reload.changed(now, file);
        }
    }

    /// Watched code ended by itself, or could not be started again: the step waits for a change.
    ///
    /// # Errors
    /// How the step ends instead: it is not watched, or its code never ran.
    pub(super) fn rested(&mut self, step: usize, exit: Result<Exit, String>, acts: &mut Vec<Act>) -> Result<(), End> {
        let (exit, end) = match exit {
            Ok(exit) => (exit, by_itself(exit)),
            Err(message) => {
                let end = End::new(EndReason::NotStarted, None, Some(message));
                (Exit { code: NOT_STARTED, ..Exit::default() }, end)
            }
        };
        match &mut self.reload {
            Some(reload) if reload.again || end.reason != EndReason::NotStarted => reload.ended = Some(exit),
            Some(_) | None => return Err(end),
        }
        acts.push(Act::Rest { step, end });
        Ok(())
    }

    /// Nothing of the code is left.
    pub(super) fn reload_stopped(&mut self, now: u64, step: usize, attempt: u32, exit: Option<Exit>) {
        let Some(reload) = &mut self.reload else { return };
        reload.ended = exit.or(Some(Exit::default()));
        reload.stopped = true;
        self.state = State::Running { step, attempt, limit: reload.limit, heard: now };
    }

    /// Stops the code, or starts it again, if changes rest.
    pub(super) fn reload(&mut self, now: u64, acts: &mut Vec<Act>) {
        let State::Running { step, attempt, .. } = self.state else { return };
        let Some(reload) = self.reload.as_mut().filter(|reload| reload.due().is_some_and(|at| now >= at)) else {
            return;
        };
        reload.burst = None;
        if reload.stopped {
            (reload.stopping, reload.stopped, reload.ended) = (false, false, None);
            (reload.started, reload.again) = (now, true);
            acts.push(Act::Restart { step, file: reload.file.clone(), slowed: reload.soon >= SOON_TIMES });
        } else {
            reload.stopping = true;
            let (exit, kill_at) = (reload.ended, now + self.grace_ms);
            self.state = State::Stopping { step, attempt, why: Why::Reload, exit, kill_at, killed: false };
            acts.push(Act::Terminate);
        }
    }
}
