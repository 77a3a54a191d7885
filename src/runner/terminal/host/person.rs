//! Somebody who is attached to a terminal. Called by the host.
//!
//! **Invariant:** nothing here waits.

use crate::runner::terminal::frame::{Frame, Reader};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// See the module.
pub(super) struct Person {
    pub(super) stream: UnixStream,
    reader: Reader,
    /// What is yet to be written, and since when none of it was taken.
    pub(super) waiting: Vec<u8>,
    pub(super) stuck: Option<Instant>,
    pub(super) gone: bool,
}

impl Person {
    /// Who comes by this connection, which does not block.
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, reader: Reader::default(), waiting: Vec::new(), stuck: None, gone: false }
    }

    /// The frames that came; nobody is there any more if the connection ended or made no sense.
    pub(super) fn hear(&mut self) -> Vec<Frame> {
        let mut buffer = [0; 16 * 1024];
        let frames = match self.stream.read(&mut buffer) {
            Ok(0) => None,
            Ok(count) => self.reader.take(buffer.get(..count).unwrap_or_default()).ok(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Some(Vec::new()),
            Err(_) => None,
        };
        self.gone |= frames.is_none();
        frames.unwrap_or_default()
    }

    /// Writes what the connection takes now.
    pub(super) fn tell(&mut self, now: Instant) {
        let mut some = self.waiting.is_empty();
        while !self.waiting.is_empty() && !self.gone {
            match self.stream.write(&self.waiting) {
                Ok(count) => {
                    some = true;
                    self.waiting.drain(..count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.gone = true,
            }
        }
        self.stuck = if self.waiting.is_empty() { None } else { Some(self.stuck.filter(|_| !some).unwrap_or(now)) };
    }
}
