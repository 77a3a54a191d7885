//! The cluster's own events about a run and its pods, for `-v`.
//!
//! `follow` starts it as a task. **Invariant:** a help, never a need: who may not read events is told so once, and
//! following goes on.

use super::{fault::one_line, view::RunView};
use crate::api::run::pod_name;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// Events that are remembered so that none is told twice; a run has ten to a hundred.
const MOST: usize = 2_000;

/// Sends a line per event until nobody listens.
pub(super) async fn watch(client: Client, run: RunView, say: mpsc::Sender<String>) {
    let api: Api<Event> = Api::namespaced(client, &run.namespace);
    let mut changes = watcher(api, watcher::Config::default()).default_backoff().boxed();
    let mut told: BTreeMap<String, i32> = BTreeMap::new();
    while let Some(change) = changes.next().await {
        let event = match change {
            Ok(watcher::Event::Apply(event) | watcher::Event::InitApply(event)) => event,
            Ok(_) => continue,
            Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) if status.code == 403 => {
                let _ = say.send("events are not shown: you may not list events here".into()).await;
                return;
            }
            Err(_) => continue,
        };
        let Some(line) = words(&event, &run.name) else { continue };
        let count = event.count.or(event.series.as_ref().and_then(|s| s.count)).unwrap_or(1);
        let key = event.metadata.uid.clone().unwrap_or_default();
        if told.len() >= MOST || told.insert(key, count).is_some_and(|before| before >= count) {
            continue;
        }
        let times = if count > 1 { format!(" ({count} times)") } else { String::new() };
        if say.send(format!("{line}{times}")).await.is_err() {
            return;
        }
    }
}

/// `pod hello-7-1: Scheduled: …`; none if the event is about something else.
fn words(event: &Event, run: &str) -> Option<String> {
    let about = &event.involved_object;
    let name = about.name.as_deref().unwrap_or_default();
    let ours = match about.kind.as_deref() {
        Some("PipelineRun") => name == run,
        Some("Pod") => is_pod_of(name, run),
        _ => false,
    };
    let kind = if about.kind.as_deref() == Some("Pod") { "pod" } else { "run" };
    let text = |part: &Option<String>| one_line(part.as_deref().unwrap_or_default());
    ours.then(|| format!("{kind} {name}: {}: {}", text(&event.reason), text(&event.message)))
}

fn is_pod_of(name: &str, run: &str) -> bool {
    let attempt = name.rsplit_once('-').and_then(|(_, attempt)| attempt.parse().ok());
    attempt.is_some_and(|attempt| pod_name(run, attempt) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_events_of_the_run_and_its_pods_are_told() {
        let said = |kind: &str, name: &str| {
            let event = serde_json::from_value::<Event>(serde_json::json!({
                "metadata": {"name": "e"}, "involvedObject": {"kind": kind, "name": name},
                "reason": "Scheduled", "message": "assigned\nto node-3",
            }));
            words(&event.expect("an event"), "hello-7")
        };
        assert_eq!(said("Pod", "hello-7-1").as_deref(), Some("pod hello-7-1: Scheduled: assigned to node-3"));
        assert_eq!(said("PipelineRun", "hello-7").as_deref(), Some("run hello-7: Scheduled: assigned to node-3"));
        for (kind, name) in [("Pod", "hello-71"), ("Pod", "hello-7-x"), ("Pod", "hello-7"), ("Node", "hello-7")] {
            assert_eq!(said(kind, name), None, "{kind} {name}");
        }
    }
}
