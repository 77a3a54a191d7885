//! Answers the requests of agents, which write, and of people, who read what they know the place of.
//!
//! The connections come from [`super`]. What an agent's push and `windlass pull` need of the OCI distribution API is here,
//! and no more: nothing can be listed, a manifest is written once.
//!
//! **Invariant:** a person gets a blob only if the manifest at the place that the path names lists it. A manifest is taken
//! only if all that it lists is there, and nothing that it lists is swept away meanwhile.

use super::{
    gate::{self, Gate},
    route::{self, Route},
    store::{Incoming, MAX_MANIFEST, Store, StoreError},
};
use crate::{
    api::artifact::Place,
    registry::{Image, digest::Digest},
};
use bytes::Bytes;
use futures::TryStreamExt as _;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::RwLock, time::timeout};

/// Uploads at one time; each may hold three parts of 8 MiB.
const MAX_UPLOADS: usize = 6;
/// Longest silence of an agent in an upload.
const IDLE: Duration = Duration::from_secs(120);
/// How long a blob that was said to be there stays, though no manifest lists it yet.
pub const GRACE: Duration = Duration::from_secs(24 * 3600);
/// What an agent is told to wait when there are too many uploads.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");
const CONTENT_DIGEST: &str = "docker-content-digest";

/// The body of an answer.
pub type Answer = UnsyncBoxBody<Bytes, StoreError>;
type Reply = Response<Answer>;

/// The server.
pub struct Server {
    pub(super) store: Store,
    gate: Arc<dyn Gate>,
    uploads: Mutex<HashMap<String, Upload>>,
    /// Blobs that agents rely on, and since when.
    vouched: Mutex<HashMap<Digest, Instant>>,
    /// Held for reading while a manifest is checked and put, for writing while blobs are removed.
    pub(super) sweeping: RwLock<()>,
}

/// An upload between two requests.
struct Upload {
    place: Place,
    incoming: Option<Incoming>,
    at: Instant,
}

/// Why a request is not carried out.
enum Refused {
    /// With this status and these words.
    With(StatusCode, &'static str, String),
    /// The store could not.
    Store(StoreError),
    /// The other side broke off.
    Body(String),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn refused(status: StatusCode, code: &'static str, words: impl Into<String>) -> Refused {
    Refused::With(status, code, words.into())
}

fn not_there() -> Refused {
    refused(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "there is no such thing here")
}

impl Server {
    /// A server of a store.
    #[must_use]
    pub fn new(store: Store, gate: Arc<dyn Gate>) -> Self {
        Self { store, gate, uploads: Mutex::default(), vouched: Mutex::default(), sweeping: RwLock::new(()) }
    }

    /// Answers a request.
    pub async fn answer<B>(&self, request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::fmt::Display + Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let route = route::route(request.uri().path());
        let method = request.method().clone();
        let answered = match (method, route) {
            (Method::GET | Method::HEAD, Route::Version) => Ok(reply(StatusCode::OK)),
            (_, Route::Nothing) => Err(not_there()),
            (Method::GET, Route::Manifest(place, digest)) => self.read_manifest(&place, digest.as_ref(), true).await,
            (Method::GET, Route::Blob(place, digest)) => self.read_blob(&place, &digest, &request).await,
            (method, route) => self.write(method, route, request).await,
        };
        answered.unwrap_or_else(failed)
    }

    /// The manifest at a place, with its bytes or without.
    async fn read_manifest(&self, place: &Place, digest: Option<&Digest>, whole: bool) -> Result<Reply, Refused> {
        let bytes = self.store.manifest(place).await?.ok_or_else(not_there)?;
        let found = Digest::of(&bytes);
        if digest.is_some_and(|digest| *digest != found) {
            return Err(not_there());
        }
        let kind = Image::read(&bytes, "").map(|image| image.media_type()).unwrap_or_default();
        let length = bytes.len();
        let mut reply = reply(StatusCode::OK).map(|_| if whole { full(bytes) } else { full(Bytes::new()) });
        reply.headers_mut().insert(header::CONTENT_TYPE, text(kind));
        reply.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        reply.headers_mut().insert(CONTENT_DIGEST, text(found.as_str()));
        Ok(reply)
    }

    /// A blob of the container at a place, for who knows the place.
    async fn read_blob<B>(&self, place: &Place, digest: &Digest, request: &Request<B>) -> Result<Reply, Refused> {
        let manifest = self.store.manifest(place).await?.ok_or_else(not_there)?;
        if !Image::read(&manifest, "").is_ok_and(|image| image.blobs().iter().any(|(blob, _)| *blob == digest)) {
            return Err(not_there());
        }
        let range = request.headers().get(header::RANGE).and_then(|value| value.to_str().ok()).and_then(route::range);
        let is_part = range.is_some();
        let part = self.store.read_blob(digest, range).await?.ok_or_else(not_there)?;
        let (whole, range) = (part.whole, part.range);
        let body = StreamBody::new(part.bytes.map_ok(Frame::data)).boxed_unsync();
        let status = if is_part { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        let mut reply = reply(status).map(|_| body);
        let headers = reply.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::CONTENT_LENGTH, (range.end - range.start).into());
        headers.insert(CONTENT_DIGEST, text(digest.as_str()));
        if is_part {
            let last = range.end.saturating_sub(1);
            headers.insert(header::CONTENT_RANGE, text(&format!("bytes {}-{last}/{whole}", range.start)));
        }
        Ok(reply)
    }

    /// What only agents may ask for.
    async fn write<B>(&self, method: Method, route: Route, request: Request<B>) -> Result<Reply, Refused>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::fmt::Display + Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let unknown = || refused(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "only agents write here");
        let token = gate::token(request.headers()).ok_or_else(unknown)?;
        let away = |why: String| refused(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", why);
        if !self.gate.is_agent(&token).await.map_err(away)? {
            return Err(unknown());
        }
        match (method, route) {
            (Method::HEAD, Route::Blob(_, digest)) => self.look(&digest).await,
            (Method::HEAD, Route::Manifest(place, digest)) => self.read_manifest(&place, digest.as_ref(), false).await,
            (Method::POST, Route::Uploads(place)) => self.open(place).await,
            (Method::PATCH, Route::Upload(place, id)) => self.take(place, id, request.into_body()).await,
            (Method::PUT, Route::Upload(place, id)) => self.close(&place, &id, request).await,
            (Method::DELETE, Route::Upload(place, id)) => {
                let incoming = self.working(&place, &id)?;
                let _work = Work { server: self, id: Some(&id) };
                incoming.abandon().await;
                Ok(reply(StatusCode::NO_CONTENT))
            }
            (Method::PUT, Route::Manifest(place, digest)) => {
                self.put_manifest(&place, digest.as_ref(), request.into_body()).await
            }
            _ => Err(refused(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "this is not done here")),
        }
    }

    /// Whether a blob is there. From now on the agent relies on it.
    async fn look(&self, digest: &Digest) -> Result<Reply, Refused> {
        self.vouch(digest);
        let size = self.store.blob_size(digest).await?.ok_or_else(not_there)?;
        let mut reply = reply(StatusCode::OK);
        reply.headers_mut().insert(header::CONTENT_LENGTH, size.into());
        reply.headers_mut().insert(CONTENT_DIGEST, text(digest.as_str()));
        Ok(reply)
    }

    async fn open(&self, place: Place) -> Result<Reply, Refused> {
        let forgotten: Vec<Incoming> = {
            let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
            let old = uploads.extract_if(|_, upload| upload.incoming.is_some() && upload.at.elapsed() > IDLE);
            old.filter_map(|(_, upload)| upload.incoming).collect()
        };
        for incoming in forgotten {
            incoming.abandon().await;
        }
        let id = format!("{:032x}", rand::random::<u128>());
        let reply = accepted(&place, &id, 0);
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        if uploads.len() >= MAX_UPLOADS {
            return Err(refused(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "too many uploads at one time"));
        }
        uploads.insert(id, Upload { place, incoming: Some(Incoming::new()), at: Instant::now() });
        Ok(reply)
    }

    /// Takes an upload out, to work on it; it keeps its place among the few.
    fn working(&self, place: &Place, id: &str) -> Result<Incoming, Refused> {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let found = uploads.get_mut(id).filter(|upload| upload.place == *place);
        found.and_then(|upload| upload.incoming.take()).ok_or_else(not_there)
    }

    fn forget(&self, id: &str) {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Takes a body in; of one that fails nothing stays.
    async fn receive<B>(&self, place: &Place, id: &str, mut body: B) -> Result<Incoming, Refused>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let mut incoming = self.working(place, id)?;
        // However this ends, also if the connection does: a place that nobody works on is free again.
        let mut work = Work { server: self, id: Some(id) };
        loop {
            let piece = match timeout(IDLE, body.frame()).await {
                Ok(None) => break,
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Ok(Some(Err(error))) => {
                    incoming.abandon().await;
                    return Err(Refused::Body(error.to_string()));
                }
                Err(_) => {
                    incoming.abandon().await;
                    return Err(Refused::Body(format!("nothing came for {}s", IDLE.as_secs())));
                }
            };
            if let Err(error) = incoming.take(&self.store, piece).await {
                incoming.abandon().await;
                return Err(error.into());
            }
        }
        work.id = None;
        Ok(incoming)
    }

    async fn take<B>(&self, place: Place, id: String, body: B) -> Result<Reply, Refused>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let incoming = self.receive(&place, &id, body).await?;
        let reply = accepted(&place, &id, incoming.received);
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.insert(id, Upload { place, incoming: Some(incoming), at: Instant::now() });
        Ok(reply)
    }

    async fn close<B>(&self, place: &Place, id: &str, request: Request<B>) -> Result<Reply, Refused>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let digest = Digest::in_query(request.uri().query());
        let digest = digest.ok_or_else(|| refused(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "digest is none"))?;
        let incoming = self.receive(place, id, request.into_body()).await?;
        let _work = Work { server: self, id: Some(id) };
        self.vouch(&digest);
        incoming.finish(&self.store, &digest).await?;
        let mut reply = reply(StatusCode::CREATED);
        reply.headers_mut().insert(CONTENT_DIGEST, text(digest.as_str()));
        reply.headers_mut().insert(header::LOCATION, text(&format!("/v2/{place}/blobs/{digest}")));
        Ok(reply)
    }

    async fn put_manifest<B>(&self, place: &Place, claimed: Option<&Digest>, body: B) -> Result<Reply, Refused>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let limit = usize::try_from(MAX_MANIFEST).unwrap_or(usize::MAX);
        let read = timeout(IDLE, Limited::new(body, limit).collect()).await;
        let Ok(Ok(read)) = read else { return Err(Refused::Body("the manifest is too large or broke off".into())) };
        let bytes = read.to_bytes();
        let digest = Digest::of(&bytes);
        if claimed.is_some_and(|claimed| *claimed != digest) {
            return Err(refused(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "the manifest has another digest"));
        }
        let image = Image::read(&bytes, "").map_err(|why| refused(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", why))?;
        let _no_sweep = self.sweeping.read().await;
        for (blob, size) in image.blobs() {
            if self.store.blob_size(blob).await? != Some(size) {
                // This request can never succeed; the push can, if it begins anew: whatever it relied on is sent then.
                let text = format!("blob {blob} is not here, or has another size");
                return Err(refused(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN", text));
            }
        }
        match self.store.manifest(place).await? {
            Some(there) if there == bytes => {}
            Some(_) => return Err(refused(StatusCode::CONFLICT, "DENIED", "another container is stored there")),
            None => self.store.put_manifest(place, bytes).await?,
        }
        let mut reply = reply(StatusCode::CREATED);
        reply.headers_mut().insert(CONTENT_DIGEST, text(digest.as_str()));
        Ok(reply)
    }

    fn vouch(&self, digest: &Digest) {
        let mut vouched = self.vouched.lock().unwrap_or_else(PoisonError::into_inner);
        vouched.insert(digest.clone(), Instant::now());
    }

    /// Whether an agent may rely on a blob. Those that none does any more are forgotten.
    pub(super) fn is_vouched(&self, digest: &Digest) -> bool {
        let mut vouched = self.vouched.lock().unwrap_or_else(PoisonError::into_inner);
        vouched.retain(|_, at| at.elapsed() < GRACE);
        vouched.contains_key(digest)
    }
}

/// Frees the place of an upload when the work on it ends without it.
struct Work<'a> {
    server: &'a Server,
    id: Option<&'a str>,
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.server.forget(id);
        }
    }
}

fn full(bytes: Bytes) -> Answer {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""))
}

fn reply(status: StatusCode) -> Reply {
    let mut reply = Response::new(full(Bytes::new()));
    *reply.status_mut() = status;
    // What is stored is what users made: no browser is to make anything of it.
    reply.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply.headers_mut().insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    reply
}

fn accepted(place: &Place, id: &str, received: u64) -> Reply {
    let mut reply = reply(StatusCode::ACCEPTED);
    reply.headers_mut().insert(header::LOCATION, text(&format!("/v2/{place}/blobs/uploads/{id}")));
    reply.headers_mut().insert(header::RANGE, text(&format!("0-{}", received.saturating_sub(1))));
    reply
}

fn failed(refused: Refused) -> Reply {
    let (status, code, message) = match refused {
        Refused::With(status, code, message) => (status, code, message),
        Refused::Body(why) => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", why),
        Refused::Store(error) => {
            tracing::warn!("failed to use the store: {error}");
            match error {
                StoreError::Away(_) => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "the store is away".to_owned()),
                StoreError::Mismatch { .. } => (StatusCode::BAD_REQUEST, "DIGEST_INVALID", error.to_string()),
                StoreError::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", error.to_string()),
            }
        }
    };
    let body = serde_json::json!({"errors": [{"code": code, "message": message}]}).to_string();
    let mut reply = reply(status).map(|_| full(body.into()));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"windlass-artifacts\""));
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    reply
}
