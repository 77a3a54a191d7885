//! One plan: a workload, a fault, and what came of them.

use super::{
    agent::{self, SYSTEM},
    api::{CANARY, Door, Record},
    clock,
    fault::Strike,
    node::Node,
    oracle,
    store::{Key, Shared},
    workload::{RUN, Workload, run_key},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};
use tokio::sync::Notify;
use windlass::controller::{self, PodSettings, metrics::Metrics};

/// A plan that is not over by then hangs.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// A world without a change for this long is at rest: longer than the controller waits after any number of failures.
const REST: Duration = Duration::from_secs(75);
/// Looks at a run for each of its pods, at most.
const LOOKS_MAX: usize = 50;

/// What came of a plan.
pub(super) struct Outcome {
    /// What is left at the end, comparable.
    pub(super) end: Value,
    /// Writes of the controller.
    pub(super) writes: usize,
    /// Those that changed something, by what they are.
    pub(super) applied: BTreeMap<String, usize>,
    /// Watch events that the controller was shown.
    pub(super) events: usize,
    /// Events on the run, by reason.
    pub(super) news: BTreeMap<String, usize>,
    /// Pods made, by name.
    pub(super) pods: BTreeMap<String, usize>,
    /// What is wrong in itself.
    pub(super) wrong: Vec<String>,
    /// One line a request.
    pub(super) trace: Vec<String>,
}

/// Plays a workload under a fault, on a runtime of its own.
pub(super) fn play(workload: Workload, strike: Strike) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(World::new(workload, strike).play())
}

struct World {
    workload: Workload,
    store: Shared,
    door: Door,
    leads: Leads,
}

/// The context of the controller that leads.
type Leads = Arc<Mutex<Option<Arc<controller::Context>>>>;

impl World {
    fn new(workload: Workload, strike: Strike) -> Self {
        let store = Shared::new();
        store.with(|s| s.set_admission(workload.admission));
        let door = Door {
            store: store.clone(),
            shown: Arc::default(),
            record: Arc::default(),
            strike,
            crash: Arc::default(),
            dead: Arc::default(),
        };
        Self { workload, store, door, leads: Leads::default() }
    }

    async fn play(self) -> Outcome {
        clock::start();
        let secret = json!({"metadata": {"name": "token"}, "data": {"value": CANARY}});
        self.store.with(|s| s.create(&Key::new("secrets", "team", "token"), secret)).unwrap();
        let node = Node { store: self.store.clone(), boxes: Arc::default(), manners: self.workload.manners };
        tokio::spawn(node.clone().run());
        if !self.workload.agent_away {
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = node.dies() => {}
                    () = agent::renew(node.clone()) => {}
                    () = agent::follow(node.clone()) => {}
                }
            });
        }
        tokio::spawn(controllers(self.door.clone(), self.leads.clone()));
        let user = tokio::spawn(self.workload.play(self.store.clone()));
        let rested = tokio::time::timeout(LIMIT, self.rest()).await.is_ok();
        self.judge(rested, user.is_finished())
    }

    /// Returns once the run is over and nothing changes any more, the agent's lease apart.
    async fn rest(&self) {
        let version = || {
            let last = |s: &mut super::store::Store| {
                s.history().iter().rev().find(|c| c.key.kind != "leases").map_or(0, |c| c.version)
            };
            self.store.with(last)
        };
        loop {
            let before = (version(), self.door.record.lock().unwrap().writes.len());
            tokio::time::sleep(REST).await;
            let after = (version(), self.door.record.lock().unwrap().writes.len());
            if before == after && self.workload.is_over(self.store.get(&run_key()).as_deref().map(|run| &**run)) {
                return;
            }
        }
    }

    fn judge(&self, rested: bool, played: bool) -> Outcome {
        let record: &Record = &self.door.record.lock().unwrap();
        let mut wrong = self.store.with(|s| s.violations().to_vec());
        if !rested || !played {
            wrong.push(format!("not at rest after {LIMIT:?}"));
        }
        let looks = record.looks.get(RUN).copied().unwrap_or(0);
        let run = self.store.get(&run_key());
        let phase = run.as_ref().and_then(|r| r["status"]["phase"].as_str().map(str::to_owned));
        if phase.as_deref() != self.workload.end {
            wrong.push(format!("the run ends as {phase:?} instead of {:?}", self.workload.end));
        }
        let reason = run.as_ref().and_then(|r| r["status"]["conditions"][0]["reason"].as_str());
        if self.workload.reason.is_some() && reason != self.workload.reason {
            wrong.push(format!("the run ends for {reason:?} instead of {:?}", self.workload.reason));
        }
        for name in self.workload.passed {
            let has_passed = |step: &Value| step["name"] == *name && step["phase"] == "Succeeded";
            let steps = run.as_ref().and_then(|r| r["status"]["steps"].as_array());
            if !steps.is_some_and(|steps| steps.iter().any(has_passed)) {
                wrong.push(format!("step {name} has not passed"));
            }
        }
        let remembered = self.leads.lock().unwrap().as_ref().map_or(0, |context| context.remembered());
        if remembered > 0 {
            wrong.push(format!("the controller still keeps something of {remembered} runs"));
        }
        let images = |run: &Value| run["status"]["steps"].to_string().contains("sha256:");
        if self.workload.pushes && !run.as_deref().is_some_and(|run| images(run)) {
            wrong.push("the status does not tell of the tag that moved".into());
        }
        let (mut news, mut pods) = (BTreeMap::new(), BTreeMap::new());
        let end = self.store.with(|store| {
            for change in store.history() {
                let Some(object) = &change.after else { continue };
                match change.key.kind.as_str() {
                    // One that repeats is patched.
                    "events" => *news.entry(object["reason"].as_str().unwrap().to_owned()).or_default() += 1,
                    "pods" if change.before.is_none() => *pods.entry(change.key.name.clone()).or_default() += 1,
                    _ => {}
                }
                if change.key.kind != "secrets" && object.contains(CANARY) {
                    wrong.push(format!("{} {} holds a secret", change.key.kind, change.key.name));
                }
            }
            wrong.extend(counter(store.list("configmaps").first().map(|c| &***c), run.as_deref().map(|run| &**run)));
            ["pipelineruns", "pods", "pipelines"]
                .iter()
                .map(|kind| {
                    ((*kind).to_owned(), store.list(kind).iter().map(|o| oracle::comparable(o)).collect::<Value>())
                })
                .collect()
        });
        if looks > LOOKS_MAX * pods.len().max(1) {
            wrong.push(format!("the run was looked at {looks} times, for {} pods", pods.len()));
        }
        let left = self.store.with(|store| store.list("pods").len());
        if run.is_none() && left > 0 {
            wrong.push(format!("the run is gone, and {left} pods of it are left"));
        }
        let events = self.door.shown.events.load(Ordering::Relaxed);
        let (writes, applied, trace) = (record.writes.len(), record.applied.clone(), record.trace.clone());
        Outcome { end, writes, applied, events, news, pods, wrong, trace }
    }
}

/// The counter is at the run's number, or beyond it.
fn counter(counters: Option<&Value>, run: Option<&Value>) -> Option<String> {
    let number = run?["status"]["buildNumber"].as_i64()?;
    let highest = counters?["data"].as_object()?.values().filter_map(|v| v.as_str()?.parse::<i64>().ok()).max()?;
    (number > highest).then(|| format!("build number {number} is not counted: the counter is at {highest}"))
}

/// One controller after the other, each with empty caches.
async fn controllers(mut door: Door, leads: Leads) {
    loop {
        door.crash = Arc::new(Notify::new());
        door.dead = Arc::new(Mutex::new(false));
        let settings = PodSettings { image: "windlass:sim".into(), ..PodSettings::default() };
        let context =
            controller::Context::new(door.client(), SYSTEM, "controller", settings, Metrics::new(), clock::now);
        let context = Arc::new(context);
        *leads.lock().unwrap() = Some(Arc::clone(&context));
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        let leader = tokio::spawn(controller::lead(context, stopped));
        door.crash.notified().await;
        leader.abort();
        _ = leader.await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
