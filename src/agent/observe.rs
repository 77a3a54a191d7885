//! Reads what the runner wrote.
//!
//! `follow` looks whenever the doorbell rings, and now and then; what is seen goes to `plan`.
//!
//! **Invariant:** reads only. Bytes once read are not read again, so the box cannot take a record back; at most
//! [`MAX_JOURNAL_BYTES`] are read of a journal.

use super::{
    files::{FileError, Volumes},
    journal::{Journal, Lines},
    run::Run,
    work::Verdict,
};
use crate::wire::{CANCEL_FILE, JOURNAL_FILE, RECORDED_FILE, answer_file};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Most bytes that are read of a journal.
pub const MAX_JOURNAL_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of one read: more than the longest line.
const PIECE_BYTES: usize = 32 * 1024;

/// What was seen of a run so far.
#[derive(Debug)]
pub struct Sight {
    volumes: Volumes,
    lines: Lines,
    offset: u64,
    /// Whether the journal is there.
    pub found: bool,
    /// What the runner says.
    pub journal: Journal,
    /// Internal steps that have their answer.
    pub answered: BTreeSet<usize>,
    /// How internal steps ended, by the word of this agent before it was started anew.
    pub verdicts: BTreeMap<usize, Verdict>,
    /// Steps whose verdict was looked for: later ones are made by this process.
    looked_for: BTreeSet<usize>,
    /// Whether the runner was told to cancel.
    pub cancel_told: bool,
    /// Whether it was told that its end stands in the status.
    pub record_told: bool,
    /// The pod's address, once a step began.
    pub pod_ip: Option<IpAddr>,
}

impl Sight {
    /// Before the first look.
    #[must_use]
    pub fn new(volumes: Volumes, run: &Run) -> Self {
        Self {
            volumes,
            lines: Lines::default(),
            offset: 0,
            found: false,
            journal: Journal::new(&run.outline),
            answered: BTreeSet::new(),
            verdicts: BTreeMap::new(),
            looked_for: BTreeSet::new(),
            cancel_told: false,
            record_told: false,
            pod_ip: None,
        }
    }

    /// The volumes that are looked at.
    #[must_use]
    pub fn volumes(&self) -> &Volumes {
        &self.volumes
    }

    /// Takes in what is new.
    pub fn look(&mut self) -> Result<(), FileError> {
        self.cancel_told = self.cancel_told || self.volumes.is_in(CANCEL_FILE);
        self.record_told = self.record_told || self.journal.finished.is_some() && self.volumes.is_in(RECORDED_FILE);
        while self.offset < MAX_JOURNAL_BYTES {
            let Some(bytes) = self.volumes.read_out_at(JOURNAL_FILE, self.offset, PIECE_BYTES)? else { break };
            self.found = true;
            let used = self.lines.take(&bytes, &mut self.journal);
            self.offset += used as u64;
            if used == 0 {
                break;
            }
        }
        for (index, step) in self.journal.steps.iter().enumerate() {
            if step.asked && !step.phase.is_final() && !self.answered.contains(&index) {
                let answered = self.volumes.is_in(&answer_file(index));
                answered.then(|| self.answered.insert(index));
            }
        }
        for (index, step) in self.journal.steps.iter().enumerate() {
            if step.asked && !self.looked_for.contains(&index) {
                let verdict = self.volumes.verdict(index)?;
                self.looked_for.insert(index);
                self.verdicts.extend(verdict.map(|verdict| (index, verdict)));
            }
        }
        // `prepare` wrote it before the first step.
        if self.found && self.pod_ip.is_none() {
            self.pod_ip = self.volumes.pod_ip()?;
        }
        Ok(())
    }
}
