//! What following is to do, and who does something for the run beside it.
//!
//! **Invariant:** plain data; `watching` is what a mere view does.

use crate::{
    api::{condition::reason, status::StepPhase},
    client::{
        args::ExitCodeOf,
        event::Event,
        exit::Exit,
        fault::{Fault, Stop},
        track::Tail,
        view::RunView,
    },
};
use jiff::Timestamp;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What the first Ctrl-C does to the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::client) enum Interrupt {
    /// Cancels it, and following goes on.
    Cancel,
    /// Nothing: it ends the view.
    Detach,
    /// Ends the watched step with success, and following goes on; the second one cancels.
    Finish,
}

/// Who does something for the run beside following.
#[derive(Debug)]
pub(in crate::client) struct Aside {
    /// Is told each state of the run.
    pub run: watch::Sender<RunView>,
    /// What it has to tell.
    pub said: mpsc::Receiver<Event>,
    /// Why it cannot go on.
    pub failed: mpsc::Receiver<Stop>,
    /// It ends the wait before this step, which is told to nobody.
    pub lets_begin: String,
}

/// An after-step without which what was asked for is not done, though the run itself has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::client) struct MustPass {
    /// The step.
    pub step: String,
    /// What there is not without it.
    pub missed: String,
}

impl MustPass {
    /// Why it is not done, if it is not.
    pub(super) fn judge(&self, view: &RunView) -> Option<Fault> {
        let why = match view.step(&self.step) {
            Some(step) if step.phase == StepPhase::Succeeded => return None,
            Some(step) => step.message.clone().filter(|why| !why.is_empty()),
            None => None,
        };
        let why = why.unwrap_or_else(|| format!("step {} did not run to its end", self.step));
        Some(Fault::new(reason::COMMIT_FAILED, Exit::Failed, format!("{}: {why}", self.missed)))
    }
}

/// What following is to do.
#[derive(Debug)]
pub(in crate::client) struct Options {
    /// The run was made by us, just now: how long the answer took.
    pub made: Option<Duration>,
    /// What the first Ctrl-C does; none: it ends the view.
    pub interrupt: Option<Interrupt>,
    /// Whether step output is read.
    pub with_output: bool,
    /// Longest time to follow.
    pub timeout: Option<Duration>,
    /// Whose exit code a failed run ends with.
    pub exit_code: ExitCodeOf,
    /// Output that was printed before is left out.
    pub since: Option<Timestamp>,
    /// Of the output that is there already only these last lines are shown.
    pub tail: Option<Tail>,
    /// Who follows sits at a terminal that `shell` steps are given.
    pub attach: bool,
    /// What is told after the run's name.
    pub notes: Vec<String>,
    /// Who does something for the run meanwhile.
    pub aside: Option<Aside>,
    /// What has to pass beside the run.
    pub must_pass: Option<MustPass>,
}

impl Options {
    /// To see a run of somebody to its end.
    #[must_use]
    pub(in crate::client) fn watching() -> Self {
        Self {
            made: None,
            interrupt: None,
            with_output: true,
            timeout: None,
            exit_code: ExitCodeOf::Windlass,
            since: None,
            tail: None,
            attach: false,
            notes: Vec::new(),
            aside: None,
            must_pass: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(json!([{"name": "commit", "phase": "Succeeded"}]), None)]
    #[case(json!([{"name": "commit", "phase": "Failed", "message": "why"}]), Some("no image: why"))]
    #[case(json!([{"name": "commit", "phase": "Skipped"}]), Some("no image: step commit did not run to its end"))]
    #[case(json!([{"name": "other", "phase": "Failed"}]), Some("no image: step commit did not run to its end"))]
    fn what_did_not_pass_is_told(#[case] steps: serde_json::Value, #[case] told: Option<&str>) {
        let mut view = RunView::default();
        view.status.steps = serde_json::from_value(steps).unwrap();
        let fault = MustPass { step: "commit".into(), missed: "no image".into() }.judge(&view);
        assert_eq!(fault.as_ref().map(|fault| fault.message.as_str()), told);
        assert!(fault.is_none_or(|fault| fault.exit == Exit::Failed && fault.reason == "CommitFailed"));
    }
}
