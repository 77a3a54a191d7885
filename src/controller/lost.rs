//! Judges what befell a pod from outside: it was evicted, deleted or refused by its kubelet, it ran out of time,
//! or its node is gone. Called by `judge` and `plan`.
//!
//! **Invariant:** pure. What is said here is never the fault of source, image or step.

use super::{
    judge::at_step,
    status::{Verdict, cut, elapsed},
};
use crate::api::{condition::reason, status::PipelineRunStatus};
use k8s_openapi::{
    api::core::v1::{ContainerStateTerminated, Pod},
    jiff::Timestamp,
};
use kube::ResourceExt;
use std::time::Duration;

/// A node that does not end a pod for this long is gone.
pub(super) const NODE_SILENT: Duration = Duration::from_secs(300);

/// What the pod itself says: evicted, out of time, its node shut down.
pub(super) fn told(status: &PipelineRunStatus, pod: &Pod) -> Option<Verdict> {
    let pod_status = pod.status.as_ref()?;
    let message = pod_status.message.clone().unwrap_or_default();
    match pod_status.reason.as_deref()? {
        "Evicted" | "Preempting" => {
            Some(Verdict::failed(reason::EVICTED, format!("the pod was evicted: {}", cut(&message, 500))))
        }
        "NodeLost" | "NodeShutdown" | "Terminated" => Some(Verdict::failed(
            reason::NODE_LOST,
            format!("the node was lost{}: {}", at_step(status), cut(&message, 300)),
        )),
        "DeadlineExceeded" => Some(Verdict::failed(
            reason::RUN_TIMED_OUT,
            format!("the run took longer than its timeout{}", at_step(status)),
        )),
        _ => None,
    }
}

/// A pod that somebody deletes: a person, a drain, an eviction by the API.
pub(super) fn deleted(status: &PipelineRunStatus, pod: &Pod) -> Option<Verdict> {
    pod.metadata.deletion_timestamp.as_ref()?;
    Some(Verdict::failed(reason::POD_LOST, format!("the pod was deleted{}", at_step(status))))
}

/// A container whose end its kubelet did not see, as after a restart of the node.
pub(super) fn forgotten(status: &PipelineRunStatus, end: &ContainerStateTerminated) -> Option<Verdict> {
    (end.reason.as_deref()? == "ContainerStatusUnknown").then(|| {
        let words = cut(end.message.as_deref().unwrap_or_default(), 300);
        Verdict::failed(reason::NODE_LOST, format!("the node lost a container of the pod{}: {words}", at_step(status)))
    })
}

/// A pod in phase `Failed` whose containers do not say why: its kubelet refused it (`OutOfcpu`, `NodeAffinity` and
/// more, which Kubernetes does not list), or the control plane gave it up.
pub(super) fn failed(status: &PipelineRunStatus, pod: &Pod) -> Verdict {
    told(status, pod).or_else(|| deleted(status, pod)).unwrap_or_else(|| {
        let pod_status = pod.status.as_ref();
        let conditions = pod_status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        let disrupted = conditions.iter().find(|c| c.type_ == "DisruptionTarget" && c.status == "True");
        let why = pod_status.and_then(|s| s.reason.as_deref()).or_else(|| disrupted?.reason.as_deref());
        let words = pod_status.and_then(|s| s.message.as_deref()).or_else(|| disrupted?.message.as_deref());
        let why = why.map_or_else(String::new, |why| format!(" with {}", cut(why, 100)));
        let words = cut(words.unwrap_or("no reason was given"), 500);
        Verdict::failed(reason::POD_LOST, format!("pod {} failed{why}{}: {words}", pod.name_any(), at_step(status)))
    })
}

/// Whether a pod should have been gone for 5 minutes: only a node that is gone too takes so long.
#[must_use]
pub(super) fn node_is_lost(pod: &Pod, now: Timestamp) -> bool {
    node_is_lost_in(pod, now).is_some_and(|left| left.is_zero())
}

/// In what time the node of a pod that is being deleted will count as lost.
#[must_use]
pub(super) fn node_is_lost_in(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let due = pod.metadata.deletion_timestamp.as_ref()?.0;
    Some((NODE_SILENT + elapsed(now, due)).saturating_sub(elapsed(due, now)))
}
