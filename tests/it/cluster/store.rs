//! `storeContainer` on the real cluster: what people fetch, with our command line and with tools we did not write; who
//! cannot; and the store over a real S3 server.

use super::{
    installation,
    world::{World, step, tool, verdict},
};
use crate::artifact_server::{what_is_not_whole_does_not_count, what_is_stored_can_be_read};
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
    command.env("XDG_CACHE_HOME", dir.join("cache")).stdin(Stdio::null());
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
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/windlass");
    let render = |values: &str| {
        let arguments = ["template", "w", chart.to_str().unwrap(), "-n", "ws", "--kube-version", "1.34", "--set"];
        tool("helm", &[&arguments[..], &[values]].concat(), "")
    };
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
        let dir = tempfile::tempdir().unwrap();
        for name in ["data/kept", "meta"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("versitygw")
            .args(["--access", "demo", "--secret", "demo-secret", "--port", &format!("127.0.0.1:{port}"), "--quiet"])
            .args(["posix", "--sidecar"])
            .arg(dir.path().join("meta"))
            .arg(dir.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("versitygw cannot be started ({error}): source target/cluster/env"));
        for tries in 0.. {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
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
