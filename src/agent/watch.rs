//! Watches the runs of the node and keeps one follower for each.
//!
//! `mod` runs [`watch`] for as long as the agent lives.
//!
//! **Invariant:** one malformed object stops nothing but itself. A run that leaves the selection is not followed any
//! more; nothing is concluded from it.

use super::{
    files::Volumes,
    follow::{Post, follow},
    run::{Run, Seen, Wish},
    sweep,
    transport::Relay,
};
use crate::{api::PipelineRun, wire::RECORDED_FILE};
use futures::StreamExt;
use kube::{
    Api, Client, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch as channel, task::JoinHandle, time::Interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Objects of one page of a list: a run may hold a whole pipeline twice.
const PAGE: u32 = 50;
/// Longest wait for the engine at the start.
const THAW_TIMEOUT: Duration = Duration::from_secs(10);

/// The runs that are followed, by UID.
pub(super) struct Runs {
    post: Arc<Post>,
    followed: HashMap<String, Followed>,
    tasks: TaskTracker,
}

struct Followed {
    run: Arc<Run>,
    wish: channel::Sender<Wish>,
    leave: CancellationToken,
    task: JoinHandle<()>,
}

impl Runs {
    /// None yet.
    pub(super) fn new(post: Arc<Post>) -> Self {
        Self { post, followed: HashMap::new(), tasks: TaskTracker::new() }
    }

    /// Takes in an object as the API server has it now.
    pub(super) fn see(&mut self, uid: &str, seen: Seen) {
        match seen {
            Seen::Leave => self.leave(uid),
            Seen::Over { pod_uid } => {
                self.leave(uid);
                // Mostly its follower has done so, or the pod is gone; that cannot be told from here.
                let _ = Volumes::new(&self.post.kubelet_dir, &pod_uid).put_in(RECORDED_FILE, b"");
            }
            Seen::Unreadable(error) => {
                tracing::warn!(run.uid = uid, "the frozen pipeline cannot be read by this version: {error}");
                self.leave(uid);
            }
            Seen::Follow { run, recorded, wish } => {
                let before = match self.followed.get(uid) {
                    Some(known) if known.run.is_same(&run) => {
                        // A wish is never taken back.
                        known.wish.send_if_modified(|old| {
                            wish > *old && {
                                *old = wish;
                                true
                            }
                        });
                        return;
                    }
                    Some(known) => {
                        known.leave.cancel();
                        self.followed.remove(uid)
                    }
                    None if wish == Wish::Abandon || self.post.stopping.is_cancelled() => return,
                    None => None,
                };
                let run: Arc<Run> = Arc::from(run);
                let (wish, wished) = channel::channel(wish);
                let leave = CancellationToken::new();
                let (post, follows, left) = (Arc::clone(&self.post), Arc::clone(&run), leave.clone());
                let task = self.tasks.spawn(async move {
                    if let Some(before) = before {
                        let _ended = before.task.await;
                    }
                    follow(post, follows, *recorded, wished, left).await;
                });
                self.followed.insert(uid.to_owned(), Followed { run, wish, leave, task });
            }
        }
    }

    /// Ends the following of a run.
    pub(super) fn leave(&mut self, uid: &str) {
        if let Some(followed) = self.followed.remove(uid) {
            followed.leave.cancel();
        }
    }

    /// Leaves all runs but these.
    fn keep(&mut self, uids: &HashSet<String>) {
        let gone: Vec<String> = self.followed.keys().filter(|uid| !uids.contains(*uid)).cloned().collect();
        gone.iter().for_each(|uid| self.leave(uid));
    }

    /// UIDs of the runs that are followed.
    fn uids(&self) -> BTreeSet<String> {
        self.followed.keys().cloned().collect()
    }

    /// The followers.
    pub(super) fn tasks(&self) -> TaskTracker {
        self.tasks.clone()
    }
}

/// Watches for ever; `ready` is called once the runs of the node are known.
pub(super) async fn watch(
    runs: &mut Runs,
    client: Client,
    node: &str,
    relay: &Relay,
    ready: impl Fn(),
    sweeps: &mut Interval,
) {
    let api: Api<DeserializeGuard<PipelineRun>> = Api::all(client);
    let config = watcher::Config::default().fields(&format!("status.nodeName={node}")).page_size(PAGE);
    let events = watcher(api, config).default_backoff();
    futures::pin_mut!(events);
    let mut listed = HashSet::new();
    // Until the first list is whole its runs wait: boxes are thawed before a push may freeze one.
    let mut waiting: Option<Vec<(String, Seen)>> = Some(Vec::new());
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = sweeps.tick(), if waiting.is_none() => {
                let (relay, live) = (relay.clone(), runs.uids());
                tokio::spawn(async move { sweep(&relay, &live).await });
                continue;
            }
        };
        match event {
            None => return,
            Some(Err(error)) => tracing::warn!(%error, "the watch of runs was interrupted"),
            Some(Ok(Event::Init)) => {
                listed.clear();
                if let Some(waiting) = &mut waiting {
                    waiting.clear();
                }
            }
            Some(Ok(Event::InitApply(object))) => {
                let Some((uid, seen)) = read(&object) else { continue };
                listed.insert(uid.clone());
                match &mut waiting {
                    Some(waiting) => waiting.push((uid, seen)),
                    None => runs.see(&uid, seen),
                }
            }
            Some(Ok(Event::InitDone)) => {
                runs.keep(&listed);
                if let Some(first) = waiting.take() {
                    thaw(relay, &first).await;
                    first.into_iter().for_each(|(uid, seen)| runs.see(&uid, seen));
                    ready();
                }
            }
            Some(Ok(Event::Apply(object))) => {
                if let Some((uid, seen)) = read(&object) {
                    runs.see(&uid, seen);
                }
            }
            Some(Ok(Event::Delete(object))) => {
                if let Some(uid) = object.uid() {
                    runs.leave(&uid);
                }
            }
        }
    }
}

/// What an object means; `None` for one that cannot be read, which is the controller's to judge.
fn read(object: &DeserializeGuard<PipelineRun>) -> Option<(String, Seen)> {
    match &object.0 {
        Ok(run) => Some((run.uid()?, Run::read(run))),
        Err(invalid) => {
            let name = invalid.metadata.name.as_deref().unwrap_or_default();
            tracing::warn!(run.name = name, "a run cannot be read and is left alone: {}", invalid.error);
            None
        }
    }
}

/// Thaws the boxes of runs that an agent may have left in the middle of a commit.
async fn thaw(relay: &Relay, first: &[(String, Seen)]) {
    let pods: Vec<String> = first
        .iter()
        .filter_map(|(_, seen)| match seen {
            Seen::Follow { run, .. } => Some(run.pod_uid.clone()),
            Seen::Leave | Seen::Over { .. } | Seen::Unreadable(_) => None,
        })
        .collect();
    if pods.is_empty() {
        return;
    }
    match tokio::time::timeout(THAW_TIMEOUT, relay.thaw(&pods)).await {
        Ok(Ok(thawed)) if thawed.is_empty() => {}
        Ok(Ok(thawed)) => tracing::info!(thawed = thawed.len(), "thawed boxes that a commit had left frozen"),
        Ok(Err(error)) => tracing::warn!("failed to look for frozen boxes: {error}"),
        Err(_) => tracing::warn!("the engine did not say in time which boxes are frozen"),
    }
}

#[cfg(test)]
mod tests;
