//! Does what the schedule says: starts, asks, signals, records, shows. Called by the loop.
//!
//! **Invariant:** a step's end is recorded after its output is let go and its exports are kept, so
//! whoever sees the record finds both.

use super::{Attempt, Supervisor, epoch_ms};
use crate::archive;
use crate::runner::env::{Session, Vars, Verdict};
use crate::runner::schedule::{Act, End, Event};
use crate::runner::{EXIT_BROKEN, Error, child, journal, memory, pack, script, words};
use crate::wire::{
    PackFault, Packed, PlanStep, Record, Request, StepEnd, StepWork, Summary, VERSION, WatchWork, archive_file,
    log_file,
};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// Where scripts are, in `disk`.
pub(super) const SCRIPTS_DIR: &str = "scripts";
/// Where a shell leaves its environment, in `out`: it is on tmpfs, as it holds secrets.
pub(super) const EXPORTS_FILE: &str = "exports";
/// Where the packing says what came of it, in `out`.
const PACKED_FILE: &str = "packed";

impl Supervisor<'_> {
    /// Does one thing; the answer is an event if it could not be done.
    pub(super) fn act(&mut self, act: Act) -> Result<Option<Event>, Error> {
        match act {
            Act::Start { step, attempt } => {
                self.memory_kills = memory::kills();
                self.begin(step, attempt)?;
                self.serve_step(step)?;
                return Ok(self.start(step)?.err().map(|why| Event::NotStarted(self.output.masked(&why))));
            }
            Act::Pause { step, failed } => self.pause(step, failed.as_ref())?,
            Act::Restart { step, file, slowed } => {
                self.memory_kills = memory::kills();
                self.say_restart(step, &file, slowed);
                return Ok(self.start(step)?.err().map(|why| Event::NotStarted(self.output.masked(&why))));
            }
            Act::Rest { step, end } => self.rest(step, &end)?,
            Act::Ask { step, unpacked } => self.ask(step, unpacked)?,
            Act::Terminate => self.signal(Signal::SIGTERM),
            Act::Kill => self.signal(Signal::SIGKILL),
            Act::Repeat { step, end, pause_ms } => {
                self.settle(step, false)?;
                self.note_source(step);
                let (name, ended) = (self.label(step), words::ended(&end));
                let line =
                    format!("warn  [{}] {name}: {ended}; again in {}s", words::took(self.now()), pause_ms / 1000);
                self.output.say(&line);
            }
            Act::End { step, end } => {
                self.settle(step, true)?;
                self.note_source(step);
                self.watcher = None;
                self.record_end(step, &end)?;
            }
            Act::Finish(outcome) => self.finish(outcome.passed, outcome.reason, outcome.failed, outcome.message)?,
            Act::Leave(code) => self.leave = Some(u8::try_from(code).unwrap_or(EXIT_BROKEN)),
        }
        Ok(None)
    }

    /// Records and shows that a step begins.
    fn begin(&mut self, step: usize, attempt: u32) -> Result<(), Error> {
        let now = self.now();
        self.exports = None;
        if attempt == 1 {
            if let Some(slot) = self.started.get_mut(step) {
                *slot = Some(now);
            }
            let title = self.plan.steps.get(step).filter(|plan| !plan.title.is_empty() && plan.title != plan.name);
            let title = title.map(|plan| format!(" ({})", plan.title)).unwrap_or_default();
            self.output.say(&format!("step  [{}] {}{title}", words::took(now), self.label(step)));
            if let Some(plan) = self.plan.steps.get(step) {
                self.output.open_log(&self.settings.disk.join(log_file(&plan.name)))?;
            }
        }
        self.journal.append(&Record::Started { at: epoch_ms(), step, attempt })
    }

    /// Starts the process of a step; the inner error is for people.
    fn start(&mut self, step: usize) -> Result<Result<(), String>, Error> {
        let Some(plan) = self.plan.steps.get(step) else { return Ok(Ok(())) };
        let code = match &plan.work {
            StepWork::Script(code) | StepWork::Watch(WatchWork { code, .. }) => code,
            StepWork::Shell(work) => return self.start_terminal(step, &work.clone()),
            StepWork::Pack { directory, disable_sync } => {
                let started = self.start_packing(step, plan, directory.as_deref(), *disable_sync);
                return Ok(started.map(|attempt| self.attempt = Some(attempt)));
            }
            StepWork::Agent => return Ok(Ok(())),
        };
        let file = self.settings.disk.join(SCRIPTS_DIR).join(&plan.name);
        script::write(&file, code)?;
        let given = self.session.of_step(&plan.env, &plan.name, &self.step_id(step), self.verdict(plan).as_ref());
        let exports = self.settings.outbox.join(EXPORTS_FILE);
        let _ = fs::remove_file(&exports);
        let wrapper = script::wrapper(&self.runner, &exports);
        let cwd = if plan.after { self.cwd_of_witness(plan, &given) } else { self.cwd(plan, &given) };
        if plan.after
            && plan.cwd.is_none()
            && let Some(gone) = self.source_gone()
        {
            let line = format!("warn  [{}] {}: {gone}; it begins in /", words::took(self.now()), self.label(step));
            self.output.say(&line);
        }
        let begun = cwd.and_then(|cwd| {
            child::spawn(&child::Command {
                program: &script::shell(self.plan.shell.as_deref())?,
                args: &[b"-c", &wrapper, file.as_os_str().as_bytes()],
                cwd: &cwd,
                env: &given,
                input: None,
                output: Some(self.to_us.as_fd()),
            })
        });
        Ok(begun.map(|pid| self.attempt = Some(Attempt::new(pid, given))))
    }

    /// Starts the packing of a step's files: another process, as the loop must not wait for a disk.
    fn start_packing(
        &self,
        step: usize,
        plan: &PlanStep,
        directory: Option<&str>,
        disable_sync: bool,
    ) -> Result<Attempt, String> {
        let vars: Vars = if disable_sync {
            self.of_request(step, plan).0.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
        } else {
            self.session.of_step(&plan.env, &plan.name, &self.step_id(step), self.verdict(plan).as_ref())
        };
        let directories = match directory {
            Some(directory) => vec![Session::expand(directory, &vars).map_err(|why| format!("directory {why}"))?],
            None => {
                ["OUTPUT_DIR", "ROOT"].map(|name| self.session.of_twins(name, &vars)).into_iter().flatten().collect()
            }
        };
        let (archive, report) = (self.settings.disk.join(archive_file(step)), self.settings.outbox.join(PACKED_FILE));
        let _ = fs::remove_file(&report);
        let own = [pack::PACK_COMMAND.as_bytes(), archive.as_os_str().as_bytes(), report.as_os_str().as_bytes()];
        let args: Vec<&[u8]> = own.into_iter().chain(directories.iter().map(|dir| dir.as_bytes())).collect();
        // It needs no variables, and those of steps must not steer it.
        let given = Vars::new();
        let pid = child::spawn(&child::Command {
            program: &self.runner,
            args: &args,
            // Only a directory that the step names may be told from where it begins.
            cwd: &if directory.is_some() { self.cwd(plan, &vars)? } else { self.cwd_of_witness(plan, &vars)? },
            env: &given,
            input: None,
            output: Some(self.to_us.as_fd()),
        })?;
        Ok(Attempt::new(pid, given))
    }

    /// Where a step begins. A directory that is not there is told, with the step that left without it.
    pub(super) fn cwd(&self, plan: &PlanStep, given: &Vars) -> Result<PathBuf, String> {
        let source = &self.places.source;
        let cwd = match &plan.cwd {
            Some(cwd) => source.join(Session::expand(cwd, given).map_err(|why| format!("cwd {why}"))?),
            None => source.clone(),
        };
        // What else may be wrong with it, the kernel says once somebody begins there.
        if fs::metadata(&cwd).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            let gone =
                self.source_gone().filter(|_| cwd.starts_with(source) && (cwd != *source || self.taken_by.is_some()));
            return Err(words::no_directory(&cwd, gone.as_deref()));
        }
        Ok(cwd)
    }

    /// Where people look in, and where after-steps begin: they are for what went wrong, so a source that is gone keeps
    /// nobody out.
    pub(super) fn cwd_of_witness(&self, plan: &PlanStep, given: &Vars) -> Result<PathBuf, String> {
        match self.source_gone().filter(|_| plan.cwd.is_none()) {
            Some(_) => Ok("/".into()),
            None => self.cwd(plan, given),
        }
    }

    /// That the source is gone, in words, if it is.
    fn source_gone(&self) -> Option<String> {
        let source = &self.places.source;
        if source.is_dir() {
            return None;
        }
        let since = self.taken_by.and_then(|step| self.plan.steps.get(step));
        Some(words::gone(source, since.map(|plan| plan.name.as_str())))
    }

    /// Remembers which step left without the source.
    fn note_source(&mut self, step: usize) {
        self.taken_by = (!self.places.source.is_dir()).then(|| self.taken_by.unwrap_or(step));
    }

    /// Asks the agent.
    fn ask(&mut self, step: usize, unpacked: Option<String>) -> Result<(), Error> {
        let Some(plan) = self.plan.steps.get(step) else { return Ok(()) };
        let packs = matches!(plan.work, StepWork::Pack { .. });
        if !packs {
            self.begin(step, 1)?;
        }
        let packed = packs.then(|| self.packed(unpacked));
        let Some(plan) = self.plan.steps.get(step) else { return Ok(()) };
        let (run_env, env) = self.of_request(step, plan);
        self.asked = true;
        self.mailbox.ask(&Request { version: VERSION, step, run_env, env, packed })?;
        self.journal.append(&Record::Asked { at: epoch_ms(), step })?;
        // An answer may be there already; nothing would announce it.
        self.looked = 0;
        Ok(())
    }

    /// What came of the packing; a path in it may hold what is to be masked.
    fn packed(&mut self, unpacked: Option<String>) -> Packed {
        self.attempt = None;
        let packed = match unpacked {
            Some(message) => Packed::Refused { fault: PackFault::Failed, message },
            None => pack::take_report(&self.settings.outbox.join(PACKED_FILE)),
        };
        match packed {
            Packed::Archive => packed,
            Packed::Refused { fault, message } => {
                Packed::Refused { fault, message: archive::short(&self.output.masked(&message)) }
            }
        }
    }

    /// What the run itself defines, and the same with what steps exported.
    fn of_request(&self, step: usize, plan: &PlanStep) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
        self.session.of_request(&plan.env, &plan.name, &self.step_id(step), self.verdict(plan).as_ref())
    }

    fn signal(&mut self, signal: Signal) {
        let Some(attempt) = &mut self.attempt else { return };
        if self.terminals.is_of_step() {
            // A host ends its shell itself. When it is killed it cannot, and the shell is nobody's child that we know.
            attempt.shell = attempt.shell.or_else(|| child::session_of_child(attempt.pid));
        }
        child::signal(attempt.pid, signal);
        if let Some(shell) = attempt.shell.filter(|_| signal == Signal::SIGKILL) {
            child::signal(shell, signal);
        }
    }

    /// An attempt is over: its output is let go; with the last one, its exports are kept.
    pub(super) fn settle(&mut self, step: usize, last: bool) -> Result<(), Error> {
        self.terminals.attempt_ended();
        if let Some(attempt) = self.attempt.take() {
            // After a pause it may turn out to have been the last.
            self.exports = script::take_exports(&self.settings.outbox.join(EXPORTS_FILE)).map(|it| (attempt.given, it));
        }
        // Code that is restarted has no end of its own, so what it exports is left to chance.
        let keeps = !self.plan.steps.get(step).is_some_and(PlanStep::reloads);
        if let Some((given, exports)) = self.exports.take_if(|_| last)
            && keeps
        {
            self.session.keep(&given, &exports);
        }
        if last {
            self.mailbox.withdraw(step);
            // What was packed; most steps pack nothing.
            let _ = fs::remove_file(self.settings.disk.join(archive_file(step)));
            self.output.close_log()
        } else {
            self.output.flush()
        }
    }

    /// Records and shows how a step ended.
    pub(super) fn record_end(&mut self, step: usize, end: &End) -> Result<(), Error> {
        let now = self.now();
        let started = self.started.get(step).copied().flatten();
        let ms = |at: u64| u32::try_from(at).unwrap_or(u32::MAX);
        if let Some(slot) = self.ends.get_mut(step) {
            *slot = Some(StepEnd {
                reason: end.reason,
                code: end.code.map(|code| u8::try_from(code).unwrap_or(u8::MAX)),
                started_ms: ms(started.unwrap_or(now)),
                finished_ms: ms(now),
            });
        }
        self.journal.append(&Record::Ended {
            at: epoch_ms(),
            step,
            code: end.code,
            reason: end.reason,
            message: end.message.as_deref().map(journal::message),
        })?;
        let (name, at) = (self.label(step), words::took(now));
        let took = started.map(|started| words::took(now - started));
        self.output.say(&words::closed(end, &at, &name, took.as_deref()));
        Ok(())
    }

    /// Records how the run ended.
    pub(super) fn finish(
        &mut self,
        passed: bool,
        reason: Option<&str>,
        failed: Option<usize>,
        message: Option<String>,
    ) -> Result<(), Error> {
        let (reason, message) = (reason.map(str::to_owned), message.as_deref().map(journal::message));
        let at = words::took(self.now());
        self.output.say(&match &message {
            _ if passed => format!("ok    [{at}] {} succeeded", self.plan.run.name),
            Some(message) => format!("FAIL  [{at}] {} failed: {message}", self.plan.run.name),
            None => format!("FAIL  [{at}] {} failed", self.plan.run.name),
        });
        let summary = Summary {
            passed,
            reason: reason.clone(),
            failed: failed.and_then(|step| u8::try_from(step).ok()),
            steps: self.ends.clone(),
            message: message.clone(),
        };
        self.journal.append(&Record::Finished { at: epoch_ms(), passed, reason, failed, message })?;
        // The journal has it; this is for when nobody can read the journal.
        let _ = fs::write(&self.settings.termination_log, summary.encode());
        self.leave = Some(u8::from(!passed));
        Ok(())
    }

    /// What an after-step is told about the run.
    pub(super) fn verdict(&self, plan: &PlanStep) -> Option<Verdict> {
        let outcome = self.schedule.outcome().filter(|_| plan.after)?;
        let failed = outcome.failed.and_then(|step| self.plan.steps.get(step));
        let message = outcome.message.unwrap_or_default();
        Some(Verdict {
            passed: outcome.passed,
            failed: failed.map(|step| {
                let title = if step.title.is_empty() { &step.name } else { &step.title };
                (step.name.clone(), title.clone(), message)
            }),
        })
    }

    /// Number and name of a step: `2/3 test`, `after 1/1 tell`.
    pub(super) fn label(&self, step: usize) -> String {
        let Some(plan) = self.plan.steps.get(step) else { return String::new() };
        let total = self.plan.steps.iter().filter(|other| other.after == plan.after).count();
        let number = self.plan.steps.iter().take(step + 1).filter(|other| other.after == plan.after).count();
        format!("{}{number}/{total} {}", if plan.after { "after " } else { "" }, plan.name)
    }

    pub(super) fn step_id(&self, step: usize) -> String {
        format!("{}-{}", self.plan.run.uid, step + 1)
    }
}
