//! A registry of our own that does what it is told: right, wrong, slowly, or not at all.

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::net::TcpListener;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// `sha256:…` of bytes, computed apart from the code under test.
pub(super) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// How the registry asks for logins.
#[derive(Clone)]
pub(super) enum Auth {
    Open,
    /// `user:password`.
    Basic(&'static str),
    /// A token for `user:password`, good for this many requests.
    Bearer {
        login: &'static str,
        uses: usize,
    },
    /// Sends logins to this address.
    Realm(String),
}

/// What goes wrong.
#[derive(Clone)]
pub(super) enum Fault {
    /// An answer in place of the right one.
    Answer(u16, Vec<(&'static str, String)>, &'static str),
    /// The same, once the body is read.
    Late(u16, Vec<(&'static str, String)>),
    /// The right answer with other headers.
    Headers(Vec<(&'static str, String)>),
    /// What is there is said to be at another address.
    Elsewhere(u16, String),
    /// The connection breaks before the body is read.
    Reset,
    /// The connection breaks after this many bytes of the body.
    ResetAfter(usize),
    /// It is done, but the answer is lost.
    LoseAnswer,
    /// No answer, ever; the body is not read.
    Hang,
    /// The right answer, after this long.
    Slow(Duration),
    /// An answer that does not end.
    Endless(u16),
    /// An answer that comes a byte at a time, and does not end either.
    Trickle(Duration),
}

struct Rule {
    method: Method,
    path: &'static str,
    skip: usize,
    times: usize,
    fault: Fault,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) blobs: HashMap<String, Bytes>,
    pub(super) manifests: HashMap<String, (String, Bytes)>,
    uploads: HashMap<String, Vec<u8>>,
    /// Method, path and query of each request.
    pub(super) log: Vec<String>,
    /// Headers of each request, as one text.
    pub(super) headers: Vec<String>,
    /// Everything that was ever sent as a body.
    pub(super) received: Vec<u8>,
    rules: Vec<Rule>,
    /// Uses left of each token.
    tokens: HashMap<String, usize>,
    next: usize,
}

/// The registry; it ends with the test's runtime.
#[derive(Clone)]
pub(super) struct Registry {
    pub(super) host: String,
    auth: Auth,
    /// Where tokens come from, if not from `/token` here.
    realm: Option<String>,
    state: Arc<Mutex<State>>,
}

impl Registry {
    pub(super) async fn start(auth: Auth) -> Self {
        Self::start_with(auth, None).await
    }

    /// A registry whose tokens come from an address that leads here under another name.
    pub(super) async fn start_with(auth: Auth, realm: Option<String>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let registry = Self { host, auth, realm, state: Arc::default() };
        let served = registry.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let registry = served.clone();
                let service = service_fn(move |request| {
                    let registry = registry.clone();
                    async move { registry.serve(request).await }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        registry
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Makes the first `times` requests that match go wrong.
    pub(super) fn fail(&self, method: Method, path: &'static str, times: usize, fault: Fault) {
        self.fail_after(0, method, path, times, fault);
    }

    pub(super) fn fail_after(&self, skip: usize, method: Method, path: &'static str, times: usize, fault: Fault) {
        self.state().rules.push(Rule { method, path, skip, times, fault });
    }

    /// How many requests begin so.
    pub(super) fn count(&self, begin: &str) -> usize {
        self.state().log.iter().filter(|line| line.starts_with(begin)).count()
    }

    pub(super) fn has(&self, digest: &str) -> bool {
        self.state().blobs.contains_key(digest)
    }

    /// What a tag points to.
    pub(super) fn tag(&self, tag: &str) -> Option<String> {
        self.state().manifests.get(tag).map(|(_, bytes)| digest(bytes))
    }

    async fn serve(&self, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let (head, mut body) = request.into_parts();
        let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
        let fault = {
            let mut state = self.state();
            state.log.push(format!("{} {path}?{query}", head.method));
            state.headers.push(format!("{:?}", Shown(&head.headers)));
            state.fault(&head.method, &path)
        };
        let broken = || io::Error::other("as told");
        match &fault {
            Some(Fault::Reset) => return Err(broken()),
            Some(Fault::Hang) => {
                std::future::pending::<()>().await;
            }
            Some(Fault::Answer(status, headers, text)) => {
                // The body is left unread, as busy proxies do.
                return Ok(answer(*status, headers, text.as_bytes()));
            }
            Some(Fault::Endless(status)) => return Ok(endless(*status)),
            Some(Fault::Trickle(pause)) => return Ok(trickle(*pause)),
            _ => {}
        }
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.map_err(io::Error::other)?.into_data().unwrap_or_default();
            bytes.extend_from_slice(&data);
            if matches!(fault, Some(Fault::ResetAfter(limit)) if bytes.len() > limit) {
                return Err(broken());
            }
        }
        if let Some(Fault::Late(status, headers)) = &fault {
            return Ok(answer(*status, headers, b""));
        }
        if let Some(Fault::Slow(pause)) = &fault {
            tokio::time::sleep(*pause).await;
        }
        let mut answered = self.act(&head.method, &path, &query, &head.headers, bytes);
        match fault {
            Some(Fault::LoseAnswer) => return Err(broken()),
            Some(Fault::Elsewhere(status, location)) if answered.status() == 200 => {
                return Ok(answer(status, &[("location", location)], b""));
            }
            Some(Fault::Headers(headers)) => {
                for (name, value) in headers {
                    answered.headers_mut().insert(name, value.parse().unwrap());
                }
            }
            _ => {}
        }
        Ok(answered)
    }

    fn act(&self, method: &Method, path: &str, query: &str, headers: &HeaderMap, body: Vec<u8>) -> Response<Body> {
        let mut state = self.state();
        state.received.extend_from_slice(&body);
        if ["/token", "/v2/auth", "/v2/token"].contains(&path) {
            return self.token(&mut state, headers, query);
        }
        if let Some(asked) = self.asks_login(&mut state, headers) {
            return asked;
        }
        let rest = path.strip_prefix("/v2/team/app/").unwrap_or_default();
        let digest_in = || {
            url::form_urlencoded::parse(query.as_bytes())
                .find(|(key, _)| key == "digest")
                .map(|(_, value)| value.into_owned())
        };
        if rest == "blobs/uploads/" && *method == Method::POST {
            return state.open_upload();
        }
        if let Some(id) = rest.strip_prefix("blobs/uploads/") {
            let Some(upload) = state.uploads.get_mut(id) else { return answer(404, &[], "no such upload".as_bytes()) };
            upload.extend_from_slice(&body);
            if *method == Method::PATCH {
                return answer(202, &[("location", format!("/v2/team/app/blobs/uploads/{id}"))], b"");
            }
            let bytes = state.uploads.remove(id).unwrap();
            let stored = digest(&bytes);
            if *method != Method::PUT || Some(&stored) != digest_in().as_ref() {
                return answer(400, &[], b"{\"errors\":[{\"code\":\"DIGEST_INVALID\"}]}");
            }
            state.blobs.insert(stored.clone(), bytes.into());
            return answer(201, &[("docker-content-digest", stored)], b"");
        }
        if let Some(name) = rest.strip_prefix("blobs/") {
            let length = state.blobs.get(name).map(|bytes| bytes.len().to_string());
            return length
                .map_or_else(|| answer(404, &[], b""), |length| answer(200, &[("content-length", length)], b""));
        }
        let tag = rest.strip_prefix("manifests/").unwrap_or_else(|| panic!("{method} {path}")).to_owned();
        if *method == Method::PUT {
            return state.put_manifest(tag, headers, body.into());
        }
        let found =
            state.manifests.get(&tag).or_else(|| state.manifests.values().find(|(_, bytes)| digest(bytes) == tag));
        match found {
            Some((kind, bytes)) => {
                let headers = [("docker-content-digest", digest(bytes)), ("content-type", kind.clone())];
                answer(200, &headers, if *method == Method::HEAD { b"" } else { bytes })
            }
            None => answer(404, &[], b""),
        }
    }

    fn token(&self, state: &mut State, headers: &HeaderMap, query: &str) -> Response<Body> {
        let Auth::Bearer { login, uses } = &self.auth else { return answer(404, &[], b"") };
        let scope =
            url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "scope").unwrap().1.into_owned();
        assert_eq!(scope, "repository:team/app:pull,push");
        if !is_login(headers, login) {
            return answer(401, &[], b"{\"details\":\"incorrect username or password\"}");
        }
        state.next += 1;
        let token = format!("token-{}", state.next);
        state.tokens.insert(token.clone(), *uses);
        answer(200, &[], format!("{{\"token\":\"{token}\",\"expires_in\":300}}").as_bytes())
    }

    fn asks_login(&self, state: &mut State, headers: &HeaderMap) -> Option<Response<Body>> {
        let ask = |challenge: String| {
            Some(answer(401, &[("www-authenticate", challenge)], b"{\"errors\":[{\"code\":\"UNAUTHORIZED\"}]}"))
        };
        match &self.auth {
            Auth::Open => None,
            Auth::Basic(login) if is_login(headers, login) => None,
            Auth::Basic(_) => ask("Basic realm=\"here\"".into()),
            Auth::Realm(realm) => ask(format!("Bearer realm=\"{realm}\",service=\"x\"")),
            Auth::Bearer { .. } => {
                let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
                match state.tokens.get_mut(sent.strip_prefix("Bearer ").unwrap_or_default()) {
                    Some(left) if *left > 0 => {
                        *left -= 1;
                        None
                    }
                    _ => {
                        let realm = self.realm.clone().unwrap_or_else(|| format!("http://{}/token", self.host));
                        ask(format!("Bearer realm=\"{realm}\",service=\"fake\",scope=\"x\""))
                    }
                }
            }
        }
    }
}

/// Headers with the values that `Debug` hides.
struct Shown<'a>(&'a HeaderMap);

impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(name, value)| write!(f, "{name}: {};", String::from_utf8_lossy(value.as_bytes())))
    }
}

impl State {
    fn fault(&mut self, method: &Method, path: &str) -> Option<Fault> {
        let matches = |rule: &&mut Rule| rule.method == *method && path.contains(rule.path) && rule.times > 0;
        let rule = self.rules.iter_mut().find(matches)?;
        if rule.skip > 0 {
            rule.skip -= 1;
            return None;
        }
        rule.times -= 1;
        Some(rule.fault.clone())
    }

    fn open_upload(&mut self) -> Response<Body> {
        self.next += 1;
        let id = format!("u{}", self.next);
        self.uploads.insert(id.clone(), Vec::new());
        answer(202, &[("location", format!("/v2/team/app/blobs/uploads/{id}"))], b"")
    }

    fn put_manifest(&mut self, tag: String, headers: &HeaderMap, body: Bytes) -> Response<Body> {
        let manifest: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let layers = manifest["layers"].as_array().unwrap().iter();
        for blob in layers.chain([&manifest["config"]]) {
            if !self.blobs.contains_key(blob["digest"].as_str().unwrap()) {
                return answer(400, &[], b"{\"errors\":[{\"code\":\"MANIFEST_BLOB_UNKNOWN\"}]}");
            }
        }
        let kind = headers[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        assert_eq!(manifest["mediaType"], kind);
        let stored = digest(&body);
        self.manifests.insert(tag, (kind, body));
        answer(201, &[("docker-content-digest", stored)], b"")
    }
}

fn is_login(headers: &HeaderMap, login: &str) -> bool {
    use base64::{Engine, engine::general_purpose::STANDARD};
    headers
        .get(header::AUTHORIZATION)
        .is_some_and(|sent| sent.as_bytes() == format!("Basic {}", STANDARD.encode(login)).as_bytes())
}

fn answer(status: u16, headers: &[(&'static str, String)], body: &[u8]) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(body)).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

fn trickle(pause: Duration) -> Response<Body> {
    let bytes = stream::unfold((), move |()| async move {
        tokio::time::sleep(pause).await;
        Some((Ok(Frame::data(Bytes::from_static(b" "))), ()))
    });
    Response::new(StreamBody::new(bytes).boxed_unsync())
}

/// A gigabyte, and then some, a piece at a time.
fn endless(status: u16) -> Response<Body> {
    let pieces = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Some((Ok(Frame::data(Bytes::from_static(&[b'x'; 65536]))), ()))
    });
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response.headers_mut().insert("www-authenticate", "Basic".parse().unwrap());
    response
}
