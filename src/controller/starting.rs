//! Judges a run whose first step has not begun: what its pod waits for, or why it cannot start. Called by
//! `judge`.
//!
//! **Invariant:** pure. It says what the pod shows: an image is said to be pulled only once the start of
//! its container takes longer than it does with the image at hand.

use super::{
    judge::Judgement,
    plan::Observed,
    pod::SERVICE_PREFIX,
    status::{Verdict, cut, elapsed},
};
use crate::api::{PipelineSpec, condition::reason, duration, pipeline::Service};
use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod, PodCondition},
    jiff::Timestamp,
};
use kube::ResourceExt;
use std::time::Duration;

/// An image that may yet come: how long pulls may fail, from the first failure on.
const PULL_GRACE: Duration = Duration::from_secs(120);
/// Likewise, when the registry said "not found" or "denied".
const PULL_GRACE_SURE: Duration = Duration::from_secs(10);
/// A container that could not be made or started may yet be: the kubelet goes on trying.
const START_GRACE: Duration = Duration::from_secs(60);
/// Words of a start that no further try mends.
const SURE: [&str; 8] = [
    "no such file",
    "not found",
    "permission denied",
    "exec format error",
    "is a directory",
    "not a directory",
    "unable to find ",
    "runasnonroot",
];
/// What engines and registries say of a pull without a login, or with a wrong one.
const NO_LOGIN: [&str; 5] =
    ["no basic auth credentials", "unauthorized", "denied", "authentication required", "authorization failed"];
/// A container whose image is there starts within this time.
const START_WITHOUT_PULL: Duration = Duration::from_secs(2);

/// A container that cannot start: at once for what cannot mend itself, after a grace for what may.
pub(super) fn blocked<'a>(seen: &Observed, containers: impl Iterator<Item = &'a ContainerStatus>) -> Option<Judgement> {
    for container in containers {
        let waiting = container.state.as_ref().and_then(|s| s.waiting.as_ref());
        let Some(waiting) = waiting else { continue };
        let message = waiting.message.as_deref().unwrap_or_default();
        let image = &container.image;
        let judgement = match waiting.reason.as_deref().unwrap_or_default() {
            "InvalidImageName" => Judgement::of(Verdict::failed(
                reason::INVALID_IMAGE_NAME,
                format!("{}: {}", container.name, cut(message, 500)),
            )),
            "ErrImageNeverPull" => Judgement::of(Verdict::failed(
                reason::IMAGE_PULL_FAILED,
                format!("image {image} is not on the node and imagePullPolicy is Never"),
            )),
            "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" => pull_failed(seen, image, message),
            "CreateContainerConfigError" => start_failed(seen, config_error(&container.name, message), message),
            "CreateContainerError" | "RunContainerError" => start_failed(seen, cannot_start(image, message), message),
            _ => continue,
        };
        return Some(judgement);
    }
    None
}

/// The kubelet shows the failure of a pull until a later one succeeds, but not since when: the status does.
fn pull_failed(seen: &Observed, image: &str, message: &str) -> Judgement {
    let sure = ["not found", "denied", "manifest unknown", "unauthorized", "no such image", "does not exist"];
    let lower = message.to_lowercase();
    let grace = if sure.iter().any(|s| lower.contains(s)) { PULL_GRACE_SURE } else { PULL_GRACE };
    let failing = seen.reason_age(reason::IMAGE_PULL_FAILED);
    let login = if NO_LOGIN.iter().any(|s| lower.contains(s)) { login_words(seen) } else { String::new() };
    let message = format!("image {image} cannot be pulled: {}{login}", cut(cause(message), 700));
    if failing >= grace {
        return Judgement::of(Verdict::failed(reason::IMAGE_PULL_FAILED, message));
    }
    Judgement::of(Verdict::goes_on(reason::IMAGE_PULL_FAILED, message)).wake(grace - failing)
}

/// As with pulls, the status tells since when: an engine that is slow, or a Secret that the kubelet has not read yet.
fn start_failed(seen: &Observed, verdict: Verdict, message: &str) -> Judgement {
    let lower = message.to_lowercase();
    if verdict.reason != reason::BOX_FAILED_TO_START || SURE.iter().any(|s| lower.contains(s)) {
        return Judgement::of(verdict);
    }
    let left = START_GRACE.saturating_sub(seen.reason_age(reason::BOX_FAILED_TO_START));
    if left.is_zero() {
        return Judgement::of(verdict);
    }
    Judgement::of(Verdict::goes_on(reason::BOX_FAILED_TO_START, verdict.message)).wake(left)
}

/// What the engine said, without the kubelet's words on when it tries again.
fn cause(message: &str) -> &str {
    let again = message.strip_prefix("Back-off pulling image").and_then(|rest| rest.split_once(": ErrImagePull: "));
    again.map_or(message, |(_, cause)| cause)
}

/// Where the login for a pull comes from. Secrets are the kubelet's to read: whether they are there is not known here.
fn login_words(seen: &Observed) -> String {
    let secrets = seen.frozen().map(|spec| spec.box_.image_pull_secrets).unwrap_or_default();
    if secrets.is_empty() {
        return "; if it is private, name a Secret in box.imagePullSecrets".into();
    }
    let names = secrets.iter().map(|secret| secret.name.as_str()).collect::<Vec<_>>().join(", ");
    let namespace = seen.run.namespace().unwrap_or_default();
    format!(
        "; the login is looked for in Secret {names} (box.imagePullSecrets), which must be in namespace {namespace}"
    )
}

/// The kubelet names the missing object of a service's environment.
fn config_error(container: &str, message: &str) -> Verdict {
    let lower = message.to_lowercase();
    let found = match (lower.contains("couldn't find key"), lower.contains("configmap")) {
        (true, true) => reason::CONFIG_MAP_KEY_NOT_FOUND,
        (true, false) => reason::SECRET_KEY_NOT_FOUND,
        (false, _) if lower.starts_with("configmap") && lower.contains("not found") => reason::CONFIG_MAP_NOT_FOUND,
        (false, _) if lower.contains("secret") && lower.contains("not found") => reason::SECRET_NOT_FOUND,
        (false, _) => reason::BOX_FAILED_TO_START,
    };
    let name = service_of(container).map_or_else(|| format!("container {container}"), |s| format!("service {s}"));
    Verdict::failed(found, format!("{name}: {}", cut(message, 500)))
}

/// The engine could not start the box.
pub(super) fn cannot_start(image: &str, message: &str) -> Verdict {
    if message.contains("/bin/sh") && (message.contains("no such file") || message.contains("not found")) {
        return Verdict::failed(
            reason::NO_SHELL,
            format!(
                "image {image} has no /bin/sh; every box needs one, as its runner is started by it: choose an image with a shell"
            ),
        );
    }
    Verdict::failed(reason::BOX_FAILED_TO_START, format!("image {image} cannot be started: {}", cut(message, 500)))
}

/// Name of the service that a container is.
fn service_of(container: &str) -> Option<&str> {
    container.strip_prefix(SERVICE_PREFIX)
}

/// A pod in which `prepare` or the box was not started yet.
pub(super) fn starting(seen: &Observed, spec: &PipelineSpec, pod: &Pod) -> Judgement {
    let timeout = duration::parse(&spec.timeout).unwrap_or_default();
    let left = timeout.saturating_sub(seen.run_age());
    if let Some(condition) = condition(pod, "PodScheduled").filter(|c| c.status == "False") {
        let words = cut(condition.message.as_deref().unwrap_or("no node fits"), 500);
        if left.is_zero() {
            return Judgement::of(Verdict::failed(reason::UNSCHEDULABLE, words));
        }
        return Judgement::of(Verdict::goes_on(reason::POD_PENDING, words)).wake(left);
    }
    if left.is_zero() {
        return Judgement::of(Verdict::failed(
            reason::RUN_TIMED_OUT,
            format!("the run took longer than {}; the box had not started", spec.timeout),
        ));
    }
    let (verdict, wake) = stage(pod, seen.now);
    Judgement::of(verdict).wake(wake.map_or(left, |w| w.min(left)))
}

/// How far the start of a pod is, and when it may be said to pull.
fn stage(pod: &Pod, now: Timestamp) -> (Verdict, Option<Duration>) {
    let name = pod.name_any();
    let pending = |words: String| Verdict::goes_on(reason::POD_PENDING, words);
    let Some(node) = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) else {
        return (pending(format!("pod {name} is being scheduled")), None);
    };
    let status = pod.status.as_ref();
    let services = status.and_then(|s| s.init_container_statuses.as_deref()).unwrap_or_default();
    let containers = status.and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    if let Some(slow) = services.iter().find(|c| is_running(c) && c.started == Some(false)) {
        let service = service_of(&slow.name).unwrap_or(&slow.name);
        return (Verdict::goes_on(reason::WAITING_FOR_SERVICES, format!("waiting for {service} (command)")), None);
    }
    let sandbox = match condition(pod, "PodReadyToStartContainers") {
        Some(ready) if ready.status == "True" => ready.last_transition_time.as_ref(),
        Some(_) => None,
        None => status.and_then(|s| s.start_time.as_ref()),
    };
    // The kubelet starts them one after the other, as the pod names them; their statuses it sorts by name.
    let turns = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers));
    let mut told = turns.filter_map(|turn| services.iter().chain(containers).find(|c| c.name == turn.name));
    let next = told.find(|c| c.state.as_ref().is_none_or(|s| s.waiting.is_some()));
    let (Some(since), Some(next)) = (sandbox, next) else {
        return (pending(format!("node {node} sets up pod {name}")), None);
    };
    let waited = elapsed(since.0, now);
    if waited >= START_WITHOUT_PULL {
        return (Verdict::goes_on(reason::PULLING_IMAGES, format!("pulling {}", next.image)), None);
    }
    (pending(format!("node {node} sets up pod {name}")), Some(START_WITHOUT_PULL - waited))
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

pub(super) fn is_running(container: &ContainerStatus) -> bool {
    container.state.as_ref().is_some_and(|s| s.running.is_some())
}

/// What `prepare` may still be at while it runs; none: nothing that takes time. Services with a command
/// for a check are ready before it starts.
pub(super) fn preparing(spec: &PipelineSpec) -> Option<Verdict> {
    let waits: Vec<String> = spec.services.iter().filter_map(awaited).collect();
    let source = spec.source.as_ref().and_then(|s| s.git.as_ref()).map(|git| format!("fetching {}", git.url));
    match (source, waits.join(", ")) {
        (None, waits) if waits.is_empty() => None,
        (Some(source), waits) if waits.is_empty() => Some(Verdict::goes_on(reason::FETCHING_SOURCE, source)),
        (source, waits) => {
            let source = source.map_or_else(String::new, |source| format!("{source} and "));
            Some(Verdict::goes_on(reason::WAITING_FOR_SERVICES, format!("{source}waiting for {waits}")))
        }
    }
}

/// `db (tcp 5432)`, if `prepare` waits for it.
fn awaited(service: &Service) -> Option<String> {
    let readiness = service.readiness.as_ref()?;
    let http = readiness.http.as_ref().map(|http| format!("http {}{}", http.port, http.path));
    let check = readiness.tcp.map(|port| format!("tcp {port}")).or(http)?;
    Some(format!("{} ({check})", service.name))
}
