//! What the renderers for people remember of a run, and the sentences that they share.
//!
//! **Invariant:** bounded: of the output only the last lines of the running step are kept.

use super::Setting;
use crate::api::{condition::reason, duration, status::ImageStatus};
use crate::client::{
    args::Show,
    event::{At, Event, Pushed, RunEnd, StepEnd, StepResult, Watched},
    fault::one_line,
    hint,
    style::{Sign, paint},
    view::{Outcome, StepInfo},
};
use std::{collections::VecDeque, time::Duration};

/// Longest line that is repeated, in bytes.
const TAIL_LINE_BYTES: usize = 2_000;
/// More ports than this are not written out in a command.
const MOST_PORTS: usize = 8;
/// Most output kept for `--show failed`.
const KEPT_BYTES: usize = 1 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) setting: Setting,
    pub(super) run: String,
    pub(super) steps: Vec<StepInfo>,
    /// How each step ended, by name.
    pub(super) ends: Vec<StepEnd>,
    pub(super) running: Option<(StepInfo, u64)>,
    tail: VecDeque<Vec<u8>>,
    failed_tail: Vec<Vec<u8>>,
    printed_after_failure: bool,
    kept: VecDeque<u8>,
    left_out: usize,
}

impl Story {
    pub(super) fn new(setting: Setting) -> Self {
        Self { setting, ..Self::default() }
    }

    /// Remembers the event; gives the output that is to be shown now.
    pub(super) fn tell(&mut self, run_ms: u64, event: &Event) -> Vec<u8> {
        match event {
            Event::RunCreated { run, steps, .. } => {
                self.run.clone_from(run);
                self.steps.clone_from(steps);
            }
            Event::Resolved { steps, .. } => self.steps.clone_from(steps),
            Event::StepStarted { step } => {
                self.printed_after_failure = true;
                self.running = Some((step.clone(), run_ms));
                self.tail.clear();
                self.kept.clear();
                self.left_out = 0;
            }
            Event::Log { step, stamp, bytes } => return self.log(step.as_deref(), stamp.as_deref(), bytes),
            Event::StepFinished(end) => {
                if self.running.as_ref().is_some_and(|(step, _)| step.name == end.step.name) {
                    self.running = None;
                }
                let first = !self.ends.iter().any(|e| e.result == StepResult::Failed);
                self.ends.push(end.clone());
                if end.result == StepResult::Failed {
                    if first {
                        self.failed_tail = self.tail.drain(..).collect();
                        self.printed_after_failure = false;
                    }
                    return self.kept();
                }
            }
            Event::Waiting { .. }
            | Event::Prepared { .. }
            | Event::Progress { .. }
            | Event::Image { .. }
            | Event::RunFinished(_)
            | Event::Watch { .. }
            | Event::Notice { .. } => {}
        }
        Vec::new()
    }

    fn log(&mut self, step: Option<&str>, stamp: Option<&str>, bytes: &[u8]) -> Vec<u8> {
        if self.setting.only_step.as_deref().is_some_and(|only| step != Some(only)) {
            return Vec::new();
        }
        self.printed_after_failure = true;
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            self.remember(part);
        }
        let mut shown = Vec::new();
        // Only the first piece of a line has a time.
        if let Some(stamp) = stamp {
            if let Some(step) = step.filter(|_| self.setting.prefix) {
                shown.extend_from_slice(format!("[{step}] ").as_bytes());
            }
            if self.setting.timestamps {
                shown.extend_from_slice(stamp.as_bytes());
                shown.push(b' ');
            }
        }
        shown.extend_from_slice(bytes);
        match self.setting.show {
            Show::All => shown,
            Show::Failed => {
                self.kept.extend(shown);
                let over = self.kept.len().saturating_sub(KEPT_BYTES);
                self.kept.drain(..over);
                self.left_out += over;
                Vec::new()
            }
        }
    }

    fn remember(&mut self, part: &[u8]) {
        let new_line = self.tail.back().is_none_or(|line| line.ends_with(b"\n"));
        if new_line {
            self.tail.push_back(Vec::new());
            while self.tail.len() > self.setting.tail.max(1) {
                self.tail.pop_front();
            }
        }
        let Some(line) = self.tail.back_mut() else { return };
        let room = TAIL_LINE_BYTES.saturating_sub(line.len());
        line.extend(part.iter().take(room));
        if part.ends_with(b"\n") && !line.ends_with(b"\n") {
            line.push(b'\n');
        }
    }

    fn kept(&mut self) -> Vec<u8> {
        let mut shown = Vec::new();
        if self.left_out > 0 {
            let of = format!("! {} bytes before this were not kept\n", std::mem::take(&mut self.left_out));
            shown.extend_from_slice(of.as_bytes());
        }
        shown.extend(self.kept.drain(..));
        if !shown.is_empty() && !shown.ends_with(b"\n") {
            shown.push(b'\n');
        }
        shown
    }

    /// What a run waits for, with commands that lead to it from here.
    pub(super) fn wait_words(&self, reason: &str, message: &str) -> String {
        format!("{}: {}", one_line(reason), hint::paste(&one_line(message), &self.setting.program))
    }

    /// The lines after the sentence about the end: what failed said last, and what to do next.
    pub(super) fn epilogue(&self, end: &RunEnd) -> Vec<String> {
        let (run, program) = (&self.run, &self.setting.program);
        match end.outcome {
            Outcome::Succeeded => {
                end.images.iter().map(|pushed| one_line(&docker_run(pushed))).map(|line| format!("  {line}")).collect()
            }
            Outcome::Cancelled if self.setting.again.is_some() => Vec::new(),
            Outcome::Cancelled => vec![format!("hint: {program} retry {run}")],
            Outcome::Failed => {
                let mut lines = Vec::new();
                let shown_late = self.setting.show == Show::Failed;
                if self.printed_after_failure && self.setting.tail > 0 && !shown_late {
                    let repeat = |line: &Vec<u8>| format!("  | {}", one_line(&String::from_utf8_lossy(line)));
                    lines.extend(self.failed_tail.iter().map(repeat));
                }
                // Of a service that died the message says where to look.
                let step = end.step.as_ref().filter(|name| self.ran(name) && end.reason != reason::SERVICE_FAILED);
                match (step, &self.setting.again) {
                    (Some(_), Some(again)) => lines.push(format!("hint: look in: {again} --breakpoint on-failure")),
                    (Some(step), None) => {
                        lines.push(format!("hint: all of it: {program} logs {run} --step {step}"));
                        lines.push(format!("      look in:   {program} retry {run} --breakpoint on-failure"));
                    }
                    (None, _) => lines.push(format!("hint: {program} explain {}", one_line(&end.reason))),
                }
                lines
            }
        }
    }

    /// Whether lines about this event are left out by `--since`.
    pub(super) fn is_old(&self, at: At, event: &Event) -> bool {
        let about_steps = matches!(
            event,
            Event::Prepared { .. } | Event::StepStarted { .. } | Event::StepFinished(_) | Event::Image { .. }
        );
        about_steps && self.setting.since.is_some_and(|since| at.wall < since)
    }

    fn ran(&self, step: &str) -> bool {
        self.ends.iter().any(|e| e.step.name == step && e.result == StepResult::Failed)
    }
}

/// The command that starts an image here: with the ports it exposes, each at the same number.
fn docker_run(pushed: &Pushed) -> String {
    let flags = match pushed.ports.len() {
        0..=MOST_PORTS => pushed.ports.iter().map(|port| publish(port)).collect::<String>(),
        _ => " -P".to_owned(),
    };
    format!("docker run --rm{flags} {}", reference(&pushed.image))
}

fn publish(port: &str) -> String {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let protocol = if protocol == "tcp" { String::new() } else { format!("/{protocol}") };
    format!(" -p {number}:{number}{protocol}")
}

/// `12.3s`.
pub(super) fn human(ms: u64) -> String {
    duration::human(Duration::from_millis(ms))
}

/// `repository@digest`.
pub(super) fn reference(image: &ImageStatus) -> String {
    format!("{}@{}", image.repository, image.digest)
}

/// Bytes as registries print them: powers of 1000.
pub(in crate::client) fn bytes(count: i64) -> String {
    let scaled = |unit: i64, name: &str| format!("{}.{} {name}", count / unit, count % unit * 10 / unit);
    match count {
        ..1_000 => format!("{count} B"),
        1_000..1_000_000 => scaled(1_000, "kB"),
        1_000_000..1_000_000_000 => scaled(1_000_000, "MB"),
        _ => scaled(1_000_000_000, "GB"),
    }
}

/// The sign of a step's end.
pub(super) fn sign(result: StepResult) -> Sign {
    match result {
        StepResult::Succeeded => Sign::Ok,
        StepResult::Failed => Sign::Fail,
        StepResult::Cancelled => Sign::Warn,
        StepResult::Skipped => Sign::Skip,
    }
}

/// Why a step ended as it did: `exit code 2`, `skipped`, or the step's own message.
pub(in crate::client) fn step_words(end: &StepEnd) -> Option<String> {
    match end.result {
        StepResult::Succeeded => None,
        StepResult::Skipped => Some("skipped".into()),
        StepResult::Cancelled if end.message.is_empty() => Some("cancelled".into()),
        StepResult::Cancelled => Some(one_line(&end.message)),
        StepResult::Failed => Some(why_failed(end.exit_code, &end.reason, &end.message)),
    }
}

/// Why a step failed, with what an exit code means to a shell.
pub(in crate::client) fn why_failed(exit_code: Option<i32>, why: &str, message: &str) -> String {
    let by_itself = why.is_empty() || why == reason::EXIT_CODE || why == reason::SIGNAL;
    match exit_code {
        Some(code) if by_itself => {
            let meaning = match code {
                126 => ": not executable",
                127 => ": command not found",
                137 => ": killed (SIGKILL)",
                139 => ": crashed (SIGSEGV)",
                143 => ": ended (SIGTERM)",
                _ => "",
            };
            format!("exit code {code}{meaning}")
        }
        _ if !message.is_empty() => one_line(message),
        _ => one_line(why),
    }
}

/// The sentence about the end of the run, without its sign.
pub(super) fn run_words(story: &Story, end: &RunEnd) -> String {
    let (run, took) = (&story.run, human(end.took_ms));
    match end.outcome {
        Outcome::Succeeded if end.reason == reason::SUCCEEDED_WITH_FAILURES => {
            format!("{run} succeeded in {took}: {}", one_line(&end.message))
        }
        Outcome::Succeeded => format!("{run} succeeded in {took}"),
        Outcome::Cancelled => {
            let step = end.step.as_ref().map(|s| format!(" (step {s})")).unwrap_or_default();
            let pushes = story.steps.iter().any(|s| matches!(s.kind.as_str(), "dockerPush" | "dockerScratchPush"));
            let image = if pushes && end.images.is_empty() { "; image not pushed" } else { "" };
            format!("{run} cancelled after {took}{step}{image}")
        }
        Outcome::Failed => {
            // A step that was cut short has nothing to say of why: that is the run's to tell.
            let says_why =
                |e: &&StepEnd| e.result == StepResult::Failed && (e.exit_code.is_some() || !e.message.is_empty());
            let failed = story.ends.iter().find(|e| Some(&e.step.name) == end.step.as_ref()).filter(says_why);
            match failed.and_then(|e| step_words(e).map(|words| format!("step {}, {words}", e.step.name))) {
                Some(words) => format!("{run} failed in {took}: {words}"),
                None => {
                    let message = hint::paste(&one_line(&end.message), &story.setting.program);
                    format!("{run} failed in {took}: {}: {message}", one_line(&end.reason))
                }
            }
        }
    }
}

/// `in namespace team-a, cluster prod`; a run of this machine has no namespace.
pub(super) fn place(namespace: &str, cluster: &str) -> String {
    let cluster = one_line(cluster);
    if namespace.is_empty() { format!("on {cluster}") } else { format!("in namespace {namespace}, cluster {cluster}") }
}

/// `pod hello-7-1 on node-3, source 3f9c2d1`; empty if there is nothing to say.
pub(super) fn prepared(pod: &str, node: &str, source: Option<&str>) -> String {
    let pod = (!node.is_empty()).then(|| format!("pod {pod} on {node}"));
    let source = source.map(|source| format!("source {}", one_line(source)));
    pod.into_iter().chain(source).collect::<Vec<_>>().join(", ")
}

/// The sign of what happened to a watched step.
pub(super) fn sign_of_watch(news: Watched) -> Sign {
    match news {
        Watched::Restarts => Sign::Again,
        Watched::Rests { well: false } => Sign::Fail,
        Watched::Rests { well: true } | Watched::Told => Sign::Skip,
    }
}

/// Where a watched step can be seen: `http://localhost:5000`, each published port.
pub(super) fn addresses(story: &Story, step: &StepInfo) -> Option<String> {
    let ports = story.setting.published.iter().filter(|_| step.kind == "watch");
    let all: Vec<String> = ports.map(|port| format!("http://localhost:{port}")).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// Text of a tone, in colour if stderr has it.
pub(super) fn toned(story: &Story, sign: Sign, text: &str) -> String {
    paint(story.setting.look.color_err, sign, text)
}
