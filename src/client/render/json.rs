//! Events as JSON, one object per line: the contract with programs.
//!
//! **Invariant:** within `v` 1 fields and types are added, never renamed, retyped or removed. A line
//! is at most 64 KiB long.

use super::{Setting, Text};
use crate::client::{
    args::Show,
    event::{At, Event, StepResult},
    exit::Exit,
    fault::Fault,
    view::StepInfo,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Most output in one line: an escaped byte can take six.
const LOG_BYTES: usize = 8 * 1024;
/// Most output kept for `--show failed`.
const KEPT_BYTES: usize = 1 << 20;

type Fields = Vec<(&'static str, Value)>;

/// See the module.
#[derive(Debug)]
pub(in crate::client) struct Json {
    setting: Setting,
    seq: u64,
    run: Option<(String, String)>,
    steps: Vec<StepInfo>,
    /// How many bytes of output were given, by step.
    offsets: BTreeMap<String, u64>,
    kept: Vec<u8>,
}

impl Json {
    pub(super) fn new(setting: Setting) -> Self {
        Self { setting, seq: 0, run: None, steps: Vec::new(), offsets: BTreeMap::new(), kept: Vec::new() }
    }

    pub(super) fn begin(&mut self, at: At, context: &str) -> Vec<Text> {
        let version = env!("CARGO_PKG_VERSION");
        self.one(at, "begin", vec![("client", json!(version)), ("mode", json!("cluster")), ("context", json!(context))])
    }

    pub(super) fn end(&mut self, at: At, exit: Exit) -> Vec<Text> {
        self.one(at, "end", vec![("exit", json!(exit.code()))])
    }

    pub(super) fn fault(&mut self, at: At, fault: &Fault) -> Vec<Text> {
        let (reason, message, hint) = (json!(fault.reason), json!(fault.message), json!(fault.hint));
        self.one(at, "error", vec![("reason", reason), ("message", message), ("hint", hint)])
    }

    pub(super) fn event(&mut self, at: At, event: &Event) -> Vec<Text> {
        match event {
            Event::RunCreated { run, namespace, pipeline, steps, .. } => {
                self.run = Some((run.clone(), namespace.clone()));
                self.steps.clone_from(steps);
                self.one(at, "run.created", vec![("pipeline", json!(pipeline)), ("steps", list(steps))])
            }
            Event::Resolved { build, steps } => {
                self.steps.clone_from(steps);
                self.one(at, "run.resolved", vec![("build", json!(build)), ("steps", list(steps))])
            }
            Event::Waiting { reason, message } => {
                self.one(at, "run.waiting", vec![("reason", json!(reason)), ("message", json!(message))])
            }
            Event::Prepared { pod, node, source, took_ms } => self.one(
                at,
                "run.prepared",
                vec![
                    ("pod", json!(pod)),
                    ("node", json!(node)),
                    ("source", json!(source)),
                    ("durationMs", json!(took_ms)),
                ],
            ),
            Event::StepStarted { step } => {
                self.kept.clear();
                self.one(
                    at,
                    "step.started",
                    vec![
                        ("step", json!(step.name)),
                        ("index", json!(step.index)),
                        ("of", json!(step.of)),
                        ("kind", json!(step.kind)),
                        ("after", json!(step.after)),
                    ],
                )
            }
            Event::Log { step, bytes, .. } => self.log(at, step.as_deref(), bytes),
            Event::Progress { step, message } => {
                self.one(at, "progress", vec![("step", json!(step.name)), ("message", json!(message))])
            }
            Event::Image { step, image } => self.one(
                at,
                "image",
                vec![
                    ("step", json!(step)),
                    ("repository", json!(image.repository)),
                    ("tags", json!(image.tags)),
                    ("digest", json!(image.digest)),
                    ("size", json!(image.size)),
                ],
            ),
            Event::StepFinished(end) => {
                let mut texts = Vec::new();
                if end.result == StepResult::Failed {
                    let kept = std::mem::take(&mut self.kept);
                    texts = self.log_lines(at, Some(&end.step.name), &kept);
                }
                texts.extend(self.one(
                    at,
                    "step.finished",
                    vec![
                        ("step", json!(end.step.name)),
                        ("result", json!(end.result.word())),
                        ("exitCode", json!(end.exit_code)),
                        ("reason", json!(end.reason)),
                        ("message", json!(end.message)),
                        ("durationMs", json!(end.took_ms)),
                    ],
                ));
                texts
            }
            Event::RunFinished(end) => self.one(
                at,
                "run.finished",
                vec![
                    ("result", json!(end.outcome.word())),
                    ("reason", json!(end.reason)),
                    ("message", json!(end.message)),
                    ("durationMs", json!(end.took_ms)),
                ],
            ),
            Event::Notice { message } => self.one(at, "notice", vec![("message", json!(message))]),
        }
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
        self.seq += 1;
        let time = at.wall.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        let mut all: Fields =
            vec![("v", json!(1)), ("type", json!(kind)), ("seq", json!(self.seq)), ("time", json!(time))];
        if let Some((run, namespace)) = &self.run {
            all.push(("run", json!(run)));
            all.push(("namespace", json!(namespace)));
        }
        all.extend(fields);
        // Fields without a value are left out; readers test for presence.
        let pairs = all.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| format!("\"{k}\":{v}"));
        vec![Text::Data(format!("{{{}}}\n", pairs.collect::<Vec<_>>().join(",")).into_bytes())]
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
