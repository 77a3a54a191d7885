//! Watched steps on the real cluster: restarts, addresses, and their ends.

use super::{
    installation::until,
    world::{World, step, verdict},
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};
use windlass::{
    api::status::{PipelineRunStatus, StepPhase},
    wire::{IN_DIR, RUNNER_FILE},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// What a server answers, if it does.
fn get(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned())
}

fn serves(address: &str, text: &str) {
    until(&format!("{address} serves {text:?}"), PATIENCE, || (get(address).as_deref() == Some(text)).then_some(()))
        .unwrap();
}

/// Ends the step that waits to be told, as a user does it without the command line.
fn finish(world: &World, run: &str) {
    let runner = format!("{IN_DIR}/{RUNNER_FILE}");
    world.kubectl(&["exec", &format!("{run}-1"), "-c", "box", "--", &runner, "finish"], "").unwrap();
}

/// Whether the status says where a step is reachable.
pub(super) fn is_served(status: &PipelineRunStatus) -> bool {
    status.steps.iter().any(|step| !step.addresses.is_empty())
}

#[tokio::test]
async fn a_change_in_the_box_restarts_the_server_that_the_status_names() {
    let world = World::new().await;
    // It reads the file once, so only a restart shows what changed.
    world.start(
        "dev",
        "    box: {image: 'busybox:local'}
    source: {inline: {files: [{path: text, content: one}, {path: .gitignore, content: '*.log'}]}}
    steps:
    - {name: install, script: 'echo installed'}
    - name: serve
      watch:
        code: 'mkdir -p /tmp/www; cp text /tmp/www/index.html; exec httpd -f -p 5000 -h /tmp/www'
        reload: true
        ports: [5000]
    - {name: next, script: 'echo \"and on with $(cat text)\"'}",
    );
    let status = world.until("dev", "serving", is_served).await;
    let serve = step(&status, "serve");
    assert_eq!((serve.phase, serve.reason.as_ref()), (StepPhase::Running, None));
    let [address] = &serve.addresses[..] else { panic!("{:?}", serve.addresses) };
    // The kubelet may say it later than we do.
    let ip = until("the pod has an address", PATIENCE, || {
        let ip = world.kubectl(&["get", "pod", "dev-1", "-o", "jsonpath={.status.podIP}"], "").unwrap();
        (!ip.is_empty()).then_some(ip)
    });
    assert_eq!(*address, format!("{}:5000", ip.unwrap()));
    serves(address, "one");
    let exec = |code: &str| world.kubectl(&["exec", "dev-1", "-c", "box", "--", "sh", "-c", code], "").unwrap();
    exec("echo noise > /pipeline/source/a.log; echo two > /pipeline/source/text");
    serves(address, "two");
    exec("cd /pipeline/source; echo three > .text.new; mv .text.new text; mkdir -p a/b");
    serves(address, "three");
    exec("echo x > /pipeline/source/a/b/c");
    let restarts = |log: &str| log.matches("; starts again\n").count();
    until("the restart by a file in a new directory", PATIENCE, || {
        let log = world.kubectl(&["logs", "dev-1", "-c", "box"], "").unwrap();
        log.contains("2/3 serve: a/b/c changed; starts again\n").then_some(())
    })
    .unwrap();
    finish(&world, "dev");
    let status = world.end("dev").await;
    assert_eq!(verdict(&status).0, "Succeeded");
    let serve = step(&status, "serve");
    assert_eq!((serve.phase, serve.exit_code, serve.addresses.len()), (StepPhase::Succeeded, Some(0), 0));
    let log = world.log("dev").await;
    let forward = format!("kubectl -n {} port-forward pod/dev-1 5000\n", world.namespace);
    assert!(log.contains(&format!("2/3 serve: reachable at {address}; from your machine: {forward}")), "{log}");
    assert_eq!((restarts(&log), log.matches("installed\n").count()), (3, 1), "{log}");
    assert!(log.contains("\nand on with three\n"), "{log}");
}

#[tokio::test]
async fn without_reload_the_code_runs_once_and_its_end_is_the_steps() {
    let world = World::new().await;
    let status = world
        .run(
            "once",
            "    box: {image: 'busybox:local'}
    steps:
    - {name: serve, watch: {code: 'touch x; export GREETING=hello; sleep 0.3', ports: [80]}}
    - {name: next, script: 'echo $GREETING'}",
        )
        .await;
    assert_eq!(verdict(&status).0, "Succeeded");
    assert_eq!((step(&status, "serve").exit_code, step(&status, "serve").addresses.len()), (Some(0), 0));
    assert!(world.log("once").await.contains("\nhello\n"));
}
