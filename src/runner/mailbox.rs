//! What the agent and the runner leave for each other: cancel, request, answer. Called by the
//! supervisor.
//!
//! **Invariant:** a change in `in` is noticed at once where inotify works and by looking now and
//! then where it does not; requests appear whole.

use super::{Error, script};
use crate::wire::{Answer, CANCEL_FILE, RECORDED_FILE, Request, VERSION, answer_file, request_file};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often to look while an answer is awaited.
const ANSWER_MS: u64 = 250;
/// How often to look for a cancel.
const CANCEL_MS: u64 = 1000;
/// How long an agent that was asked for anything may take to write down the end: one that is started anew after a crash
/// needs the pod's files.
const RECORD_PATIENCE: Duration = Duration::from_secs(300);
/// Largest answer.
const ANSWER_BYTES: u64 = 1024 * 1024;

/// Both directories.
pub(super) struct Mailbox {
    inbox: PathBuf,
    outbox: PathBuf,
    inotify: Option<Inotify>,
}

impl Mailbox {
    /// Opens both.
    pub(super) fn open(inbox: &Path, outbox: &Path) -> Self {
        let watch = || {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            let changes = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE;
            inotify.add_watch(inbox, changes)?;
            nix::Result::Ok(inotify)
        };
        Self { inbox: inbox.into(), outbox: outbox.into(), inotify: watch().ok() }
    }

    /// Readable when something changed in `in`.
    pub(super) fn changes(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(|inotify| inotify.as_fd())
    }

    /// Forgets the changes seen so far.
    pub(super) fn clear(&self) {
        if let Some(inotify) = &self.inotify {
            while inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
        }
    }

    /// How long to go without a look.
    pub(super) fn look_every_ms(asking: bool) -> u64 {
        if asking { ANSWER_MS } else { CANCEL_MS }
    }

    /// Whether the run is to be cancelled.
    pub(super) fn cancelled(&self) -> bool {
        self.inbox.join(CANCEL_FILE).exists()
    }

    /// How long to wait for a change before the next look whether the end of the run stands in the status; `None` if it
    /// does, or nobody who `waited` so long waits longer.
    pub(super) fn awaits_record(&self, waited: Duration) -> Option<Duration> {
        let left = RECORD_PATIENCE.checked_sub(waited).filter(|left| !left.is_zero())?;
        let look = Duration::from_millis(Self::look_every_ms(true));
        (!self.inbox.join(RECORDED_FILE).exists()).then(|| look.min(left))
    }

    /// Puts a request where the agent finds it.
    pub(super) fn ask(&self, request: &Request) -> Result<(), Error> {
        let path = self.outbox.join(request_file(request.step));
        let unfinished = path.with_extension("new");
        let bytes = serde_json::to_vec(request).map_err(io::Error::from);
        bytes
            .and_then(|bytes| script::make(&unfinished)?.write_all(&bytes))
            .and_then(|()| fs::rename(&unfinished, &path))
            .map_err(|error| Error::new(format!("write the request {}", path.display()), error))
    }

    /// Takes a request back, when its step is over: it holds the whole environment, and space is short.
    pub(super) fn withdraw(&self, step: usize) {
        let _ = fs::remove_file(self.outbox.join(request_file(step)));
    }

    /// The answer, if it is there. One that cannot be read is a failure with a message.
    pub(super) fn answer(&self, step: usize) -> Option<Answer> {
        let read = match File::open(self.inbox.join(answer_file(step))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Err(error),
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(ANSWER_BYTES).read_to_end(&mut bytes).map(|_| bytes)
            }
        };
        let answer = read.and_then(|bytes| serde_json::from_slice::<Answer>(&bytes).map_err(io::Error::from));
        let refused = |why: String| Answer {
            version: VERSION,
            passed: false,
            log: Vec::new(),
            message: Some(format!("the agent's answer cannot be used: {why}")),
        };
        Some(match answer {
            Ok(answer) if answer.version == VERSION => answer,
            Ok(answer) => refused(format!("it has version {}, not {VERSION}", answer.version)),
            Err(error) => refused(error.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_or_fail_with_a_message() {
        let dir = tempfile::tempdir().unwrap();
        let mailbox = Mailbox::open(dir.path(), dir.path());
        assert_eq!(mailbox.answer(3), None);
        let path = dir.path().join(answer_file(3));
        let good = Answer { version: VERSION, passed: true, log: vec!["a".into()], message: None };
        fs::write(&path, serde_json::to_vec(&good).unwrap()).unwrap();
        assert_eq!(mailbox.answer(3), Some(good));
        for bad in ["", "{", r#"{"version":9,"passed":true,"log":[]}"#] {
            fs::write(&path, bad).unwrap();
            let answer = mailbox.answer(3).unwrap();
            assert!(!answer.passed && answer.message.is_some(), "{bad}");
        }
    }

    #[test]
    fn the_end_is_waited_for_until_it_is_recorded_and_for_five_minutes_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let mailbox = Mailbox::open(dir.path(), dir.path());
        let looks = |waited_ms| mailbox.awaits_record(Duration::from_millis(waited_ms)).map(|look| look.as_millis());
        assert_eq!([0, 299_000, 299_900].map(looks), [Some(250), Some(250), Some(100)]);
        assert_eq!([300_000, 300_001, 400_000].map(looks), [None; 3]);
        fs::write(dir.path().join(RECORDED_FILE), "").unwrap();
        assert_eq!(looks(0), None);
    }

    #[test]
    fn sees_changes() {
        let dir = tempfile::tempdir().unwrap();
        let mailbox = Mailbox::open(dir.path(), dir.path());
        let inotify = mailbox.inotify.as_ref().unwrap();
        assert!(inotify.read_events().is_err());
        fs::write(dir.path().join(CANCEL_FILE), "").unwrap();
        assert!(!inotify.read_events().unwrap().is_empty());
        assert!(mailbox.cancelled());
    }
}
