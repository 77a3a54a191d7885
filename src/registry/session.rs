//! One repository of a registry, with its login: what is there, and putting things there.
//!
//! The door pushes through a session; the agent makes one to see, after a crash, what a tag points to.
//!
//! **Invariant:** an upload stays with its registry: no `Location` leads to another host. A call that can be repeated is
//! repeated while the registry is overloaded or away, for a bounded time; a streamed body is sent once.

use super::{
    auth::{Account, Login, challenge, header_of, issued_by},
    client::{Answer, Client, OutBody, authority, full},
    credentials::{Credentials, Secret},
    digest::Digest,
    error::{PushError, plain},
    reference::Repository,
    refusal::refusal,
    retry::Retries,
};
use crate::{api::condition::reason, registry::auth::Challenge};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use url::Url;

/// Largest manifest, as registries have it.
pub(super) const MAX_MANIFEST: usize = 4 * 1024 * 1024;
/// Largest answer that is not a manifest.
const MAX_ANSWER: usize = 64 * 1024;
/// Kinds of manifests that a tag can point to.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A repository, and who speaks to it.
pub struct Session {
    client: Client,
    repository: Repository,
    credentials: Option<Credentials>,
    sources: Vec<String>,
    stop: CancellationToken,
    login: Mutex<(u64, Login)>,
    /// What the last login was exchanged for, to take it out of a registry's words.
    issued: std::sync::Mutex<Option<Secret<String>>>,
}

/// How long the answer to a tag that is on its way is waited for after a cancel: whether it moved must be known. Less than
/// what the agent gives a push to stop.
const TAG_GRACE: Duration = Duration::from_secs(10);

/// A request that can be sent again.
struct Call {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
    wait: Duration,
    /// How long an answer is still waited for once the push is told to stop.
    grace: Duration,
    accept: &'static [u16],
}

impl Session {
    /// A session of one push. It ends its waits when `stop` is cancelled.
    #[must_use]
    pub fn new(
        client: Client,
        repository: Repository,
        credentials: Option<Credentials>,
        stop: CancellationToken,
    ) -> Self {
        let login = Mutex::new((0, Login::Unasked));
        let issued = std::sync::Mutex::new(None);
        Self { client, repository, credentials, sources: Vec::new(), stop, login, issued }
    }

    /// Lets the session read other repositories of the same registry, to mount blobs from.
    #[must_use]
    pub fn with_sources(mut self, sources: Vec<String>) -> Self {
        self.sources = sources;
        self
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// What a tag or digest points to; `None` if it is not there.
    pub async fn head_manifest(&self, reference: &str) -> Result<Option<Digest>, PushError> {
        let mut call = self.get(Method::HEAD, &format!("manifests/{reference}"), &[200, 404])?;
        call.headers.insert(header::ACCEPT, HeaderValue::from_static(MANIFESTS));
        let answer = self.call(&call).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if let Some(digest) = answer.header(CONTENT_DIGEST).and_then(Digest::parse) {
            return Ok(Some(digest));
        }
        Ok(self.get_manifest(reference).await?.map(|(_, bytes)| Digest::of(&bytes)))
    }

    /// A manifest with its media type; `None` if it is not there.
    pub async fn get_manifest(&self, reference: &str) -> Result<Option<(String, Bytes)>, PushError> {
        let mut call = self.get(Method::GET, &format!("manifests/{reference}"), &[200, 404])?;
        call.headers.insert(header::ACCEPT, HeaderValue::from_static(MANIFESTS));
        let answer = self.call(&call).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let kind = answer.header(header::CONTENT_TYPE).unwrap_or_default().to_owned();
        match Digest::parse(reference) {
            Some(digest) if digest != Digest::of(&answer.body) => Err(self.mismatch(reference, &digest)),
            _ => Ok(Some((kind, answer.body))),
        }
    }

    /// Points a tag to a manifest that was pushed before: what is left to do after a crash between two tags.
    pub async fn tag_again(&self, digest: &Digest, tag: &str) -> Result<(), PushError> {
        let Some((kind, bytes)) = self.get_manifest(digest.as_str()).await? else {
            let text = format!("{} no longer has {digest}", self.repository);
            return Err(PushError::new(reason::INTERRUPTED, text));
        };
        self.put_manifest(tag, &kind, &bytes, digest).await
    }

    /// Puts a manifest under a tag, and sees that it is there.
    pub(super) async fn put_manifest(
        &self,
        tag: &str,
        kind: &str,
        bytes: &Bytes,
        digest: &Digest,
    ) -> Result<(), PushError> {
        let mut call = self.get(Method::PUT, &format!("manifests/{tag}"), &[200, 201, 202])?;
        call.body = bytes.clone();
        call.wait = self.client.patience().commit;
        call.grace = TAG_GRACE;
        let kind = HeaderValue::from_str(kind).unwrap_or(HeaderValue::from_static("application/json"));
        call.headers.insert(header::CONTENT_TYPE, kind);
        let mut retries = Retries::new(self.client.patience(), &self.stop);
        let answer = loop {
            match self.attempt(&call).await {
                Ok(answer) => break answer,
                Err(error) => retries.pause(error).await?,
            }
            // The answer may be all that was lost: a tag that is there already is not moved again.
            if self.head_manifest(tag).await?.as_ref() == Some(digest) {
                return Ok(());
            }
        };
        let stored = match answer.header(CONTENT_DIGEST) {
            Some(text) => Digest::parse(text),
            None => self.head_manifest(tag).await?,
        };
        if stored.as_ref() == Some(digest) { Ok(()) } else { Err(self.mismatch(tag, digest)) }
    }

    /// Whether a blob is there. The size is what the registry says.
    ///
    /// Registries whose blobs lie in a store of their own (Docker Hub, many on S3) answer with the way there once they
    /// have found one. The store is asked for the size, without a login; a blob of unknown size is sent again.
    pub(super) async fn head_blob(&self, digest: &Digest) -> Result<Option<Option<u64>>, PushError> {
        let call = self.get(Method::HEAD, &format!("blobs/{digest}"), &[200, 302, 303, 307, 404])?;
        let answer = self.call(&call).await?;
        if answer.status.is_redirection() {
            return Ok(match self.behind(&call.url, &answer).await {
                Some((StatusCode::NOT_FOUND | StatusCode::GONE, _)) => None,
                Some((StatusCode::OK, size)) => Some(size),
                // A link that is for GET alone refuses a HEAD: the registry's own word stands.
                Some(_) | None => Some(None),
            });
        }
        let size = answer.header(header::CONTENT_LENGTH).and_then(|size| size.parse().ok());
        Ok((answer.status == StatusCode::OK).then_some(size))
    }

    /// What is at the end of a redirect, and its size, if that is told.
    async fn behind(&self, base: &Url, answer: &Answer) -> Option<(StatusCode, Option<u64>)> {
        let url = base.join(answer.header(header::LOCATION)?).ok()?;
        if !url.username().is_empty() || url.password().is_some() {
            return None;
        }
        let mut request = Request::new(full(Bytes::new()));
        *request.method_mut() = Method::HEAD;
        let found = self.client.send(&url, request, self.client.patience().answer).await.ok()?;
        let size = found.headers().get(header::CONTENT_LENGTH).and_then(|size| size.to_str().ok()?.parse().ok());
        Some((found.status(), size))
    }

    /// Asks the registry to take a blob over from another of its repositories.
    pub(super) async fn mount(&self, digest: &Digest, source: &str) -> Result<bool, PushError> {
        let mut call = self.get(Method::POST, "blobs/uploads/", &[201, 202])?;
        call.url.query_pairs_mut().append_pair("mount", digest.as_str()).append_pair("from", source);
        let answer = match self.call(&call).await {
            Ok(answer) if answer.status == StatusCode::CREATED => return Ok(true),
            Ok(answer) => answer,
            // The login may not read the source, or the registry does not mount: the blob is sent instead.
            Err(error) if error.is_refusal() => return Ok(false),
            Err(error) => return Err(error),
        };
        // The registry opened an upload instead. It is not used; registries forget those by themselves too.
        if let Ok(url) = self.location(&call.url, &answer) {
            self.abandon(&url).await;
        }
        Ok(false)
    }

    /// Opens an upload.
    pub(super) async fn start_upload(&self) -> Result<Url, PushError> {
        let call = self.get(Method::POST, "blobs/uploads/", &[202])?;
        let answer = self.call(&call).await?;
        self.location(&call.url, &answer)
    }

    /// Sends a part of a blob, once. Gives the address to go on with.
    pub(super) async fn send_part(&self, url: &Url, body: OutBody, wait: Duration) -> Result<Url, PushError> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::PATCH;
        let kind = HeaderValue::from_static("application/octet-stream");
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
        let login = self.authorize(&mut request).await?;
        let response = self.client.send(url, request, wait).await?;
        let answer = self.client.read(&self.repository.host, response, MAX_ANSWER).await?;
        match answer.status {
            StatusCode::ACCEPTED | StatusCode::CREATED | StatusCode::NO_CONTENT => self.location(url, &answer),
            StatusCode::UNAUTHORIZED => {
                // The body is gone, so this part cannot be sent again; the engine, or the next push, will.
                self.renew(login, &answer).await?;
                Err(PushError::transient(reason::REGISTRY_UNAUTHORIZED, "the login ended in the middle of an upload"))
            }
            _ => Err(self.refusal(&answer)),
        }
    }

    /// Closes an upload: the blob is there afterwards.
    pub(super) async fn finish_upload(&self, url: &Url, digest: &Digest) -> Result<(), PushError> {
        let call = self.closing(url, digest, Bytes::new());
        let answer = match self.call(&call).await {
            // Forgotten by the registry: because it was closed by a try whose answer was lost, or was restarted.
            Ok(answer) if answer.status == StatusCode::NOT_FOUND => {
                if self.head_blob(digest).await?.is_some() {
                    return Ok(());
                }
                return Err(PushError { transient: true, ..self.refusal(&answer) });
            }
            Ok(answer) => answer,
            Err(error) => return Err(error),
        };
        self.check_digest(&answer, digest)
    }

    /// Puts a small blob there, with as many tries as it takes. A blob that may be there is looked for first.
    pub(super) async fn put_blob(&self, digest: &Digest, bytes: &Bytes, mut look: bool) -> Result<(), PushError> {
        let mut retries = Retries::new(self.client.patience(), &self.stop);
        loop {
            if look && self.head_blob(digest).await?.is_some() {
                return Ok(());
            }
            // The answer to a try that seemed to fail may be all that was lost.
            look = true;
            let url = self.start_upload().await?;
            // Each try has its own upload: what a broken one left behind is not known.
            let call = self.closing(&url, digest, bytes.clone());
            match self.attempt(&call).await {
                Ok(answer) if answer.status != StatusCode::NOT_FOUND => return self.check_digest(&answer, digest),
                Ok(answer) => retries.pause(PushError { transient: true, ..self.refusal(&answer) }).await?,
                Err(error) => retries.pause(error).await?,
            }
        }
    }

    /// Gives an upload up. Whether the registry listens does not matter.
    pub(super) async fn abandon(&self, url: &Url) {
        let mut request = Request::new(full(Bytes::new()));
        *request.method_mut() = Method::DELETE;
        if self.authorize(&mut request).await.is_ok() {
            let _ = self.client.send(url, request, self.client.patience().connect).await;
        }
    }

    /// Where a blob is read.
    pub(super) fn blob_url(&self, digest: &Digest) -> Result<Url, PushError> {
        Ok(self.get(Method::GET, &format!("blobs/{digest}"), &[])?.url)
    }

    /// Logs in as the 401 of a call that [`Self::authorize`] prepared asks.
    pub(super) async fn renew_by(&self, login: u64, response: Response<Incoming>) -> Result<(), PushError> {
        let answer = self.client.read(&self.repository.host, response, MAX_ANSWER).await?;
        self.renew(login, &answer).await
    }

    /// What an answer that is no success means.
    pub(super) async fn refused(&self, response: Response<Incoming>) -> Result<PushError, PushError> {
        Ok(self.refusal(&self.client.read(&self.repository.host, response, MAX_ANSWER).await?))
    }

    fn closing(&self, url: &Url, digest: &Digest, body: Bytes) -> Call {
        let mut url = url.clone();
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        Call {
            method: Method::PUT,
            url,
            headers,
            body,
            wait: self.client.patience().commit,
            grace: Duration::ZERO,
            accept: &[200, 201, 204, 404],
        }
    }

    fn check_digest(&self, answer: &Answer, digest: &Digest) -> Result<(), PushError> {
        match answer.header(CONTENT_DIGEST) {
            Some(stored) if stored != digest.as_str() => Err(self.mismatch("a blob", digest)),
            _ => Ok(()),
        }
    }

    fn mismatch(&self, what: &str, digest: &Digest) -> PushError {
        let text = format!("{} has another content under {what} than {digest}, which was pushed", self.repository);
        PushError::new(reason::DIGEST_MISMATCH, text)
    }

    fn get(&self, method: Method, below: &str, accept: &'static [u16]) -> Result<Call, PushError> {
        let host = self.repository.api_host();
        let scheme = if self.client.is_insecure(host) { "http" } else { "https" };
        let url = Url::parse(&format!("{scheme}://{host}/v2/{}/{below}", self.repository.path))
            .map_err(|error| PushError::new(reason::INVALID_PROPERTY, format!("{}: {error}", self.repository)))?;
        let wait = self.client.patience().answer;
        Ok(Call { method, url, headers: HeaderMap::new(), body: Bytes::new(), wait, grace: Duration::ZERO, accept })
    }

    /// Where an upload goes on: on the same registry, or nowhere.
    fn location(&self, base: &Url, answer: &Answer) -> Result<Url, PushError> {
        let refuse = |why: String| PushError::new(reason::REGISTRY_REFUSED, why);
        let host = &self.repository.host;
        let location = answer
            .header(header::LOCATION)
            .ok_or_else(|| refuse(format!("{host} does not say where an upload goes")))?;
        let mut url =
            base.join(location).map_err(|_| refuse(format!("{host} sends the upload to an address that is none")))?;
        // Behind a proxy registries often say http of themselves: what was reached by TLS stays with TLS.
        if base.scheme() == "https" && url.scheme() == "http" && url.host() == base.host() && url.port().is_none() {
            let (path, query) = (url.path().to_owned(), url.query().map(str::to_owned));
            url = base.clone();
            url.set_path(&path);
            url.set_query(query.as_deref());
        }
        let same = url.scheme() == base.scheme() && authority(&url) == authority(base);
        if !same || !url.username().is_empty() || url.password().is_some() {
            let other = plain(&authority(&url));
            return Err(refuse(format!("{host} sends the upload to another host, {other}; logins do not go there")));
        }
        url.set_fragment(None);
        Ok(url)
    }

    async fn call(&self, call: &Call) -> Result<Answer, PushError> {
        let mut retries = Retries::new(self.client.patience(), &self.stop);
        loop {
            match self.attempt(call).await {
                Ok(answer) => return Ok(answer),
                Err(error) => retries.pause(error).await?,
            }
        }
    }

    /// Sends a call; twice if the first answer asks for a login.
    async fn attempt(&self, call: &Call) -> Result<Answer, PushError> {
        let mut renewed = false;
        loop {
            let mut request = Request::new(full(call.body.clone()));
            *request.method_mut() = call.method.clone();
            *request.headers_mut() = call.headers.clone();
            let login = self.authorize(&mut request).await?;
            let response = tokio::select! {
                biased;
                () = self.stopped_for(call.grace) => return Err(PushError::stopped()),
                response = self.client.send(&call.url, request, call.wait) => response?,
            };
            let answer = self.client.read(&self.repository.host, response, MAX_MANIFEST).await?;
            if call.accept.contains(&answer.status.as_u16()) {
                return Ok(answer);
            }
            if answer.status == StatusCode::UNAUTHORIZED && !renewed {
                renewed = true;
                self.renew(login, &answer).await?;
                continue;
            }
            return Err(self.refusal(&answer));
        }
    }

    /// Waits until the push is told to stop, and then this long.
    async fn stopped_for(&self, grace: Duration) {
        self.stop.cancelled().await;
        if !grace.is_zero() {
            tokio::time::sleep(grace).await;
        }
    }

    /// Adds the login to a request. Gives its number, for [`Self::renew`].
    pub(super) async fn authorize(&self, request: &mut Request<OutBody>) -> Result<u64, PushError> {
        let mut login = self.login.lock().await;
        let due = match &login.1 {
            Login::Bearer { renew_at, challenge, .. } => Some((*renew_at, challenge.clone())),
            Login::Basic { renew_at, .. } => renew_at.map(|at| (at, Challenge::Basic)),
            Login::Unasked => None,
        };
        if let Some((_, challenge)) = due.filter(|(at, _)| *at <= Instant::now()) {
            let next = self.log_in(challenge).await?;
            *login = (login.0 + 1, next);
        }
        if let Some(header) = header_of(&login.1) {
            request.headers_mut().insert(header::AUTHORIZATION, Secret::expose(&header).clone());
        }
        Ok(login.0)
    }

    /// Logs in as a 401 asks, unless another call did since.
    async fn renew(&self, used: u64, answer: &Answer) -> Result<(), PushError> {
        let mut login = self.login.lock().await;
        if login.0 != used {
            return Ok(());
        }
        let Some(challenge) = challenge(&answer.headers) else { return Err(self.refusal(answer)) };
        // A password that did not do will not do again; what was exchanged for keys may have ended.
        if matches!(&login.1, Login::Basic { renew_at: None, .. }) && challenge == Challenge::Basic {
            return Err(self.refusal(answer));
        }
        let next = self.log_in(challenge).await?;
        *login = (used + 1, next);
        Ok(())
    }

    async fn log_in(&self, challenge: Challenge) -> Result<Login, PushError> {
        let login = self.account().log_in(challenge).await?;
        *self.issued.lock().unwrap_or_else(PoisonError::into_inner) = issued_by(&login);
        Ok(login)
    }

    fn account(&self) -> Account<'_> {
        Account {
            client: &self.client,
            repository: &self.repository,
            credentials: self.credentials.as_ref(),
            sources: &self.sources,
            issued: self.issued.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// What an answer that is no success means.
    fn refusal(&self, answer: &Answer) -> PushError {
        let account = self.account();
        let said = account.words(&answer.body);
        match answer.status {
            // Registries with tokens, as Docker Hub, say so of a valid login that may not push.
            StatusCode::UNAUTHORIZED if self.credentials.is_some() && is_scope(answer) => {
                account.forbidden(answer.status, &said)
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => account.refused(answer.status, &said),
            _ => refusal(&self.repository.to_string(), answer, &said),
        }
    }
}

fn is_scope(answer: &Answer) -> bool {
    matches!(challenge(&answer.headers), Some(Challenge::Bearer { error: Some(error), .. }) if error == "insufficient_scope")
}
