//! The loop of a local run: what controller, kubelet and agent of a cluster do for one run, in one task.
//!
//! `start` makes it. The state is a `PipelineRun` and the status of its pod, judged by the controller's own code after
//! each change; whoever watches sees the same object as in a cluster.
//!
//! **Invariant:** the one writer of the run. An ended run never goes on, and when the task ends nothing of the run is
//! left but what could not be removed, which the next run's sweep finds.

use super::{
    NAMESPACE, Request, Stayed,
    containers::needs_network,
    directory,
    login::WithLogins,
    masked,
    owner::Owner,
    services::Services,
    setup::{Made, News, Setup, set_up},
    words::{locally, of_run, of_step},
    workshop::Workshop,
};
use crate::{
    agent::{
        apply::{StatusSink, WriteError},
        doorbell::Doorbell,
        follow::{Pace, Post, follow},
        plan::RunEvent,
        run::{Run, Seen, Wish},
        status::AgentStatus,
        transport::Relay,
    },
    api::{
        PipelineRun, PipelineSpec,
        condition::reason,
        duration,
        here::HereStep,
        run::{Cancel, pod_name},
        status::{PipelineRunStatus, StepPhase, Summary},
    },
    controller::{
        PodSettings,
        judge::{self, Judgement},
        order,
        plan::Observed,
        pod,
        resolve::Resolved,
        status::{self, Outcome, PodFacts, Verdict},
    },
    engine::{Engine, docker::DockerEngine},
    mask::Mask,
    prepare::Stopper,
    registry::Client as RegistryClient,
    wire::{Failure, Order, RunInfo},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod, PodStatus},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// The attempt: a local run is never repeated by itself.
const ATTEMPT: u32 = 1;
/// How long the runner's last record, which says more than the exit of the box, is waited for.
const REPORT_GRACE: Duration = Duration::from_secs(3);
/// Longest wait without news.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How long the engine may take to end what it is making.
const SETUP_GRACE: Duration = Duration::from_secs(20);
/// Tries to remove the network, and the pause between two.
const NETWORK_TRIES: u32 = 20;
const NETWORK_PAUSE: Duration = Duration::from_millis(100);
/// How long the agent's part may take to end.
const LEAVE_GRACE: Duration = Duration::from_secs(35);

/// See the module.
pub(super) struct Node {
    run: PipelineRun,
    spec: PipelineSpec,
    containers: Vec<ContainerStatus>,
    /// What the run waits for before its box runs.
    stage: Option<Verdict>,
    failed: Option<Failure>,
    changes: watch::Sender<PipelineRun>,
    /// Hides what nobody may see of the run.
    mask: Mask,
    engine: DockerEngine,
    transport: Arc<WithLogins<Relay>>,
    services: Services,
    request: Request,
    order: Order,
    owner: Owner,
    base: PathBuf,
    uid: String,
    made: Made,
}

/// Takes what the agent's part says to the loop.
struct Sink(mpsc::UnboundedSender<AgentStatus>);

impl StatusSink for Sink {
    fn write<'a>(&'a self, _run: &'a Run, status: &'a AgentStatus) -> BoxFuture<'a, Result<(), WriteError>> {
        // In the loop's hands it is as good as written: nothing is kept beyond this process.
        let taken = self.0.send(status.clone()).map_err(|_| WriteError::Gone);
        Box::pin(std::future::ready(taken))
    }

    fn write_last<'a>(&'a self, _run: &'a Run, status: &'a AgentStatus) -> BoxFuture<'a, Result<bool, WriteError>> {
        Box::pin(std::future::ready(Ok(self.0.send(status.clone()).is_ok())))
    }

    fn emit(&self, _run: &Run, _event: &RunEvent) {}
}

/// The part of the loop that plays the agent.
struct Agent {
    said: mpsc::UnboundedReceiver<AgentStatus>,
    wish: watch::Sender<Wish>,
    leave: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Node {
    /// A run that has not begun, where it is seen, and what is said of it beside.
    pub(super) fn new(
        request: Request,
        resolved: Resolved,
        engine: DockerEngine,
        registry: RegistryClient,
        owner: Owner,
        base: PathBuf,
    ) -> (Self, watch::Receiver<PipelineRun>, mpsc::UnboundedReceiver<String>) {
        let now = Timestamp::now();
        let uid = request.uid.clone();
        let pod = pod_name(&request.name, ATTEMPT);
        let spec = resolved.spec;
        let mut run = PipelineRun::new(&request.name, request.spec.clone());
        run.metadata.namespace = Some(NAMESPACE.into());
        run.metadata.uid = Some(uid.clone());
        run.metadata.creation_timestamp = Some(Time(now));
        run.status = Some(PipelineRunStatus {
            pipeline_spec: serde_json::to_value(&spec).ok(),
            params: resolved.params,
            attempt: Some(ATTEMPT),
            pod_name: Some(pod.clone()),
            pod_uid: Some(uid.clone()),
            start_time: Some(Time(now)),
            ..PipelineRunStatus::default()
        });
        let info = RunInfo {
            name: request.name.clone(),
            namespace: NAMESPACE.into(),
            uid: uid.clone(),
            build_number: 0,
            pipeline: request.pipeline.clone(),
            attempt: ATTEMPT,
            pod,
        };
        let timeout = duration::parse(&spec.timeout).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millisecond()).unwrap_or_default();
        let deadline_ms = now_ms.saturating_add(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        let order = order::order(&spec, info, deadline_ms, order::breakpoints(&request.spec));
        let any: Arc<dyn Engine> = Arc::new(engine.clone());
        let inner = Relay::new(any, registry);
        let made = Made::default();
        let has_network = needs_network(&spec, &request.beside);
        let workshop = Workshop::new(engine.clone(), request.clone(), &owner, has_network, made.clone());
        let transport = Arc::new(WithLogins { inner, logins: request.logins.clone(), workshop });
        let (services, notices) = Services::new(&request, &spec, engine.clone());
        let mask = request.mask(std::iter::empty());
        let (changes, seen) = watch::channel(masked::run(&mask, &run));
        let node = Self {
            run,
            spec,
            containers: Vec::new(),
            stage: None,
            failed: None,
            changes,
            mask,
            engine,
            transport,
            services,
            request,
            order,
            owner,
            base,
            uid,
            made,
        };
        (node, seen, notices)
    }

    /// Carries the run out and removes what it made; what is to stay is given.
    pub(super) async fn carry_out(
        mut self,
        mut wished: watch::Receiver<Wish>,
        output: mpsc::Sender<Bytes>,
        box_made: Arc<Notify>,
    ) -> Option<Stayed> {
        self.transport.workshop.print_to(&output);
        let (news_sender, mut news) = mpsc::unbounded_channel();
        let (stopper, stopped) = Stopper::new();
        let stop = CancellationToken::new();
        let made = Arc::clone(&box_made);
        let setup = Setup { box_made, ..self.setup(news_sender, output, stop.clone()) };
        let mut setting_up = tokio::spawn(set_up(setup, stopped));
        let mut agent = self.agent();
        let mut wake = self.look();
        while let Some(longest) = wake {
            let following = agent.task.is_some();
            tokio::select! {
                Some(news) = news.recv() => self.hear(news, &mut agent).await,
                Some(status) = agent.said.recv() => self.take(status),
                Ok(()) = wished.changed() => {
                    let wish = *wished.borrow_and_update();
                    // Told apart by whoever was first: a box that is let begin hears of it and ends its steps itself.
                    if wish != Wish::Go && !stopper.stop() {
                        self.prepared();
                    }
                    self.wish(wish, &agent, following);
                }
                () = tokio::time::sleep(longest) => {}
            }
            while let Ok(status) = agent.said.try_recv() {
                self.take(status);
            }
            if self.status().report.is_some() {
                self.services.look().await;
            }
            wake = self.look();
        }
        stop.cancel();
        stopper.stop();
        // There may be no box.
        made.notify_one();
        if tokio::time::timeout(SETUP_GRACE, &mut setting_up).await.is_err() {
            setting_up.abort();
        }
        self.clean(agent).await
    }

    fn setup(&self, news: mpsc::UnboundedSender<News>, output: mpsc::Sender<Bytes>, stop: CancellationToken) -> Setup {
        Setup {
            request: self.request.clone(),
            spec: self.spec.clone(),
            order: self.order.clone(),
            engine: self.engine.clone(),
            owner: self.owner.clone(),
            base: self.base.clone(),
            uid: self.uid.clone(),
            pod: pod_name(&self.request.name, ATTEMPT),
            made: self.made.clone(),
            box_made: Arc::default(),
            news,
            output,
            stop,
        }
    }

    /// The agent's part, before the box runs.
    fn agent(&self) -> Agent {
        let (_, said) = mpsc::unbounded_channel();
        Agent { said, wish: watch::channel(Wish::Go).0, leave: CancellationToken::new(), task: None }
    }

    /// Begins to follow the box's files.
    fn follow(&self, agent: &mut Agent) {
        if agent.task.is_some() {
            return;
        }
        let Seen::Follow { run, recorded, wish } = Run::read(&self.run) else { return };
        let (sender, said) = mpsc::unbounded_channel();
        let post = Post {
            kubelet_dir: self.base.join(&self.uid),
            sink: Arc::new(Sink(sender)),
            transport: Arc::clone(&self.transport) as _,
            // `containers::check` refused what would need one.
            shelf: Arc::default(),
            doorbell: Doorbell::new().ok(),
            pace: Pace::AtOnce,
            stopping: CancellationToken::new(),
        };
        let (told, wish) = watch::channel(wish);
        agent.said = said;
        agent.wish = told;
        let followed = follow(Arc::new(post), Arc::from(run), *recorded, wish, agent.leave.clone());
        agent.task = Some(tokio::spawn(followed));
    }

    async fn hear(&mut self, news: News, agent: &mut Agent) {
        match news {
            News::Stage(verdict) => self.stage = Some(verdict),
            News::Failed(failure) => self.failed = Some(failure),
            News::Ended(ended) => self.services.tell(&ended),
            News::Prepared => self.prepared(),
            News::Container(status) => {
                let ended = status.state.as_ref().is_some_and(|state| state.terminated.is_some());
                if status.name == pod::BOX && !ended {
                    self.stage = None;
                    self.follow(agent);
                } else if status.name == pod::BOX {
                    self.last_report(agent).await;
                }
                self.put(*status);
            }
        }
    }

    fn prepared(&mut self) {
        self.stage = None;
        self.put(super::setup::status(pod::PREPARE, Default::default()));
    }

    /// The box has ended: its last record may still be on its way through the agent's part.
    async fn last_report(&mut self, agent: &mut Agent) {
        let until = tokio::time::Instant::now() + REPORT_GRACE;
        while self.status().report.is_none() {
            match tokio::time::timeout_at(until, agent.said.recv()).await {
                Ok(Some(status)) => self.take(status),
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn put(&mut self, status: ContainerStatus) {
        self.containers.retain(|known| known.name != status.name);
        self.containers.push(status);
    }

    fn status(&mut self) -> &mut PipelineRunStatus {
        self.run.status.get_or_insert_default()
    }

    /// Takes what the agent's part says.
    fn take(&mut self, said: AgentStatus) {
        let status = self.status();
        status.source_revision = said.source_revision;
        status.steps = said.steps;
        status.steps.iter_mut().filter_map(|step| step.message.as_mut()).for_each(|words| *words = of_step(words));
        status.report = said.report;
        status.summary.get_or_insert_with(Summary::default).steps = said.summary_steps;
    }

    fn wish(&mut self, wish: Wish, agent: &Agent, following: bool) {
        self.run.spec.cancel = match wish {
            Wish::Go => None,
            Wish::Cancel => Some(Cancel::Graceful),
            Wish::Abandon => Some(Cancel::Immediate),
        };
        if following {
            agent.wish.send_replace(wish);
        }
    }

    /// Judges the run and shows it. Gives how long nothing needs to be looked at; `None` once it has ended.
    fn look(&mut self) -> Option<Duration> {
        let now = Timestamp::now();
        let Judgement { mut verdict, steps, wake } = self.judge(now);
        verdict.message = of_run(&verdict.message);
        let facts = PodFacts {
            attempt: Some(ATTEMPT),
            name: Some(pod_name(&self.request.name, ATTEMPT)),
            uid: Some(self.uid.clone()),
            node: None,
        };
        let new = status::write(&self.run, &facts, &verdict, steps, now);
        let over = new.completion_time.is_some();
        let status = self.status();
        status.phase = new.phase;
        status.conditions = new.conditions;
        status.reason_time = new.reason_time;
        status.completion_time = new.completion_time;
        if !new.steps.is_empty() {
            status.steps = new.steps;
        }
        if let Some(summary) = new.summary {
            let own = status.summary.get_or_insert_with(Summary::default);
            own.duration = summary.duration;
            own.image = summary.image;
            own.digest = summary.digest;
            own.steps = summary.steps.or(own.steps.take());
        }
        let now_shown = masked::run(&self.mask, &self.run);
        self.changes.send_if_modified(|shown| {
            let differs = *shown != now_shown;
            if differs {
                *shown = now_shown;
            }
            differs
        });
        (!over).then(|| wake.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT))
    }

    fn judge(&self, now: Timestamp) -> Judgement {
        let (names, begun) = (pod_name(&self.request.name, ATTEMPT), self.run.status.clone().unwrap_or_default());
        let cancelled = self.run.spec.cancel;
        let pod = Pod {
            metadata: ObjectMeta { name: Some(names), ..ObjectMeta::default() },
            spec: None,
            status: Some(self.pod_status()),
        };
        let seen = Observed {
            now,
            run: self.run.clone(),
            unreadable: None,
            pipeline: None,
            pod: None,
            refused: None,
            agent_seen: Some(now),
            written: None,
            settings: PodSettings::default(),
        };
        if let Some(Failure { reason, message }) = &self.failed {
            let verdict = Verdict::failed(reason, locally(reason, message));
            let steps = judge::close_steps(&self.spec, &begun, &verdict, now);
            return Judgement { verdict, steps, wake: None };
        }
        let is_there = |name: &str| self.containers.iter().any(|container| container.name == name);
        // Without a runner nobody hears of a graceful cancel.
        if cancelled == Some(Cancel::Immediate) || (cancelled.is_some() && !is_there(pod::PREPARE)) {
            return judge::without_pod(&seen, &self.spec);
        }
        let stage = self.stage.clone();
        if !is_there(pod::BOX) {
            let verdict = stage.unwrap_or_else(|| Verdict::goes_on(reason::RESOLVING, ""));
            return Judgement { verdict, steps: Vec::new(), wake: None };
        }
        let mut judged = judge::judge(&seen, &self.spec, &pod);
        if let Some(stage) = stage.filter(|_| judged.verdict.outcome == Outcome::GoesOn) {
            judged.verdict = stage;
        }
        match cancelled {
            Some(_) if judged.verdict.outcome == Outcome::GoesOn => {
                let at = begun.steps.iter().find(|s| matches!(s.phase, StepPhase::Running | StepPhase::Waiting));
                let words = at.map_or_else(|| "stopping".to_owned(), |step| format!("stopping step {}", step.name));
                Judgement { verdict: Verdict::goes_on(reason::CANCELLING, words), ..judged }
            }
            _ => judged,
        }
    }

    /// The containers as the kubelet would report them: the box and `prepare`, and the services before them.
    fn pod_status(&self) -> PodStatus {
        let (services, mut own): (Vec<_>, Vec<_>) =
            self.containers.iter().cloned().partition(|c| c.name.starts_with(pod::SERVICE_PREFIX));
        match own.iter_mut().find(|container| container.name == pod::PREPARE) {
            Some(prepare) => {
                let ended = k8s_openapi::api::core::v1::ContainerStateTerminated::default();
                prepare.state.get_or_insert_default().terminated = Some(ended);
            }
            None => {
                let mut prepare = super::setup::status(pod::PREPARE, Default::default());
                prepare.state.get_or_insert_default().running = Some(Default::default());
                own.push(prepare);
            }
        }
        PodStatus { container_statuses: Some(own), init_container_statuses: Some(services), ..PodStatus::default() }
    }

    /// Removes containers, or ends them if they are to stay.
    async fn end(&self, containers: Vec<String>) {
        let ended = containers.iter().map(async |name| match self.request.beside.keep {
            true => self.engine.kill_container(name).await,
            false => self.engine.remove_container(name).await,
        });
        for error in futures::future::join_all(ended).await.into_iter().filter_map(Result::err) {
            tracing::debug!("a container stays for the next run to remove: {error}");
        }
    }

    /// Removes all that the run made but what is to stay.
    async fn clean(self, agent: Agent) -> Option<Stayed> {
        let Agent { leave, task, .. } = agent;
        let path = self.base.join(&self.uid);
        let keep = self.request.beside.keep;
        let left = async {
            leave.cancel();
            if let Some(task) = task {
                let _ = tokio::time::timeout(LEAVE_GRACE, task).await;
            }
            directory::empty(&path).await;
        };
        // The box at once: what it still does is of no use any more.
        tokio::join!(self.end(self.made.containers()), left);
        // What a step was just making when the box was ended is there now.
        let (containers, network) = self.made.take();
        if self.spec.all_steps().any(|(_, step)| matches!(step.here, Some(HereStep::DockerRun(_)))) {
            self.end(containers.clone()).await;
        }
        let mut stayed = keep.then(Stayed::default);
        if let Some(stayed) = &mut stayed {
            for name in containers {
                if self.engine.has_container(&name).await {
                    stayed.containers.push(name);
                }
            }
            stayed.network = network;
        } else if let Some(network) = network {
            // It is in use until the engine has let go of the last container.
            for _ in 0..NETWORK_TRIES {
                match self.engine.remove_network(&network).await {
                    Ok(()) => break,
                    Err(_) => tokio::time::sleep(NETWORK_PAUSE).await,
                }
            }
        }
        // What a push committed is removed beside the run, which may be faster; what a step built is removed here.
        if self.spec.all_steps().any(|(_, step)| step.docker_push.is_some() || step.here.is_some()) {
            let _ = self.engine.remove_made(|uid| uid == self.uid).await;
        }
        directory::remove(&self.engine, &path, &self.spec.box_.image, &self.owner).await;
        directory::leave_base();
        stayed
    }
}
