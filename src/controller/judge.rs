//! Judges a run by its pod and the agent's report: what it waits for, or how it ended. Called by `plan`.
//!
//! **Invariant:** pure and total. A run is green only if every step's own exit record was received;
//! when in doubt it is not.

use super::{
    lost::{self, node_is_lost},
    order::needs_agent,
    plan::Observed,
    pod::{self, BOX, PREPARE, SERVICE_PREFIX},
    starting::{blocked, cannot_start, is_running, preparing, starting},
    status::{Outcome, Verdict, cut, elapsed},
};
use crate::{
    api::{
        PipelineRun, PipelineSpec,
        condition::reason,
        duration,
        pipeline::OnExit,
        status::{PipelineRunStatus, Report, ReportResult, StepPhase, StepStatus, moment},
        step::OnFailure,
    },
    wire::{EXIT_PREPARE_FAILED, EndReason, Failure, StepEnd, Summary},
};
use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod},
    jiff::{SignedDuration, Timestamp},
};
use kube::ResourceExt;
use std::time::Duration;

/// The box ended: how long the agent's report, which says more than the exit, is waited for.
const REPORT_GRACE: Duration = Duration::from_secs(10);
/// The box ended after a step that the agent carried out: how long its word on that is waited for. The box stays until it
/// is given, so this is for an API server or an agent that was away for longer.
const UNREPORTED_GRACE: Duration = Duration::from_secs(600);
/// An agent that renewed its lease within this time is there.
const AGENT_SILENT: Duration = Duration::from_secs(30);
/// A cancel is not left to an agent that gives no sign of life for so long after it.
const CANCEL_SILENT: Duration = Duration::from_secs(10);

/// Before where the output of a service is read. `local` leaves it out: there is no such place.
pub const OUTPUT_OF_SERVICE: &str = "; its output: windlass logs ";

/// A verdict, the steps to fill in, and when to look again.
#[derive(Debug, PartialEq)]
pub struct Judgement {
    /// What the run is at.
    pub verdict: Verdict,
    /// At the end: steps that the agent did not write. Empty: the agent's stand.
    pub steps: Vec<StepStatus>,
    /// When to judge again without news.
    pub wake: Option<Duration>,
}

impl Judgement {
    pub(super) fn of(verdict: Verdict) -> Self {
        Self { verdict, steps: Vec::new(), wake: None }
    }

    pub(super) fn wake(mut self, after: Duration) -> Self {
        self.wake = Some(after);
        self
    }
}

/// Judges a run whose pod is there.
#[must_use]
pub fn judge(seen: &Observed, spec: &PipelineSpec, pod: &Pod) -> Judgement {
    let status = seen.run.status.clone().unwrap_or_default();
    if let Some(report) = reported(&status) {
        return Judgement::of(by_report(spec, &status, report, seen.now));
    }
    let pod_status = pod.status.clone().unwrap_or_default();
    let containers = pod_status.container_statuses.unwrap_or_default();
    let services = pod_status.init_container_statuses.unwrap_or_default();
    if let Some(end) = terminated(&containers, PREPARE).filter(|end| end.exit_code != 0) {
        return by_prepare(seen, spec, &status, pod, end);
    }
    if let Some(end) = terminated(&containers, BOX) {
        return by_box(seen, spec, &status, pod, end);
    }
    if let Some(judgement) = by_pod(seen, spec, &status, pod).or_else(|| by_clock(seen, spec, &status, pod)) {
        return judgement;
    }
    if let Some(judgement) = blocked(seen, containers.iter().chain(&services)) {
        return judgement;
    }
    if let Some(verdict) = by_services(seen, spec, &services) {
        let steps = close_steps(spec, &status, &verdict, seen.now);
        return Judgement { verdict, steps, wake: None };
    }
    going_on(seen, spec, &status, pod, &containers)
}

/// Judges a run whose pod is gone.
#[must_use]
pub fn without_pod(seen: &Observed, spec: &PipelineSpec) -> Judgement {
    let status = seen.run.status.clone().unwrap_or_default();
    let verdict = match reported(&status) {
        Some(report) => by_report(spec, &status, report, seen.now),
        None if seen.run.spec.cancel.is_some() => Verdict::failed(reason::CANCELLED, cancelled(seen, &status)),
        None => Verdict::failed(reason::POD_LOST, format!("the pod was deleted{}", at_step(&status))),
    };
    ended(seen, spec, &status, verdict)
}

/// The agent's report on this attempt.
#[must_use]
pub fn reported(status: &PipelineRunStatus) -> Option<&Report> {
    status.report.as_ref().filter(|report| Some(report.attempt) == status.attempt)
}

/// The words for a cancelled run.
#[must_use]
pub fn cancelled(seen: &Observed, status: &PipelineRunStatus) -> String {
    let how = seen.run.spec.cancel.map_or_else(|| "deleted".to_owned(), |c| format!("{c:?}"));
    format!("cancelled ({how}){}", at_step(status))
}

/// ` at step test`, if one runs or was stopped: TERM ends a step before its pod is gone.
pub(super) fn at_step(status: &PipelineRunStatus) -> String {
    let runs = |s: &&StepStatus| matches!(s.phase, StepPhase::Running | StepPhase::Waiting);
    let stopped = |s: &&StepStatus| s.phase == StepPhase::Cancelled && s.started_at.is_some();
    let at = status.steps.iter().find(runs).or_else(|| status.steps.iter().find(stopped));
    at.map_or_else(String::new, |s| format!(" at step {}", s.name))
}

fn by_report(spec: &PipelineSpec, status: &PipelineRunStatus, report: &Report, now: Timestamp) -> Verdict {
    if report.result == ReportResult::Failed {
        let reason = report.reason.as_deref().unwrap_or(reason::STEP_FAILED);
        return Verdict::failed(reason, report.message.clone().unwrap_or_else(|| "a step failed".into()));
    }
    passed(spec, &status.steps, status, now)
}

/// A run that says it passed: every step must have its own good end.
fn passed(spec: &PipelineSpec, steps: &[StepStatus], status: &PipelineRunStatus, now: Timestamp) -> Verdict {
    let mut continued = Vec::new();
    for (after, step) in spec.all_steps() {
        let phase = steps.iter().find(|s| s.name == step.name).map(|s| s.phase);
        match phase {
            Some(StepPhase::Succeeded) => {}
            Some(StepPhase::Failed) if step.on_failure == OnFailure::Continue => continued.push(step.name.as_str()),
            // After-steps do not change the result; one that failed ends those after it.
            Some(StepPhase::Failed | StepPhase::Skipped | StepPhase::Cancelled) if after => {
                continued.push(step.name.as_str());
            }
            _ => {
                return Verdict::failed(
                    reason::REPORT_LOST,
                    format!("the run ended without the exit record of step {}", step.name),
                );
            }
        }
    }
    let count = spec.steps.len();
    let steps_text = format!("{count} step{}", if count == 1 { "" } else { "s" });
    if !continued.is_empty() {
        let message =
            format!("{steps_text}, {} failed and was set to continue: {}", continued.len(), continued.join(", "));
        return Verdict { outcome: Outcome::Succeeded, reason: reason::SUCCEEDED_WITH_FAILURES.into(), message };
    }
    let took =
        status.start_time.as_ref().map_or_else(String::new, |s| format!(" in {}", duration::human(elapsed(s.0, now))));
    let images = steps.iter().flat_map(|s| &s.images).map(|i| format!("; pushed {}@{}", i.repository, i.digest));
    let message = format!("{steps_text}{took}{}", images.collect::<String>());
    Verdict { outcome: Outcome::Succeeded, reason: reason::SUCCEEDED.into(), message }
}

/// `prepare` leaves a `Failure` where it fails by itself. Without one, what befell the pod comes first.
fn by_prepare(
    seen: &Observed,
    spec: &PipelineSpec,
    status: &PipelineRunStatus,
    pod: &Pod,
    end: &ContainerStateTerminated,
) -> Judgement {
    let text = end.message.as_deref().unwrap_or_default();
    if let Ok(failure) = serde_json::from_str::<Failure>(text) {
        return Judgement::of(Verdict::failed(&failure.reason, failure.message));
    }
    let outside =
        lost::told(status, pod).or_else(|| lost::deleted(status, pod)).or_else(|| lost::forgotten(status, end));
    let verdict = outside.unwrap_or_else(|| {
        Verdict::failed(
            reason::SOURCE_FAILED,
            format!("the container prepare ended with exit code {}: {}", end.exit_code, cut(text.trim(), 300)),
        )
    });
    ended(seen, spec, status, verdict)
}

/// A bad end, and what it makes of the steps.
fn ended(seen: &Observed, spec: &PipelineSpec, status: &PipelineRunStatus, verdict: Verdict) -> Judgement {
    let steps = close_steps(spec, status, &verdict, seen.now);
    Judgement { verdict, steps, wake: None }
}

fn by_box(
    seen: &Observed,
    spec: &PipelineSpec,
    status: &PipelineRunStatus,
    pod: &Pod,
    end: &ContainerStateTerminated,
) -> Judgement {
    if let Some(summary) = end.message.as_deref().and_then(Summary::decode) {
        // The agent knows more (reasons, digests): it gets a moment, if it is there. It learns of the run
        // from the status, which may have been written after the end only.
        let ended = end.finished_at.as_ref().map_or(seen.now, |t| t.0);
        let known = seen.written.map_or(ended, |written| written.max(ended));
        if agent_is_there(seen) && (status.node_name.is_none() || elapsed(known, seen.now) < REPORT_GRACE) {
            let verdict = running(seen, spec, status);
            return Judgement::of(verdict).wake(Duration::from_secs(1));
        }
        let unreported = unreported(spec, status, &summary).filter(|_| elapsed(ended, seen.now) < UNREPORTED_GRACE);
        if let Some(step) = unreported {
            let node = status.node_name.as_deref().unwrap_or("the run's node");
            let message = format!("step {step} ended, and the agent of node {node} has still to say how");
            return Judgement::of(Verdict::goes_on(reason::WAITING_FOR_AGENT, message)).wake(Duration::from_secs(5));
        }
        return by_summary(seen, spec, status, &summary, end);
    }
    if end.exit_code == EXIT_PREPARE_FAILED && status.steps.iter().all(|s| s.started_at.is_none()) {
        // The kubelet reports the end of `prepare` with the reason at about the same time.
        let ended = end.finished_at.as_ref().map_or(seen.now, |t| t.0);
        if elapsed(ended, seen.now) < REPORT_GRACE {
            let verdict = preparing(spec).unwrap_or_else(|| running(seen, spec, status));
            return Judgement::of(verdict).wake(Duration::from_secs(1));
        }
    }
    ended(seen, spec, status, box_verdict(spec, status, pod, end))
}

/// A step of the agent that ended by the box's account, and not yet by the agent's.
fn unreported<'a>(spec: &'a PipelineSpec, status: &PipelineRunStatus, summary: &Summary) -> Option<&'a str> {
    let is_final = |name: &str| status.steps.iter().any(|step| step.name == name && step.phase.is_final());
    let ended = |index: usize| {
        let end = summary.steps.get(index).and_then(Option::as_ref);
        end.is_some_and(|end| matches!(end.reason, EndReason::ExitCode | EndReason::Agent))
    };
    let of_agent = |step: &crate::api::Step| step.kind().is_some_and(|kind| kind.is_of_agent());
    let steps = spec.all_steps().enumerate();
    let found = steps.into_iter().find(|(i, (_, step))| of_agent(step) && ended(*i) && !is_final(&step.name));
    found.map(|(_, (_, step))| step.name.as_str())
}

/// The box ended without the runner's summary.
fn box_verdict(spec: &PipelineSpec, status: &PipelineRunStatus, pod: &Pod, end: &ContainerStateTerminated) -> Verdict {
    let message = end.message.as_deref().unwrap_or_default();
    let why = end.reason.as_deref().unwrap_or_default();
    if let Some(verdict) = lost::told(status, pod) {
        return verdict;
    }
    if why == "OOMKilled" {
        let limit = spec.box_.resources.as_ref().and_then(|r| r.limits.get("memory"));
        let limit =
            limit.map_or_else(|| "memory than the node has".to_owned(), |l| format!("than its limit of {}", l.0));
        return Verdict::failed(reason::OUT_OF_MEMORY, format!("the box used more {limit}{}", at_step(status)));
    }
    if let Some(verdict) = lost::deleted(status, pod).or_else(|| lost::forgotten(status, end)) {
        return verdict;
    }
    if end.started_at.is_none() || matches!(why, "ContainerCannotRun" | "StartError") {
        return cannot_start(&spec.box_.image, message);
    }
    Verdict::failed(
        reason::REPORT_LOST,
        format!(
            "the box ended with exit code {} and without the exit record of every step{}",
            end.exit_code,
            at_step(status)
        ),
    )
}

/// A pod that ended, its box not: whatever it says or leaves out, nothing of it goes on.
fn by_pod(seen: &Observed, spec: &PipelineSpec, status: &PipelineRunStatus, pod: &Pod) -> Option<Judgement> {
    let verdict = match pod.status.as_ref()?.phase.as_deref()? {
        "Failed" => lost::failed(status, pod),
        "Unknown" => lost::told(status, pod)?,
        _ => return None,
    };
    Some(ended(seen, spec, status, verdict))
}

/// A pod whose kubelet does not answer any more stays as it was: time tells.
fn by_clock(seen: &Observed, spec: &PipelineSpec, status: &PipelineRunStatus, pod: &Pod) -> Option<Judgement> {
    let timeout = duration::parse(&spec.timeout).unwrap_or_default();
    let verdict = if node_is_lost(pod, seen.now) {
        Verdict::failed(reason::NODE_LOST, format!("the node has not ended the pod for 5m{}", at_step(status)))
    } else if seen.run_age() > timeout + pod::BACKSTOP + lost::NODE_SILENT {
        Verdict::failed(reason::RUN_TIMED_OUT, format!("the run took longer than {}{}", spec.timeout, at_step(status)))
    } else {
        return None;
    };
    Some(ended(seen, spec, status, verdict))
}

/// A native sidecar that ends is restarted by the kubelet: that is how its end is seen.
fn by_services(seen: &Observed, spec: &PipelineSpec, services: &[ContainerStatus]) -> Option<Verdict> {
    for service in spec.services.iter().filter(|s| s.on_exit == OnExit::FailRun) {
        let name = format!("{SERVICE_PREFIX}{}", service.name);
        let Some(status) = services.iter().find(|c| c.name == name && c.restart_count > 0) else { continue };
        let end = [&status.last_state, &status.state]
            .into_iter()
            .flatten()
            .find_map(|s: &ContainerState| s.terminated.as_ref());
        let code = end.map_or_else(String::new, |e| format!(" with exit code {}", e.exit_code));
        let words =
            end.and_then(|e| e.message.as_deref()).map_or_else(String::new, |m| format!(": {}", cut(m.trim(), 300)));
        let (name, run) = (&service.name, seen.run.name_any());
        let message = format!("service {name} ended{code}{words}{OUTPUT_OF_SERVICE}{run} --service {name}");
        return Some(Verdict::failed(reason::SERVICE_FAILED, message));
    }
    None
}

fn going_on(
    seen: &Observed,
    spec: &PipelineSpec,
    status: &PipelineRunStatus,
    pod: &Pod,
    containers: &[ContainerStatus],
) -> Judgement {
    let state = |name: &str| containers.iter().find(|c| c.name == name).and_then(|c| c.state.as_ref());
    let box_runs = state(BOX).is_some_and(|s| s.running.is_some());
    if !box_runs || state(PREPARE).is_some_and(|s| s.waiting.is_some()) {
        return starting(seen, spec, pod);
    }
    let started = status.steps.iter().any(|s| s.phase != StepPhase::Pending);
    if needs_agent(spec) && !agent_is_there(seen) && seen.pod_age() >= AGENT_SILENT {
        let node = status.node_name.as_deref().unwrap_or("the run's node");
        let step =
            spec.all_steps().find(|(_, s)| s.kind().is_some_and(|k| k.is_of_agent())).map_or("", |(_, s)| &s.name);
        let message = if seen.agent_seen.is_some() {
            format!(
                "step {step} needs the agent of node {node}, which has not answered for {}s",
                AGENT_SILENT.as_secs()
            )
        } else {
            format!(
                "step {step} needs an agent, and node {node} has none: it needs Docker Engine, and the labels of the chart's agent.nodeSelector"
            )
        };
        return Judgement::of(Verdict::goes_on(reason::WAITING_FOR_AGENT, message)).wake(Duration::from_secs(10));
    }
    let wake = if needs_agent(spec) { AGENT_SILENT } else { Duration::from_secs(300) };
    let prepares = !started && state(PREPARE).is_none_or(|s| s.terminated.is_none());
    let verdict = preparing(spec).filter(|_| prepares).unwrap_or_else(|| running(seen, spec, status));
    Judgement::of(verdict).wake(wake)
}

/// `step 4 of 10: test`, or that it waits for a person, by the agent's account.
fn running(seen: &Observed, spec: &PipelineSpec, status: &PipelineRunStatus) -> Verdict {
    let at = |name: &str, steps: &[crate::api::Step]| {
        steps.iter().position(|s| s.name == name).map(|i| (i + 1, steps.len()))
    };
    let current = status.steps.iter().rev().find(|s| s.phase != StepPhase::Pending);
    if let Some(waits) = current.and_then(|step| waiting(seen, spec, step)) {
        return Verdict::goes_on(reason::WAITING_FOR_USER, waits);
    }
    let message = current.and_then(|step| {
        let main = at(&step.name, &spec.steps).map(|(i, n)| format!("step {i} of {n}: {}", step.name));
        main.or_else(|| at(&step.name, &spec.after_steps).map(|(i, n)| format!("after-step {i} of {n}: {}", step.name)))
    });
    Verdict::goes_on(reason::RUNNING, message.unwrap_or_else(|| "the steps run".into()))
}

/// Why the step waits for a person, if it does. The agent's own word on a step of its is final, so that
/// the box waits after its failure follows from the breakpoint.
fn waiting(seen: &Observed, spec: &PipelineSpec, step: &StepStatus) -> Option<String> {
    let name = &step.name;
    if step.phase == StepPhase::Waiting && step.reason.as_deref() == Some(reason::ATTACH) {
        return Some(format!("step {name} waits; {}", step.message.as_deref().unwrap_or_default()));
    }
    let at_failure = seen.run.spec.breakpoint.as_ref().is_some_and(|at| at.at_failure);
    let of_agent = spec
        .steps
        .iter()
        .any(|s| s.name == *name && s.on_failure == OnFailure::Fail && s.kind().is_some_and(|kind| kind.is_of_agent()));
    let run = seen.run.name_any();
    (at_failure && of_agent && step.phase == StepPhase::Failed).then(|| {
        format!("step {name} failed and waits; attach with: windlass shell {run}; go on with: windlass continue {run}")
    })
}

fn by_summary(
    seen: &Observed,
    spec: &PipelineSpec,
    status: &PipelineRunStatus,
    summary: &Summary,
    end: &ContainerStateTerminated,
) -> Judgement {
    let begin = end.started_at.as_ref().map_or(seen.now, |t| t.0);
    let steps: Vec<StepStatus> = spec
        .all_steps()
        .enumerate()
        .map(|(i, (_, step))| {
            let known = status.steps.iter().find(|s| s.name == step.name);
            match (known, summary.steps.get(i)) {
                (Some(known), _) if known.phase.is_final() => known.clone(),
                (known, Some(Some(end))) => from_summary(step, known, end, begin),
                (known, _) => {
                    known.cloned().unwrap_or_else(|| StepStatus { name: step.name.clone(), ..Default::default() })
                }
            }
        })
        .collect();
    let verdict = if summary.passed {
        passed(spec, &steps, status, seen.now)
    } else {
        let why = summary.reason.as_deref().unwrap_or(reason::STEP_FAILED);
        let failed = summary.failed.and_then(|i| spec.all_steps().nth(usize::from(i)));
        let message = summary
            .message
            .as_deref()
            .map(clean)
            .unwrap_or_else(|| format!("step {} failed", failed.map_or("?", |(_, s)| &s.name)));
        Verdict::failed(why, message)
    };
    Judgement { verdict, steps, wake: None }
}

/// The box's words, without what could act on a terminal.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// A step's end by the box's own account. It is believed about the box's own work only: that a step of the
/// agent was carried out is the agent's to say.
fn from_summary(step: &crate::api::Step, known: Option<&StepStatus>, end: &StepEnd, begin: Timestamp) -> StepStatus {
    let name = step.name.as_str();
    let of_agent = step.kind().is_some_and(|kind| kind.is_of_agent());
    if of_agent && end.reason == EndReason::ExitCode {
        return StepStatus {
            name: name.to_owned(),
            phase: StepPhase::Failed,
            reason: Some(reason::REPORT_LOST.to_owned()),
            message: Some("the box says that this step ended, but the agent did not report it".into()),
            images: known.map(|k| k.images.clone()).unwrap_or_default(),
            ..Default::default()
        };
    }
    let at = |ms: u32| begin.checked_add(SignedDuration::from_millis(i64::from(ms))).map_or(begin, |t| t);
    let (phase, reason) = match (end.reason, end.code) {
        (EndReason::ExitCode, Some(0) | None) => (StepPhase::Succeeded, reason::EXIT_CODE),
        (EndReason::ExitCode, _) => (StepPhase::Failed, reason::EXIT_CODE),
        (EndReason::Signal, _) => (StepPhase::Failed, reason::SIGNAL),
        (EndReason::TimedOut, _) => (StepPhase::Failed, reason::TIMED_OUT),
        (EndReason::NoOutput, _) => (StepPhase::Failed, reason::NO_OUTPUT),
        // It never began.
        (EndReason::Cancelled, None) if end.started_ms == end.finished_ms => (StepPhase::Skipped, reason::CANCELLED),
        (EndReason::Cancelled, _) => (StepPhase::Cancelled, reason::CANCELLED),
        (EndReason::OutOfMemory, _) => (StepPhase::Failed, reason::OUT_OF_MEMORY),
        (EndReason::EarlierStepFailed, _) => (StepPhase::Skipped, reason::EARLIER_STEP_FAILED),
        (EndReason::Agent | EndReason::NotStarted, _) => (StepPhase::Failed, reason::STEP_FAILED),
    };
    let ran = phase != StepPhase::Skipped;
    StepStatus {
        name: name.to_owned(),
        phase,
        reason: Some(reason.to_owned()),
        exit_code: end.code.map(i32::from),
        started_at: ran.then(|| moment(at(end.started_ms))),
        finished_at: ran.then(|| moment(at(end.finished_ms))),
        images: known.map(|k| k.images.clone()).unwrap_or_default(),
        ..Default::default()
    }
}

/// At a bad end: steps that still seem to run are over, those not reached are skipped. Empty if the
/// agent's account is complete.
#[must_use]
pub fn close_steps(
    spec: &PipelineSpec,
    status: &PipelineRunStatus,
    verdict: &Verdict,
    now: Timestamp,
) -> Vec<StepStatus> {
    if verdict.outcome == Outcome::GoesOn
        || (!status.steps.is_empty() && status.steps.iter().all(|s| s.phase.is_final()))
    {
        return Vec::new();
    }
    let is_cancel = verdict.reason == reason::CANCELLED;
    spec.all_steps()
        .map(|(_, step)| {
            let mut known = status.steps.iter().find(|s| s.name == step.name).cloned();
            let step = known.get_or_insert_with(|| StepStatus { name: step.name.clone(), ..Default::default() });
            match step.phase {
                StepPhase::Pending => {
                    step.phase = StepPhase::Skipped;
                    let why = if is_cancel { reason::CANCELLED } else { reason::EARLIER_STEP_FAILED };
                    step.reason = Some(why.to_owned());
                }
                StepPhase::Running | StepPhase::Waiting => {
                    step.phase = if is_cancel { StepPhase::Cancelled } else { StepPhase::Failed };
                    step.reason = Some(verdict.reason.clone());
                    step.finished_at = Some(moment(now));
                }
                StepPhase::Succeeded | StepPhase::Failed | StepPhase::Skipped | StepPhase::Cancelled => {}
            }
            step.clone()
        })
        .collect()
}

fn terminated<'a>(containers: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStateTerminated> {
    containers.iter().find(|c| c.name == name)?.state.as_ref()?.terminated.as_ref()
}

/// Whether a step of the agent is under way.
#[must_use]
pub fn agent_works(spec: &PipelineSpec, status: &PipelineRunStatus) -> bool {
    let runs = |name: &str| status.steps.iter().any(|s| s.name == name && s.phase == StepPhase::Running);
    spec.all_steps().any(|(_, s)| s.kind().is_some_and(|k| k.is_of_agent()) && runs(&s.name))
}

/// Whether the agent of the run's node renewed its lease lately.
#[must_use]
pub fn agent_is_there(seen: &Observed) -> bool {
    seen.agent_seen.is_some_and(|at| elapsed(at, seen.now) < AGENT_SILENT)
}

/// Whether a pod's runner was let begin: a step may run of which nobody has heard yet.
#[must_use]
pub fn box_began(pod: &Pod) -> bool {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    terminated(containers, PREPARE).is_some_and(|end| end.exit_code == 0)
        && containers.iter().any(|container| container.name == BOX && is_running(container))
}

/// Whether a cancel can be left to the box: its runner acts on it, or the agent will tell it. The agent's lease may
/// be as old as the time between two renewals when the cancel comes; so silence counts from the cancel too.
#[must_use]
pub fn box_hears_cancel(seen: &Observed, spec: &PipelineSpec, status: &PipelineRunStatus) -> bool {
    // From then on the runner goes on alone: it stops no after-step.
    let in_after_steps = spec
        .after_steps
        .iter()
        .any(|after| status.steps.iter().any(|step| step.name == after.name && step.started_at.is_some()));
    let cut_short =
        |step: &StepStatus| step.phase == StepPhase::Cancelled || step.reason.as_deref() == Some(reason::CANCELLED);
    if in_after_steps || status.steps.iter().any(cut_short) {
        return true;
    }
    let lately = seen.agent_seen.is_some_and(|at| elapsed(at, seen.now) < CANCEL_SILENT);
    agent_is_there(seen) && (lately || seen.reason_age(reason::CANCELLING) < CANCEL_SILENT)
}

/// Whether the agent's sign of life can matter to a run that goes on; if not, it need not be read.
#[must_use]
pub fn asks_for_agent(run: &PipelineRun, pod: Option<&Pod>) -> bool {
    let frozen = run.status.as_ref().and_then(|s| s.pipeline_spec.as_ref());
    let steps = ["steps", "afterSteps"].into_iter().filter_map(|list| frozen?.get(list)?.as_array()).flatten();
    let containers = pod.and_then(|p| p.status.as_ref()?.container_statuses.as_deref()).unwrap_or_default();
    run.spec.cancel.is_some()
        || terminated(containers, BOX).is_some()
        || steps.into_iter().any(|step| step.get("script").is_none())
}
