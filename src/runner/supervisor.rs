//! The poll loop: signals, output, changes in `in`, time. It tells `schedule` what happened and does
//! what `schedule` says. Called by [`super::main`].
//!
//! **Invariant:** it decides nothing about the order of steps or how a run ends. What a step printed
//! before its exit is in its log before its end is recorded.

use super::env::{Session, Vars, Verdict};
use super::journal::{self, Journal};
use super::mailbox::Mailbox;
use super::mask::Mask;
use super::output::Output;
use super::schedule::{Act, End, Event, Exit, Schedule};
use super::source::{self, BoxFacts, Places};
use super::{Error, Settings, child, script, words};
use crate::wire::{
    EndReason, LOGS_DIR, PLAN_FILE, Plan, PlanStep, RUNNER_FILE, Record, Request, SOURCE_DIR, StepEnd, StepWork,
    Summary, VERSION, log_file,
};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Largest plan: the environment, the scripts, and room.
const PLAN_BYTES: u64 = 16 * 1024 * 1024;
/// Most steps and after-steps.
const STEPS: usize = 1000;
/// Where scripts are, in `disk`.
const SCRIPTS_DIR: &str = "scripts";
/// Where a shell leaves its environment, in `out`: it is on tmpfs, as it holds secrets.
const EXPORTS_FILE: &str = "exports";
/// How long our stdout may take for what is left at the end.
const LAST_WORDS_MS: u64 = 5_000;

/// An attempt of a script that runs.
struct Attempt {
    pid: Pid,
    given: Vars,
    exit: Option<Exit>,
}

/// Everything.
struct Supervisor<'a> {
    settings: &'a Settings,
    plan: Plan,
    began: Instant,
    journal: Journal,
    mailbox: Mailbox,
    output: Output,
    schedule: Schedule,
    signals: SignalFd,
    from_steps: OwnedFd,
    to_us: OwnedFd,
    buffer: Vec<u8>,
    runner: PathBuf,
    places: Places,
    session: Session,
    attempt: Option<Attempt>,
    looked: u64,
    started: Vec<Option<u64>>,
    ends: Vec<Option<StepEnd>>,
    leave: Option<u8>,
}

/// Runs the plan; the answer is the exit code.
pub(super) fn run(settings: &Settings) -> Result<u8, Error> {
    let began = Instant::now();
    // Before anything that could be interrupted: a TERM from here on waits for us.
    let signals = block_signals().map_err(|errno| Error::new("block signals", errno.into()))?;
    // As PID 1 all orphans are ours anyway; elsewhere this makes them so.
    let _ = nix::sys::prctl::set_child_subreaper(true);
    let plan = read_plan(&settings.inbox.join(PLAN_FILE))?;
    let journal = Journal::create(&settings.outbox.join(crate::wire::JOURNAL_FILE), &plan)?;
    for dir in [LOGS_DIR, SCRIPTS_DIR] {
        let dir = settings.disk.join(dir);
        fs::create_dir_all(&dir).map_err(|error| Error::new(format!("make {}", dir.display()), error))?;
    }
    let mask = Mask::new(secrets(&plan));
    let mut output = Output::new(mask);
    output.say(&format!("run   {} in namespace {}", plan.run.name, plan.run.namespace));

    let facts = BoxFacts {
        pipeline: &settings.pipeline,
        working_dir: plan.working_dir.as_deref(),
        workdir: std::env::current_dir().ok(),
        home: std::env::var_os("HOME").map(PathBuf::from),
    };
    let chosen = source::choose(&facts);
    let (from_steps, to_us) = pipe().map_err(|errno| Error::new("make a pipe", errno.into()))?;
    let left_ms = plan.deadline_ms.saturating_sub(epoch_ms());
    let places = chosen.clone().unwrap_or(Places { source: "/".into(), pipeline: "/".into() });
    let home = if nix::unistd::geteuid().is_root() { "/root" } else { "/" };
    let capacity = fcntl(&from_steps, FcntlArg::F_GETPIPE_SZ).ok().and_then(|size| usize::try_from(size).ok());
    let mut supervisor = Supervisor {
        session: Session::new(std::env::vars_os(), &plan, &places, home),
        schedule: Schedule::new(plan.steps.clone(), left_ms, settings.grace_ms),
        mailbox: Mailbox::open(&settings.inbox, &settings.outbox),
        buffer: vec![0; capacity.unwrap_or(65536)],
        runner: own_executable(&settings.inbox),
        started: vec![None; plan.steps.len()],
        ends: vec![None; plan.steps.len()],
        attempt: None,
        looked: 0,
        leave: None,
        settings,
        plan,
        began,
        journal,
        output,
        signals,
        from_steps,
        to_us,
        places,
    };
    match chosen {
        Ok(_) => supervisor.place_source()?,
        Err(message) => supervisor.give_up(message)?,
    }
    let code = supervisor.serve()?;
    supervisor.last_words();
    Ok(code)
}

impl Supervisor<'_> {
    /// Copies the source and begins.
    fn place_source(&mut self) -> Result<(), Error> {
        let from = self.settings.disk.join(SOURCE_DIR);
        let signals = &self.signals;
        let mut stop = None;
        let copied = source::copy(&from, &self.places.source, &mut || {
            stop = stop.or_else(|| read_signal(signals).filter(|signal| *signal != Signal::SIGCHLD));
            stop.is_some()
        });
        // The signals of children that ended meanwhile are spent.
        child::reap(|_, _| {});
        if let Some(signal) = stop {
            return self.tell(Event::Stop(signal as i32));
        }
        if let Err(error) = copied {
            return self.give_up(error.to_string());
        }
        let source_dir = self.places.source.to_string_lossy().into_owned();
        let revision = self.plan.source_revision.clone();
        let at = revision.as_ref().map(|revision| format!(" at {revision}")).unwrap_or_default();
        self.output.say(&format!("ok    [{}] source in {source_dir}{at}", words::took(self.now())));
        self.journal.append(&Record::Ready { at: epoch_ms(), source_dir, revision })?;
        self.look()?;
        self.tell(Event::Begin)
    }

    /// Ends the run before its first step.
    fn give_up(&mut self, message: String) -> Result<(), Error> {
        for step in 0..self.plan.steps.len() {
            let end = End { reason: EndReason::EarlierStepFailed, code: None, message: None };
            self.record_end(step, &end)?;
        }
        self.finish(false, Some(words::SOURCE_NOT_WRITABLE), None, Some(message))
    }

    /// The loop; the answer is the exit code.
    fn serve(&mut self) -> Result<u8, Error> {
        loop {
            if let Some(code) = self.leave {
                return Ok(code);
            }
            let changed = self.wait()?;
            self.take_signals()?;
            if !self.output.is_full() {
                self.read_steps(1)?;
            }
            self.output.pump();
            self.take_exit()?;
            let now = self.now();
            let asking = self.schedule.asking().is_some();
            if changed || now >= self.looked + Mailbox::look_every_ms(asking) {
                self.look()?;
            }
            self.output.tick(now)?;
            self.tell(Event::Tick)?;
        }
    }

    /// Waits until something happens; says whether something changed in `in`.
    fn wait(&self) -> Result<bool, Error> {
        let now = self.now();
        let look = self.looked + Mailbox::look_every_ms(self.schedule.asking().is_some());
        let at = [self.schedule.wake(now), self.output.wake(), Some(look)].into_iter().flatten().min().unwrap_or(look);
        let timeout = PollTimeout::try_from(at.saturating_sub(now)).unwrap_or(PollTimeout::MAX);
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut files = vec![readable(self.signals.as_fd())];
        files.extend(self.mailbox.changes().map(readable));
        let inotify_at = files.len() - 1;
        if !self.output.is_full() {
            files.push(readable(self.from_steps.as_fd()));
        }
        files.extend(self.output.wants_screen().map(|screen| PollFd::new(screen.as_fd(), PollFlags::POLLOUT)));
        match poll(&mut files, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::new("poll", errno.into())),
        }
        let changed = inotify_at > 0 && files.get(inotify_at).and_then(PollFd::any).unwrap_or_default();
        drop(files);
        if changed {
            self.mailbox.clear();
        }
        Ok(changed)
    }

    /// Takes signals: children that ended, and orders to end.
    fn take_signals(&mut self) -> Result<(), Error> {
        while let Some(signal) = read_signal(&self.signals) {
            if signal == Signal::SIGCHLD {
                let attempt = &mut self.attempt;
                child::reap(|pid, exit| match attempt {
                    Some(attempt) if attempt.pid == pid => attempt.exit = Some(exit),
                    _ => {}
                });
            } else {
                self.output.say(&format!("stop  [{}] {signal}", words::took(self.now())));
                self.tell(Event::Stop(signal as i32))?;
            }
        }
        Ok(())
    }

    /// Reads what steps printed, at most so many times; each read may empty the pipe.
    fn read_steps(&mut self, times: usize) -> Result<(), Error> {
        let mut read = 0;
        for _ in 0..times {
            match nix::unistd::read(&self.from_steps, &mut self.buffer) {
                Ok(count) if count > 0 => {
                    let now = self.now();
                    self.output.print(now, self.buffer.get(..count).unwrap_or_default())?;
                    read += count;
                    // More than the pipe could hold when we began is not of before we began.
                    if read >= self.buffer.len() {
                        break;
                    }
                }
                Ok(_) | Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::new("read what a step printed", errno.into())),
            }
        }
        if read > 0 { self.tell(Event::Output) } else { Ok(()) }
    }

    /// Ends the attempt whose shell ended: first what it printed, then what it exported.
    fn take_exit(&mut self) -> Result<(), Error> {
        if self.output.is_full() {
            return Ok(());
        }
        if let Some(exit) = self.attempt.as_mut().and_then(|attempt| attempt.exit.take()) {
            self.read_steps(usize::MAX)?;
            self.tell(Event::Exited(exit))?;
        }
        if self.schedule.awaits_group() && self.attempt.as_ref().is_none_or(|attempt| child::is_gone(attempt.pid)) {
            self.read_steps(usize::MAX)?;
            self.tell(Event::GroupGone)?;
        }
        Ok(())
    }

    /// Looks for an answer and for a cancel.
    fn look(&mut self) -> Result<(), Error> {
        self.looked = self.now();
        if let Some(step) = self.schedule.asking()
            && let Some(answer) = self.mailbox.answer(step)
        {
            let now = self.now();
            for line in &answer.log {
                self.output.print(now, line.as_bytes())?;
                self.output.print(now, b"\n")?;
            }
            self.tell(Event::Answered { passed: answer.passed, message: answer.message })?;
        }
        if self.mailbox.cancelled() { self.tell(Event::Cancel) } else { Ok(()) }
    }

    /// Tells the schedule what happened and does what it says.
    fn tell(&mut self, event: Event) -> Result<(), Error> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for act in self.schedule.on(self.now(), event) {
                if let Some(failed) = self.act(act)? {
                    events.push_back(failed);
                }
            }
        }
        Ok(())
    }

    /// Does one thing; the answer is an event if it could not be done.
    fn act(&mut self, act: Act) -> Result<Option<Event>, Error> {
        match act {
            Act::Start { step, attempt } => {
                self.begin(step, attempt)?;
                return Ok(self.start(step)?.err().map(Event::NotStarted));
            }
            Act::Ask { step } => {
                self.begin(step, 1)?;
                self.ask(step)?;
            }
            Act::Terminate => self.signal(Signal::SIGTERM),
            Act::Kill => self.signal(Signal::SIGKILL),
            Act::Repeat { step, end, pause_ms } => {
                self.settle(step, false)?;
                let (name, ended) = (self.label(step), words::ended(&end));
                let line =
                    format!("warn  [{}] {name}: {ended}; again in {}s", words::took(self.now()), pause_ms / 1000);
                self.output.say(&line);
            }
            Act::End { step, end } => {
                self.settle(step, true)?;
                self.record_end(step, &end)?;
            }
            Act::Finish(outcome) => self.finish(outcome.passed, outcome.reason, outcome.failed, outcome.message)?,
            Act::Leave(code) => self.leave = Some(u8::try_from(code).unwrap_or(super::EXIT_BROKEN)),
        }
        Ok(None)
    }

    /// Records and shows that a step begins.
    fn begin(&mut self, step: usize, attempt: u32) -> Result<(), Error> {
        let now = self.now();
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

    /// Starts a script; the inner error is for people.
    fn start(&mut self, step: usize) -> Result<Result<(), String>, Error> {
        let Some(plan) = self.plan.steps.get(step) else { return Ok(Ok(())) };
        let StepWork::Script(code) = &plan.work else { return Ok(Ok(())) };
        let file = self.settings.disk.join(SCRIPTS_DIR).join(&plan.name);
        script::write(&file, code)?;
        let given = self.session.of_step(&plan.env, &plan.name, &self.step_id(step), self.verdict(plan).as_ref());
        let exports = self.settings.outbox.join(EXPORTS_FILE);
        let _ = fs::remove_file(&exports);
        let begun = self.cwd(plan, &given).and_then(|cwd| {
            child::spawn(&child::Command {
                shell: &script::shell(self.plan.shell.as_deref())?,
                code: &script::wrapper(&self.runner, &exports),
                script: &file,
                cwd: &cwd,
                env: &given,
                output: self.to_us.as_fd(),
            })
        });
        Ok(begun.map(|pid| self.attempt = Some(Attempt { pid, given, exit: None })))
    }

    /// Where a step begins. Steps may take the source away; those after it still run.
    fn cwd(&self, plan: &PlanStep, given: &Vars) -> Result<PathBuf, String> {
        let source = &self.places.source;
        match &plan.cwd {
            Some(cwd) => Ok(source.join(Session::expand(cwd, given).map_err(|why| format!("cwd {why}"))?)),
            None if source.is_dir() => Ok(source.clone()),
            None => Ok("/".into()),
        }
    }

    /// Asks the agent.
    fn ask(&mut self, step: usize) -> Result<(), Error> {
        let Some(plan) = self.plan.steps.get(step) else { return Ok(()) };
        let id = self.step_id(step);
        let (run_env, env) = self.session.of_request(&plan.env, &plan.name, &id, self.verdict(plan).as_ref());
        self.mailbox.ask(&Request { version: VERSION, step, run_env, env })?;
        self.journal.append(&Record::Asked { at: epoch_ms(), step })?;
        // An answer may be there already; nothing would announce it.
        self.looked = 0;
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        if let Some(attempt) = &self.attempt {
            child::signal(attempt.pid, signal);
        }
    }

    /// An attempt is over: its output is let go; with the last one, its exports are kept.
    fn settle(&mut self, step: usize, last: bool) -> Result<(), Error> {
        if let Some(attempt) = self.attempt.take() {
            let exports = script::take_exports(&self.settings.outbox.join(EXPORTS_FILE));
            if let Some(exports) = exports.filter(|_| last) {
                self.session.keep(&attempt.given, &exports);
            }
        }
        if last {
            self.mailbox.withdraw(step);
            self.output.close_log()
        } else {
            self.output.flush()
        }
    }

    /// Records and shows how a step ended.
    fn record_end(&mut self, step: usize, end: &End) -> Result<(), Error> {
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
        self.output.say(&match took {
            Some(took) if end.passed() => format!("ok    [{at}] {name} {took}"),
            Some(took) => format!("FAIL  [{at}] {name} {took}: {}", words::ended(end)),
            None => format!("skip  [{at}] {name}: {}", words::ended(end)),
        });
        Ok(())
    }

    /// Records how the run ended.
    fn finish(
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
        };
        self.journal.append(&Record::Finished { at: epoch_ms(), passed, reason, failed, message })?;
        // The journal has it; this is for when nobody can read the journal.
        let _ = fs::write(&self.settings.termination_log, summary.encode());
        self.leave = Some(u8::from(!passed));
        Ok(())
    }

    /// Gives our stdout some time to take the rest.
    fn last_words(&mut self) {
        let until = Instant::now() + Duration::from_millis(LAST_WORDS_MS);
        while let Some(screen) = self.output.wants_screen() {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            let ready = poll(&mut [PollFd::new(screen.as_fd(), PollFlags::POLLOUT)], timeout);
            if left.is_zero() || ready.is_err() {
                return;
            }
            self.output.pump();
        }
    }

    /// What an after-step is told about the run.
    fn verdict(&self, plan: &PlanStep) -> Option<Verdict> {
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
    fn label(&self, step: usize) -> String {
        let Some(plan) = self.plan.steps.get(step) else { return String::new() };
        let total = self.plan.steps.iter().filter(|other| other.after == plan.after).count();
        let number = self.plan.steps.iter().take(step + 1).filter(|other| other.after == plan.after).count();
        format!("{}{number}/{total} {}", if plan.after { "after " } else { "" }, plan.name)
    }

    fn step_id(&self, step: usize) -> String {
        format!("{}-{}", self.plan.run.uid, step + 1)
    }

    /// Milliseconds since the runner began.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The values to mask.
fn secrets(plan: &Plan) -> impl Iterator<Item = &str> {
    let all = plan.env.iter().chain(plan.steps.iter().flat_map(|step| &step.env));
    all.filter(|variable| variable.secret).map(|variable| variable.value.as_str())
}

fn read_plan(path: &Path) -> Result<Plan, Error> {
    let failed = |error| Error::new(format!("read the plan {}", path.display()), error);
    let refused = |what: &str| failed(io::Error::other(what));
    if fs::metadata(path).map_err(failed)?.len() > PLAN_BYTES {
        return Err(refused("it is too large"));
    }
    let plan: Plan = serde_json::from_slice(&fs::read(path).map_err(failed)?).map_err(|error| failed(error.into()))?;
    let is_file_name = |name: &str| !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    if plan.version != VERSION {
        return Err(refused("it has another version"));
    }
    if plan.steps.len() > STEPS {
        return Err(refused("it has too many steps"));
    }
    if !plan.steps.iter().all(|step| is_file_name(&step.name)) {
        return Err(refused("a step's name is not a file name"));
    }
    Ok(plan)
}

/// Blocks what the loop reads from the descriptor instead.
fn block_signals() -> nix::Result<SignalFd> {
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        mask.add(signal);
    }
    mask.thread_block()?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

fn read_signal(signals: &SignalFd) -> Option<Signal> {
    let info = signals.read_signal().ok().flatten()?;
    Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()
}

/// The pipe of all steps: blocking for them, not for us.
fn pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (from_steps, to_us) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&from_steps, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((from_steps, to_us))
}

/// What the shell calls to dump its environment: us.
fn own_executable(inbox: &Path) -> PathBuf {
    let placed = inbox.join(RUNNER_FILE);
    if placed.exists() { placed } else { std::env::current_exe().unwrap_or(placed) }
}

fn epoch_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
