//! What people do to a run: they are told that it waits, ask it to go on, and get terminals. Called by
//! the loop.
//!
//! A terminal is a process of its own ([`crate::runner::terminal`]), which holds the shell while
//! connections come and go. That of a `shell` step is the step's attempt; another is opened when a
//! person asks for one, and leaving it changes nothing.
//!
//! **Invariant:** what a person may do is the schedule's to say; nothing here waits for anybody.

use super::{Attempt, Supervisor, epoch_ms};
use crate::runner::control::{Call, Reply};
use crate::runner::env::Vars;
use crate::runner::schedule::{End, Event, Verb};
use crate::runner::terminal::{self, Opened};
use crate::runner::{Error, child, script, words};
use crate::wire::{PlanStep, Record, ShellWork, StepWork, Wait};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The terminals of a run.
#[derive(Default)]
pub(super) struct Terminals {
    /// How many there were, for their names.
    opened: usize,
    /// That of the `shell` step that runs.
    of_step: Option<Opened>,
    /// The one beside a step.
    beside: Option<Beside>,
}

/// A terminal whose end changes nothing.
struct Beside {
    /// The step whose environment it has.
    step: usize,
    host: Pid,
    opened: Opened,
}

impl Terminals {
    /// Takes note that a child ended which is no attempt.
    pub(super) fn ended(&mut self, pid: Pid) {
        self.beside.take_if(|beside| beside.host == pid);
    }

    /// Whether the attempt is the host of a terminal.
    pub(super) fn is_of_step(&self) -> bool {
        self.of_step.is_some()
    }

    /// Takes note that an attempt ended.
    pub(super) fn attempt_ended(&mut self) {
        self.of_step = None;
    }
}

/// What a terminal is for.
enum Terminal<'a> {
    /// A `shell` step, which has code in a file perhaps. What runs on it ends with it, and it writes into the step's log.
    OfStep(&'a ShellWork, Option<&'a Path>),
    /// A look at what a step does. It says nothing, and what it leaves running is let be.
    Beside,
}

impl Supervisor<'_> {
    /// Answers who calls.
    pub(super) fn hear_people(&mut self) -> Result<(), Error> {
        let Some(mut control) = self.control.take() else { return Ok(()) };
        let served = control.serve(self.now(), |call| self.reply(call));
        self.control = Some(control);
        served
    }

    fn reply(&mut self, call: Call) -> Result<Reply, Error> {
        match call {
            Call::Continue { step } => self.ask_for(Verb::Continue, step.as_deref()),
            Call::Finish { step } => self.ask_for(Verb::Finish, step.as_deref()),
            Call::Retry { step } => self.ask_for(Verb::Retry, step.as_deref()),
            Call::Shell => Ok(self.terminal().unwrap_or_else(Reply::Refused)),
            Call::Environment => Ok(self.environment().unwrap_or_else(Reply::Refused)),
        }
    }

    /// Does what a person asks, if it may be.
    fn ask_for(&mut self, verb: Verb, named: Option<&str>) -> Result<Reply, Error> {
        let step = match self.schedule.may(verb, named) {
            Ok(step) => step,
            Err(why) => return Ok(Reply::Refused(why)),
        };
        let what = match verb {
            Verb::Continue => "goes on",
            Verb::Finish => "is finished",
            Verb::Retry => "is repeated",
        };
        self.tell(Event::Asked(verb))?;
        Ok(Reply::Done(format!("step {} {what}", self.name(step))))
    }

    /// Tells people that a step waits at a breakpoint.
    pub(super) fn pause(&mut self, step: usize, failed: Option<&End>) -> Result<(), Error> {
        if failed.is_some() {
            self.settle(step, false)?;
        }
        let (why, code) = failed.map_or((Wait::Before, None), |end| (Wait::Failed, end.code));
        self.journal.append(&Record::Waiting { at: epoch_ms(), step, why, code })?;
        let run = &self.plan.run.name;
        let told = match failed {
            None => format!("waits before it begins; go on with: windlass continue {run}"),
            Some(end) => format!(
                "{}; look with: windlass shell {run}, then windlass retry {run} --step {} or windlass continue {run}",
                words::ended(end),
                self.name(step)
            ),
        };
        self.output.say(&format!("wait  [{}] {}: {told}", words::took(self.now()), self.label(step)));
        Ok(())
    }

    /// Opens the terminal of a `shell` step; the inner error is for people.
    pub(super) fn start_terminal(&mut self, step: usize, work: &ShellWork) -> Result<Result<(), String>, Error> {
        let Some(plan) = self.plan.steps.get(step) else { return Ok(Ok(())) };
        let given = self.given(plan, step);
        let code = match &work.code {
            Some(code) => {
                let file = self.settings.disk.join(super::acts::SCRIPTS_DIR).join(&plan.name);
                script::write(&file, code)?;
                Some(file)
            }
            None => None,
        };
        let cwd = self.cwd(plan, &given);
        let opened = cwd.and_then(|cwd| self.open_terminal(&Terminal::OfStep(work, code.as_deref()), &cwd, &given));
        let (pid, opened) = match opened {
            Ok(opened) => opened,
            Err(why) => return Ok(Err(why)),
        };
        self.attempt = Some(Attempt::new(pid, given));
        self.terminals.of_step = Some(opened);
        self.journal.append(&Record::Waiting { at: epoch_ms(), step, why: Wait::Shell, code: None })?;
        let line = format!("attach with: windlass shell {}", self.plan.run.name);
        self.output.say(&format!("wait  [{}] {}: {line}", words::took(self.now()), self.label(step)));
        Ok(Ok(()))
    }

    /// The terminal for who asks now.
    fn terminal(&mut self) -> Result<Reply, String> {
        let (step, plan) = self.at()?;
        let (run, name) = (self.plan.run.name.clone(), plan.name.clone());
        if matches!(plan.work, StepWork::Shell(_)) && !self.schedule.is_paused() {
            let opened = self.terminals.of_step.as_ref().filter(|_| self.attempt.is_some());
            let opened = opened.ok_or_else(|| format!("step {name} is over"))?;
            let notice =
                format!("{run}, step {name}: {}; exit or Ctrl-D ends the step and the run goes on", opened.shell);
            return Ok(Reply::Terminal { socket: opened.socket.clone(), notice });
        }
        if let Some(earlier) = self.terminals.beside.take_if(|beside| beside.step != step) {
            // Its environment is that of another step. It ends once those have left who are there.
            child::signal(earlier.host, Signal::SIGHUP);
        }
        let beside = match self.terminals.beside.take() {
            Some(beside) => beside,
            None => self.open_beside(step, &plan)?,
        };
        let Opened { socket, shell } = &beside.opened;
        let then = if self.schedule.is_paused() { "which waits" } else { "which runs" };
        let notice = format!("{run}, at step {name}, {then}: {shell}; leaving it changes nothing");
        let reply = Reply::Terminal { socket: socket.clone(), notice };
        self.terminals.beside = Some(beside);
        Ok(reply)
    }

    fn open_beside(&mut self, step: usize, plan: &PlanStep) -> Result<Beside, String> {
        let given = self.given(plan, step);
        let cwd = self.cwd_of_witness(plan, &given)?;
        let (host, opened) = self.open_terminal(&Terminal::Beside, &cwd, &given)?;
        let line = format!("shell [{}] {}: a terminal was opened", words::took(self.now()), self.label(step));
        self.output.say(&line);
        Ok(Beside { step, host, opened })
    }

    /// What a command of a person begins with.
    fn environment(&mut self) -> Result<Reply, String> {
        let (step, plan) = self.at()?;
        let given = self.given(&plan, step);
        let cwd = self.cwd_of_witness(&plan, &given)?;
        let mut bytes = [cwd.as_os_str().as_bytes(), b"\0"].concat();
        for (name, value) in &given {
            bytes.extend([name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat());
        }
        Ok(Reply::Environment(BASE64.encode(bytes)))
    }

    /// The step that the run is at.
    fn at(&self) -> Result<(usize, PlanStep), String> {
        let current = self.schedule.current().and_then(|step| Some((step, self.plan.steps.get(step)?.clone())));
        current.ok_or_else(|| "no step runs now".into())
    }

    fn given(&self, plan: &PlanStep, step: usize) -> Vars {
        self.session.of_step(&plan.env, &plan.name, &self.step_id(step), self.verdict(plan).as_ref())
    }

    fn name(&self, step: usize) -> &str {
        self.plan.steps.get(step).map_or("", |plan| plan.name.as_str())
    }

    fn open_terminal(&mut self, terminal: &Terminal<'_>, cwd: &Path, given: &Vars) -> Result<(Pid, Opened), String> {
        let (cmd, code, grace, output) = match terminal {
            Terminal::OfStep(work, code) => {
                (work.cmd.as_slice(), *code, self.settings.grace_ms.to_string(), Some(self.to_us.as_fd()))
            }
            Terminal::Beside => (&[][..], None, String::new(), None),
        };
        let shell;
        let words = if cmd.is_empty() {
            shell = script::shell(None).or_else(|_| script::shell(self.plan.shell.as_deref()))?;
            vec![shell.as_os_str()]
        } else {
            cmd.iter().map(OsStr::new).collect()
        };
        let program = words.first().copied().unwrap_or_default();
        find(program, cwd, given)?;
        self.terminals.opened += 1;
        let socket = self.settings.outbox.join(format!("terminal-{}", self.terminals.opened));
        let listener = terminal::listen(&socket).map_err(|error| format!("{}: {error}", socket.display()))?;
        let opened = Opened { socket, shell: program.to_string_lossy().into_owned() };
        let code = code.map_or(b"".as_slice(), |code| code.as_os_str().as_bytes());
        let mut args = vec![terminal::HOST_COMMAND.as_bytes(), grace.as_bytes(), code];
        args.extend(words.iter().map(|word| word.as_bytes()));
        let pid = child::spawn(&child::Command {
            program: &self.runner,
            args: &args,
            cwd,
            env: given,
            input: Some(listener.as_fd()),
            output,
        })?;
        Ok((pid, opened))
    }
}

/// Looks for a program as a shell would, so that a missing one is said before anybody attaches.
fn find(program: &OsStr, cwd: &Path, given: &Vars) -> Result<(), String> {
    let runs = |path: PathBuf| nix::unistd::access(&path, nix::unistd::AccessFlags::X_OK).is_ok() && path.is_file();
    let found = if program.as_bytes().contains(&b'/') {
        runs(cwd.join(program))
    } else {
        let path = given.get(OsStr::new("PATH")).cloned().unwrap_or_default();
        std::env::split_paths(&path).any(|dir| runs(cwd.join(dir).join(program)))
    };
    if found { Ok(()) } else { Err(format!("{}: not found in the box", program.display())) }
}
