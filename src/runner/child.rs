//! Processes: starting one in a session of its own, signals to that session, reaping. Called by the
//! supervisor and by the host of a terminal.
//!
//! A session rather than a group: `timeout`, and each job of a shell with `set -m`, make groups of
//! their own, and would outlive the step that they are of. Who takes a session of its own (`setsid`)
//! is out of reach, and means to be.
//!
//! **Invariant:** a process begins with no signal blocked or ignored, in its own session, with no
//! descriptor but its three; whatever becomes our child is reaped.

use super::env::Vars;
use super::schedule::Exit;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Where the kernel tells of processes.
const PROCESSES: &str = "/proc";
/// How often a KILL is repeated for who came while it was given.
const KILLS: usize = 16;

/// What to start.
pub(super) struct Command<'a> {
    /// The program.
    pub(super) program: &'a Path,
    /// Its arguments.
    pub(super) args: &'a [&'a [u8]],
    /// Where it begins.
    pub(super) cwd: &'a Path,
    /// Its environment.
    pub(super) env: &'a Vars,
    /// Its stdin; none: nothing to read.
    pub(super) input: Option<BorrowedFd<'a>>,
    /// Its stdout and stderr; none: nobody reads.
    pub(super) output: Option<BorrowedFd<'a>>,
}

/// Starts the program; it leads its own session, and in it its own process group.
///
/// # Errors
/// Why it could not be started, for people.
pub(super) fn spawn(command: &Command<'_>) -> Result<Pid, String> {
    let program = [command.program.as_os_str().as_bytes()];
    let args = program.iter().chain(command.args).map(|arg| cstring(arg, "an argument"));
    let args = args.collect::<Result<Vec<_>, _>>()?;
    let variables = command.env.iter().map(|(name, value)| {
        cstring(&[name.as_bytes(), b"=", value.as_bytes()].concat(), &format!("variable {}", name.display()))
    });
    let env = variables.collect::<Result<Vec<_>, _>>()?;
    // The child takes our directory; nobody else in this process has one to lose.
    std::env::set_current_dir(command.cwd).map_err(|error| format!("cwd {}: {error}", command.cwd.display()))?;
    let pid = attributes().and_then(|attributes| {
        let mut files = PosixSpawnFileActions::init()?;
        match command.input {
            Some(input) => files.add_dup2(input.as_raw_fd(), 0)?,
            None => files.add_open(0, "/dev/null", OFlag::O_RDONLY, Mode::empty())?,
        }
        match command.output {
            Some(output) => files.add_dup2(output.as_raw_fd(), 1)?,
            None => files.add_open(1, "/dev/null", OFlag::O_WRONLY, Mode::empty())?,
        }
        files.add_dup2(1, 2)?;
        posix_spawn(command.program, &files, &attributes, &args, &env)
    });
    // A directory that a step holds could not be unmounted or removed by it.
    let _ = std::env::set_current_dir("/");
    pid.map_err(|errno| format!("{}: {}", command.program.display(), errno.desc()))
}

fn cstring(bytes: &[u8], what: &str) -> Result<CString, String> {
    CString::new(bytes).map_err(|_| format!("{what} holds a NUL byte"))
}

/// Own session, nothing blocked, nothing ignored.
fn attributes() -> nix::Result<PosixSpawnAttr> {
    let mut attributes = PosixSpawnAttr::init()?;
    // Of POSIX.1-2024; the library has no name for it yet.
    let own_session = PosixSpawnFlags::from_bits_retain(nix::libc::POSIX_SPAWN_SETSID.into());
    attributes
        .set_flags(own_session | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF)?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_sigdefault(&SigSet::all())?;
    Ok(attributes)
}

/// Sends a signal to everybody in the session, once to each; nobody there is fine.
pub(super) fn signal(session: Pid, signal: Signal) {
    // The first group as one: nobody can fork out of its way.
    let _ = killpg(session, signal);
    for _ in 0..if signal == Signal::SIGKILL { KILLS } else { 1 } {
        let mut others = members(session).filter(|(_, group)| *group != session).peekable();
        if others.peek().is_none() {
            return;
        }
        for (pid, _) in others {
            // It may have ended.
            let _ = kill(pid, signal);
        }
    }
}

/// Whether nobody is left in the session.
pub(super) fn is_gone(session: Pid) -> bool {
    killpg(session, None) == Err(Errno::ESRCH) && members(session).next().is_none()
}

/// The session that a child of this process leads, or led, if it is not reaped.
pub(super) fn session_of_child(parent: Pid) -> Option<Pid> {
    processes().find(|(pid, process)| process.parent == parent && process.session == *pid).map(|(pid, _)| pid)
}

/// Who is in a session, each with its group.
fn members(session: Pid) -> impl Iterator<Item = (Pid, Pid)> {
    let lives = move |process: &Process| process.session == session && !process.ended;
    processes().filter(move |(_, process)| lives(process)).map(|(pid, process)| (pid, process.group))
}

fn processes() -> impl Iterator<Item = (Pid, Process)> {
    fs::read_dir(PROCESSES).into_iter().flatten().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((Pid::from_raw(pid), process(&fs::read(entry.path().join("stat")).ok()?)?))
    })
}

/// What the kernel says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    /// It is not reaped yet.
    ended: bool,
    parent: Pid,
    group: Pid,
    session: Pid,
}

/// A process by `/proc/PID/stat` (proc_pid_stat(5)).
fn process(stat: &[u8]) -> Option<Process> {
    // The name may hold anything; it ends at the last parenthesis.
    let stat = String::from_utf8_lossy(stat);
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let mut number = || fields.next()?.parse().ok().map(Pid::from_raw);
    let (parent, group, session) = (number()?, number()?, number()?);
    Some(Process { ended: matches!(state, "Z" | "X"), parent, group, session })
}

/// Reaps every child that ended.
pub(super) fn reap(mut ended: impl FnMut(Pid, Exit)) {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => ended(pid, Exit { code, ..Exit::default() }),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                ended(pid, Exit { code: 128 + signal as i32, signalled: true, ..Exit::default() })
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            // A status of no interest, or a real-time signal that nix has no name for.
            Ok(_) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_says_of_a_process() {
        let [parent, group, session] = [1, 6, 5].map(Pid::from_raw);
        let is = |ended| Some(Process { ended, parent, group, session });
        for (stat, want) in [
            ("7 (sleep) S 1 6 5 0 -1 4194304", is(false)),
            ("7 (a) R 9 9 9) R 1 6 5 0", is(false)),
            ("7 (sleep) Z 1 6 5 0", is(true)),
            ("7 (sleep) S 1 6", None),
            ("", None),
        ] {
            assert_eq!(process(stat.as_bytes()), want, "{stat}");
        }
        assert_eq!(process(b"7 (\xff) S 1 6 5 0"), is(false));
    }
}
