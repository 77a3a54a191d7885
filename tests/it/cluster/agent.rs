//! The agent's push with a real engine and a real registry (`127.0.0.1:5000`, or `WINDLASS_TEST_REGISTRY`): a box
//! with the kubelet's labels, the kubelet's folder with a journal in it, and a status that is kept in memory.
#![cfg(test)]

use bollard::{
    API_DEFAULT_VERSION, Docker,
    models::ContainerCreateBody,
    query_parameters::{CreateContainerOptions, RemoveContainerOptionsBuilder},
};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use windlass::{
    agent::{
        apply::{StatusSink, WriteError},
        doorbell::Doorbell,
        follow::{Pace, Post, follow},
        plan::RunEvent,
        run::{Run, Seen, Wish},
        shelf::Shelf,
        status::AgentStatus,
        transport::Relay,
    },
    api::{PipelineRun, status::StepPhase},
    engine::{Engine, docker::DockerEngine},
    registry::{Client, Patience, Repository, Session, Trust},
    wire::{Answer, EndReason, PLAN_FILE, Plan, Record},
};

const SOCKET: &str = "/var/run/docker.sock";

fn registry() -> String {
    std::env::var("WINDLASS_TEST_REGISTRY").unwrap_or_else(|_| "127.0.0.1:5000".into())
}

fn client() -> Client {
    Client::new(Trust { insecure_hosts: vec![registry()], ..Trust::default() }).unwrap()
}

/// Statuses as they were written.
#[derive(Default)]
struct Written(Mutex<Vec<AgentStatus>>);

impl Written {
    fn last(&self) -> AgentStatus {
        self.0.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

impl StatusSink for Written {
    fn write<'a>(&'a self, _run: &'a Run, status: &'a AgentStatus) -> BoxFuture<'a, Result<(), WriteError>> {
        self.0.lock().unwrap().push(status.clone());
        Box::pin(async { Ok(()) })
    }

    fn write_last<'a>(&'a self, run: &'a Run, status: &'a AgentStatus) -> BoxFuture<'a, Result<bool, WriteError>> {
        Box::pin(async move { self.write(run, status).await.map(|()| true) })
    }

    fn emit(&self, _run: &Run, _event: &RunEvent) {}
}

/// A box as the kubelet makes it, and its volumes.
struct Pod {
    docker: Docker,
    container: String,
    kubelet: tempfile::TempDir,
    run: Run,
}

impl Pod {
    async fn start(name: &str, push: Value, script: &str) -> Self {
        Self::of_step(name, json!({"name": "push", "dockerPush": push}), script).await
    }

    /// A run of one step.
    async fn of_step(name: &str, step: Value, script: &str) -> Self {
        let pod_uid = format!("{:08x}-aaaa-bbbb-cccc-{:012x}", rand::random::<u32>(), rand::random::<u32>());
        let labels: HashMap<String, String> = [
            ("io.kubernetes.pod.uid", pod_uid.as_str()),
            ("io.kubernetes.pod.namespace", "team"),
            ("io.kubernetes.pod.name", &format!("{name}-1")),
            ("io.kubernetes.container.name", "box"),
            ("io.kubernetes.docker.type", "container"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        let docker =
            Docker::connect_with_unix(SOCKET, 60, API_DEFAULT_VERSION).expect("these tests need a Docker Engine");
        let body = ContainerCreateBody {
            image: Some("busybox:local".into()),
            entrypoint: Some(vec!["/bin/sh".into(), "-c".into(), format!("{script}; touch /made; sleep 120")]),
            env: Some(vec!["KUBERNETES_SERVICE_HOST=10.0.0.1".into()]),
            labels: Some(labels),
            ..Default::default()
        };
        let container = docker.create_container(None::<CreateContainerOptions>, body).await.unwrap().id;
        docker.start_container(&container, None).await.unwrap();
        let spec = json!({
            "box": {"image": "busybox:local"},
            "env": [{"name": "API_KEY", "secretKeyRef": {"name": "keys", "key": "api"}}],
            "steps": [step],
        });
        let object: PipelineRun = serde_json::from_value(json!({
            "apiVersion": "windlass.dev/v1alpha1", "kind": "PipelineRun",
            "metadata": {"name": name, "namespace": "team", "uid": pod_uid.replace("aaaa", "dddd")},
            "spec": {"pipelineSpec": spec},
            "status": {"pipelineSpec": spec, "podUID": pod_uid, "attempt": 1, "buildNumber": 7},
        }))
        .unwrap();
        let Seen::Follow { run, .. } = Run::read(&object) else { panic!("not followed") };
        let pod = Self { docker, container, kubelet: tempfile::tempdir().unwrap(), run: *run };
        for directory in ["in", "out"] {
            std::fs::create_dir_all(pod.volume(directory)).unwrap();
        }
        // What `prepare` leaves there: of a run whose environment it does not tell.
        std::fs::write(pod.volume("in").join(PLAN_FILE), serde_json::to_vec(&Plan::default()).unwrap()).unwrap();
        let secret = pod.volumes().join("kubernetes.io~secret/secret-0");
        std::fs::create_dir_all(&secret).unwrap();
        std::fs::write(secret.join("api"), "correct-horse-battery").unwrap();
        for _ in 0..200 {
            let changes = pod.docker.container_changes(&pod.container).await.unwrap().unwrap_or_default();
            if changes.iter().any(|change| change.path == "/made") {
                return pod;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the box never wrote /made");
    }

    fn volumes(&self) -> PathBuf {
        self.kubelet.path().join("pods").join(&self.run.pod_uid).join("volumes")
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.volumes().join("kubernetes.io~empty-dir").join(name)
    }

    fn record(&self, records: &[Record]) {
        let path = self.volume("out").join("journal");
        let mut text = std::fs::read_to_string(&path).unwrap_or_default();
        for record in records {
            text.push_str(&serde_json::to_string(record).unwrap());
            text.push('\n');
        }
        std::fs::write(path, text).unwrap();
    }

    /// Follows the run as the agent does, from the request to the report.
    async fn follow(&self) -> (AgentStatus, Answer, Arc<Written>) {
        self.follow_with(client(), Shelf::None).await
    }

    async fn follow_with(&self, client: Client, shelf: Shelf) -> (AgentStatus, Answer, Arc<Written>) {
        let engine: Arc<dyn Engine> = Arc::new(DockerEngine::new(SOCKET).unwrap());
        let written = Arc::new(Written::default());
        let post = Post {
            kubelet_dir: self.kubelet.path().into(),
            sink: written.clone(),
            transport: Arc::new(Relay::new(engine.clone(), client)),
            doorbell: Some(Doorbell::new().unwrap()),
            shelf: Arc::new(shelf),
            pace: Pace::Sparing,
            stopping: CancellationToken::new(),
        };
        let (_wish, wished) = watch::channel(Wish::Go);
        let run = Arc::new(self.run.clone());
        let task = follow(Arc::new(post), run, AgentStatus::default(), wished, CancellationToken::new());
        let task = tokio::spawn(task);
        let request = json!({"version": 1, "step": 0, "run_env": {}, "env": {"VERSION": "1.4"}});
        std::fs::write(self.volume("out").join("request-0.json"), request.to_string()).unwrap();
        self.record(&[Record::Started { at: 1000, step: 0, attempt: 1 }, Record::Asked { at: 1000, step: 0 }]);
        let answer = self.volume("in").join("answer-0.json");
        let given = async {
            while !answer.exists() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), given).await.expect("no answer");
        let answer: Answer = serde_json::from_slice(&std::fs::read(answer).unwrap()).unwrap();
        assert!(written.last().steps[0].phase.is_final(), "the status comes before the answer");
        let reason = if answer.passed { EndReason::ExitCode } else { EndReason::Agent };
        let failed = (!answer.passed).then_some(0);
        self.record(&[
            Record::Ended { at: 2000, step: 0, code: None, reason, message: answer.message.clone() },
            Record::Finished {
                at: 2000,
                passed: answer.passed,
                reason: failed.map(|_| "StepFailed".into()),
                failed,
                message: None,
            },
        ]);
        tokio::time::timeout(Duration::from_secs(60), task).await.expect("no end").unwrap();
        let key = |leftover: &windlass::engine::Leftover| leftover.key.run_uid == self.run.uid;
        // A push that passed does not wait for it.
        for tries in 0.. {
            if !engine.leftovers().await.unwrap().iter().any(key) {
                break;
            }
            assert!(tries < 600, "the committed image stays");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        (written.last(), answer, written)
    }

    async fn remove(self) {
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        self.docker.remove_container(&self.container, Some(options)).await.unwrap();
    }
}

fn destination(name: &str) -> (String, Session) {
    let repository = format!("{}/agent/{name}-{:08x}", registry(), rand::random::<u32>());
    let parsed = Repository::parse(&repository, None).unwrap();
    (repository, Session::new(client(), parsed, None, CancellationToken::new()))
}

#[tokio::test]
async fn a_box_becomes_an_image_under_all_its_tags() {
    let (repository, session) = destination("green");
    let push = json!({"repository": repository, "tags": ["$VERSION", "latest"], "cmd": ["/hello"]});
    let pod = Pod::start("green", push, "echo hello > /hello").await;
    let (status, answer, written) = pod.follow().await;
    pod.remove().await;
    assert!(answer.passed, "{answer:?}");
    let image = status.steps[0].images[0].clone();
    assert_eq!((image.repository.as_str(), image.tags.len()), (repository.as_str(), 3));
    for tag in ["1.4", "latest", "7"] {
        let found = session.head_manifest(tag).await.unwrap().expect(tag);
        assert_eq!(found.as_str(), image.digest);
    }
    let statuses = written.0.lock().unwrap().clone();
    let first = statuses.iter().find_map(|status| status.steps[0].images.first().cloned()).unwrap();
    assert_eq!(answer.log, [format!("pushed {repository}: tags 1.4, latest, 7 ({})", image.digest)]);
    assert_eq!((first.digest, first.tags), (image.digest, Vec::new()), "the digest stands before a tag moves");
    assert_eq!(status.report.unwrap().reason, None);
}

#[tokio::test]
async fn a_box_is_stored_in_a_registry() {
    let prefix = format!("{}/kept-{:08x}", registry(), rand::random::<u32>());
    let step = json!({"name": "keep", "storeContainer": {"name": "app"}});
    let pod = Pod::of_step("kept", step, "echo hello > /hello").await;
    let shelf = Shelf::Registry { prefix: prefix.clone(), login: None };
    let (status, answer, _) = pod.follow_with(client(), shelf).await;
    let uid = pod.run.uid.clone();
    pod.remove().await;
    assert!(answer.passed, "{answer:?}");
    let kept = &status.artifacts[0];
    let digest = kept.digest.clone().unwrap();
    let repository = format!("{prefix}/team/kept");
    assert_eq!((kept.name.as_str(), kept.location.clone()), ("app", Some(format!("{repository}@{digest}"))));
    assert_eq!(answer.log, [format!("stored app ({digest})")]);
    let session = Session::new(client(), Repository::parse(&repository, None).unwrap(), None, CancellationToken::new());
    let found = session.head_manifest(&format!("app.{uid}")).await.unwrap().unwrap();
    assert_eq!(found.as_str(), digest, "a tag keeps it from being collected");
    let (kind, _) = session.get_manifest(&digest).await.unwrap().unwrap();
    assert_eq!(kind, "application/vnd.oci.image.manifest.v1+json");
}

#[tokio::test]
async fn a_secret_in_the_box_stops_the_push() {
    let (repository, session) = destination("secret");
    let push = json!({"repository": repository, "tag": "1"});
    let pod = Pod::start("secret", push, "mkdir -p /root; echo correct-horse-battery > /root/.netrc").await;
    let (status, answer, _) = pod.follow().await;
    pod.remove().await;
    assert!(!answer.passed);
    assert_eq!(status.steps[0].reason.as_deref(), Some("SecretInLayer"));
    let message = status.steps[0].message.clone().unwrap();
    assert!(message.contains("variable API_KEY") && message.contains("/root/.netrc"), "{message}");
    assert!(!message.contains("horse"), "{message}");
    assert_eq!(session.head_manifest("1").await.unwrap(), None);
    let report = status.report.unwrap();
    assert_eq!(report.message, Some(format!("step push failed: {message}")));
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_told() {
    let push = json!({"repository": "127.0.0.1:1/agent/none", "tag": "1"});
    let pod = Pod::start("nowhere", push, "true").await;
    let hasty = Patience { unreachable_for: Duration::from_secs(1), ..Patience::default() };
    let trust = Trust { insecure_hosts: vec!["127.0.0.1:1".into()], ..Trust::default() };
    let (status, ..) = pod.follow_with(Client::with_patience(trust, hasty).unwrap(), Shelf::None).await;
    pod.remove().await;
    assert_eq!(status.steps[0].phase, StepPhase::Failed);
    assert_eq!(status.steps[0].reason.as_deref(), Some("RegistryUnreachable"));
}
