//! HTTP to registries: connections, time limits, and what a broken connection means.
//!
//! [`super::session`] and [`super::auth`] send their requests through it.
//!
//! **Invariant:** every wait and every read is bounded; no redirect is followed here; plain HTTP goes only to hosts
//! that are listed as insecure.

use super::{
    error::{PushError, plain},
    resolve::{Denied, Resolver},
    trust::{ADD_CA, Trust, TrustError, endpoint, public_tls},
};
use crate::api::{condition::reason, push::WITHOUT_TLS};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use std::{
    collections::HashMap,
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError, RwLock, atomic::AtomicU16},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::timeout;
use url::Url;

/// The body of a request.
pub(super) type OutBody = UnsyncBoxBody<Bytes, io::Error>;
type Http = legacy::Client<HttpsConnector<Route>, OutBody>;

/// Largest part of a connection that is buffered, in either direction.
pub(super) const BUFFER: usize = 64 * 1024;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until a connection is there.
    pub connect: Duration,
    /// Until an answer begins, once the request is sent.
    pub answer: Duration,
    /// The same where a registry closes an upload, which can mean moving it.
    pub commit: Duration,
    /// Between two pieces of a body, in either direction.
    pub idle: Duration,
    /// How long a registry that is overloaded or broken is asked again.
    pub retry_for: Duration,
    /// How long a registry that cannot be reached at all is tried again.
    pub unreachable_for: Duration,
    /// First pause between two tries; it doubles up to 30 times this.
    pub first_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            commit: Duration::from_secs(300),
            idle: Duration::from_secs(60),
            retry_for: Duration::from_secs(600),
            unreachable_for: Duration::from_secs(30),
            first_pause: Duration::from_secs(1),
        }
    }
}

/// Connections to registries, shared by all pushes of a process.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    allowed: RwLock<Arc<Allowed>>,
    patience: Patience,
    public: Http,
    last_port: AtomicU16,
}

/// What the administrator allows now.
struct Allowed {
    trust: Trust,
    /// For each host that is listed.
    listed: HashMap<String, Http>,
}

impl Allowed {
    fn new(trust: Trust, patience: Patience) -> Result<Arc<Self>, TrustError> {
        let mut listed = HashMap::new();
        for (host, of) in trust.listed()? {
            let route = Route::new(Resolver::new(true), of.address, patience);
            let http = http_client(of.tls(&host)?, route);
            listed.insert(host, http);
        }
        Ok(Arc::new(Self { trust, listed }))
    }
}

/// An answer whose body was read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// A header as text.
    pub(super) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Client {
    /// A client that trusts what the administrator allows.
    pub fn new(trust: Trust) -> Result<Self, TrustError> {
        Self::with_patience(trust, Patience::default())
    }

    /// The same with other time limits.
    pub fn with_patience(trust: Trust, patience: Patience) -> Result<Self, TrustError> {
        let public = http_client(public_tls()?, Route::new(Resolver::new(false), None, patience));
        let allowed = RwLock::new(Allowed::new(trust, patience)?);
        Ok(Self { inner: Arc::new(Inner { allowed, patience, public, last_port: AtomicU16::new(0) }) })
    }

    /// Trusts this from the next request on, also in pushes that are under way.
    ///
    /// # Errors
    /// As [`Self::new`]; then all stays as it was.
    pub fn trust_anew(&self, trust: Trust) -> Result<(), TrustError> {
        let allowed = Allowed::new(trust, self.inner.patience)?;
        *self.inner.allowed.write().unwrap_or_else(PoisonError::into_inner) = allowed;
        Ok(())
    }

    fn allowed(&self) -> Arc<Allowed> {
        Arc::clone(&self.inner.allowed.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether this host is spoken to without TLS.
    pub(super) fn is_insecure(&self, host: &str) -> bool {
        self.allowed().trust.is_insecure(host)
    }

    /// Whether a login for `registry` may go to `realm`: see [`Trust::may_log_in`].
    pub(super) fn may_log_in(&self, registry: &str, realm: &str, realm_is_tls: bool) -> bool {
        self.allowed().trust.may_log_in(registry, realm, realm_is_tls)
    }

    /// Port of the last door; 0 before the first.
    pub(super) fn last_port(&self) -> &AtomicU16 {
        &self.inner.last_port
    }

    pub(super) fn patience(&self) -> Patience {
        self.inner.patience
    }

    /// Sends a request and waits for the head of the answer, at most `wait`.
    pub(super) async fn send(
        &self,
        url: &Url,
        mut request: Request<OutBody>,
        wait: Duration,
    ) -> Result<Response<Incoming>, PushError> {
        let host = authority(url);
        let allowed = self.allowed();
        if url.scheme() != "https" && !allowed.trust.is_insecure(&host) {
            return Err(PushError::new(
                reason::REGISTRY_REFUSED,
                format!("{host} is not listed as a registry without TLS"),
            ));
        }
        let listed = allowed.listed.get(&endpoint(&host));
        if let Some(address) = literal_address(url).filter(|_| listed.is_none()) {
            let checked = Resolver::new(false).check(&address.to_string(), address);
            checked.map_err(|denied| PushError::new(reason::REGISTRY_UNREACHABLE, denied.to_string()))?;
        }
        *request.uri_mut() = url.as_str().parse().map_err(|_| {
            PushError::new(reason::REGISTRY_REFUSED, format!("{host} names an address that cannot be used"))
        })?;
        let http = listed.unwrap_or(&self.inner.public);
        match timeout(wait, http.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(broken(&host, &error)),
            Err(_) => Err(PushError::transient(
                reason::REGISTRY_TIMEOUT,
                format!("{host} gave no answer within {}s", wait.as_secs()),
            )),
        }
    }

    /// Reads the body of an answer. Of an answer that is no success only the beginning counts.
    pub(super) async fn read(
        &self,
        host: &str,
        response: Response<Incoming>,
        limit: usize,
    ) -> Result<Answer, PushError> {
        let (head, mut body) = response.into_parts();
        let limit = if head.status.is_success() { limit } else { limit.min(8 * 1024) };
        let idle = self.inner.patience.idle;
        let read = async {
            let mut bytes = BytesMut::new();
            loop {
                let frame = match timeout(idle, body.frame()).await {
                    Ok(Some(Ok(frame))) => frame,
                    Ok(None) => return Ok(bytes),
                    // What an error says is nice to have, no more.
                    _ if !head.status.is_success() => return Ok(bytes),
                    Ok(Some(Err(error))) => {
                        let text = format!("{host} broke off its answer: {}", plain(&error.to_string()));
                        return Err(PushError::transient(reason::REGISTRY_UNREACHABLE, text));
                    }
                    Err(_) => {
                        let text = format!("{host} stopped in its answer for {}s", idle.as_secs());
                        return Err(PushError::transient(reason::REGISTRY_TIMEOUT, text));
                    }
                };
                if let Ok(data) = frame.into_data() {
                    bytes.extend_from_slice(data.get(..data.len().min(limit - bytes.len())).unwrap_or_default());
                    if bytes.len() >= limit && head.status.is_success() {
                        let text = format!("{host} sends an answer of more than {limit} bytes");
                        return Err(PushError::new(reason::REGISTRY_REFUSED, text));
                    }
                    if bytes.len() >= limit {
                        return Ok(bytes);
                    }
                }
            }
        };
        // An answer that trickles is cut off too.
        let Ok(bytes) = timeout(idle.saturating_mul(4), read).await else {
            let text = format!("{host} did not finish its answer within {}s", idle.saturating_mul(4).as_secs());
            return Err(PushError::transient(reason::REGISTRY_TIMEOUT, text));
        };
        Ok(Answer { status: head.status, headers: head.headers, body: bytes?.freeze() })
    }
}

/// A body of known bytes.
pub(super) fn full(bytes: Bytes) -> OutBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// `host[:port]` of an address.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn literal_address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        url::Host::Ipv4(v4) => Some(v4.into()),
        url::Host::Ipv6(v6) => Some(v6.into()),
        url::Host::Domain(_) => None,
    }
}

/// How hosts are reached: by name, or all at an address of the administrator's. TLS goes on to ask for the name.
#[derive(Clone)]
struct Route {
    tcp: HttpConnector<Resolver>,
    address: Option<SocketAddr>,
}

impl Route {
    fn new(resolver: Resolver, address: Option<SocketAddr>, patience: Patience) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(patience.connect));
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        Self { tcp, address }
    }
}

impl tower::Service<Uri> for Route {
    type Response = <HttpConnector<Resolver> as tower::Service<Uri>>::Response;
    type Error = <HttpConnector<Resolver> as tower::Service<Uri>>::Error;
    type Future = <HttpConnector<Resolver> as tower::Service<Uri>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(context)
    }

    fn call(&mut self, host: Uri) -> Self::Future {
        let given = self.address.and_then(|address| Uri::try_from(format!("http://{address}")).ok());
        self.tcp.call(given.unwrap_or(host))
    }
}

fn http_client(tls: rustls::ClientConfig, route: Route) -> Http {
    let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(route);
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(20))
        .pool_max_idle_per_host(8)
        .http1_max_buf_size(BUFFER)
        .build(https)
}

/// What a request without an answer means.
fn broken(host: &str, error: &legacy::Error) -> PushError {
    let chain = chain(error);
    if let Some(denied) = chain.iter().find_map(|error| error.downcast_ref::<Denied>()) {
        return PushError::new(reason::REGISTRY_UNREACHABLE, denied.to_string());
    }
    if let Some(tls) = chain.iter().find_map(|error| error.downcast_ref::<rustls::Error>()) {
        return untrusted(host, tls);
    }
    let io = chain.iter().find_map(|error| error.downcast_ref::<io::Error>());
    let cause = match io.map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        Some(io::ErrorKind::TimedOut) => "no connection in time".to_owned(),
        _ if chain.iter().any(|error| error.to_string() == "dns error") => {
            let told = chain.last().map(ToString::to_string).unwrap_or_default();
            format!("its name does not resolve ({})", plain(&told))
        }
        _ => plain(&chain.last().map(ToString::to_string).unwrap_or_default()),
    };
    if error.is_connect() {
        let mut error =
            PushError::transient(reason::REGISTRY_UNREACHABLE, format!("{host} cannot be reached: {cause}"));
        error.unconnected = true;
        return error;
    }
    PushError::transient(reason::REGISTRY_UNREACHABLE, format!("the connection to {host} broke: {cause}"))
}

fn untrusted(host: &str, tls: &rustls::Error) -> PushError {
    match tls {
        rustls::Error::InvalidCertificate(problem) => PushError::new(
            reason::UNTRUSTED_CERTIFICATE,
            format!("{host} has a certificate that is not trusted: {}; {ADD_CA}", plain(&problem.to_string())),
        ),
        rustls::Error::InvalidMessage(_) => {
            PushError::new(reason::REGISTRY_UNREACHABLE, format!("{host} does not speak TLS; {WITHOUT_TLS}"))
        }
        other => PushError::new(
            reason::UNTRUSTED_CERTIFICATE,
            format!("no TLS connection to {host}: {}", plain(&other.to_string())),
        ),
    }
}

/// An error and all it was made from; errors inside `io::Error` count too, which `source` leaves out.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut all = Vec::new();
    let mut next = Some(error);
    while let (Some(error), true) = (next, all.len() < 16) {
        all.push(error);
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    all
}
