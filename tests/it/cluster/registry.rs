//! The push door between a real engine and a real registry (`127.0.0.1:5000`, or `WINDLASS_TEST_REGISTRY`).
#![cfg(test)]

use crate::{
    fast::registry::engine::tar,
    token_registry::{TokenRegistry, User},
};
use bollard::{
    Docker, body_full,
    models::{ContainerConfig, ContainerCreateBody},
    query_parameters::{
        CommitContainerOptionsBuilder, CreateContainerOptions, CreateImageOptionsBuilder, PushImageOptionsBuilder,
        RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
        UploadToContainerOptionsBuilder,
    },
};
use futures::StreamExt;
use rand::RngCore;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use windlass::{
    api::push::SecretsInImage,
    registry::{
        Client, Credentials, Door, DoorJob, NamedSecret, Prepared, Progress, PushError, Pushed, Repository, Secret,
        Session, Trust, digest::Digest,
    },
};

fn registry() -> String {
    std::env::var("WINDLASS_TEST_REGISTRY").unwrap_or_else(|_| "127.0.0.1:5000".into())
}

fn client() -> Client {
    Client::new(Trust { insecure_hosts: vec![registry()], ..Trust::default() }).unwrap()
}

fn unique(name: &str) -> String {
    format!("{name}-{:08x}", rand::random::<u32>())
}

fn repository(name: &str) -> Repository {
    Repository::parse(&format!("{}/door/{name}", registry()), None).unwrap()
}

fn session(repository: &Repository) -> Session {
    Session::new(client(), repository.clone(), None, CancellationToken::new())
}

fn noise(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// An engine with a committed container, as the agent has one at a push; removed afterwards.
struct Engine {
    docker: Docker,
    base: String,
    committed: String,
    container: String,
}

impl Engine {
    /// Imports an image with one file of `size` bytes, and commits a container with `added` on top.
    async fn commit(size: usize, added: &[u8]) -> Self {
        let docker = Docker::connect_with_defaults().expect("an engine");
        docker.ping().await.expect("an engine that answers");
        let base = unique("windlass-door-base");
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(&base).tag("t").build();
        let body = body_full(tar("base", &noise(size)));
        let mut import = std::pin::pin!(docker.create_image(Some(options), Some(body), None));
        while let Some(info) = import.next().await {
            info.unwrap();
        }
        let config = ContainerCreateBody {
            image: Some(format!("{base}:t")),
            cmd: Some(vec!["/base".into()]),
            env: Some(vec!["KUBERNETES_SERVICE_HOST=10.0.0.1".into()]),
            ..Default::default()
        };
        let container = docker.create_container(None::<CreateContainerOptions>, config).await.unwrap().id;
        let options = UploadToContainerOptionsBuilder::new().path("/").build();
        docker.upload_to_container(&container, Some(options), body_full(tar("added", added))).await.unwrap();
        let committed = unique("windlass-door-commit");
        let options = CommitContainerOptionsBuilder::new().container(&container).repo(&committed).tag("t").build();
        docker.commit_container(options, ContainerConfig::default()).await.unwrap();
        Self { docker, base, committed, container }
    }

    /// What the agent does with a door.
    async fn push(&self, target: &str) -> Result<(), String> {
        let options = TagImageOptionsBuilder::new().repo(target).tag("t").build();
        self.docker.tag_image(&format!("{}:t", self.committed), Some(options)).await.unwrap();
        let options = PushImageOptionsBuilder::new().tag("t").build();
        let mut stream = std::pin::pin!(self.docker.push_image(target, Some(options), None));
        let mut result = Ok(());
        while let Some(info) = stream.next().await {
            if let Err(error) = info {
                result = Err(error.to_string());
            }
        }
        self.remove_image(&format!("{target}:t")).await;
        result
    }

    async fn remove_image(&self, name: &str) {
        let options = RemoveImageOptionsBuilder::new().force(true).build();
        let _ = self.docker.remove_image(name, Some(options), None).await;
    }

    async fn remove(self) {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        let _ = self.docker.remove_container(&self.container, Some(options)).await;
        self.remove_image(&format!("{}:t", self.committed)).await;
        self.remove_image(&format!("{}:t", self.base)).await;
    }
}

/// What a push told its caller, in order.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn say(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn job(repository: &Repository, tags: &[&str], told: &Told) -> (DoorJob, watch::Receiver<Progress>) {
    let (progress, seen) = watch::channel(Progress::default());
    let (before, after, config) = (told.clone(), told.clone(), told.clone());
    let job = DoorJob {
        repository: repository.clone(),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        credentials: None,
        config: Box::new(move |engines| {
            config.say(format!("config {}", Digest::of(engines)));
            Ok(rebuilt(engines))
        }),
        secrets: Vec::new(),
        secrets_in_image: SecretsInImage::Deny,
        artifact: false,
        mount_from: None,
        layers: Some(2),
        progress,
        stop: CancellationToken::new(),
        before_tags: Box::new(move |Prepared { digest, .. }| {
            before.say(format!("before {digest}"));
            Box::pin(async { Ok(()) })
        }),
        after_tag: Box::new(move |tag| {
            after.say(format!("after {tag}"));
            Box::pin(async { Ok(()) })
        }),
    };
    (job, seen)
}

/// The config without what Kubernetes put into the container's environment.
fn rebuilt(engines: &[u8]) -> Vec<u8> {
    let mut config: serde_json::Value = serde_json::from_slice(engines).unwrap();
    assert!(config["config"]["Env"].to_string().contains("KUBERNETES_"), "{config}");
    config["config"] = serde_json::json!({"Cmd": ["/base"]});
    config["history"] = serde_json::json!([]);
    config.as_object_mut().unwrap().remove("container_config");
    serde_json::to_vec(&config).unwrap()
}

async fn through_a_door(engine: &Engine, job: DoorJob) -> (Result<(), String>, Result<Pushed, PushError>) {
    pushed_by(client(), engine, job).await
}

async fn pushed_by(client: Client, engine: &Engine, job: DoorJob) -> (Result<(), String>, Result<Pushed, PushError>) {
    let door = Door::open(client, job).await.unwrap();
    let said = engine.push(door.target()).await;
    (said, door.close().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_pushes_through_the_door() {
    let engine = Engine::commit(6 << 20, &noise(100_000)).await;
    let repository = repository(&unique("app"));
    let told = Told::default();
    let (job, progress) = job(&repository, &["v1", "latest"], &told);
    let (said, pushed) = through_a_door(&engine, job).await;
    assert_eq!(said, Ok(()));
    let pushed = pushed.unwrap();
    assert_eq!(pushed.tags, ["v1", "latest"]);
    let told = told.all();
    assert_eq!(told[1..], [format!("before {}", pushed.digest), "after v1".into(), "after latest".into()]);
    let done = progress.borrow().clone();
    assert_eq!((done.layers_there, done.layers_sent, done.layers_left), (0, 2, 0), "{done:?}");

    let session = session(&repository);
    for tag in ["v1", "latest"] {
        assert_eq!(session.head_manifest(tag).await.unwrap().unwrap().as_str(), pushed.digest);
    }
    let (_, manifest) = session.get_manifest("v1").await.unwrap().unwrap();
    let manifest = String::from_utf8(manifest.to_vec()).unwrap();
    let engines_config = told[0].strip_prefix("config ").unwrap();
    assert!(!manifest.contains(engines_config), "{manifest}");
    assert_eq!(blob(&repository, engines_config).await, 404, "the engine's own config is in the registry");

    // What was pushed is an image: the engine can pull it back.
    let options = CreateImageOptionsBuilder::new().from_image(&repository.to_string()).tag("v1").build();
    let mut pull = std::pin::pin!(engine.docker.create_image(Some(options), None, None));
    while let Some(info) = pull.next().await {
        info.unwrap();
    }
    let image = engine.docker.inspect_image(&format!("{repository}:v1")).await.unwrap();
    assert!(!serde_json::to_string(&image.config).unwrap().contains("KUBERNETES_"));
    assert_eq!(image.root_fs.unwrap().layers.unwrap().len(), 2);
    engine.remove_image(&format!("{repository}:v1")).await;
    engine.remove().await;
}

/// Status of a blob, asked without our own client.
async fn blob(repository: &Repository, digest: &str) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(&repository.host).await.unwrap();
    let request = format!(
        "HEAD /v2/{}/blobs/{digest} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        repository.path, repository.host
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_push_sends_no_layer_again() {
    let engine = Engine::commit(6 << 20, b"small").await;
    let source = repository(&unique("first"));
    let (first, _) = job(&source, &["v1"], &Told::default());
    let first = through_a_door(&engine, first).await.1.unwrap();
    // The same repository: layers are there. The same image has the same digest.
    let (again, progress) = job(&source, &["v2"], &Told::default());
    assert_eq!(through_a_door(&engine, again).await.1.unwrap().digest, first.digest);
    assert_eq!((progress.borrow().layers_there, progress.borrow().layers_sent), (2, 0));
    assert!(progress.borrow().bytes_done < 1 << 20, "the large layer came again");
    // Another repository of the registry: layers are mounted.
    let (other, progress) = job(&repository(&unique("second")), &["v1"], &Told::default());
    let other = DoorJob { mount_from: Some(source), ..other };
    assert_eq!(through_a_door(&engine, other).await.1.unwrap().digest, first.digest);
    assert_eq!((progress.borrow().layers_there, progress.borrow().layers_sent), (2, 0));
    engine.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_a_layer_stops_the_push() {
    let content = b"//registry/:_authToken=hunter2hunter2\n";
    let engine = Engine::commit(1000, content).await;
    let repository = repository(&unique("app"));
    let secret = NamedSecret { name: "variable NPM_TOKEN".into(), value: Secret::new("hunter2hunter2".into()) };
    let (refused, _) = job(&repository, &["v1"], &Told::default());
    let (said, result) = through_a_door(&engine, DoorJob { secrets: vec![secret.clone()], ..refused }).await;
    let error = result.unwrap_err();
    assert_eq!(error.reason, "SecretInLayer");
    assert!(error.message.contains("variable NPM_TOKEN") && error.message.contains("/added"), "{error}");
    assert!(!error.message.contains("hunter2"), "{error}");
    assert!(said.is_err());
    assert_eq!(session(&repository).head_manifest("v1").await.unwrap(), None);

    let (warned, _) = job(&repository, &["v1"], &Told::default());
    let warned = DoorJob { secrets: vec![secret], secrets_in_image: SecretsInImage::Warn, ..warned };
    let pushed = through_a_door(&engine, warned).await.1.unwrap();
    assert_eq!(pushed.warnings.len(), 1, "{:?}", pushed.warnings);
    engine.remove().await;
}

/// A writer and a reader of `team`, and somebody who may write elsewhere only.
async fn guarded() -> (TokenRegistry, Client) {
    let registry = TokenRegistry::start(vec![
        User { name: "writer", password: "writers-password", may: vec![("team/".into(), &["pull", "push"])] },
        User { name: "reader", password: "readers-password", may: vec![("team/".into(), &["pull"])] },
        User { name: "other", password: "others-password", may: vec![("other/".into(), &["pull", "push"])] },
    ])
    .await;
    let (host, token_host) = (registry.host.clone(), registry.token_host.clone());
    let insecure_hosts = vec![host.clone(), token_host.clone()];
    let trust = Trust { insecure_hosts, token_hosts: vec![(host, token_host)], ..Trust::default() };
    (registry, Client::new(trust).unwrap())
}

fn login(user: &str, password: &str) -> Option<Credentials> {
    Some(Credentials::new(user.into(), Secret::new(password.into())))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_tokens_says_who_may_push() {
    let (registry, client) = guarded().await;
    let engine = Engine::commit(1000, b"small").await;
    let repository = Repository::parse(&format!("{}/team/app", registry.host), None).unwrap();
    let forbidden = format!("user \"reader\" may not push to {}/team/app (401)", registry.host);
    let cases = [
        (login("writer", "wrong-password"), Some(("RegistryUnauthorized", "refused user \"writer\" (401)"))),
        (None, Some(("RegistryUnauthorized", "the step has no credentials"))),
        (login("reader", "readers-password"), Some(("RegistryForbidden", forbidden.as_str()))),
        (login("writer", "writers-password"), None),
    ];
    for (credentials, expected) in cases {
        let (job, _) = job(&repository, &["v1"], &Told::default());
        let (_, result) = pushed_by(client.clone(), &engine, DoorJob { credentials, ..job }).await;
        match (result, expected) {
            (Ok(pushed), None) => assert_eq!(pushed.tags, ["v1"]),
            (Err(error), Some((reason, says))) => {
                assert_eq!((error.reason, error.transient), (reason, false), "{error}");
                assert!(error.message.contains(says) && !error.message.contains("-password"), "{error}");
            }
            (result, expected) => panic!("wanted {expected:?}, got {result:?}"),
        }
    }
    engine.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_a_box_image_that_may_not_be_read_are_sent() {
    let (registry, client) = guarded().await;
    let engine = Engine::commit(6 << 20, b"small").await;
    let repository = |path: &str| Repository::parse(&format!("{}/{path}", registry.host), None).unwrap();
    let (first, _) = job(&repository("team/box"), &["v1"], &Told::default());
    let first = DoorJob { credentials: login("writer", "writers-password"), ..first };
    let first = pushed_by(client.clone(), &engine, first).await.1.unwrap();
    let (second, progress) = job(&repository("other/app"), &["v1"], &Told::default());
    let credentials = login("other", "others-password");
    let second = DoorJob { credentials, mount_from: Some(repository("team/box")), ..second };
    let second = pushed_by(client, &engine, second).await.1.unwrap();
    assert_eq!(second.digest, first.digest);
    assert_eq!((progress.borrow().layers_there, progress.borrow().layers_sent), (0, 2));
    engine.remove().await;
}
