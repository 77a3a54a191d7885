//! The artifact server over HTTP on loopback, with a gate that knows one token; and what it must do, over any store.

use crate::fast::registry::{CONFIG, Engine, Image, Layers};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use windlass::{
    api::{artifact::Place, push::SecretsInImage},
    artifacts::{gate::Gate, serve::Server, store::Store},
    registry::{
        Client, Credentials, Door, DoorJob, Progress, PushError, Pushed, Repository, Secret, Trust, digest::Digest,
    },
};

/// The token of the one agent.
pub(crate) const TOKEN: &str = "token-of-the-agent";

struct OneToken(Mutex<String>);

impl Gate for OneToken {
    fn is_agent<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<bool, String>> {
        Box::pin(async move { Ok(token == *self.0.lock().unwrap()) })
    }
}

/// A server, until it is dropped.
pub(crate) struct ArtifactServer {
    pub(crate) server: Arc<Server>,
    pub(crate) host: String,
    gate: Arc<OneToken>,
    task: JoinHandle<()>,
}

impl Drop for ArtifactServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the server answered.
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl ArtifactServer {
    pub(crate) async fn start(store: Store) -> Self {
        let gate = Arc::new(OneToken(Mutex::new(TOKEN.to_owned())));
        let server = Arc::new(Server::new(store, gate.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let answering = Arc::clone(&server);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = Arc::clone(&answering);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let server = Arc::clone(&server);
                        async move { Ok::<_, Infallible>(server.answer(request).await) }
                    });
                    // A client that leaves is no fault of the server's.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { server, host, gate, task }
    }

    /// What lets an agent in from now on, in place of all before.
    pub(crate) fn token_is(&self) -> impl Fn(&str) + Send + Sync + 'static {
        let gate = Arc::clone(&self.gate);
        move |token| token.clone_into(&mut gate.0.lock().unwrap())
    }

    /// Asks as the agent.
    pub(crate) async fn agent(&self, method: Method, path: &str, body: &[u8]) -> Answered {
        self.ask(method, path, Some(TOKEN), None, body).await
    }

    /// Asks as a person.
    pub(crate) async fn person(&self, path: &str, range: Option<&str>) -> Answered {
        self.ask(Method::GET, path, None, range, b"").await
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        range: Option<&str>,
        body: &[u8],
    ) -> Answered {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            let pair = STANDARD.encode(format!("agent:{token}"));
            request = request.header(header::AUTHORIZATION, format!("Basic {pair}"));
        }
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        let (head, body) = self.server.answer(request).await.into_parts();
        Answered { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    /// Stores an image as the agent does, through the push door. Gives the digest of its manifest.
    pub(crate) async fn store(&self, place: &Place, image: &Image) -> Result<Pushed, PushError> {
        self.push(self.job(place), image).await
    }

    /// The push of a container to a place.
    pub(crate) fn job(&self, place: &Place) -> DoorJob {
        DoorJob {
            repository: Repository::parse(&format!("{}/{place}", self.host), None).unwrap(),
            tags: vec!["stored".into()],
            credentials: Some(Credentials::new("agent".into(), Secret::new(TOKEN.into()))),
            config: Box::new(|_| Ok(CONFIG.to_vec())),
            secrets: Vec::new(),
            secrets_in_image: SecretsInImage::Deny,
            artifact: true,
            mount_from: None,
            layers: None,
            progress: watch::Sender::new(Progress::default()),
            stop: CancellationToken::new(),
            before_tags: Box::new(|_| Box::pin(async { Ok(()) })),
            after_tag: Box::new(|_| Box::pin(async { Ok(()) })),
        }
    }

    pub(crate) async fn push(&self, job: DoorJob, image: &Image) -> Result<Pushed, PushError> {
        let trust = Trust { insecure_hosts: vec![self.host.clone()], ..Trust::default() };
        let door = Door::open(Client::new(trust).unwrap(), job).await.unwrap();
        let seen = Engine::new(door.target(), Layers::Classic).push(image).await;
        let pushed = door.close().await;
        assert_eq!(seen.is_ok(), pushed.is_ok(), "{seen:?}");
        pushed
    }

    /// Uploads a blob in two parts. Gives the answer to the last request.
    pub(crate) async fn upload(&self, place: &Place, bytes: &[u8], claimed: &Digest) -> Answered {
        let opened = self.agent(Method::POST, &format!("/v2/{place}/blobs/uploads/"), b"").await;
        assert_eq!(opened.status, StatusCode::ACCEPTED);
        let location = opened.headers[header::LOCATION].to_str().unwrap().to_owned();
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        let taken = self.agent(Method::PATCH, &location, first).await;
        assert_eq!(taken.status, StatusCode::ACCEPTED);
        self.agent(Method::PUT, &format!("{location}?digest={claimed}"), rest).await
    }
}

/// A place of this name.
pub(crate) fn place(text: &str) -> Place {
    Place::parse(text).unwrap()
}

/// An image is stored, and read again by who knows where: whole, and in parts. Layers that are there are not sent twice.
pub(crate) async fn what_is_stored_can_be_read(store: Store) {
    let server = ArtifactServer::start(store).await;
    // More than one part of an upload, and less.
    let image = Image::new(&[20_000_000, 1000]);
    let (here, there) = (place("team/app/11-aa"), place("team/app/11-bb"));
    let pushed = server.store(&here, &image).await.unwrap();
    assert_eq!(pushed.digest, server.store(&there, &image).await.unwrap().digest);
    let manifest = server.person(&format!("/v2/{here}/manifests/{}", pushed.digest), None).await;
    assert_eq!(manifest.status, StatusCode::OK);
    assert_eq!(Digest::of(&manifest.body).as_str(), pushed.digest);
    assert_eq!(manifest.headers[header::CONTENT_TYPE], "application/vnd.oci.image.manifest.v1+json");
    let listed = windlass::registry::Image::read(&manifest.body, "").unwrap();
    assert_eq!(listed.config, Digest::of(CONFIG));
    for (layer, sent) in listed.layers.iter().zip(&image.layers) {
        let path = format!("/v2/{here}/blobs/{}", layer.digest);
        let whole = server.person(&path, None).await;
        assert_eq!((whole.status, whole.body == *sent), (StatusCode::OK, true));
        let part = server.person(&path, Some("bytes=100-299")).await;
        assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &sent[100..300]));
        assert_eq!(part.headers[header::CONTENT_RANGE], format!("bytes 100-299/{}", sent.len()));
        let rest = server.person(&path, Some(&format!("bytes={}-", sent.len() - 5))).await;
        assert_eq!((rest.status, &rest.body[..]), (StatusCode::PARTIAL_CONTENT, &sent[sent.len() - 5..]));
    }
    let engine_config = server.person(&format!("/v2/{here}/blobs/{}", Digest::of(&image.config)), None).await;
    assert_eq!(engine_config.status, StatusCode::NOT_FOUND, "the engine's own config is kept");
}

/// Nothing counts that is not what it is said to be.
pub(crate) async fn what_is_not_whole_does_not_count(store: Store) {
    let server = ArtifactServer::start(store).await;
    let here = place("team/app/22-aa");
    let (bytes, other) = (vec![1; 9_000_000], Digest::of(b"other"));
    for bytes in [&bytes[..], b"small"] {
        let wrong = server.upload(&here, bytes, &other).await;
        assert_eq!(wrong.status, StatusCode::BAD_REQUEST, "{:?}", wrong.body);
        for digest in [&other, &Digest::of(bytes)] {
            let looked = server.agent(Method::HEAD, &format!("/v2/{here}/blobs/{digest}"), b"").await;
            assert_eq!(looked.status, StatusCode::NOT_FOUND);
        }
    }
    let layer = Digest::of(b"layer");
    let manifest = |size: usize| {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{layer}","size":{size}}},"layers":[]}}"#
        )
    };
    let put =
        async |text: String| server.agent(Method::PUT, &format!("/v2/{here}/manifests/stored"), text.as_bytes()).await;
    assert_eq!(put(manifest(5)).await.status, StatusCode::BAD_REQUEST, "its blob is not there");
    assert_eq!(server.upload(&here, b"layer", &layer).await.status, StatusCode::CREATED);
    assert_eq!(put(manifest(6)).await.status, StatusCode::BAD_REQUEST, "its blob has another size");
    assert_eq!(put("{}".into()).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(put(manifest(5)).await.status, StatusCode::CREATED);
    assert_eq!(put(manifest(5)).await.status, StatusCode::CREATED, "the same again");
    let more = manifest(5).replace("\"layers\":[]", "\"layers\":[],\"annotations\":{}");
    assert_eq!(put(more).await.status, StatusCode::CONFLICT, "a place is written once");
}
