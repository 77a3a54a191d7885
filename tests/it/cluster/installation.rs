//! The controller and the agent of the test cluster: how tests end them, and know that they are back.

use super::world::tool;
use serde_json::Value;
use std::{
    thread,
    time::{Duration, Instant},
};

/// Namespace of the installation.
pub(super) const NAMESPACE: &str = "windlass-system";
/// Deployment and component label of the controller.
pub(super) const CONTROLLER: &str = "controller";
/// Component label of the agent.
pub(super) const AGENT: &str = "agent";

/// How long parts may take to come back: a killed leader's lease lasts 15 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// `kubectl` in the installation's namespace.
pub(super) fn kubectl(arguments: &[&str]) -> Result<String, String> {
    tool("kubectl", &[&["-n", NAMESPACE], arguments].concat(), "")
}

/// Calls until it gives something.
pub(super) fn until<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T, String> {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if began.elapsed() > patience {
            return Err(format!("{what}: not after {patience:?}"));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Names of the ready pods of a part.
pub(super) fn ready(part: &str) -> Vec<String> {
    let label = format!("-lapp.kubernetes.io/component={part}");
    let Ok(list) = kubectl(&["get", "pods", &label, "-o", "json"]) else { return Vec::new() };
    let list: Value = serde_json::from_str(&list).unwrap();
    let is_ready = |pod: &&Value| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        pod["metadata"]["deletionTimestamp"].is_null()
            && conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let pods = list["items"].as_array().unwrap().iter().filter(is_ready);
    pods.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Who holds a lease.
fn holder(lease: &str) -> Option<String> {
    kubectl(&["get", "lease", lease, "-o", "jsonpath={.spec.holderIdentity}"]).ok()
}

/// The controller that leads.
pub(super) fn leader() -> Option<String> {
    holder("windlass-controller")
}

/// Waits until a controller leads and the agent gave a sign of life, both from pods that are ready.
pub(super) fn settle() -> Result<(), String> {
    let agent = format!("windlass-agent-{}", std::env::var("WINDLASS_NODE").unwrap());
    until("controller and agent work", PATIENCE, || {
        (ready(CONTROLLER).contains(&leader()?) && ready(AGENT).contains(&holder(&agent)?)).then_some(())
    })
}

/// Ends a part as a power cut would, by SIGKILL of its containers, and its pods: the next ones start without the
/// kubelet's pause after a crash, and under other names.
pub(super) fn kill(part: &str) {
    ready(part).iter().for_each(|pod| kill_pod(pod, part));
}

/// The same for one pod.
pub(super) fn kill_pod(pod: &str, part: &str) {
    kill_container(pod, part);
    kubectl(&["delete", "pod", pod, "--grace-period=0", "--force", "--wait=false"]).unwrap();
}

/// Ends a part by SIGKILL; the kubelet starts it again in the same pod. More than once in the life of a pod, it makes
/// a pause first.
pub(super) fn crash(part: &str) {
    ready(part).iter().for_each(|pod| kill_container(pod, part));
}

fn kill_container(pod: &str, part: &str) {
    let labels = [
        format!("label=io.kubernetes.pod.namespace={NAMESPACE}"),
        format!("label=io.kubernetes.pod.name={pod}"),
        format!("label=io.kubernetes.container.name={part}"),
    ];
    let filters: Vec<&str> = labels.iter().flat_map(|label| ["--filter", label]).collect();
    let ids = tool("docker", &[&["ps", "-q"], &filters[..]].concat(), "").unwrap();
    assert!(!ids.is_empty(), "pod {pod} has no container {part}");
    for id in ids.lines() {
        tool("docker", &["kill", id], "").unwrap();
    }
}
