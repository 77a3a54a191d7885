//! The controller: turns PipelineRuns into pods and pods into conditions.
//!
//! ```text
//! watch (runs, their pods) -> observe (READ) -> plan -> resolve, order, pod, judge, starting, status (PURE) -> apply (WRITE)
//! ```
//!
//! **Invariant:** it reads no Secret, runs nothing in a container and makes no token. All that it knows is
//! in the API server: it may be killed at any moment, and its successor goes on.

mod alive;
pub mod apply;
pub mod build_number;
mod head;
pub mod judge;
pub mod lease;
mod lost;
pub mod metrics;
pub mod observe;
pub mod order;
pub mod pipelines;
pub mod plan;
pub mod pod;
pub mod resolve;
mod starting;
pub mod status;

use crate::{
    api::{PipelineRun, meta, pipeline::Resources},
    serve,
};
use futures::StreamExt;
use head::Head;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::api::resource::Quantity, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        Controller,
        controller::{self, Action, Config},
        events::{Recorder, Reporter},
        reflector::ObjectRef,
        watcher,
    },
};
use observe::Found;
pub use pod::PodSettings;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Plans in a row for one event; a run needs five to its pod.
const PASSES: usize = 10;
/// Runs worked on at one time.
const CONCURRENCY: u16 = 16;
/// Longest wait after failures in a row.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Longest time of one reconciliation: an answer that never comes must not hold its run for ever.
const RECONCILE_MAX: Duration = Duration::from_secs(30);
/// Objects in one answer of a list: a run may hold much.
const PAGE: u32 = 50;
/// Longest silence of a connection to the API server; watches are closed by the server before.
const READ_MAX: Duration = Duration::from_secs(300);

/// How the controller is set up.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Namespace of the controller: its Lease and its counters live there
    #[arg(long = "own-namespace", env = "POD_NAMESPACE", default_value = "windlass-system")]
    pub own_namespace: String,
    /// Name of this replica, for the Lease
    #[arg(long, env = "POD_NAME", default_value = "windlass-controller")]
    pub identity: String,
    /// Image with windlass, windlass-runner and git, for the container prepare
    #[arg(long, env = "WINDLASS_IMAGE")]
    pub image: String,
    /// Pull policy of that image
    #[arg(long, env = "WINDLASS_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pub image_pull_policy: String,
    /// Secret to pull that image with, in the run's namespace (repeat for more)
    #[arg(long = "image-pull-secret")]
    pub image_pull_secrets: Vec<String>,
    /// Steps may store containers: there is an artifact store
    #[arg(long)]
    pub has_store: bool,
    /// A label of the nodes that have an agent; pods with steps for it go there (repeat for more)
    #[arg(long = "agent-node-label", value_name = "LABEL=VALUE", value_parser = label)]
    pub agent_nodes: Vec<(String, String)>,
    /// What is set aside for the container prepare (repeat for more)
    #[arg(long = "prepare-request", value_name = "RESOURCE=QUANTITY", value_parser = quantity)]
    pub prepare_requests: Vec<(String, Quantity)>,
    /// What the container prepare may use at most (repeat for more)
    #[arg(long = "prepare-limit", value_name = "RESOURCE=QUANTITY", value_parser = quantity)]
    pub prepare_limits: Vec<(String, Quantity)>,
    /// Where health and metrics are served
    #[arg(long, default_value = "[::]:8080")]
    pub listen: SocketAddr,
}

impl Options {
    /// What pods depend on.
    fn pod_settings(&self) -> PodSettings {
        PodSettings {
            image: self.image.clone(),
            image_pull_policy: self.image_pull_policy.clone(),
            image_pull_secrets: self.image_pull_secrets.clone(),
            has_store: self.has_store,
            agent_nodes: self.agent_nodes.iter().cloned().collect(),
            prepare: Resources {
                requests: self.prepare_requests.iter().cloned().collect(),
                limits: self.prepare_limits.iter().cloned().collect(),
            },
        }
    }
}

/// `LABEL=VALUE`; the value may be empty.
fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "expected LABEL=VALUE".into())
}

/// `RESOURCE=QUANTITY`; the API server judges the quantity.
fn quantity(text: &str) -> Result<(String, Quantity), String> {
    let pair = text.split_once('=').filter(|(name, amount)| !name.is_empty() && !amount.is_empty());
    pair.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
        .ok_or_else(|| "expected RESOURCE=QUANTITY, such as memory=256Mi".into())
}

/// What all reconciliations share.
pub struct Context {
    /// The clock; the tests' simulated cluster has its own.
    now: fn() -> Timestamp,
    client: Client,
    namespace: String,
    settings: PodSettings,
    recorder: Recorder,
    metrics: metrics::Metrics,
    /// When each run's status was written last, by UID; forgotten once the run has ended.
    written: Mutex<HashMap<String, Timestamp>>,
    /// Failures in a row, by UID; likewise.
    failures: Mutex<HashMap<String, u32>>,
    /// The agents' last signs of life.
    agents: Mutex<alive::Signs>,
}

impl Context {
    /// A context that knows nothing yet, of a controller whose objects live in `namespace`.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        identity: &str,
        settings: PodSettings,
        metrics: metrics::Metrics,
        now: fn() -> Timestamp,
    ) -> Self {
        let reporter = Reporter { controller: "windlass.dev/controller".into(), instance: Some(identity.to_owned()) };
        Self {
            now,
            recorder: Recorder::new(client.clone(), reporter),
            client,
            namespace: namespace.to_owned(),
            settings,
            metrics,
            written: Mutex::default(),
            failures: Mutex::default(),
            agents: Mutex::default(),
        }
    }

    /// How many runs it keeps something of in memory: those under way.
    #[must_use]
    pub fn remembered(&self) -> usize {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        written.len() + failures.keys().filter(|uid| !written.contains_key(*uid)).count()
    }

    fn written(&self, uid: &str) -> Option<Timestamp> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).get(uid).copied()
    }

    fn note_written(&self, uid: &str, at: Timestamp) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), at);
    }

    /// The looks at this run fail no more.
    fn mended(&self, uid: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// When an agent was seen to renew its Lease, which says `renewed`.
    fn agent_seen(&self, node: &str, renewed: Option<Timestamp>) -> Option<Timestamp> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(renewed) = renewed else {
            agents.forget(node);
            return None;
        };
        Some(agents.note(node, renewed, (self.now)()))
    }

    fn forget(&self, uid: &str) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// Runs the controller until it is told to stop or loses its Lease.
///
/// # Errors
/// The cluster cannot be reached or lacks the custom resources; the Lease was lost.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut config = kube::Config::infer().await?;
    config.read_timeout = Some(READ_MAX);
    let client = Client::try_from(config)?;
    let metrics = metrics::Metrics::new();
    let health = serve::Health::default();
    let server = serve::start(options.listen, health.clone(), metrics.registry()).await?;
    installed(&client).await?;
    let mut lease =
        lease::Candidate::new(client.clone(), &options.own_namespace, "windlass-controller", &options.identity);
    health.set_ready();
    let mut told = std::pin::pin!(serve::stop_signal());
    tokio::select! {
        () = lease.acquire() => {}
        () = &mut told => return Ok(()),
    }
    tracing::info!(identity = options.identity, "leads");
    let settings = options.pod_settings();
    let context = Context::new(client, &options.own_namespace, &options.identity, settings, metrics, Timestamp::now);
    let lost = lease.lead(|stopped| lead(Arc::new(context), stopped), told).await;
    tracing::info!(lost, "stopped");
    lease.release().await;
    server.abort();
    anyhow::ensure!(!lost, "the lease was lost");
    Ok(())
}

/// A start without the custom resources says so, instead of failing for ever in the watch.
async fn installed(client: &Client) -> anyhow::Result<()> {
    let runs: Api<DeserializeGuard<PipelineRun>> = Api::all(client.clone());
    match runs.list(&kube::api::ListParams::default().limit(1)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            anyhow::bail!("this cluster has no windlass.dev/v1alpha1; apply the files in crds/ first (the chart does)")
        }
        Err(error) => Err(error.into()),
    }
}

/// What a leader does, until told to stop: reconciles runs and judges Pipelines. Dropped half-way, it
/// leaves nothing that another leader cannot go on from.
pub async fn lead(context: Arc<Context>, stopped: tokio::sync::watch::Receiver<bool>) {
    let pipelines = pipelines::run(context.client.clone(), context.now, stopped.clone());
    futures::future::join(runs(context, stopped), pipelines).await;
}

/// How objects are watched.
fn watched() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

async fn runs(context: Arc<Context>, mut stopped: tokio::sync::watch::Receiver<bool>) {
    let runs: Api<Head> = Api::all(context.client.clone());
    let pods: Api<Pod> = Api::all(context.client.clone());
    let ours = watched().labels(&format!("{}={}", meta::MANAGED_BY, meta::MANAGED_BY_VALUE));
    let stop = async move {
        let _closed = stopped.wait_for(|stop| *stop).await;
    };
    Controller::new(runs, watched())
        .owns(pods, ours)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(stop)
        .run(reconcile, on_error, Arc::clone(&context))
        .for_each(|outcome| {
            // The run went away after its last look, or while that failed.
            if let Err(controller::Error::ObjectNotFound(run)) = &outcome {
                context.forget(run.extra.uid.as_deref().unwrap_or_default());
            }
            futures::future::ready(())
        })
        .await;
}

/// Failures of the world, logged once, at the boundary.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Observe(#[from] observe::Error),
    #[error(transparent)]
    Apply(#[from] apply::Error),
    #[error("failed to make the pod: {0}")]
    NoPod(String),
    #[error("failed to reconcile within {}s", RECONCILE_MAX.as_secs())]
    TooSlow(#[from] tokio::time::error::Elapsed),
}

async fn reconcile(object: Arc<Head>, ctx: Arc<Context>) -> Result<Action, Error> {
    tokio::time::timeout(RECONCILE_MAX, passes(object, ctx)).await?
}

/// Plans and applies until nothing is left to do.
async fn passes(object: Arc<Head>, ctx: Arc<Context>) -> Result<Action, Error> {
    let reference = ObjectRef::from_obj(object.as_ref());
    let namespace = reference.namespace.unwrap_or_default();
    let uid = object.uid().unwrap_or_default();
    let mut refused = None;
    for _ in 0..PASSES {
        let seen = match observe::observe(&ctx, &namespace, &reference.name, refused.take()).await? {
            Found::Run(seen) => seen,
            Found::Gone => {
                ctx.forget(&uid);
                return Ok(Action::await_change());
            }
        };
        ctx.metrics.reconciled();
        let plan = plan::plan(&seen);
        let ends = plan.status.as_ref().is_some_and(|status| status.completion_time.is_some());
        let no_pod = seen.no_pod().filter(|_| !ends);
        if plan.is_empty() && no_pod.is_none() {
            let ended = seen.run.status.is_some_and(|status| status.completion_time.is_some());
            if ended {
                ctx.forget(&uid);
            } else {
                ctx.mended(&uid);
            }
            return Ok(plan.wake.map_or_else(Action::await_change, Action::requeue));
        }
        ctx.metrics.planned(&seen.run, &plan);
        refused = apply::apply(&ctx, &seen.run, plan).await?.refused;
        // The status tells it by now. Asking again has the backoff of all failures.
        if let Some(words) = no_pod {
            return Err(Error::NoPod(words));
        }
    }
    Ok(Action::requeue(Duration::from_secs(1)))
}

/// Backoff per object, doubling from a quarter second.
#[expect(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn on_error(object: Arc<Head>, error: &Error, ctx: Arc<Context>) -> Action {
    let uid = object.uid().unwrap_or_default();
    let mut failures = ctx.failures.lock().unwrap_or_else(PoisonError::into_inner);
    let count = failures.entry(uid).and_modify(|n| *n = n.saturating_add(1)).or_insert(0);
    ctx.metrics.failed();
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(run.name = object.name_any(), run.namespace = object.namespace(), %error, cause, "reconciliation failed");
    Action::requeue(Duration::from_millis(250).saturating_mul(2_u32.saturating_pow((*count).min(10))).min(BACKOFF_MAX))
}
