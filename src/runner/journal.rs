//! The journal: one JSON line per record, in space that is reserved before the first step. Called
//! by the supervisor.
//!
//! **Invariant:** a record either is written whole inside the reserved space or is an error; a
//! step that fills the volume cannot take the space for its own exit record.

use super::Error;
use super::schedule::REPEATS;
use crate::wire::{Plan, Record, StepWork};
use nix::fcntl::posix_fallocate;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Longest message in a record, in bytes; JSON may double it.
const MESSAGE_BYTES: usize = 1024;
/// What a record takes beside its message and path.
const RECORD_BYTES: u64 = 192;
/// Longest path.
const PATH_BYTES: u64 = 4096;

/// The file, and how much of it is used.
pub(super) struct Journal {
    file: File,
    used: u64,
    reserved: u64,
}

impl Journal {
    /// Makes the journal and reserves the space that the plan may need.
    ///
    /// A journal that is there already means that this box ran before: its steps must not run twice.
    pub(super) fn create(path: &Path, plan: &Plan) -> Result<Self, Error> {
        let reserved = space_for(plan);
        let failed =
            |source| Error::new(format!("reserve {reserved} bytes for the journal {}", path.display()), source);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).map_err(failed)?;
        let length = i64::try_from(reserved).unwrap_or(i64::MAX);
        posix_fallocate(&file, 0, length).map_err(|errno| failed(errno.into()))?;
        Ok(Self { file, used: 0, reserved })
    }

    /// Appends a record.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), Error> {
        let failed = |source| Error::new("write the journal", source);
        let mut line = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        let length = line.len() as u64;
        if self.used + length > self.reserved {
            return Err(failed(std::io::Error::other("the reserved space is used up")));
        }
        self.file.write_all_at(&line, self.used).map_err(failed)?;
        self.used += length;
        Ok(())
    }
}

/// Bytes that the records of a run take at most.
fn space_for(plan: &Plan) -> u64 {
    let message = 2 * MESSAGE_BYTES as u64 + RECORD_BYTES;
    let steps = plan.steps.iter().map(|step| {
        let note = if step.reloads() { message } else { 0 };
        (u64::from(step.retries) + 2) * RECORD_BYTES + message + note
    });
    steps.sum::<u64>() + waits(plan) * RECORD_BYTES + 2 * message + 2 * PATH_BYTES
}

/// Records of waits for a person, and of what is repeated after them, at most.
fn waits(plan: &Plan) -> u64 {
    let shells = plan.steps.iter().filter(|step| matches!(step.work, StepWork::Shell(_))).count();
    let failures = if plan.breakpoints.at_failure { plan.steps.len() as u64 + 2 * u64::from(REPEATS) } else { 0 };
    (shells + plan.breakpoints.before.len()) as u64 + failures
}

/// A message as it may stand in a record: one line, bounded, with nothing that JSON would blow up.
pub(super) fn message(text: &str) -> String {
    let mut cut = String::new();
    for character in text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if cut.len() + character.len_utf8() > MESSAGE_BYTES - '…'.len_utf8() {
            cut.push('…');
            break;
        }
        cut.push(character);
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Breakpoints, EndReason, Note, PlanStep, Wait, WatchWork};

    #[test]
    fn the_longest_records_fit() {
        let dir = tempfile::tempdir().unwrap();
        let name = |step: usize| format!("s{step}");
        let work = || StepWork::Watch(WatchWork { reload: true, ..WatchWork::default() });
        let steps =
            (0..220).map(|step| PlanStep { name: name(step), work: work(), retries: 10, ..PlanStep::default() });
        let breakpoints = Breakpoints { at_failure: true, before: (0..220).map(name).collect(), timeout_s: 1 };
        let plan = Plan { steps: steps.collect(), breakpoints, ..Plan::default() };
        let path = dir.path().join("journal");
        let mut journal = Journal::create(&path, &plan).unwrap();
        let size = std::fs::metadata(&path).unwrap().len();
        let long = Some(message(&"\\\"\u{1}".repeat(5000)));
        let at = u64::MAX;
        journal.append(&Record::Ready { at, source_dir: "\"".repeat(4096), revision: Some("f".repeat(64)) }).unwrap();
        for step in 0..220 {
            journal.append(&Record::Waiting { at, step, why: Wait::Before, code: Some(i32::MIN) }).unwrap();
            for attempt in 1..=11 {
                journal.append(&Record::Started { at, step, attempt }).unwrap();
            }
            journal.append(&Record::Asked { at, step }).unwrap();
            journal.append(&Record::Waiting { at, step, why: Wait::Failed, code: Some(i32::MIN) }).unwrap();
            let message = long.clone().unwrap();
            journal.append(&Record::Noted { at, step, note: Note::WatchLimit, message }).unwrap();
            let reason = EndReason::EarlierStepFailed;
            journal.append(&Record::Ended { at, step, code: Some(i32::MIN), reason, message: long.clone() }).unwrap();
        }
        for attempt in 12..12 + REPEATS {
            journal.append(&Record::Started { at, step: 219, attempt }).unwrap();
            journal.append(&Record::Waiting { at, step: 219, why: Wait::Failed, code: Some(i32::MIN) }).unwrap();
        }
        let reason = Some("SourceNotWritable".to_owned());
        journal.append(&Record::Finished { at, passed: false, reason, failed: Some(219), message: long }).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), size, "the file does not grow");
    }

    #[test]
    fn a_second_start_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        assert!(Journal::create(&path, &Plan::default()).is_ok());
        assert!(Journal::create(&path, &Plan::default()).is_err());
    }

    #[test]
    fn messages_are_one_bounded_line() {
        assert_eq!(message(" a\nb\u{0}c "), "a b c");
        assert_eq!(message(&"é".repeat(2000)).len(), MESSAGE_BYTES - 1);
        assert!(message(&"é".repeat(2000)).ends_with('…'));
    }
}
