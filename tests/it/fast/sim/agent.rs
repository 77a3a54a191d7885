//! The simulated agent of the node: shows the journal in the status, answers internal steps, passes a
//! graceful cancel on, reports the end, and renews its lease.
//!
//! **Invariant:** as the real one, it writes with its own field manager, only of the pod that the status
//! names, and nothing after the run's end.

use super::{
    clock,
    node::{Entry, Files, NODE, Node},
    store::Key,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
    jiff::SignedDuration,
};
use serde_json::{Value, json};
use std::time::Duration;
use windlass::{api::manager, wire::EndReason};

/// Namespace of the installation.
pub(super) const SYSTEM: &str = "windlass-system";

/// How far the node's clock is behind the controller's.
const BEHIND: SignedDuration = SignedDuration::from_mins(2);

/// Renews the agent's lease.
pub(super) async fn renew(node: Node) {
    let key = Key::new("leases", SYSTEM, &format!("windlass-agent-{NODE}"));
    let lease = || json!({"metadata": {"name": key.name}, "spec": {"renewTime": MicroTime(clock::now() - BEHIND)}});
    node.store.with(|store| store.create(&key, lease())).unwrap();
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        node.store.with(|store| store.edit(&key, |found| found["spec"] = lease()["spec"].take())).unwrap();
    }
}

/// Follows the runs of the node.
pub(super) async fn follow(node: Node) {
    let mut changes = node.store.changes();
    loop {
        for run in node.store.with(|store| store.list("pipelineruns")) {
            if run["status"]["nodeName"] == NODE && run["status"]["completionTime"].is_null() {
                one(&node, &run).await;
            }
        }
        _ = changes.changed().await;
        // Changes close together are one write.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn one(node: &Node, run: &Value) {
    let uid = run["status"]["podUID"].as_str().unwrap_or_default();
    let asked = {
        let mut boxes = node.boxes.lock().unwrap();
        let Some(files) = boxes.get_mut(uid) else { return };
        if run["spec"]["cancel"] == "Graceful" && !files.cancel {
            files.cancel = true;
            node.store.touch();
        }
        files.asked.filter(|index| !files.pushed.contains(index))
    };
    write(node, run, uid);
    let Some(index) = asked else { return };
    // Commit and push, then the status, then the answer. A cancel stops it after the first tag.
    let stopped = push(node, run).await;
    if let Some(files) = node.boxes.lock().unwrap().get_mut(uid) {
        files.pushed.insert(index);
    }
    write(node, run, uid);
    if let Some(files) = node.boxes.lock().unwrap().get_mut(uid).filter(|_| !stopped) {
        files.answers.insert(index);
    }
    node.store.touch();
}

/// Whether a cancel stopped it.
async fn push(node: &Node, run: &Value) -> bool {
    for _ in 0..7 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if node.store.get(&key(run)).is_some_and(|now| now["spec"]["cancel"] == "Immediate") {
            tokio::time::sleep(Duration::from_millis(100)).await;
            return true;
        }
    }
    false
}

fn key(run: &Value) -> Key {
    let name = |field: &str| run["metadata"][field].as_str().unwrap();
    Key::new("pipelineruns", name("namespace"), name("name"))
}

fn write(node: &Node, run: &Value, uid: &str) {
    let key = key(run);
    let mut boxes = node.boxes.lock().unwrap();
    let Some(files) = boxes.get_mut(uid) else { return };
    let status = status(files, run["status"]["attempt"].as_u64().unwrap());
    if files.shown.as_ref() == Some(&status) {
        return;
    }
    // It may be deleted, ended or retried since it was read.
    let current = node.store.get(&key).is_some_and(|now| {
        now["metadata"]["uid"] == run["metadata"]["uid"]
            && now["status"]["podUID"] == uid
            && now["status"]["completionTime"].is_null()
    });
    if current {
        files.shown = Some(status.clone());
        node.store.with(|store| store.apply_status(&key, manager::AGENT, &json!({"status": status}))).unwrap();
    }
}

fn status(files: &Files, attempt: u64) -> Value {
    let steps: Vec<Value> = files
        .steps
        .iter()
        .enumerate()
        .map(|(index, step)| {
            let mut value = step_status(&step.name, files.journal.get(&index));
            if files.pushed.contains(&index) {
                value["images"] =
                    json!([{"repository": "registry.test/app", "tags": ["1"], "digest": "sha256:0123456789abcdef"}]);
            }
            value
        })
        .collect();
    let main = files.steps.iter().filter(|s| !s.after).count();
    let ran = files.journal.iter().filter(|(index, entry)| {
        **index < main && entry.ended.is_some_and(|(_, reason, _)| reason != EndReason::EarlierStepFailed)
    });
    let mut status = json!({"steps": steps, "summary": {"steps": format!("{}/{main}", ran.count())}});
    if let Some(summary) = &files.finished {
        status["report"] = json!({
            "attempt": attempt,
            "result": if summary.passed { "Passed" } else { "Failed" },
            "finishedAt": Time(clock::now()),
        });
        if let (Some(index), Some(reason), Some(message)) = (summary.failed, &summary.reason, &summary.message) {
            status["report"]["failedStep"] = json!(files.steps[usize::from(index)].name);
            status["report"]["reason"] = json!(reason);
            status["report"]["message"] = json!(message);
        }
    }
    status
}

fn step_status(name: &str, entry: Option<&Entry>) -> Value {
    let Some(entry) = entry else { return json!({"name": name, "phase": "Pending"}) };
    let Some((at, reason, code)) = entry.ended else {
        return json!({"name": name, "phase": "Running", "startedAt": Time(entry.started)});
    };
    let (phase, reason) = match (reason, code.unwrap_or(0)) {
        (EndReason::ExitCode, 0) => ("Succeeded", "ExitCode"),
        (EndReason::EarlierStepFailed, _) => {
            return json!({"name": name, "phase": "Skipped", "reason": "EarlierStepFailed"});
        }
        (EndReason::Cancelled, _) => ("Cancelled", "Cancelled"),
        _ => ("Failed", "ExitCode"),
    };
    let mut value = json!({"name": name, "phase": phase, "reason": reason,
        "startedAt": Time(entry.started), "finishedAt": Time(at)});
    if let Some(code) = code {
        value["exitCode"] = json!(code);
    }
    value
}
