//! Many runs in one cluster: what a change of one costs does not grow with their number.

use super::{
    agent::SYSTEM,
    api::{Door, Record},
    clock,
    fault::{Fault, Strike},
    store::{Key, Shared},
};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use windlass::controller::{self, PodSettings, metrics::Metrics};

/// Runs that ended long ago.
const OLD: i64 = 120;

fn ended(number: i64, phase: &str) -> Value {
    let time = "2026-11-21T12:00:00Z";
    json!({"apiVersion": "windlass.dev/v1alpha1", "kind": "PipelineRun", "metadata": {"name": format!("r-{number}")},
        "spec": {"pipelineRef": {"name": "p"}},
        "status": {"buildNumber": number, "phase": phase, "startTime": time, "completionTime": time}})
}

#[test]
fn a_change_of_a_run_costs_the_same_among_many() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        clock::start();
        let store = Shared::new();
        let run = |number: i64, phase: &str| {
            let key = Key::new("pipelineruns", "team", &format!("r-{number}"));
            store.with(|s| s.create(&key, ended(number, phase))).unwrap();
        };
        (1..=OLD).for_each(|number| run(number, "Succeeded"));
        let pipeline = Key::new("pipelines", "team", "p");
        let spec = json!({"box": {"image": "debian:12"}, "steps": [{"name": "one", "script": "true"}]});
        let object =
            json!({"apiVersion": "windlass.dev/v1alpha1", "kind": "Pipeline", "metadata": {"name": "p"}, "spec": spec});
        store.with(|s| s.create(&pipeline, object)).unwrap();
        let record: Arc<Mutex<Record>> = Arc::default();
        let (shown, crash, dead) = Default::default();
        let door =
            Door { store: store.clone(), shown, record: record.clone(), strike: Strike(Fault::None, 0), crash, dead };
        let settings = PodSettings { image: "windlass:sim".into(), ..PodSettings::default() };
        let context =
            controller::Context::new(door.client(), SYSTEM, "controller", settings, Metrics::new(), clock::now);
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        let leader = tokio::spawn(controller::lead(Arc::new(context), stopped));

        let last = || {
            let status = store.get(&pipeline).unwrap()["status"].clone();
            (status["lastBuildNumber"].as_i64(), status["lastRun"]["phase"].as_str().map(str::to_owned))
        };
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(last(), (Some(OLD), Some("Succeeded".into())));
        let lists = record.lock().unwrap().lists;
        for number in OLD + 1..=OLD + 10 {
            run(number, "Failed");
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!(last(), (Some(number), Some("Failed".into())));
        }
        assert_eq!(record.lock().unwrap().lists, lists, "no change needs a list");
        assert_eq!(store.with(|s| s.violations().to_vec()), [""; 0]);
        leader.abort();
    });
}
