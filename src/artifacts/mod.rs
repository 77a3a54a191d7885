//! The artifact server: keeps stored containers in a directory or S3, takes them from agents and gives them to people.
//!
//! ```text
//! agent ── door ── push, with a token of its own ──> serve ──> store (object_store): directory or S3
//! windlass pull ── API server's service proxy ── GET ─┘   └─ sweep (retention, blobs that nothing needs)
//! ```
//!
//! `windlass artifacts` calls [`run`]; the chart runs it as a Deployment of one replica.
//!
//! **Invariant:** only agents write. A person reads what he knows the place of, and nothing can be listed: who may get the
//! run may read what it stored. One server writes to a store at a time.

pub mod gate;
mod listen;
mod options;
pub mod retention;
mod route;
pub mod s3;
pub mod serve;
pub mod store;
pub mod sweep;
mod tls;
mod unstuck;

pub use options::Options;

use crate::serve as health;
use anyhow::Context as _;
use serve::Server;
use std::{sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Between two sweeps.
const SWEEP: Duration = Duration::from_secs(3600);
/// The first sweep, once agents have had time to say what they rely on.
const FIRST_SWEEP: Duration = Duration::from_secs(600);
/// Between two looks at a store that does not answer.
const LOOK: Duration = Duration::from_secs(10);
/// How long requests in flight may take at a shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);

/// Runs the artifact server until it is told to stop.
///
/// # Errors
/// The cluster cannot be reached, a setting is wrong, or an address cannot be listened on.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let store = options.store().context("open the store")?;
    let tls = tls::Files { chain: options.tls_cert.clone(), key: options.tls_key.clone() }.follow()?;
    let config = kube::Config::infer().await.context("find the cluster")?;
    let client = kube::Client::try_from(config).context("reach the cluster")?;
    let gate = gate::Reviews::new(client, &options.own_namespace, &options.agent_service_account);
    let server = Arc::new(Server::new(store, Arc::new(gate)));
    let ready = health::Health::default();
    let metrics = Arc::default();
    let answering = health::start(options.listen_health, ready.clone(), metrics).await.context("serve health")?;
    let listener = TcpListener::bind(options.listen).await.with_context(|| format!("listen on {}", options.listen))?;
    let (places, stopping) = (listen::Places::new(), CancellationToken::new());
    let sweeping = tokio::spawn(sweeps(Arc::clone(&server), options.retention()));
    let looking = tokio::spawn(look(Arc::clone(&server), ready));
    tracing::info!(address = %options.listen, "serving artifacts");
    tokio::select! {
        () = listen::accept(listener, &server, &places, tls, &stopping) => {}
        () = health::stop_signal() => {}
    }
    tracing::info!("stopping: requests in flight go on");
    stopping.cancel();
    if tokio::time::timeout(SHUTDOWN_GRACE, places.free()).await.is_err() {
        tracing::warn!("requests were still in flight; agents repeat them");
    }
    sweeping.abort();
    looking.abort();
    answering.abort();
    Ok(())
}

/// Ready once the store answers.
async fn look(server: Arc<Server>, ready: health::Health) {
    while let Err(error) = server.store.probe().await {
        tracing::warn!("the store does not answer: {error}");
        tokio::time::sleep(LOOK).await;
    }
    ready.set_ready();
}

async fn sweeps(server: Arc<Server>, retention: retention::Retention) {
    tokio::time::sleep(FIRST_SWEEP).await;
    loop {
        match sweep::sweep(&server, retention, jiff::Timestamp::now().as_second()).await {
            Ok(swept) if swept == sweep::Swept::default() => {}
            Ok(swept) => {
                tracing::info!(swept.containers, swept.blobs, swept.uploads, "removed what is not kept any more");
            }
            Err(error) => tracing::warn!("failed to sweep the store: {error}"),
        }
        tokio::time::sleep(SWEEP).await;
    }
}
