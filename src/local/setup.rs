//! Brings a local run to the point where its box runs: images, directory, network, containers, `prepare`.
//!
//! `node` runs [`set_up`] beside its loop and hears of each container by [`News`].
//!
//! **Invariant:** decides nothing about the run but that it cannot start; all it makes is known to `node` before it is
//! made, so that it is removed whatever happens.

use super::{
    Request,
    containers::{self, Common},
    directory::RunDirectory,
    login,
    owner::Owner,
    services::Ended,
};
use crate::{
    api::{
        PipelineSpec,
        condition::reason,
        duration,
        pipeline::{ImagePullPolicy, OnExit, Service},
    },
    controller::{pod, status::Verdict},
    engine::{
        EngineError,
        docker::{
            DockerEngine,
            containers::{Bind, ContainerEnd},
            pulls::{LocalImage, PullProgress},
        },
    },
    prepare::{self, Here},
    progress::share,
    registry::docker_config::DockerLogins,
    wire::{Failure, Order},
};
use bytes::Bytes;
use futures::{StreamExt, future};
use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Between two words on a pull.
const TELL_PULL: Duration = Duration::from_millis(500);
/// Between two looks by a command whether a service is ready.
const LOOK: Duration = Duration::from_secs(1);
/// How long the engine may be away while a container runs: it is started anew when it is upgraded.
const AWAY: Duration = Duration::from_secs(60);
/// Pauses before a service that may end is started again: first and longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What `node` hears.
#[derive(Debug)]
pub(super) enum News {
    /// What the run waits for before its box runs.
    Stage(Verdict),
    /// The state of a container, as the kubelet would report it.
    Container(Box<ContainerStatus>),
    /// A service ended, and the run goes on.
    Ended(Ended),
    /// Everything is in place: the box goes on by itself.
    Prepared,
    /// It cannot start.
    Failed(Failure),
}

/// What was made of a run, for its removal.
#[derive(Clone, Default)]
pub(super) struct Made(Arc<Mutex<Things>>);

#[derive(Default)]
struct Things {
    containers: Vec<String>,
    network: Option<String>,
}

impl Made {
    /// Containers, the first made last, and the network. Nothing more is made.
    pub(super) fn take(&self) -> (Vec<String>, Option<String>) {
        let containers = self.containers();
        let mut things = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        things.containers.clear();
        (containers, things.network.take())
    }

    /// Containers, the first made last.
    pub(super) fn containers(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).containers.iter().rev().cloned().collect()
    }

    /// A container of this name is about to be made.
    pub(super) fn container(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).containers.push(name.to_owned());
    }

    /// Whether there is one of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).containers.iter().any(|made| made == name)
    }

    fn network(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).network = Some(name.to_owned());
    }
}

/// All that the setup needs.
pub(super) struct Setup {
    pub(super) request: Request,
    pub(super) spec: PipelineSpec,
    pub(super) order: Order,
    pub(super) engine: DockerEngine,
    pub(super) owner: Owner,
    pub(super) base: PathBuf,
    pub(super) uid: String,
    pub(super) pod: String,
    pub(super) made: Made,
    /// Told when the box was made: the engine has time for others then.
    pub(super) box_made: Arc<Notify>,
    pub(super) news: mpsc::UnboundedSender<News>,
    pub(super) output: mpsc::Sender<Bytes>,
    /// Cancelled when the run has ended: nothing more is made.
    pub(super) stop: CancellationToken,
}

/// Why the run cannot start.
enum Setback {
    Failed(Failure),
    Stopped,
}

impl From<Failure> for Setback {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn setback(reason: &str, message: impl Into<String>) -> Setback {
    Setback::Failed(Failure { reason: reason.into(), message: message.into() })
}

/// Sets everything up; what it started watches over the containers from then on.
pub(super) async fn set_up(setup: Setup, stopped: prepare::Stopped) {
    let news = setup.news.clone();
    match setup.run(stopped).await {
        Ok(()) | Err(Setback::Stopped) => {}
        Err(Setback::Failed(failure)) => drop(news.send(News::Failed(failure))),
    }
}

impl Setup {
    async fn run(&self, stopped: prepare::Stopped) -> Result<(), Setback> {
        // A pull can be given up; what the engine makes is waited for, so that it can be removed.
        let images = tokio::select! {
            images = self.images() => images?,
            () = self.stop.cancelled() => return Err(Setback::Stopped),
        };
        self.check_users(&images)?;
        let directory = self.directory()?;
        let keep = self.request.beside.keep;
        let owner = (!keep).then_some(&self.owner);
        let common = Common { uid: &self.uid, run: &self.request.name, pod: &self.pod, owner };
        let alone = self.spec.services.is_empty();
        if containers::needs_network(&self.spec, &self.request.beside) {
            self.made.network(&common.network());
            let made = self.engine.create_network(&common.network(), &common.network_labels()).await;
            made.map_err(|error| setback(reason::BOX_FAILED_TO_START, error.to_string()))?;
        }
        // Without services nothing that `prepare` does needs the box, nor the other way round.
        let early = alone.then(|| self.prepare(directory.root.clone(), Ipv4Addr::LOCALHOST.into()));
        let containers = async {
            let id = self.start_box(&common, &directory).await?;
            if alone {
                return Ok::<_, Setback>(None);
            }
            let address = self.engine.address(&id).await.map_err(|e| cannot_start(&self.spec.box_.image, &e))?;
            for service in &self.spec.services {
                self.start_service(&common, service, &id).await?;
            }
            Ok(address)
        };
        let place = directory.root.clone();
        match early {
            Some(here) => {
                let (prepared, started) = tokio::join!(self.prepared(here, stopped), containers);
                prepared?;
                started?;
            }
            None => {
                let address = containers.await?;
                let here = self.prepare(place, address.unwrap_or(Ipv4Addr::LOCALHOST.into()));
                self.prepared(here, stopped).await?;
            }
        }
        // Without a listener nobody waits for it.
        let _ = self.news.send(News::Prepared);
        Ok(())
    }

    fn goes_on(&self) -> Result<(), Setback> {
        if self.stop.is_cancelled() { Err(Setback::Stopped) } else { Ok(()) }
    }

    fn directory(&self) -> Result<RunDirectory, Setback> {
        let (spec, objects) = (&self.spec, &self.request.objects);
        RunDirectory::make(&self.base, &self.uid, &self.owner, &spec.box_.image, spec, objects)
            .map_err(|error| setback(reason::BOX_FAILED_TO_START, format!("cannot make the run's directory: {error}")))
    }

    fn prepare(&self, root: PathBuf, services: IpAddr) -> Here {
        let mut directory = self.request.directory.clone();
        if let Some(directory) = &mut directory {
            // A source may be all of /tmp, or of the home directory.
            directory.apart.extend([self.base.clone(), root.clone()]);
        }
        Here { root, runner: self.request.runner.clone(), directory, services }
    }

    async fn prepared(&self, here: Here, stopped: prepare::Stopped) -> Result<(), Setback> {
        let order = self.order.clone();
        let done = tokio::task::spawn_blocking(move || prepare::here(&order, &here, stopped)).await;
        match done {
            Ok(Ok(Some(()))) => Ok(()),
            Ok(Ok(None)) => Err(Setback::Stopped),
            Ok(Err(failure)) => Err(failure.into()),
            Err(error) => Err(setback(reason::BOX_FAILED_TO_START, format!("prepare broke off: {error}"))),
        }
    }

    /// Whether the box and the services may run as the users that they would have.
    fn check_users(&self, images: &HashMap<&str, LocalImage>) -> Result<(), Failure> {
        if let Some(image) = images.get(self.spec.box_.image.as_str()) {
            containers::check_box_user(&self.spec.box_, image)?;
        }
        for service in &self.spec.services {
            if let Some(image) = images.get(service.image.as_str()) {
                containers::check_service_user(service, image)?;
            }
        }
        Ok(())
    }

    /// Pulls what is missing, all at once. Gives the images of box and services by their names.
    async fn images(&self) -> Result<HashMap<&str, LocalImage>, Setback> {
        let of_box = (self.spec.box_.image.as_str(), self.spec.box_.image_pull_policy);
        let services = self.spec.services.iter().map(|s| (s.image.as_str(), s.image_pull_policy));
        let mut wanted: Vec<(&str, Option<ImagePullPolicy>)> = vec![of_box];
        for (image, policy) in services {
            if wanted.iter().all(|(known, _)| *known != image) {
                wanted.push((image, policy));
            }
        }
        let pulls = wanted
            .into_iter()
            .map(|(image, policy)| async move { Ok::<_, Setback>((image, self.image(image, policy).await?)) });
        future::join_all(pulls).await.into_iter().collect()
    }

    async fn image(&self, image: &str, policy: Option<ImagePullPolicy>) -> Result<LocalImage, Setback> {
        let look = async || {
            let found = self.engine.image(image).await;
            found.map_err(|error| setback(reason::IMAGE_PULL_FAILED, error.to_string()))
        };
        let there = look().await?;
        match (there, policy.unwrap_or(ImagePullPolicy::IfNotPresent)) {
            (Some(found), ImagePullPolicy::IfNotPresent | ImagePullPolicy::Never) => return Ok(found),
            (None, ImagePullPolicy::Never) => {
                let message = format!("image {image} is not on this machine and imagePullPolicy is Never");
                return Err(setback(reason::IMAGE_PULL_FAILED, message));
            }
            (_, ImagePullPolicy::Always) | (None, ImagePullPolicy::IfNotPresent) => {}
        }
        self.pull(image, &self.request.logins).await?;
        look()
            .await?
            .ok_or_else(|| setback(reason::IMAGE_PULL_FAILED, format!("image {image} was pulled and is not there")))
    }

    async fn pull(&self, image: &str, logins: &DockerLogins) -> Result<(), Setback> {
        let say = |words: String| drop(self.news.send(News::Stage(Verdict::goes_on(reason::PULLING_IMAGES, words))));
        say(format!("pulling {image}"));
        let told = Mutex::new(Instant::now());
        let tell = |progress: PullProgress| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.elapsed() >= TELL_PULL {
                *told = Instant::now();
                say(format!("pulling {image}: {}", words(progress)));
            }
        };
        let login = match self.request.beside.logins.get(image) {
            Some(own) => login::for_pull(own, image),
            None => login::of_pull(logins, image).await,
        };
        let pulled = self.engine.pull(image, login, &tell).await;
        pulled.map_err(|error| {
            let message = format!("image {image} cannot be pulled: {}", own_words(&error));
            setback(reason::IMAGE_PULL_FAILED, message)
        })
    }

    async fn start_box(&self, common: &Common<'_>, directory: &RunDirectory) -> Result<String, Setback> {
        self.goes_on()?;
        let mut binds = directory.binds();
        if let Some(project) = self.request.directory.as_ref().filter(|project| project.mounted) {
            let target = self.spec.box_.working_dir.clone().unwrap_or_default();
            binds.push(Bind { source: project.path.clone(), target, read_only: false });
        }
        let spec = containers::of_box(common, &self.spec, binds, &self.request);
        self.made.container(&spec.name);
        let failed = |error: EngineError| cannot_start(&spec.image, &error);
        let id = self.engine.create(&spec).await.map_err(failed)?;
        let mut printed = self.engine.attach(&id).await.map_err(failed)?;
        let output = self.output.clone();
        tokio::spawn(async move {
            while let Some(bytes) = printed.next().await {
                if output.send(bytes).await.is_err() {
                    return;
                }
            }
        });
        self.box_made.notify_one();
        if let Err(error) = self.engine.start(&id).await {
            // Judged as a box that the kubelet could not start.
            let end = ContainerEnd { code: 128, out_of_memory: false, error: own_words(&error) };
            self.container(pod::BOX, ended(&end, false));
            return Err(Setback::Stopped);
        }
        self.container(pod::BOX, running());
        let (engine, news, watched) = (self.engine.clone(), self.news.clone(), id.clone());
        tokio::spawn(async move {
            let _ = news.send(match until_ended(|| engine.ended(&watched)).await {
                Ok(end) => {
                    let end = end.unwrap_or(ContainerEnd { code: 137, ..ContainerEnd::default() });
                    News::Container(Box::new(status(pod::BOX, ended(&end, true))))
                }
                Err(error) => News::Failed(Failure {
                    reason: reason::NODE_LOST.into(),
                    message: format!("what becomes of the box is not known: {error}"),
                }),
            });
        });
        Ok(id)
    }

    fn container(&self, name: &str, state: ContainerState) {
        let _ = self.news.send(News::Container(Box::new(status(name, state))));
    }

    async fn start_service(&self, common: &Common<'_>, service: &Service, box_id: &str) -> Result<(), Setback> {
        self.goes_on()?;
        let spec = containers::of_service(common, service, box_id, &self.request)?;
        let name = format!("{}{}", pod::SERVICE_PREFIX, service.name);
        self.made.container(&spec.name);
        let failed = |error: EngineError| {
            let message =
                format!("service {}: image {} cannot be started: {}", service.name, spec.image, own_words(&error));
            setback(reason::SERVICE_FAILED, message)
        };
        let id = self.engine.create(&spec).await.map_err(failed)?;
        self.engine.start(&id).await.map_err(failed)?;
        self.container(&name, running());
        tokio::spawn(watch_service(self.engine.clone(), self.news.clone(), id.clone(), service.clone()));
        let Some(readiness) = &service.readiness else { return Ok(()) };
        let Some(exec) = &readiness.exec else { return Ok(()) };
        let stage = format!("waiting for {} (command)", service.name);
        let _ = self.news.send(News::Stage(Verdict::goes_on(reason::WAITING_FOR_SERVICES, stage)));
        let until = Instant::now() + duration::parse(&readiness.within).unwrap_or_default();
        loop {
            self.goes_on()?;
            if self.engine.run_in(&id, &exec.command).await.is_ok_and(|code| code == 0) {
                return Ok(());
            }
            if Instant::now() + LOOK > until {
                let message =
                    format!("service {}: its command does not succeed after {}", service.name, readiness.within);
                return Err(setback(reason::SERVICE_NOT_READY, message));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Waits for the end of a container, by an engine that may be away for a while.
///
/// # Errors
/// Its own, if it stays away.
async fn until_ended<F>(wait: impl Fn() -> F) -> Result<Option<ContainerEnd>, EngineError>
where
    F: Future<Output = Result<Option<ContainerEnd>, EngineError>>,
{
    let mut away_since = None;
    loop {
        let began = Instant::now();
        match wait().await {
            Err(error) if error.is_transient() => {
                // A wait that went well for long was not away before.
                let since = *away_since.get_or_insert(began);
                if began.elapsed() > AWAY {
                    away_since = None;
                } else if since.elapsed() > AWAY {
                    return Err(error);
                }
            }
            known => return known,
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Tells when a service ends by itself. One whose end does not matter is started again, as the kubelet does it.
async fn watch_service(engine: DockerEngine, news: mpsc::UnboundedSender<News>, id: String, service: Service) {
    let mut pause = FIRST_PAUSE;
    while let Ok(Some(end)) = until_ended(|| engine.ended(&id)).await {
        let words = engine.last_words(&id).await;
        if service.on_exit == OnExit::FailRun {
            let mut state = ended(&end, true);
            if let Some(end) = &mut state.terminated {
                end.message = Some(words).filter(|words| !words.is_empty());
            }
            let name = format!("{}{}", pod::SERVICE_PREFIX, service.name);
            let status = ContainerStatus { restart_count: 1, ..status(&name, state) };
            let _ = news.send(News::Container(Box::new(status)));
            return;
        }
        let _ = news.send(News::Ended(Ended { service: service.name.clone(), end, words, again: true }));
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        if news.is_closed() || engine.start(&id).await.is_err() {
            return;
        }
    }
}

/// A container as the kubelet reports it.
pub(super) fn status(name: &str, state: ContainerState) -> ContainerStatus {
    ContainerStatus { name: name.to_owned(), state: Some(state), ..ContainerStatus::default() }
}

fn running() -> ContainerState {
    let running = ContainerStateRunning { started_at: Some(Time(Timestamp::now())) };
    ContainerState { running: Some(running), ..ContainerState::default() }
}

fn ended(end: &ContainerEnd, started: bool) -> ContainerState {
    let now = Time(Timestamp::now());
    let terminated = ContainerStateTerminated {
        exit_code: end.code,
        reason: end.out_of_memory.then(|| "OOMKilled".to_owned()),
        message: Some(end.error.clone()).filter(|words| !words.is_empty()),
        started_at: started.then(|| now.clone()),
        finished_at: Some(now),
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

fn words(progress: PullProgress) -> String {
    let PullProgress { done, total, layers_there, layers } = progress;
    format!("{layers_there} of {layers} layers, {}", share(done, total))
}

/// The engine's words without ours.
fn own_words(error: &EngineError) -> String {
    match error {
        EngineError::NotFound { message, .. } | EngineError::Refused { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

fn cannot_start(image: &str, error: &EngineError) -> Setback {
    let words = own_words(error);
    if words.contains("bind source path does not exist") {
        let message = "the engine does not see this machine's directories: it runs elsewhere, or in a sandbox. Local runs \
                       need an engine on this machine; if it is one, set TMPDIR to a directory that it sees";
        return setback(reason::BOX_FAILED_TO_START, message);
    }
    setback(reason::BOX_FAILED_TO_START, format!("image {image} cannot be started: {words}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Waits that answer after so many seconds each; the last again and again.
    async fn ended_after(waits: &[(u64, Result<i32, ()>)]) -> Result<Option<ContainerEnd>, EngineError> {
        let next = Cell::new(0);
        until_ended(|| {
            let (seconds, answer) = waits[next.replace(next.get() + 1).min(waits.len() - 1)];
            async move {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                let end = answer.map(|code| Some(ContainerEnd { code, ..ContainerEnd::default() }));
                end.map_err(|()| EngineError::TimedOut { call: "wait" })
            }
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_comes_back_is_asked_again() {
        let away = (0, Err(()));
        for waits in [&[away, away, (5, Ok(7))][..], &[(3600, Err(())), (3600, Err(())), away, (1, Ok(7))]] {
            assert_eq!(ended_after(waits).await.unwrap().unwrap().code, 7, "{waits:?}");
        }
        let began = Instant::now();
        assert!(ended_after(&[(4000, Err(())), away]).await.is_err());
        let waited = began.elapsed().as_secs();
        assert!((4060..4070).contains(&waited), "{waited}");
    }
}
