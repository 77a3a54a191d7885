//! What the agent says of a run in its status: the journal, with the agent's own word on internal steps.
//!
//! `plan` calls [`compose`]; `apply` writes the result by server-side apply.
//!
//! **Invariant:** total and forward only: what was recorded as over stays as it was recorded, whatever the box
//! writes later. A run is `Passed` only if every step of it was seen to pass, and of an internal step only the
//! agent's own word counts.

use super::{
    journal::{Finished, Journal, StepOutline, StepState, clean},
    run::Run,
    shelf,
    work::{Verdict, Work},
};
use crate::{
    api::{
        condition::reason,
        status::{ArtifactStatus, ImageStatus, PipelineRunStatus, Report, ReportResult, StepPhase, StepStatus, moment},
    },
    steps::watch::addresses,
    wire::{EndReason, Note, Wait},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use std::{collections::BTreeMap, net::IpAddr};

/// Reasons that the runner may give for a run that did not pass; another becomes `ReportLost`.
const RUN_REASONS: [&str; 8] = [
    reason::STEP_FAILED,
    reason::STEP_TIMED_OUT,
    reason::NO_OUTPUT,
    reason::RUN_TIMED_OUT,
    reason::CANCELLED,
    reason::SOURCE_NOT_WRITABLE,
    reason::NO_SHELL,
    reason::OUT_OF_MEMORY,
];

/// The fields of a run's status that the agent owns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentStatus {
    /// Commit that was fetched.
    pub source_revision: Option<String>,
    /// Every step, in the order of the pipeline; empty before the first write.
    pub steps: Vec<StepStatus>,
    /// What was stored, or is being stored.
    pub artifacts: Vec<ArtifactStatus>,
    /// The end.
    pub report: Option<Report>,
    /// `4/10`.
    pub summary_steps: Option<String>,
}

impl AgentStatus {
    /// What stands in a status for this attempt.
    #[must_use]
    pub fn recorded(status: &PipelineRunStatus, attempt: u32) -> Self {
        Self {
            source_revision: status.source_revision.clone(),
            steps: status.steps.clone(),
            artifacts: status.artifacts.clone(),
            report: status.report.clone().filter(|report| report.attempt == attempt),
            summary_steps: status.summary.as_ref().and_then(|summary| summary.steps.clone()),
        }
    }

    /// A step by name.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&StepStatus> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// Whether any step began.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.steps.iter().any(|step| step.started_at.is_some())
    }
}

/// The status that follows from the journal, from what stands in the status, and from the agent's own work.
#[must_use]
pub fn compose(
    run: &Run,
    journal: &Journal,
    recorded: &AgentStatus,
    works: &BTreeMap<usize, Work>,
    pod_ip: Option<IpAddr>,
) -> AgentStatus {
    let (outline, attempt) = (run.outline.as_slice(), run.attempt);
    let mut steps: Vec<StepStatus> = outline
        .iter()
        .zip(&journal.steps)
        .enumerate()
        .map(|(index, (step, state))| {
            let known = recorded.step(&step.name);
            let mut new = one_step(&run.name, step, state, known, works.get(&index), pod_ip);
            if step.artifact.is_some() {
                // It stands among the artifacts; here it would be taken for a pushed image.
                new.images.clear();
            }
            forward(known, new)
        })
        .collect();
    let artifacts = artifacts(outline, &steps, recorded, works);
    // A push in flight ends first: its tags belong to the report.
    let idle = !works.values().any(Work::is_running);
    let report = match (&recorded.report, &journal.finished) {
        (Some(report), _) => Some(report.clone()),
        (None, Some(finished)) if idle => {
            let report = report(outline, attempt, &steps, finished);
            close(&mut steps);
            Some(report)
        }
        (None, _) => None,
    };
    let finished = outline.iter().zip(&steps).filter(|(step, status)| !step.after && has_run(status.phase)).count();
    let total = outline.iter().filter(|step| !step.after).count();
    AgentStatus {
        source_revision: recorded.source_revision.clone().or_else(|| journal.revision.clone()),
        steps,
        artifacts,
        report,
        summary_steps: Some(format!("{finished}/{total}")),
    }
}

/// What stands in the status of artifacts, and what the agent's own work makes of it: one that is not whole goes with its
/// step's failure.
fn artifacts(
    outline: &[StepOutline],
    steps: &[StepStatus],
    recorded: &AgentStatus,
    works: &BTreeMap<usize, Work>,
) -> Vec<ArtifactStatus> {
    let of_step = |(index, (step, status)): (usize, (&StepOutline, &StepStatus))| {
        let name = step.artifact.as_deref()?;
        let known = recorded.artifacts.iter().find(|artifact| artifact.name == name).cloned();
        if recorded.step(&step.name).is_some_and(|step| step.phase.is_final()) {
            return known;
        }
        let stored = |images: &[ImageStatus]| images.first().map(|image| shelf::artifact(name, image));
        match works.get(&index) {
            Some(Work::Running { image, .. }) => image.as_ref().map(|image| shelf::artifact(name, image)).or(known),
            Some(Work::Done(Verdict::Passed { images, .. })) => stored(images),
            Some(Work::Done(Verdict::Failed { images, .. } | Verdict::Stopped { images })) => {
                stored(images).filter(|_| images.iter().any(|image| !image.tags.is_empty()))
            }
            None => known.filter(|_| !status.phase.is_final()),
        }
    };
    outline.iter().zip(steps).enumerate().filter_map(of_step).collect()
}

/// Whether the step ran to an end of its own.
fn has_run(phase: StepPhase) -> bool {
    phase.is_final() && phase != StepPhase::Skipped
}

/// What stands in the status, unless the new state is further on.
fn forward(known: Option<&StepStatus>, new: StepStatus) -> StepStatus {
    let rank = |phase: StepPhase| match phase {
        StepPhase::Pending => 0,
        StepPhase::Running | StepPhase::Waiting => 1,
        StepPhase::Succeeded | StepPhase::Failed | StepPhase::Skipped | StepPhase::Cancelled => 2,
    };
    match known {
        Some(known) if known.phase.is_final() || rank(known.phase) > rank(new.phase) => known.clone(),
        Some(known) => StepStatus { started_at: known.started_at.clone().or(new.started_at), ..new },
        None => new,
    }
}

/// One step as the journal and the agent's work have it.
fn one_step(
    run: &str,
    step: &StepOutline,
    state: &StepState,
    known: Option<&StepStatus>,
    work: Option<&Work>,
    pod_ip: Option<IpAddr>,
) -> StepStatus {
    let told =
        StepStatus { images: known.map(|known| known.images.clone()).unwrap_or_default(), ..told(step, state, pod_ip) };
    // Once the box has asked, the word is the agent's; before that the step waits as any other.
    if step.internal && (state.asked || state.waits.is_none()) {
        return worked(told, work);
    }
    match state.waits {
        Some((why, code)) => StepStatus {
            reason: Some(reason::ATTACH.into()),
            message: Some(how_to_attach(run, &step.name, why, code)),
            ..told
        },
        None => told,
    }
}

/// One step as the journal has it.
fn told(step: &StepOutline, state: &StepState, pod_ip: Option<IpAddr>) -> StepStatus {
    let runs = state.phase == StepPhase::Running;
    let note = state.note.as_ref().filter(|_| runs);
    StepStatus {
        name: step.name.clone(),
        phase: state.phase,
        reason: match (state.ended, note) {
            (Some(ended), _) => end_reason(ended, state.phase).map(str::to_owned),
            (None, Some((Note::WatchLimit, _))) => Some(reason::WATCH_LIMIT.into()),
            (None, None) => None,
        },
        message: note.map(|(_, message)| message).or(state.message.as_ref()).cloned(),
        exit_code: state.code,
        attempts: (state.attempts > 1).then_some(state.attempts),
        started_at: state.started_ms.and_then(time),
        finished_at: state.finished_ms.and_then(time),
        addresses: pod_ip.filter(|_| runs).map(|ip| addresses(ip, &step.ports)).unwrap_or_default(),
        ..StepStatus::default()
    }
}

/// An internal step: what the agent did has the last word.
fn worked(told: StepStatus, work: Option<&Work>) -> StepStatus {
    let open = StepStatus {
        phase: StepPhase::Running,
        reason: None,
        message: None,
        exit_code: None,
        finished_at: None,
        ..told.clone()
    };
    match work {
        Some(Work::Running { message, image, .. }) => StepStatus {
            message: message.clone(),
            images: image.clone().map_or_else(|| told.images.clone(), |image| vec![image]),
            ..open
        },
        Some(Work::Done(Verdict::Stopped { images })) if !images.is_empty() => {
            unworked(StepStatus { images: images.clone(), ..told }, &open)
        }
        Some(Work::Done(Verdict::Stopped { .. })) | None => unworked(told, &open),
        Some(Work::Done(Verdict::Passed { at, images, message, .. })) => StepStatus {
            phase: StepPhase::Succeeded,
            message: message.as_deref().map(clean),
            images: images.clone(),
            finished_at: Some(moment(*at)),
            ..open
        },
        Some(Work::Done(Verdict::Failed { at, images, reason, message })) => StepStatus {
            phase: StepPhase::Failed,
            reason: Some(reason.to_string()),
            message: Some(clean(message)),
            images: if images.is_empty() { told.images.clone() } else { images.clone() },
            finished_at: Some(moment(*at)),
            ..open
        },
    }
}

/// Why a step waits for a person, and what that person can do.
fn how_to_attach(run: &str, step: &str, why: Wait, code: Option<i32>) -> String {
    let attach = format!("attach with: windlass shell {run}");
    match (why, code) {
        (Wait::Shell, _) => attach,
        (Wait::Before, _) => format!("it has not begun; {attach}; go on with: windlass continue {run}"),
        (Wait::Failed, code) => {
            let code = code.map(|code| format!(" with exit code {code}")).unwrap_or_default();
            format!("it failed{code}; {attach}; then: windlass retry {run} --step {step}, or windlass continue {run}")
        }
    }
}

/// An internal step of which the agent has nothing to say: the runner may tell that it was cut short or never
/// reached, but not that it passed.
fn unworked(told: StepStatus, open: &StepStatus) -> StepStatus {
    match told.phase {
        StepPhase::Running | StepPhase::Waiting => StepStatus { images: told.images, ..open.clone() },
        StepPhase::Succeeded => StepStatus {
            phase: StepPhase::Failed,
            reason: Some(reason::REPORT_LOST.into()),
            message: Some("the box says that this step passed, but the agent did not carry it out".into()),
            ..told
        },
        StepPhase::Pending | StepPhase::Failed | StepPhase::Skipped | StepPhase::Cancelled => told,
    }
}

fn end_reason(ended: EndReason, phase: StepPhase) -> Option<&'static str> {
    match ended {
        EndReason::ExitCode if phase == StepPhase::Succeeded => None,
        EndReason::ExitCode | EndReason::NotStarted => Some(reason::EXIT_CODE),
        EndReason::Signal => Some(reason::SIGNAL),
        EndReason::TimedOut => Some(reason::TIMED_OUT),
        EndReason::NoOutput => Some(reason::NO_OUTPUT),
        EndReason::Cancelled => Some(reason::CANCELLED),
        EndReason::EarlierStepFailed => Some(reason::EARLIER_STEP_FAILED),
        EndReason::OutOfMemory => Some(reason::OUT_OF_MEMORY),
        // The agent's word has the reason; without it the runner's claim stands for nothing.
        EndReason::Agent => Some(reason::INTERRUPTED),
    }
}

/// The end of the run, believed only as far as the steps bear it out.
fn report(outline: &[StepOutline], attempt: u32, steps: &[StepStatus], finished: &Finished) -> Report {
    let main = || outline.iter().zip(steps).enumerate().filter(|(_, (step, _))| !step.after);
    let fine = |step: &StepOutline, status: &StepStatus| {
        status.phase == StepPhase::Succeeded || (step.continues && status.phase == StepPhase::Failed)
    };
    let finished_at = time(finished.at_ms);
    let bad = main().find(|(_, (step, status))| !fine(step, status)).map(|(index, _)| index);
    let failed_report = |reason: &str, failed: Option<usize>, message: Option<String>| Report {
        attempt,
        result: ReportResult::Failed,
        reason: Some(reason.to_owned()),
        failed_step: failed.and_then(|index| outline.get(index)).map(|step| step.name.clone()),
        message,
        finished_at: finished_at.clone(),
    };
    match (finished.passed, bad) {
        (true, None) => Report {
            attempt,
            result: ReportResult::Passed,
            finished_at,
            message: finished.message.clone(),
            ..Report::default()
        },
        (true, Some(bad)) if steps.get(bad).is_some_and(|step| step.phase == StepPhase::Failed) => {
            // The box says that all is well; the step's own record, or the agent, says that it failed.
            let lost = steps.get(bad).and_then(|step| step.reason.as_deref()) == Some(reason::REPORT_LOST);
            let why = if lost { reason::REPORT_LOST } else { reason::STEP_FAILED };
            failed_report(why, Some(bad), Some(step_message(outline, steps, bad)))
        }
        (true, Some(bad)) => {
            let name = outline.get(bad).map_or("", |step| step.name.as_str());
            let message = format!("the box says that the run passed, but step {name} has no exit record of success");
            failed_report(reason::REPORT_LOST, Some(bad), Some(message))
        }
        (false, _) => {
            let failed = finished.failed.or(bad);
            let told = finished.reason.as_deref().and_then(|told| RUN_REASONS.iter().find(|known| **known == told));
            match (told.copied(), failed) {
                (Some(reason::STEP_FAILED), Some(index)) if is_internal(outline, index) => {
                    failed_report(reason::STEP_FAILED, failed, Some(step_message(outline, steps, index)))
                }
                (Some(reason::STEP_FAILED), Some(index)) => {
                    let message = finished.message.clone().unwrap_or_else(|| step_message(outline, steps, index));
                    failed_report(reason::STEP_FAILED, failed, Some(message))
                }
                (Some(why), _) => failed_report(why, failed, finished.message.clone()),
                (None, Some(index)) if steps.get(index).is_some_and(|step| step.phase == StepPhase::Failed) => {
                    failed_report(reason::STEP_FAILED, failed, Some(step_message(outline, steps, index)))
                }
                (None, _) => {
                    let message = finished.message.clone().unwrap_or_else(|| "the box ended without saying why".into());
                    failed_report(reason::REPORT_LOST, failed, Some(message))
                }
            }
        }
    }
}

fn is_internal(outline: &[StepOutline], index: usize) -> bool {
    outline.get(index).is_some_and(|step| step.internal)
}

/// `step test (3 of 10) failed with exit code 2`, `step push failed: ...`.
fn step_message(outline: &[StepOutline], steps: &[StepStatus], index: usize) -> String {
    let (Some(step), Some(status)) = (outline.get(index), steps.get(index)) else { return String::new() };
    let name = &step.name;
    if step.internal {
        return match &status.message {
            Some(message) => clean(&format!("step {name} failed: {message}")),
            None => format!("step {name} failed"),
        };
    }
    let place = place(outline, index);
    match status.exit_code {
        Some(code) => format!("step {name} ({place}) failed with exit code {code}"),
        None => format!("step {name} ({place}) failed"),
    }
}

/// `pushed r.io/team/app: tags 1.4, latest (sha256:…)`.
#[must_use]
pub fn pushed(image: &ImageStatus) -> String {
    let ImageStatus { repository, tags, digest, .. } = image;
    let word = if tags.len() == 1 { "tag" } else { "tags" };
    format!("pushed {repository}: {word} {} ({digest})", tags.join(", "))
}

/// `3 of 10` among the steps, or among the after-steps.
#[must_use]
pub fn place(outline: &[StepOutline], index: usize) -> String {
    let after = outline.get(index).is_some_and(|step| step.after);
    let number = outline.iter().take(index + 1).filter(|step| step.after == after).count();
    let total = outline.iter().filter(|step| step.after == after).count();
    format!("{number} of {total}")
}

/// After the report nothing runs any more: a step without an end lost its record, or was never reached.
fn close(steps: &mut [StepStatus]) {
    for step in steps {
        match step.phase {
            StepPhase::Running | StepPhase::Waiting => {
                step.phase = StepPhase::Failed;
                step.reason = Some(reason::REPORT_LOST.into());
                step.message = Some("the run ended without the exit record of this step".into());
            }
            StepPhase::Pending => {
                step.phase = StepPhase::Skipped;
                step.reason = Some(reason::EARLIER_STEP_FAILED.into());
            }
            StepPhase::Succeeded | StepPhase::Failed | StepPhase::Skipped | StepPhase::Cancelled => {}
        }
    }
}

/// A time of the box's clock; `None` if it is none.
fn time(ms: u64) -> Option<MicroTime> {
    Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok().map(moment)
}

#[cfg(test)]
mod tests;
