//! How steps end that were stopped, and a run by the ends of its steps. Part of the schedule.
//!
//! **Invariant:** as the schedule's: a run passes by its steps' ends alone.

use super::{End, Exit, Halt, Schedule, Why};
use crate::runner::words;
use crate::wire::{EndReason, StepWork};

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::runner) struct Outcome {
    /// Whether every step passed or was set to continue.
    pub(in crate::runner) passed: bool,
    /// Reason of the run's condition when it did not pass.
    pub(in crate::runner) reason: Option<&'static str>,
    /// Index of the step that failed first.
    pub(in crate::runner) failed: Option<usize>,
    /// For people.
    pub(in crate::runner) message: Option<String>,
}

impl Schedule {
    /// How an attempt ended that was stopped.
    pub(super) fn end_of_stopped(&self, step: usize, why: Why, exit: Option<Exit>) -> End {
        let code = exit.map(|exit| exit.code);
        let plan = self.steps.get(step);
        match why {
            Why::TimedOut => End::new(EndReason::TimedOut, code, plan.map(words::ran_longer)),
            Why::NoOutput => End::new(EndReason::NoOutput, code, plan.map(words::printed_nothing)),
            // A script that ended well by itself in the same moment: that is its result.
            Why::Run
                if exit == Some(Exit::default()) && plan.is_some_and(|it| matches!(it.work, StepWork::Script(_))) =>
            {
                End::new(EndReason::ExitCode, code, None)
            }
            Why::Finished => End::new(EndReason::ExitCode, Some(0), None),
            Why::Run if !self.is_after(step) => End::new(EndReason::Cancelled, code, self.why_halted()),
            Why::Run | Why::Reload | Why::Stop(_) => End::new(EndReason::Cancelled, code, None),
        }
    }

    /// Why steps are stopped, or not begun, if nobody cancelled.
    pub(super) fn why_halted(&self) -> Option<String> {
        self.halt.filter(|halt| !halt.cancelled).map(|_| words::run_took_longer(self.timeout_s))
    }

    /// How the run ends by what is known; `None` while a step before the after-steps is open.
    pub(in crate::runner) fn outcome(&self) -> Option<Outcome> {
        let total = self.steps.iter().filter(|step| !step.after).count();
        let mut passed = self.halt.is_none();
        for (step, end) in self.steps.iter().zip(&self.ends).filter(|(step, _)| !step.after) {
            let end = end.as_ref()?;
            passed &= end.passed() || step.continue_on_failure && !end.skipped();
        }
        if passed {
            return Some(Outcome { passed, reason: None, failed: None, message: None });
        }
        let name = |step: usize| self.steps.get(step).map_or("", |step| step.name.as_str());
        if let Some(Halt { cancelled, step, .. }) = self.halt {
            let (reason, message) = words::halted(cancelled, name(step), self.timeout_s);
            let failed = self.failed.or((!cancelled).then_some(step));
            return Some(Outcome { passed, reason: Some(reason), failed, message: Some(message) });
        }
        let (reason, message) = self
            .failed
            .and_then(|failed| Some((failed, self.steps.get(failed)?, self.ends.get(failed)?.as_ref()?)))
            .map_or((words::UNKNOWN, None), |(failed, step, end)| {
                let (reason, message) = words::failed(step, end, failed + 1, total);
                (reason, Some(message))
            });
        Some(Outcome { passed, reason: Some(reason), failed: self.failed, message })
    }
}
