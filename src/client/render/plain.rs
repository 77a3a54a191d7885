//! Whole lines: for pipes, CI and screen readers. The state word comes first.
//!
//! **Invariant:** a line only when it says something new: waits on change and then every 30 s, the progress of a step
//! every 10 s, a silent step every 60 s. No carriage return, no escape but colour.

use super::{
    Setting, Text,
    story::{
        Story, addresses, bytes, human, place, prepared, reference, run_words, sign, sign_of_watch, step_words, toned,
    },
};
use crate::client::{
    event::{At, Event, RunEnd},
    fault::one_line,
    style::{Mode, Sign},
    view::Outcome,
};

const REPEAT_WAIT_MS: u64 = 30_000;
const SILENT_STEP_MS: u64 = 60_000;
const PROGRESS_MS: u64 = 10_000;

/// See the module.
#[derive(Debug)]
pub(in crate::client) struct Plain {
    story: Story,
    waiting: Option<String>,
    /// Progress that was not told yet.
    progress: Option<String>,
    /// When progress of the running step was told last.
    progress_ms: Option<u64>,
    /// When the last line was given, of whatever kind.
    last_ms: u64,
}

impl Plain {
    pub(super) fn new(setting: Setting) -> Self {
        Self { story: Story::new(setting), waiting: None, progress: None, progress_ms: None, last_ms: 0 }
    }

    pub(super) fn event(&mut self, at: At, event: &Event) -> Vec<Text> {
        let mut texts = Vec::new();
        let data = self.story.tell(at.run_ms, event);
        if !data.is_empty() {
            self.last_ms = at.now_ms;
            texts.push(Text::Data(data));
        }
        for line in self.lines(at, event) {
            self.last_ms = at.now_ms;
            texts.push(Text::Message(line + "\n"));
        }
        texts
    }

    pub(super) fn tick(&mut self, at: At) -> Vec<Text> {
        if self.is_quiet() {
            return Vec::new();
        }
        if let Some(line) = self.progress(at) {
            self.last_ms = at.run_ms;
            return vec![Text::Message(line + "\n")];
        }
        let silent_ms = at.run_ms.saturating_sub(self.last_ms);
        let line = match (&self.waiting, &self.story.running) {
            (Some(words), _) if silent_ms >= REPEAT_WAIT_MS => self.line(at, "wait", Sign::Warn, words),
            (None, Some((step, since_ms))) if silent_ms >= SILENT_STEP_MS => {
                let runs = human(at.run_ms.saturating_sub(*since_ms));
                let words = format!("{}, {runs}, no output for {}", step.label(), human(silent_ms));
                self.line(at, "run", Sign::Run, &words)
            }
            _ => return Vec::new(),
        };
        self.last_ms = at.run_ms;
        vec![Text::Message(line + "\n")]
    }

    fn is_quiet(&self) -> bool {
        self.story.setting.look.mode == Mode::None || self.story.setting.look.quiet > 0
    }

    /// The newest progress, if it is its turn.
    fn progress(&mut self, at: At) -> Option<String> {
        if self.progress_ms.is_some_and(|told| at.run_ms.saturating_sub(told) < PROGRESS_MS) {
            return None;
        }
        let words = self.progress.take()?;
        self.progress_ms = Some(at.run_ms);
        Some(self.line(at, "run", Sign::Run, &words))
    }

    fn line(&self, at: At, word: &str, tone: Sign, words: &str) -> String {
        format!("> {} [{}] {words}", toned(&self.story, tone, &format!("{word:<5}")), human(at.run_ms))
    }

    fn lines(&mut self, at: At, event: &Event) -> Vec<String> {
        if self.is_quiet() {
            return match event {
                Event::RunFinished(end) if end.outcome != Outcome::Succeeded => self.finished(at, end),
                _ => Vec::new(),
            };
        }
        if self.story.is_old(at, event) {
            self.waiting = None;
            return Vec::new();
        }
        let only = self.story.setting.only_step.clone();
        let hidden = |name: &str| only.as_deref().is_some_and(|o| o != name);
        match event {
            Event::RunCreated { run, namespace, cluster, .. } => {
                let word = toned(&self.story, Sign::Run, &format!("{:<5}", "run"));
                vec![format!("> {word} {run} {}", place(namespace, cluster))]
            }
            Event::Waiting { reason, message } => {
                let words = self.story.wait_words(reason, message);
                self.waiting = Some(words.clone());
                vec![self.line(at, "wait", Sign::Warn, &words)]
            }
            Event::Prepared { pod, node, source, took_ms } => {
                self.waiting = None;
                let more = prepared(pod, node, source.as_deref());
                let comma = if more.is_empty() { "" } else { ", " };
                vec![self.line(at, "ok", Sign::Ok, &format!("prepare {}{comma}{more}", human(*took_ms)))]
            }
            Event::StepStarted { step } if hidden(&step.name) => Vec::new(),
            Event::StepStarted { step } => {
                self.waiting = None;
                self.progress_ms = None;
                let after = if step.after { " (after)" } else { "" };
                let seen = addresses(&self.story, step).map(|at| format!(", {at}")).unwrap_or_default();
                vec![self.line(at, "step", Sign::Run, &format!("{}{after}{seen}", step.label()))]
            }
            Event::Progress { step, .. } if hidden(&step.name) => Vec::new(),
            Event::Progress { step, message } => {
                self.progress = (!message.is_empty()).then(|| format!("{}: {}", step.label(), one_line(message)));
                self.progress(at).into_iter().collect()
            }
            Event::Image { image, .. } => {
                let size = image.size.map(|s| format!(" {},", bytes(s))).unwrap_or_default();
                let words = format!("{}{size} tags: {}", reference(image), image.tags.join(" "));
                vec![self.line(at, "image", Sign::Ok, &one_line(&words))]
            }
            Event::StepFinished(end) if hidden(&end.step.name) => Vec::new(),
            Event::StepFinished(end) => {
                self.progress = None;
                let mut words = end.step.label();
                if let Some(took_ms) = end.took_ms {
                    words += &format!(" {}", human(took_ms));
                }
                if end.step.after {
                    words += " (after)";
                }
                let sign = sign(end.result);
                let why = step_words(end).filter(|_| sign != Sign::Skip);
                let words = why.map_or(words.clone(), |why| format!("{words}, {why}"));
                vec![self.line(at, self.story.setting.look.sign(sign), sign, &words)]
            }
            Event::RunFinished(end) => self.finished(at, end),
            Event::Watch { step, .. } if hidden(&step.name) => Vec::new(),
            Event::Watch { step, news, message } => {
                let words = format!("{}: {}", step.label(), one_line(message));
                vec![self.line(at, "watch", sign_of_watch(*news), &words)]
            }
            Event::Notice { message } => vec![self.line(at, "note", Sign::Warn, &one_line(message))],
            Event::Resolved { .. } | Event::Log { .. } => Vec::new(),
        }
    }

    fn finished(&self, at: At, end: &RunEnd) -> Vec<String> {
        let sign = match end.outcome {
            Outcome::Succeeded => Sign::Ok,
            Outcome::Failed => Sign::Fail,
            Outcome::Cancelled => Sign::Warn,
        };
        let word = self.story.setting.look.sign(sign);
        let mut lines = vec![self.line(at, word, sign, &run_words(&self.story, end))];
        lines.extend(self.story.epilogue(end));
        lines
    }
}
