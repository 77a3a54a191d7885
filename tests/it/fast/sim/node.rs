//! The simulated node: a kubelet that binds pods, starts and ends their containers, and the runner in
//! the box, which reads the real order and leaves a real summary.
//!
//! Scripts say what they do: `true`, `false` or `sleep N`.

use super::{
    clock,
    store::{Key, Shared},
    workload::step_two,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use windlass::wire::{EndReason, Order, OrderStep, StepEnd, StepWork, Summary};

/// The one node.
pub(super) const NODE: &str = "node-1";

/// What happened to a step, as the journal has it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) started: Timestamp,
    pub(super) ended: Option<(Timestamp, EndReason, Option<u8>)>,
}

/// A box's directories: what the runner and the agent tell each other.
#[derive(Default)]
pub(super) struct Files {
    pub(super) steps: Vec<OrderStep>,
    /// By step; absent: not reached.
    pub(super) journal: BTreeMap<usize, Entry>,
    /// The step that waits for the agent.
    pub(super) asked: Option<usize>,
    /// What the agent pushed, if only a part of it.
    pub(super) pushed: BTreeSet<usize>,
    /// The agent's answers.
    pub(super) answers: BTreeSet<usize>,
    /// The agent's word to cancel.
    pub(super) cancel: bool,
    /// The kubelet's TERM.
    term: bool,
    pub(super) finished: Option<Summary>,
    /// What the agent wrote into the status last.
    pub(super) shown: Option<Value>,
}

/// Boxes of the node, by UID of the pod.
pub(super) type Boxes = Arc<Mutex<BTreeMap<String, Files>>>;

/// How the node behaves in a workload.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manners {
    /// The box's image is pulled for ever.
    pub(super) never_starts: bool,
    /// The first attempt's pod vanishes while its second step is shown to run.
    pub(super) loses_first: bool,
    /// The box's image takes minutes, and then its registry is away for a while.
    pub(super) pulls_badly: bool,
    /// Kubelet and agent say nothing any more once the second step is shown to run.
    pub(super) dies: bool,
}

/// The node; clones are the same.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) store: Shared,
    pub(super) boxes: Boxes,
    pub(super) manners: Manners,
}

fn order(pod: &Value) -> Order {
    let pieces =
        pod["spec"]["containers"].as_array().unwrap().iter().flat_map(|c| c["env"].as_array().into_iter().flatten());
    let text: String = pieces.filter_map(|e| e["value"].as_str()).collect();
    serde_json::from_str(&text.replace("$$", "$")).expect("the order can be read")
}

fn container(name: &str, state: &Value) -> Value {
    json!({"name": name, "image": "image", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

fn terminated(started: &Value, code: i32, message: &str) -> Value {
    json!({"terminated": {"exitCode": code, "startedAt": started, "finishedAt": now(), "message": message, "reason":
        if code == 0 { "Completed" } else { "Error" }}})
}

fn now() -> Value {
    json!(Time(clock::now()))
}

async fn ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

impl Node {
    /// Runs the pods of the cluster, each once.
    pub(super) async fn run(self) {
        let mut begun = BTreeSet::new();
        let mut changes = self.store.changes();
        loop {
            for pod in self.store.with(|store| store.list("pods")) {
                let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
                if begun.insert(uid.clone()) {
                    let name = pod["metadata"]["name"].as_str().unwrap();
                    let key = Key::new("pods", pod["metadata"]["namespace"].as_str().unwrap(), name);
                    tokio::spawn(self.clone().pod(key, uid));
                }
            }
            _ = changes.changed().await;
        }
    }

    async fn pod(self, key: Key, uid: String) {
        tokio::select! {
            biased;
            () = self.dies() => return,
            () = self.live(&key, &uid) => {}
            () = self.deleted(&key, &uid) => self.end(&key, &uid).await,
            () = self.lost(&key) => {}
        }
        if self.manners.loses_first && key.name.ends_with("-1") {
            self.remove(&key);
        }
    }

    async fn live(&self, key: &Key, uid: &str) {
        ms(50).await;
        self.set(key, |pod| pod["spec"]["nodeName"] = json!(NODE));
        ms(100).await;
        let wait = json!({"waiting": {"reason": "ContainerCreating"}});
        self.status(key, "Pending", &wait, &wait);
        if self.manners.never_starts {
            return std::future::pending().await;
        }
        if self.manners.pulls_badly {
            ms(240_000).await;
            let failed = json!({"waiting": {"reason": "ErrImagePull", "message": "registry.test: i/o timeout"}});
            self.status(key, "Pending", &failed, &wait);
            ms(90_000).await;
            self.status(key, "Pending", &wait, &wait);
        }
        ms(300).await;
        let (running, started) = (json!({"running": {"startedAt": now()}}), now());
        self.status(key, "Running", &running, &running);
        ms(200).await;
        let prepared = terminated(&started, 0, "");
        self.status(key, "Running", &running, &prepared);
        let Some(pod) = self.store.get(key) else { return };
        self.boxes.lock().unwrap().insert(uid.to_owned(), Files { steps: order(&pod).steps, ..Files::default() });
        let summary = self.runner(uid).await;
        ms(300).await;
        let (phase, code) = if summary.passed { ("Succeeded", 0) } else { ("Failed", 1) };
        self.status(key, phase, &terminated(&started, code, &summary.encode()), &prepared);
        // Until it is deleted.
        std::future::pending().await
    }

    /// A deleted pod gets TERM; its containers end, then it goes.
    async fn end(&self, key: &Key, uid: &str) {
        let files = self.boxes.lock().unwrap().get_mut(uid).map(|files| files.term = true).is_some();
        ms(400).await;
        if files {
            self.set(key, |pod| pod["status"]["phase"] = json!("Failed"));
            ms(100).await;
        }
        self.remove(key);
    }

    fn remove(&self, key: &Key) {
        // It may be gone already.
        _ = self.store.with(|store| store.delete(key, &json!({"gracePeriodSeconds": 0})));
    }

    fn set(&self, key: &Key, change: impl FnOnce(&mut Value)) {
        _ = self.store.with(|store| store.edit(key, change));
    }

    fn status(&self, key: &Key, phase: &str, box_state: &Value, prepare_state: &Value) {
        let containers = [container("prepare", prepare_state), container("box", box_state)];
        self.set(key, |pod| {
            if pod["status"]["startTime"].is_null() {
                pod["status"]["startTime"] = now();
            }
            pod["status"]["phase"] = json!(phase);
            pod["status"]["containerStatuses"] = json!(containers);
        });
    }

    async fn deleted(&self, key: &Key, uid: &str) {
        let mut changes = self.store.changes();
        loop {
            match self.store.get(key) {
                Some(pod) if pod["metadata"]["uid"] == uid && pod["metadata"]["deletionTimestamp"].is_null() => {}
                _ => return,
            }
            _ = changes.changed().await;
        }
    }

    async fn lost(&self, key: &Key) {
        if !self.manners.loses_first || !key.name.ends_with("-1") {
            return std::future::pending().await;
        }
        step_two(&self.store).await;
    }

    /// Returns once the node is gone.
    pub(super) async fn dies(&self) {
        if !self.manners.dies {
            return std::future::pending().await;
        }
        step_two(&self.store).await;
    }

    /// The runner in the box, to its summary.
    async fn runner(&self, uid: &str) -> Summary {
        let steps = self.files(uid, |files| files.steps.clone());
        let begin = clock::now();
        let mut failed: Option<(usize, EndReason)> = None;
        for (index, step) in steps.iter().enumerate() {
            let start = clock::now();
            if failed.is_some() && !step.after {
                self.enter(
                    uid,
                    index,
                    Entry { started: start, ended: Some((start, EndReason::EarlierStepFailed, None)) },
                );
                continue;
            }
            self.enter(uid, index, Entry { started: start, ended: None });
            let (reason, code) = self.step(uid, index, step).await;
            self.enter(uid, index, Entry { started: start, ended: Some((clock::now(), reason, code)) });
            if (reason, code.unwrap_or(0)) != (EndReason::ExitCode, 0) && !step.after && !step.continue_on_failure {
                failed = Some((index, reason));
            }
        }
        let summary = self.files(uid, |files| summarise(files, begin, failed));
        self.files(uid, |files| files.finished = Some(summary.clone()));
        self.store.touch();
        summary
    }

    async fn step(&self, uid: &str, index: usize, step: &OrderStep) -> (EndReason, Option<u8>) {
        let (duration, code) = match &step.work {
            StepWork::Script(script) => match script.strip_prefix("sleep ") {
                Some(seconds) => (Duration::from_secs(seconds.parse().unwrap()), Some(0)),
                None => (Duration::from_secs(1), Some(u8::from(script != "true"))),
            },
            StepWork::Shell(_) => panic!("nobody is there to attach"),
            // It runs until the run is cancelled or its time is over.
            StepWork::Watch(_) => (Duration::from_hours(24), None),
            StepWork::Agent | StepWork::Pack { .. } => {
                self.files(uid, |files| files.asked = Some(index));
                self.store.touch();
                (Duration::from_secs(3600), None)
            }
        };
        let done = tokio::time::sleep(duration);
        tokio::pin!(done);
        let mut changes = self.store.changes();
        loop {
            let (answered, stop) =
                self.files(uid, |f| (f.answers.contains(&index), f.term || (f.cancel && !step.after)));
            if answered {
                return (EndReason::ExitCode, None);
            }
            if stop {
                return (EndReason::Cancelled, Some(143));
            }
            tokio::select! {
                () = &mut done => return (EndReason::ExitCode, code),
                _ = changes.changed() => {}
            }
        }
    }

    fn enter(&self, uid: &str, index: usize, entry: Entry) {
        self.files(uid, |files| files.journal.insert(index, entry));
        self.store.touch();
    }

    fn files<T>(&self, uid: &str, act: impl FnOnce(&mut Files) -> T) -> T {
        act(self.boxes.lock().unwrap().get_mut(uid).expect("the box is there"))
    }
}

/// Whether the status shows a step as running.
pub(super) fn is_running(run: &Value, step: &str) -> bool {
    let steps = run["status"]["steps"].as_array();
    steps.is_some_and(|steps| steps.iter().any(|s| s["name"] == step && s["phase"] == "Running"))
}

fn summarise(files: &Files, begin: Timestamp, failed: Option<(usize, EndReason)>) -> Summary {
    let after = |at: Timestamp| u32::try_from(at.duration_since(begin).as_millis()).unwrap();
    let end = |index: usize| {
        let entry = files.journal.get(&index)?;
        let (at, reason, code) = entry.ended?;
        Some(StepEnd { reason, code, started_ms: after(entry.started), finished_ms: after(at) })
    };
    let why = failed.map(|(_, reason)| if reason == EndReason::Cancelled { "Cancelled" } else { "StepFailed" });
    let message = failed.map(|(index, reason)| match reason {
        EndReason::Cancelled => format!("cancelled at step {}", files.steps[index].name),
        _ => format!("step {} failed", files.steps[index].name),
    });
    Summary {
        passed: failed.is_none(),
        reason: why.map(Into::into),
        failed: failed.map(|(index, _)| u8::try_from(index).unwrap()),
        steps: (0..files.steps.len()).map(end).collect(),
        message,
    }
}
