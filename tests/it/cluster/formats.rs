//! Every property of `dockerPush` in the notations of the documents, on the real cluster: the image is looked at in the
//! registry with skopeo, and run by the engine.

use super::{
    push::{config, digest, repository},
    world::{World, step, tool, verdict},
};
use serde_json::{Value, json};

/// What the properties are, once written in strings as the old documents do, once in lists, once in maps.
const NOTATIONS: [(&str, &str); 3] = [
    (
        "text",
        r#"
        tag: "one, $TAG three"
        ports: "5000, 8080/udp 9000-9001/TCP"
        volumes: "/data, $DIR //var/./cache/"
        cmd: "serve --name \"$NAME\" 'it is' \\$$HOME $PAIR"
        entrypoint: /bin/echo -n
        env: '["A=1","B=x=y==","C=$NAME","D=a,b"]'
        labels: '"a.b=1","c/d=x y", e=$PAIR'
        stopSignal: 10"#,
    ),
    (
        "list",
        r#"
        tags: [one, "$TAG,three"]
        ports: [5000, "8080/udp", "9000-9001"]
        volumes: [/data, $DIR, /var/cache]
        cmd: [serve, --name, "$NAME", it is, "$$HOME", "$PAIR"]
        entrypoint: [/bin/echo, -n]
        env: [A=1, B=x=y==, "C=$NAME", "D=a,b"]
        labels: [a.b=1, c/d=x y, "e=$PAIR"]
        stopSignal: USR1"#,
    ),
    (
        "map",
        r#"
        tags: ["one $TAG", three]
        ports: "5000/tcp,8080/UDP,9000,9001"
        volumes: "$DIR /data /var/cache"
        cmd: $COMMAND
        entrypoint: "'/bin/echo' -n"
        env: {A: "1", B: x=y==, C: "${NAME}", D: "a,b"}
        labels: {a.b: "1", c/d: x y, e: "$PAIR"}
        stopSignal: SIGUSR1"#,
    ),
];

#[tokio::test]
async fn every_property_in_every_notation() {
    let world = World::new().await;
    for (name, properties) in NOTATIONS {
        let repository = repository(&world, name);
        let (host, path) = repository.split_once('/').unwrap();
        world.start(
            name,
            &format!(
                r#"    box: {{image: 'busybox:local'}}
    env:
    - {{name: NAME, value: "big 'red' $x"}}
    - {{name: PAIR, value: "k=v"}}
    - {{name: COMMAND, value: "serve --name \"big 'red' $x\" 'it is' '$HOME' k=v"}}
    steps:
    - {{name: make, script: 'export TAG=two DIR=/srv; mkdir /app'}}
    - name: push
      dockerPush:
        registry: https://{host}/v2
        repository: {path}
        email: me@example.com
        workingDir: /app/.
        user: "1000:100"
        author: Ann $PAIR <ann@example.com>
        message: built $TAG for $$5{properties}"#
            ),
        );
    }
    for (name, _) in NOTATIONS {
        let status = world.end(name).await;
        assert_eq!(verdict(&status).0, "Succeeded", "{name}: {:?}", verdict(&status));
        let image = &step(&status, "push").images[0];
        let number = status.build_number.unwrap().to_string();
        assert_eq!(image.tags, ["one", "two", "three", &number], "{name}");
        let repository = repository(&world, name);
        for tag in &image.tags {
            assert_eq!(digest(&format!("{repository}:{tag}")), image.digest, "{name}:{tag}");
        }
        let pushed = config(&format!("{repository}:two"));
        let signal = if name == "text" { "10" } else { "SIGUSR1" };
        assert_eq!(expected(signal), relevant(&pushed), "{name}");
        assert_eq!(pushed["author"], "Ann k=v <ann@example.com>", "{name}");
        let last = pushed["history"].as_array().unwrap().last().unwrap();
        assert_eq!((&last["comment"], &last["author"]), (&json!("built two for $5"), &pushed["author"]), "{name}");
    }
    let image = format!("{}:one", repository(&world, "text"));
    let printed = tool("docker", &["run", "--rm", "--pull=always", "-q", &image], "").unwrap();
    assert_eq!(printed, "serve --name big 'red' $x it is $HOME k=v");
    tool("docker", &["rmi", &image], "").unwrap();
}

fn expected(signal: &str) -> Value {
    json!({
        "Cmd": ["serve", "--name", "big 'red' $x", "it is", "$HOME", "k=v"],
        "Entrypoint": ["/bin/echo", "-n"],
        "Env": ["A=1", "B=x=y==", "C=big 'red' $x", "D=a,b"],
        "ExposedPorts": {"5000/tcp": {}, "8080/udp": {}, "9000/tcp": {}, "9001/tcp": {}},
        "Labels": {"a.b": "1", "c/d": "x y", "e": "k=v"},
        "StopSignal": signal,
        "User": "1000:100",
        "Volumes": {"/data": {}, "/srv": {}, "/var/cache": {}},
        "WorkingDir": "/app",
    })
}

/// The config section without what the box image brought.
fn relevant(pushed: &Value) -> Value {
    let base = tool("docker", &["image", "inspect", "busybox:local"], "").unwrap();
    let base: Value = serde_json::from_str(&base).unwrap();
    let mut section = pushed["config"].clone();
    let of_base = base[0]["Config"]["Env"].as_array().cloned().unwrap_or_default();
    section["Env"].as_array_mut().unwrap().retain(|entry| !of_base.contains(entry));
    if let Some(labels) = base[0]["Config"]["Labels"].as_object() {
        section["Labels"].as_object_mut().unwrap().retain(|key, _| !labels.contains_key(key));
    }
    section
}

/// `disableSync`: what steps exported does not count, what the run defines does.
#[tokio::test]
async fn without_sync_exports_do_not_count() {
    let world = World::new().await;
    let pipeline = |tag: &str| {
        format!(
            "    box: {{image: 'busybox:local'}}
    env: [{{name: STAGE, value: test}}]
    steps:
    - {{name: make, script: 'export STAGE=changed VERSION=2'}}
    - {{name: push, dockerPush: {{repository: '{}', tag: '{tag}', disableSync: true}}}}",
            repository(&world, "sync")
        )
    };
    world.start("own", &pipeline("$STAGE"));
    world.start("exported", &pipeline("$VERSION"));
    let own = world.end("own").await;
    assert_eq!(step(&own, "push").images[0].tags[0], "test", "{:?}", verdict(&own));
    let exported = world.end("exported").await;
    let push = step(&exported, "push");
    assert_eq!(push.reason.as_deref(), Some("UndefinedVariable"));
    assert!(push.message.as_ref().unwrap().contains("$VERSION is not set"), "{:?}", push.message);
}

/// What would turn an image into an attack on who runs it is refused, before a pod exists where it is literal.
#[tokio::test]
async fn attacks_by_properties_are_refused() {
    let world = World::new().await;
    let cases = [
        (
            "label",
            "labels: {containerd.io/restart.loguri: 'binary:///x'}",
            "ForbiddenLabel",
            "steer container runtimes",
        ),
        ("exported-label", "labels: ['$KEY=x']", "ForbiddenLabel", "steer container runtimes"),
        ("user", "user: '4294967296'", "InvalidProperty", "up to 2147483647"),
        ("directory", "workingDir: //proc/self/fd/8", "InvalidProperty", "outside /proc"),
        ("exported-directory", "workingDir: $DIR", "InvalidProperty", "outside /proc"),
        ("volume", "volumes: [/sys/x]", "InvalidProperty", "outside /proc, /sys and /dev"),
        ("mismatch", "registry: https://other.example.com", "RegistryMismatch", "differs from repository host"),
    ];
    for (name, property, ..) in cases {
        world.start(
            name,
            &format!(
                "    box: {{image: 'busybox:local'}}
    steps:
    - {{name: make, script: 'export KEY=io.kubernetes.pod.uid DIR=/proc/self/fd/8'}}
    - {{name: push, dockerPush: {{repository: '{}', {property}}}}}",
                repository(&world, name)
            ),
        );
    }
    for (name, _, reason, says) in cases {
        let status = world.end(name).await;
        let (run_reason, message) = verdict(&status);
        if name.starts_with("exported") {
            assert_eq!((run_reason.as_str(), step(&status, "push").reason.as_deref()), ("StepFailed", Some(reason)));
        } else {
            assert_eq!((run_reason.as_str(), status.pod_name), (reason, None), "{name}: {message}");
        }
        assert!(message.contains(says), "{name}: {message}");
    }
}
