//! The node agent: follows each run of its node through the files of the run's pod, reports step states into the
//! run's status, and carries out internal steps.
//!
//! ```text
//! API watch (status.nodeName) ─> one task per run: observe ─> plan (pure) ─> apply ─┐
//!   out/journal, out/request-N ──────^                                              ├─> status, events
//!   engine <─ transport <─ push ─> push door ─> registry                            └─> in/answer-N, in/cancel
//! ```
//!
//! `windlass agent` calls [`run`]; the chart runs it as a DaemonSet.
//!
//! **Invariant:** no Secret is read from the API, and no container is touched but the box of a run pod. What must
//! survive the agent is in the run's files and status.

pub mod apply;
pub mod credentials;
pub mod doorbell;
pub mod files;
#[cfg(test)]
mod fixture;
pub mod follow;
pub mod journal;
mod lease;
pub mod line;
pub mod observe;
mod options;
pub mod plan;
mod progress;
pub mod push;
pub mod run;
pub(crate) mod scratch;
pub mod shelf;
pub mod status;
pub mod transport;
mod watch;
pub mod work;

pub use options::Options;

use crate::{
    engine::{Engine, EngineError, docker::DockerEngine},
    registry::{Client as RegistryClient, Trust},
    serve,
};
use anyhow::Context as _;
use apply::ApiSink;
use doorbell::Doorbell;
use follow::{Pace, Post};
use kube::Client;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use transport::Relay;

/// Between two sweeps of committed images.
const SWEEP: Duration = Duration::from_secs(600);
/// How long pushes in flight may take at a shutdown; the chart's grace is 60 s. What is left then is taken up by the
/// next agent.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(50);
/// Between two looks at the engine.
const PING: Duration = Duration::from_secs(10);
/// Between two looks at the files of certificates; the kubelet takes about a minute to write a change.
const TRUST_LOOK: Duration = Duration::from_secs(10);
/// An engine that was there and cannot be reached for this long has another socket now: one that is mounted as a
/// file is not seen anew until the agent starts again.
const ENGINE_LOST: Duration = Duration::from_secs(30);

/// Longest silence of a connection to the API server.
const READ_MAX: Duration = Duration::from_secs(300);

/// Runs the agent until it is told to stop.
///
/// # Errors
/// The cluster cannot be reached, a setting is wrong, or the health endpoint cannot be served.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let trust = options.trust().context("read the registries' settings")?;
    let registry = RegistryClient::new(trust.clone()).context("set up TLS for registries")?;
    let trusting = tokio::spawn(keep_trust(registry.clone(), options.clone(), trust));
    let engine = DockerEngine::new(options.socket()?).context("set up the engine")?;
    let engine: Arc<dyn Engine> = Arc::new(engine);
    match engine.ping().await {
        Ok(info) => tracing::info!(engine = info.name, version = info.version, api = info.api_version, "engine found"),
        // Runs without internal steps need none, and the engine may come.
        Err(error) => tracing::warn!("no engine yet: {error}"),
    }
    let mut config = kube::Config::infer().await.context("find the cluster")?;
    // A connection that went silent must not hide runs: the server closes watches before.
    config.read_timeout = Some(READ_MAX);
    let client = Client::try_from(config).context("reach the cluster")?;
    let health = serve::Health::default();
    let metrics = Arc::default();
    let server = serve::start(options.listen_health, health.clone(), metrics).await.context("serve health")?;
    let doorbell = Doorbell::new();
    if let Err(error) = &doorbell {
        tracing::warn!(%error, "no inotify: looking at the files often instead");
    }
    let relay = Relay::new(Arc::clone(&engine), registry);
    let stopping = CancellationToken::new();
    let post = Arc::new(Post {
        kubelet_dir: options.kubelet_dir.clone(),
        sink: Arc::new(ApiSink::new(client.clone(), &options.node_name)),
        transport: Arc::new(relay.clone()),
        doorbell: doorbell.ok(),
        shelf: Arc::new(options.shelf()),
        pace: Pace::Sparing,
        stopping: stopping.clone(),
    });
    let (namespace, node) = (options.own_namespace.clone(), options.node_name.clone());
    let lease = tokio::spawn(lease::renew(client.clone(), namespace, node, options.identity.clone()));
    let mut runs = watch::Runs::new(post);
    let tasks = runs.tasks();
    let mut sweeps = tokio::time::interval(SWEEP);
    let watched = watch::watch(&mut runs, client, &options.node_name, &relay, || health.set_ready(), &mut sweeps);
    futures::pin_mut!(watched);
    tokio::select! {
        () = &mut watched => anyhow::bail!("the watch of runs ended"),
        () = engine_lost(engine.as_ref()) => anyhow::bail!("the engine's socket is dead; starting anew to get the new one"),
        () = serve::stop_signal() => {}
    }
    tracing::info!("stopping: pushes in flight go on");
    stopping.cancel();
    tasks.close();
    // The watch goes on: a push in flight may be cancelled.
    tokio::select! {
        () = &mut watched => {}
        finished = tokio::time::timeout(SHUTDOWN_GRACE, tasks.wait()) => if finished.is_err() {
            tracing::warn!("pushes were still in flight; the next agent takes them up");
        }
    }
    lease.abort();
    trusting.abort();
    server.abort();
    tracing::info!("stopped");
    Ok(())
}

/// Trusts what the files of certificates hold, as authorities are renewed while the agent runs.
async fn keep_trust(registry: RegistryClient, options: Options, mut last: Trust) {
    loop {
        tokio::time::sleep(TRUST_LOOK).await;
        let trust = match options.trust() {
            Ok(trust) if trust == last => continue,
            Ok(trust) => trust,
            Err(error) => {
                tracing::warn!("the registries' settings stay as they were: {error:#}");
                continue;
            }
        };
        match registry.trust_anew(trust.clone()) {
            Ok(()) => tracing::info!("certificate authorities of registries changed"),
            Err(error) => tracing::warn!("the registries' settings stay as they were: {error}"),
        }
        // Told once, whatever came of it.
        last = trust;
    }
}

/// Returns once an engine that was there cannot be reached any more.
async fn engine_lost(engine: &dyn Engine) {
    let mut reached: Option<tokio::time::Instant> = None;
    loop {
        match engine.ping().await {
            // It answers, be it slowly or with an error.
            Ok(_) => reached = Some(tokio::time::Instant::now()),
            Err(EngineError::Unreachable { .. }) => {
                if reached.is_some_and(|at| at.elapsed() > ENGINE_LOST) {
                    return;
                }
            }
            Err(_) => reached = reached.map(|_| tokio::time::Instant::now()),
        }
        tokio::time::sleep(PING).await;
    }
}

/// Removes what pushes left on the node.
async fn sweep(relay: &Relay, live: &BTreeSet<String>) {
    match relay.sweep(live).await {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "removed committed images of runs that are over"),
        Err(error) => tracing::warn!("failed to look for committed images: {error}"),
    }
}
