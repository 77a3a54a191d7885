//! The Docker engine: a box as the kubelet makes it is found, committed, pushed to a loopback registry and
//! swept. On each of the engines that users have.

mod registry;

use super::engines::Which;
use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error as DockerError,
    models::{ContainerCreateBody, HostConfig},
    query_parameters::{CreateContainerOptions, RemoveContainerOptionsBuilder, RemoveImageOptions},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
    runtime::wait::{await_condition, conditions::is_pod_running},
};
use registry::Registry;
use rstest::rstest;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use windlass::{
    engine::{BoxContainer, BoxState, CommitKey, CommittedImage, Engine, EngineError, docker::DockerEngine},
    steps::{
        docker_push::ImageChanges,
        image_config::{self, Provenance},
    },
};

fn engine(of: Which) -> DockerEngine {
    DockerEngine::new(of.socket()).expect("these tests need a Docker Engine; tests/cluster/up.sh starts one")
}

fn docker(of: Which) -> Docker {
    Docker::connect_with_unix(of.socket(), 60, API_DEFAULT_VERSION).expect("these tests need a Docker Engine")
}

/// A UID that no other test and no other run of the tests has.
fn uid(what: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    format!("it-{what}-{time}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A container with the labels that the kubelet's Docker adapter sets. After a test that fails, its script ends by
/// itself and the engine removes it.
struct Container {
    id: String,
    docker: Docker,
}

impl Container {
    async fn start(of: Which, pod_uid: &str, overrides: &[(&str, &str)], script: &str) -> Self {
        Self::start_from(of, "busybox:local", pod_uid, overrides, script).await
    }

    async fn start_from(of: Which, image: &str, pod_uid: &str, overrides: &[(&str, &str)], script: &str) -> Self {
        let docker = docker(of);
        let mut labels: HashMap<String, String> = [
            ("io.kubernetes.pod.uid", pod_uid),
            ("io.kubernetes.pod.namespace", "team"),
            ("io.kubernetes.pod.name", "hello-1"),
            ("io.kubernetes.container.name", "box"),
            ("io.kubernetes.docker.type", "container"),
            ("annotation.io.kubernetes.container.restartCount", "0"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        labels.extend(overrides.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            entrypoint: Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()]),
            cmd: Some(vec!["wait-for-the-runner".to_owned()]),
            env: Some(vec!["KUBERNETES_SERVICE_HOST=10.0.0.1".to_owned(), "POD_SECRET=hunter2".to_owned()]),
            hostname: Some("hello-1".to_owned()),
            labels: Some(labels),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                auto_remove: Some(script.contains("sleep")),
                ..Default::default()
            }),
            ..Default::default()
        };
        let id = docker.create_container(None::<CreateContainerOptions>, body).await.unwrap().id;
        let container = Self { id, docker };
        container.docker.start_container(&container.id, None).await.unwrap();
        container
    }

    async fn remove(self) {
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        match self.docker.remove_container(&self.id, Some(options)).await {
            // The engine removes it by itself once it is killed, and may be first.
            Ok(()) | Err(DockerError::DockerResponseServerError { status_code: 404 | 409, .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn found(engine: &DockerEngine, pod_uid: &str) -> Option<BoxContainer> {
    engine.find_box(pod_uid, "team", "hello-1").await.unwrap()
}

/// A name that a push door could have.
fn door(port: u16) -> String {
    format!("127.0.0.1:{port}/{:032x}/x:x", rand::random::<u128>())
}

/// The repository of such a name.
fn path(door: &str) -> String {
    door.split_once('/').unwrap().1.strip_suffix(":x").unwrap().to_owned()
}

/// Waits until the box's script has written its file.
async fn settled(docker: &Docker, id: &str) {
    for _ in 0..100 {
        let changes = docker.container_changes(id).await.unwrap().unwrap_or_default();
        if changes.iter().any(|change| change.path == "/made") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the box never wrote /made");
}

#[rstest]
#[tokio::test]
async fn the_engine_says_who_it_is(#[values(Which::Clusters, Which::Debians, Which::GraphDriver)] of: Which) {
    let info = engine(of).ping().await.unwrap();
    assert_eq!(info.name, "docker");
    let (major, minor) = info.api_version.split_once('.').unwrap();
    assert!((major.parse::<u32>().unwrap(), minor.parse::<u32>().unwrap()) >= (1, 41), "{info:?}");
}

#[tokio::test]
async fn a_missing_socket_is_unreachable() {
    let error = DockerEngine::new("/nonexistent/docker.sock").err().unwrap();
    assert!(matches!(error, EngineError::Unreachable { .. }) && error.is_transient(), "{error}");
}

#[rstest]
#[tokio::test]
async fn only_the_live_box_of_the_pod_is_found(
    #[values(Which::Clusters, Which::Debians, Which::GraphDriver)] of: Which,
) {
    let (engine, pod) = (engine(of), uid("find"));
    assert_eq!(found(&engine, &pod).await, None);
    let service = Container::start(of, &pod, &[("io.kubernetes.container.name", "svc-db")], "sleep 600").await;
    let sandbox = Container::start(of, &pod, &[("io.kubernetes.docker.type", "podsandbox")], "sleep 600").await;
    let ended = Container::start(of, &pod, &[], "exit 0").await;
    let exit = futures::StreamExt::next(&mut docker(of).wait_container(&ended.id, None)).await;
    assert_eq!(exit.unwrap().unwrap().status_code, 0);
    assert_eq!(found(&engine, &pod).await, None);

    let running = Container::start(of, &pod, &[], "sleep 600").await;
    let seen = found(&engine, &pod).await.unwrap();
    assert_eq!((seen.id.as_str(), seen.state), (running.id.as_str(), BoxState::Running));
    assert!(seen.started_at.starts_with("20") && seen.image_id.starts_with("sha256:"), "{seen:?}");
    assert_eq!(engine.find_box(&pod, "other", "hello-1").await.unwrap(), None);
    assert_eq!(engine.find_box(&pod, "team", "hello-2").await.unwrap(), None);
    assert_eq!(engine.find_box(&pod, "", "").await.unwrap(), None);
    for container in [service, sandbox, ended, running] {
        container.remove().await;
    }
}

#[rstest]
#[tokio::test]
async fn a_box_is_committed_pushed_and_swept(#[values(Which::Clusters, Which::Debians, Which::GraphDriver)] of: Which) {
    let (engine, pod, run) = (engine(of), uid("pod"), uid("run"));
    // A background process that goes on writing: the commit must freeze it, and thaw it again.
    let container =
        Container::start(of, &pod, &[], "echo made > /made; for i in $(seq 6000); do date > /tick; sleep 0.1; done")
            .await;
    settled(&container.docker, &container.id).await;
    let seen = found(&engine, &pod).await.unwrap();
    let base = engine.base_image(&seen).await.unwrap();
    assert_eq!(base.config["Cmd"][0], "sh");
    assert_eq!(base.diff_ids.len(), 1);

    let key = CommitKey { run_uid: run.clone(), step: "push".to_owned() };
    let registry = Registry::start().await;
    let target = door(registry.port);
    let image = engine.commit(&seen, &key, &target).await.unwrap();
    assert_eq!(found(&engine, &pod).await.unwrap().state, BoxState::Running, "thawed after the commit");
    let left: Vec<_> = engine.leftovers().await.unwrap().into_iter().filter(|left| left.key == key).collect();
    assert_eq!(left.len(), 1);
    assert_eq!((&left[0].image, left[0].container_id.as_str()), (&image, container.id.as_str()));

    let seen_progress = Mutex::new(Vec::new());
    engine.push(&target, &|progress| seen_progress.lock().unwrap().push(progress)).await.unwrap();
    assert!(!seen_progress.lock().unwrap().is_empty());
    let names = container.docker.inspect_image(&image.id).await.unwrap().repo_tags.unwrap();
    assert_eq!(BTreeSet::from_iter(names), BTreeSet::from([target.clone()]));
    assert_eq!(registry.authorizations(), Vec::<String>::new(), "no credentials");

    let pushed = registry.config(&path(&target), "x");
    assert!(pushed.to_string().contains("hunter2"), "the engine's own config holds what must not leave");
    check_rebuilt(&base.document(), &pushed);

    engine.remove(&image).await.unwrap();
    engine.remove(&image).await.unwrap();
    assert!(engine.leftovers().await.unwrap().iter().all(|left| left.key != key));
    assert!(container.docker.inspect_image(&image.id).await.is_err());
    assert!(container.docker.inspect_image("busybox:local").await.is_ok());
    container.remove().await;
}

/// The config built from the engine's real documents holds nothing of the container.
fn check_rebuilt(base: &Value, engine_config: &Value) {
    let changes = ImageChanges {
        entrypoint: Some(vec!["/made".to_owned()]),
        env: vec![("STAGE".to_owned(), "test".to_owned())],
        labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
        ..Default::default()
    };
    let from = Provenance {
        created_by: "windlass dockerPush team/hello-1 push".to_owned(),
        created: "2026-11-21T00:00:00Z".to_owned(),
    };
    let rebuilt = image_config::rebuild(Some(base), engine_config, &changes, &from).unwrap();
    let text = rebuilt.to_string();
    for foreign in
        ["KUBERNETES", "hunter2", "io.kubernetes", "windlass.dev", "wait-for-the-runner", "hello-1\"", "NONE"]
    {
        assert!(!text.contains(foreign), "{foreign} in {text}");
    }
    assert_eq!(rebuilt["config"]["Env"][1], "STAGE=test");
    assert_eq!(rebuilt["config"]["Labels"]["team"], "a");
    assert_eq!(rebuilt["config"].get("Cmd"), None);
    assert_eq!(rebuilt["rootfs"], engine_config["rootfs"]);
    let filled = rebuilt["history"].as_array().unwrap().iter().filter(|entry| entry["empty_layer"] != true).count();
    assert_eq!(filled, rebuilt["rootfs"]["diff_ids"].as_array().unwrap().len());
}

#[rstest]
#[tokio::test]
async fn each_commit_of_a_key_is_found_until_it_is_removed(
    #[values(Which::Clusters, Which::Debians, Which::GraphDriver)] of: Which,
) {
    let (engine, pod, run) = (engine(of), uid("pod"), uid("run"));
    let container = Container::start(of, &pod, &[], "echo made > /made; sleep 600").await;
    settled(&container.docker, &container.id).await;
    let seen = found(&engine, &pod).await.unwrap();
    let key = CommitKey { run_uid: run, step: "push".to_owned() };
    // As after an agent that was killed in the middle of a push.
    let first = engine.commit(&seen, &key, &door(5999)).await.unwrap();
    let second = engine.commit(&seen, &key, &door(5999)).await.unwrap();
    let left: Vec<_> = engine.leftovers().await.unwrap().into_iter().filter(|left| left.key == key).collect();
    let images = |of: &[_]| BTreeSet::from_iter(of.iter().map(|image: &CommittedImage| image.id.clone()));
    let found: Vec<_> = left.into_iter().map(|left| left.image).collect();
    assert_eq!(images(&found), images(&[first.clone(), second.clone()]));
    for image in [first, second] {
        engine.remove(&image).await.unwrap();
        assert!(container.docker.inspect_image(&image.id).await.is_err());
    }
    container.remove().await;
}

#[rstest]
#[tokio::test]
async fn a_label_alone_makes_no_leftover(#[values(Which::Clusters, Which::Debians, Which::GraphDriver)] of: Which) {
    // Anyone can build an image with our label and have a pod pull it; it must be neither used nor removed.
    let (docker, engine, pod) = (docker(of), engine(of), uid("forged"));
    let label = format!("{}/push", uid("victim"));
    let container =
        Container::start(of, &pod, &[("windlass.dev/commit", &label)], "echo made > /made; sleep 600").await;
    let options = bollard::query_parameters::CommitContainerOptionsBuilder::default()
        .container(&container.id)
        .repo(&format!("registry.example.com/{pod}"))
        .tag("latest")
        .build();
    let forged = docker.commit_container(options, bollard::models::ContainerConfig::default()).await.unwrap().id;
    let labels = docker.inspect_image(&forged).await.unwrap().config.unwrap().labels.unwrap();
    assert_eq!(labels["windlass.dev/commit"], label, "the forgery carries the label");
    assert!(engine.leftovers().await.unwrap().iter().all(|left| left.image.id != forged));
    // A commit of that box carries our label all the same.
    let key = CommitKey { run_uid: uid("run"), step: "push".to_owned() };
    let seen = found(&engine, &pod).await.unwrap();
    let own = engine.commit(&seen, &key, &door(5999)).await.unwrap();
    assert!(engine.leftovers().await.unwrap().iter().any(|left| left.key == key && left.image == own));
    engine.remove(&own).await.unwrap();
    // Even when told to remove it, the engine leaves names that are not ours.
    engine.remove(&CommittedImage { id: forged.clone() }).await.unwrap();
    assert!(docker.inspect_image(&forged).await.is_ok());
    docker.remove_image(&forged, None::<RemoveImageOptions>, None).await.unwrap();
    container.remove().await;
}

#[rstest]
#[tokio::test]
async fn the_base_image_is_read_though_its_name_has_moved(
    #[values(Which::Clusters, Which::Debians, Which::GraphDriver)] of: Which,
) {
    // A tag is pulled anew while a box of the old image runs; the old image has no name then.
    let (docker, engine, pod) = (docker(of), engine(of), uid("moved"));
    let name = format!("registry.example.com/{pod}");
    let maker = Container::start(of, &pod, &[], "echo made > /made; sleep 600").await;
    settled(&docker, &maker.id).await;
    let commit = |stamp: &str| {
        let options = bollard::query_parameters::CommitContainerOptionsBuilder::default()
            .container(&maker.id)
            .repo(&name)
            .tag("latest")
            .build();
        let config =
            bollard::models::ContainerConfig { env: Some(vec![format!("STAMP={stamp}")]), ..Default::default() };
        docker.commit_container(options, config)
    };
    let old = commit("old").await.unwrap().id;
    let user = Container::start_from(
        of,
        &format!("{name}:latest"),
        &pod,
        &[("io.kubernetes.pod.name", "hello-2")],
        "sleep 600",
    )
    .await;
    let new = commit("new").await.unwrap().id;
    assert_ne!(old, new);
    let seen = engine.find_box(&pod, "team", "hello-2").await.unwrap().unwrap();
    let base = engine.base_image(&seen).await.unwrap();
    assert!(base.config["Env"].to_string().contains("STAMP=old"), "{}", base.config);
    assert_eq!(base.diff_ids.len(), 2);
    user.remove().await;
    maker.remove().await;
    for image in [old, new] {
        docker.remove_image(&image, None::<RemoveImageOptions>, None).await.unwrap();
    }
}

#[rstest]
#[tokio::test]
async fn a_refused_push_is_an_error_with_the_registrys_words(
    #[values(Which::Clusters, Which::Debians, Which::GraphDriver)] of: Which,
) {
    let (engine, pod, run) = (engine(of), uid("pod"), uid("run"));
    let container = Container::start(of, &pod, &[], "echo made > /made; sleep 600").await;
    settled(&container.docker, &container.id).await;
    let seen = found(&engine, &pod).await.unwrap();
    let key = CommitKey { run_uid: run, step: "push".to_owned() };
    let registry = Registry::refusing("the layer holds a secret").await;
    let target = door(registry.port);
    let image = engine.commit(&seen, &key, &target).await.unwrap();
    let error = engine.push(&target, &|_| {}).await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("the layer holds a secret"), "{error}");
    let elsewhere = engine.push("registry.example.com/team/app:t", &|_| {}).await.unwrap_err();
    assert!(matches!(elsewhere, EngineError::Unexpected { .. }), "only loopback: {elsewhere:?}");
    engine.remove(&image).await.unwrap();
    assert!(container.docker.inspect_image(&target).await.is_err(), "no name stays behind");
    container.remove().await;
}

#[rstest]
#[tokio::test]
async fn a_name_that_a_cut_off_push_left_goes_with_the_image(
    #[values(Which::Clusters, Which::Debians, Which::GraphDriver)] of: Which,
) {
    let (engine, pod, run) = (engine(of), uid("pod"), uid("run"));
    let container = Container::start(of, &pod, &[], "echo made > /made; sleep 600").await;
    settled(&container.docker, &container.id).await;
    let seen = found(&engine, &pod).await.unwrap();
    let key = CommitKey { run_uid: run, step: "push".to_owned() };
    let image = engine.commit(&seen, &key, &door(5999)).await.unwrap();
    engine.name(&image, &door(9)).await.unwrap();
    engine.remove(&image).await.unwrap();
    assert!(container.docker.inspect_image(&image.id).await.is_err());
    container.remove().await;
}

#[rstest]
#[tokio::test]
async fn frozen_boxes_of_our_pods_are_thawed(#[values(Which::Clusters, Which::Debians, Which::GraphDriver)] of: Which) {
    let (engine, ours, foreign) = (engine(of), uid("ours"), uid("foreign"));
    let (a, b) =
        (Container::start(of, &ours, &[], "sleep 600").await, Container::start(of, &foreign, &[], "sleep 600").await);
    for container in [&a, &b] {
        container.docker.pause_container(&container.id).await.unwrap();
    }
    assert_eq!(found(&engine, &ours).await.unwrap().state, BoxState::Paused);
    let pods = [ours.clone()];
    assert_eq!(engine.unpause_stuck(&pods).await.unwrap(), std::slice::from_ref(&a.id));
    assert_eq!(engine.unpause_stuck(&pods).await.unwrap(), Vec::<String>::new());
    assert_eq!(found(&engine, &ours).await.unwrap().state, BoxState::Running);
    assert_eq!(found(&engine, &foreign).await.unwrap().state, BoxState::Paused);
    b.docker.unpause_container(&b.id).await.unwrap();
    a.remove().await;
    b.remove().await;
}

#[rstest]
#[tokio::test]
async fn a_box_that_ended_is_not_found(#[values(Which::Clusters, Which::Debians, Which::GraphDriver)] of: Which) {
    let (engine, pod) = (engine(of), uid("gone"));
    let container = Container::start(of, &pod, &[], "sleep 600").await;
    let seen = found(&engine, &pod).await.unwrap();
    container.remove().await;
    let key = CommitKey { run_uid: uid("run"), step: "push".to_owned() };
    let error = engine.commit(&seen, &key, &door(5999)).await.unwrap_err();
    assert!(matches!(error, EngineError::NotFound { .. }) && !error.is_transient(), "{error:?}");
    let key = CommitKey { run_uid: "a/b".to_owned(), step: "push".to_owned() };
    assert!(matches!(engine.commit(&seen, &key, &door(5999)).await, Err(EngineError::BadKey(_))));
}

#[tokio::test]
async fn the_kubelets_own_container_is_found_and_leaves_no_trace() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = kube::Client::try_default().await.expect("this test needs a cluster; tests/cluster/up.sh starts one");
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let name = uid("box");
    let pod = serde_json::from_value(serde_json::json!({
        "metadata": {"name": name, "annotations": {"windlass.dev/run-uid": "u"},
            // A pod's own labels reach its sandbox; they must not make the sandbox a box.
            "labels": {"io.kubernetes.container.name": "box"}},
        "spec": {
            "restartPolicy": "Never", "activeDeadlineSeconds": 300, "terminationGracePeriodSeconds": 0,
            "containers": [
                {"name": "box", "image": "busybox:local", "imagePullPolicy": "Never",
                    "env": [{"name": "POD_SECRET", "value": "hunter2"}],
                    "command": ["sh", "-c", "echo made > /made; exec sleep 300", "wait-for-the-runner"]},
                {"name": "svc-db", "image": "busybox:local", "imagePullPolicy": "Never", "command": ["sleep", "300"]}]
        }
    }));
    pods.create(&PostParams::default(), &pod.unwrap()).await.unwrap();
    let running =
        tokio::time::timeout(Duration::from_secs(120), await_condition(pods.clone(), &name, is_pod_running()));
    let pod = running.await.unwrap().unwrap().unwrap();
    let pod_uid = pod.metadata.uid.unwrap();

    let engine = engine(Which::Clusters);
    let seen = engine.find_box(&pod_uid, "default", &name).await.unwrap().unwrap();
    let id = pod.status.unwrap().container_statuses.unwrap().into_iter().find(|status| status.name == "box").unwrap();
    assert_eq!(id.container_id.unwrap(), format!("docker://{}", seen.id));
    settled(&docker(Which::Clusters), &seen.id).await;
    let base = engine.base_image(&seen).await.unwrap();
    let registry = Registry::start().await;
    let target = door(registry.port);
    let key = CommitKey { run_uid: pod_uid, step: "push".to_owned() };
    let image = engine.commit(&seen, &key, &target).await.unwrap();
    engine.push(&target, &|_| {}).await.unwrap();
    engine.remove(&image).await.unwrap();
    pods.delete(&name, &DeleteParams::default()).await.unwrap();

    let pushed = registry.config(&path(&target), "x");
    for trace in ["KUBERNETES_SERVICE_HOST", "hunter2", "annotation.io.kubernetes", "io.kubernetes.pod.uid"] {
        assert!(pushed.to_string().contains(trace), "the engine's own config holds {trace}: {pushed}");
    }
    check_rebuilt(&base.document(), &pushed);
}
