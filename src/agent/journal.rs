//! What the runner's journal says: its bytes into records, its records into the state of each step.
//!
//! `observe` feeds it the bytes; `status` reads the states. The journal lies in a directory that the box can
//! write to, so every record may be a lie.
//!
//! **Invariant:** total. Any bytes give a state, no state ever goes back, and a record out of order is
//! counted and left out.

use crate::{
    api::{
        pipeline::PipelineSpec,
        run::Breakpoint,
        status::StepPhase,
        step::{OnFailure, Step, StepKind},
    },
    steps::store_container,
    wire::{EndReason, Note, Record, Wait},
};

/// How often a person may have the failed steps of a run repeated; the runner takes no more.
const MAX_REPEATS: u32 = 100;
/// Longest line; the runner's own are shorter by far.
const MAX_LINE_BYTES: usize = 16 * 1024;
/// Most characters of a message in a status.
const MAX_MESSAGE_CHARS: usize = 1024;
/// Most characters of a revision in a status.
const MAX_REVISION_CHARS: usize = 128;

/// What the frozen pipeline fixes of a step: nothing that the box says can change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepOutline {
    /// Name.
    pub name: String,
    /// What people see.
    pub title: String,
    /// Whether it is an after-step.
    pub after: bool,
    /// Whether the agent carries it out.
    pub internal: bool,
    /// The artifact that it stores.
    pub artifact: Option<String>,
    /// Whether the run goes on after its failure.
    pub continues: bool,
    /// How often it may be repeated.
    pub retries: u32,
    /// For what it may wait for a person.
    pub waits: Vec<Wait>,
    /// Whether it is restarted when files change.
    pub reloads: bool,
    /// Ports that its program listens on.
    pub ports: Vec<u16>,
}

/// The steps of a run in order, after-steps last.
#[must_use]
pub fn outline(spec: &PipelineSpec, breakpoint: Option<&Breakpoint>) -> Vec<StepOutline> {
    let waits = |after: bool, step: &Step| {
        let fails = step.on_failure == OnFailure::Fail && !after;
        let before = |at: &Breakpoint| at.before.contains(&step.name) && !after;
        let all = [
            (Wait::Shell, matches!(step.kind(), Some(StepKind::Shell(_)))),
            (Wait::Before, breakpoint.is_some_and(before)),
            (Wait::Failed, breakpoint.is_some_and(|at| at.at_failure) && fails),
        ];
        all.into_iter().filter_map(|(wait, may)| may.then_some(wait)).collect()
    };
    spec.all_steps()
        .map(|(after, step)| StepOutline {
            reloads: step.watch.as_ref().is_some_and(|watch| watch.reload),
            ports: step.watch.as_ref().and_then(|watch| watch.ports.clone()).unwrap_or_default(),
            name: step.name.clone(),
            title: step.title().to_owned(),
            after,
            internal: step.kind().is_some_and(|kind| kind.is_of_agent()),
            artifact: store_container::artifact(step).map(str::to_owned),
            continues: step.on_failure == OnFailure::Continue,
            retries: step.retries,
            waits: waits(after, step),
        })
        .collect()
}

/// What the journal says of one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepState {
    /// How far it is.
    pub phase: StepPhase,
    /// Whether it waits, or waited, for the agent.
    pub asked: bool,
    /// What it waits for, while its phase is Waiting for a person; with the exit code of what failed.
    pub waits: Option<(Wait, Option<i32>)>,
    /// How often it was started.
    pub attempts: u32,
    /// When, in milliseconds since the epoch.
    pub started_ms: Option<u64>,
    /// When, in milliseconds since the epoch.
    pub finished_ms: Option<u64>,
    /// Exit code.
    pub code: Option<i32>,
    /// How it ended.
    pub ended: Option<EndReason>,
    /// For people; cleaned and bounded.
    pub message: Option<String>,
    /// What it said while it ran; cleaned and bounded.
    pub note: Option<(Note, String)>,
}

/// The runner's last record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
    /// What the runner claims.
    pub passed: bool,
    /// Reason, unchecked.
    pub reason: Option<String>,
    /// The step that failed first; in range.
    pub failed: Option<usize>,
    /// For people; cleaned and bounded.
    pub message: Option<String>,
}

/// What the journal says of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// Commit of the source.
    pub revision: Option<String>,
    /// One for each step of the outline.
    pub steps: Vec<StepState>,
    /// The end.
    pub finished: Option<Finished>,
    /// Records that were left out because they cannot be true.
    pub rejected: u64,
    rules: Vec<Rule>,
}

/// What a step may do in a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    internal: bool,
    reloads: bool,
    max_attempts: u32,
    waits: Vec<Wait>,
}

impl Journal {
    /// Before the first record.
    #[must_use]
    pub fn new(outline: &[StepOutline]) -> Self {
        let rule = |step: &StepOutline| {
            let repeats = if step.waits.contains(&Wait::Failed) { MAX_REPEATS } else { 0 };
            let max_attempts = step.retries.saturating_add(1).saturating_add(repeats);
            Rule { internal: step.internal, reloads: step.reloads, max_attempts, waits: step.waits.clone() }
        };
        Self {
            revision: None,
            steps: vec![StepState::default(); outline.len()],
            finished: None,
            rejected: 0,
            rules: outline.iter().map(rule).collect(),
        }
    }

    /// Takes one record, or counts it as rejected.
    pub fn accept(&mut self, record: Record) {
        if self.finished.is_some() || self.take(record).is_none() {
            self.rejected += 1;
        }
    }

    /// `None` for a record that cannot be true here.
    fn take(&mut self, record: Record) -> Option<()> {
        match record {
            Record::Ready { revision, .. } => self.ready(revision),
            Record::Started { at, step, attempt } => self.started(at, step, attempt),
            Record::Asked { at, step } => self.asked(at, step),
            Record::Waiting { at, step, why, code } => self.waiting(at, step, why, code),
            Record::Noted { step, note, message, .. } => self.noted(step, note, &message),
            Record::Ended { at, step, code, reason, message } => self.ended(step, at, code, reason, message),
            Record::Finished { at, passed, reason, failed, message } => {
                let failed = failed.filter(|index| *index < self.steps.len());
                let message = message.map(|text| clean(&text));
                self.finished = Some(Finished { at_ms: at, passed, reason, failed, message });
                Some(())
            }
        }
    }

    /// Only before the first step: what runs in a step must not be able to name another commit.
    fn ready(&mut self, revision: Option<String>) -> Option<()> {
        if self.revision.is_some() || self.steps.iter().any(|step| step.phase != StepPhase::Pending) {
            return None;
        }
        let Some(revision) = revision else { return Some(()) };
        let fits = revision.len() <= MAX_REVISION_CHARS && revision.bytes().all(|b| b.is_ascii_graphic());
        self.revision = fits.then_some(revision);
        fits.then_some(())
    }

    fn started(&mut self, at: u64, step: usize, attempt: u32) -> Option<()> {
        let max_attempts = self.rules.get(step)?.max_attempts;
        let state = self.turn(step)?;
        if attempt <= state.attempts || attempt > max_attempts {
            return None;
        }
        state.phase = StepPhase::Running;
        state.waits = None;
        state.attempts = attempt;
        state.started_ms.get_or_insert(at);
        Some(())
    }

    fn asked(&mut self, at: u64, step: usize) -> Option<()> {
        let internal = self.rules.get(step)?.internal;
        let state = self.turn(step)?;
        if !internal || state.asked {
            return None;
        }
        state.phase = StepPhase::Waiting;
        state.waits = None;
        state.asked = true;
        state.started_ms.get_or_insert(at);
        Some(())
    }

    /// Only where the frozen pipeline and the run's breakpoints have it wait.
    fn waiting(&mut self, at: u64, step: usize, why: Wait, code: Option<i32>) -> Option<()> {
        let may = self.rules.get(step)?.waits.contains(&why);
        let state = self.turn(step)?;
        let began = state.phase != StepPhase::Pending;
        if !may || began == (why == Wait::Before) {
            return None;
        }
        state.phase = StepPhase::Waiting;
        state.waits = Some((why, code));
        state.started_ms.get_or_insert(at);
        Some(())
    }

    fn noted(&mut self, step: usize, note: Note, message: &str) -> Option<()> {
        let reloads = self.rules.get(step)?.reloads;
        let state = self.turn(step)?;
        if !reloads || state.phase != StepPhase::Running || state.note.is_some() {
            return None;
        }
        state.note = Some((note, clean(message)));
        Some(())
    }

    fn ended(
        &mut self,
        step: usize,
        at: u64,
        code: Option<i32>,
        ended: EndReason,
        message: Option<String>,
    ) -> Option<()> {
        let internal = self.rules.get(step)?.internal;
        let state = self.turn(step)?;
        let began = state.phase != StepPhase::Pending;
        let phase = match ended {
            // A step that never began has no exit record of its own.
            EndReason::ExitCode if !began => return None,
            EndReason::ExitCode if code == Some(0) || (internal && code.is_none()) => StepPhase::Succeeded,
            EndReason::EarlierStepFailed if began => return None,
            EndReason::EarlierStepFailed => StepPhase::Skipped,
            EndReason::Cancelled if !began => StepPhase::Skipped,
            EndReason::Cancelled => StepPhase::Cancelled,
            EndReason::Agent if !internal => return None,
            EndReason::ExitCode
            | EndReason::Signal
            | EndReason::TimedOut
            | EndReason::NoOutput
            | EndReason::Agent
            | EndReason::NotStarted
            | EndReason::OutOfMemory => StepPhase::Failed,
        };
        state.phase = phase;
        state.waits = None;
        state.finished_ms = (phase != StepPhase::Skipped).then_some(at);
        state.code = code;
        state.ended = Some(ended);
        state.message = message.map(|text| clean(&text)).filter(|text| !text.is_empty());
        Some(())
    }

    /// The step, if it is not over and all before it are: the runner takes one at a time.
    fn turn(&mut self, step: usize) -> Option<&mut StepState> {
        let (before, rest) = self.steps.split_at_mut_checked(step)?;
        let state = rest.first_mut()?;
        (before.iter().all(|earlier| earlier.phase.is_final()) && !state.phase.is_final()).then_some(state)
    }
}

/// The journal after these records.
#[must_use]
pub fn fold(records: impl IntoIterator<Item = Record>, outline: &[StepOutline]) -> Journal {
    let mut journal = Journal::new(outline);
    records.into_iter().for_each(|record| journal.accept(record));
    journal
}

/// Text from the box as a status may hold it: one line, bounded, no control characters.
#[must_use]
pub fn clean(text: &str) -> String {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    let mut out: String = text.trim().chars().take(MAX_MESSAGE_CHARS).map(visible).collect();
    if text.trim().chars().nth(MAX_MESSAGE_CHARS).is_some() {
        out.pop();
        out.push('…');
    }
    out
}

/// Cuts the journal's bytes into lines.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    /// Inside a line that is too long.
    skipping: bool,
}

impl Lines {
    /// Reads the whole lines at the beginning of `bytes` and says how many bytes are done with; the rest is
    /// to be given again together with what follows it. A NUL is the end of what was written so far. Lines that
    /// are no record, or too long, are counted as rejected.
    pub fn take(&mut self, bytes: &[u8], journal: &mut Journal) -> usize {
        let written = bytes.split(|b| *b == 0).next().unwrap_or_default();
        let mut used = 0;
        for line in written.split_inclusive(|b| *b == b'\n') {
            let whole = line.ends_with(b"\n");
            if !whole && line.len() <= MAX_LINE_BYTES && !self.skipping {
                break;
            }
            used += line.len();
            let was_skipping = std::mem::replace(&mut self.skipping, !whole);
            if was_skipping {
                continue;
            }
            match serde_json::from_slice(line) {
                Ok(record) if whole && line.len() <= MAX_LINE_BYTES => journal.accept(record),
                _ => journal.rejected += 1,
            }
        }
        used
    }
}

#[cfg(test)]
mod tests;
