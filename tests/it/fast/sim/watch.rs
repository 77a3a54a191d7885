//! Watches of the simulated API server, and what goes wrong with them.
//!
//! **Invariant:** without a fault a watch shows every change of what it selects, once and in order.

use super::{
    fault::{Fault, Strike},
    store::{Change, Shared, Version},
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Which objects are meant.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    pub(super) kind: String,
    pub(super) namespace: Option<String>,
    /// `a=b` pairs on labels.
    pub(super) labels: Vec<(String, String)>,
    /// `a.b=c` pairs on fields.
    pub(super) fields: Vec<(String, String)>,
}

impl Selector {
    pub(super) fn matches(&self, object: &Value) -> bool {
        let label = |(name, value): &(String, String)| object["metadata"]["labels"][name] == **value;
        let field = |(path, value): &(String, String)| {
            let found = path.split('.').filter(|p| !p.is_empty()).fold(object, |at, part| &at[part]);
            found.as_str().unwrap_or_default() == value
        };
        self.namespace.as_ref().is_none_or(|n| object["metadata"]["namespace"] == **n)
            && self.labels.iter().all(label)
            && self.fields.iter().all(field)
    }

    /// What a watcher sees of a change.
    fn event(&self, change: &Change) -> Option<(&'static str, Arc<Version>)> {
        if change.key.kind != self.kind {
            return None;
        }
        let seen = |object: &Option<Arc<Version>>| object.clone().filter(|o| self.matches(o));
        match (seen(&change.before), seen(&change.after)) {
            (None, None) => None,
            (None, Some(object)) => Some(("ADDED", object)),
            (Some(_), Some(object)) => Some(("MODIFIED", object)),
            // Out of the selection, or gone: as it is now, if it still is.
            (Some(last), None) => Some(("DELETED", change.after.clone().unwrap_or(last))),
        }
    }
}

/// Events that all watches of a plan have shown, to strike at the nth, and the version up to which
/// history is lost.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) events: AtomicUsize,
    lost: AtomicUsize,
}

/// One watch connection.
pub(super) struct Watch {
    pub(super) store: Shared,
    pub(super) shown: Arc<Shown>,
    pub(super) strike: Strike,
    pub(super) selector: Selector,
    pub(super) at: u64,
    pub(super) timeout: Duration,
}

fn line(kind: &str, object: &[u8]) -> Bytes {
    [b"{\"type\":\"", kind.as_bytes(), b"\",\"object\":", object, b"}\n"].concat().into()
}

fn gone() -> Bytes {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version", "reason": "Expired", "code": 410});
    line("ERROR", status.to_string().as_bytes())
}

impl Watch {
    /// The lines of the answer, until the watcher goes away.
    pub(super) fn start(self) -> tokio::sync::mpsc::UnboundedReceiver<Bytes> {
        let (lines, receiver) = unbounded_channel();
        tokio::spawn(self.run(lines));
        receiver
    }

    async fn run(mut self, lines: UnboundedSender<Bytes>) {
        let mut changes = self.store.changes();
        let end = tokio::time::sleep(self.timeout);
        tokio::pin!(end);
        loop {
            if (self.at as usize) < self.shown.lost.load(Ordering::Relaxed) {
                _ = lines.send(gone());
                return;
            }
            changes.borrow_and_update();
            if self.strike.0 == Fault::Coalesce {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let pending = self.pending();
            let enough = if self.strike.0 == Fault::Lag { self.strike.1 + 1 } else { 1 };
            // What lags comes at last, for want of further events.
            let late = async {
                match pending.len() {
                    n if n >= enough => {}
                    0 => std::future::pending().await,
                    _ => tokio::time::sleep(Duration::from_secs(3)).await,
                }
            };
            tokio::select! {
                biased;
                () = late => {
                    if !self.show(&lines, pending) {
                        return;
                    }
                }
                _ = changes.changed() => {}
                () = lines.closed() => return,
                () = tokio::time::sleep(Duration::from_secs(60)) => self.bookmark(&lines),
                () = &mut end => return,
            }
        }
    }

    /// Events after `at`, as they are to be shown.
    fn pending(&self) -> Vec<(u64, &'static str, Arc<Version>)> {
        let mut events: Vec<(u64, &'static str, Arc<Version>)> = self.store.with(|store| {
            let news = store.history().iter().rev().take_while(|c| c.version > self.at);
            let mut news: Vec<_> =
                news.filter_map(|c| self.selector.event(c).map(|(kind, o)| (c.version, kind, o))).collect();
            news.reverse();
            news
        });
        if self.strike.0 == Fault::Coalesce {
            let name = |o: &Value| o["metadata"]["name"].clone();
            let all = events.clone();
            let mut index = 0;
            events.retain(|(_, _, object)| {
                index += 1;
                !all[index..].iter().any(|(_, _, later)| name(later) == name(object))
            });
        }
        events
    }

    /// Shows the first event, or all without lag; false: the connection ends.
    fn show(&mut self, lines: &UnboundedSender<Bytes>, pending: Vec<(u64, &'static str, Arc<Version>)>) -> bool {
        let Strike(fault, n) = self.strike;
        let count = if fault == Fault::Lag { 1 } else { pending.len() };
        for (version, kind, object) in pending.into_iter().take(count) {
            self.at = version;
            for _ in 0..if fault == Fault::Duplicate { 2 } else { 1 } {
                _ = lines.send(line(kind, object.json()));
            }
            let number = self.shown.events.fetch_add(1, Ordering::Relaxed) + 1;
            if number == n && fault == Fault::Gone {
                let version = self.store.with(|store| store.version());
                // Also those that have seen everything must list again.
                self.shown.lost.store(version as usize + 1, Ordering::Relaxed);
                self.store.with(|store| store.skip_version());
                self.store.touch();
                _ = lines.send(gone());
                return false;
            }
            if fault == Fault::Drop && number.is_multiple_of(n) {
                return false;
            }
        }
        true
    }

    fn bookmark(&mut self, lines: &UnboundedSender<Bytes>) {
        let (kind, api) = match self.selector.kind.as_str() {
            "pods" => ("Pod", "v1"),
            "pipelines" => ("Pipeline", "windlass.dev/v1alpha1"),
            _ => ("PipelineRun", "windlass.dev/v1alpha1"),
        };
        self.at = self.store.with(|store| store.version());
        let metadata = json!({"resourceVersion": self.at.to_string(), "creationTimestamp": null});
        let object = json!({"kind": kind, "apiVersion": api, "metadata": metadata});
        _ = lines.send(line("BOOKMARK", object.to_string().as_bytes()));
    }
}
