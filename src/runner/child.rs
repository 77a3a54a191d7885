//! Processes: starting one in a group of its own, signals to that group, reaping. Called by the
//! supervisor.
//!
//! **Invariant:** a process begins with no signal blocked or ignored, in its own process group, with
//! no descriptor but its three; whatever becomes our child is reaped.

use super::env::Vars;
use super::schedule::Exit;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::CString;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

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
    /// Its stdout and stderr.
    pub(super) output: BorrowedFd<'a>,
}

/// Starts the program; it leads its own process group.
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
        files.add_dup2(command.output.as_raw_fd(), 1)?;
        files.add_dup2(command.output.as_raw_fd(), 2)?;
        posix_spawn(command.program, &files, &attributes, &args, &env)
    });
    // A directory that a step holds could not be unmounted or removed by it.
    let _ = std::env::set_current_dir("/");
    pid.map_err(|errno| format!("{}: {}", command.program.display(), errno.desc()))
}

fn cstring(bytes: &[u8], what: &str) -> Result<CString, String> {
    CString::new(bytes).map_err(|_| format!("{what} holds a NUL byte"))
}

/// Own group, nothing blocked, nothing ignored.
fn attributes() -> nix::Result<PosixSpawnAttr> {
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
    )?;
    attributes.set_pgroup(Pid::from_raw(0))?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_sigdefault(&SigSet::all())?;
    Ok(attributes)
}

/// Sends a signal to everybody in the group; nobody there is fine.
pub(super) fn signal(group: Pid, signal: Signal) {
    let _ = killpg(group, signal);
}

/// Whether nobody is left in the group.
pub(super) fn is_gone(group: Pid) -> bool {
    killpg(group, None) == Err(Errno::ESRCH)
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
