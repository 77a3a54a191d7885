//! How a run ends by the ends of its steps. Part of the schedule.
//!
//! **Invariant:** as the schedule's: a run passes by its steps' ends alone.

use super::{Halt, Schedule};
use crate::runner::words;

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
