//! Puts the two views of a run together: status updates and step output, each late in its own way,
//! become one stream of events in the order in which a person would tell it.
//!
//! `follow` feeds it. All its times are milliseconds since `origin`, by the cluster's clock as far as we know it.
//!
//! **Invariant:** pure: the clock is an argument. Results come from the status only; step output is never held
//! longer than [`HOLD_MS`]. An event has the time of the thing, not of its telling, and never one before the
//! event before it.

use super::{
    event::{Event, RunEnd, StepEnd, StepResult},
    header::{Line, Reader},
    logtext::Piece,
    view::{Outcome, RunView, StepInfo, is_fine, millis_between},
};
use crate::api::{
    condition::reason,
    status::{StepPhase, StepStatus},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use std::collections::VecDeque;

/// How long the output of a step waits for the status of the steps before it.
pub(super) const HOLD_MS: u64 = 1_500;
/// How long a status waits, in silence, for output that may still be on its way.
pub(super) const GRACE_MS: u64 = 1_000;
/// A status that reaches us later than this does not say when things were.
const LATE_MS: u64 = 1_500;
/// How long the end of the run waits, in silence, for the end of the output.
pub(super) const DRAIN_MS: u64 = 5_000;

#[derive(Debug)]
enum Item {
    Begin { step: usize },
    End { step: usize },
    Note(String),
    Output(Piece),
}

/// Something of the output, with when it came and when it was printed, by the clock of the node.
#[derive(Debug)]
struct Entry {
    arrived_ms: u64,
    stamp: Option<Timestamp>,
    item: Item,
}

/// Events with their times.
type Told = Vec<(u64, Event)>;

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
    queue: VecDeque<Entry>,
    reader: Reader,
    /// When output last came.
    heard_ms: Option<u64>,
    output: Output,
    current: Option<usize>,
    /// Whether the run is followed from its creation, so that our clock may measure it.
    fresh: bool,
    /// What times count from.
    origin: Timestamp,
    /// Output that was printed before is left out; whether the line that comes now is.
    since: Option<Timestamp>,
    leaves_out: bool,
    /// Time of the last event.
    told_ms: u64,
    /// A cancel was told by who asked for it.
    cancel_told: bool,
    attempt: Option<u32>,
    /// A new attempt that was not told yet.
    again: Option<String>,
    waiting: Option<(String, String)>,
    resolved: bool,
    prepared: bool,
    end_ms: Option<u64>,
    ended: bool,
}

impl Tracker {
    /// For a run that was just made (`fresh`), or for one that is older.
    #[must_use]
    pub(super) fn new(fresh: bool, origin: Timestamp, since: Option<Timestamp>) -> Self {
        Self { fresh, origin, since, ..Self::default() }
    }

    /// That the run is being cancelled was told; the status need not be quoted for it.
    pub(super) fn cancel_was_told(&mut self) {
        self.cancel_told = true;
    }

    /// Milliseconds of the run's own time, as its status counts it.
    #[must_use]
    pub(super) fn run_ms(&self, ms: u64) -> u64 {
        let began = self.view.began().and_then(|began| millis_between(self.origin, began));
        ms.saturating_sub(began.unwrap_or_default())
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
            let pod = view.status.pod_name.as_deref().unwrap_or_default();
            self.again = attempt.map(|attempt| format!("attempt {attempt}, in pod {pod}: all steps begin again"));
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
            Line::Begin(step) => Item::Begin { step },
            Line::End(step) => Item::End { step },
            Line::Note(message) => Item::Note(message),
            Line::Known => return,
            Line::Output => {
                if let (Some(since), Some(stamp)) = (self.since, stamp) {
                    self.leaves_out = stamp < since;
                }
                if self.leaves_out {
                    return;
                }
                Item::Output(piece)
            }
        };
        self.queue.push_back(Entry { arrived_ms: now_ms, stamp, item });
    }

    /// No output will come any more from this pod.
    pub(super) fn output_ended(&mut self) {
        self.output = Output::Ended;
    }

    /// What can be told by now, each with when it happened. To be called after each change and at least every
    /// 250 ms.
    pub(super) fn advance(&mut self, now_ms: u64) -> Told {
        let mut events = Vec::new();
        self.announce(now_ms, &mut events);
        self.drain(now_ms, &mut events);
        if self.queue.is_empty() {
            self.settle(now_ms, &mut events);
        }
        self.end(now_ms, &mut events);
        for (at_ms, _) in &mut events {
            self.told_ms = self.told_ms.max(*at_ms);
            *at_ms = self.told_ms;
        }
        events
    }

    /// The node's time, in ours.
    fn ms(&self, time: Timestamp) -> Option<u64> {
        millis_between(self.origin, time)
    }

    fn announce(&mut self, now_ms: u64, events: &mut Told) {
        if !self.resolved && self.view.status.build_number.is_some() {
            self.resolved = true;
            let resolved = Event::Resolved { build: self.view.status.build_number, steps: self.view.steps.clone() };
            events.push((self.told_ms, resolved));
        }
        if let Some(message) = self.again.take() {
            events.push((now_ms, Event::Notice { message }));
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
        if why == reason::CANCELLING && (self.cancel_told || !self.stops_something()) {
            self.waiting = None;
            return;
        }
        let waiting = (why.to_owned(), message.to_owned());
        if self.waiting.as_ref() != Some(&waiting) {
            let event = Event::Waiting { reason: waiting.0.clone(), message: waiting.1.clone() };
            events.push((if self.fresh { now_ms } else { self.told_ms }, event));
            self.waiting = Some(waiting);
        }
    }

    /// Whether a step runs that a cancel has to stop. After that step has ended a wait for it would be told late.
    fn stops_something(&self) -> bool {
        let ended = |t: &Track| t.end_line.is_some() || t.over_ms.is_some();
        self.steps.iter().any(|t| (t.started || t.begun_ms.is_some()) && !ended(t))
    }

    fn drain(&mut self, now_ms: u64, events: &mut Told) {
        while let Some(Entry { arrived_ms, stamp, item }) = self.queue.pop_front() {
            let at_ms = stamp.and_then(|stamp| self.ms(stamp)).unwrap_or(self.told_ms);
            match item {
                Item::Output(piece) => {
                    let step = self.current.and_then(|i| self.steps.get(i)).map(|t| t.info.name.clone());
                    events.push((at_ms, Event::Log { step, stamp: piece.stamp, bytes: piece.bytes }));
                }
                Item::Note(message) => events.push((at_ms, Event::Notice { message })),
                Item::End { step } => {
                    if let Some(track) = self.steps.get_mut(step) {
                        track.end_line = stamp;
                        track.shown = true;
                    }
                }
                Item::Begin { step } => {
                    let before = self.steps.get(..step).unwrap_or_default();
                    let told = before.iter().all(|t| t.finished || t.over_ms.is_some());
                    if !told && now_ms.saturating_sub(arrived_ms) < HOLD_MS && self.end_ms.is_none() {
                        self.queue.push_front(Entry { arrived_ms, stamp, item: Item::Begin { step } });
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
    fn settle(&mut self, now_ms: u64, events: &mut Told) {
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
            self.progress(i, now_ms, events);
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

    fn start(&mut self, i: usize, now_ms: u64, events: &mut Told) {
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

    fn progress(&mut self, i: usize, now_ms: u64, events: &mut Told) {
        let Some(track) = self.steps.get_mut(i).filter(|t| t.started) else { return };
        // What a step waits for is said of the run.
        let Some(status) = track.status.as_ref().filter(|s| s.phase == StepPhase::Running) else { return };
        if status.message.is_some() && status.message != track.progress {
            track.progress.clone_from(&status.message);
            let message = status.message.clone().unwrap_or_default();
            events.push((now_ms, Event::Progress { step: track.info.clone(), message }));
        }
    }

    fn finish(&mut self, i: usize, now_ms: u64, events: &mut Told) {
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

    fn end(&mut self, now_ms: u64, events: &mut Told) {
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

fn has_begun(status: &StepStatus) -> bool {
    match status.phase {
        StepPhase::Pending | StepPhase::Skipped => false,
        StepPhase::Running | StepPhase::Waiting | StepPhase::Succeeded | StepPhase::Failed => true,
        StepPhase::Cancelled => status.started_at.is_some(),
    }
}

#[cfg(test)]
mod tests;
