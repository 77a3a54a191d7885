//! The shell and its pty. Called by the host.
//!
//! **Invariant:** the shell leads a session of its own with the pty as its terminal, and is the host's
//! child: so its session is known, and stays the same while anybody is in it.

use crate::runner::child;
use crate::runner::terminal::ON_TTY_COMMAND;
use crate::runner::terminal::frame::Size;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long who was killed may take to go away.
const KILLED_MS: u64 = 1_000;
/// How often to look whether somebody is left.
const CHECK_MS: u64 = 20;

/// See the module.
pub(super) struct Shell {
    child: Child,
    /// It does not block.
    pub(super) master: OwnedFd,
    /// Kept, or a shell that closes its own would look like a terminal that is hung up.
    slave: OwnedFd,
    size: Size,
}

/// What ran on a terminal that is hung up, and was told to end.
pub(super) struct Ending {
    child: Child,
    session: Pid,
    since: Instant,
}

impl Shell {
    /// Starts a program on a terminal of this size.
    ///
    /// # Errors
    /// What cannot be done, for people.
    pub(super) fn start(words: &[OsString], size: Size) -> Result<Self, String> {
        let failed = |what: &str, error: io::Error| format!("the terminal cannot be made: {what}: {error}");
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).map_err(|e| failed("/dev/ptmx", e.into()))?;
        rustix::pty::grantpt(&master).map_err(|e| failed("grant", e.into()))?;
        rustix::pty::unlockpt(&master).map_err(|e| failed("unlock", e.into()))?;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).map_err(|e| failed("open", e.into()))?;
        rustix::io::ioctl_fionbio(&master, true).map_err(|e| failed("unblock", e.into()))?;
        rustix::termios::tcsetwinsize(&master, size.winsize()).map_err(|e| failed("resize", e.into()))?;
        let copy = || slave.try_clone().map(Stdio::from).map_err(|e| failed("share", e));
        let runner = std::env::current_exe().map_err(|e| failed("runner", e))?;
        let child = Command::new(runner)
            .arg(ON_TTY_COMMAND)
            .args(words)
            .stdin(copy()?)
            .stdout(copy()?)
            .stderr(copy()?)
            .spawn()
            .map_err(|e| failed("start", e))?;
        Ok(Self { child, master, slave, size })
    }

    /// Programs redraw when the size changes; who comes back to the same size has to see them, too.
    pub(super) fn resize(&mut self, size: Size) {
        if size == self.size {
            let other = Size { columns: size.columns.saturating_add(1), ..size };
            let _ = rustix::termios::tcsetwinsize(&self.master, other.winsize());
        }
        let _ = rustix::termios::tcsetwinsize(&self.master, size.winsize());
        self.size = size;
    }

    /// Its exit code, once it has ended.
    pub(super) fn left(&mut self) -> Option<i32> {
        let status = self.child.try_wait().ok().flatten()?;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        Some(status.code().or_else(|| signal.map(|signal| 128 + signal)).unwrap_or_default())
    }

    /// Hangs the terminal up and tells everybody of its session to end, who is stopped as well.
    pub(super) fn hang_up(self) -> Ending {
        let Self { child, master, slave, .. } = self;
        drop((master, slave));
        // A number of the kernel's: it fits.
        let session = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGCONT] {
            child::signal(session, signal);
        }
        Ending { child, session, since: Instant::now() }
    }
}

impl Ending {
    /// Waits until nobody is left; who is there after `grace` is killed.
    pub(super) fn wait(mut self, grace: Duration) {
        loop {
            let _ = self.child.try_wait();
            let took = self.since.elapsed();
            if child::is_gone(self.session) || took >= grace + Duration::from_millis(KILLED_MS) {
                return;
            }
            if took >= grace {
                child::signal(self.session, Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(CHECK_MS));
        }
    }
}

impl Size {
    fn winsize(self) -> Winsize {
        Winsize { ws_row: self.rows, ws_col: self.columns, ws_xpixel: 0, ws_ypixel: 0 }
    }
}
