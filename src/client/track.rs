//! Puts the two views of a run together: status updates and step output, each late in its own way,
//! become one stream of events in the order in which a person would tell it.
//!
//! `follow` feeds it. **Invariant:** pure: the clock is an argument. Results come from the status only;
//! step output is never held longer than [`HOLD_MS`].

use super::{
    event::{Event, RunEnd, StepEnd, StepResult},
    header::{Line, Reader},
    logtext::Piece,
    view::{Outcome, RunView, StepInfo, millis_between},
};
use crate::api::{
    condition::reason,
    status::{StepPhase, StepStatus},
};
use jiff::Timestamp;
use std::collections::VecDeque;

/// How long the output of a step waits for the status of the steps before it.
pub(super) const HOLD_MS: u64 = 1_500;
/// How long a status waits, in silence, for output that may still be on its way.
pub(super) const GRACE_MS: u64 = 1_000;
/// How long the end of the run waits, in silence, for the end of the output.
pub(super) const DRAIN_MS: u64 = 5_000;

#[derive(Debug)]
enum Item {
    Begin { step: usize, stamp: Option<Timestamp> },
    End { step: usize, stamp: Option<Timestamp> },
    Note(String),
    Output(Piece),
}

#[derive(Debug, Default)]
struct Track {
    info: StepInfo,
    status: Option<StepStatus>,
    /// When the status first said that it had begun, and that it was over.
    begun_ms: Option<u64>,
    over_ms: Option<u64>,
    /// The runner's lines, by the clock of the node.
    begin_line: Option<Timestamp>,
    end_line: Option<Timestamp>,
    /// All of its output was shown.
    shown: bool,
    started: bool,
    finished: bool,
    progress: Option<String>,
}

/// Whether output can still come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Output {
    #[default]
    Expected,
    Ended,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    view: RunView,
    steps: Vec<Track>,
    queue: VecDeque<(u64, Item)>,
    reader: Reader,
    /// When output last came.
    heard_ms: Option<u64>,
    output: Output,
    current: Option<usize>,
    /// Whether the run is followed from its creation, so that our clock may measure it.
    fresh: bool,
    attempt: Option<u32>,
    waiting: Option<(String, String)>,
    resolved: bool,
    prepared: bool,
    end_ms: Option<u64>,
    ended: bool,
}

impl Tracker {
    /// For a run that was just made (`fresh`), or for one that is older.
    #[must_use]
    pub(super) fn new(fresh: bool) -> Self {
        Self { fresh, ..Self::default() }
    }

    /// Whether [`Event::RunFinished`] was given.
    #[must_use]
    pub(super) fn is_over(&self) -> bool {
        self.ended
    }

    /// The step that runs, as far as it was told.
    pub(super) fn running(&self) -> Option<&str> {
        self.steps.iter().find(|t| t.started && !t.finished).map(|t| t.info.name.as_str())
    }

    /// The run as last seen.
    #[must_use]
    pub(super) fn view(&self) -> &RunView {
        &self.view
    }

    /// A new state of the run.
    pub(super) fn status(&mut self, view: RunView, now_ms: u64) {
        let attempt = view.status.attempt;
        if attempt.is_some() && self.attempt.is_some() && attempt != self.attempt {
            // A new pod: its steps begin again.
            self.steps.clear();
            self.current = None;
            self.reader = Reader::default();
            self.heard_ms = None;
            self.prepared = false;
            self.output = Output::Expected;
        }
        self.attempt = attempt.or(self.attempt);
        if self.steps.len() != view.steps.len() {
            self.steps = view.steps.iter().map(|info| Track { info: info.clone(), ..Track::default() }).collect();
        }
        for track in &mut self.steps {
            let Some(status) = view.step(&track.info.name) else { continue };
            if track.begun_ms.is_none() && has_begun(status) {
                track.begun_ms = Some(now_ms);
            }
            if track.over_ms.is_none() && status.phase.is_final() {
                track.over_ms = Some(now_ms);
            }
            track.status = Some(status.clone());
        }
        if view.outcome().is_some() && self.end_ms.is_none() {
            self.end_ms = Some(now_ms);
        }
        self.view = view;
    }

    /// Output of the box.
    pub(super) fn output(&mut self, piece: Piece, now_ms: u64) {
        self.heard_ms = Some(now_ms);
        let stamp = piece.stamp.as_deref().and_then(|s| s.parse().ok());
        let item = match self.reader.read(&piece, &self.view.steps, &self.view.name) {
            Line::Begin(step) => Item::Begin { step, stamp },
            Line::End(step) => Item::End { step, stamp },
            Line::Note(message) => Item::Note(message),
            Line::Known => return,
            Line::Output => Item::Output(piece),
        };
        self.queue.push_back((now_ms, item));
    }

    /// No output will come any more from this pod.
    pub(super) fn output_ended(&mut self) {
        self.output = Output::Ended;
    }

    /// What can be told by now. To be called after each change and at least every 250 ms.
    pub(super) fn advance(&mut self, now_ms: u64) -> Vec<Event> {
        let mut events = Vec::new();
        self.announce(&mut events);
        self.drain(now_ms, &mut events);
        if self.queue.is_empty() {
            self.settle(now_ms, &mut events);
        }
        self.end(now_ms, &mut events);
        events
    }

    fn announce(&mut self, events: &mut Vec<Event>) {
        if !self.resolved && self.view.status.build_number.is_some() {
            self.resolved = true;
            events.push(Event::Resolved { build: self.view.status.build_number, steps: self.view.steps.clone() });
        }
        if self.view.outcome().is_some() {
            return;
        }
        let (why, message) = self.view.why();
        // Who has not been looked at yet, or runs, waits for nothing that could be named.
        if why.is_empty() || why == reason::RESOLVING || why == reason::RUNNING {
            self.waiting = None;
            return;
        }
        let waiting = (why.to_owned(), message.to_owned());
        if self.waiting.as_ref() != Some(&waiting) {
            events.push(Event::Waiting { reason: waiting.0.clone(), message: waiting.1.clone() });
            self.waiting = Some(waiting);
        }
    }

    fn drain(&mut self, now_ms: u64, events: &mut Vec<Event>) {
        while let Some((arrived_ms, item)) = self.queue.pop_front() {
            match item {
                Item::Output(piece) => {
                    let step = self.current.and_then(|i| self.steps.get(i)).map(|t| t.info.name.clone());
                    events.push(Event::Log { step, stamp: piece.stamp, bytes: piece.bytes });
                }
                Item::Note(message) => events.push(Event::Notice { message }),
                Item::End { step, stamp } => {
                    if let Some(track) = self.steps.get_mut(step) {
                        track.end_line = stamp;
                        track.shown = true;
                    }
                }
                Item::Begin { step, stamp } => {
                    let before = self.steps.get(..step).unwrap_or_default();
                    let told = before.iter().all(|t| t.finished || t.over_ms.is_some());
                    if !told && now_ms.saturating_sub(arrived_ms) < HOLD_MS && self.end_ms.is_none() {
                        self.queue.push_front((arrived_ms, Item::Begin { step, stamp }));
                        return;
                    }
                    for i in 0..step {
                        self.finish(i, now_ms, events);
                    }
                    if let Some(track) = self.steps.get_mut(step) {
                        track.begin_line = stamp;
                        track.begun_ms = Some(track.begun_ms.map_or(arrived_ms, |b| b.min(arrived_ms)));
                    }
                    self.start(step, now_ms, events);
                }
            }
        }
    }

    /// Tells what the status says beyond what the output showed.
    fn settle(&mut self, now_ms: u64, events: &mut Vec<Event>) {
        for i in 0..self.steps.len() {
            let Some(track) = self.steps.get(i) else { return };
            if track.finished {
                continue;
            }
            let overtaken = self.current.is_some_and(|c| c > i);
            let passed = track.shown || self.output == Output::Ended || overtaken;
            let due = |since: Option<u64>| since.is_some_and(|since| passed || self.is_silent(since, now_ms));
            let (begun_ms, over_ms, started) = (track.begun_ms, track.over_ms, track.started);
            let (begin_due, end_due) = (due(begun_ms), due(over_ms));
            if begun_ms.is_some() && !started {
                if !begin_due {
                    return;
                }
                self.start(i, now_ms, events);
            }
            self.progress(i, events);
            let skipped = begun_ms.is_none() && over_ms.is_some();
            if skipped || end_due {
                self.finish(i, now_ms, events);
            } else if over_ms.is_some() || !overtaken {
                return;
            }
        }
    }

    /// Whether nothing came for so long after `since` that nothing is on its way any more. The first
    /// connection to the pod gets more time.
    fn is_silent(&self, since: u64, now_ms: u64) -> bool {
        let patience_ms = if self.heard_ms.is_some() { GRACE_MS } else { DRAIN_MS };
        now_ms.saturating_sub(self.heard_ms.map_or(since, |heard| heard.max(since))) >= patience_ms
    }

    fn start(&mut self, i: usize, now_ms: u64, events: &mut Vec<Event>) {
        if !self.prepared {
            self.prepared = true;
            let first = self.view.status.steps.first().and_then(|s| s.started_at.as_ref()).map(|t| t.0);
            let by_status = self.view.created.zip(first).and_then(|(from, to)| millis_between(from, to));
            let begun_ms = self.steps.get(i).and_then(|t| t.begun_ms).unwrap_or(now_ms);
            events.push(Event::Prepared {
                pod: self.view.status.pod_name.clone().unwrap_or_default(),
                node: self.view.status.node_name.clone().unwrap_or_default(),
                source: self.view.status.source_revision.clone(),
                took_ms: if self.fresh { begun_ms } else { by_status.unwrap_or(begun_ms) },
            });
        }
        self.current = Some(self.current.map_or(i, |c| c.max(i)));
        let Some(track) = self.steps.get_mut(i).filter(|t| !t.started) else { return };
        track.started = true;
        events.push(Event::StepStarted { step: track.info.clone() });
    }

    fn progress(&mut self, i: usize, events: &mut Vec<Event>) {
        let Some(track) = self.steps.get_mut(i).filter(|t| t.started) else { return };
        let Some(status) = track.status.as_ref().filter(|s| !s.phase.is_final()) else { return };
        if status.message.is_some() && status.message != track.progress {
            track.progress.clone_from(&status.message);
            let message = status.message.clone().unwrap_or_default();
            events.push(Event::Progress { step: track.info.clone(), message });
        }
    }

    fn finish(&mut self, i: usize, now_ms: u64, events: &mut Vec<Event>) {
        let fresh = self.fresh;
        let Some(track) = self.steps.get_mut(i).filter(|t| !t.finished) else { return };
        let Some(status) = track.status.clone().filter(|s| s.phase.is_final()) else { return };
        if has_begun(&status) && !track.started {
            self.start(i, now_ms, events);
        }
        let Some(track) = self.steps.get_mut(i) else { return };
        track.finished = true;
        for image in &status.images {
            events.push(Event::Image { step: track.info.name.clone(), image: image.clone() });
        }
        let result = match status.phase {
            StepPhase::Succeeded => StepResult::Succeeded,
            StepPhase::Skipped => StepResult::Skipped,
            StepPhase::Cancelled => StepResult::Cancelled,
            StepPhase::Failed | StepPhase::Pending | StepPhase::Running | StepPhase::Waiting => StepResult::Failed,
        };
        let passed = result == StepResult::Succeeded;
        events.push(Event::StepFinished(StepEnd {
            step: track.info.clone(),
            result,
            exit_code: status.exit_code,
            reason: status.reason.clone().filter(|_| !passed).unwrap_or_default(),
            message: status.message.clone().unwrap_or_default(),
            took_ms: took_ms(track, &status, fresh),
            images: status.images.clone(),
        }));
    }

    fn end(&mut self, now_ms: u64, events: &mut Vec<Event>) {
        let (Some(outcome), Some(end_ms), false) = (self.view.outcome(), self.end_ms, self.ended) else { return };
        let drained = self.output == Output::Ended && self.queue.is_empty();
        let last_ms = self.heard_ms.map_or(end_ms, |heard| heard.max(end_ms));
        if !drained && now_ms.saturating_sub(last_ms) < DRAIN_MS {
            return;
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
        let took_ms = if self.fresh { Some(end_ms) } else { self.view.took_ms() };
        events.push(Event::RunFinished(RunEnd {
            outcome,
            reason: why.to_owned(),
            message: message.to_owned(),
            took_ms: took_ms.unwrap_or(end_ms),
            step: step.map(|s| s.name.clone()),
            exit_code: step.and_then(|s| s.exit_code),
            images: self.view.images().cloned().collect(),
        }));
    }
}

fn has_begun(status: &StepStatus) -> bool {
    match status.phase {
        StepPhase::Pending | StepPhase::Skipped => false,
        StepPhase::Running | StepPhase::Waiting | StepPhase::Succeeded | StepPhase::Failed => true,
        StepPhase::Cancelled => status.started_at.is_some(),
    }
}

/// Between the runner's two lines by the node's clock if we saw both; else by our clock if it agrees with the
/// status, whose times are whole seconds; else by the status.
fn took_ms(track: &Track, status: &StepStatus, fresh: bool) -> Option<u64> {
    if !has_begun(status) {
        return None;
    }
    if let Some(took) = track.begin_line.zip(track.end_line).and_then(|(from, to)| millis_between(from, to)) {
        return Some(took);
    }
    let by_status = status.started_at.as_ref().zip(status.finished_at.as_ref());
    let by_status = by_status.and_then(|(from, to)| millis_between(from.0, to.0));
    let ours = track.begun_ms.zip(track.over_ms).and_then(|(from, to)| to.checked_sub(from)).filter(|_| fresh);
    match (ours, by_status) {
        (Some(ours), Some(theirs)) if ours.abs_diff(theirs) > 1_500 => Some(theirs),
        (ours, by_status) => ours.or(by_status),
    }
}

#[cfg(test)]
mod tests;
