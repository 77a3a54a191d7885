//! Terminals for people: a process that holds a shell on a pty ([`host`]), and one in the connection of
//! each person who is attached ([`attach`]).
//!
//! ```text
//! kubectl exec -it … windlass-runner shell ── raw bytes, sizes ──> host ── pty ──> bash
//!      (attach: ends with its connection)        (unix socket)     (ends with the shell)
//! ```
//!
//! The supervisor starts the host; people start the other. So a lost connection ends nothing, the next
//! one finds the shell as it was, and several people share one. The end of the shell, or an order of the supervisor,
//! is the end of the host.
//!
//! **Invariant:** what is typed and printed is never logged or kept: it may hold secrets.

pub(super) mod attach;
mod frame;
pub(super) mod host;

use nix::sys::signal::SigSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The subcommand that holds a shell: `terminal GRACE-MS CODE-FILE PROGRAM ARGS…`, with its socket as stdin. Grace and
/// file may be empty.
pub(super) const HOST_COMMAND: &str = "terminal";
/// The subcommand that becomes the shell: `on-tty PROGRAM ARGS…`, with its terminal as stdin.
pub(super) const ON_TTY_COMMAND: &str = "on-tty";
/// What a shell ends with that cannot be found.
pub(super) const EXIT_NOT_FOUND: u8 = 127;
/// What a shell ends with that cannot be run.
pub(super) const EXIT_NOT_EXECUTABLE: u8 = 126;

/// A terminal that can be attached to, until this is dropped.
pub(super) struct Opened {
    /// Where it listens.
    pub(super) socket: PathBuf,
    /// What runs on it.
    pub(super) shell: String,
}

impl Drop for Opened {
    fn drop(&mut self) {
        // A step may have taken it away.
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Listens for people.
pub(super) fn listen(socket: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(socket)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Becomes the shell, with its stdin as its controlling terminal: then Ctrl-C reaches what it runs.
pub(super) fn become_shell(words: &[OsString]) -> u8 {
    // The host reads its signals from a descriptor, and what it blocks for that is inherited.
    let _ = SigSet::empty().thread_set_mask();
    let began = rustix::process::setsid().and_then(|_| rustix::process::ioctl_tiocsctty(io::stdin()));
    match began {
        Ok(()) => become_program(words, std::env::vars_os()),
        Err(error) => {
            say(&format!("the terminal cannot be taken: {error}"));
            EXIT_NOT_EXECUTABLE
        }
    }
}

/// Becomes a program with these variables; comes back only if that cannot be.
pub(super) fn become_program<K, V>(words: &[OsString], variables: impl Iterator<Item = (K, V)>) -> u8
where
    K: AsRef<OsStr>,
    V: AsRef<OsStr>,
{
    let Some((program, args)) = words.split_first() else {
        say("a command is missing");
        return EXIT_NOT_EXECUTABLE;
    };
    let error = Command::new(program).args(args).env_clear().envs(variables).exec();
    if error.kind() == io::ErrorKind::NotFound {
        say(&format!("{}: not found in the box", program.display()));
        EXIT_NOT_FOUND
    } else {
        say(&format!("{}: {error}", program.display()));
        EXIT_NOT_EXECUTABLE
    }
}

/// Says something to who sits at the terminal.
pub(super) fn say(line: &str) {
    // With nobody to read it, there is nobody to tell.
    let _ = io::Write::write_all(&mut io::stderr(), format!("{line}\n").as_bytes());
}
