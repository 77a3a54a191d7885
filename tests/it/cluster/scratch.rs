//! `dockerScratchPush` on the real cluster: the image's files, config and digest, by tools we did not write.

use super::{
    layer::Pulled,
    push::{config, digest, repository},
    world::{World, step, tool, verdict},
};
use serde_json::json;
use windlass::api::status::StepPhase;

/// A program that needs nothing of the image that it runs in.
const BUILD: &str = "printf '#include <unistd.h>\\nint main(void) { return write(1, \"from scratch\\\\n\", 13) != 13; }\\n' > m.c; gcc -static -o $WERCKER_OUTPUT_DIR/app m.c";

/// The layers of an image, each as GNU tar lists it.
fn layers(image: &str) -> Vec<String> {
    Pulled::new(image).lists().iter().map(|lines| lines.join("\n")).collect()
}

#[tokio::test]
async fn a_static_binary_runs_with_the_config_of_the_step() {
    let world = World::new().await;
    let repository = repository(&world, "static");
    let status = world
        .run(
            "r",
            &format!(
                "    box: {{image: 'debian:local', env: [{{name: BOXED, value: 'no'}}]}}
    steps:
    - {{name: build, script: {}}}
    - name: push
      dockerScratchPush:
        repository: '{repository}'
        tag: '1.0, latest'
        entrypoint: /app
        cmd: [--help]
        env: {{A: '1', NUMBER: $WERCKER_BUILD_NUMBER}}
        labels: {{a.b: c}}
        ports: '5000, 8080/udp'
        volumes: /data
        workingDir: /data
        user: '1000:1000'
        author: Ann
        message: first
        stopSignal: INT",
                json!(BUILD)
            ),
        )
        .await;
    assert_eq!(verdict(&status).0, "Succeeded", "{:?} {}", verdict(&status), world.log("r").await);
    let image = &step(&status, "push").images[0];
    assert_eq!(image.tags, ["1.0", "latest", "1"]);
    for tag in ["1.0", "latest", "1"] {
        assert_eq!(digest(&format!("{repository}:{tag}")), image.digest);
    }
    let pushed = config(&format!("{repository}:1.0"));
    assert_eq!(
        pushed["config"],
        json!({
            "Env": ["A=1", "NUMBER=1"],
            "Entrypoint": ["/app"],
            "Cmd": ["--help"],
            "ExposedPorts": {"5000/tcp": {}, "8080/udp": {}},
            "Labels": {"a.b": "c"},
            "StopSignal": "SIGINT",
            "User": "1000:1000",
            "Volumes": {"/data": {}},
            "WorkingDir": "/data",
        })
    );
    let node = tool("docker", &["version", "--format", "{{.Server.Arch}}"], "").unwrap();
    assert_eq!(
        (&pushed["architecture"], &pushed["os"], &pushed["author"]),
        (&json!(node.trim()), &json!("linux"), &json!("Ann"))
    );
    assert_eq!(pushed["rootfs"]["diff_ids"].as_array().unwrap().len(), 1);
    let history = pushed["history"].as_array().unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(history[0]["created_by"], format!("windlass dockerScratchPush {}/r push", world.namespace));
    assert_eq!(history[0]["comment"], "first");
    let reference = format!("{repository}@{}", image.digest);
    let answer = tool("docker", &["run", "--rm", "--pull=always", "-q", &reference], "").unwrap();
    assert_eq!(answer, "from scratch\n");
    tool("docker", &["rmi", &reference], "").unwrap();
    assert!(world.log("r").await.contains("packed 1 file"), "progress is shown");
}

#[tokio::test]
async fn the_layer_holds_the_files_as_they_are_and_the_same_files_give_the_same_digest() {
    let world = World::new().await;
    let make = "cd $WERCKER_OUTPUT_DIR; mkdir -p empty etc/app bin; echo hello > bin/run; chmod 755 bin/run
      ln bin/run bin/twin; ln -s ../bin/run etc/run; ln -s /etc/app absolute; echo x > etc/app/key; chmod 600 etc/app/key
      chown 7:8 etc/app/key; chown -h 9:9 absolute; cp bin/run su; chmod 4755 su; chmod 1777 empty
      touch -h -d '2020-01-02 03:04:05 UTC' $(find . -mindepth 1) 2>/dev/null || touch -h -t 202001020304.05 $(find . -mindepth 1)";
    let pipeline = |name: &str, more: &str| {
        format!(
            "    box: {{image: 'debian:local'}}
    steps:
    - {{name: make, script: {}}}
    - {{name: push, dockerScratchPush: {{repository: '{}', buildNumberTag: false, {more}}}}}",
            json!(make),
            repository(&world, name)
        )
    };
    for (run, more) in
        [("kept", "cmd: /x"), ("zero", "timestamps: Zero, owner: '5:6'"), ("again", "timestamps: Zero, owner: '5:6'")]
    {
        world.start(run, &pipeline(run, more));
    }
    for run in ["kept", "zero", "again"] {
        let status = world.end(run).await;
        assert_eq!(verdict(&status).0, "Succeeded", "{:?}", verdict(&status));
    }
    let time = "2020-01-02 03:04:05";
    let expected = [
        format!("lrwxrwxrwx 9/9 0 {time} absolute -> /etc/app"),
        format!("drwxr-xr-x 0/0 0 {time} bin/"),
        format!("-rwxr-xr-x 0/0 6 {time} bin/run"),
        format!("hrwxr-xr-x 0/0 0 {time} bin/twin link to bin/run"),
        format!("drwxrwxrwt 0/0 0 {time} empty/"),
        format!("drwxr-xr-x 0/0 0 {time} etc/"),
        format!("drwxr-xr-x 0/0 0 {time} etc/app/"),
        format!("-rw------- 7/8 2 {time} etc/app/key"),
        format!("lrwxrwxrwx 0/0 0 {time} etc/run -> ../bin/run"),
        format!("-rwsr-xr-x 0/0 6 {time} su"),
    ];
    let image = |name: &str| format!("{}:latest", repository(&world, name));
    assert_eq!(layers(&image("kept")), [expected.join("\n")]);
    let shaped = expected.map(|line| {
        let words: Vec<_> = line.split(' ').collect();
        format!("{} 5/6 {} 1970-01-01 00:00:00 {}", words[0], words[2], words[5..].join(" "))
    });
    assert_eq!(layers(&image("zero")), [shaped.join("\n")]);
    assert_eq!(digest(&image("zero")), digest(&image("again")), "the same files are the same image");
}

#[tokio::test]
async fn hostile_trees_are_refused_by_name() {
    let world = World::new().await;
    let repository = repository(&world, "hostile");
    world.apply("{apiVersion: v1, kind: Secret, metadata: {name: keys}, stringData: {api: correct-horse-battery}}");
    let trees = [
        ("device", "mknod c c 1 3", "", "UnsafeFile", "/c is a device"),
        ("fifo", "mkfifo p", "", "UnsafeFile", "/p is a FIFO"),
        ("whiteout", "mkdir a; touch a/.wh.b", "", "UnsafeFile", "/a/.wh.b has a name that begins with .wh."),
        ("link", "ln -s ../../etc l", "", "UnsafeFile", "/l is a link to ../../etc, which is outside the image"),
        (
            "deep",
            "i=0; while [ $i -lt 40 ]; do d=$(printf 'd%.0s' $(seq 100)); mkdir $d; cd $d; i=$((i+1)); done",
            "",
            "UnsafeFile",
            "bytes; 3072 are the most",
        ),
        ("sparse", "truncate -s 8G s", "", "UnsafeFile", "/s is a sparse file"),
        ("mount", "true", "directory: /", "UnsafeFile", "/dev is a mount of another file system"),
        ("empty", "mkdir none", "directory: none", "EmptyImage", "none holds no file"),
        ("nothing", "true", "directory: /nowhere", "EmptyImage", "/nowhere is no directory"),
        ("secret", "mkdir etc; echo key=$KEY > etc/conf", "", "SecretInLayer", "/etc/conf"),
        ("unset", "true", "directory: $NOWHERE", "UndefinedVariable", "directory: $NOWHERE is not set"),
    ];
    for (name, script, more, ..) in &trees {
        let script = if more.is_empty() { format!("cd $WERCKER_OUTPUT_DIR; {script}") } else { (*script).to_owned() };
        world.start(
            name,
            &format!(
                "    box: {{image: 'busybox:local'}}
    env: [{{name: KEY, secretKeyRef: {{name: keys, key: api}}}}]
    steps:
    - {{name: make, script: {}}}
    - {{name: push, dockerScratchPush: {{repository: '{repository}', {more}}}}}",
                json!(script)
            ),
        );
    }
    let mut wrong = Vec::new();
    for (name, _, _, reason, message) in &trees {
        let status = world.end(name).await;
        let push = step(&status, "push");
        let told = push.message.clone().unwrap_or_default();
        if push.phase != StepPhase::Failed
            || push.reason.as_deref() != Some(reason)
            || !told.contains(message)
            || told.contains("horse")
        {
            wrong.push(format!("{name}: {:?} {told}; {:?}", push.reason, verdict(&status)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let tagged = tool("skopeo", &["list-tags", "--tls-verify=false", &format!("docker://{repository}")], "");
    assert!(!tagged.is_ok_and(|tags| tags.contains("latest")), "nothing was tagged");
}
