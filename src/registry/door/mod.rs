//! The push door: a registry on loopback that is there for one push of one engine.
//!
//! The agent opens it, has the engine push to [`Door::target`] without credentials, and closes it for the result. The
//! door hands blobs through to the real registry as they come, replaces the image's config, and sets the tags itself:
//! so credentials never enter the engine, blobs travel once, and the digest is known before a tag moves.
//!
//! **Invariant:** the engine's own config never reaches the registry; no tag moves before `before_tags` said yes, and each
//! moves at most once; memory is bounded, whatever the size of the image.

mod blobs;
mod layer;
mod publish;
mod serve;
mod upload;

use super::{
    client::{BUFFER, Client},
    credentials::Credentials,
    error::PushError,
    reference::Repository,
    scan::{NamedSecret, Needles},
    session::Session,
};
use crate::api::{condition::reason, push::SecretsInImage};
use blobs::Blobs;
use futures::future::BoxFuture;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Connections of the engine at one time; it makes about five.
const MAX_CONNECTIONS: usize = 32;
/// Blobs that are held at one time, of [`HOLD`] bytes each; those that stream do not count. An engine sends five.
const MAX_HOLDING: usize = 3;
/// Blobs up to this size are taken in whole before they go on.
const HOLD: usize = 4 * 1024 * 1024;
/// Longest that an engine may take between two requests on a connection.
const ENGINE_IDLE: Duration = Duration::from_secs(600);

pub use layer::push_layer;

/// Makes the image's config from the engine's.
pub type Rebuild = Box<dyn Fn(&[u8]) -> Result<Vec<u8>, PushError> + Send + Sync>;
/// Told what will be pushed, before the first tag moves; an error stops the push.
pub type BeforeTags = Box<dyn Fn(Prepared) -> BoxFuture<'static, Result<(), PushError>> + Send + Sync>;
/// Told of each tag that moved; an error stops the push before the next.
pub type AfterTag = Box<dyn Fn(String) -> BoxFuture<'static, Result<(), PushError>> + Send + Sync>;

/// One push.
pub struct DoorJob {
    /// Where to.
    pub repository: Repository,
    /// Tags to set, in this order; parsed by [`super::parse_tag`].
    pub tags: Vec<String>,
    /// The login.
    pub credentials: Option<Credentials>,
    /// Makes the image's config from the engine's.
    pub config: Rebuild,
    /// Values that must not be in the image; empty: layers are not searched.
    pub secrets: Vec<NamedSecret>,
    /// What to do when one is; `Allow` does not search.
    pub secrets_in_image: SecretsInImage,
    /// It becomes an artifact of the run: OCI's media types, as archives have them, and no property lets a secret through.
    pub artifact: bool,
    /// Repository of the box image, if it is on the same registry: layers are taken over from it without upload.
    pub mount_from: Option<Repository>,
    /// How many layers the image has, if known; for progress only.
    pub layers: Option<usize>,
    /// Where progress is shown.
    pub progress: watch::Sender<Progress>,
    /// Ends the push: before the next tag, or in the middle of an upload.
    pub stop: CancellationToken,
    /// Records the digest.
    pub before_tags: BeforeTags,
    /// Records a tag.
    pub after_tag: AfterTag,
}

/// How far a push is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Layers that the registry had.
    pub layers_there: usize,
    /// Layers that were sent.
    pub layers_sent: usize,
    /// Layers that are still to be looked at or sent.
    pub layers_left: usize,
    /// Bytes of layers that came from the engine.
    pub bytes_done: u64,
    /// Bytes of the layers that are being sent, as far as the engine has said.
    pub bytes_total: Option<u64>,
    /// Why the registry is being tried again, while nothing answers there.
    pub away: Option<String>,
}

/// What will be pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Digest of the manifest.
    pub digest: String,
    /// Bytes of config and layers, as the registry holds them.
    pub size: u64,
}

/// What was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Digest of the manifest.
    pub digest: String,
    /// Bytes of config and layers, as the registry holds them.
    pub size: u64,
    /// Tags, in the order they were set.
    pub tags: Vec<String>,
    /// What people should know.
    pub warnings: Vec<String>,
}

/// An open door.
pub struct Door {
    target: String,
    push: Arc<Push>,
    accept: tokio::task::JoinHandle<()>,
    _stop_on_drop: DropGuard,
}

/// The push behind a door, shared by the engine's requests.
pub(super) struct Push {
    session: Session,
    tags: Vec<String>,
    config: Rebuild,
    needles: Option<Arc<Needles>>,
    deny: bool,
    artifact: bool,
    mount_from: Option<String>,
    layers: Option<usize>,
    progress: watch::Sender<Progress>,
    stop: CancellationToken,
    before_tags: BeforeTags,
    after_tag: AfterTag,
    uploads: Arc<Semaphore>,
    /// First part of each path.
    prefix: String,
    state: Mutex<State>,
    /// The result, once the manifest came; a second manifest gets the first one's.
    outcome: Arc<tokio::sync::Mutex<Option<Result<Pushed, PushError>>>>,
}

/// What changes during a push.
#[derive(Default)]
struct State {
    blobs: Blobs,
    /// Why the push cannot succeed any more.
    failure: Option<PushError>,
    /// What went wrong last and may be repeated by the engine.
    trouble: Option<PushError>,
    warnings: Vec<String>,
}

impl Door {
    /// Opens a door on a free port of 127.0.0.1.
    pub async fn open(client: Client, job: DoorJob) -> Result<Self, PushError> {
        let local = |error: std::io::Error| {
            PushError::transient(reason::COMMIT_FAILED, format!("no port for the engine: {error}"))
        };
        // The same port each time, if it is free: engines note on each blob which registries it was pushed to.
        let last = client.last_port().load(Ordering::Relaxed);
        let listener = match TcpListener::bind(("127.0.0.1", last)).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind(("127.0.0.1", 0)).await.map_err(local)?,
        };
        let port = listener.local_addr().map_err(local)?.port();
        client.last_port().store(port, Ordering::Relaxed);
        // Whoever is on the node can connect; only the engine knows this.
        let nonce = format!("{:032x}", rand::random::<u128>());
        let push = Arc::new(Push::new(client, job, &nonce)?);
        let accept = tokio::spawn(accept(listener, push.clone()));
        let stop = push.stop.clone().drop_guard();
        Ok(Self { target: format!("127.0.0.1:{port}/{nonce}/x"), push, accept, _stop_on_drop: stop })
    }

    /// The repository for the engine to tag and push, with any tag.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Closes the door once the engine is done, and gives the result. What the engine itself said of its push does not
    /// count if the manifest had come: tags may have moved then.
    pub async fn close(self) -> Result<Pushed, PushError> {
        // Publishing goes on even if the engine has left; it is bounded by its own limits.
        let outcome = self.push.outcome.lock().await.take();
        self.accept.abort();
        if let Some(outcome) = outcome {
            return outcome;
        }
        let mut state = self.push.state();
        if self.push.stop.is_cancelled() {
            return Err(PushError::stopped());
        }
        Err(state.failure.take().or_else(|| state.trouble.take()).unwrap_or_else(|| {
            PushError::transient(reason::COMMIT_FAILED, "the engine ended its push before the image was whole")
        }))
    }
}

impl Push {
    fn new(client: Client, job: DoorJob, nonce: &str) -> Result<Self, PushError> {
        // A door has its own end, besides the caller's.
        let stop = job.stop.child_token();
        let same_host = job.mount_from.filter(|source| source.host == job.repository.host && *source != job.repository);
        let mount_from = same_host.map(|source| source.path);
        let sources = mount_from.iter().cloned().collect();
        let mut session = Session::new(client, job.repository, job.credentials, stop.clone()).with_sources(sources);
        // Of where a container is stored nothing is told on the way.
        if !job.artifact {
            session = session.with_progress(job.progress.clone());
        }
        let searched = job.secrets_in_image != SecretsInImage::Allow;
        let needles = if searched { Needles::new(&job.secrets)? } else { None };
        Ok(Self {
            session,
            tags: job.tags,
            config: job.config,
            needles: needles.map(Arc::new),
            deny: job.secrets_in_image == SecretsInImage::Deny,
            artifact: job.artifact,
            mount_from,
            layers: job.layers,
            progress: job.progress,
            stop,
            before_tags: job.before_tags,
            after_tag: job.after_tag,
            uploads: Arc::new(Semaphore::new(MAX_HOLDING)),
            prefix: format!("/v2/{nonce}/x/"),
            state: Mutex::default(),
            outcome: Arc::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an error: one that stays ends the push for all later requests.
    fn failed(&self, error: PushError) -> PushError {
        let mut state = self.state();
        if error.transient {
            state.trouble = Some(error.clone());
        } else if state.failure.is_none() {
            state.failure = Some(error.clone());
        }
        error
    }

    /// Counts, and shows the count.
    fn show(&self) {
        let (there, sent, open) = self.state().blobs.counts();
        let expected = self.layers.unwrap_or(there + sent + open);
        self.progress.send_modify(|progress| {
            progress.layers_there = there;
            progress.layers_sent = sent;
            progress.layers_left = expected.saturating_sub(there + sent);
        });
    }
}

/// Takes the engine's connections until the door is closed.
async fn accept(listener: TcpListener, push: Arc<Push>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, push.clone()));
                }
                // Out of descriptors, or a connection that broke at once: neither ends the push.
                Err(error) => {
                    tracing::debug!(%error, "the engine's connection broke");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = push.stop.cancelled() => return,
        }
    }
}

async fn connection(stream: TcpStream, push: Arc<Push>) {
    let service = service_fn(move |request| {
        let push = push.clone();
        async move { Ok::<_, Infallible>(serve::answer(push, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ENGINE_IDLE)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    // An engine's first attempt is TLS; the 400 that it gets ends here as an error too.
    if let Err(error) = served {
        tracing::trace!(%error, "the engine's connection ended");
    }
}
