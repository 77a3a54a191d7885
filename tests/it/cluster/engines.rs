//! Docker Engines that users have beside the cluster's own: Debian 12's (20.10, API 1.41), and the newest with the older of
//! its two image stores. `tests/cluster/engine.sh` starts one for each process of tests, and stops it when that has ended.
//!
//! The cases of `engine` and `local` that ask for [`Which`] run on each of them; here is what must be equal on all.

use super::{
    installation::until,
    local::{Project, Said, open_registry, unique},
    push::config,
    world::{World, tool, verdict},
};
use rstest::rstest;
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// The cluster's: the newest, with the image store of containerd.
    Clusters,
    /// Debian 12's, 20.10.
    Debians,
    /// The newest, with the image store that graph drivers keep.
    GraphDriver,
}

impl Which {
    /// What `DOCKER_HOST` is for it. It is started when it is asked for first.
    pub(super) fn host(self) -> &'static str {
        static HOSTS: [OnceLock<String>; 3] = [const { OnceLock::new() }; 3];
        HOSTS[self as usize].get_or_init(|| match self {
            Self::Clusters => std::env::var("DOCKER_HOST").expect("source target/cluster/env"),
            Self::Debians => start("debian", "debian", std::process::id()),
            Self::GraphDriver => start("graphdriver", "graphdriver", std::process::id()),
        })
    }

    /// Its socket.
    pub(super) fn socket(self) -> &'static str {
        self.host().strip_prefix("unix://").unwrap()
    }

    /// What `docker` prints, told to use it.
    pub(super) fn docker(self, arguments: &[&str]) -> String {
        tool("docker", &[&["-H", self.host()], arguments].concat(), "").unwrap()
    }
}

/// Starts an engine that ends when the process `user` has ended.
fn start(kind: &str, name: &str, user: u32) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/engine.sh");
    tool(script.to_str().unwrap(), &["start", kind, &format!("{name}-{user}")], "").unwrap().trim().to_owned()
}

/// The entries of an image's last layer, sorted: type, mode, owner, size, name, target. Times are left out.
fn last_layer(image: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let to = format!("dir:{}", dir.path().display());
    tool("skopeo", &["copy", "-q", "--src-tls-verify=false", &format!("docker://{image}"), &to], "").unwrap();
    let manifest: Value = serde_json::from_slice(&fs::read(dir.path().join("manifest.json")).unwrap()).unwrap();
    let digest = manifest["layers"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap().to_owned();
    let layer = dir.path().join(digest.trim_start_matches("sha256:"));
    let listed = tool("tar", &["-tvzf", layer.to_str().unwrap(), "--numeric-owner", "--full-time"], "").unwrap();
    let entry = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // What says that a file is gone has a mode of the engine's choice, which means nothing.
        let mode = if words[5].contains(".wh.") { "gone" } else { words[0] };
        [&[mode], &words[1..3], &words[5..]].concat().join(" ")
    };
    let mut entries: Vec<String> = listed.lines().map(entry).collect();
    entries.sort();
    entries
}

/// The media types of an image, as those of OCI: which of the two families it has is the engine's choice.
fn media_types(image: &str) -> Vec<String> {
    let raw = tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{image}")], "").unwrap();
    let manifest: Value = serde_json::from_str(&raw).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    let kinds =
        [&manifest, &manifest["config"]].into_iter().chain(layers).map(|part| part["mediaType"].as_str().unwrap());
    let families = [
        ("docker.distribution.manifest.v2", "oci.image.manifest.v1"),
        ("docker.container.image.v1", "oci.image.config.v1"),
        ("docker.image.rootfs.diff.tar.gzip", "oci.image.layer.v1.tar+gzip"),
    ];
    kinds.map(|kind| families.iter().fold(kind.to_owned(), |kind, (docker, oci)| kind.replace(docker, oci))).collect()
}

/// Services of both kinds of readiness, files of all kinds, a push and one from scratch.
fn full(engine: Which, repository: &str) -> (Project, Said) {
    let project = Project::on(
        engine,
        &format!(
            "  box: {{image: 'busybox:local'}}
  services:
  - name: web
    image: 'busybox:local'
    command: [sh, -c, 'mkdir -p /w; echo served >/w/index.html; exec httpd -f -p 8088 -h /w']
    readiness: {{http: {{port: 8088, path: /index.html}}}}
  - name: file
    image: 'busybox:local'
    command: [sh, -c, 'touch /ready; exec sleep 600']
    readiness: {{exec: {{command: [test, -e, /ready]}}}}
  steps:
  - {{name: get, script: 'wget -qO- http://web:8088/; wget -qO- http://localhost:8088/'}}
  - name: make
    script: |
      rm /etc/passwd && mkdir -p /data/deep && cd /data
      echo x > x && ln x hard && ln -s x soft && mkfifo pipe
      chmod 4755 x && chmod 1777 deep && chown 1000:50 deep
      echo out > $WERCKER_OUTPUT_DIR/out && chmod 755 $WERCKER_OUTPUT_DIR/out
  - {{name: push, dockerPush: {{repository: '{repository}', tags: [t], cmd: cat /data/x, env: {{A: '1'}}, user: '1000'}}}}
  - {{name: scratch, dockerScratchPush: {{repository: '{repository}-scratch', tags: [t], cmd: /out}}}}"
        ),
    );
    let said = project.say(&["build"]);
    (project, said)
}

#[rstest]
fn every_engine_makes_the_same_images(#[values(Which::Debians, Which::GraphDriver)] other: Which) {
    let images = [Which::Clusters, other].map(|engine| {
        let repository = format!("{}/engines/{}", open_registry(), unique("full"));
        let images = engine.docker(&["images", "-aq"]);
        let (project, said) = full(engine, &repository);
        assert_eq!(said.code, Some(0), "{engine:?}: {}", said.all());
        assert!(said.out.starts_with("served\nserved\n"), "{engine:?}: {}", said.all());
        assert_eq!(project.left(said.err.split_whitespace().nth(2).unwrap()), Vec::<String>::new());
        // The cluster's engine has images of other tests as well.
        if engine == other {
            assert_eq!(engine.docker(&["images", "-aq"]), images, "nothing of the commit stays");
        }
        repository
    });
    for kind in ["", "-scratch"] {
        let [one, two] = images.each_ref().map(|repository| format!("{repository}{kind}:t"));
        let [ours, theirs] = [&one, &two].map(|image| config(image));
        for part in ["config", "architecture", "os", "author", "variant"] {
            assert_eq!(ours[part], theirs[part], "{part}{kind}");
        }
        assert_eq!(ours["config"]["Cmd"].as_array().map(Vec::is_empty), Some(false), "{ours}");
        let base = |config: &Value| {
            let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
            diff_ids[..diff_ids.len() - 1].to_vec()
        };
        assert_eq!(base(&ours), base(&theirs), "{kind}");
        let history = |config: &Value| config["history"].as_array().map(Vec::len);
        assert_eq!(history(&ours), history(&theirs), "{kind}");
        assert_eq!(media_types(&one), media_types(&two), "{kind}");
        let layer = last_layer(&one);
        assert_eq!(layer, last_layer(&two), "{kind}");
        let has = |name: &str| layer.iter().any(|entry| entry.contains(name));
        assert!(if kind.is_empty() { has("etc/.wh.passwd") && has("soft -> x") } else { has("out") }, "{layer:#?}");
    }
}

#[rstest]
fn a_box_is_pulled_by_tag_and_by_digest(#[values(Which::Debians, Which::GraphDriver, Which::Clusters)] engine: Which) {
    let repository = format!("{}/engines/{}", open_registry(), unique("pulled"));
    let name = format!("{repository}:t");
    for arguments in [&["tag", "busybox:local", &name][..], &["push", "-q", &name], &["rmi", &name]] {
        Which::Clusters.docker(arguments);
    }
    let digest = super::push::digest(&format!("{repository}:t"));
    for image in [format!("{repository}:t"), format!("{repository}@{digest}")] {
        let project =
            Project::on(engine, &format!("  box: {{image: '{image}'}}\n  steps: [{{name: a, script: 'echo ran'}}]"));
        let said = project.say(&["build"]);
        assert_eq!((said.code, said.out.as_str()), (Some(0), "ran\n"), "{}", said.all());
        assert!(said.err.contains(&format!("pulling {image}")), "{}", said.all());
        engine.docker(&["rmi", &image]);
    }
    let gone = format!("{repository}:none");
    let project = Project::on(engine, &format!("  box: {{image: '{gone}'}}\n  steps: [{{name: a, script: 'true'}}]"));
    let said = project.say(&["build"]);
    assert_eq!(said.code, Some(1), "{}", said.all());
    assert!(said.err.contains(&format!("ImagePullFailed: image {gone}")), "{}", said.all());
}

/// One stored container for all, as it is the same file.
#[tokio::test]
async fn a_stored_container_is_loaded_and_opened_on_every_engine() {
    let world = World::new().await;
    let pipeline = "    box: {image: 'busybox:local'}\n    steps:\n    - {name: build, script: 'echo hello > /made'}\n    - {name: keep, storeContainer: {}}";
    let status = world.run("r", pipeline).await;
    assert_eq!(verdict(&status).0, "Succeeded", "{}", verdict(&status).1);
    let image = format!("windlass/r:{}", status.build_number.unwrap());
    let dir = tempfile::tempdir().unwrap();
    for engine in [Which::Debians, Which::GraphDriver] {
        let windlass = |arguments: &[&str]| {
            let output = Command::new(env!("CARGO_BIN_EXE_windlass"))
                .args(["-n", &world.namespace])
                .args(arguments)
                .current_dir(dir.path())
                .env("XDG_CACHE_HOME", dir.path().join(format!("{engine:?}")))
                .env("DOCKER_HOST", engine.host())
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (output.status.code(), text(&output.stdout), text(&output.stderr))
        };
        let (code, _, err) = windlass(&["pull", "r", "--load"]);
        assert_eq!(code, Some(0), "{engine:?}: {err}");
        assert!(err.contains(&format!("loaded as {image}")), "{engine:?}: {err}");
        assert_eq!(engine.docker(&["run", "--rm", &image, "cat", "/made"]), "hello\n");
        engine.docker(&["rmi", "-f", &image]);
        let (code, out, err) = windlass(&["open", "r", "--cmd", "sh -c 'cat /made; exit 3'"]);
        assert_eq!((code, out.as_str()), (Some(3), "hello\n"), "{engine:?}: {err}");
        let filter = format!("ancestor={image}");
        assert_eq!(engine.docker(&["ps", "-aq", "--filter", &filter]), "");
        engine.docker(&["rmi", "-f", &image]);
    }
}

/// What carries an engine's name: processes, mounts, links, cgroups and files.
fn traces(name: &str) -> String {
    let script = r#"
        for p in /proc/[0-9]*; do
            tr '\0' ' ' 2>/dev/null <$p/cmdline | grep -F "engines/$1" | grep -vF -e "reap $1" -e "sh -c" || true
        done
        grep -F "engines/$1" /proc/self/mounts || true
        find /sys/fs/cgroup -name "windlass-$1"
        ls -d /run/windlass/engines/$1 "$WINDLASS_CLUSTER_LOGS/../engines/$1" 2>/dev/null || true"#;
    tool("bash", &["-c", script, "traces", name], "").unwrap()
}

/// Ends a process when it is dropped.
struct User(Child);

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_engine_ends_with_its_user_and_leaves_nothing() {
    let user = User(Command::new("sleep").arg("600").spawn().unwrap());
    let host = start("debian", "killed", user.0.id());
    let name = format!("killed-{}", user.0.id());
    let docker = |arguments: &[&str]| tool("docker", &[&["-H", &host], arguments].concat(), "").unwrap();
    docker(&["network", "create", "own"]);
    docker(&["run", "-d", "--network", "own", "busybox:local", "sleep", "600"]);
    let net = fs::read_to_string(format!("/run/windlass/engines/{name}/net")).unwrap();
    let links = || {
        let all = tool("ip", &["-o", "-4", "addr", "show"], "").unwrap();
        all.lines().filter(|line| line.contains(&format!(" {}.", net.trim()))).count()
    };
    assert_eq!(links(), 2, "its bridge, and that of the network");
    assert!(traces(&name).lines().count() > 6, "{}", traces(&name));
    // It dies itself, which leaves containers and what carries them.
    let pid = fs::read_to_string(format!("/run/windlass/engines/{name}/docker.pid")).unwrap();
    tool("kill", &["-9", pid.trim()], "").unwrap();
    drop(user);
    let gone = || (traces(&name).is_empty() && links() == 0).then_some(());
    until("the engine is gone", Duration::from_secs(60), gone)
        .unwrap_or_else(|error| panic!("{error}: {}", traces(&name)));
}
