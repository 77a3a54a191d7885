//! PID 1 of the box: copies the source, runs the steps one after another, records how each ended.
//!
//! ```text
//! in/plan.json ─> supervisor (one poll loop) ── asks ──> schedule (pure: what next)
//!                   │ ├─ script, child: shells        ├─ mailbox: agent's answers, cancel
//!                   │ ├─ env: what exports stay       └─ source: into the box
//!                   │ └─ crate::watcher: which files of a watched step changed
//!                   ├─> output (mask) ─> disk/logs/STEP.log and stdout;  journal ─> out/journal
//!                   └── control <── people, by exec: shell, continue, finish, retry (terminal); receive: their files
//! ```
//!
//! Called by the executable `windlass-runner`, without arguments in the box; by the shell around
//! each script as `windlass-runner dump-env FILE`; by itself, to pack files beside the loop, as
//! `windlass-runner pack ARCHIVE REPORT DIRECTORY...`; by people as `windlass-runner shell` and the
//! like. The options exist for tests, which have other directories.
//!
//! **Invariant:** it holds no credentials and talks to no network. It ends with 0 only after every
//! step's own end said so and was recorded; what it cannot record ends it with [`EXIT_BROKEN`].

mod child;
mod control;
mod env;
mod journal;
mod mailbox;
mod memory;
mod output;
mod pack;
mod plan;
mod receive;
mod schedule;
mod script;
mod signals;
mod source;
mod supervisor;
mod terminal;
mod words;

use crate::wire::{DISK_DIR, IN_DIR, OUT_DIR};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit code when the run cannot be carried out or recorded.
pub const EXIT_BROKEN: u8 = 70;
/// Where Kubernetes looks for the last words of a container.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// Where the source goes.
const PIPELINE_DIR: &str = "/pipeline";
/// How long the processes of a step have between TERM and KILL.
const GRACE_MS: u64 = 10_000;

/// Where the runner's files are, and how patient it is.
#[derive(Clone, Debug)]
struct Settings {
    inbox: PathBuf,
    outbox: PathBuf,
    disk: PathBuf,
    pipeline: PathBuf,
    termination_log: PathBuf,
    grace_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            inbox: IN_DIR.into(),
            outbox: OUT_DIR.into(),
            disk: DISK_DIR.into(),
            pipeline: PIPELINE_DIR.into(),
            termination_log: TERMINATION_LOG.into(),
            grace_ms: GRACE_MS,
        }
    }
}

/// What the runner could not do.
#[derive(Debug)]
struct Error {
    what: String,
    source: io::Error,
}

impl Error {
    fn new(what: impl Into<String>, source: io::Error) -> Self {
        Self { what: what.into(), source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}: {}", self.what, self.source)
    }
}

/// The executable: `args` are its arguments, without its name.
#[must_use]
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    if let [command, file] = args.as_slice()
        && command == script::DUMP_COMMAND
    {
        return match script::dump(Path::new(file)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => broken(&error.to_string(), None),
        };
    }
    if let [command, archive, report, directories @ ..] = args.as_slice()
        && command == pack::PACK_COMMAND
    {
        return match pack::run(Path::new(archive), Path::new(report), directories) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => broken(&error.to_string(), None),
        };
    }
    match args.split_first() {
        Some((command, rest)) if command == terminal::HOST_COMMAND => {
            return terminal::host::run(rest).map_or_else(|message| broken(&message, None), ExitCode::from);
        }
        Some((command, rest)) if command == terminal::ON_TTY_COMMAND => {
            return ExitCode::from(terminal::become_shell(rest));
        }
        _ => {}
    }
    match settings(args) {
        Ok((settings, words)) if words.is_empty() => match supervisor::run(&settings) {
            Ok(code) => ExitCode::from(code),
            Err(error) => broken(&error.to_string(), Some(&settings.termination_log)),
        },
        Ok((settings, words)) if words == [receive::RECEIVE_COMMAND] => ExitCode::from(receive::run(&settings.outbox)),
        Ok((settings, words)) => match terminal::attach::verb(&settings.outbox, &words) {
            Some(code) => ExitCode::from(code),
            None => broken("the verbs are shell, continue, finish, retry and receive", None),
        },
        Err(message) => broken(&message, None),
    }
}

/// Reads the options of tests, of which there are none in the box, and the words of a verb.
fn settings(args: Vec<OsString>) -> Result<(Settings, Vec<OsString>), String> {
    let mut settings = Settings::default();
    let mut args = args.into_iter();
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{} needs a value", name.display()));
        match name.to_str() {
            Some("--in") => settings.inbox = value()?.into(),
            Some("--out") => settings.outbox = value()?.into(),
            Some("--disk") => settings.disk = value()?.into(),
            Some("--pipeline") => settings.pipeline = value()?.into(),
            Some("--termination-log") => settings.termination_log = value()?.into(),
            Some("--grace-ms") => {
                let text = value()?;
                let number = text.to_str().and_then(|text| text.parse().ok());
                settings.grace_ms = number.ok_or("--grace-ms needs a number")?;
            }
            Some(option) if option.starts_with('-') => return Err(format!("unknown argument {option}")),
            _ => return Ok((settings, std::iter::once(name).chain(args).collect())),
        }
    }
    Ok((settings, Vec::new()))
}

/// Says what is wrong where people will see it.
fn broken(message: &str, termination_log: Option<&Path>) -> ExitCode {
    let line = format!("windlass-runner: {message}\n");
    // With nobody to read it, the exit code has to do.
    let _ = io::Write::write_all(&mut io::stderr(), line.as_bytes());
    if let Some(path) = termination_log {
        let _ = std::fs::write(path, line);
    }
    ExitCode::from(EXIT_BROKEN)
}
