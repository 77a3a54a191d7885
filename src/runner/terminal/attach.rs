//! In the connection of a person: the verbs that are exec'd into the box.
//!
//! ```text
//! kubectl exec -it POD -c box -- /dev/windlass/in/windlass-runner shell
//! kubectl exec POD -c box -- /dev/windlass/in/windlass-runner continue | finish | retry [STEP] | shell -- CMD…
//! ```
//!
//! **Invariant:** ends with its connection and changes nothing by that. The terminal that it was given
//! is as it was when it ends by itself.

use super::frame::{Frame, Reader, Size};
use super::{become_program, say};
use crate::runner::control::{self, Call, Reply};
use crate::runner::schedule::Verb;
use crate::runner::signals::Signals;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// How much of what is typed may wait to be taken.
const TYPED: usize = 64 * 1024;
/// The verb that opens a terminal.
const SHELL: &str = "shell";
/// It was refused; why is on stderr.
const EXIT_REFUSED: u8 = 1;
/// The verb makes no sense as it was written.
const EXIT_USAGE: u8 = 2;
/// The terminal ended, but not by the end of the shell.
const EXIT_LOST: u8 = 3;
/// `shell -- CMD` could not get so far as to run it.
const EXIT_NO_COMMAND: u8 = 125;

/// Carries out a verb; `None` if it is none.
pub(in crate::runner) fn verb(outbox: &Path, args: &[OsString]) -> Option<u8> {
    let (word, rest) = args.split_first()?;
    let verb = match word.to_str()? {
        "continue" => Verb::Continue,
        "finish" => Verb::Finish,
        "retry" => Verb::Retry,
        SHELL => return Some(shell(outbox, rest)),
        _ => return None,
    };
    let step = match rest {
        [] => None,
        [step] => Some(step.to_string_lossy().into_owned()),
        _ => {
            say("at most one step can be named");
            return Some(EXIT_USAGE);
        }
    };
    Some(match control::hold(outbox, &Call::of(verb, step)) {
        Ok((Reply::Done(what), held)) => {
            // Whoever asked may have left; it is done.
            let _ = writeln!(io::stdout(), "{what}");
            // With this process it is closed, and not before: the run may end now, and all that is in the box with it.
            std::mem::forget(held);
            0
        }
        other => refused(other.map(|(reply, _)| reply)),
    })
}

fn refused(reply: Result<Reply, String>) -> u8 {
    match reply {
        Ok(Reply::Refused(why)) | Err(why) => say(&why),
        Ok(Reply::Done(_) | Reply::Terminal { .. } | Reply::Environment(_)) => say("the run answered something else"),
    }
    EXIT_REFUSED
}

fn shell(outbox: &Path, args: &[OsString]) -> u8 {
    match args.split_first() {
        None => match open(outbox) {
            Ok(code) => code,
            Err(reply) => refused(reply),
        },
        Some((dashes, command)) if dashes == "--" && !command.is_empty() => match run(outbox, command) {
            Ok(code) => code,
            Err(reply) => {
                refused(reply);
                EXIT_NO_COMMAND
            }
        },
        Some(_) => {
            say("to run a command: shell -- COMMAND");
            EXIT_USAGE
        }
    }
}

/// Becomes a command with the environment of the step.
fn run(outbox: &Path, command: &[OsString]) -> Result<u8, Result<Reply, String>> {
    let encoded = match control::call(outbox, &Call::Environment) {
        Ok(Reply::Environment(encoded)) => encoded,
        other => return Err(other),
    };
    let bytes = BASE64.decode(encoded).map_err(|error| Err(format!("the environment cannot be read: {error}")))?;
    let mut parts = bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty()).map(OsStr::from_bytes);
    let cwd = parts.next().unwrap_or_default();
    let variables = parts.filter_map(|part| {
        let at = part.as_bytes().iter().position(|byte| *byte == b'=')?;
        let (name, value) = part.as_bytes().split_at_checked(at)?;
        Some((OsStr::from_bytes(name), OsStr::from_bytes(value.get(1..)?)))
    });
    std::env::set_current_dir(cwd).map_err(|error| Err(format!("{}: {error}", cwd.display())))?;
    Ok(become_program(command, variables))
}

/// Attaches this terminal to the one in the box.
fn open(outbox: &Path) -> Result<u8, Result<Reply, String>> {
    if !isatty(io::stdin()) || !isatty(io::stdout()) {
        say("a shell needs a terminal: kubectl exec -it …; for a single command: shell -- COMMAND");
        return Ok(EXIT_USAGE);
    }
    let (socket, notice) = match control::call(outbox, &Call::Shell) {
        Ok(Reply::Terminal { socket, notice }) => (socket, notice),
        other => return Err(other),
    };
    let attach = || -> io::Result<Option<i32>> {
        let stream = UnixStream::connect(&socket)?;
        let signals = Signals::block(&[Signal::SIGWINCH, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT])?;
        say(&notice);
        let raw = Raw::enter()?;
        let code = relay(&stream, &signals);
        drop(raw);
        code
    };
    Ok(match attach() {
        Ok(Some(_)) => 0,
        Ok(None) => EXIT_LOST,
        Err(error) => {
            say(&format!("the terminal was lost: {error}"));
            EXIT_LOST
        }
    })
}

/// Hands bytes and sizes over until the shell is left; `None` if something else ended it.
///
/// What is typed waits here while the terminal takes nothing, as it does while nobody takes what it prints: so this
/// never waits to write to it.
fn relay(stream: &UnixStream, signals: &Signals) -> io::Result<Option<i32>> {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    stream.set_nonblocking(true)?;
    let mut reader = Reader::default();
    let mut buffer = [0; 16 * 1024];
    let (mut waiting, mut resized) = (Vec::new(), true);
    loop {
        let has_room = waiting.len() < TYPED;
        if has_room && std::mem::take(&mut resized) {
            Frame::Size(size(stdin.as_fd())).put(&mut waiting);
        }
        if send(stream, &mut waiting).is_err() {
            // Nobody hears it; what was said last is still to be read.
            waiting.clear();
        }
        let mut wanted = PollFlags::POLLIN;
        wanted.set(PollFlags::POLLOUT, !waiting.is_empty());
        let mut files = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(stream.as_fd(), wanted)];
        files.extend(has_room.then(|| PollFd::new(stdin.as_fd(), PollFlags::POLLIN)));
        match poll(&mut files, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let typed = files.get(2).and_then(PollFd::any).unwrap_or_default();
        while let Some(signal) = signals.read() {
            if signal != Signal::SIGWINCH {
                return Ok(None);
            }
            resized = true;
        }
        let count = match (&mut &*stream).read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            Err(error) => return Err(error),
        };
        for frame in reader.take(buffer.get(..count).unwrap_or_default()).map_err(io::Error::other)? {
            match frame {
                Frame::Data(bytes) => write_all(stdout.as_fd(), &bytes)?,
                Frame::Left(code) => return Ok(Some(code)),
                Frame::Size(_) => {}
            }
        }
        if typed {
            match nix::unistd::read(stdin.as_fd(), &mut buffer)? {
                0 => return Ok(None),
                count => Frame::Data(buffer.get(..count).unwrap_or_default().to_vec()).put(&mut waiting),
            }
        }
    }
}

/// Writes what the terminal takes now.
fn send(mut stream: &UnixStream, waiting: &mut Vec<u8>) -> io::Result<()> {
    while !waiting.is_empty() {
        match stream.write(waiting) {
            Ok(count) => drop(waiting.drain(..count)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Without the buffer of `Stdout`, which would wait for lines.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(fd, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn size(terminal: BorrowedFd<'_>) -> Size {
    tcgetwinsize(terminal).map_or(Size { rows: 0, columns: 0 }, |size| Size { rows: size.ws_row, columns: size.ws_col })
}

/// Our terminal while it hands every byte over; as it was before once this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
