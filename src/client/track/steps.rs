//! What becomes of steps and of the run, as events with their times. Part of the tracker.
//!
//! **Invariant:** results come from the status only; each begin and each end is told once.

use super::{DRAIN_MS, Output, Told, Tracker};
use crate::{
    api::status::{StepPhase, StepStatus},
    client::{
        event::{Event, RunEnd, StepEnd, StepResult},
        view::{Outcome, is_fine, millis_between},
    },
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// A status that reaches us later than this does not say when things were.
const LATE_MS: u64 = 1_500;

impl Tracker {
    /// Tells that a step begins, and before the first that all is in place.
    pub(super) fn start(&mut self, i: usize, now_ms: u64, events: &mut Told) {
        let at_ms = self.begun_at(i).unwrap_or(now_ms);
        if !self.prepared {
            self.prepared = true;
            let prepared = Event::Prepared {
                pod: self.view.status.pod_name.clone().unwrap_or_default(),
                node: self.view.status.node_name.clone().unwrap_or_default(),
                source: self.view.status.source_revision.clone(),
                took_ms: self.run_ms(at_ms),
            };
            events.push((at_ms, prepared));
        }
        self.current = Some(self.current.map_or(i, |c| c.max(i)));
        let Some(track) = self.steps.get_mut(i).filter(|t| !t.started) else { return };
        track.started = true;
        events.push((at_ms, Event::StepStarted { step: track.info.clone() }));
    }

    /// When a step began: as the runner's line says, else as the status says, else as we saw it.
    fn begun_at(&self, i: usize) -> Option<u64> {
        let track = self.steps.get(i)?;
        let line = track.begin_line.and_then(|stamp| self.ms(stamp));
        line.or_else(|| self.told(track.begun_ms, track.status.as_ref().and_then(|s| s.started_at.as_ref())))
    }

    /// When a step was over, in the same way.
    fn over_at(&self, i: usize) -> Option<u64> {
        let track = self.steps.get(i)?;
        let line = track.end_line.and_then(|stamp| self.ms(stamp));
        line.or_else(|| self.told(track.over_ms, track.status.as_ref().and_then(|s| s.finished_at.as_ref())))
    }

    /// The status, unless it has whole seconds, as earlier versions wrote them: then our clock is finer, and believed if we
    /// were there and it is not late.
    fn told(&self, ours: Option<u64>, status: Option<&MicroTime>) -> Option<u64> {
        let theirs = status.and_then(|time| self.ms(time.0));
        match (ours.filter(|_| self.fresh), theirs) {
            (Some(ours), Some(theirs)) if !status.is_some_and(is_fine) && ours.abs_diff(theirs) <= LATE_MS => {
                Some(ours)
            }
            (ours, theirs) => theirs.or(ours),
        }
    }

    /// Tells what a running step says of itself.
    pub(super) fn progress(&mut self, i: usize, now_ms: u64, events: &mut Told) {
        let Some(track) = self.steps.get_mut(i).filter(|t| t.started) else { return };
        // What a step waits for is said of the run.
        let Some(status) = track.status.as_ref().filter(|s| s.phase == StepPhase::Running) else { return };
        if status.message.is_some() && status.message != track.progress {
            track.progress.clone_from(&status.message);
            let message = status.message.clone().unwrap_or_default();
            events.push((now_ms, Event::Progress { step: track.info.clone(), message }));
        }
    }

    /// Tells how a step ended, if its status says so.
    pub(super) fn finish(&mut self, i: usize, now_ms: u64, events: &mut Told) {
        let Some(track) = self.steps.get_mut(i).filter(|t| !t.finished) else { return };
        let Some(status) = track.status.clone().filter(|s| s.phase.is_final()) else { return };
        if has_begun(&status) && !track.started {
            self.start(i, now_ms, events);
        }
        let over_ms = self.over_at(i);
        // What was skipped was never at a time of its own.
        let begun = has_begun(&status) || self.steps.get(i).is_some_and(|t| t.started);
        let at_ms = over_ms.filter(|_| begun).unwrap_or(self.told_ms);
        let took_ms = self.begun_at(i).zip(over_ms).filter(|_| begun).map(|(from, to)| to.saturating_sub(from));
        let Some(track) = self.steps.get_mut(i) else { return };
        track.finished = true;
        // A digest without a tag was only about to be pushed.
        let images: Vec<_> = status.images.iter().filter(|image| !image.tags.is_empty()).cloned().collect();
        for image in &images {
            events.push((at_ms, Event::Image { step: track.info.name.clone(), image: image.clone() }));
        }
        let result = match status.phase {
            StepPhase::Succeeded => StepResult::Succeeded,
            StepPhase::Skipped => StepResult::Skipped,
            StepPhase::Cancelled => StepResult::Cancelled,
            StepPhase::Failed | StepPhase::Pending | StepPhase::Running | StepPhase::Waiting => StepResult::Failed,
        };
        let passed = result == StepResult::Succeeded;
        let end = StepEnd {
            step: track.info.clone(),
            result,
            exit_code: status.exit_code,
            reason: status.reason.clone().filter(|_| !passed).unwrap_or_default(),
            message: status.message.clone().unwrap_or_default(),
            took_ms,
            images,
        };
        events.push((at_ms, Event::StepFinished(end)));
    }

    /// Tells the end of the run, once its output has come or too long did not.
    pub(super) fn end(&mut self, now_ms: u64, events: &mut Told) {
        let (Some(outcome), Some(end_ms), false) = (self.view.outcome(), self.end_ms, self.ended) else { return };
        let drained = self.output == Output::Ended && self.queue.is_empty();
        let last_ms = self.heard_ms.map_or(end_ms, |heard| heard.max(end_ms));
        if !drained && now_ms.saturating_sub(last_ms) < DRAIN_MS {
            return;
        }
        if self.tail.take().is_some() {
            self.drain(now_ms, events);
        }
        for i in 0..self.steps.len() {
            self.finish(i, now_ms, events);
        }
        self.ended = true;
        let (why, message) = self.view.why();
        let stopped = self.view.status.steps.iter().find(|s| s.phase == StepPhase::Cancelled);
        let step = match outcome {
            Outcome::Succeeded => None,
            Outcome::Failed => self.view.failed_step(),
            Outcome::Cancelled => stopped.or_else(|| self.view.failed_step()),
        };
        let took_ms = self.view.took_ms().unwrap_or_else(|| self.run_ms(end_ms));
        let queued_ms = self.view.began().zip(self.view.status.start_time.as_ref().map(|t| t.0));
        let queued_ms = queued_ms.and_then(|(from, to)| millis_between(from, to)).unwrap_or_default();
        let began_ms = end_ms - self.run_ms(end_ms);
        let end = RunEnd {
            outcome,
            reason: why.to_owned(),
            message: message.to_owned(),
            took_ms,
            step: step.map(|s| s.name.clone()),
            exit_code: step.and_then(|s| s.exit_code),
            images: self.view.pushed(),
        };
        // The moment that the status names as the end.
        events.push((began_ms + queued_ms + took_ms, Event::RunFinished(end)));
    }
}

/// Whether a step got so far as to run.
pub(super) fn has_begun(status: &StepStatus) -> bool {
    match status.phase {
        StepPhase::Pending | StepPhase::Skipped => false,
        StepPhase::Running | StepPhase::Waiting | StepPhase::Succeeded | StepPhase::Failed => true,
        StepPhase::Cancelled => status.started_at.is_some(),
    }
}
