//! The engine and the registry of a push: commit, door, push, clean up.
//!
//! `push` calls it through [`Transport`]; the agent's start and its sweep call [`Relay::sweep`] and [`Relay::thaw`].
//!
//! **Invariant:** no credential and no name of a user reaches the engine, and a committed image is removed however
//! the push ended.

use super::{
    line::Line,
    progress::Gauge,
    push::{Content, Files, Push, Transport},
    run::Run,
    scratch,
};
use crate::{
    api::{condition::reason, status::ImageStatus},
    engine::{
        BaseImage, BoxContainer, BoxState, COMMIT_LABEL, CommitKey, CommittedImage, Engine, EngineError, Leftover,
    },
    registry::{Client, Door, DoorJob, Progress, PushError, Pushed, Repository, Session, digest::Digest, push_layer},
    steps::{
        docker_push::{ImageChanges, scratch::Shape},
        image_config::{self, Provenance},
    },
};
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc, watch},
    time::Instant,
};

/// Pushes of a node at one time; its agent's memory is limited.
const PUSHES: usize = 3;
/// Least time between two words on progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// How long an engine may take to say that a box runs that has asked for something already, and between two looks.
const BOX_PATIENCE: Duration = Duration::from_secs(5);
const BOX_LOOK: Duration = Duration::from_millis(50);
/// Younger images of unknown runs may be the work of somebody else on this engine, another agent or a local run.
const YOUNG_S: i64 = 3600;
/// Box images whose config is remembered.
const BASES: usize = 16;
/// Largest config that is remembered, as JSON.
const BASE_BYTES: usize = 64 * 1024;
/// Pieces of a layer that wait for the upload.
const LAYER_QUEUE: usize = 8;
/// Tag under which the engine pushes to the door; it goes nowhere.
const DOOR_TAG: &str = "x";

/// The engine of the node and a client for registries.
#[derive(Clone)]
pub struct Relay {
    engine: Arc<dyn Engine>,
    client: Client,
    turns: Arc<Semaphore>,
    /// Configs of box images by ID, newest last: to read one keeps the engine busy while it should commit.
    bases: Arc<Mutex<VecDeque<(String, BaseImage)>>>,
    /// Of a step that began before, an agent that was killed may have committed the box already.
    since: Timestamp,
}

impl Relay {
    /// A relay between both.
    #[must_use]
    pub fn new(engine: Arc<dyn Engine>, client: Client) -> Self {
        let turns = Arc::new(Semaphore::new(PUSHES));
        Self { engine, client, turns, bases: Arc::default(), since: Timestamp::now() }
    }

    /// Removes committed images of runs that are not among these (by UID), once they are an hour old. Gives how
    /// many.
    ///
    /// # Errors
    /// The engine cannot list them; one that cannot be removed stays for the next sweep.
    pub async fn sweep(&self, live: &BTreeSet<String>) -> Result<usize, EngineError> {
        let mut removed = 0;
        for leftover in self.engine.leftovers().await? {
            let is_young = leftover.created_s > Timestamp::now().as_second().saturating_sub(YOUNG_S);
            if live.contains(&leftover.key.run_uid) || is_young {
                continue;
            }
            match self.engine.remove(&leftover.image).await {
                Ok(()) => removed += 1,
                Err(error) => tracing::warn!(run.uid = leftover.key.run_uid, "a committed image stays: {error}"),
            }
        }
        Ok(removed)
    }

    /// Thaws boxes that a commit left frozen. Only while no push is in flight for these pods.
    ///
    /// # Errors
    /// The engine cannot be asked.
    pub async fn thaw(&self, pod_uids: &[String]) -> Result<Vec<String>, EngineError> {
        self.engine.unpause_stuck(pod_uids).await
    }

    /// Waits for one of the few places: what a push holds in memory, all pushes of a node hold together.
    async fn turn(&self, line: &Line) -> Result<SemaphorePermit<'_>, PushError> {
        if let Ok(turn) = self.turns.try_acquire() {
            return Ok(turn);
        }
        line.progress("waiting for other pushes of this node".into());
        tokio::select! {
            turn = self.turns.acquire() => turn.map_err(|_| PushError::stopped()),
            () = line.stopped() => Err(PushError::stopped()),
        }
    }

    async fn live_box(&self, run: &Run) -> Result<BoxContainer, PushError> {
        let find = || find_box(self.engine.as_ref(), run);
        let found = find().await?;
        match found.state {
            BoxState::Running => Ok(found),
            // One step runs at a time, so no commit of this box is under way.
            BoxState::Paused => {
                self.thaw(std::slice::from_ref(&run.pod_uid)).await.map_err(failed)?;
                find().await
            }
        }
    }

    /// The config of the image that a box was made from. An ID is a digest, so what was read once stays true.
    async fn base_image(&self, container: &BoxContainer) -> Result<BaseImage, EngineError> {
        let known = self.known_bases().iter().find(|(id, _)| *id == container.image_id).map(|(_, base)| base.clone());
        if let Some(base) = known {
            return Ok(base);
        }
        let base = self.engine.base_image(container).await?;
        if base.config.to_string().len() > BASE_BYTES {
            return Ok(base);
        }
        let mut known = self.known_bases();
        if known.len() >= BASES {
            known.pop_front();
        }
        known.push_back((container.image_id.clone(), base.clone()));
        Ok(base)
    }

    fn known_bases(&self) -> MutexGuard<'_, VecDeque<(String, BaseImage)>> {
        self.bases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the engine push the image that bears the door's name.
    async fn through(
        &self,
        door: Door,
        target: &str,
        shown: watch::Receiver<Progress>,
        line: &Line,
    ) -> Result<Pushed, PushError> {
        let pushed = {
            let work = self.engine.push(target, &|_| {});
            tokio::select! {
                pushed = work => pushed,
                () = line.stopped() => Ok(()),
                () = show(shown, line) => Ok(()),
            }
        };
        // What the door says counts, as tags may have moved; of a push that never came to a manifest the engine
        // may know more.
        match (door.close().await, pushed) {
            (Ok(pushed), _) => Ok(pushed),
            (Err(error), Err(engine)) if error.reason == reason::COMMIT_FAILED && error.transient => {
                Err(failed(engine))
            }
            (Err(error), _) => Err(error),
        }
    }
}

/// The name that an image has for a door.
fn target(door: &Door) -> String {
    format!("{}:{DOOR_TAG}", door.target())
}

impl Relay {
    /// Pushes an image that an earlier step built, as it is; it stays for others.
    async fn push_built(&self, push: &Push, line: &Line, name: &str) -> Result<Pushed, PushError> {
        let built = self.engine.leftovers().await.map_err(failed)?;
        let is_it = |found: &&Leftover| found.key.run_uid == push.run.uid && found.key.step == name;
        let Some(found) = built.iter().find(is_it) else {
            let text = "no step of this run has built an image of this image-name";
            return Err(PushError::new(reason::COMMIT_FAILED, text));
        };
        let (progress, shown) = watch::channel(Progress::default());
        let config = |built: &[u8]| {
            let wrong = |error: serde_json::Error| PushError::new(reason::COMMIT_FAILED, error.to_string());
            let mut config: Value = serde_json::from_slice(built).map_err(wrong)?;
            image_config::forget_label(&mut config, COMMIT_LABEL);
            serde_json::to_vec(&config).map_err(wrong)
        };
        let job = DoorJob { config: Box::new(config), layers: None, ..job(push, line, None, progress) };
        let door = Door::open(self.client.clone(), job).await?;
        let target = target(&door);
        self.engine.name(&found.image, &target).await.map_err(failed)?;
        self.through(door, &target, shown, line).await
    }

    /// Pushes an image from scratch. The engine has no part in it.
    async fn push_files(&self, push: &Push, line: &Line, files: &Files) -> Result<Pushed, PushError> {
        let (archive, shape) = (files.open()?, files.shape);
        let (progress, shown) = watch::channel(Progress::default());
        let (sender, pieces) = mpsc::channel(LAYER_QUEUE);
        let making = tokio::task::spawn_blocking(move || scratch::make(archive, shape, sender));
        let made = async move {
            let broke_off = |_| PushError::transient(reason::COMMIT_FAILED, "the making of the layer broke off");
            making.await.map_err(broke_off)?
        };
        tokio::select! {
            pushed = push_layer(self.client.clone(), job(push, line, None, progress), pieces, made) => pushed,
            () = show(shown, line) => Err(PushError::stopped()),
        }
    }
}

impl Transport for Relay {
    fn push<'a>(&'a self, push: &'a Push, line: &'a Line) -> BoxFuture<'a, Result<Pushed, PushError>> {
        Box::pin(async move {
            let _turn = self.turn(line).await?;
            if let Content::Files(files) = &push.content {
                return self.push_files(push, line, files).await;
            }
            if let Content::Built(name) = &push.content {
                return self.push_built(push, line, name).await;
            }
            let began = Instant::now();
            let container = self.live_box(&push.run).await?;
            let key = CommitKey { run_uid: push.run.uid.clone(), step: push.step.clone() };
            if line.is_stopped() {
                return Err(PushError::stopped());
            }
            line.progress("committing the box".into());
            let base = self.base_image(&container).await.map_err(failed)?;
            let (progress, shown) = watch::channel(Progress::default());
            let door = Door::open(self.client.clone(), job(push, line, Some(&base), progress)).await?;
            let target = target(&door);
            let found_in = began.elapsed();
            // Under the name that it is pushed by: to name it again would take the engine ten milliseconds.
            let image = self.engine.commit(&container, &key, &target).await.map_err(failed)?;
            let committed_in = began.elapsed() - found_in;
            let result = self.through(door, &target, shown, line).await;
            let pushed_in = began.elapsed() - found_in - committed_in;
            tracing::debug!(run.name = push.run.name, ?found_in, ?committed_in, ?pushed_in, "the push took its time");
            let earlier = (push.created <= self.since).then_some(key);
            let discarded = discard(Arc::clone(&self.engine), image, earlier, push.run.name.clone());
            if result.is_ok() {
                // The engine may take a second for it, for which nobody needs to wait.
                tokio::spawn(discarded);
            } else {
                // The next try makes another.
                discarded.await;
            }
            result
        })
    }

    fn digest_of<'a>(
        &'a self,
        push: &'a Push,
        tag: &'a str,
        line: &'a Line,
    ) -> BoxFuture<'a, Result<Option<String>, PushError>> {
        Box::pin(async move {
            let found = self.session(push, line).head_manifest(tag).await?;
            Ok(found.map(|digest| digest.to_string()))
        })
    }

    fn tag_again<'a>(
        &'a self,
        push: &'a Push,
        digest: &'a str,
        tag: &'a str,
        line: &'a Line,
    ) -> BoxFuture<'a, Result<(), PushError>> {
        Box::pin(async move {
            let digest = Digest::parse(digest)
                .ok_or_else(|| PushError::new(reason::INTERRUPTED, "the recorded digest is not one"))?;
            self.session(push, line).tag_again(&digest, tag).await
        })
    }
}

impl Relay {
    fn session(&self, push: &Push, line: &Line) -> Session {
        let (client, repository) = (self.client.clone(), push.repository.clone());
        Session::new(client, repository, push.credentials.clone(), line.stop().clone())
    }
}

/// Removes a committed image, and what was committed earlier for the same step, if it is given; what cannot be removed now
/// is left to the sweep.
async fn discard(engine: Arc<dyn Engine>, image: CommittedImage, earlier: Option<CommitKey>, run: String) {
    let stays = |error| tracing::warn!(run.name = run, "a committed image stays for the sweep: {error}");
    let mut images = vec![image];
    if let Some(key) = earlier {
        let found = engine.leftovers().await.map_err(stays).unwrap_or_default();
        images.extend(found.into_iter().filter(|left| left.key == key).map(|left| left.image));
    }
    for image in images {
        engine.remove(&image).await.unwrap_or_else(stays);
    }
}

/// Who made an image, and when. Of files without times both are left out: the same files give the same image.
fn provenance(push: &Push) -> Provenance {
    let from = format!("{}/{} {}", push.run.namespace, push.run.name, push.step);
    let (created_by, created) = match &push.content {
        Content::Box if push.artifact => (format!("windlass storeContainer {from}"), push.created.to_string()),
        Content::Box | Content::Built(_) => (format!("windlass dockerPush {from}"), push.created.to_string()),
        Content::Files(Files { shape: Shape { zero_times: false, .. }, .. }) => {
            (format!("windlass dockerScratchPush {from}"), push.created.to_string())
        }
        Content::Files(_) => ("windlass dockerScratchPush".to_owned(), Timestamp::UNIX_EPOCH.to_string()),
    };
    Provenance { created_by, created }
}

/// What the door is to do; without a base image for an image from scratch.
fn job(push: &Push, line: &Line, base: Option<&BaseImage>, progress: watch::Sender<Progress>) -> DoorJob {
    let layers = base.map_or(0, |base| base.diff_ids.len()) + 1;
    let document = base.map(BaseImage::document);
    let changes: ImageChanges = push.plan.changes.clone();
    let provenance = provenance(push);
    let config = move |committed: &[u8]| {
        let wrong = |what: String| PushError::new(reason::COMMIT_FAILED, format!("the engine's config: {what}"));
        let committed = serde_json::from_slice(committed).map_err(|error| wrong(error.to_string()))?;
        let rebuilt = image_config::rebuild(document.as_ref(), &committed, &changes, &provenance);
        let rebuilt = rebuilt.map_err(|error| PushError::new(error.reason, error.message))?;
        serde_json::to_vec(&rebuilt).map_err(|error| wrong(error.to_string()))
    };
    let repository = push.repository.to_string();
    let (before, after) = (line.clone(), line.clone());
    DoorJob {
        repository: push.repository.clone(),
        tags: push.plan.tags.clone(),
        credentials: push.credentials.clone(),
        config: Box::new(config),
        secrets: push.secrets.clone(),
        secrets_in_image: push.plan.secrets_in_image,
        artifact: push.artifact,
        mount_from: base.and_then(|_| Repository::of_image(&push.run.spec.box_.image)),
        layers: Some(layers),
        progress,
        stop: line.stop().clone(),
        before_tags: Box::new(move |prepared| {
            let (line, repository) = (before.clone(), repository.clone());
            Box::pin(async move {
                let size = i64::try_from(prepared.size).ok();
                line.record(ImageStatus { repository, tags: Vec::new(), digest: prepared.digest, size }).await
            })
        }),
        after_tag: Box::new(move |tag| {
            after.moved(&tag);
            Box::pin(async { Ok(()) })
        }),
    }
}

/// Tells the line of progress; never ends, as the push itself does.
async fn show(progress: watch::Receiver<Progress>, line: &Line) {
    let (began, mut gauge, mut told) = (Instant::now(), Gauge::default(), String::new());
    loop {
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        let words = gauge.words(began.elapsed(), &progress.borrow());
        if words != told {
            line.progress(words.clone());
            told = words;
        }
    }
}

/// The box of a run. Its processes run before the engine says so: a short step ends while the start is still under
/// way.
async fn find_box(engine: &dyn Engine, run: &Run) -> Result<BoxContainer, PushError> {
    let until = Instant::now() + BOX_PATIENCE;
    loop {
        let found = engine.find_box(&run.pod_uid, &run.namespace, &run.pod_name).await.map_err(failed)?;
        if let Some(found) = found {
            return Ok(found);
        }
        if Instant::now() >= until {
            return Err(PushError::new(reason::COMMIT_FAILED, "the box is gone"));
        }
        tokio::time::sleep(BOX_LOOK).await;
    }
}

fn failed(error: EngineError) -> PushError {
    let text = error.to_string();
    if error.is_transient() {
        PushError::transient(reason::COMMIT_FAILED, text)
    } else {
        PushError::new(reason::COMMIT_FAILED, text)
    }
}

#[cfg(test)]
mod tests;
