//! The push door against a registry of our own that misbehaves.
#![cfg(test)]

pub(crate) mod ecr;
pub(crate) mod engine;
mod fake;
mod faults;
mod layers;
mod logins;
mod memory;
mod pushes;
mod tls;

use engine::Store;
pub(crate) use engine::{Engine, Image, Store as Layers};
use fake::Registry;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use windlass::{
    api::push::SecretsInImage,
    registry::{
        Client, Credentials, Door, DoorJob, Patience, Prepared, Progress, PushError, Pushed, Repository, Secret,
        Session, Trust,
    },
};

/// The config that pushes of these tests end with.
pub(crate) const CONFIG: &[u8] = br#"{"config":{"Cmd":["/app"]},"rootfs":{"type":"layers"}}"#;

/// Short, as what is waited for here never comes.
fn patience() -> Patience {
    Patience {
        connect: Duration::from_millis(500),
        answer: Duration::from_secs(2),
        commit: Duration::from_secs(2),
        idle: Duration::from_millis(500),
        retry_for: Duration::from_secs(5),
        unreachable_for: Duration::from_millis(100),
        first_pause: Duration::from_millis(5),
    }
}

fn trust(registry: &Registry) -> Trust {
    Trust { insecure_hosts: vec![registry.host.clone()], ..Trust::default() }
}

fn client(registry: &Registry) -> Client {
    Client::with_patience(trust(registry), patience()).unwrap()
}

fn repository(host: &str) -> Repository {
    Repository::parse(&format!("{host}/team/app"), None).unwrap()
}

fn login(user: &str, password: &str) -> Option<Credentials> {
    Some(Credentials::new(user.into(), Secret::new(password.into())))
}

fn session(registry: &Registry) -> Session {
    Session::new(client(registry), repository(&registry.host), None, CancellationToken::new())
}

/// What a push told its caller.
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

/// A job of two tags; tests change what they are about.
fn job(host: &str, told: &Told) -> DoorJob {
    let (before, after) = (told.clone(), told.clone());
    DoorJob {
        repository: repository(host),
        tags: vec!["v1".into(), "latest".into()],
        credentials: None,
        config: Box::new(|_| Ok(CONFIG.to_vec())),
        secrets: Vec::new(),
        secrets_in_image: SecretsInImage::Deny,
        artifact: false,
        mount_from: None,
        layers: None,
        progress: watch::Sender::new(Progress::default()),
        stop: CancellationToken::new(),
        before_tags: Box::new(move |Prepared { digest, .. }| {
            before.say(format!("before {digest}"));
            Box::pin(async { Ok(()) })
        }),
        after_tag: Box::new(move |tag| {
            after.say(format!("after {tag}"));
            Box::pin(async { Ok(()) })
        }),
    }
}

/// Pushes an image through a door. Gives what the engine saw, and what the door says.
async fn push(
    client: Client,
    job: DoorJob,
    image: &Image,
    store: Store,
) -> (Result<(), String>, Result<Pushed, PushError>) {
    let door = Door::open(client, job).await.unwrap();
    let seen = Engine::new(door.target(), store).push(image).await;
    (seen, door.close().await)
}

/// A push that fails: the door's error, and the engine saw one too.
async fn failure(registry: &Registry, job: DoorJob, image: &Image) -> PushError {
    let (seen, result) = push(client(registry), job, image, Store::Classic).await;
    assert!(seen.is_err(), "the engine was told that all is well");
    result.unwrap_err()
}
