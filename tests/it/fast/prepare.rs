//! The real `windlass prepare`, in a directory that stands for the pod.

mod git;
mod pod;
mod server;
mod ssh;

use pod::Pod;
use serde_json::Value;
use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt, symlink},
    thread,
    time::{Duration, Instant},
};
use windlass::wire::{
    EnvFromSource, EnvItem, EnvValue, Order, OrderStep, POD_IP_FILE, ServiceCheck, SourceOrder, StepWork, Variable,
};

fn text(name: &str, value: &str) -> EnvItem {
    EnvItem::One { name: name.into(), value: EnvValue::Text(value.into()) }
}

fn variable(name: &str, value: &str, secret: bool) -> Variable {
    Variable { name: name.into(), value: value.into(), secret }
}

#[test]
fn an_inline_run_is_placed_whole() {
    let pod = Pod::new();
    let files = vec![("bin/run".into(), "#!/bin/sh\n".into(), 0o755), ("README".into(), "hello\n".into(), 0o600)];
    let step = OrderStep {
        name: "build".into(),
        title: "Build".into(),
        env: vec![text("LEVEL", "2")],
        work: StepWork::Script("make".into()),
        timeout_s: Some(9),
        ..OrderStep::default()
    };
    let order = Order {
        env: vec![text("STAGE", "test")],
        source: SourceOrder::Inline(files),
        steps: vec![step],
        working_dir: Some("/app".into()),
        ..pod.order()
    };
    pod.succeeds(&order);
    assert_eq!(fs::read_to_string(pod.inside(POD_IP_FILE)).unwrap(), "10.1.2.3");
    let plan = pod.plan();
    assert_eq!(plan.env, [variable("STAGE", "test", false)]);
    assert_eq!((plan.run, plan.deadline_ms), (order.run, order.deadline_ms));
    assert_eq!(plan.working_dir.as_deref(), Some("/app"));
    assert_eq!(plan.steps[0].env, [variable("LEVEL", "2", false)]);
    assert_eq!((plan.steps[0].work.clone(), plan.steps[0].timeout_s), (StepWork::Script("make".into()), Some(9)));
    assert_eq!(fs::read_to_string(pod.source("README")).unwrap(), "hello\n");
    for (path, mode) in [
        (pod.source("README"), 0o644),
        (pod.source("bin/run"), 0o755),
        (pod.source("bin"), 0o755),
        (pod.source(""), 0o755),
        (pod.inside("plan.json"), 0o644),
        (pod.inside(POD_IP_FILE), 0o644),
        (pod.inside("windlass-runner"), 0o755),
    ] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{path:?}");
    }
    let runner = fs::read(env!("CARGO_BIN_EXE_windlass-runner")).unwrap();
    assert!(fs::read(pod.inside("windlass-runner")).unwrap() == runner, "another runner was placed");
    assert_eq!(pod.names("dev/windlass/in"), ["plan.json", POD_IP_FILE, "windlass-runner"]);
    assert_eq!(pod.names("dev/windlass/disk"), ["source"]);
}

#[test]
fn without_a_source_there_is_an_empty_directory() {
    let pod = Pod::new();
    pod.succeeds(&pod.order());
    assert_eq!(pod.names("dev/windlass/disk/source"), [""; 0]);
    assert_eq!(pod.plan().source_revision, None);
}

#[test]
fn started_again_it_leaves_a_placed_run_alone() {
    let pod = Pod::new();
    pod.succeeds(&pod.order());
    fs::write(pod.inside("plan.json"), "in use").unwrap();
    pod.succeeds(&pod.order());
    assert_eq!(fs::read_to_string(pod.inside("plan.json")).unwrap(), "in use");
}

/// Makes a volume as the kubelet does: values in a directory with a time for a name, links to them.
fn mount(pod: &Pod, path: &str, pairs: &[(&str, &[u8])]) {
    let directory = pod.path(path);
    let version = directory.join("..2026_01_01");
    fs::create_dir_all(&version).unwrap();
    symlink("..2026_01_01", directory.join("..data")).unwrap();
    for (key, value) in pairs {
        fs::write(version.join(key), value).unwrap();
        symlink(format!("..data/{key}"), directory.join(key)).unwrap();
    }
}

fn from(name: &str, secret: bool) -> EnvItem {
    EnvItem::All(EnvFromSource { prefix: String::new(), secret, name: name.into(), optional: false })
}

#[test]
fn mounted_values_reach_the_plan_and_nothing_else() {
    let pod = Pod::new();
    mount(&pod, "windlass/secrets/keys", &[("TOKEN", b"s3cret-value"), ("tls.crt", b"\xff")]);
    mount(&pod, "windlass/configmaps/settings", &[("COLOUR", b"blue\n")]);
    mount(&pod, "windlass/push/registry-login", &[(".dockerconfigjson", b"{}")]);
    let order = Order {
        env: vec![from("keys", true), from("settings", false)],
        push_secrets: vec![("push".into(), "registry-login".into())],
        ..pod.order()
    };
    let output = pod.succeeds(&order);
    assert_eq!(pod.plan().env, [variable("TOKEN", "s3cret-value", true), variable("COLOUR", "blue\n", false)]);
    assert!(output.contains("skipped key tls.crt of Secret keys"), "{output}");
    assert!(!output.contains("s3cret-value"), "{output}");
}

#[test]
fn a_failure_is_reported_and_the_box_ends() {
    let pod = Pod::new();
    fs::create_dir_all(pod.path("windlass/push/registry-login")).unwrap();
    let order = Order { push_secrets: vec![("push".into(), "registry-login".into())], ..pod.order() };
    let message = "Secret registry-login does not exist in namespace team; step push needs it";
    pod.fails(&order, "SecretNotFound", message);
    let failed = fs::read_to_string(pod.inside("failed")).unwrap();
    assert_eq!(failed, format!("SecretNotFound: {message}\n"));
    assert!(!pod.inside("windlass-runner").exists(), "the box could start the runner");
}

#[test]
fn a_value_that_is_no_text_is_named_and_not_shown() {
    let pod = Pod::new();
    mount(&pod, "windlass/secrets/keys", &[("TOKEN", b"s3cret\xff")]);
    let order = Order { env: vec![from("keys", true)], ..pod.order() };
    let output = pod.fails(
        &order,
        "InvalidPipeline",
        "env TOKEN (key TOKEN of Secret keys): the value is not UTF-8; a variable can only hold text",
    );
    assert!(!output.contains("s3cret"), "{output}");
}

#[test]
fn a_secret_without_end_is_not_read_to_its_end() {
    let pod = Pod::new();
    fs::create_dir_all(pod.path("windlass/secrets/keys")).unwrap();
    symlink("/dev/zero", pod.path("windlass/secrets/keys/TOKEN")).unwrap();
    let order = Order { env: vec![from("keys", true)], ..pod.order() };
    let message =
        "the environment holds more than 8 MiB, at most 1 MiB fits; key TOKEN of Secret keys is one key too many";
    pod.fails(&order, "EnvironmentTooLarge", message);
}

#[test]
fn an_order_of_several_pieces_is_joined() {
    let pod = Pod::new();
    let step = |n: usize| OrderStep {
        name: format!("s{n}"),
        work: StepWork::Script(format!("# {}", "é".repeat(30_000))),
        ..OrderStep::default()
    };
    let order = Order { steps: (0..6).map(step).collect(), ..pod.order() };
    pod.succeeds(&order);
    assert_eq!(pod.plan().steps.len(), 6);
    assert_eq!(pod.plan().steps[5].work, order.steps[5].work);
}

#[test]
fn without_an_order_it_says_so() {
    let pod = Pod::new();
    let output = pod.command(None).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words: Value = serde_json::from_slice(&fs::read(pod.path("dev/termination-log")).unwrap()).unwrap();
    assert_eq!(words["message"], "the order of the controller is missing");
}

#[test]
fn services_are_waited_for() {
    let pod = Pod::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = ServiceCheck { name: "db".into(), port, http_path: None, within_s: 60 };
    let output = pod.succeeds(&Order { services: vec![service], ..pod.order() });
    assert!(output.contains("service db is ready after 0."), "{output}");
}

#[test]
fn a_service_that_is_not_ready_fails_the_run() {
    let pod = Pod::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let service = ServiceCheck { name: "db".into(), port, http_path: None, within_s: 1 };
    let message = format!("service db: tcp {port} not open after 1s");
    pod.fails(&Order { services: vec![service], ..pod.order() }, "ServiceNotReady", &message);
}

#[test]
fn the_runs_time_ends_every_wait() {
    let pod = Pod::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let service = ServiceCheck { name: "db".into(), port, http_path: None, within_s: 600 };
    let order = Order { services: vec![service], deadline_ms: pod::now_ms() + 300, ..pod.order() };
    pod.fails(&order, "RunTimedOut", "the run took longer than its timeout; it waited for service db");
}

#[test]
fn sigterm_ends_it() {
    let pod = Pod::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let service = ServiceCheck { name: "db".into(), port, http_path: None, within_s: 600 };
    let order = Order { services: vec![service], ..pod.order() };
    let mut child = pod.command(Some(&order)).spawn().unwrap();
    // The temporary runner shows that the signal is waited for.
    while !pod.inside("windlass-runner.tmp").exists() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended by itself");
        thread::sleep(Duration::from_millis(5));
    }
    let begin = Instant::now();
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(begin.elapsed() < Duration::from_secs(60));
    assert_eq!(fs::read_to_string(pod.inside("failed")).unwrap(), "stopped\n");
    assert!(!pod.path("dev/termination-log").exists(), "a stop is no failure of the run");
}
