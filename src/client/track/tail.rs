//! The last lines of what was printed before following began. Part of the tracker.
//!
//! **Invariant:** bounded: no more lines than asked for, and no more than [`TAIL_BYTES`] of them. The runner's own
//! lines are never left out, as they say whose a line is.

use super::{Entry, Item};
use std::collections::VecDeque;

/// Most bytes that are kept of the last lines.
pub(in crate::client) const TAIL_BYTES: usize = 16 << 20;

/// Which lines are kept until all that was there has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::client) struct Tail {
    most: usize,
    only: Option<String>,
    lines: usize,
    bytes: usize,
}

impl Tail {
    /// The last `most` lines; of this step, if only that is shown.
    #[must_use]
    pub(in crate::client) fn of(most: usize, only: Option<String>) -> Self {
        Self { most, only, lines: 0, bytes: 0 }
    }

    /// Puts output of `step` behind the rest, and leaves out what is too much.
    pub(super) fn keep(&mut self, queue: &mut VecDeque<Entry>, entry: Entry, step: Option<&str>) {
        let Item::Output(piece) = &entry.item else {
            queue.push_back(entry);
            return;
        };
        let begins = piece.stamp.is_some();
        let hidden = self.only.as_deref().is_some_and(|only| step != Some(only));
        // The rest of a line whose beginning was left out.
        if hidden || (!begins && self.lines == 0) {
            return;
        }
        self.lines += usize::from(begins);
        self.bytes += piece.bytes.len();
        queue.push_back(entry);
        while self.lines > self.most || self.bytes > TAIL_BYTES {
            if !self.leave_out(queue) {
                return;
            }
        }
    }

    /// Takes the first line out; false if there is none.
    fn leave_out(&mut self, queue: &mut VecDeque<Entry>) -> bool {
        let mut took = false;
        loop {
            let first = queue.iter().enumerate().find_map(|(i, entry)| match &entry.item {
                Item::Output(piece) => Some((i, piece.stamp.is_some(), piece.bytes.len())),
                Item::Begin { .. } | Item::End { .. } | Item::Note(_) | Item::Watch(_) => None,
            });
            let Some((at, begins, length)) = first.filter(|(_, begins, _)| !took || !begins) else { return took };
            queue.remove(at);
            self.lines -= usize::from(begins);
            self.bytes -= length;
            took = true;
        }
    }
}
