//! `dockerPush` on the real cluster: what is in the registry afterwards, looked at with tools we did not
//! write, and who saw which credential.

use super::{
    layer::Pulled,
    ledger::{Ledger, forms, logs_with},
    world::{World, step, tool, verdict},
};
use crate::token_registry::{Hurry, TokenRegistry, User};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use windlass::api::status::StepPhase;

/// A repository of this test alone on the open registry.
pub(super) fn repository(world: &World, name: &str) -> String {
    format!("{}/{}/{name}", std::env::var("WINDLASS_REGISTRY").unwrap(), world.namespace)
}

/// The config of an image, as skopeo reads it.
pub(super) fn config(image: &str) -> Value {
    let text =
        tool("skopeo", &["inspect", "--tls-verify=false", "--config", &format!("docker://{image}")], "").unwrap();
    serde_json::from_str(&text).unwrap()
}

pub(super) fn digest(image: &str) -> String {
    let format = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}"];
    tool("skopeo", &[&format[..], &[&format!("docker://{image}")]].concat(), "").unwrap().trim().to_owned()
}

/// Files of an image, by `docker export` of a container that never ran.
pub(super) fn files(image: &str) -> BTreeSet<String> {
    let container = tool("docker", &["create", image, "x"], "").unwrap();
    let script = format!("docker export {0} | tar t; docker rm {0} >/dev/null", container.trim());
    tool("sh", &["-c", &script], "").unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn ten_steps_and_a_push() {
    let world = World::new().await;
    let repository = repository(&world, "ten");
    let steps: String =
        (1..=10).map(|i| format!("    - {{name: s{i}, script: 'echo {i} >> /made; export N={i}'}}\n")).collect();
    let status = world
        .run(
            "r",
            &format!(
                "    box: {{image: 'busybox:local'}}\n    steps:\n{steps}    - {{name: push, dockerPush: {{repository: '{repository}', tags: ['v$N', latest]}}}}"
            ),
        )
        .await;
    let (reason, message) = verdict(&status);
    assert_eq!(reason, "Succeeded", "{message}");
    assert!(
        status
            .steps
            .iter()
            .all(|s| s.phase == StepPhase::Succeeded && s.started_at.is_some() && s.finished_at.is_some())
    );
    assert!(status.steps.iter().take(10).all(|s| s.exit_code == Some(0)));
    let image = &step(&status, "push").images[0];
    assert_eq!(
        (image.repository.as_str(), image.tags.as_slice()),
        (repository.as_str(), ["v10".to_owned(), "latest".into(), "1".into()].as_slice())
    );
    for tag in ["v10", "latest", "1"] {
        assert_eq!(digest(&format!("{repository}:{tag}")), image.digest);
    }
    assert!(message.ends_with(&format!("; pushed {repository}@{}", image.digest)), "{message}");
    let summary = status.summary.as_ref().unwrap();
    assert_eq!(summary.steps.as_deref(), Some("11/11"));
    assert_eq!(summary.digest.as_deref(), Some(&image.digest[..19]));
    let pushed = format!("{repository}@{}", image.digest);
    let answer = tool("docker", &["run", "--rm", "--pull=always", "-q", &pushed, "cat", "/made"], "");
    assert_eq!(answer.unwrap(), "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n");
    tool("docker", &["rmi", "-f", &pushed], "").unwrap();
}

#[tokio::test]
async fn the_image_is_the_box_image_plus_what_the_steps_did_plus_the_properties() {
    let world = World::new().await;
    let repository = repository(&world, "exact");
    let status = world
        .run(
            "r",
            &format!(
                "    box: {{image: 'busybox:local', env: [{{name: BOXED, value: 'no'}}]}}
    env: [{{name: OTHER, value: 'no'}}]
    source: {{inline: {{files: [{{path: app/run, mode: '0755', content: \"#!/bin/sh\\necho ran\\n\"}}]}}}}
    services: [{{name: side, image: 'busybox:local', command: [sleep, '600']}}]
    steps:
    - {{name: work, script: 'mkdir /data; echo x > /data/x; rm /etc/passwd; export GREET=hi'}}
    - name: push
      dockerPush:
        repository: '{repository}'
        buildNumberTag: false
        entrypoint: /pipeline/source/app/run --now
        env: {{A: '1', G: $GREET}}
        labels: {{a.b: c}}
        ports: '5000, 8080/udp'
        workingDir: /data
        user: '1000'"
            ),
        )
        .await;
    assert_eq!(verdict(&status).0, "Succeeded", "{:?}", verdict(&status));
    let image = format!("{repository}:latest");
    let pushed = config(&image);
    let base: Value =
        serde_json::from_str(&tool("docker", &["image", "inspect", "busybox:local"], "").unwrap()).unwrap();
    let mut env = base[0]["Config"]["Env"].as_array().cloned().unwrap_or_default();
    env.extend([json!("A=1"), json!("G=hi")]);
    let mut labels = base[0]["Config"]["Labels"].as_object().cloned().unwrap_or_default();
    labels.insert("a.b".into(), json!("c"));
    assert_eq!(
        pushed["config"],
        json!({
            "Env": env,
            "Entrypoint": ["/pipeline/source/app/run", "--now"],
            "ExposedPorts": {"5000/tcp": {}, "8080/udp": {}},
            "Labels": labels,
            "User": "1000",
            "WorkingDir": "/data",
        })
    );
    let words = pushed.to_string();
    for foreign in ["KUBERNETES", "io.kubernetes", "BOXED", "OTHER", "windlass-runner", "/dev/windlass"] {
        assert!(!words.contains(foreign), "{foreign} is in the config: {words}");
    }
    let below = base[0]["RootFS"]["Layers"].as_array().unwrap();
    let layers = pushed["rootfs"]["diff_ids"].as_array().unwrap();
    assert_eq!((&layers[..below.len()], layers.len()), (&below[..], below.len() + 1), "one layer on the box's own");
    let sum = |text| tool("sha256sum", &[], text).unwrap().split(' ').next().unwrap().to_owned();
    let (x, app) = (sum("x\n"), sum("#!/bin/sh\necho ran\n"));
    assert_eq!(
        Pulled::new(&image).top(),
        [
            "drwxr-xr-x 0/0 data/",
            &format!("-rw-r--r-- 0/0 data/x {x}"),
            "drwxr-xr-x 0/0 etc/",
            "---------- 0/0 etc/.wh.passwd",
            "drwxr-xr-x 0/0 pipeline/",
            "drwxr-xr-x 0/0 pipeline/cache/",
            "drwxr-xr-x 0/0 pipeline/output/",
            "drwxr-xr-x 0/0 pipeline/report/",
            "drwxr-xr-x 0/0 pipeline/source/",
            "drwxr-xr-x 0/0 pipeline/source/app/",
            &format!("-rwxr-xr-x 0/0 pipeline/source/app/run {app}"),
        ]
    );
    let answer = tool("docker", &["run", "--rm", "--pull=always", "-q", "--user=0", &image], "").unwrap();
    assert_eq!(answer, "ran\n");
    tool("docker", &["rmi", &image], "").unwrap();
}

#[tokio::test]
async fn exports_survive_to_the_next_step_and_into_tags_in_every_shell() {
    let world = World::new().await;
    let hostile = "q\"q'q $HOME `id` \\ ü$$\nsecond line";
    let shells = [
        ("ash", "busybox:local", "/bin/sh"),
        ("dash", "debian:local", "/bin/dash"),
        ("bash", "debian:local", "/bin/bash"),
    ];
    for (name, image, shell) in shells {
        let repository = repository(&world, name);
        world.start(
            name,
            &format!(
                "    box: {{image: '{image}', shell: {shell}}}
    env: [{{name: WANT, value: {}}}]
    steps:
    - {{name: set, script: 'export GOT=\"$WANT\"; export TAG=v1.0'}}
    - {{name: compare, script: 'test \"$GOT\" = \"$WANT\"'}}
    - {{name: push, dockerPush: {{repository: '{repository}', tag: '$TAG-{name}', labels: {{got: $GOT}}}}}}",
                json!(hostile)
            ),
        );
    }
    for (name, ..) in shells {
        let status = world.end(name).await;
        assert_eq!(verdict(&status).0, "Succeeded", "{name}: {:?}", verdict(&status));
        let pushed = config(&format!("{}:v1.0-{name}", repository(&world, name)));
        assert_eq!(pushed["config"]["Labels"]["got"], hostile);
    }
}

#[tokio::test]
async fn many_small_files_and_a_large_one_arrive() {
    let world = World::new().await;
    let repository = repository(&world, "many");
    let make = r#"  for d in $(seq 0 19); do mkdir -p /many/$d; done
        awk 'BEGIN { for (i = 0; i < 20000; i++) { f = "/many/" int(i / 1000) "/" i; print i > f; close(f) } }'
        head -c 67108864 /dev/urandom > /large; sha256sum /large > /sum"#;
    let status = world
        .run(
            "r",
            &format!(
                "    box: {{image: 'busybox:local'}}
    steps:
    - name: make
      script: |
      {make}
    - {{name: push, dockerPush: {{repository: '{repository}'}}}}"
            ),
        )
        .await;
    assert_eq!(verdict(&status).0, "Succeeded", "{:?} {}", verdict(&status), world.log("r").await);
    let image = format!("{repository}:latest");
    let look = "find /many -type f | wc -l; cat /many/19/19999; sha256sum -c /sum";
    let answer = tool("docker", &["run", "--rm", "--pull=always", "-q", &image, "sh", "-c", look], "").unwrap();
    assert_eq!(answer, "20000\n19999\n/large: OK\n");
    tool("docker", &["rmi", &image], "").unwrap();
}

/// Begins to look for the password in every file that the box can reach and in what every process was started with. It is
/// put together here, so that the script does not hold it, in a file that no layer holds; a search that sees it planted
/// shows that it can find. Then a process looks again and again, from the end of this script on.
const SEARCH_BEGIN: &str = r#"
set -eu
printf '%s%s\n' '@HEAD@' '@TAIL@' > /dev/shm/wanted
cat > /search <<'END'
{
  find / \( -path /proc -o -path /sys -o -path /dev/shm/wanted -o -path /large \) -prune -o -type f -print
  printf '%s\n' /proc/[0-9]*/environ /proc/[0-9]*/cmdline
} | while read -r file; do
  # This grep takes a NUL for the end.
  tr '\000' '\n' < "$file" | grep -Fq -f /dev/shm/wanted && echo "$file"
done
true
END
cp /dev/shm/wanted /dev/shm/planted
PLANTED=$(cat /dev/shm/wanted) sh /search > /dev/shm/found 2>/dev/null
grep -qx /dev/shm/planted /dev/shm/found
grep -q '^/proc/.*/environ$' /dev/shm/found
sh /search "$(cat /dev/shm/wanted)" 2>/dev/null | grep -q '^/proc/.*/cmdline$'
rm /dev/shm/planted /dev/shm/found
# The push takes a while.
head -c 33554432 /dev/urandom > /large
cat > /watch <<'END'
while kill -0 "$1" 2>/dev/null; do sleep 0.02; done
while [ ! -e /dev/shm/stop ]; do
  sh /search >> /dev/shm/found 2>/dev/null
  echo round >> /dev/shm/rounds
done
END
sh /watch $$ > /dev/null 2>&1 &
echo $! > /dev/shm/watch
"#;

/// Ends that search and looks a last time. Between the two scripts there was nothing but the push.
const SEARCH_END: &str = r#"
touch /dev/shm/stop
while kill -0 "$(cat /dev/shm/watch)" 2>/dev/null; do sleep 0.1; done
sh /search >> /dev/shm/found 2>/dev/null
if [ -s /dev/shm/found ]; then cat /dev/shm/found; exit 7; fi
[ "$(wc -l < /dev/shm/rounds)" -ge 2 ] || { echo "no search during the push"; exit 8; }
"#;

#[tokio::test]
async fn the_box_never_sees_a_push_credential() {
    let world = World::new().await;
    let registry = std::env::var("WINDLASS_TLS_REGISTRY").unwrap();
    let ledger = Ledger::open();
    let (user, password) =
        (std::env::var("WINDLASS_DEMO_USER").unwrap(), std::env::var("WINDLASS_DEMO_PASSWORD").unwrap());
    world
        .kubectl(
            &[
                "create",
                "secret",
                "docker-registry",
                "login",
                &format!("--docker-server={registry}"),
                &format!("--docker-username={user}"),
                &format!("--docker-password={password}"),
            ],
            "",
        )
        .unwrap();
    let (head, tail) = password.split_at(5);
    let begin = SEARCH_BEGIN.replace("@HEAD@", head).replace("@TAIL@", tail);
    let status = world
        .run(
            "r",
            &format!(
                "    box: {{image: 'busybox:local'}}
    steps:
    - {{name: begin, script: {}}}
    - {{name: push, dockerPush: {{repository: '{registry}/{}/secret', credentials: {{secretName: login}}}}}}
    - {{name: search, script: {}}}
    - {{name: tell, script: 'echo step/{}'}}",
                json!(begin),
                world.namespace,
                json!(SEARCH_END),
                world.namespace
            ),
        )
        .await;
    assert_eq!(verdict(&status).0, "Succeeded", "{:?} {}", verdict(&status), world.log("r").await);
    let image = format!("docker://{registry}/{}/secret:latest", world.namespace);
    let seen = tool("skopeo", &["inspect", "--tls-verify=false", "--creds", &format!("{user}:{password}"), &image], "")
        .unwrap();
    assert!(seen.contains(&step(&status, "push").images[0].digest), "{seen}");
    // Nobody wrote it down: not in etcd, where it is in the Secret only, and not in a log.
    let forms = [forms(&password), forms(&format!("{user}:{password}"))].concat();
    let found = ledger.search(&world, &forms);
    assert!(found.secrets.contains(&format!("/registry/secrets/{}/login", world.namespace)), "{found:?}");
    assert_eq!(found.others, [""; 0]);
    assert!(logs_with(&[format!("step/{}", world.namespace)]).iter().any(|path| path.contains("/var/log/pods")));
    assert_eq!(logs_with(&forms), [""; 0]);
}

#[tokio::test]
async fn registry_faults_have_their_reasons() {
    let world = World::new().await;
    let (open, tls) = (std::env::var("WINDLASS_REGISTRY").unwrap(), std::env::var("WINDLASS_TLS_REGISTRY").unwrap());
    world
        .kubectl(
            &[
                "create",
                "secret",
                "docker-registry",
                "wrong",
                &format!("--docker-server={tls}"),
                "--docker-username=demo",
                "--docker-password=wrong-password",
            ],
            "",
        )
        .unwrap();
    let faults = [
        (
            "password",
            format!("{{repository: '{tls}/it/a', credentials: {{secretName: wrong}}}}"),
            "RegistryUnauthorized",
        ),
        ("anonymous", format!("{{repository: '{tls}/it/a'}}"), "RegistryUnauthorized"),
        (
            "other-host",
            format!("{{repository: '{open}/it/a', credentials: {{secretName: wrong}}}}"),
            "CredentialsNotFound",
        ),
        ("down", "{repository: '127.0.0.1:59999/it/a'}".to_owned(), "RegistryUnreachable"),
        ("unset", format!("{{repository: '{open}/it/a', tags: [$NOSUCH]}}"), "UndefinedVariable"),
    ];
    for (name, push, _) in &faults {
        world.start(
            name,
            &format!("    box: {{image: 'busybox:local'}}\n    steps: [{{name: push, dockerPush: {push}}}]"),
        );
    }
    let mut wrong = Vec::new();
    for (name, _, reason) in &faults {
        let status = world.end(name).await;
        let push = step(&status, "push");
        let (run_reason, message) = verdict(&status);
        if push.reason.as_deref() != Some(reason)
            || run_reason != "StepFailed"
            || !message.starts_with("step push failed: ")
        {
            wrong.push(format!(
                "{name}: wanted {reason}, got {:?} {:?}; {run_reason}: {message}",
                push.reason, push.message
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_user_without_the_right_to_push_is_told_so() {
    let world = World::new().await;
    let below = format!("{}/", world.namespace);
    let registry = TokenRegistry::start_known(vec![
        User { name: "reader", password: "readers-password", may: vec![(below.clone(), &["pull"])] },
        User { name: "writer", password: "writers-password", may: vec![(below, &["pull", "push"])] },
    ])
    .await;
    let host = &registry.host;
    let repository = format!("{host}/{}/app", world.namespace);
    for user in ["reader", "writer"] {
        world.apply(&format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: {user}}}, stringData: {{username: {user}, password: {user}s-password}}}}"
        ));
        world.start(
            user,
            &format!(
                "    box: {{image: 'busybox:local'}}\n    steps: [{{name: push, dockerPush: {{repository: '{repository}', credentials: {{secretName: {user}}}}}}}]"
            ),
        );
    }
    let status = world.end("reader").await;
    let said = format!("user \"reader\" may not push to {repository} (401)");
    let push = step(&status, "push");
    assert_eq!((push.phase, push.reason.as_deref()), (StepPhase::Failed, Some("RegistryForbidden")));
    assert!(push.message.as_ref().unwrap().starts_with(&said), "{:?}", push.message);
    let (reason, message) = verdict(&status);
    assert_eq!(reason, "StepFailed");
    assert!(message.starts_with(&format!("step push failed: {said}")), "{message}");
    let status = world.end("writer").await;
    assert_eq!(verdict(&status).0, "Succeeded", "{:?}", verdict(&status));
}

/// Tokens live two seconds and the layer alone takes longer: the upload is closed, and tagged, with others than it began
/// with.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_outlives_its_tokens() {
    let world = World::new().await;
    let hurry = Hurry { token_life_s: 2, bytes_per_s: 3 << 20 };
    let below = format!("{}/", world.namespace);
    let writer = User { name: "writer", password: "writers-password", may: vec![(below, &["pull", "push"])] };
    let registry = TokenRegistry::start_known_in(hurry, vec![writer]).await;
    let repository = format!("{}/{}/app", registry.host, world.namespace);
    world.apply(
        "{apiVersion: v1, kind: Secret, metadata: {name: writer}, stringData: {username: writer, password: writers-password}}",
    );
    let pipeline = format!(
        "    box: {{image: 'busybox:local'}}
    steps:
    - {{name: build, script: 'dd if=/dev/urandom of=/big bs=1M count=12 2>/dev/null'}}
    - {{name: push, dockerPush: {{repository: '{repository}', tags: [v1, v2], credentials: {{secretName: writer}}}}}}"
    );
    let status = world.run("r", &pipeline).await;
    assert_eq!(verdict(&status).0, "Succeeded", "{:?}", verdict(&status));
    assert!(registry.issued() > 1, "the token of the beginning did for all");
    let pushed = &step(&status, "push").images[0].digest;
    for tag in ["v1", "v2"] {
        let image = format!("docker://{repository}:{tag}");
        let login = ["inspect", "--tls-verify=false", "--creds", "writer:writers-password", &image];
        assert!(tool("skopeo", &login, "").unwrap().contains(pushed), "{tag}");
    }
}

#[tokio::test]
async fn the_value_of_a_secret_in_the_layer_stops_the_push() {
    let world = World::new().await;
    let repository = repository(&world, "leak");
    world.apply("{apiVersion: v1, kind: Secret, metadata: {name: keys}, stringData: {api: correct-horse-battery}}");
    let pipeline = |policy: &str| {
        format!(
            "    box: {{image: 'busybox:local'}}
    env: [{{name: KEY, secretKeyRef: {{name: keys, key: api}}}}]
    steps:
    - {{name: leak, script: 'mkdir -p /root/.app; echo \"key=$KEY\" > /root/.app/config; echo \"it is $KEY\"'}}
    - {{name: push, dockerPush: {{repository: '{repository}', secretsInImage: {policy}}}}}"
        )
    };
    let status = world.run("deny", &pipeline("Deny")).await;
    let push = step(&status, "push");
    assert_eq!((push.phase, push.reason.as_deref()), (StepPhase::Failed, Some("SecretInLayer")));
    let message = push.message.clone().unwrap();
    assert!(message.contains("root/.app/config") && !message.contains("horse"), "{message}");
    assert!(digest_of(&repository).is_err(), "nothing was tagged");
    assert!(world.log("deny").await.contains("it is ***"), "logs are masked");
    assert_eq!(verdict(&world.run("allow", &pipeline("Allow")).await).0, "Succeeded");
}

fn digest_of(repository: &str) -> Result<String, String> {
    tool("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{repository}:latest")], "")
}
