//! Waiting for a person: breakpoints, and what a person may ask of the run. Part of the schedule.
//!
//! **Invariant:** as the schedule's. What a person may ask is judged before it is done, and a refusal
//! says what the run does instead.

use super::{Act, End, EndReason, Schedule, State, Why};
use crate::runner::words;
use crate::wire::{Breakpoints, PlanStep, StepWork};

/// How often in a run a person may have failed steps repeated: each takes space in the journal.
pub(in crate::runner) const REPEATS: u32 = 100;

/// What a person asks of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::runner) enum Verb {
    /// Go on from where the run waits.
    Continue,
    /// End a step that ends only when told to, with success.
    Finish,
    /// Repeat the step that failed, in the same box.
    Retry,
}

impl Schedule {
    /// The same run with these breakpoints.
    pub(in crate::runner) fn with_breakpoints(mut self, breakpoints: Breakpoints) -> Self {
        self.breakpoints = breakpoints;
        self
    }

    /// Whether the run waits at a breakpoint.
    pub(in crate::runner) fn is_paused(&self) -> bool {
        matches!(self.state, State::Paused { .. })
    }

    /// Whether a person may ask this now, and which step it is about.
    ///
    /// # Errors
    /// Why not, for people.
    pub(in crate::runner) fn may(&self, verb: Verb, named: Option<&str>) -> Result<usize, String> {
        let (step, plan) = match self.current().and_then(|step| Some((step, self.steps.get(step)?))) {
            Some(current) => current,
            None if self.state == State::Over => return Err("the run is over".into()),
            None => return Err("the steps have not begun".into()),
        };
        let name = &plan.name;
        if let Some(other) = named.filter(|named| named != name) {
            return Err(format!("step {other} does not wait; the run is at step {name}"));
        }
        match (&self.state, verb) {
            (State::Running { .. }, Verb::Continue | Verb::Finish) if ends_when_told(plan) => Ok(step),
            // It is about to start again.
            (State::Stopping { why: Why::Reload, .. }, Verb::Continue | Verb::Finish) => Ok(step),
            (State::Paused { .. }, Verb::Continue) => Ok(step),
            (State::Paused { .. }, Verb::Finish) => {
                Err(format!("step {name} waits at a breakpoint, which finish does not end; use continue"))
            }
            // Packing that ended before the agent heard of it is the runner's own to repeat.
            (State::Paused { failed: Some(_), .. }, Verb::Retry) if self.handed == Some(step) => Err(format!(
                "step {name} was handed to the agent, which takes a step once; start the run again instead"
            )),
            (State::Paused { failed: Some(_), .. }, Verb::Retry) if self.repeated >= REPEATS => {
                Err(format!("steps were repeated {REPEATS} times; start the run again instead"))
            }
            (State::Paused { failed: Some(_), .. }, Verb::Retry) => Ok(step),
            (State::Paused { failed: None, .. }, Verb::Retry) => {
                Err(format!("step {name} has not run yet; use continue"))
            }
            (State::Running { .. }, Verb::Finish) => {
                Err(format!("step {name} ends by itself; finish is for steps that wait to be told"))
            }
            (State::Stopping { .. }, _) => Err(format!("step {name} is being stopped")),
            (State::Backoff { .. }, _) => Err(format!("step {name} is about to be repeated by itself")),
            (State::Idle | State::Running { .. } | State::Asking { .. } | State::Over, _) => {
                Err(format!("the run waits for nobody: step {name} runs"))
            }
        }
    }

    /// Does what a person asked.
    pub(super) fn asked(&mut self, now: u64, verb: Verb, acts: &mut Vec<Act>) {
        if self.may(verb, None).is_err() {
            return;
        }
        match (self.state.clone(), verb) {
            (State::Paused { step, attempt, .. }, Verb::Retry) => {
                self.repeated += 1;
                self.begin(now, step, attempt + 1, acts);
            }
            (State::Paused { step, failed: Some(end), .. }, _) => self.conclude(now, step, end, acts),
            (State::Paused { step, failed: None, .. }, _) => self.begin(now, step, 1, acts),
            (..) => self.end_current(now, Why::Finished, acts),
        }
    }

    /// Whether there is a breakpoint before this step.
    pub(super) fn breaks_before(&self, step: usize) -> bool {
        let plan = self.steps.get(step).filter(|plan| !plan.after);
        plan.is_some_and(|plan| self.breakpoints.before.contains(&plan.name))
    }

    /// Whether the run waits as this step ended so.
    pub(super) fn breaks_at(&self, step: usize, end: &End) -> bool {
        let stopped = matches!(end.reason, EndReason::Cancelled | EndReason::EarlierStepFailed);
        let matters = self.steps.get(step).is_some_and(|plan| !plan.after && !plan.continue_on_failure);
        self.breakpoints.at_failure && !end.passed() && !stopped && matters && self.halt.is_none()
    }

    /// Waits for a person.
    pub(super) fn pause(&mut self, now: u64, step: usize, attempt: u32, failed: Option<End>, acts: &mut Vec<Act>) {
        let limit = now.saturating_add(self.breakpoints.timeout_s.saturating_mul(1000));
        acts.push(Act::Pause { step, failed: failed.clone() });
        self.state = State::Paused { step, attempt, failed, limit };
    }

    /// Ends a wait whose time is over: a failure stays what it was, and a step that nobody let begin
    /// has not passed.
    pub(super) fn waited(&mut self, now: u64, step: usize, failed: Option<End>, limit: u64, acts: &mut Vec<Act>) {
        let run_is_over = now >= self.run_limit(step);
        match failed {
            Some(end) if run_is_over || now >= limit => self.conclude(now, step, end, acts),
            None if run_is_over => self.run_over(now, step, acts),
            None if now >= limit => {
                let message = words::waited(self.breakpoints.timeout_s);
                self.conclude(now, step, End::new(EndReason::TimedOut, None, Some(message)), acts);
            }
            Some(_) | None => {}
        }
    }
}

/// Whether a step runs until a person ends it.
fn ends_when_told(step: &PlanStep) -> bool {
    match step.work {
        StepWork::Shell(_) | StepWork::Watch(_) => true,
        StepWork::Script(_) | StepWork::Agent | StepWork::Pack { .. } => false,
    }
}
