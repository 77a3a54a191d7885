//! Follows one run: observe, plan, apply, until there is nothing more to do for it.
//!
//! `mod` starts a [`follow`] for each run of the node and ends it when the run leaves.
//!
//! **Invariant:** the one writer of the run's status. What is lost with this task can be had again from the files and
//! the status.

use super::{
    apply::{StatusSink, WriteError},
    doorbell::{Bell, Doorbell},
    files::{FileError, Volumes},
    line::{Line, Message},
    observe::Sight,
    plan::{Change, Observed, RunEvent, plan},
    push::{Job, Transport, carry_out},
    run::{Run, Wish},
    shelf::Shelf,
    status::{AgentStatus, compose, pushed},
    work::{Verdict, Work},
};
use crate::{
    api::{
        condition::reason,
        status::{ImageStatus, StepStatus},
    },
    wire::{Answer, CANCEL_FILE, RECORDED_FILE, answer_file, verdict_file},
};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Between two looks while the journal is not there yet: first and longest.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const SLOWEST_LOOK: Duration = Duration::from_millis(250);
/// Between two looks when the doorbell cannot be hung.
const LOOK_WITHOUT_BELL: Duration = Duration::from_millis(50);
/// Least time between two looks, however often the box rings.
const LEAST_LOOK: Duration = Duration::from_millis(3);
/// Pauses after a change that failed: first and longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Least time between two changes of a step's progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// How long work may take to stop once its run has left.
const LEAVE_GRACE: Duration = Duration::from_secs(30);

/// What all followers share.
pub struct Post {
    /// The kubelet's folder.
    pub kubelet_dir: PathBuf,
    /// Where statuses go.
    pub sink: Arc<dyn StatusSink>,
    /// The engine and the registry.
    pub transport: Arc<dyn Transport>,
    /// Where stored containers go.
    pub shelf: Arc<Shelf>,
    /// Rings when a box writes; without it the followers look often.
    pub doorbell: Option<Doorbell>,
    /// How often a status may be written.
    pub pace: Pace,
    /// Cancelled when the agent shuts down: no new work.
    pub stopping: CancellationToken,
}

/// How often a run's status may be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// Seldom, as each write goes to an API server that others use too.
    #[default]
    Sparing,
    /// At once, as a local run keeps its status in memory and somebody watches it.
    AtOnce,
}

impl Pace {
    /// Least time between two words on a push's progress.
    fn progress(self) -> Duration {
        match self {
            Self::Sparing => PROGRESS_INTERVAL,
            Self::AtOnce => PROGRESS_INTERVAL / 10,
        }
    }
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
enum ChangeError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    File(#[from] FileError),
}

/// Follows a run until it needs no more, or `leave` is cancelled.
pub async fn follow(
    post: Arc<Post>,
    run: Arc<Run>,
    recorded: AgentStatus,
    wish: watch::Receiver<Wish>,
    leave: CancellationToken,
) {
    let mut follower = Follower::new(post, run, recorded, wish);
    tokio::select! {
        biased;
        () = leave.cancelled() => {}
        () = follower.run() => return,
    }
    follower.leave().await;
}

/// The task's state.
struct Follower {
    post: Arc<Post>,
    run: Arc<Run>,
    wish: watch::Receiver<Wish>,
    sight: Sight,
    recorded: AgentStatus,
    works: BTreeMap<usize, Work>,
    stops: BTreeMap<usize, CancellationToken>,
    tasks: JoinSet<()>,
    sender: mpsc::UnboundedSender<Message>,
    messages: mpsc::UnboundedReceiver<Message>,
    /// Digests whose push waits until they stand in the status.
    unwritten: Vec<(usize, String, oneshot::Sender<()>)>,
    last_write: Option<Instant>,
    last_look: Option<Instant>,
    /// Whether the last look saw all there is.
    looked_well: bool,
    last_progress: Option<Instant>,
    /// The newest word on progress, until its time comes.
    progress: Option<(usize, String)>,
    bell: Arc<Notify>,
    hung: Option<Bell>,
    look_every: Duration,
    pause: Duration,
    /// What the box did wrong last, told once.
    told: Option<String>,
}

impl Follower {
    fn new(post: Arc<Post>, run: Arc<Run>, recorded: AgentStatus, wish: watch::Receiver<Wish>) -> Self {
        let (sender, messages) = mpsc::unbounded_channel();
        let volumes = Volumes::new(&post.kubelet_dir, &run.pod_uid);
        Self {
            sight: Sight::new(volumes, &run),
            post,
            run,
            wish,
            recorded,
            works: BTreeMap::new(),
            stops: BTreeMap::new(),
            tasks: JoinSet::new(),
            sender,
            messages,
            unwritten: Vec::new(),
            last_write: None,
            last_look: None,
            looked_well: false,
            last_progress: None,
            progress: None,
            bell: Arc::new(Notify::new()),
            hung: None,
            look_every: FIRST_LOOK,
            pause: FIRST_PAUSE,
            told: None,
        }
    }

    async fn run(&mut self) {
        loop {
            self.look().await;
            self.note_progress();
            let plan = plan(&self.observed());
            if plan.done {
                return;
            }
            let changed = !plan.changes.is_empty();
            match self.apply(plan.changes).await {
                Ok(()) => self.pause = FIRST_PAUSE,
                Err(ChangeError::Write(WriteError::Gone)) => {
                    tracing::info!(run.namespace = self.run.namespace, run.name = self.run.name, "the run is gone");
                    return self.leave().await;
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    let (namespace, name) = (&self.run.namespace, &self.run.name);
                    tracing::warn!(run.namespace = namespace, run.name = name, cause, "failed to {error}");
                    tokio::time::sleep(self.pause).await;
                    self.hear_all();
                    self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
                    continue;
                }
            }
            if !changed {
                self.wait(plan.wake).await;
            }
        }
    }

    fn observed(&self) -> Observed<'_> {
        Observed {
            run: &self.run,
            journal: &self.sight.journal,
            recorded: &self.recorded,
            answered: &self.sight.answered,
            works: &self.works,
            wish: *self.wish.borrow(),
            cancel_told: self.sight.cancel_told,
            record_told: self.sight.record_told,
            is_whole: self.looked_well,
            pod_ip: self.sight.pod_ip,
            since_write: self.last_write.filter(|_| self.post.pace == Pace::Sparing).map(|at| at.elapsed()),
            stopping: self.post.stopping.is_cancelled(),
        }
    }

    /// Looks at the files, not more often than is good.
    async fn look(&mut self) {
        if let Some(rest) = self.last_look.and_then(|at| LEAST_LOOK.checked_sub(at.elapsed())) {
            tokio::time::sleep(rest).await;
        }
        self.last_look = Some(Instant::now());
        self.hang();
        let looked = self.sight.look();
        self.looked_well = looked.is_ok();
        for (step, verdict) in std::mem::take(&mut self.sight.verdicts) {
            self.works.entry(step).or_insert(Work::Done(verdict));
        }
        if let Err(error) = looked {
            let text = error.to_string();
            if self.told.as_ref() != Some(&text) {
                tracing::warn!(run.namespace = self.run.namespace, run.name = self.run.name, "failed to {text}");
                self.told = Some(text);
            }
        }
    }

    /// Hangs a bell on `out`. Until the journal is there again and again: the kubelet may mount over the directory.
    fn hang(&mut self) {
        if self.sight.found && self.hung.is_some() {
            self.look_every = SLOWEST_LOOK;
            return;
        }
        let out = self.sight.volumes().out_dir();
        let hung = self.post.doorbell.as_ref().and_then(|doorbell| doorbell.hang(&out, &self.bell).ok());
        let old = std::mem::replace(&mut self.hung, hung);
        // The same directory has the same watch, which dropping the old bell would take off.
        if let (Some(old), Some(new)) = (old, &self.hung)
            && old.is_same(new)
        {
            old.keep();
        }
        self.look_every = match (self.sight.found, &self.hung) {
            (true, Some(_)) => SLOWEST_LOOK,
            (true, None) => LOOK_WITHOUT_BELL,
            (false, _) => self.look_every.saturating_mul(5).checked_div(4).unwrap_or(SLOWEST_LOOK).min(SLOWEST_LOOK),
        };
    }

    async fn apply(&mut self, changes: Vec<Change>) -> Result<(), ChangeError> {
        // A file that cannot be put, as its pod is going, must not keep the status from being written.
        let mut unfiled = None;
        for change in changes {
            match change {
                Change::TellCancel => match self.sight.volumes().put_in(CANCEL_FILE, b"") {
                    Ok(_) => self.sight.cancel_told = true,
                    Err(error) => unfiled = Some(error),
                },
                Change::StopWork(step) => self.stop(step),
                Change::WriteStatus(status) => {
                    self.post.sink.write(&self.run, &status).await?;
                    self.recorded = *status;
                    self.last_write = Some(Instant::now());
                    self.release();
                }
                Change::Emit(event) => self.post.sink.emit(&self.run, &event),
                Change::StartWork { step, began_ms, recorded } => {
                    let (run, shelf) = (Arc::clone(&self.run), Arc::clone(&self.post.shelf));
                    self.start(Job { run, shelf, step, began_ms, recorded });
                }
                Change::Answer { step, verdict, answer } => {
                    unfiled = self.answer(step, verdict.as_ref(), &answer).err().or(unfiled);
                }
                Change::TellRecorded => match self.sight.volumes().put_in(RECORDED_FILE, b"") {
                    Err(error) if !error.is_absent() => unfiled = Some(error),
                    // A box that is gone needs no word.
                    Ok(_) | Err(_) => self.sight.record_told = true,
                },
            }
        }
        unfiled.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Answers the runner, which may end the run at once: what the answer rests on is kept before.
    fn answer(&mut self, step: usize, verdict: Option<&Verdict>, answer: &Answer) -> Result<(), FileError> {
        if let Some(verdict) = verdict {
            self.sight.volumes().put_in(&verdict_file(step), &verdict.to_bytes(step))?;
        }
        // Strings and booleans only: this cannot fail.
        let bytes = serde_json::to_vec(answer).unwrap_or_default();
        self.sight.volumes().put_in(&answer_file(step), &bytes)?;
        self.sight.answered.insert(step);
        Ok(())
    }

    /// Lets pushes go on whose digest stands in the status now.
    fn release(&mut self) {
        for (step, digest, written) in std::mem::take(&mut self.unwritten) {
            let name = self.run.outline.get(step).map(|step| step.name.as_str()).unwrap_or_default();
            let images = self.recorded.step(name).map(|step| step.images.as_slice()).unwrap_or_default();
            let stored = self.recorded.artifacts.iter().filter_map(|artifact| artifact.digest.as_ref());
            if images.iter().map(|image| &image.digest).chain(stored).any(|known| *known == digest) {
                // A push that has stopped does not wait any more.
                let _ = written.send(());
            } else {
                self.unwritten.push((step, digest, written));
            }
        }
    }

    fn start(&mut self, job: Job) {
        let step = job.step;
        let stop = CancellationToken::new();
        let line = Line::new(step, self.sender.clone(), stop.clone());
        let (volumes, transport) = (self.sight.volumes().clone(), Arc::clone(&self.post.transport));
        self.works.insert(step, Work::Running { message: None, image: job.recorded.clone(), stopping: false });
        self.stops.insert(step, stop);
        self.tasks.spawn(async move {
            let verdict = carry_out(&volumes, transport.as_ref(), &job, &line).await;
            line.end(verdict);
        });
    }

    fn stop(&mut self, step: usize) {
        if let Some(Work::Running { stopping, .. }) = self.works.get_mut(&step) {
            *stopping = true;
        }
        if let Some(stop) = self.stops.get(&step) {
            stop.cancel();
        }
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Progress { step, text } => self.progress = Some((step, text)),
            Message::Image { step, image: new, written } => {
                if let Some(written) = written {
                    self.unwritten.push((step, new.digest.clone(), written));
                }
                if let Some(Work::Running { image, .. }) = self.works.get_mut(&step) {
                    *image = Some(new);
                }
                // It may stand there already, if an earlier try came to the same image.
                self.release();
            }
            Message::Ended { step, verdict } => {
                self.works.insert(step, Work::Done(verdict));
                self.stops.remove(&step);
            }
        }
    }

    /// Takes the newest word on progress, now and then.
    fn note_progress(&mut self) {
        if self.last_progress.is_some_and(|at| at.elapsed() < self.post.pace.progress()) {
            return;
        }
        let Some((step, text)) = self.progress.take() else { return };
        if let Some(Work::Running { message, .. }) = self.works.get_mut(&step) {
            *message = Some(text);
            self.last_progress = Some(Instant::now());
        }
    }

    /// Waits until there may be something new.
    async fn wait(&mut self, wake: Option<Duration>) {
        let longest = wake.map_or(self.look_every, |wake| wake.min(self.look_every));
        let stopping = self.post.stopping.clone();
        tokio::select! {
            () = self.bell.notified() => {}
            () = tokio::time::sleep(longest) => {}
            Some(message) = self.messages.recv() => self.hear(message),
            Ok(()) = self.wish.changed() => {}
            () = stopping.cancelled(), if !stopping.is_cancelled() => {}
        }
        self.hear_all();
    }

    fn hear_all(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            self.hear(message);
        }
    }

    /// Ends the work in flight: nobody waits for it any more. What it moved before that is told.
    async fn leave(&mut self) {
        self.stops.values().for_each(CancellationToken::cancel);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(LEAVE_GRACE, ended).await.is_err() {
            tracing::warn!(run.namespace = self.run.namespace, run.name = self.run.name, "work did not stop in time");
        }
        self.hear_all();
        let seen = self.observed();
        let status = compose(seen.run, seen.journal, seen.recorded, seen.works, seen.pod_ip);
        let unsaid = unsaid(seen.recorded, &status);
        if unsaid.is_empty() {
            return;
        }
        let error = match self.post.sink.write_last(&self.run, &status).await {
            Ok(true) => return,
            Ok(false) => None,
            Err(error) => Some(error.to_string()),
        };
        let (namespace, name) = (&self.run.namespace, &self.run.name);
        let but = if error.is_some() { "the status could not be written" } else { "the run had ended" };
        for image in unsaid {
            let note = format!("{}, but {but}", pushed(image));
            tracing::warn!(run.namespace = namespace, run.name = name, error, "{note}");
            self.post.sink.emit(&self.run, &RunEvent { reason: reason::PUSHED, note });
        }
    }
}

/// Images with tags of which nothing is recorded.
fn unsaid<'a>(recorded: &AgentStatus, status: &'a AgentStatus) -> Vec<&'a ImageStatus> {
    let is_known =
        |step: &StepStatus, image| recorded.step(&step.name).is_some_and(|known| known.images.contains(image));
    let images = status.steps.iter().flat_map(|step| step.images.iter().map(move |image| (step, image)));
    let moved = images.filter(|(step, image)| !image.tags.is_empty() && !is_known(step, image));
    moved.map(|(_, image)| image).collect()
}

#[cfg(test)]
mod tests;
