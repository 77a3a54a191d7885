//! The controller's decisions: what was observed in, what to do out.
//!
//! ```text
//! deleted? -> ended? -> not frozen: resolve -> no pod: create -> pod: judge
//! ```
//!
//! **Invariant:** `plan` is total: no `Result`, no clock, no I/O, no client. Planning again on the world
//! after `apply` gives nothing. An ended run never goes on; cancel beats everything but the end.

use super::{
    judge::{self, Judgement},
    lost,
    pod::{self, PodSettings},
    resolve::{self, Refusal},
    status::{self, ControllerStatus, Outcome, PodFacts, Verdict, elapsed},
};
use crate::api::{
    Pipeline, PipelineRun, PipelineSpec, condition::reason, duration, meta, run::Cancel, run::Param, run::pod_name,
    status::PipelineRunStatus,
};
use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod},
    jiff::Timestamp,
};
use kube::ResourceExt;
use std::time::Duration;

/// Objects of one apply arrive in any order: how long a Pipeline may be missing.
const PIPELINE_GRACE: Duration = Duration::from_secs(30);
/// A pod that was refused is asked for again after this time, then after twice as long, and so on.
const REFUSED_BACKOFF: Duration = Duration::from_secs(10);
/// A message that changes alone is written at most this often.
const MESSAGE_INTERVAL: Duration = Duration::from_secs(2);
/// Grace of a deleted pod: the runner ends the step by TERM, then KILL after 10 s.
const DELETE_GRACE_S: u32 = 15;

/// How long a node may take to end a pod whose time is over; then the pod is deleted.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// A pod's time that is over as soon as it is set.
const NO_TIME_S: i64 = 1;

/// Why the API server made no pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPod {
    /// A quota, Pod Security or a policy forbids it, in these words.
    Forbidden(String),
    /// The server failed, or a webhook that it asks, in these words. Another try may succeed.
    Failed(String),
}

/// The world as the controller saw it.
#[derive(Clone, Debug)]
pub struct Observed {
    /// When.
    pub now: Timestamp,
    /// The run, read afresh.
    pub run: PipelineRun,
    /// What this version cannot read of the run; the run then holds what it can.
    pub unreadable: Option<String>,
    /// The Pipeline it refers to; not read once the run is frozen.
    pub pipeline: Option<Pipeline>,
    /// The pod of the current attempt, by name, whoever made it.
    pub pod: Option<Pod>,
    /// Why the API server made no pod a moment ago.
    pub refused: Option<NoPod>,
    /// When the agent of the run's node was seen to renew its lease.
    pub agent_seen: Option<Timestamp>,
    /// When this controller wrote the run's status last.
    pub written: Option<Timestamp>,
    /// Settings of the installation.
    pub settings: PodSettings,
}

impl Observed {
    /// What the API server says, if it failed to make the pod a moment ago and indeed there is none.
    #[must_use]
    pub fn no_pod(&self) -> Option<String> {
        match &self.refused {
            Some(NoPod::Failed(words)) if self.pod.is_none() => Some(words.clone()),
            _ => None,
        }
    }

    /// The frozen pipeline.
    ///
    /// # Errors
    /// What is wrong with it, when another version wrote it.
    pub fn frozen(&self) -> Result<PipelineSpec, String> {
        let frozen = self.run.status.as_ref().and_then(|s| s.pipeline_spec.clone()).unwrap_or_default();
        serde_json::from_value(frozen).map_err(|e| e.to_string())
    }

    /// Time since the run's first pod.
    #[must_use]
    pub fn run_age(&self) -> Duration {
        let start = self.run.status.as_ref().and_then(|s| s.start_time.as_ref());
        start.map_or(Duration::ZERO, |t| elapsed(t.0, self.now))
    }

    /// How long the run has been shown with a reason; zero if it is not.
    #[must_use]
    pub fn reason_age(&self, reason: &str) -> Duration {
        let status = self.run.status.as_ref();
        let shown = status.filter(|s| s.conditions.first().is_some_and(|c| c.reason == reason));
        shown.and_then(|s| s.reason_time.as_ref()).map_or(Duration::ZERO, |t| elapsed(t.0, self.now))
    }

    /// Time since the pod was made.
    #[must_use]
    pub fn pod_age(&self) -> Duration {
        let made = self.pod.as_ref().and_then(|p| p.metadata.creation_timestamp.as_ref());
        made.map_or(Duration::ZERO, |t| elapsed(t.0, self.now))
    }

    fn attempt(&self) -> u32 {
        self.run.status.as_ref().and_then(|s| s.attempt).unwrap_or(1)
    }

    /// The pod, if it belongs to this run: owner and UID count, not the name.
    fn own_pod(&self) -> Option<&Pod> {
        let uid = self.run.uid();
        self.pod
            .as_ref()
            .filter(|p| p.owner_references().iter().any(|o| o.controller == Some(true) && Some(&o.uid) == uid.as_ref()))
    }
}

/// One change to the world, besides the status.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Put our finalizer on the run.
    AddFinalizer,
    /// Take it off.
    RemoveFinalizer,
    /// Take the next build number and freeze the pipeline in the status.
    Freeze {
        /// Pipeline to count for; inline runs count together.
        counter: Option<String>,
        /// The pipeline.
        spec: Box<PipelineSpec>,
        /// Parameters as used.
        params: Vec<Param>,
    },
    /// Make the pod; that it is there already is as good.
    CreatePod(Box<Pod>),
    /// Delete the pod with this UID; that it is gone already is as good.
    DeletePod {
        /// Name.
        name: String,
        /// UID, so that no other pod of the name is hit.
        uid: String,
        /// Seconds for the runner to end.
        grace_s: u32,
    },
    /// Let the time of the pod with this UID be over: its node ends it, and keeps what it printed. That it is gone
    /// already is as good.
    StopPod {
        /// Name.
        name: String,
        /// UID, so that no other pod of the name is hit.
        uid: String,
        /// The time that it may take from its start, in seconds.
        time_s: i64,
    },
    /// Take away what the agent wrote of an earlier attempt.
    ClearAgentStatus,
    /// Delete the run.
    DeleteRun,
}

/// An event on the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emit {
    /// Whether a person may have to act.
    pub warning: bool,
    /// One of `condition::reason`.
    pub reason: String,
    /// For people.
    pub note: String,
}

/// What to do: first the changes, then the status, then the events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In this order.
    pub changes: Vec<Change>,
    /// The controller's part of the status, if it differs.
    pub status: Option<ControllerStatus>,
    /// On transitions only.
    pub events: Vec<Emit>,
    /// When to plan again without news.
    pub wake: Option<Duration>,
}

impl Plan {
    /// Whether the world is as it should be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.status.is_none() && self.events.is_empty()
    }

    fn change(change: Change) -> Self {
        Self { changes: vec![change], ..Self::default() }
    }

    fn wake(after: Option<Duration>) -> Self {
        Self { wake: after, ..Self::default() }
    }
}

/// Decides.
#[must_use]
pub fn plan(seen: &Observed) -> Plan {
    if seen.run.metadata.deletion_timestamp.is_some() {
        return deleted(seen);
    }
    let recorded = seen.run.status.clone().unwrap_or_default();
    if recorded.completion_time.is_some() {
        return ended(seen);
    }
    if let Some(why) = &seen.unreadable {
        let message = format!("this version of Windlass cannot read the run: {why}");
        return verdict(seen, &Verdict::failed(reason::INVALID_SPEC, message));
    }
    if !has_finalizer(&seen.run) {
        return Plan::change(Change::AddFinalizer);
    }
    if recorded.pipeline_spec.is_none() {
        return unresolved(seen);
    }
    let spec = match seen.frozen() {
        Ok(spec) => spec,
        Err(why) => {
            return verdict(seen, &Verdict::failed(reason::INVALID_SPEC, format!("status.pipelineSpec: {why}")));
        }
    };
    match (&seen.pod, seen.own_pod()) {
        (_, Some(pod)) => with_pod(seen, &spec, pod),
        (Some(_), None) => foreign_pod(seen),
        (None, None) if recorded.pod_uid.is_some() => {
            judged(seen, &spec, judge::without_pod(seen, &spec), &PodFacts::recorded(&recorded))
        }
        (None, None) => without_pod(seen, &spec),
    }
}

fn has_finalizer(run: &PipelineRun) -> bool {
    run.finalizers().iter().any(|f| f == meta::FINALIZER)
}

/// Deleting a run cancels it at once: its pod goes, then the finalizer.
fn deleted(seen: &Observed) -> Plan {
    if !has_finalizer(&seen.run) {
        return Plan::default();
    }
    match seen.own_pod() {
        None => Plan::change(Change::RemoveFinalizer),
        // Somebody else's finalizer holds it.
        Some(pod) if is_forced(pod) && lost::node_is_lost(pod, seen.now) => Plan::change(Change::RemoveFinalizer),
        Some(pod) => without(seen, pod),
    }
}

/// The pod is to go: deleted now, or awaited until its node counts as lost.
fn without(seen: &Observed, pod: &Pod) -> Plan {
    // One that is held by a finalizer of others tells by its own event when it goes.
    let wake = lost::node_is_lost_in(pod, seen.now).filter(|_| !is_forced(pod));
    delete_pod(seen, pod).map_or_else(|| Plan::wake(wake), Plan::change)
}

/// Whether the pod was deleted without waiting for its node.
fn is_forced(pod: &Pod) -> bool {
    pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// A change that deletes the pod, unless that is under way. Once its node is gone nobody tells that it
/// ended: then it goes without, as it would keep its name, and a run that is deleted in the foreground.
fn delete_pod(seen: &Observed, pod: &Pod) -> Option<Change> {
    let change = |grace_s| Some(Change::DeletePod { name: pod.name_any(), uid: pod.uid()?, grace_s });
    if pod.metadata.deletion_timestamp.is_none() {
        return change(DELETE_GRACE_S);
    }
    if lost::node_is_lost(pod, seen.now) && !is_forced(pod) { change(0) } else { None }
}

/// An ended run never goes on: its pod is kept for its time, then the run for its own.
fn ended(seen: &Observed) -> Plan {
    let status = seen.run.status.clone().unwrap_or_default();
    let age = status.completion_time.as_ref().map_or(Duration::ZERO, |t| elapsed(t.0, seen.now));
    let ttl = |text: &Option<String>| text.as_deref().and_then(|t| duration::parse(t).ok());
    let run_ttl = ttl(&seen.run.spec.ttl_after_finished);
    let pod_ttl = ttl(&Some(seen.run.spec.pod_ttl_after_finished.clone())).unwrap_or(Duration::from_secs(3600));
    if run_ttl.is_some_and(|ttl| age >= ttl) {
        return Plan::change(Change::DeleteRun);
    }
    let run_wake = run_ttl.map(|ttl| ttl - age);
    let Some(pod) = seen.own_pod() else {
        if has_finalizer(&seen.run) {
            return Plan { wake: run_wake, ..Plan::change(Change::RemoveFinalizer) };
        }
        return Plan::wake(run_wake);
    };
    // Without the runner's report the run ended by our judgement: what still runs is stopped.
    if age >= pod_ttl {
        return without(seen, pod);
    }
    if status.report.is_none() && !box_ended(pod) {
        return stopped(&status, pod, age).unwrap_or_else(|| without(seen, pod));
    }
    let pod_wake = pod_ttl - age;
    Plan::wake(Some(run_wake.map_or(pod_wake, |w| w.min(pod_wake))))
}

/// Ends a pod, `age` after its run, and keeps it where the output of a service says what was wrong; if that can be.
fn stopped(status: &PipelineRunStatus, pod: &Pod, age: Duration) -> Option<Plan> {
    let why = status.conditions.first().map(|c| c.reason.as_str());
    let of_services = [Some(reason::SERVICE_FAILED), Some(reason::SERVICE_NOT_READY)].contains(&why);
    let left = STOP_PATIENCE.saturating_sub(age);
    if !of_services || left.is_zero() || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let asked = pod.spec.as_ref().and_then(|s| s.active_deadline_seconds) == Some(NO_TIME_S);
    let stop = Change::StopPod { name: pod.name_any(), uid: pod.uid()?, time_s: NO_TIME_S };
    let changes = if asked { Vec::new() } else { vec![stop] };
    Some(Plan { changes, wake: Some(left), ..Plan::default() })
}

/// The pod's phase says so later than the box's own state.
fn box_ended(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let containers = status.and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    let terminated =
        |c: &ContainerStatus| c.name == pod::BOX && c.state.as_ref().is_some_and(|s| s.terminated.is_some());
    containers.iter().any(terminated) || matches!(status.and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

fn unresolved(seen: &Observed) -> Plan {
    if seen.run.spec.cancel.is_some() {
        return verdict(
            seen,
            &Verdict::failed(reason::CANCELLED, judge::cancelled(seen, &seen.run.status.clone().unwrap_or_default())),
        );
    }
    let spec = &seen.run.spec;
    let pipeline = match (&spec.pipeline_spec, &spec.pipeline_ref, &seen.pipeline) {
        (Some(inline), _, _) => inline,
        (None, Some(_), Some(found)) => &found.spec,
        (None, Some(wanted), None) => return pipeline_missing(seen, &wanted.name),
        (None, None, _) => {
            return verdict(
                seen,
                &Verdict::failed(reason::INVALID_SPEC, "set exactly one of pipelineRef and pipelineSpec"),
            );
        }
    };
    let resolved = resolve::resolve(spec, pipeline).and_then(|resolved| {
        resolve::check_store(&resolved.spec, seen.settings.has_store)?;
        Ok(resolved)
    });
    match resolved {
        Ok(resolved) => Plan::change(Change::Freeze {
            counter: spec.pipeline_ref.as_ref().map(|r| r.name.clone()),
            spec: Box::new(resolved.spec),
            params: resolved.params,
        }),
        Err(Refusal { reason, message }) => verdict(seen, &Verdict::failed(reason, message)),
    }
}

fn pipeline_missing(seen: &Observed, name: &str) -> Plan {
    let namespace = seen.run.namespace().unwrap_or_default();
    let age = seen.run.metadata.creation_timestamp.as_ref().map_or(Duration::ZERO, |t| elapsed(t.0, seen.now));
    if age >= PIPELINE_GRACE {
        let message =
            format!("Pipeline {name} does not exist in namespace {namespace}; create it or mend pipelineRef.name");
        return verdict(seen, &Verdict::failed(reason::PIPELINE_NOT_FOUND, message));
    }
    let wake = Some(PIPELINE_GRACE - age);
    let message = format!(
        "waiting up to {}s for Pipeline {name} in namespace {namespace}; create it or mend pipelineRef.name",
        PIPELINE_GRACE.as_secs()
    );
    Plan { wake, ..verdict(seen, &Verdict::goes_on(reason::PIPELINE_NOT_FOUND, message)) }
}

/// A verdict on a run of which no pod is known.
fn verdict(seen: &Observed, verdict: &Verdict) -> Plan {
    let facts = PodFacts::recorded(&seen.run.status.clone().unwrap_or_default());
    written(seen, &facts, verdict, Vec::new(), None)
}

fn without_pod(seen: &Observed, spec: &PipelineSpec) -> Plan {
    if seen.run.spec.cancel.is_some() {
        let status = seen.run.status.clone().unwrap_or_default();
        return verdict(seen, &Verdict::failed(reason::CANCELLED, judge::cancelled(seen, &status)));
    }
    if let Some(refused) = &seen.refused {
        let facts = PodFacts::recorded(&seen.run.status.clone().unwrap_or_default());
        return judged(seen, spec, Judgement::of(not_made(seen, spec, refused)), &facts);
    }
    if seen.run.status.as_ref().is_some_and(|s| !s.steps.is_empty() || s.report.is_some()) {
        return Plan::change(Change::ClearAgentStatus);
    }
    if let Some(left) = backoff(seen) {
        return Plan::wake(Some(left));
    }
    let start = seen.run.status.as_ref().and_then(|s| s.start_time.as_ref()).map_or(seen.now, |t| t.0);
    let start_ms = u64::try_from(start.as_millisecond()).unwrap_or_default();
    Plan::change(Change::CreatePod(Box::new(pod::pod(&seen.run, spec, seen.attempt(), &seen.settings, start_ms))))
}

/// A server that fails may mend; the run waits for it as long as it may take itself.
fn not_made(seen: &Observed, spec: &PipelineSpec, refused: &NoPod) -> Verdict {
    let timeout = duration::parse(&spec.timeout).unwrap_or_default();
    match refused {
        NoPod::Forbidden(words) => Verdict::failed(reason::POD_FORBIDDEN, words.clone()),
        NoPod::Failed(words) if seen.reason_age(reason::POD_PENDING) < timeout => {
            Verdict::goes_on(reason::POD_PENDING, format!("the API server makes no pod: {words}"))
        }
        NoPod::Failed(words) => {
            let words = format!("the API server made no pod for {}: {words}", spec.timeout);
            Verdict::failed(reason::POD_FORBIDDEN, words)
        }
    }
}

/// What is left of the wait before a refused pod is asked for again.
fn backoff(seen: &Observed) -> Option<Duration> {
    let recorded = seen.run.status.as_ref()?;
    recorded.conditions.first().filter(|c| c.reason == reason::POD_FORBIDDEN)?;
    let left = refused_backoff(seen.attempt()).saturating_sub(seen.reason_age(reason::POD_FORBIDDEN));
    (!left.is_zero()).then_some(left)
}

/// How long an attempt after a refused one waits.
fn refused_backoff(attempt: u32) -> Duration {
    REFUSED_BACKOFF * 2_u32.saturating_pow(attempt.saturating_sub(2))
}

fn foreign_pod(seen: &Observed) -> Plan {
    let name = pod_name(&seen.run.name_any(), seen.attempt());
    let message = format!("pod {name} exists and is not ours; delete it or use another run name");
    verdict(seen, &Verdict::failed(reason::POD_NAME_CONFLICT, message))
}

fn with_pod(seen: &Observed, spec: &PipelineSpec, pod: &Pod) -> Plan {
    let status = seen.run.status.clone().unwrap_or_default();
    let facts = PodFacts {
        attempt: Some(seen.attempt()),
        name: Some(pod.name_any()),
        uid: pod.uid(),
        node: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
    };
    if status.pod_uid.is_some() && status.pod_uid != facts.uid {
        let gone = judge::without_pod(seen, spec);
        return judged(seen, spec, gone, &PodFacts::recorded(&status));
    }
    let judgement = judge::judge(seen, spec, pod);
    // By an immediate cancel its pod goes, and the box with it: that is no failure of either.
    let going = seen.run.spec.cancel == Some(Cancel::Immediate) && pod.metadata.deletion_timestamp.is_some();
    if seen.run.spec.cancel.is_some()
        && (judgement.verdict.outcome == Outcome::GoesOn || going && judge::reported(&status).is_none())
    {
        return cancelling(seen, spec, pod, &facts);
    }
    let mut plan = judged(seen, spec, judgement, &facts);
    if status.pod_uid.is_none() && !plan.events.iter().any(|e| e.warning) {
        plan.events.insert(
            0,
            Emit { warning: false, reason: reason::CREATED.into(), note: format!("made pod {}", pod.name_any()) },
        );
    }
    plan
}

/// Graceful: the agent tells the runner, which ends the step and runs the after-steps. With a box that has not
/// begun, or an agent that stays silent, there is nobody to tell: then as `Immediate`.
///
/// Immediate: the pod goes. The run is over at once, unless the agent is at a push: only the agent knows which tags
/// have moved. It says so before the pod is gone.
fn cancelling(seen: &Observed, spec: &PipelineSpec, pod: &Pod, facts: &PodFacts) -> Plan {
    let status = seen.run.status.clone().unwrap_or_default();
    let begun = status.steps.iter().any(|s| s.started_at.is_some()) || judge::box_began(pod);
    let graceful =
        seen.run.spec.cancel == Some(Cancel::Graceful) && begun && judge::box_hears_cancel(seen, spec, &status);
    let overdue = pod.metadata.deletion_timestamp.as_ref().is_some_and(|due| due.0 <= seen.now);
    let pushing = seen.run.spec.cancel == Some(Cancel::Immediate)
        && judge::agent_is_there(seen)
        && judge::agent_works(spec, &status)
        && !overdue;
    let verdict = if graceful || pushing {
        let running = status.steps.iter().rev().find(|s| s.started_at.is_some());
        let words = running.map_or_else(|| "stopping".to_owned(), |step| format!("stopping step {}", step.name));
        Verdict::goes_on(reason::CANCELLING, words)
    } else {
        Verdict::failed(reason::CANCELLED, judge::cancelled(seen, &status))
    };
    let steps = judge::close_steps(spec, &status, &verdict, seen.now);
    let wake = (graceful || pushing).then_some(Duration::from_secs(5));
    let mut plan = written(seen, facts, &verdict, steps, wake);
    plan.changes.extend(delete_pod(seen, pod).filter(|_| pushing));
    plan
}

/// Carries a judgement out: a new attempt if the infrastructure failed and one is left, else the status.
fn judged(seen: &Observed, spec: &PipelineSpec, judgement: Judgement, facts: &PodFacts) -> Plan {
    let Judgement { verdict, steps, wake } = judgement;
    if verdict.outcome == Outcome::Failed && may_retry(seen, spec, &verdict) {
        return retry(seen, spec, &verdict);
    }
    written(seen, facts, &verdict, steps, wake)
}

fn may_retry(seen: &Observed, spec: &PipelineSpec, verdict: &Verdict) -> bool {
    let infrastructure =
        [reason::POD_LOST, reason::NODE_LOST, reason::EVICTED, reason::IMAGE_PULL_FAILED, reason::POD_FORBIDDEN]
            .contains(&verdict.reason.as_str());
    let pushed = seen.run.status.as_ref().is_some_and(|s| s.steps.iter().any(|s| !s.images.is_empty()));
    infrastructure && !pushed && seen.run.spec.cancel.is_none() && seen.attempt() <= spec.retries
}

/// The status comes first: without a node in it, the old agent may write no more. What it wrote is then
/// taken away before the new pod is made.
fn retry(seen: &Observed, spec: &PipelineSpec, failure: &Verdict) -> Plan {
    let attempt = seen.attempt() + 1;
    let facts =
        PodFacts { attempt: Some(attempt), name: Some(pod_name(&seen.run.name_any(), attempt)), uid: None, node: None };
    // A quota frees itself in time; what is lost can be made again at once.
    let wait = (failure.reason == reason::POD_FORBIDDEN).then(|| refused_backoff(attempt));
    let shown = if wait.is_some() { reason::POD_FORBIDDEN } else { reason::RETRYING };
    let when = wait.map_or_else(String::new, |wait| format!(", in {}s", wait.as_secs()));
    let message =
        format!("attempt {attempt} of {} after {}{when}: {}", spec.retries + 1, failure.reason, failure.message);
    let mut plan = written(seen, &facts, &Verdict::goes_on(shown, message.clone()), Vec::new(), wait);
    plan.events = vec![Emit { warning: true, reason: reason::RETRYING.into(), note: message }];
    plan.changes.extend(seen.own_pod().and_then(|pod| delete_pod(seen, pod)));
    plan
}

/// The status, if it differs; and an event, on a transition.
fn written(
    seen: &Observed,
    facts: &PodFacts,
    verdict: &Verdict,
    steps: Vec<crate::api::status::StepStatus>,
    wake: Option<Duration>,
) -> Plan {
    let status = status::write(&seen.run, facts, verdict, steps, seen.now);
    if status::is_current(&seen.run, &status) {
        return Plan::wake(wake);
    }
    let old = seen.run.status.clone().unwrap_or_default();
    let old_reason = old.conditions.first().map(|c| c.reason.as_str());
    // A run may end for the reason that it waited for.
    let ends = verdict.outcome != Outcome::GoesOn && old.completion_time.is_none();
    let transition = ends || old_reason != Some(verdict.reason.as_str());
    let news = transition || PodFacts::recorded(&old) != *facts;
    if let Some(wait) =
        seen.written.map(|at| MESSAGE_INTERVAL.saturating_sub(elapsed(at, seen.now))).filter(|w| !news && !w.is_zero())
    {
        return Plan::wake(Some(wake.map_or(wait, |w| w.min(wait))));
    }
    let emitted = match (verdict.outcome, verdict.reason.as_str()) {
        (Outcome::Succeeded, reason) => Some((false, reason)),
        (Outcome::Failed, reason) => Some((true, reason)),
        (Outcome::GoesOn, reason::WAITING_FOR_AGENT) => Some((true, reason::WAITING_FOR_AGENT)),
        (Outcome::GoesOn, reason::CANCELLING) => Some((false, reason::CANCEL_REQUESTED)),
        (Outcome::GoesOn, _) => None,
    };
    let event = emitted.filter(|_| transition).map(|(warning, reason)| Emit {
        warning,
        reason: reason.into(),
        note: verdict.message.clone(),
    });
    Plan { changes: Vec::new(), status: Some(status), events: event.into_iter().collect(), wake }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
