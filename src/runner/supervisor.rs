//! The poll loop: signals, output, changes in `in`, time. It tells `schedule` what happened and does
//! what `schedule` says. Called by [`super::main`].
//!
//! **Invariant:** it decides nothing about the order of steps or how a run ends. What a step printed
//! before its exit is in its log before its end is recorded.

mod acts;
mod files;
mod people;

use super::control::{Control, Reply};
use super::env::{Session, Vars};
use super::journal::Journal;
use super::mailbox::Mailbox;
use super::output::Output;
use super::schedule::{End, Event, Exit, Schedule};
use super::signals::{self, Signals};
use super::source::{self, BoxFacts, Places};
use super::{Error, Settings, child, memory, plan, words};
use crate::mask::Mask;
use crate::watcher::Watcher;
use crate::wire::{EndReason, JOURNAL_FILE, LOGS_DIR, PLAN_FILE, Plan, RUNNER_FILE, Record, SOURCE_DIR, StepEnd};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// How long those may take who asked for what ended the run.
const LAST_CALLERS_MS: u64 = 1_000;
/// How long our stdout may take for what is left at the end.
const LAST_WORDS_MS: u64 = 5_000;
/// An attempt of a script that runs.
struct Attempt {
    pid: Pid,
    /// The session of the shell that it holds, if it is the host of a terminal that was told to end.
    shell: Option<Pid>,
    given: Vars,
    exit: Option<Exit>,
}

impl Attempt {
    fn new(pid: Pid, given: Vars) -> Self {
        Self { pid, shell: None, given, exit: None }
    }

    /// Whether nobody is left of it.
    fn is_gone(&self) -> bool {
        child::is_gone(self.pid) && self.shell.is_none_or(child::is_gone)
    }
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
    signals: Signals,
    from_steps: OwnedFd,
    to_us: OwnedFd,
    buffer: Vec<u8>,
    runner: PathBuf,
    places: Places,
    session: Session,
    attempt: Option<Attempt>,
    /// What the last attempt exported, until it is known whether there is another: given, and at its end.
    exports: Option<(Vars, Vec<u8>)>,
    /// How people reach us; none if the socket could not be made.
    control: Option<Control>,
    terminals: people::Terminals,
    /// Of a step that is restarted when files change.
    watcher: Option<Watcher>,
    /// The last step that has a note in the journal.
    noted: Option<usize>,
    /// The step that left without the source, while that is gone.
    taken_by: Option<usize>,
    looked: u64,
    /// Kills for want of memory before the current attempt.
    memory_kills: u64,
    /// Whether the agent was asked for anything.
    asked: bool,
    /// Whether we were told to end.
    stopped: bool,
    started: Vec<Option<u64>>,
    ends: Vec<Option<StepEnd>>,
    leave: Option<u8>,
}

/// Runs the plan; the answer is the exit code.
pub(super) fn run(settings: &Settings) -> Result<u8, Error> {
    let began = Instant::now();
    // Before anything that could be interrupted: a TERM from here on waits for us.
    let signals = Signals::block(&signals::OF_A_LOOP).map_err(|errno| Error::new("block signals", errno.into()))?;
    // As PID 1 all orphans are ours anyway; elsewhere this makes them so.
    let _ = nix::sys::prctl::set_child_subreaper(true);
    let plan = plan::read(&settings.inbox.join(PLAN_FILE))?;
    let journal = Journal::create(&settings.outbox.join(JOURNAL_FILE), &plan)?;
    for dir in [LOGS_DIR, acts::SCRIPTS_DIR] {
        let dir = settings.disk.join(dir);
        fs::create_dir_all(&dir).map_err(|error| Error::new(format!("make {}", dir.display()), error))?;
    }
    let mask = Mask::new(plan::secrets(&plan));
    let mut output = Output::new(mask);
    output.say(&format!("run   {} in namespace {}", plan.run.name, plan.run.namespace));

    let chosen = source::choose(&facts(settings, &plan));
    let (from_steps, to_us) = pipe().map_err(|errno| Error::new("make a pipe", errno.into()))?;
    let left_ms = plan.deadline_ms.saturating_sub(epoch_ms());
    let places = chosen.clone().unwrap_or(Places { source: "/".into(), pipeline: "/".into(), cache: None });
    let home = if nix::unistd::geteuid().is_root() { "/root" } else { "/" };
    let capacity = fcntl(&from_steps, FcntlArg::F_GETPIPE_SZ).ok().and_then(|size| usize::try_from(size).ok());
    let mut supervisor = Supervisor {
        session: Session::new(std::env::vars_os(), &plan, &places, home),
        schedule: Schedule::new(plan.steps.clone(), left_ms, plan.timeout_s, settings.grace_ms)
            .with_breakpoints(plan.breakpoints.clone()),
        mailbox: Mailbox::open(&settings.inbox, &settings.outbox),
        buffer: vec![0; capacity.unwrap_or(65536)],
        runner: own_executable(&settings.inbox),
        started: vec![None; plan.steps.len()],
        ends: vec![None; plan.steps.len()],
        attempt: None,
        exports: None,
        control: Control::open(&settings.outbox)
            .inspect_err(|error| output.say(&format!("warn  people cannot reach this run: {error}")))
            .ok(),
        terminals: people::Terminals::default(),
        watcher: None,
        noted: None,
        taken_by: None,
        looked: 0,
        memory_kills: 0,
        asked: false,
        stopped: false,
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
    supervisor.last_callers();
    if supervisor.asked && !supervisor.stopped {
        supervisor.await_record();
    }
    Ok(code)
}

/// What decides where the source goes.
fn facts<'a>(settings: &'a Settings, plan: &'a Plan) -> BoxFacts<'a> {
    BoxFacts {
        pipeline: &settings.pipeline,
        working_dir: plan.working_dir.as_deref(),
        mounted: plan.source_mounted,
        workdir: std::env::current_dir().ok(),
        home: std::env::var_os("HOME").map(PathBuf::from),
    }
}

impl Supervisor<'_> {
    /// Copies the source and begins.
    fn place_source(&mut self) -> Result<(), Error> {
        let from = self.settings.disk.join(SOURCE_DIR);
        let signals = &self.signals;
        let mut stop = None;
        let copied = source::copy(&from, &self.places.source, &mut || {
            stop = stop.or_else(|| signals.read().filter(|signal| *signal != Signal::SIGCHLD));
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
            self.hear_people()?;
            self.take_changes()?;
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
        let files = self.watcher.as_ref().and_then(Watcher::wake);
        let at = [self.schedule.wake(now), self.output.wake(), files, Some(look)].into_iter().flatten().min();
        let at = at.unwrap_or(look);
        let timeout = PollTimeout::try_from(at.saturating_sub(now)).unwrap_or(PollTimeout::MAX);
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut files = vec![readable(self.signals.as_fd())];
        files.extend(self.mailbox.changes().map(readable));
        let inotify_at = files.len() - 1;
        if !self.output.is_full() {
            files.push(readable(self.from_steps.as_fd()));
        }
        files.extend(self.watcher.as_ref().and_then(Watcher::changes).map(readable));
        files.extend(self.output.wants_screen().map(|screen| PollFd::new(screen.as_fd(), PollFlags::POLLOUT)));
        files.extend(self.control.iter().flat_map(Control::polled));
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
        let mut reaped = false;
        while let Some(signal) = self.signals.read() {
            if signal == Signal::SIGCHLD {
                let (attempt, terminals) = (&mut self.attempt, &mut self.terminals);
                child::reap(|pid, exit| match attempt {
                    Some(attempt) if attempt.pid == pid => attempt.exit = Some(exit),
                    _ => terminals.ended(pid),
                });
                reaped = true;
            } else {
                self.stopped = true;
                self.output.say(&format!("stop  [{}] {signal}", words::took(self.now())));
                self.tell(Event::Stop(signal as i32))?;
            }
        }
        if reaped {
            // What it left running may have ended, too.
            self.forget_gone();
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
        if let Some(exit) = self.attempt.as_mut().and_then(|attempt| attempt.exit.take()) {
            self.read_steps(usize::MAX)?;
            let out_of_memory = exit.code != 0 && memory::kills() > self.memory_kills;
            self.tell(Event::Exited(Exit { out_of_memory, ..exit }))?;
        }
        if self.schedule.awaits_session() && self.attempt.as_ref().is_none_or(Attempt::is_gone) {
            self.read_steps(usize::MAX)?;
            self.tell(Event::SessionGone)?;
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
            self.tell(Event::Answered {
                passed: answer.passed,
                message: answer.message.map(|message| self.output.masked(&message)),
            })?;
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

    /// Gives who asked for what ended the run some time to say so.
    fn last_callers(&mut self) {
        let until = Instant::now() + Duration::from_millis(LAST_CALLERS_MS);
        let Some(mut control) = self.control.take() else { return };
        while control.is_heard() {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            let ready = poll(&mut control.polled().collect::<Vec<_>>(), timeout);
            let served = control.serve(self.now(), |_| Ok(Reply::Refused("the run ends".into())));
            if left.is_zero() || ready.is_err_and(|errno| errno != Errno::EINTR) || served.is_err() {
                return;
            }
        }
    }

    /// Waits until the end of the run stands in the status, or we are told to end: with us goes what the agent knows it
    /// from.
    fn await_record(&mut self) {
        let began = Instant::now();
        while let Some(look) = self.mailbox.awaits_record(began.elapsed()) {
            let mut files = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            files.extend(self.mailbox.changes().map(|changes| PollFd::new(changes, PollFlags::POLLIN)));
            let polled = poll(&mut files, PollTimeout::try_from(look).unwrap_or(PollTimeout::MAX));
            if polled.is_err_and(|errno| errno != Errno::EINTR) {
                return;
            }
            self.mailbox.clear();
            while let Some(signal) = self.signals.read() {
                if signal != Signal::SIGCHLD {
                    return;
                }
                child::reap(|_, _| {});
            }
        }
    }

    /// Milliseconds since the runner began.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
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
