//! Puts the two views of a run together: status updates and step output, each late in its own way,
//! become one stream of events in the order in which a person would tell it.
//!
//! `follow` feeds it. All its times are milliseconds since `origin`, by the cluster's clock as far as we know it.
//!
//! **Invariant:** pure: the clock is an argument. Results come from the status only; step output is never held
//! longer than [`HOLD_MS`]. An event has the time of the thing, not of its telling, and never one before the
//! event before it.

mod steps;
mod tail;

pub(super) use tail::{TAIL_BYTES, Tail};

use super::{
    event::{Event, Watched},
    header::{Line, Reader},
    logtext::Piece,
    view::{RunView, StepInfo, millis_between},
};
use crate::api::{
    condition::reason,
    status::{StepPhase, StepStatus},
};
use jiff::Timestamp;
use std::collections::VecDeque;
use steps::has_begun;

/// How long the output of a step waits for the status of the steps before it.
pub(super) const HOLD_MS: u64 = 1_500;
/// How long a status waits, in silence, for output that may still be on its way.
pub(super) const GRACE_MS: u64 = 1_000;
/// How long the end of the run waits, in silence, for the end of the output.
pub(super) const DRAIN_MS: u64 = 5_000;

#[derive(Debug)]
enum Item {
    Begin { step: usize },
    End { step: usize },
    Note(String),
    Watch(String),
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
    /// Until all that was printed before following began has come: what is kept of it.
    tail: Option<Tail>,
    lets_begin: Option<String>,
    /// Who follows opens the terminals of `shell` steps: that they wait is told to nobody.
    attaches: bool,
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

    /// Shows only the last lines of what was printed before, once [`Tracker::caught_up`] says that it has come.
    #[must_use]
    pub(super) fn with_tail(mut self, tail: Option<Tail>) -> Self {
        self.tail = tail;
        self
    }

    /// The wait at the breakpoint before this step is not told: who follows ends it.
    #[must_use]
    pub(super) fn without_wait_before(mut self, step: String) -> Self {
        self.lets_begin = Some(step);
        self
    }

    /// The waits of `shell` steps are not told: who follows ends them.
    #[must_use]
    pub(super) fn attaching(mut self, attaches: bool) -> Self {
        self.attaches = attaches;
        self
    }

    /// The `shell` step that was told to run and waits for its terminal.
    pub(super) fn shell_that_waits(&self) -> Option<&str> {
        let waits = |t: &&Track| {
            let waits = |s: &StepStatus| s.phase == StepPhase::Waiting && s.reason.as_deref() == Some(reason::ATTACH);
            t.started && !t.finished && t.info.kind == "shell" && t.status.as_ref().is_some_and(waits)
        };
        self.steps.iter().find(waits).map(|t| t.info.name.as_str())
    }

    /// Whether output is held until [`Tracker::caught_up`].
    #[must_use]
    pub(super) fn is_catching_up(&self) -> bool {
        self.tail.is_some()
    }

    /// All output that comes from here on is new.
    pub(super) fn caught_up(&mut self) {
        self.tail = None;
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

    /// The step that runs, as far as it was told: the last that began, as the end of the one before may still be on its way.
    pub(super) fn running(&self) -> Option<&str> {
        self.steps.iter().rfind(|t| t.started && !t.finished).map(|t| t.info.name.as_str())
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
            self.tail = None;
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
            Line::Watch(message) => Item::Watch(message),
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
        let entry = Entry { arrived_ms: now_ms, stamp, item };
        let step = self.reader.current().and_then(|i| self.view.steps.get(i)).map(|step| step.name.as_str());
        match &mut self.tail {
            Some(tail) => tail.keep(&mut self.queue, entry, step),
            None => self.queue.push_back(entry),
        }
    }

    /// No output will come any more from this pod.
    pub(super) fn output_ended(&mut self) {
        self.tail = None;
        self.output = Output::Ended;
    }

    /// What can be told by now, each with when it happened. To be called after each change and at least every
    /// 250 ms.
    pub(super) fn advance(&mut self, now_ms: u64) -> Told {
        let mut events = Vec::new();
        self.announce(now_ms, &mut events);
        if self.tail.is_none() {
            self.drain(now_ms, &mut events);
        }
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
        if why == reason::WAITING_FOR_USER && (self.begins_soon(message) || self.attaches_soon()) {
            self.waiting = None;
            return;
        }
        if why == reason::WAITING_FOR_USER && self.is_about_to_begin(now_ms) {
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

    /// Whether the run waits for the terminal of a `shell` step that who follows opens.
    fn attaches_soon(&self) -> bool {
        let waits =
            |t: &Track| t.info.kind == "shell" && t.status.as_ref().is_some_and(|s| s.phase == StepPhase::Waiting);
        self.attaches && self.steps.iter().any(waits)
    }

    /// Whether the run waits, as it says, before the step that who follows lets begin.
    fn begins_soon(&self, message: &str) -> bool {
        let waits = |step: &String| message.starts_with(&format!("step {step} waits; it has not begun"));
        self.lets_begin.as_ref().is_some_and(waits)
    }

    /// Whether the step that waits will soon be told to have begun: first that, then its wait.
    fn is_about_to_begin(&self, now_ms: u64) -> bool {
        let waits = |t: &&Track| !t.started && t.status.as_ref().is_some_and(|s| s.phase == StepPhase::Waiting);
        let seen_ms = self.steps.iter().find(waits).and_then(|t| t.begun_ms);
        seen_ms.is_some_and(|seen_ms| now_ms.saturating_sub(seen_ms) < HOLD_MS)
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
                Item::Watch(message) => {
                    let step = self.current.and_then(|i| self.steps.get(i)).map(|t| t.info.clone()).unwrap_or_default();
                    events.push((at_ms, Event::Watch { step, news: Watched::of(&message), message }));
                }
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
}

#[cfg(test)]
mod tests;
