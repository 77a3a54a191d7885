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
mod options;
pub mod retention;
mod route;
pub mod s3;
pub mod serve;
pub mod store;
pub mod sweep;

pub use options::Options;

use crate::serve as health;
use anyhow::Context as _;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serve::Server;
use std::{convert::Infallible, path::Path, sync::Arc, time::Duration};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// Between two sweeps.
const SWEEP: Duration = Duration::from_secs(3600);
/// The first sweep, once agents have had time to say what they rely on.
const FIRST_SWEEP: Duration = Duration::from_secs(600);
/// Connections at one time.
const MAX_CONNECTIONS: usize = 256;
/// Longest that a TLS handshake, or the head of a request, may take.
const HEAD: Duration = Duration::from_secs(60);
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
    let tls = TlsAcceptor::from(Arc::new(certificate(&options.tls_cert, &options.tls_key)?));
    let config = kube::Config::infer().await.context("find the cluster")?;
    let client = kube::Client::try_from(config).context("reach the cluster")?;
    let gate = gate::Reviews::new(client, &options.own_namespace, &options.agent_service_account);
    let server = Arc::new(Server::new(store, Arc::new(gate)));
    let ready = health::Health::default();
    let metrics = Arc::default();
    let answering = health::start(options.listen_health, ready.clone(), metrics).await.context("serve health")?;
    let listener = TcpListener::bind(options.listen).await.with_context(|| format!("listen on {}", options.listen))?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let sweeping = tokio::spawn(sweeps(Arc::clone(&server), options.retention()));
    let looking = tokio::spawn(look(Arc::clone(&server), ready));
    tracing::info!(address = %options.listen, "serving artifacts");
    tokio::select! {
        () = accept(listener, &server, &places, &tls) => {}
        () = health::stop_signal() => {}
    }
    tracing::info!("stopping: requests in flight go on");
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    if tokio::time::timeout(SHUTDOWN_GRACE, places.acquire_many(all)).await.is_err() {
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
            Ok(sweep::Swept { containers: 0, blobs: 0 }) => {}
            Ok(swept) => tracing::info!(swept.containers, swept.blobs, "removed what is not kept any more"),
            Err(error) => tracing::warn!("failed to sweep the store: {error}"),
        }
        tokio::time::sleep(SWEEP).await;
    }
}

/// Takes connections, as long as there is room.
async fn accept(listener: TcpListener, server: &Arc<Server>, places: &Arc<Semaphore>, tls: &TlsAcceptor) {
    loop {
        let Ok(place) = Arc::clone(places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (server, tls) = (Arc::clone(server), tls.clone());
                tokio::spawn(async move {
                    connection(stream, server, tls).await;
                    drop(place);
                });
            }
            // Out of descriptors, or a connection that broke at once.
            Err(error) => {
                tracing::debug!(%error, "a connection broke");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, server: Arc<Server>, tls: TlsAcceptor) {
    let Ok(Ok(stream)) = tokio::time::timeout(HEAD, tls.accept(stream)).await else { return };
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::trace!(%error, "a connection ended");
    }
}

fn certificate(chain: &Path, key: &Path) -> anyhow::Result<rustls::ServerConfig> {
    let read = |file: &Path| std::fs::read(file).with_context(|| format!("read {}", file.display()));
    let (chain_pem, key_pem) = (read(chain)?, read(key)?);
    let certificates = rustls_pemfile::certs(&mut chain_pem.as_slice()).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.with_context(|| format!("read {}", chain.display()))?;
    let key_der =
        rustls_pemfile::private_key(&mut key_pem.as_slice()).with_context(|| format!("read {}", key.display()))?;
    let key_der = key_der.with_context(|| format!("{} holds no key in PEM", key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    builder.with_no_client_auth().with_single_cert(certificates, key_der).context("use the certificate")
}
