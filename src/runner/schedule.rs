//! What happens when: the state machine of a run. The supervisor tells it what happened and does
//! what it says.
//!
//! ```text
//! Idle ─> Running ─> Stopping ─┐        time and cancel move Running to Stopping,
//!   ^  └> Asking ──────────────┼─> the next step ─> … ─> Over
//!   └──── Backoff, Paused <────┘        changes of files as well, and back (see `reload`)
//! ```
//!
//! **Invariant:** pure: no clock, process or file. Time is milliseconds since the runner began.
//! Each step gets one end and keeps it, and a run passes by its steps' ends alone.

mod limits;
mod outcome;
mod reload;
mod waits;

pub(super) use outcome::Outcome;
pub(super) use waits::{REPEATS, Verb};

use super::words;
use crate::wire::{Breakpoints, EndReason, PlanStep, StepWork};
use reload::Reload;
use std::path::PathBuf;

/// Longest pause before a step is repeated.
const LONGEST_PAUSE_MS: u64 = 30_000;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The source is in place.
    Begin,
    /// The shell of the attempt ended.
    Exited(Exit),
    /// Nobody is left in the attempt's session.
    SessionGone,
    /// The attempt could not be started.
    NotStarted(String),
    /// The agent answered the step that waits.
    Answered {
        /// Whether the step passed.
        passed: bool,
        /// For people.
        message: Option<String>,
    },
    /// A step printed something.
    Output,
    /// A person asked this; [`Schedule::may`] said that it may be.
    Asked(Verb),
    /// Files of a watched step changed, this one first.
    Changed(PathBuf),
    /// The run is to be cancelled gracefully.
    Cancel,
    /// This signal asks the box to end now.
    Stop(i32),
    /// Time passed.
    Tick,
}

/// How a shell ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Exit {
    /// Exit code; a signal is 128+N.
    pub(super) code: i32,
    /// Whether it was a signal.
    pub(super) signalled: bool,
    /// Whether the kernel killed a process of the box meanwhile, for want of memory.
    pub(super) out_of_memory: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Start a script, or the packing of files.
    Start { step: usize, attempt: u32 },
    /// Start the code of a watched step again, as this file changed; `slowed`: the code seems to do that itself.
    Restart { step: usize, file: PathBuf, slowed: bool },
    /// Tell people that the code of a watched step ended and waits for a change.
    Rest { step: usize, end: End },
    /// Ask the agent.
    Ask {
        /// The step.
        step: usize,
        /// Why the files that it wants could not be packed.
        unpacked: Option<String>,
    },
    /// Send TERM to the attempt's session.
    Terminate,
    /// Send KILL to the attempt's session.
    Kill,
    /// Tell people that the step waits for them: before it begins, or as its attempt ended so.
    Pause { step: usize, failed: Option<End> },
    /// Tell people that the step will be repeated.
    Repeat { step: usize, end: End, pause_ms: u64 },
    /// Record a step's end.
    End { step: usize, end: End },
    /// Record the run's end and leave.
    Finish(Outcome),
    /// Leave with this exit code; the run has no end of its own.
    Leave(i32),
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// How.
    pub(super) reason: EndReason,
    /// Exit code, if it had a process.
    pub(super) code: Option<i32>,
    /// For people.
    pub(super) message: Option<String>,
}

impl End {
    fn new(reason: EndReason, code: Option<i32>, message: Option<String>) -> Self {
        Self { reason, code, message }
    }

    /// Whether the step did what it should.
    pub(super) fn passed(&self) -> bool {
        self.reason == EndReason::ExitCode && self.code.unwrap_or(0) == 0
    }

    /// Whether the step was never begun because of what came before it.
    fn skipped(&self) -> bool {
        matches!(self.reason, EndReason::EarlierStepFailed | EndReason::Cancelled)
    }
}

/// Why an attempt is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    TimedOut,
    NoOutput,
    /// The run was cancelled or its time is over.
    Run,
    /// A person ended it, with success.
    Finished,
    /// Files changed.
    Reload,
    /// The box is to end, by this signal.
    Stop(i32),
}

/// Why no more steps begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Halt {
    cancelled: bool,
    at: u64,
    step: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Running {
        step: usize,
        attempt: u32,
        limit: Option<u64>,
        heard: u64,
    },
    Asking {
        step: usize,
        limit: Option<u64>,
    },
    Backoff {
        step: usize,
        attempt: u32,
        until: u64,
        end: End,
    },
    /// Waits for a person before its first attempt (0), or after one that ended badly.
    Paused {
        step: usize,
        attempt: u32,
        failed: Option<End>,
        limit: u64,
    },
    Stopping {
        step: usize,
        attempt: u32,
        why: Why,
        exit: Option<Exit>,
        kill_at: u64,
        killed: bool,
    },
    Over,
}

/// The run so far.
pub(super) struct Schedule {
    steps: Vec<PlanStep>,
    ends: Vec<Option<End>>,
    state: State,
    deadline: u64,
    timeout_s: u64,
    grace_ms: u64,
    halt: Option<Halt>,
    failed: Option<usize>,
    after_failed: bool,
    breakpoints: Breakpoints,
    /// How often a person had a step repeated.
    repeated: u32,
    /// The last step that was handed to the agent.
    handed: Option<usize>,
    /// Of the step that runs, if it is restarted when files change.
    reload: Option<Reload>,
}

impl Schedule {
    /// A run of these steps whose time is over at `deadline`, after `timeout_s` seconds in all.
    pub(super) fn new(steps: Vec<PlanStep>, deadline: u64, timeout_s: u64, grace_ms: u64) -> Self {
        let ends = vec![None; steps.len()];
        Self {
            steps,
            ends,
            state: State::Idle,
            deadline,
            timeout_s,
            grace_ms,
            halt: None,
            failed: None,
            after_failed: false,
            breakpoints: Breakpoints::default(),
            repeated: 0,
            handed: None,
            reload: None,
        }
    }

    /// The step that runs, waits or is about to be repeated.
    pub(super) fn current(&self) -> Option<usize> {
        match self.state {
            State::Running { step, .. }
            | State::Asking { step, .. }
            | State::Backoff { step, .. }
            | State::Paused { step, .. }
            | State::Stopping { step, .. } => Some(step),
            State::Idle | State::Over => None,
        }
    }

    /// The step that waits for the agent.
    pub(super) fn asking(&self) -> Option<usize> {
        if let State::Asking { step, .. } = self.state { Some(step) } else { None }
    }

    /// Whether an [`Event::SessionGone`] is awaited.
    pub(super) fn awaits_session(&self) -> bool {
        matches!(self.state, State::Stopping { exit: Some(_), .. })
    }

    /// Takes what happened; says what to do, in this order.
    pub(super) fn on(&mut self, now: u64, event: Event) -> Vec<Act> {
        let mut acts = Vec::new();
        match event {
            Event::Begin => self.next(now, &mut acts),
            Event::Exited(exit) => self.exited(now, exit, &mut acts),
            Event::SessionGone => {
                if let State::Stopping { step, attempt, why, exit: Some(exit), .. } = self.state {
                    self.stopped(now, step, attempt, why, Some(exit), &mut acts);
                }
            }
            Event::NotStarted(message) => {
                if let State::Running { step, attempt, limit, .. } = self.state {
                    if self.packs(step) {
                        // The agent says what is wrong with the step's properties.
                        self.ask(step, limit, Some(message), &mut acts);
                    } else if let Err(end) = self.rested(step, Err(message), &mut acts) {
                        self.ended(now, step, attempt, end, &mut acts);
                    }
                }
            }
            Event::Answered { passed, message } => {
                if let State::Asking { step, .. } = self.state {
                    let reason = if passed { EndReason::ExitCode } else { EndReason::Agent };
                    self.ended(now, step, 1, End::new(reason, None, message), &mut acts);
                }
            }
            Event::Output => {
                if let State::Running { heard, .. } = &mut self.state {
                    *heard = now;
                }
            }
            Event::Asked(verb) => self.asked(now, verb, &mut acts),
            Event::Changed(file) => self.changed(now, file),
            Event::Cancel => self.cancel(now, &mut acts),
            Event::Stop(signal) => self.stop(now, signal, &mut acts),
            Event::Tick => {}
        }
        self.time(now, &mut acts);
        acts
    }

    /// Begins the next step, records those that are not to run, or finishes.
    fn next(&mut self, now: u64, acts: &mut Vec<Act>) {
        while let Some(index) = self.ends.iter().position(Option::is_none) {
            if let Some(reason) = self.skip(now, index) {
                let why = self.why_halted().filter(|_| !self.is_after(index));
                let end = End::new(reason, None, why);
                self.close(index, &end);
                acts.push(Act::End { step: index, end });
                continue;
            }
            if self.breaks_before(index) {
                self.pause(now, index, 0, None, acts);
            } else {
                self.begin(now, index, 1, acts);
            }
            return;
        }
        self.state = State::Over;
        if let Some(outcome) = self.outcome() {
            acts.push(Act::Finish(outcome));
        }
    }

    /// Why the step is not to run, if so.
    fn skip(&mut self, now: u64, index: usize) -> Option<EndReason> {
        if self.is_after(index) {
            if now >= self.run_limit(index) {
                return Some(EndReason::Cancelled);
            }
            return self.after_failed.then_some(EndReason::EarlierStepFailed);
        }
        if self.failed.is_some() && self.halt.is_none() {
            return Some(EndReason::EarlierStepFailed);
        }
        if self.halt.is_none() && now >= self.deadline {
            self.halt = Some(Halt { cancelled: false, at: now, step: index });
        }
        self.halt.map(|_| EndReason::Cancelled)
    }

    fn begin(&mut self, now: u64, step: usize, attempt: u32, acts: &mut Vec<Act>) {
        let Some(plan) = self.steps.get(step) else { return };
        let limit = plan.timeout_s.map(|seconds| now.saturating_add(seconds.saturating_mul(1000)));
        match plan.work {
            StepWork::Script(_) | StepWork::Pack { .. } | StepWork::Shell(_) | StepWork::Watch(_) => {
                self.state = State::Running { step, attempt, limit, heard: now };
                self.watch(now, step, limit);
                acts.push(Act::Start { step, attempt });
            }
            StepWork::Agent => self.ask(step, limit, None, acts),
        }
    }

    /// The agent's turn.
    fn ask(&mut self, step: usize, limit: Option<u64>, unpacked: Option<String>, acts: &mut Vec<Act>) {
        self.state = State::Asking { step, limit };
        self.handed = Some(step);
        acts.push(Act::Ask { step, unpacked });
    }

    /// Whether the step packs files before its turn with the agent.
    fn packs(&self, step: usize) -> bool {
        self.steps.get(step).is_some_and(|step| matches!(step.work, StepWork::Pack { .. }))
    }

    fn exited(&mut self, now: u64, exit: Exit, acts: &mut Vec<Act>) {
        match &mut self.state {
            State::Running { step, attempt, limit, .. } => {
                let (step, attempt, limit) = (*step, *attempt, *limit);
                if exit.code == 0 && self.packs(step) {
                    self.ask(step, limit, None, acts);
                } else if let Err(end) = self.rested(step, Ok(exit), acts) {
                    self.ended(now, step, attempt, end, acts);
                }
            }
            State::Stopping { exit: slot, .. } => *slot = Some(exit),
            State::Idle | State::Asking { .. } | State::Backoff { .. } | State::Paused { .. } | State::Over => {}
        }
    }

    /// A stopped attempt is over.
    fn stopped(&mut self, now: u64, step: usize, attempt: u32, why: Why, exit: Option<Exit>, acts: &mut Vec<Act>) {
        if why == Why::Reload {
            return self.reload_stopped(now, step, attempt, exit);
        }
        let end = self.end_of_stopped(step, why, exit);
        if let Why::Stop(signal) = why {
            self.close(step, &end);
            acts.extend([Act::End { step, end }, Act::Leave(128 + signal)]);
            self.state = State::Over;
        } else {
            self.ended(now, step, attempt, end, acts);
        }
    }

    /// An attempt is over: repeat it, or record its end and go on.
    fn ended(&mut self, now: u64, step: usize, attempt: u32, end: End, acts: &mut Vec<Act>) {
        let repeatable = matches!(
            end.reason,
            EndReason::ExitCode
                | EndReason::Signal
                | EndReason::TimedOut
                | EndReason::NoOutput
                | EndReason::OutOfMemory
        );
        let retries = self.steps.get(step).map_or(0, |step| step.retries);
        let halted = self.halt.is_some() && !self.is_after(step);
        if repeatable && !end.passed() && attempt <= retries && !halted {
            let pause_ms = 1000u64.checked_shl(attempt - 1).unwrap_or(LONGEST_PAUSE_MS).min(LONGEST_PAUSE_MS);
            acts.push(Act::Repeat { step, end: end.clone(), pause_ms });
            self.state = State::Backoff { step, attempt: attempt + 1, until: now + pause_ms, end };
            return;
        }
        if self.breaks_at(step, &end) {
            self.pause(now, step, attempt, Some(end), acts);
            return;
        }
        self.conclude(now, step, end, acts);
    }

    /// Records a step's end and goes on.
    fn conclude(&mut self, now: u64, step: usize, end: End, acts: &mut Vec<Act>) {
        self.close(step, &end);
        acts.push(Act::End { step, end });
        self.next(now, acts);
    }

    /// Keeps a step's end.
    fn close(&mut self, step: usize, end: &End) {
        let continues = self.steps.get(step).is_some_and(|step| step.continue_on_failure);
        if !end.passed() && !end.skipped() && !continues {
            if self.is_after(step) {
                self.after_failed = true;
            } else {
                self.failed.get_or_insert(step);
            }
        }
        self.reload = None;
        if let Some(slot @ None) = self.ends.get_mut(step) {
            *slot = Some(end.clone());
        }
    }

    fn cancel(&mut self, now: u64, acts: &mut Vec<Act>) {
        let next = self.ends.iter().position(Option::is_none).unwrap_or_default();
        let step = self.current().unwrap_or(next);
        // The result stands once the after-steps run.
        if self.halt.is_some() || self.is_after(step) || self.state == State::Over {
            return;
        }
        self.halt = Some(Halt { cancelled: true, at: now, step });
        self.end_current(now, Why::Run, acts);
    }

    fn stop(&mut self, now: u64, signal: i32, acts: &mut Vec<Act>) {
        match &mut self.state {
            State::Over => {}
            State::Idle => {
                self.state = State::Over;
                acts.push(Act::Leave(128 + signal));
            }
            State::Stopping { why, .. } => *why = Why::Stop(signal),
            State::Running { .. } | State::Asking { .. } | State::Backoff { .. } | State::Paused { .. } => {
                self.end_current(now, Why::Stop(signal), acts);
            }
        }
    }

    /// Ends what is going on: at once, or by stopping the session.
    fn end_current(&mut self, now: u64, why: Why, acts: &mut Vec<Act>) {
        match self.state.clone() {
            State::Running { step, attempt, .. } => {
                let (exit, kill_at) = (self.reload.as_ref().and_then(|reload| reload.ended), now + self.grace_ms(step));
                self.state = State::Stopping { step, attempt, why, exit, kill_at, killed: false };
                acts.push(Act::Terminate);
            }
            State::Asking { step, .. } => self.stopped(now, step, 1, why, None, acts),
            // Its last attempt failed by itself, and that is its result.
            State::Backoff { step, end, .. } | State::Paused { step, failed: Some(end), .. } if why == Why::Run => {
                self.conclude(now, step, end, acts);
            }
            State::Backoff { step, attempt, .. } | State::Paused { step, attempt, .. } => {
                self.stopped(now, step, attempt, why, None, acts);
            }
            // What was to start again does not.
            State::Stopping { step, attempt, why: Why::Reload, exit, kill_at, killed } => {
                self.state = State::Stopping { step, attempt, why, exit, kill_at, killed };
            }
            State::Idle | State::Stopping { .. } | State::Over => {}
        }
    }

    fn is_after(&self, step: usize) -> bool {
        self.steps.get(step).is_some_and(|step| step.after)
    }
}

/// The end of an attempt that nobody stopped.
fn by_itself(exit: Exit) -> End {
    if exit.out_of_memory && exit.code != 0 {
        End::new(EndReason::OutOfMemory, Some(exit.code), Some("killed: out of memory".into()))
    } else if exit.signalled {
        End::new(EndReason::Signal, Some(exit.code), Some(words::killed(exit.code)))
    } else {
        End::new(EndReason::ExitCode, Some(exit.code), None)
    }
}

#[cfg(test)]
mod tests;
