//! The cluster's own events about a run and its pods, for `-v`.
//!
//! `follow` starts it as a task. **Invariant:** a help, never a need: who may not read events is told so once, and
//! following goes on.

use super::{event::Event as Told, fault::one_line, view::RunView};
use crate::api::run::pod_name;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::mpsc;

/// Events and pods that are remembered so that none is told or asked for twice; a run has ten to a hundred.
const MOST: usize = 2_000;
/// Longest wait for a pod.
const ANSWER: Duration = Duration::from_secs(10);

/// Sends a line per event until nobody listens.
pub(super) async fn watch(client: Client, run: RunView, say: mpsc::Sender<Told>) {
    let api: Api<Event> = Api::namespaced(client.clone(), &run.namespace);
    let pods: Api<Pod> = Api::namespaced(client, &run.namespace);
    let mut changes = watcher(api, watcher::Config::default()).default_backoff().boxed();
    let (mut told, mut known) = (BTreeMap::new(), BTreeMap::new());
    while let Some(change) = changes.next().await {
        let event = match change {
            Ok(watcher::Event::Apply(event) | watcher::Event::InitApply(event)) => event,
            Ok(_) => continue,
            Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) if status.code == 403 => {
                let _ = say.send(notice("events are not shown: you may not list events here".into())).await;
                return;
            }
            Err(_) => continue,
        };
        let ours = match whose(&event, &run) {
            Whose::Run => true,
            Whose::Others => false,
            Whose::Pod { name, uid } => match known.get(&uid) {
                Some(ours) => *ours,
                None if known.len() >= MOST => false,
                None => {
                    let ours = is_pod_of(asked(&pods, &name).await, &uid, &run, &event);
                    known.insert(uid, ours);
                    ours
                }
            },
        };
        if !ours {
            continue;
        }
        let count = event.count.or(event.series.as_ref().and_then(|s| s.count)).unwrap_or(1);
        let key = event.metadata.uid.clone().unwrap_or_default();
        if told.len() >= MOST || told.insert(key, count).is_some_and(|before| before >= count) {
            continue;
        }
        let times = if count > 1 { format!(" ({count} times)") } else { String::new() };
        if say.send(notice(format!("{}{times}", words(&event)))).await.is_err() {
            return;
        }
    }
}

fn notice(message: String) -> Told {
    Told::Notice { message }
}

/// What an event is about.
#[derive(Debug, PartialEq, Eq)]
enum Whose {
    /// The run.
    Run,
    /// A pod with a name of the run's; a run of the same name before it had such pods as well.
    Pod { name: String, uid: String },
    /// Something else.
    Others,
}

fn whose(event: &Event, run: &RunView) -> Whose {
    let about = &event.involved_object;
    let name = about.name.clone().unwrap_or_default();
    let uid = about.uid.clone().unwrap_or_default();
    let attempt = name.rsplit_once('-').and_then(|(_, attempt)| attempt.parse().ok());
    match about.kind.as_deref() {
        Some("PipelineRun") if name == run.name && uid == run.uid => Whose::Run,
        Some("Pod") if run.status.pod_uid.as_ref() == Some(&uid) => Whose::Run,
        Some("Pod") if attempt.is_some_and(|attempt| pod_name(&run.name, attempt) == name) => Whose::Pod { name, uid },
        _ => Whose::Others,
    }
}

/// The pod that has this name now, if there is one.
///
/// # Errors
/// When it cannot be known.
async fn asked(pods: &Api<Pod>, name: &str) -> Result<Option<Pod>, ()> {
    let answer = tokio::time::timeout(ANSWER, pods.get_metadata_opt(name)).await.map_err(drop)?.map_err(drop)?;
    Ok(answer.map(|pod| Pod { metadata: pod.metadata, ..Pod::default() }))
}

/// Whether the pod with this UID is one of the run: it is there and the run owns it. Who may not read pods goes by the
/// time of the event.
fn is_pod_of(pod: Result<Option<Pod>, ()>, uid: &str, run: &RunView, event: &Event) -> bool {
    match pod {
        Ok(Some(pod)) => {
            let owners = pod.metadata.owner_references.unwrap_or_default();
            pod.metadata.uid.as_deref() == Some(uid) && owners.iter().any(|owner| owner.uid == run.uid)
        }
        Ok(None) => false,
        Err(()) => event.metadata.creation_timestamp.as_ref().map(|time| time.0) >= run.created,
    }
}

/// `pod hello-7-1: Scheduled: …`.
fn words(event: &Event) -> String {
    let about = &event.involved_object;
    let kind = if about.kind.as_deref() == Some("Pod") { "pod" } else { "run" };
    let text = |part: &Option<String>| one_line(part.as_deref().unwrap_or_default());
    format!("{kind} {}: {}: {}", text(&about.name), text(&event.reason), text(&event.message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::view::tests::a_run;
    use serde_json::json;

    fn event(kind: &str, name: &str, uid: &str, made: &str) -> Event {
        let event = json!({
            "metadata": {"name": "e", "creationTimestamp": made},
            "involvedObject": {"kind": kind, "name": name, "uid": uid},
            "reason": "Scheduled", "message": "assigned\nto node-3",
        });
        serde_json::from_value(event).expect("an event")
    }

    fn run() -> RunView {
        a_run(
            "{apiVersion: windlass.dev/v1alpha1, kind: PipelineRun, metadata: {name: hello-7, namespace: a, uid: new, \
             creationTimestamp: '2026-11-21T13:03:07Z'}, spec: {}, status: {podUID: pod}}",
        )
    }

    #[test]
    fn only_events_of_this_run_and_its_pods_are_told() {
        let of = |kind: &str, name: &str, uid: &str| whose(&event(kind, name, uid, "2026-11-21T13:03:08Z"), &run());
        assert_eq!(of("PipelineRun", "hello-7", "new"), Whose::Run);
        assert_eq!(of("PipelineRun", "hello-7", "old"), Whose::Others);
        assert_eq!(of("Pod", "hello-7-1", "pod"), Whose::Run);
        assert_eq!(of("Pod", "hello-7-2", "x"), Whose::Pod { name: "hello-7-2".into(), uid: "x".into() });
        for (kind, name) in [("Pod", "hello-71"), ("Pod", "hello-7-x"), ("Pod", "hello-7"), ("Node", "hello-7")] {
            assert_eq!(of(kind, name, "new"), Whose::Others, "{kind} {name}");
        }
        let said = words(&event("Pod", "hello-7-1", "pod", "2026-11-21T13:03:08Z"));
        assert_eq!(said, "pod hello-7-1: Scheduled: assigned to node-3");
    }

    #[test]
    fn the_pod_of_an_earlier_run_of_the_name_is_not_ours() {
        let pod = |uid: &str, owner: &str| -> Result<Option<Pod>, ()> {
            let owner = json!({"apiVersion": "v1", "kind": "PipelineRun", "name": "hello-7", "uid": owner});
            Ok(serde_json::from_value(json!({"metadata": {"uid": uid, "ownerReferences": [owner]}})).expect("a pod"))
        };
        let (late, early) = ("2026-11-21T13:03:08Z", "2026-11-21T13:03:06Z");
        for (pod, made, ours) in [
            (pod("p", "new"), late, true),
            (pod("p", "old"), late, false),
            (pod("another", "new"), late, false),
            (Ok(None), late, false),
            (Err(()), late, true),
            (Err(()), early, false),
        ] {
            assert_eq!(is_pod_of(pod.clone(), "p", &run(), &event("Pod", "hello-7-1", "p", made)), ours, "{pod:?}");
        }
    }
}
