//! What time demands: the limits of steps and of the run, and the grace of what is stopped. Part of the
//! schedule.
//!
//! **Invariant:** as the schedule's. Every state that waits has a limit.

use super::{Act, Halt, Schedule, State, Why};
use crate::wire::StepWork;

/// Together, after-steps may take this much longer than the run.
pub(super) const AFTER_MS: u64 = 5 * 60 * 1000;
/// How often to look whether a session that was told to stop is gone.
const SESSION_CHECK_MS: u64 = 20;
/// How much longer a terminal has before it is killed: it gives what runs on it the usual grace itself.
const TERMINAL_MS: u64 = 3_000;
/// How long a killed session may take to go away.
const KILLED_MS: u64 = 5_000;

impl Schedule {
    /// When to come back with [`Event::Tick`], if nothing else happens.
    pub(in crate::runner) fn wake(&self, now: u64) -> Option<u64> {
        match &self.state {
            State::Idle | State::Over => None,
            State::Running { step, limit, heard, .. } => {
                let quiet = self.quiet_limit(*step, *heard);
                [*limit, quiet, Some(self.run_limit(*step)), self.reload_wake()].into_iter().flatten().min()
            }
            State::Asking { step, limit } => [*limit, Some(self.run_limit(*step))].into_iter().flatten().min(),
            State::Backoff { step, until: limit, .. } | State::Paused { step, limit, .. } => {
                Some((*limit).min(self.run_limit(*step)))
            }
            State::Stopping { exit, kill_at, killed, .. } => {
                let next = if *killed { kill_at + KILLED_MS } else { *kill_at };
                Some(if exit.is_some() { next.min(now + SESSION_CHECK_MS) } else { next })
            }
        }
    }

    /// Does what time demands.
    pub(super) fn time(&mut self, now: u64, acts: &mut Vec<Act>) {
        match self.state.clone() {
            State::Idle | State::Over => {}
            State::Running { step, limit, heard, .. } => {
                let quiet = self.quiet_limit(step, heard);
                self.limits(now, step, [(limit, Why::TimedOut), (quiet, Why::NoOutput)], acts);
                self.reload(now, acts);
            }
            State::Asking { step, limit } => {
                self.limits(now, step, [(limit, Why::TimedOut), (None, Why::NoOutput)], acts);
            }
            State::Backoff { step, attempt, until, .. } => {
                if now >= self.run_limit(step) {
                    self.run_over(now, step, acts);
                } else if now >= until {
                    self.begin(now, step, attempt, acts);
                }
            }
            State::Paused { step, failed, limit, .. } => self.waited(now, step, failed, limit, acts),
            State::Stopping { step, attempt, why, exit, kill_at, killed } => {
                if killed && now >= kill_at + KILLED_MS {
                    self.stopped(now, step, attempt, why, exit, acts);
                } else if !killed && now >= kill_at {
                    self.state = State::Stopping { step, attempt, why, exit, kill_at, killed: true };
                    acts.push(Act::Kill);
                }
            }
        }
    }

    /// Ends the step by the limit that came first, if one came.
    fn limits(&mut self, now: u64, step: usize, own: [(Option<u64>, Why); 2], acts: &mut Vec<Act>) {
        let run_limit = self.run_limit(step);
        let first = own.into_iter().filter_map(|(at, why)| Some((at?, why))).min_by_key(|(at, _)| *at);
        match first {
            Some((at, why)) if now >= at && at < run_limit => self.end_current(now, why, acts),
            _ if now >= run_limit => self.run_over(now, step, acts),
            _ => {}
        }
    }

    /// The time of the run, or of its after-steps, is over.
    pub(super) fn run_over(&mut self, now: u64, step: usize, acts: &mut Vec<Act>) {
        if !self.is_after(step) && self.halt.is_none() {
            self.halt = Some(Halt { cancelled: false, at: now, step });
        }
        self.end_current(now, Why::Run, acts);
    }

    /// When the time of the run is over for this step.
    pub(super) fn run_limit(&self, step: usize) -> u64 {
        if self.is_after(step) {
            self.halt.map_or(self.deadline, |halt| halt.at.min(self.deadline)).saturating_add(AFTER_MS)
        } else {
            self.deadline
        }
    }

    /// How long a step has between TERM and KILL.
    pub(super) fn grace_ms(&self, step: usize) -> u64 {
        let is_terminal = self.steps.get(step).is_some_and(|step| matches!(step.work, StepWork::Shell(_)));
        self.grace_ms + if is_terminal { TERMINAL_MS } else { 0 }
    }

    fn quiet_limit(&self, step: usize, heard: u64) -> Option<u64> {
        let seconds = self.steps.get(step)?.no_output_timeout_s?;
        Some(heard.saturating_add(seconds.saturating_mul(1000)))
    }
}
