//! Decides what follows from what was observed of a run.
//!
//! `follow` calls [`plan`] after every observation and hands the changes to `apply`.
//!
//! **Invariant:** total: no clock, no I/O, no client. Planning again on the world after `apply` gives no changes.
//! An answer does not wait for the status; what it says is kept beside it, and the runner ends only once its end stands
//! in the status.

use super::{
    journal::Journal,
    run::{Run, Wish},
    shelf,
    status::{AgentStatus, compose, place, pushed},
    work::{Verdict, Work},
};
use crate::{
    api::{
        condition::reason,
        status::{ArtifactStatus, ImageStatus, StepPhase, StepStatus},
    },
    wire::{self, Answer, Wait},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

/// Least time between two writes of a run's status that are not urgent.
pub const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// What is known of a run.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// The run.
    pub run: &'a Run,
    /// What the runner says.
    pub journal: &'a Journal,
    /// What the status holds.
    pub recorded: &'a AgentStatus,
    /// Steps that have their answer.
    pub answered: &'a BTreeSet<usize>,
    /// The agent's own work.
    pub works: &'a BTreeMap<usize, Work>,
    /// What is wanted.
    pub wish: Wish,
    /// Whether the runner was told to cancel.
    pub cancel_told: bool,
    /// Whether the runner was told that its end stands in the status.
    pub record_told: bool,
    /// Whether all files could be read: otherwise a step may have its answer, though none is seen.
    pub is_whole: bool,
    /// The pod's address.
    pub pod_ip: Option<IpAddr>,
    /// Time since the last write of this process.
    pub since_write: Option<Duration>,
    /// Whether the agent shuts down.
    pub stopping: bool,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The changes.
    pub changes: Vec<Change>,
    /// When to plan again, if nothing happens before.
    pub wake: Option<Duration>,
    /// Whether the run needs no more following.
    pub done: bool,
}

/// One change to the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Tell the runner to cancel.
    TellCancel,
    /// Tell the agent's own work to stop.
    StopWork(usize),
    /// Write the status.
    WriteStatus(Box<AgentStatus>),
    /// Emit an event.
    Emit(RunEvent),
    /// Carry out an internal step.
    StartWork {
        /// The step.
        step: usize,
        /// When the step began, in milliseconds since the epoch: the same for every try.
        began_ms: u64,
        /// The image that an earlier try recorded.
        recorded: Option<ImageStatus>,
    },
    /// Answer the runner.
    Answer {
        /// The step.
        step: usize,
        /// What it rests on, unless that stands in the status: kept for an agent that starts anew.
        verdict: Option<Verdict>,
        /// The answer.
        answer: Answer,
    },
    /// Tell the runner that its end stands in the status.
    TellRecorded,
}

/// An event on the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEvent {
    /// One of `api::condition::reason`.
    pub reason: &'static str,
    /// For people.
    pub note: String,
}

/// What follows from what is seen.
#[must_use]
pub fn plan(seen: &Observed<'_>) -> Plan {
    let status = compose(seen.run, seen.journal, seen.recorded, seen.works, seen.pod_ip);
    let working = seen.works.values().any(Work::is_running);
    let mut plan = Plan::default();
    plan.changes.extend(cancel(seen));
    plan.changes.extend(stops(seen));
    // Before the status, so that no step waits for the write that says that it began.
    plan.changes.extend(starts(seen));
    plan.changes.extend(answers(seen, &status));
    let differs = status != *seen.recorded && (status.has_begun() || status.report.is_some());
    if differs {
        let wait = if is_urgent(seen, &status) {
            Duration::ZERO
        } else {
            seen.since_write.map_or(Duration::ZERO, |since| WRITE_INTERVAL.saturating_sub(since))
        };
        if wait.is_zero() {
            let events = events(seen, &status);
            plan.changes.push(Change::WriteStatus(Box::new(status)));
            plan.changes.extend(events.into_iter().map(Change::Emit));
        } else {
            plan.wake = Some(wait);
        }
    }
    plan.changes.extend(recorded(seen));
    let over = seen.recorded.report.is_some() || seen.stopping || seen.wish == Wish::Abandon;
    plan.done = over && !working && plan.changes.is_empty();
    plan
}

/// The cancel file, once.
fn cancel(seen: &Observed<'_>) -> Option<Change> {
    let wanted = seen.wish == Wish::Cancel && !seen.cancel_told && seen.journal.finished.is_none();
    wanted.then_some(Change::TellCancel)
}

/// Work that nobody waits for any more.
fn stops(seen: &Observed<'_>) -> impl Iterator<Item = Change> {
    let needless = |index: usize| {
        !wanted(seen, index)
            || seen.journal.finished.is_some()
            || seen.journal.steps.get(index).is_some_and(|step| step.phase.is_final())
    };
    seen.works.iter().filter_map(move |(index, work)| match work {
        Work::Running { stopping: false, .. } if needless(*index) => Some(Change::StopWork(*index)),
        Work::Running { .. } | Work::Done(_) => None,
    })
}

/// Whether a step is still wanted: after-steps run after a cancel too.
fn wanted(seen: &Observed<'_>, index: usize) -> bool {
    match seen.wish {
        Wish::Go => true,
        Wish::Cancel => seen.run.outline.get(index).is_some_and(|step| step.after),
        Wish::Abandon => false,
    }
}

/// Whether the status must not wait for its turn.
fn is_urgent(seen: &Observed<'_>, status: &AgentStatus) -> bool {
    let waits = |status: &AgentStatus| {
        let waiting = status.steps.iter().filter(|step| is_waiting(step));
        waiting.map(|step| (step.name.clone(), step.message.clone())).collect::<Vec<_>>()
    };
    let own_word = |index: &usize| {
        let name = seen.run.outline.get(*index).map(|step| step.name.as_str()).unwrap_or_default();
        let (old, new) = (seen.recorded.step(name), status.step(name));
        // Tags wait for their turn: they move in order, so a restart can tell which have moved.
        let digests = |step: Option<&StepStatus>| {
            let images = step.map(|step| step.images.as_slice()).unwrap_or_default();
            images.iter().map(|image| image.digest.clone()).collect::<Vec<_>>()
        };
        let is_final = |step: Option<&StepStatus>| step.is_some_and(|step| step.phase.is_final());
        if seen.recorded.artifacts != status.artifacts {
            return true;
        }
        digests(old) != digests(new) || is_final(old) != is_final(new)
    };
    seen.stopping
        || seen.wish == Wish::Abandon
        || status.has_begun() && !seen.recorded.has_begun()
        || status.report != seen.recorded.report
        || waits(status) != waits(seen.recorded)
        || seen.works.keys().any(own_word)
}

/// Whether a step waits for a person.
fn is_waiting(step: &StepStatus) -> bool {
    step.phase == StepPhase::Waiting && step.reason.as_deref() == Some(reason::ATTACH)
}

/// Internal steps whose turn it is and that nobody began.
fn starts(seen: &Observed<'_>) -> impl Iterator<Item = Change> {
    let may_begin =
        |index: usize| seen.is_whole && !seen.stopping && seen.journal.finished.is_none() && wanted(seen, index);
    waiting(seen).filter(move |(index, _)| may_begin(*index)).filter_map(|(index, recorded)| {
        let unworked = !seen.works.contains_key(&index) && recorded.is_none_or(|step| !step.phase.is_final());
        let began_ms = seen.journal.steps.get(index).and_then(|step| step.started_ms).unwrap_or(0);
        let stored = || {
            let name = seen.run.outline.get(index)?.artifact.as_ref()?;
            seen.recorded.artifacts.iter().find(|artifact| artifact.name == *name).and_then(shelf::image)
        };
        let image = recorded.and_then(|step| step.images.first()).cloned().or_else(stored);
        unworked.then_some(Change::StartWork { step: index, began_ms, recorded: image })
    })
}

/// Answers to steps that ended, by the status or by what it will say.
fn answers(seen: &Observed<'_>, status: &AgentStatus) -> impl Iterator<Item = Change> {
    waiting(seen).filter_map(|(index, recorded)| {
        let name = seen.run.outline.get(index).and_then(|step| step.artifact.as_ref());
        let verdict = match seen.works.get(&index) {
            // The box can read what stands beside the answer: the place of what was stored is the status's to tell.
            Some(Work::Done(verdict)) if verdict.is_final() && name.is_none() => Some(verdict.clone()),
            Some(Work::Done(_) | Work::Running { .. }) | None => None,
        };
        let is_recorded = recorded.is_some_and(|step| step.phase.is_final());
        let step = status.steps.get(index).filter(|_| is_recorded || verdict.is_some())?;
        let verdict = verdict.filter(|_| !is_recorded);
        let artifact = status.artifacts.iter().find(|artifact| Some(&artifact.name) == name);
        Some(Change::Answer { step: index, verdict, answer: answer(step, artifact) })
    })
}

/// The word that a runner waits for that asked for anything.
fn recorded(seen: &Observed<'_>) -> Option<Change> {
    let asked = seen.journal.steps.iter().any(|step| step.asked);
    (asked && seen.recorded.report.is_some() && !seen.record_told).then_some(Change::TellRecorded)
}

/// Internal steps for which the runner waits, each with what the status holds of it.
fn waiting<'a>(seen: &'a Observed<'_>) -> impl Iterator<Item = (usize, Option<&'a StepStatus>)> {
    seen.run.outline.iter().zip(&seen.journal.steps).enumerate().filter_map(|(index, (step, state))| {
        let waits = step.internal && state.asked && !state.phase.is_final() && !seen.answered.contains(&index);
        waits.then(|| (index, seen.recorded.step(&step.name)))
    })
}

/// The answer that a recorded end gives.
fn answer(step: &StepStatus, artifact: Option<&ArtifactStatus>) -> Answer {
    let mut log: Vec<String> = step.images.iter().filter(|image| !image.tags.is_empty()).map(pushed).collect();
    log.extend(artifact.map(stored));
    log.extend(step.message.clone());
    Answer { version: wire::VERSION, passed: step.phase == StepPhase::Succeeded, log, message: step.message.clone() }
}

/// Events on what this write of the status makes true.
fn events(seen: &Observed<'_>, status: &AgentStatus) -> Vec<RunEvent> {
    let mut events = Vec::new();
    let first = status.steps.iter().position(|step| step.started_at.is_some());
    if let Some(index) = first.filter(|_| !seen.recorded.has_begun()) {
        let title = seen.run.outline.get(index).map(|step| step.title.as_str()).unwrap_or_default();
        events.push(RunEvent {
            reason: reason::RUNNING,
            note: format!("step {}: {title}", place(&seen.run.outline, index)),
        });
    }
    for (outline, step) in seen.run.outline.iter().zip(&status.steps) {
        let known = seen.recorded.step(&step.name);
        let again = known.is_some_and(|known| known.phase == step.phase && known.message == step.message);
        let message = step.message.as_deref().unwrap_or_default();
        let waits = if is_waiting(step) {
            format!("step {} waits; {message}", step.name)
        } else if outline.internal && step.phase == StepPhase::Failed && outline.waits.contains(&Wait::Failed) {
            format!("step {} failed and waits; attach with: windlass shell {}", step.name, seen.run.name)
        } else {
            continue;
        };
        events.extend((!again).then_some(RunEvent { reason: reason::WAITING_FOR_USER, note: waits }));
    }
    for (index, work) in seen.works {
        let Work::Done(Verdict::Passed { at, images, .. }) = work else { continue };
        let Some(step) = seen.run.outline.get(*index) else { continue };
        if seen.recorded.step(&step.name).is_some_and(|step| step.phase.is_final()) {
            continue;
        }
        let began =
            seen.journal.steps.get(*index).and_then(|step| step.started_ms).and_then(|ms| i64::try_from(ms).ok());
        let took_ms = began.map_or(0, |began| at.as_millisecond().saturating_sub(began).max(0));
        let took = format!("{}.{}s", took_ms / 1000, took_ms % 1000 / 100);
        if let Some(name) = &step.artifact {
            let artifact = status.artifacts.iter().find(|artifact| artifact.name == *name);
            let note = artifact.map(|artifact| format!("{} in {took}", stored(artifact)));
            events.extend(note.map(|note| RunEvent { reason: reason::STORED, note }));
            continue;
        }
        events.extend(images.iter().map(|image| RunEvent {
            reason: reason::PUSHED,
            note: format!(
                "pushed {}:{} ({}) in {took}",
                image.repository,
                image.tags.first().map(String::as_str).unwrap_or_default(),
                image.digest,
            ),
        }));
    }
    events
}

/// `stored app (sha256:…)`, without its place: who may see events and logs is not who may read it.
fn stored(artifact: &ArtifactStatus) -> String {
    format!("stored {} ({})", artifact.name, artifact.digest.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests;
