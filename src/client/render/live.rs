//! The terminal: output scrolls as it comes, finished steps stay as one line, a footer is repainted.
//!
//! **Invariant:** never more than three rows of footer, one on a narrow terminal; output is never cut.

use super::{
    Setting, Text,
    story::{Story, addresses, human, place, prepared, run_words, sign, sign_of_watch, step_words, toned},
};
use crate::{
    api::condition::reason::WAITING_FOR_USER,
    client::{
        event::{At, Event, RunEnd, StepEnd, Watched},
        fault::one_line,
        style::{Sign, fit},
        view::{Outcome, StepInfo},
    },
    progress::Share,
};

const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const ASCII_SPINNER: [&str; 4] = ["|", "/", "-", "\\"];
/// Below this the footer is one row.
const NARROW: usize = 60;

/// See the module.
#[derive(Debug)]
pub(in crate::client) struct Live {
    story: Story,
    /// Reason and message, and since when.
    waiting: Option<(String, u64)>,
    progress: Option<String>,
    over: bool,
    /// Output of a line that has not ended: shown when it does, so that the footer never splits it.
    open_line: Vec<u8>,
}

impl Live {
    pub(super) fn new(setting: Setting) -> Self {
        Self { story: Story::new(setting), waiting: None, progress: None, over: false, open_line: Vec::new() }
    }

    pub(super) fn event(&mut self, at: At, event: &Event) -> Vec<Text> {
        let mut texts = Vec::new();
        let data = self.story.tell(at.run_ms, event);
        self.open_line.extend(data);
        let whole = match self.open_line.iter().rposition(|b| *b == b'\n') {
            Some(end) => end + 1,
            // A line without an end (a bar, a prompt) is shown when it has grown long.
            None if self.open_line.len() > 16 * 1024 => self.open_line.len(),
            None => 0,
        };
        if whole > 0 {
            texts.push(Text::Data(self.open_line.drain(..whole).collect()));
        }
        let mut lines = self.lines(at, event);
        if self.story.setting.look.quiet > 0 || self.story.is_old(at, event) {
            lines.clear();
        }
        if !lines.is_empty() && !self.open_line.is_empty() && !matches!(event, Event::Log { .. }) {
            self.open_line.push(b'\n');
            texts.push(Text::Data(std::mem::take(&mut self.open_line)));
        }
        texts.extend(lines.into_iter().map(|line| Text::Message(line + "\n")));
        texts
    }

    fn lines(&mut self, at: At, event: &Event) -> Vec<String> {
        match event {
            Event::RunCreated { run, namespace, cluster, .. } => {
                vec![format!("run {run} {}", place(namespace, cluster))]
            }
            Event::Waiting { reason, message } => {
                let words = self.story.wait_words(reason, message);
                // The footer has no room for the commands by which a person goes on.
                let asks = reason == WAITING_FOR_USER && self.waiting.as_ref().is_none_or(|(told, _)| *told != words);
                let line = asks.then(|| format!("{} {words}", self.story.setting.look.signed(Sign::Warn)));
                self.waiting = Some((words, at.run_ms));
                line.into_iter().collect()
            }
            Event::Prepared { pod, node, source, took_ms } => {
                self.waiting = None;
                vec![self.row(Sign::Ok, "prepare", Some(*took_ms), &prepared(pod, node, source.as_deref()))]
            }
            Event::StepStarted { step } => {
                self.waiting = None;
                self.progress = None;
                let after = if step.after { "  (after)" } else { "" };
                let watch = if step.kind == "watch" { "  (watch)" } else { "" };
                let seen = addresses(&self.story, step).map(|at| format!("  {at}")).unwrap_or_default();
                vec![format!("{} {}{watch}{after}{seen}", self.story.setting.look.signed(Sign::Run), step.label())]
            }
            Event::Progress { message, .. } => {
                self.progress = Some(one_line(message)).filter(|words| !words.is_empty());
                Vec::new()
            }
            Event::StepFinished(end) => vec![self.finished_step(end)],
            Event::RunFinished(end) => {
                self.over = true;
                self.finished(end)
            }
            Event::Watch { news, message, .. } => {
                let sign = self.story.setting.look.signed(sign_of_watch(*news));
                let message = one_line(message);
                vec![match news {
                    Watched::Told => format!("{sign} {message}"),
                    Watched::Restarts | Watched::Rests { .. } => format!("{sign} {} {message}", self.clock(at)),
                }]
            }
            Event::Notice { message } => {
                vec![format!("{} {}", self.story.setting.look.signed(Sign::Warn), one_line(message))]
            }
            Event::Resolved { .. } | Event::Log { .. } | Event::Image { .. } => Vec::new(),
        }
    }

    /// `14:05:11`.
    fn clock(&self, at: At) -> String {
        let zone = self.story.setting.zone.clone().unwrap_or(jiff::tz::TimeZone::UTC);
        at.wall.to_zoned(zone).strftime("%H:%M:%S").to_string()
    }

    /// `✓ 3/3 push  7.1s  …`; the widths are those of the longest step, so that times stand below each other.
    fn row(&self, tone: Sign, label: &str, took_ms: Option<u64>, rest: &str) -> String {
        let width = self.story.steps.iter().map(|s| s.label().chars().count()).max().unwrap_or(0);
        let took = took_ms.map(human).unwrap_or_default();
        let line = format!("{} {label:<width$}  {took:<5}  {rest}", self.story.setting.look.signed(tone));
        line.trim_end().to_owned()
    }

    fn finished_step(&self, end: &StepEnd) -> String {
        let mut rest: Vec<String> = step_words(end).into_iter().collect();
        for image in &end.images {
            let digest: String = image.digest.chars().take("sha256:".len() + 12).collect();
            rest.push(format!("{}  {digest}  tags {}", one_line(&image.repository), image.tags.join(", ")));
        }
        if end.step.after {
            rest.push("(after)".into());
        }
        self.row(sign(end.result), &end.step.label(), end.took_ms, &rest.join("  "))
    }

    fn finished(&self, end: &RunEnd) -> Vec<String> {
        let sign = match end.outcome {
            Outcome::Succeeded => Sign::Ok,
            Outcome::Failed => Sign::Fail,
            Outcome::Cancelled => Sign::Warn,
        };
        let mut lines = Vec::new();
        if end.outcome == Outcome::Failed {
            lines.push(String::new());
        }
        lines.push(format!("{} {}", self.story.setting.look.signed(sign), run_words(&self.story, end)));
        lines.extend(self.story.epilogue(end));
        lines
    }

    pub(super) fn footer(&self, at: At, width: usize) -> Vec<String> {
        if self.over || self.story.run.is_empty() || self.story.setting.look.quiet > 0 {
            return Vec::new();
        }
        let frames: &[&str] = if self.story.setting.look.glyphs { &SPINNER } else { &ASCII_SPINNER };
        let turn = usize::try_from(at.run_ms / 100).unwrap_or_default() % frames.len();
        let spinner = frames.get(turn).copied().unwrap_or_default();
        let run = &self.story.run;
        let total = human(at.run_ms);
        // A bar below says the rest, where there is room for it.
        let brief = |words: &str| if width < NARROW { words.to_owned() } else { without_share(words) };
        let words = match (&self.story.running, &self.waiting) {
            (_, Some((why, since_ms))) => {
                let since = human(at.run_ms.saturating_sub(*since_ms));
                format!("{spinner} {run}  waiting  {total}  {} (since {since})", brief(why))
            }
            (Some((step, since_ms)), None) => {
                let runs = human(at.run_ms.saturating_sub(*since_ms));
                let progress = self.progress.as_ref().map(|p| format!("{}  ", brief(p))).unwrap_or_default();
                format!("{spinner} {run}  {}  {runs}  {progress}total {total}", step.label())
            }
            (None, None) => format!("{spinner} {run}  total {total}"),
        };
        let watched = self.story.running.as_ref().is_some_and(|(step, _)| step.kind == "watch");
        let finishes = watched && self.story.setting.finishes;
        let interrupt = if finishes { "Ctrl-C finishes the step" } else { self.story.setting.interrupt };
        let room = width.saturating_sub(interrupt.chars().count() + 2);
        let first = if words.chars().count() <= room {
            let gap = width - words.chars().count() - interrupt.chars().count();
            format!("{words}{}{interrupt}", " ".repeat(gap))
        } else {
            fit(&words, width)
        };
        if width < NARROW {
            return vec![first];
        }
        let moving = self.waiting.as_ref().map(|(why, _)| why).or(self.progress.as_ref());
        match moving.and_then(|words| Share::read(words)) {
            Some(share) => vec![first, fit(&format!("  {}", share.line()), width)],
            None if self.story.steps.is_empty() => vec![first],
            None => vec![first, self.steps_row(width)],
        }
    }

    /// `  ✓ build 12.3s  ▸ test  · push  after: · tell`; what is far from the running step goes first.
    fn steps_row(&self, width: usize) -> String {
        let cell = |step: &StepInfo| {
            let end = self.story.ends.iter().find(|e| e.step.name == step.name);
            let runs = self.story.running.as_ref().is_some_and(|(s, _)| s.name == step.name);
            let (tone, took) = match end {
                Some(end) => (sign(end.result), end.took_ms.map(|t| format!(" {}", human(t))).unwrap_or_default()),
                None if runs => (Sign::Run, String::new()),
                None => (Sign::Skip, String::new()),
            };
            let word = if self.story.setting.look.glyphs || end.is_some() || runs {
                self.story.setting.look.sign(tone)
            } else {
                "-"
            };
            (tone, format!("{word} {}{took}", step.name))
        };
        let current = self.story.running.as_ref().and_then(|(s, _)| self.story.steps.iter().position(|t| t == s));
        let done = self.story.steps.iter().filter(|s| self.story.ends.iter().any(|e| e.step.name == s.name)).count();
        let mut first = 0;
        loop {
            let mut plain = String::from(if first > 0 { "  …" } else { "" });
            let mut shown = plain.clone();
            let mut after = false;
            for step in self.story.steps.iter().skip(first) {
                let (tone, text) = cell(step);
                let lead = if step.after && !after { "  after: " } else { "  " };
                after = step.after;
                let wide = plain.chars().count() + lead.chars().count() + text.chars().count() + 3;
                if wide > width {
                    plain += "  …";
                    shown += "  …";
                    break;
                }
                plain += &format!("{lead}{text}");
                shown += &format!("{lead}{}", toned(&self.story, tone, &text));
            }
            let target = current.unwrap_or(done);
            let visible = self.story.steps.get(target).is_none_or(|s| plain.contains(&format!(" {}", s.name)));
            if visible || first >= target {
                return shown;
            }
            first += 1;
        }
    }
}

/// Words of progress, up to what a bar shows below them.
fn without_share(words: &str) -> String {
    words.split(", ").take_while(|part| Share::read(part).is_none()).collect::<Vec<_>>().join(", ")
}
