//! Events as JSON, one object per line: the contract with programs.
//!
//! **Invariant:** within `v` 1 fields and types are added, never renamed, retyped or removed. A line
//! is at most 64 KiB long.

use super::{Setting, Text};
use crate::client::{
    args::Show,
    event::{At, Event, StepResult, Watched},
    exit::Exit,
    fault::Fault,
    view::StepInfo,
};
use crate::yaml::Diagnostic;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Most output in one line: an escaped byte can take six.
const LOG_BYTES: usize = 8 * 1024;
/// Most output kept for `--show failed`.
const KEPT_BYTES: usize = 1 << 20;

type Fields = Vec<(&'static str, Value)>;

/// Which events a command has given.
#[derive(Debug, Default)]
pub(in crate::client) struct Events {
    count: AtomicU64,
    stage: Mutex<Stage>,
}

/// How far the events of a command are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// None was given.
    #[default]
    Before,
    /// `begin` was given.
    Begun,
    /// `end` was the last, with this exit code.
    Ended(u8),
}

impl Events {
    /// The number of one more event.
    fn next(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn reach(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    fn stage(&self) -> Stage {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
#[derive(Debug)]
pub(in crate::client) struct Json {
    setting: Setting,
    run: Option<(String, String)>,
    /// How many bytes of output were given, by step.
    offsets: BTreeMap<String, u64>,
    kept: Vec<u8>,
}

impl Json {
    pub(in crate::client) fn new(setting: Setting) -> Self {
        Self { setting, run: None, offsets: BTreeMap::new(), kept: Vec::new() }
    }

    pub(super) fn begin(&mut self, at: At, context: &str) -> Vec<Text> {
        let (mode, context) = match self.setting.again {
            Some(_) => ("local", json!(null)),
            None => ("cluster", json!(context)),
        };
        self.first(at, json!(mode), context)
    }

    /// The first event of a verb that looks at files only.
    pub(in crate::client) fn begin_files(&mut self, at: At) -> Vec<Text> {
        self.first(at, json!("files"), json!(null))
    }

    fn first(&mut self, at: At, mode: Value, context: Value) -> Vec<Text> {
        let client = json!(env!("CARGO_PKG_VERSION"));
        self.setting.events.reach(Stage::Begun);
        self.one(at, "begin", vec![("client", client), ("mode", mode), ("context", context)])
    }

    /// The events that are left to give when a verb stops: none if a run has told why, all if it stops before one begins.
    pub(in crate::client) fn stopped(&mut self, at: At, exit: Exit, faults: &[Fault]) -> Vec<Text> {
        let mut texts = match self.setting.events.stage() {
            Stage::Ended(code) if code == exit.code() => return Vec::new(),
            Stage::Before | Stage::Ended(_) => self.first(at, json!(null), json!(null)),
            Stage::Begun => Vec::new(),
        };
        texts.extend(faults.iter().flat_map(|fault| self.fault(at, fault)));
        texts.extend(self.end(at, exit, faults.first()));
        texts
    }

    /// What was found in a file.
    pub(in crate::client) fn diagnostic(&mut self, at: At, file: &str, found: &Diagnostic) -> Vec<Text> {
        let fields = vec![
            ("severity", json!(found.severity.word())),
            ("reason", json!(found.reason)),
            ("message", json!(found.message)),
            ("file", json!(file)),
            ("line", json!(found.at.map(|at| at.line))),
            ("column", json!(found.at.map(|at| at.column))),
            ("label", json!(Some(&found.label).filter(|label| !label.is_empty()))),
            ("hint", json!(found.hint)),
        ];
        self.one(at, "diagnostic", fields)
    }

    pub(in crate::client) fn end(&mut self, at: At, exit: Exit, fault: Option<&Fault>) -> Vec<Text> {
        let (reason, message) = (json!(fault.map(|f| f.reason)), json!(fault.map(|f| &f.message)));
        let texts = self.one(at, "end", vec![("exit", json!(exit.code())), ("reason", reason), ("message", message)]);
        self.setting.events.reach(Stage::Ended(exit.code()));
        texts
    }

    pub(super) fn fault(&mut self, at: At, fault: &Fault) -> Vec<Text> {
        let (reason, message, hint) = (json!(fault.reason), json!(fault.message), json!(fault.hint));
        self.one(at, "error", vec![("reason", reason), ("message", message), ("hint", hint)])
    }

    pub(super) fn event(&mut self, at: At, event: &Event) -> Vec<Text> {
        let mut texts = Vec::new();
        match event {
            Event::RunCreated { run, namespace, .. } => self.run = Some((run.clone(), namespace.clone())),
            Event::StepStarted { .. } => self.kept.clear(),
            Event::Log { step, bytes, .. } => return self.log(at, step.as_deref(), bytes),
            Event::StepFinished(end) if end.result == StepResult::Failed => {
                let kept = std::mem::take(&mut self.kept);
                texts = self.log_lines(at, Some(&end.step.name), &kept);
            }
            _ => {}
        }
        let (kind, fields) = fields(event);
        texts.extend(self.one(at, kind, fields));
        texts
    }

    fn log(&mut self, at: At, step: Option<&str>, bytes: &[u8]) -> Vec<Text> {
        if self.setting.only_step.as_deref().is_some_and(|only| step != Some(only)) {
            return Vec::new();
        }
        match self.setting.show {
            Show::All => self.log_lines(at, step, bytes),
            Show::Failed => {
                self.kept.extend_from_slice(bytes);
                let over = self.kept.len().saturating_sub(KEPT_BYTES);
                self.kept.drain(..over);
                Vec::new()
            }
        }
    }

    fn log_lines(&mut self, at: At, step: Option<&str>, mut bytes: &[u8]) -> Vec<Text> {
        let mut texts = Vec::new();
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(cut(bytes));
            bytes = rest;
            let offset = self.offsets.entry(step.unwrap_or_default().to_owned()).or_default();
            let mut fields = vec![("step", json!(step)), ("stream", json!("stdout"))];
            fields.push(match std::str::from_utf8(piece) {
                Ok(text) => ("text", json!(text)),
                Err(_) => ("base64", json!(STANDARD.encode(piece))),
            });
            fields.push(("offset", json!(*offset)));
            *offset += piece.len() as u64;
            if !piece.ends_with(b"\n") {
                fields.push(("partial", json!(true)));
            }
            texts.extend(self.one(at, "log", fields));
        }
        texts
    }

    fn one(&mut self, at: At, kind: &str, fields: Fields) -> Vec<Text> {
        let seq = self.setting.events.next();
        let time = at.wall.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        let mut all: Fields = vec![("v", json!(1)), ("type", json!(kind)), ("seq", json!(seq)), ("time", json!(time))];
        if let Some((run, namespace)) = &self.run {
            all.push(("run", json!(run)));
            all.push(("namespace", json!(Some(namespace).filter(|namespace| !namespace.is_empty()))));
        }
        all.extend(fields);
        // Fields without a value are left out; readers test for presence.
        let pairs = all.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| format!("\"{k}\":{v}"));
        vec![Text::Data(format!("{{{}}}\n", pairs.collect::<Vec<_>>().join(",")).into_bytes())]
    }
}

/// An event's type and its own fields.
fn fields(event: &Event) -> (&'static str, Fields) {
    match event {
        Event::RunCreated { pipeline, steps, .. } => {
            ("run.created", vec![("pipeline", json!(pipeline)), ("steps", list(steps))])
        }
        Event::Resolved { build, steps } => ("run.resolved", vec![("build", json!(build)), ("steps", list(steps))]),
        Event::Waiting { reason, message } => {
            ("run.waiting", vec![("reason", json!(reason)), ("message", json!(message))])
        }
        Event::Prepared { pod, node, source, took_ms } => {
            let there = |text: &String| json!(Some(text).filter(|_| !node.is_empty()));
            let (pod, node, source) = (there(pod), there(node), json!(source));
            ("run.prepared", vec![("pod", pod), ("node", node), ("source", source), ("durationMs", json!(took_ms))])
        }
        Event::StepStarted { step } => {
            let (index, of, after) = (json!(step.index), json!(step.of), json!(step.after));
            let of_step = vec![("step", json!(step.name)), ("index", index), ("of", of)];
            ("step.started", [of_step, vec![("kind", json!(step.kind)), ("after", after)]].concat())
        }
        Event::Log { step, .. } => ("log", vec![("step", json!(step))]),
        Event::Progress { step, message } => {
            ("progress", vec![("step", json!(step.name)), ("message", json!(message))])
        }
        Event::Image { step, image } => {
            let (repository, tags, digest) = (json!(image.repository), json!(image.tags), json!(image.digest));
            let of_image = vec![("repository", repository), ("tags", tags), ("digest", digest)];
            ("image", [vec![("step", json!(step))], of_image, vec![("size", json!(image.size))]].concat())
        }
        Event::StepFinished(end) => {
            let how = vec![("step", json!(end.step.name)), ("result", json!(end.result.word()))];
            let why = vec![("exitCode", json!(end.exit_code)), ("reason", json!(end.reason))];
            let rest = vec![("message", json!(end.message)), ("durationMs", json!(end.took_ms))];
            ("step.finished", [how, why, rest].concat())
        }
        Event::RunFinished(end) => {
            let how = vec![("result", json!(end.outcome.word())), ("reason", json!(end.reason))];
            let rest = vec![("message", json!(end.message)), ("durationMs", json!(end.took_ms))];
            ("run.finished", [how, rest].concat())
        }
        Event::Watch { step, news, message } => {
            let kind = if *news == Watched::Told { "notice" } else { "reload" };
            (kind, vec![("step", json!(step.name)), ("message", json!(message))])
        }
        Event::Notice { message } => ("notice", vec![("message", json!(message))]),
    }
}

fn list(steps: &[StepInfo]) -> Value {
    steps.iter().map(|s| json!({"name": s.name, "kind": s.kind, "after": s.after})).collect()
}

/// Where to cut so that the piece is small and ends between characters.
fn cut(bytes: &[u8]) -> usize {
    if bytes.len() <= LOG_BYTES {
        return bytes.len();
    }
    let continues = |at: &usize| bytes.get(*at).is_some_and(|b| b & 0xC0 == 0x80);
    (LOG_BYTES - 3..=LOG_BYTES).rev().find(|at| !continues(at)).unwrap_or(LOG_BYTES)
}
