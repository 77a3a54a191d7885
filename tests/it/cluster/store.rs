//! `storeContainer` on the real cluster: what people fetch, with our command line and with tools we did not write; who
//! cannot; and the store over a real S3 server.

use super::{
    chart, installation,
    world::{World, step, tool, verdict},
};
use crate::{
    artifact_server::{what_is_not_whole_does_not_count, what_is_stored_can_be_read},
    token_registry::{TokenRegistry, User},
};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};
use windlass::{
    api::{PipelineRunStatus, status::StepPhase},
    artifacts::{s3::S3, store::Store},
    registry::Secret,
};

/// What `windlass` printed and complained of, with its exit code.
fn windlass(world: &World, dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command(world, dir, arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn command(world: &World, dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.args(["-n", &world.namespace]).args(arguments).current_dir(dir);
    command.env("XDG_CACHE_HOME", dir.join("cache")).env("DOCKER_CONFIG", dir).stdin(Stdio::null());
    command
}

/// A run that stores its box as `app`.
async fn stored(world: &World, name: &str) -> PipelineRunStatus {
    let pipeline = "    box: {image: 'busybox:local'}\n    steps:\n    - {name: build, script: 'echo hello > /made; dd if=/dev/urandom of=/big bs=1M count=9 2>/dev/null'}\n    - {name: keep, storeContainer: {name: app, message: 'of $WERCKER_GIT_BRANCH$$'}}\n    env: [{name: WERCKER_GIT_BRANCH, value: main}]";
    let status = world.run(name, pipeline).await;
    let (reason, message) = verdict(&status);
    assert_eq!(reason, "Succeeded", "{message}");
    status
}

fn config(archive: &str) -> Value {
    serde_json::from_str(&tool("skopeo", &["inspect", "--config", archive], "").unwrap()).unwrap()
}

#[tokio::test]
async fn a_stored_container_is_pulled_and_opened() {
    let world = World::new().await;
    let status = stored(&world, "r").await;
    let kept = &status.artifacts[0];
    let location = kept.location.clone().unwrap();
    let (digest, size) = (kept.digest.clone().unwrap(), kept.size.unwrap());
    assert_eq!((kept.name.as_str(), size > 9_000_000), ("app", true));
    assert!(location.starts_with("windlass-artifacts.windlass-system.svc/"), "{location}");
    assert!(step(&status, "keep").images.is_empty(), "it would be taken for a pushed image");

    // Who may see events and logs learns that it was stored, and not where.
    let events = world.kubectl(&["get", "events.events.k8s.io", "-o", "json"], "").unwrap();
    assert!(events.contains(&format!("stored app ({digest}) in ")), "{events}");
    let id = location.rsplit('/').next().unwrap();
    let of_agent = tool("kubectl", &["-n", "windlass-system", "logs", "ds/windlass-agent", "--since=5m"], "").unwrap();
    let of_server =
        tool("kubectl", &["-n", "windlass-system", "logs", "deploy/windlass-artifacts", "--since=5m"], "").unwrap();
    for text in [&events, &of_agent, &of_server, &world.log("r").await] {
        assert!(!text.contains(id), "the place is told");
    }

    let dir = tempfile::tempdir().unwrap();
    let (code, out, err) = windlass(&world, dir.path(), &["pull", "r", "-o", "r.oci.tar"]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{err}");
    assert!(err.contains(&format!("verified {}", &digest[..19])) && err.contains("saved as r.oci.tar"), "{err}");
    let file = dir.path().join("r.oci.tar");
    let archive = format!("oci-archive:{}", file.display());
    let inspected: Value = serde_json::from_str(&tool("skopeo", &["inspect", &archive], "").unwrap()).unwrap();
    assert_eq!(inspected["Digest"], digest.as_str());
    let config = config(&archive);
    assert!(!config.to_string().contains("KUBERNETES_"), "{config}");
    let last = config["history"].as_array().unwrap().last().unwrap();
    assert_eq!(last["comment"], "of main$");
    assert_eq!(last["created_by"], format!("windlass storeContainer {}/r keep", world.namespace));

    // Docker takes the same file.
    let loaded = tool("docker", &["load", "-q", "-i", file.to_str().unwrap()], "").unwrap();
    let image = format!("windlass/r:{}", status.build_number.unwrap());
    assert!(loaded.contains(&image), "{loaded}");
    assert_eq!(tool("docker", &["run", "--rm", &image, "cat", "/made"], "").unwrap(), "hello\n");
    tool("docker", &["rmi", "-f", &image], "").unwrap();

    // From nothing to an answer; a second time nothing is fetched.
    let (code, out, err) = windlass(&world, dir.path(), &["open", "r", "--cmd", "sh -c 'cat /made; exit 3'"]);
    assert_eq!((code, out.as_str()), (Some(3), "hello\n"), "{err}");
    assert!(err.contains("verified"), "{err}");
    let (code, out, err) = windlass(&world, dir.path(), &["open", "r", "--cmd", "wc -c /big"]);
    assert_eq!((code, out.trim()), (Some(0), "9437184 /big"), "{err}");
    assert!(!err.contains("verified"), "{err}");
    let (code, _, err) = windlass(&world, dir.path(), &["open", "r"]);
    assert_eq!(code, Some(2), "{err}");
    // Whoever leaves takes the container along: a terminal that is closed, and Ctrl-C when nothing is printed any more.
    for (signal, code) in [("-HUP", 143), ("-INT", 130)] {
        let script = "sh -c 'echo up; exec >/dev/null 2>&1; sleep 300'";
        let mut child =
            command(&world, dir.path(), &["open", "r", "--cmd", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert_eq!(first, "up\n");
        tool("kill", &[signal, &child.id().to_string()], "").unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
    }
    assert_eq!(tool("docker", &["ps", "-aq", "--filter", &format!("ancestor={image}")], "").unwrap(), "");
    tool("docker", &["rmi", "-f", &image], "").unwrap();
    let (code, _, err) = windlass(&world, dir.path(), &["pull", "r", "--load"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains(&format!("loaded as {image}")) && err.contains("start it: windlass"), "{err}");
    tool("docker", &["rmi", "-f", &image], "").unwrap();
}

#[tokio::test]
async fn a_pull_goes_on_where_it_was_cut_off() {
    let world = World::new().await;
    stored(&world, "r").await;
    let dir = tempfile::tempdir().unwrap();
    let pull = || windlass(&world, dir.path(), &["pull", "r", "-o", "r.tar", "--plain"]);
    assert_eq!(pull().0, Some(0));
    let (file, part) = (dir.path().join("r.tar"), dir.path().join("r.tar.part"));
    let whole = std::fs::read(&file).unwrap();
    // Cut in the middle of a layer; and cut, with a byte that is another.
    for flipped in [false, true] {
        let mut some = whole[..whole.len() / 2].to_vec();
        if flipped {
            let at = some.len() - 1000;
            some[at] ^= 1;
        }
        std::fs::write(&part, some).unwrap();
        std::fs::remove_file(&file).unwrap();
        let (code, _, err) = pull();
        assert_eq!(code, Some(0), "{err}");
        assert!(std::fs::read(&file).unwrap() == whole, "another file, flipped: {flipped}");
        assert!(!part.exists());
    }
}

#[tokio::test]
async fn who_may_not_read_the_run_may_not_read_what_it_stored() {
    let world = World::new().await;
    let status = stored(&world, "r").await;
    let place = status.artifacts[0].location.clone().unwrap();
    let place = place.split_once('/').unwrap().1.to_owned();
    let digest = status.artifacts[0].digest.clone().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (code, _, err) = windlass(&world, dir.path(), &["--as", "mallory", "pull", "r"]);
    assert_eq!(code, Some(4), "{err}");
    let proxy = "/api/v1/namespaces/windlass-system/services/https:windlass-artifacts:https/proxy";
    let raw = |user: &str, verb: &[&str], path: &str| {
        let path = format!("{proxy}{path}");
        tool(
            "kubectl",
            &[&["--as", user, "--as-group", "system:authenticated"], verb, &["--raw", &path]].concat(),
            "{}",
        )
    };
    let manifest = format!("/v2/{place}/manifests/{digest}");
    assert!(raw("mallory", &["get"], &manifest).is_ok(), "who was told the place may read");
    let guessed = manifest.replace(&place[place.len() - 4..], "0000");
    assert_ne!(guessed, manifest);
    for path in [guessed.as_str(), "/v2/_catalog", &format!("/v2/{}/tags/list", place.rsplit_once('/').unwrap().0)] {
        let refused = raw("mallory", &["get"], path).unwrap_err();
        assert!(refused.contains("NotFound") || refused.contains("could not find"), "{path}: {refused}");
    }
    // Writing is no reader's; not even an administrator of the cluster writes there.
    let refused = raw("mallory", &["create", "-f", "-"], &format!("/v2/{place}/blobs/uploads/")).unwrap_err();
    assert!(refused.contains("orbidden"), "{refused}");
    let path = format!("{proxy}/v2/{place}/blobs/uploads/");
    let refused = tool("kubectl", &["create", "-f", "-", "--raw", &path], "{}").unwrap_err();
    assert!(refused.contains("nauthorized") || refused.contains("must be logged in"), "{refused}");

    // A reader of runs is one of what they stored.
    let grant = ["create", "rolebinding", "reader", "--clusterrole=view", "--user=ann"];
    world.kubectl(&grant, "").unwrap();
    // Aggregation and authorisation take a moment.
    for tries in 0.. {
        let (code, _, err) =
            windlass(&world, dir.path(), &["--as", "ann", "--as-group", "system:authenticated", "pull", "r"]);
        if code == Some(0) {
            break;
        }
        assert!(tries < 50, "{err}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(dir.path().join("r.tar").exists());
}

#[tokio::test]
async fn a_secret_is_not_stored() {
    let world = World::new().await;
    world.kubectl(&["create", "secret", "generic", "keys", "--from-literal=api=correct-horse-battery"], "").unwrap();
    let pipeline = "    box: {image: 'busybox:local'}\n    env: [{name: API_KEY, secretKeyRef: {name: keys, key: api}}]\n    steps:\n    - {name: build, script: 'echo $API_KEY > /made'}\n    - {name: keep, storeContainer: {}}";
    let status = world.run("r", pipeline).await;
    let kept = step(&status, "keep");
    assert_eq!((kept.phase, kept.reason.as_deref()), (StepPhase::Failed, Some("SecretInLayer")));
    let message = kept.message.as_deref().unwrap();
    assert!(message.contains("variable API_KEY") && message.ends_with("take it out"), "{message}");
    assert!(status.artifacts.is_empty(), "{:?}", status.artifacts);
    let dir = tempfile::tempdir().unwrap();
    let (code, _, err) = windlass(&world, dir.path(), &["pull", "r"]);
    assert_eq!(code, Some(5), "{err}");
    assert!(err.contains("its storeContainer step did not pass"), "{err}");
}

/// A run whose container is in a registry: any image in one will do.
#[tokio::test]
async fn a_container_in_a_registry_is_pulled() {
    let world = World::new().await;
    let repository = super::push::repository(&world, "kept");
    let pipeline = format!(
        "    box: {{image: 'busybox:local'}}\n    steps:\n    - {{name: build, script: 'echo hello > /made'}}\n    - {{name: push, dockerPush: {{repository: '{repository}'}}}}"
    );
    let status = world.run("r", &pipeline).await;
    let digest = step(&status, "push").images[0].digest.clone();
    let artifact = serde_json::json!({"name": "app", "location": format!("{repository}@{digest}"), "digest": digest});
    let patch = serde_json::json!({"status": {"artifacts": [artifact]}}).to_string();
    world.kubectl(&["patch", "plr", "r", "--subresource=status", "--type=merge", "-p", &patch], "").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (code, _, err) = windlass(&world, dir.path(), &["pull", "r"]);
    assert_eq!(code, Some(0), "{err}");
    let archive = format!("oci-archive:{}", dir.path().join("r.tar").display());
    assert!(!config(&archive).to_string().contains("KUBERNETES_"));
    let whole = std::fs::read(dir.path().join("r.tar")).unwrap();
    std::fs::write(dir.path().join("r.tar.part"), &whole[..whole.len() - 2000]).unwrap();
    let (code, _, err) = windlass(&world, dir.path(), &["pull", "r"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(std::fs::read(dir.path().join("r.tar")).unwrap() == whole);
}

/// The artifact server dies while a container comes in: the agent sends it again, to the same place.
#[tokio::test]
async fn a_server_that_is_killed_costs_time_only() {
    let world = World::alone().await;
    world.start(
        "r",
        "    box: {image: 'busybox:local'}\n    steps:\n    - {name: build, script: 'dd if=/dev/urandom of=/big bs=1M count=40 2>/dev/null'}\n    - {name: keep, storeContainer: {}}",
    );
    world.until("r", "storing", |s| s.steps.iter().any(|s| s.name == "keep" && s.phase == StepPhase::Running)).await;
    installation::kill("artifacts");
    let status = world.end("r").await;
    let (reason, message) = verdict(&status);
    assert_eq!(reason, "Succeeded", "{message}");
    installation::until("the artifact server works", Duration::from_secs(60), || {
        (!installation::ready("artifacts").is_empty()).then_some(())
    })
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (code, _, err) = windlass(&world, dir.path(), &["pull", "r"]);
    assert_eq!(code, Some(0), "{err}");
}

/// What the chart makes of each kind of store.
#[test]
fn the_chart_knows_four_kinds_of_stores() {
    let render = |values: &str| chart::render("--set", values);
    let has = |text: &str, line: &str| text.lines().any(|found| found.trim() == line);
    for (values, there, not_there) in [
        (
            "artifacts.store.kind=directory",
            &["- --directory=/var/lib/windlass/artifacts", "kind: PersistentVolumeClaim", "- --has-store"][..],
            &["- --artifacts-registry="][..],
        ),
        ("artifacts.store.directory.existingClaim=mine", &["- --has-store"], &["kind: PersistentVolumeClaim"]),
        (
            "artifacts.store.kind=s3,artifacts.store.s3.bucket=kept,artifacts.store.s3.secretName=keys,artifacts.retention.maxCount=0",
            &["- --s3-bucket=kept", "- name: AWS_SECRET_ACCESS_KEY", "- --max-age=720h"],
            &["kind: PersistentVolumeClaim", "- --max-count=0", "- --directory=/var/lib/windlass/artifacts"],
        ),
        (
            "artifacts.store.kind=registry,artifacts.store.registry.prefix=r.io/kept,artifacts.store.registry.secretName=login",
            &["- --artifacts-registry=r.io/kept", "- --artifacts-login=/run/windlass/artifacts/.dockerconfigjson"],
            &["name: windlass-artifacts", "- --artifacts-token=/run/windlass/artifacts/token"],
        ),
        (
            "artifacts.tls.existingSecret=cert",
            &["secret: {secretName: \"cert\"}", "secret: {secretName: \"cert\", items: [{key: ca.crt, path: ca.pem}]}"],
            &["name: windlass-artifacts-tls", "name: windlass-artifacts-ca", "type: kubernetes.io/tls"],
        ),
        ("artifacts.store.kind=none", &[], &["name: windlass-artifacts", "- --has-store"]),
    ] {
        let text = render(values).unwrap();
        for line in there {
            assert!(has(&text, line), "{values}: no {line}");
        }
        for line in not_there {
            assert!(!has(&text, line), "{values}: {line}");
        }
    }
    // A new certificate, as one rendered without the cluster has, starts nothing again: the files are read while they change.
    let pods = |text: &str| text.split("kind: Deployment").last().unwrap().to_owned();
    let (first, second) = (render("image.tag=one").unwrap(), render("image.tag=one").unwrap());
    assert_ne!(first, second);
    assert_eq!(pods(&first), pods(&second));
    for (values, word) in [
        ("artifacts.store.kind=tape", "kind"),
        ("artifacts.store.kind=s3", "bucket"),
        ("artifacts.store.kind=registry", "prefix"),
        ("artifacts.retention.maxAge=forever", "maxAge"),
    ] {
        let refused = render(values).unwrap_err();
        assert!(refused.contains(word), "{values}: {refused}");
    }
}

/// A real S3 server, until it is dropped.
struct S3Server {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl S3Server {
    async fn start() -> Self {
        Self::start_at("127.0.0.1").await
    }

    /// One that pods reach, at the node's own address, which no other machine does.
    async fn start_for_pods() -> Self {
        Self::start_at(&std::env::var("WINDLASS_NODE_IP").unwrap()).await
    }

    async fn start_at(ip: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["data/kept", "meta"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let port = std::net::TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port();
        let child = Command::new("versitygw")
            .args(["--access", "demo", "--secret", "demo-secret", "--port", &format!("{ip}:{port}"), "--quiet"])
            .args(["posix", "--sidecar"])
            .arg(dir.path().join("meta"))
            .arg(dir.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("versitygw cannot be started ({error}): source target/cluster/env"));
        for tries in 0.. {
            if tokio::net::TcpStream::connect((ip, port)).await.is_ok() {
                break;
            }
            assert!(tries < 200, "versitygw does not listen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self { child, port, dir }
    }

    fn store(&self) -> Store {
        Store::s3(&S3 {
            bucket: "kept".into(),
            endpoint: Some(format!("http://127.0.0.1:{}", self.port)),
            region: "us-east-1".into(),
            prefix: "windlass/".into(),
            insecure: true,
            keys: Some(("demo".into(), Secret::new("demo-secret".into()))),
            ..S3::default()
        })
        .unwrap()
    }
}

#[tokio::test]
async fn what_is_stored_in_s3_can_be_read() {
    let s3 = S3Server::start().await;
    s3.store().probe().await.unwrap();
    what_is_stored_can_be_read(s3.store()).await;
    let blobs = s3.dir.path().join("data/kept/windlass/blobs/sha256");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 3);
    assert_eq!(s3.store().manifests().await.unwrap().len(), 2);
    assert_eq!(s3.store().blobs().await.unwrap().len(), 3);
}

#[tokio::test]
async fn what_is_not_whole_does_not_count_in_s3() {
    let s3 = S3Server::start().await;
    what_is_not_whole_does_not_count(s3.store()).await;
    let uploads = s3.dir.path().join("data/kept/windlass/uploads");
    assert_eq!(std::fs::read_dir(uploads).map_or(0, Iterator::count), 0);
}

/// The installation with another store, until it is dropped.
struct OtherStore {
    values: tempfile::NamedTempFile,
}

impl OtherStore {
    fn of_chart(values: &Value) -> Self {
        let before =
            tool("helm", &["-n", installation::NAMESPACE, "get", "values", "windlass", "-o", "json"], "").unwrap();
        let kept = Self { values: tempfile::NamedTempFile::new().unwrap() };
        std::fs::write(kept.values.path(), before).unwrap();
        let other = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(other.path(), values.to_string()).unwrap();
        kept.install(&[other.path()]).unwrap();
        kept
    }

    /// Installs with the values of before and these on top, and waits until all parts work.
    fn install(&self, on_top: &[&Path]) -> Result<(), String> {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/windlass");
        let mut arguments =
            vec!["-n", installation::NAMESPACE, "upgrade", "windlass", chart.to_str().unwrap(), "--skip-crds"];
        for file in [self.values.path()].into_iter().chain(on_top.iter().copied()) {
            arguments.extend(["-f", file.to_str().unwrap()]);
        }
        tool("helm", &arguments, "")?;
        let parts = tool("kubectl", &["-n", installation::NAMESPACE, "get", "deploy,ds", "-o", "name"], "")?;
        for part in parts.lines() {
            tool("kubectl", &["-n", installation::NAMESPACE, "rollout", "status", part, "--timeout=60s"], "")?;
        }
        Ok(())
    }
}

impl Drop for OtherStore {
    fn drop(&mut self) {
        if let Err(error) = self.install(&[]) {
            eprintln!("the installation is not as it was: {error}");
        }
        let secret = ["-n", installation::NAMESPACE, "delete", "secret", STORE_LOGIN, "--ignore-not-found"];
        if let Err(error) = tool("kubectl", &secret, "") {
            eprintln!("{error}");
        }
    }
}

/// The Secret with the store's login, in the namespace of Windlass.
const STORE_LOGIN: &str = "it-store-login";

fn store_login(kind: &str, data: &Value) {
    let secret = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "type": kind, "stringData": data,
        "metadata": {"name": STORE_LOGIN, "namespace": installation::NAMESPACE},
    });
    tool("kubectl", &["apply", "-f", "-"], &secret.to_string()).unwrap();
}

/// The chart's value for S3: the artifact server keeps all in the bucket, people pull as ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_installation_with_s3_keeps_what_is_stored() {
    let world = World::alone().await;
    let s3 = S3Server::start_for_pods().await;
    store_login("Opaque", &serde_json::json!({"AWS_ACCESS_KEY_ID": "demo", "AWS_SECRET_ACCESS_KEY": "demo-secret"}));
    let endpoint = format!("http://{}:{}", std::env::var("WINDLASS_NODE_IP").unwrap(), s3.port);
    let bucket = serde_json::json!({
        "bucket": "kept", "prefix": "here", "endpoint": endpoint, "insecure": true, "secretName": STORE_LOGIN,
    });
    let _other = OtherStore::of_chart(&serde_json::json!({"artifacts": {"store": {"kind": "s3", "s3": bucket}}}));
    let status = stored(&world, "r").await;
    let blobs = s3.dir.path().join("data/kept/here/blobs/sha256");
    assert!(std::fs::read_dir(blobs).unwrap().count() >= 3);
    assert_pulled(&world, &status, None).await;
}

/// The chart's value for a registry, which wants a login of agents and people.
#[tokio::test(flavor = "multi_thread")]
async fn an_installation_with_a_registry_keeps_what_is_stored() {
    let world = World::alone().await;
    let user = User { name: "keeper", password: "keepers-password", may: Vec::new() };
    let registry = TokenRegistry::start_known_with_passwords(vec![user]).await;
    let auths = serde_json::json!({"auths": {&registry.host: {"username": "keeper", "password": "keepers-password"}}});
    let login = serde_json::json!({".dockerconfigjson": auths.to_string()});
    store_login("kubernetes.io/dockerconfigjson", &login);
    let prefix = format!("{}/kept", registry.host);
    let values = serde_json::json!({"prefix": prefix, "secretName": STORE_LOGIN});
    let _other =
        OtherStore::of_chart(&serde_json::json!({"artifacts": {"store": {"kind": "registry", "registry": values}}}));
    let status = stored(&world, "r").await;
    let location = status.artifacts[0].location.clone().unwrap();
    assert!(location.starts_with(&format!("{prefix}/{}/r@sha256:", world.namespace)), "{location}");
    let dir = tempfile::tempdir().unwrap();
    let (code, _, err) = windlass(&world, dir.path(), &["pull", "r"]);
    assert_eq!(code, Some(4), "without a login: {err}");
    assert!(err.contains("asks for a login"), "{err}");
    assert_pulled(&world, &status, Some(&auths)).await;
}

/// A pull gives what the run stored, with these logins of the person's Docker.
async fn assert_pulled(world: &World, status: &PipelineRunStatus, docker: Option<&Value>) {
    let dir = tempfile::tempdir().unwrap();
    if let Some(config) = docker {
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    }
    let (code, _, err) = windlass(world, dir.path(), &["pull", "r", "-o", "r.tar"]);
    assert_eq!(code, Some(0), "{err}");
    let archive = format!("oci-archive:{}", dir.path().join("r.tar").display());
    let inspected: Value = serde_json::from_str(&tool("skopeo", &["inspect", &archive], "").unwrap()).unwrap();
    assert_eq!(inspected["Digest"], status.artifacts[0].digest.clone().unwrap());
}
