//! Reads the box's output from its pod, over as many connections as it takes.
//!
//! `follow` and `logs` start it as a task. **Invariant:** ends when the container has ended and all of
//! its output was read, when the pod is gone, or when nobody listens any more.

use super::{
    logtext::{Decoder, Piece},
    view::RunView,
};
use crate::api::condition::reason;
use futures::{AsyncBufRead, AsyncBufReadExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};
use std::{pin::pin, time::Duration};
use tokio::sync::{mpsc, watch};

/// The container of the steps.
pub(super) const BOX: &str = "box";
/// What the container of a service is called before its name.
pub(super) const SERVICE_PREFIX: &str = "svc-";
const SHORT: Duration = Duration::from_millis(250);
const LONG: Duration = Duration::from_secs(5);
/// Longest wait for the head of an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// How often reading is tried again once nothing new can come.
const MOST_FAILURES: u32 = 10;
/// How often a box is asked again that should run by now.
const MOST_WAITS: u32 = 20;

/// What the task says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Output.
    Piece(Piece),
    /// What comes from here on was not there when reading began; said if it was asked for.
    CaughtUp,
    /// Nothing more will come; why, if it is not that the container ended.
    Ended(Option<Missing>),
}

/// Why there is no output, or no more of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The pod is not there.
    PodGone,
    /// The container never ran.
    NeverRan,
    /// `pods/log` may not be read.
    Forbidden,
    /// The node did not give it, however often it was asked.
    Unreadable,
}

impl Missing {
    /// For people.
    #[must_use]
    pub(super) fn words(&self, pod: &str) -> String {
        match self {
            Self::PodGone => format!("the output went with pod {pod}, which is deleted"),
            Self::NeverRan => format!("no output: the box of pod {pod} has not run"),
            Self::Unreadable => format!("the node does not give the output of pod {pod}; it may be incomplete"),
            Self::Forbidden => format!("you may not read the output: it needs get on pods/log (pod {pod})"),
        }
    }

    /// A reason, for the error of `logs`.
    #[must_use]
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::PodGone | Self::Unreadable => super::fault::reason::LOGS_GONE,
            Self::NeverRan => reason::BOX_FAILED_TO_START,
            Self::Forbidden => super::fault::reason::FORBIDDEN,
        }
    }
}

/// What to read.
#[derive(Clone)]
pub(super) struct Source {
    /// Pods of the namespace.
    pub pods: Api<Pod>,
    /// The pod.
    pub pod: String,
    /// Its container: [`BOX`], or a service.
    pub container: String,
    /// Wait for more until the container ends.
    pub follow: bool,
    /// Say [`Heard::CaughtUp`].
    pub tell_caught_up: bool,
}

/// Whether the run is over, as its status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// It goes on.
    No,
    /// It is, and no step had begun: a box that waits will never run.
    Unbegun,
    /// It is, and steps had run: the kubelet is behind if it says that the box waits.
    Begun,
}

impl Over {
    /// What a run's status says.
    pub(super) fn of(run: &RunView) -> Self {
        match (run.outcome().is_some(), run.status.steps.iter().any(|s| s.started_at.is_some())) {
            (false, _) => Self::No,
            (true, false) => Self::Unbegun,
            (true, true) => Self::Begun,
        }
    }
}

enum State {
    Waiting,
    Running,
    Ended,
    Gone,
    Unknown,
}

/// Reads to the end. `over` is told when the run has ended, so that a box that never started is not
/// waited for.
pub(super) async fn read(source: Source, heard: mpsc::Sender<Heard>, over: watch::Receiver<Over>) {
    let mut decoder = Decoder::default();
    let missing = read_all(&source, &heard, &over, &mut decoder).await;
    for piece in decoder.reconnect() {
        let _ = heard.send(Heard::Piece(piece)).await;
    }
    // Nobody listens any more: then nobody misses it.
    let _ = heard.send(Heard::Ended(missing)).await;
}

async fn read_all(
    source: &Source,
    heard: &mpsc::Sender<Heard>,
    over: &watch::Receiver<Over>,
    decoder: &mut Decoder,
) -> Option<Missing> {
    let mut pause = SHORT;
    // What is there is read by a connection of its own: nothing else tells its end.
    let mut catching_up = source.tell_caught_up;
    let mut follow = source.follow && !catching_up;
    let mut ended = false;
    let mut failed_at_end = 0;
    let mut waited = 0;
    let may_be_made = |over, missed| {
        let most = if over == Over::No { MOST_WAITS } else { 1 };
        source.follow && missed < most
    };
    let mut missed = 0;
    if source.container.starts_with(SERVICE_PREFIX) {
        // A service that ends is started again: why it ended was said before that. Most have no past.
        let _ = connection(source, false, true, heard, decoder).await;
    }
    loop {
        if heard.is_closed() {
            return None;
        }
        let result = connection(source, follow, false, heard, decoder).await;
        // 400: the container waits to start, so nothing is there.
        let none_yet = matches!(&result, Err(kube::Error::Api(status)) if status.code == 400);
        if catching_up && (result.is_ok() || none_yet) {
            catching_up = false;
            follow = source.follow && !ended;
            // Nobody listens any more: the next turn sees it.
            let _ = heard.send(Heard::CaughtUp).await;
            continue;
        }
        let failed = match result {
            Ok(()) if !follow => return None,
            Ok(()) => None,
            // A pod is named in the status before it is made.
            Err(kube::Error::Api(status))
                if status.code == 404 && decoder.since().is_none() && may_be_made(*over.borrow(), missed) =>
            {
                missed += 1;
                tokio::time::sleep(SHORT).await;
                continue;
            }
            Err(kube::Error::Api(status)) if status.code == 404 => return Some(Missing::PodGone),
            Err(kube::Error::Api(status)) if status.code == 403 => return Some(Missing::Forbidden),
            Err(error) => Some(error),
        };
        // 400: the container waits to start; that is asked again soon.
        let soon = matches!(&failed, None | Some(kube::Error::Api(_)));
        pause = if soon { SHORT } else { (pause * 2).min(LONG) };
        match state(source).await {
            State::Gone => return Some(Missing::PodGone),
            State::Waiting if *over.borrow() == Over::Unbegun => return Some(Missing::NeverRan),
            State::Waiting if *over.borrow() == Over::Begun || !source.follow => {
                waited += 1;
                if waited > MOST_WAITS {
                    return Some(Missing::NeverRan);
                }
                tokio::time::sleep(pause).await;
            }
            State::Ended | State::Running
                if failed.is_some() && (ended || !(follow || catching_up) || failed_at_end > 0) =>
            {
                failed_at_end += 1;
                if failed_at_end > MOST_FAILURES {
                    return Some(Missing::Unreadable);
                }
                tokio::time::sleep(pause).await;
            }
            // A last look without waiting: the connection may have broken just before the end.
            State::Ended => (follow, ended) = (false, true),
            State::Waiting | State::Running | State::Unknown => tokio::time::sleep(pause).await,
        }
    }
}

async fn connection(
    source: &Source,
    follow: bool,
    previous: bool,
    heard: &mpsc::Sender<Heard>,
    decoder: &mut Decoder,
) -> kube::Result<()> {
    for piece in decoder.reconnect() {
        if heard.send(Heard::Piece(piece)).await.is_err() {
            return Ok(());
        }
    }
    let params = LogParams {
        container: Some(source.container.clone()),
        follow,
        previous,
        timestamps: true,
        since_time: decoder.since(),
        ..LogParams::default()
    };
    let answer = tokio::time::timeout(ANSWER, source.pods.log_stream(&source.pod, &params)).await;
    // Without an answer nothing is known of what there is.
    let mut stream = pin!(answer.map_err(|late| kube::Error::Service(late.into()))??);
    loop {
        let chunk = stream.fill_buf().await.map_err(kube::Error::ReadEvents)?;
        if chunk.is_empty() {
            return Ok(());
        }
        let length = chunk.len();
        let pieces = decoder.feed(chunk);
        stream.as_mut().consume(length);
        for piece in pieces {
            if heard.send(Heard::Piece(piece)).await.is_err() {
                return Ok(());
            }
        }
    }
}

async fn state(source: &Source) -> State {
    let Ok(Ok(pod)) = tokio::time::timeout(ANSWER, source.pods.get_opt(&source.pod)).await else {
        return State::Unknown;
    };
    let Some(pod) = pod else { return State::Gone };
    let status = pod.status.unwrap_or_default();
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    // Services are init containers that go on.
    let containers = status.container_statuses.into_iter().chain(status.init_container_statuses).flatten();
    let state = containers.into_iter().find(|c| c.name == source.container).and_then(|c| c.state);
    match state {
        Some(state) if state.terminated.is_some() => State::Ended,
        Some(state) if state.running.is_some() => State::Running,
        _ if ended => State::Ended,
        _ => State::Waiting,
    }
}

#[cfg(test)]
mod tests;
