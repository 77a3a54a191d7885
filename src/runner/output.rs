//! What steps print: masked, then into the step's log and onto our own stdout, which is what
//! `kubectl logs` shows. Called by the supervisor.
//!
//! **Invariant:** no byte leaves unmasked, no line is gathered, and what waits for a slow reader
//! is bounded by [`ENOUGH`] and one pipe's content a step.

use super::Error;
use super::script;
use crate::mask::Mask;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{Stdout, Write as _, stdout};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

/// How much may wait for our stdout before the steps have to wait.
const ENOUGH: usize = 256 * 1024;
/// Largest log of one step.
const LOG_BYTES: u64 = 64 * 1024 * 1024;
/// How long the beginning of what may be a secret is held back.
const HOLD_MS: u64 = 2000;
/// What a pipe that polls as writable takes without blocking.
const PIPE_WRITE_BYTES: usize = 4096;

/// All that is printed.
pub(super) struct Output {
    mask: Mask,
    masked: Vec<u8>,
    held_since: Option<u64>,
    log: Option<Log>,
    screen: Stdout,
    waiting: Vec<u8>,
    written: usize,
    reader_gone: bool,
    in_line: bool,
}

/// The log of one step.
struct Log {
    path: PathBuf,
    file: File,
    left: u64,
    full: bool,
}

impl Output {
    /// Nothing printed yet.
    pub(super) fn new(mask: Mask) -> Self {
        Self {
            mask,
            masked: Vec::new(),
            held_since: None,
            log: None,
            screen: stdout(),
            waiting: Vec::new(),
            written: 0,
            reader_gone: false,
            in_line: false,
        }
    }

    /// Begins the log of a step.
    pub(super) fn open_log(&mut self, path: &Path) -> Result<(), Error> {
        let file = script::make(path).map_err(|error| Error::new(format!("make the log {}", path.display()), error))?;
        self.log = Some(Log { path: path.into(), file, left: LOG_BYTES, full: false });
        Ok(())
    }

    /// Ends it.
    pub(super) fn close_log(&mut self) -> Result<(), Error> {
        self.flush()?;
        self.log = None;
        Ok(())
    }

    /// Takes what a step printed.
    pub(super) fn print(&mut self, now: u64, bytes: &[u8]) -> Result<(), Error> {
        let mut masked = std::mem::take(&mut self.masked);
        self.mask.push(bytes, &mut masked);
        self.held_since = self.mask.holds().then_some(now);
        self.spread(masked)
    }

    /// Lets go what was held back long enough.
    pub(super) fn tick(&mut self, now: u64) -> Result<(), Error> {
        if self.wake().is_some_and(|at| now >= at) { self.flush() } else { Ok(()) }
    }

    /// When to call [`Self::tick`].
    pub(super) fn wake(&self) -> Option<u64> {
        self.held_since.map(|since| since + HOLD_MS)
    }

    /// Lets go everything: the step is over.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        let mut masked = std::mem::take(&mut self.masked);
        self.mask.flush(&mut masked);
        self.held_since = None;
        self.spread(masked)
    }

    /// A message with secrets masked: it may name an expanded directory.
    pub(super) fn masked(&self, message: &str) -> String {
        self.mask.text(message)
    }

    /// A line of ours: on stdout only.
    pub(super) fn say(&mut self, line: &str) {
        let mut text = String::with_capacity(line.len() + 4);
        if self.in_line {
            text.push('\n');
        }
        text.push_str("> ");
        text.extend(line.chars().map(|c| if c.is_control() { ' ' } else { c }));
        text.push('\n');
        self.show(text.as_bytes());
    }

    /// Whether steps have to wait until somebody reads our stdout.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() - self.written > ENOUGH
    }

    /// Our stdout, if something waits for it.
    pub(super) fn wants_screen(&self) -> Option<&Stdout> {
        (self.written < self.waiting.len()).then_some(&self.screen)
    }

    /// Writes what our stdout takes now.
    pub(super) fn pump(&mut self) {
        while let Some(rest) = self.waiting.get(self.written..).filter(|rest| !rest.is_empty()) {
            let mut screen = [PollFd::new(self.screen.as_fd(), PollFlags::POLLOUT)];
            if poll(&mut screen, PollTimeout::ZERO) != Ok(1) {
                return;
            }
            let chunk = rest.get(..PIPE_WRITE_BYTES).unwrap_or(rest);
            match nix::unistd::write(&self.screen, chunk) {
                Ok(count) => self.written += count,
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                // Nobody reads, or nobody can: the logs have it all.
                Err(_) => {
                    self.reader_gone = true;
                    break;
                }
            }
        }
        self.waiting.clear();
        self.written = 0;
    }

    /// Hands masked bytes to the log and to stdout; keeps the buffer.
    fn spread(&mut self, mut masked: Vec<u8>) -> Result<(), Error> {
        let logged = self.log.as_mut().map_or(Ok(false), |log| log.write(&masked));
        self.show(&masked);
        masked.clear();
        self.masked = masked;
        if logged? {
            let mib = LOG_BYTES / 1024 / 1024;
            self.say(&format!("warn  the log of this step is longer than {mib} MiB; the rest is shown here only"));
        }
        Ok(())
    }

    fn show(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        self.in_line = *last != b'\n';
        if self.reader_gone {
            return;
        }
        if self.written > ENOUGH {
            self.waiting.drain(..self.written);
            self.written = 0;
        }
        self.waiting.extend_from_slice(bytes);
        self.pump();
    }
}

impl Log {
    /// Writes as much as the log may hold; says whether this was the write that filled it.
    fn write(&mut self, bytes: &[u8]) -> Result<bool, Error> {
        if self.full || bytes.is_empty() {
            return Ok(false);
        }
        let part = usize::try_from(self.left).ok().and_then(|left| bytes.get(..left)).unwrap_or(bytes);
        let mut written = self.file.write_all(part);
        self.left -= part.len() as u64;
        self.full = part.len() < bytes.len();
        if self.full {
            let mib = LOG_BYTES / 1024 / 1024;
            let notice = format!("\n! log limit: this log ends here, at {mib} MiB; the rest was not kept\n");
            written = written.and_then(|()| self.file.write_all(notice.as_bytes()));
        }
        written.map_err(|error| Error::new(format!("write the log {}", self.path.display()), error))?;
        Ok(self.full)
    }
}
