//! The real command line with a cluster that answers as a test wants: signals at every moment of their talk, a file's
//! own namespace, a watch that is refused.

use super::api_server::{Answer, Server};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rstest::rstest;
use std::{
    fs,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const RUNS: &str = "/apis/windlass.dev/v1alpha1/namespaces/team-a/pipelineruns";
const PIPELINE: &str =
    "{apiVersion: windlass.dev/v1alpha1, kind: Pipeline, metadata: {name: hello}, spec: {box: {image: x}, steps: []}}";
const RUN: &str = r#"{"apiVersion": "windlass.dev/v1alpha1", "kind": "PipelineRun",
    "metadata": {"name": "x", "namespace": "team-a", "uid": "u", "creationTimestamp": "2026-11-21T13:03:07Z"},
    "spec": {"pipelineSpec": {"box": {"image": "x"}, "steps": [{"name": "a", "script": "x"}]}},
    "status": {"phase": "Running"}}"#;

/// A directory with the kubeconfig of a server and a file to run.
pub(super) struct Place {
    directory: TempDir,
}

impl Place {
    pub(super) fn new(server: &Server, file: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = format!(
            "{{apiVersion: v1, kind: Config, current-context: here, clusters: [{{name: here, cluster: {{server: \"{}\"}}}}], \
             users: [{{name: me, user: {{}}}}], \
             contexts: [{{name: here, context: {{cluster: here, user: me, namespace: team-a}}}}]}}",
            server.url
        );
        fs::write(directory.path().join("kubeconfig"), config).expect("a kubeconfig");
        fs::write(directory.path().join("run.yaml"), file).expect("a file");
        Self { directory }
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
        command.env_clear().env("KUBECONFIG", self.directory.path().join("kubeconfig")).args(arguments);
        command.current_dir(self.directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(super) fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().expect("windlass runs")
    }
}

pub(super) fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), signal).expect("a process");
}

/// Exit code, and what was said, stdout first. The end comes soon.
pub(super) fn end(mut child: Child) -> (Option<i32>, String) {
    let began = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if began.elapsed() > Duration::from_secs(10) {
            let _ = child.kill();
            panic!("it goes on after the signal");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().expect("a child");
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8"))
}

/// A cluster in which the run x goes on for ever. A creation takes a moment.
fn cluster() -> Server {
    let list =
        format!(r#"{{"kind": "List", "apiVersion": "v1", "metadata": {{"resourceVersion": "1"}}, "items": [{RUN}]}}"#);
    Server::start(move |request| match request.split_once(' ') {
        Some(("POST", _)) => Answer::Late(Duration::from_millis(500), 201, RUN.into()),
        Some(("GET", path)) if path.contains("watch=true") => Answer::Silence,
        Some(("GET", path)) if path.starts_with(RUNS) && !path.starts_with(&format!("{RUNS}/")) => {
            Answer::Json(200, list.clone())
        }
        _ => Answer::Json(200, RUN.into()),
    })
}

#[rstest]
#[case(Signal::SIGINT, 130)]
#[case(Signal::SIGTERM, 143)]
fn a_signal_while_objects_are_applied_starts_no_run(#[case] signal: Signal, #[case] code: i32) {
    let server = Server::start(|_| Answer::Never);
    let place = Place::new(&server, &format!("{PIPELINE}\n---\n{RUN}"));
    let child = place.start(&["run", "-f", "run.yaml"]);
    server.until_asked("PATCH ");
    send(&child, signal);
    let (ended, said) = end(child);
    assert_eq!(ended, Some(code), "{said}");
    assert!(said.contains("left; no run was started, pipeline hello may have been applied"), "{said}");
    assert!(!server.was_asked("POST "));
}

#[rstest]
#[case(&[], Signal::SIGTERM, 143, "the run may have been made all the same")]
#[case(&["--on-interrupt", "detach"], Signal::SIGINT, 130, "the run may have been made all the same")]
fn who_asks_twice_does_not_wait_for_the_creation(
    #[case] flags: &[&str],
    #[case] signal: Signal,
    #[case] code: i32,
    #[case] told: &str,
) {
    let server = Server::start(|_| Answer::Never);
    let place = Place::new(&server, RUN);
    let child = place.start(&[&["run", "-f", "run.yaml"], flags].concat());
    server.until_asked("POST ");
    send(&child, signal);
    std::thread::sleep(Duration::from_millis(300));
    send(&child, signal);
    let (ended, said) = end(child);
    assert_eq!(ended, Some(code), "{said}");
    assert!(said.contains(told), "{said}");
}

#[rstest]
#[case(&["-d"], Signal::SIGINT, 130, true, "run x is being cancelled")]
#[case(&["-d"], Signal::SIGTERM, 143, true, "run x is being cancelled")]
#[case(&["--on-interrupt", "detach"], Signal::SIGINT, 130, false, "left; x goes on: windlass logs -f x")]
#[case(&["--on-interrupt", "detach", "-d"], Signal::SIGTERM, 143, false, "left; x goes on: windlass logs -f x")]
fn a_signal_while_the_run_is_made_is_answered_as_asked_for(
    #[case] flags: &[&str],
    #[case] signal: Signal,
    #[case] code: i32,
    #[case] cancelled: bool,
    #[case] told: &str,
) {
    let server = cluster();
    let place = Place::new(&server, RUN);
    let child = place.start(&[&["run", "-f", "run.yaml"], flags].concat());
    server.until_asked("POST ");
    send(&child, signal);
    let (ended, said) = end(child);
    assert_eq!(ended, Some(code), "{said}");
    assert_eq!(server.was_asked("PATCH "), cancelled, "{said}");
    assert!(said.contains(told), "{said}");
}

/// A refusal in the words of an API server.
fn refusal(code: u16, message: &str) -> String {
    format!(
        r#"{{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "X", "code": {code}, "message": "{message}"}}"#
    )
}

/// A cluster that makes x, then y, and refuses the creation of z after a moment; x cannot be cancelled perhaps.
fn cluster_that_refuses_z(refuses_a_cancel: bool) -> Server {
    let made = Mutex::new(["x", "y"].into_iter());
    Server::start(move |request| match request.split_once(' ') {
        Some(("POST", _)) => match made.lock().expect("names").next() {
            Some(name) => Answer::Json(201, RUN.replace(r#""name": "x""#, &format!(r#""name": "{name}""#))),
            None => Answer::Late(Duration::from_millis(500), 503, refusal(503, "too busy for z")),
        },
        Some(("PATCH", path)) if refuses_a_cancel && path.contains("/x?") => {
            Answer::Json(500, refusal(500, "too busy for x"))
        }
        _ => Answer::Json(200, RUN.into()),
    })
}

#[rstest]
#[case(&[], false, "run x is being cancelled")]
#[case(&[], true, "run x goes on: windlass cancel x")]
#[case(&["--on-interrupt", "detach"], false, "left; x goes on: windlass logs -f x")]
fn a_signal_is_answered_for_the_runs_that_are_made_though_the_next_is_refused(
    #[case] flags: &[&str],
    #[case] refuses_a_cancel: bool,
    #[case] told: &str,
) {
    let server = cluster_that_refuses_z(refuses_a_cancel);
    let run = |name: &str| RUN.replace(r#""name": "x""#, &format!(r#""name": "{name}""#));
    let place = Place::new(&server, &[run("x"), run("y"), run("z")].join("\n---\n"));
    let child = place.start(&[&["run", "-f", "run.yaml"], flags].concat());
    server.until_asked_times("POST ", 3);
    send(&child, Signal::SIGINT);
    let (ended, said) = end(child);
    assert_eq!(ended, Some(6), "{said}");
    assert!(said.contains("too busy for z") && said.contains(told), "{said}");
    assert_eq!(said.contains("too busy for x"), refuses_a_cancel, "{said}");
    assert_eq!(said.contains("run y is being cancelled"), flags.is_empty(), "{said}");
    assert_eq!(server.was_asked(&format!("PATCH {RUNS}/y")), flags.is_empty(), "{said}");
}

/// Who leaves while one run is waited for knows that the other was never cancelled.
#[test]
fn a_cancel_that_is_refused_is_told_before_the_others_are_waited_for() {
    let list =
        format!(r#"{{"kind": "List", "apiVersion": "v1", "metadata": {{"resourceVersion": "1"}}, "items": [{RUN}]}}"#);
    let server = Server::start(move |request| match request.split_once(' ') {
        Some(("PATCH", path)) if path.contains("/y?") => Answer::Json(500, refusal(500, "too busy for y")),
        Some(("GET", path)) if path.contains("watch=true") => Answer::Silence,
        Some(("GET", path)) if path.contains("/pipelineruns/y") => {
            Answer::Json(200, RUN.replace(r#""name": "x""#, r#""name": "y""#))
        }
        Some(("GET", path)) if path.starts_with(RUNS) && !path.starts_with(&format!("{RUNS}/")) => {
            Answer::Json(200, list.clone())
        }
        _ => Answer::Json(200, RUN.into()),
    });
    let place = Place::new(&server, RUN);
    let child = place.start(&["cancel", "y", "x", "--wait"]);
    server.until_asked(&format!("GET {RUNS}?&watch=true"));
    send(&child, Signal::SIGINT);
    let (ended, said) = end(child);
    assert_eq!(ended, Some(130), "{said}");
    assert_eq!(said.matches("too busy for y").count(), 1, "{said}");
    let (ended, said) = end(place.start(&["cancel", "y", "x"]));
    assert_eq!((ended, said.matches("too busy for y").count()), (Some(6), 1), "{said}");
}

/// As under `make`: a process group gets the signal, once each.
#[test]
fn a_signal_to_the_process_group_ends_the_view_only() {
    let server = cluster();
    let place = Place::new(&server, RUN);
    let windlass = env!("CARGO_BIN_EXE_windlass");
    fs::write(
        place.directory.path().join("Makefile"),
        format!("all:\n\t{windlass} run -f run.yaml --on-interrupt detach; echo ended with $$? > code; exit 1\n"),
    )
    .expect("a file");
    let mut command = Command::new("make");
    command.current_dir(place.directory.path()).env("KUBECONFIG", place.directory.path().join("kubeconfig"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().expect("make runs");
    server.until_asked(&format!("GET {RUNS}?&watch=true"));
    let group = Pid::from_raw(-i32::try_from(child.id()).expect("a pid"));
    kill(group, Signal::SIGINT).expect("a group");
    let (_, said) = end(child);
    assert!(said.contains("left; x goes on: windlass logs -f x"), "{said}");
    assert!(!server.was_asked("PATCH "), "{said}");
}

#[rstest]
#[case(&["cancel", "x", "--wait"], Signal::SIGINT, 130)]
#[case(&["cancel", "x", "--wait"], Signal::SIGTERM, 143)]
#[case(&["status", "x", "--wait"], Signal::SIGINT, 130)]
#[case(&["status", "x", "-w", "--wait"], Signal::SIGINT, 130)]
#[case(&["status", "x", "-w", "--exit-status"], Signal::SIGTERM, 143)]
#[case(&["logs", "-f", "x"], Signal::SIGINT, 130)]
// Who only looks has seen what there was.
#[case(&["status", "x", "-w"], Signal::SIGINT, 0)]
#[case(&["list", "-w"], Signal::SIGINT, 0)]
fn a_signal_is_no_result(#[case] arguments: &[&str], #[case] signal: Signal, #[case] code: i32) {
    let server = cluster();
    let place = Place::new(&server, RUN);
    let child = place.start(arguments);
    server.until_asked(&format!("GET {RUNS}?&watch=true"));
    // The signal is caught before the watch begins.
    send(&child, signal);
    let (ended, said) = end(child);
    assert_eq!(ended, Some(code), "{said}");
}

#[test]
fn hints_lead_to_the_namespace_that_the_file_names() {
    let elsewhere = RUN.replace("\"namespace\": \"team-a\"", "\"namespace\": \"team-b\"");
    let waits = elsewhere.replace(
        "\"phase\": \"Running\"",
        "\"phase\": \"Waiting\", \"conditions\": [{\"type\": \"Succeeded\", \"status\": \"Unknown\", \"reason\": \"WaitingForUser\",
          \"message\": \"step a waits; attach with: windlass shell x\", \"lastTransitionTime\": \"2026-11-21T13:03:07Z\"}]",
    );
    let server = Server::start(move |request| match request.split_once(' ') {
        Some(("POST", _)) => Answer::Json(201, waits.clone()),
        Some(("GET", _)) => Answer::Silence,
        _ => Answer::Json(404, "{}".into()),
    });
    let place = Place::new(&server, &elsewhere);
    let (code, said) = end(place.start(&["run", "-f", "run.yaml", "-d"]));
    assert!(code == Some(0) && said.contains("hint: windlass -n team-b logs -f x\n"), "{said}");
    let child = place.start(&["run", "-f", "run.yaml", "--on-interrupt", "detach"]);
    server.until_asked("GET /apis/windlass.dev/v1alpha1/namespaces/team-b/pipelineruns");
    std::thread::sleep(Duration::from_millis(300));
    send(&child, Signal::SIGINT);
    let (code, said) = end(child);
    assert_eq!(code, Some(130), "{said}");
    for told in ["left; x goes on: windlass -n team-b logs -f x", "attach with: windlass -n team-b shell x"] {
        assert!(said.contains(told), "{told}: {said}");
    }
    // What the flags lead to needs no more of them.
    let (_, said) = end(place.start(&["run", "-f", "run.yaml", "-d", "-n", "team-b"]));
    assert!(said.contains("hint: windlass -n team-b logs -f x\n"), "{said}");
}

#[rstest]
#[case(&["list", "-w"])]
#[case(&["status", "x", "-w"])]
fn a_watch_that_is_refused_ends_with_the_reason(#[case] arguments: &[&str]) {
    let list =
        format!(r#"{{"kind": "List", "apiVersion": "v1", "metadata": {{"resourceVersion": "1"}}, "items": [{RUN}]}}"#);
    let server = Server::start(move |request| match request {
        watch if watch.contains("watch=true") => Answer::Json(
            403,
            r#"{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
                "message": "pipelineruns.windlass.dev is forbidden: User \"ann\" cannot watch"}"#
                .into(),
        ),
        one if one.contains("/pipelineruns/") => Answer::Json(200, RUN.into()),
        _ => Answer::Json(200, list.clone()),
    });
    let place = Place::new(&server, RUN);
    let (code, said) = end(place.start(arguments));
    assert!(code == Some(4) && said.contains("error[Forbidden]"), "{code:?} {said}");
}

#[test]
fn a_pipeline_that_is_not_there_is_told_before_anything_starts() {
    let names = r#"{"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "items": [{"metadata": {"name": "release"}}, {"metadata": {"name": "test"}}]}"#;
    let server = Server::start(move |request| match request {
        one if one.contains("/pipelines/") => Answer::Json(404, NOT_FOUND.into()),
        all if all.starts_with("GET ") => Answer::Json(200, names.into()),
        _ => Answer::Json(500, "{}".into()),
    });
    let (code, said) = end(Place::new(&server, RUN).start(&["run", "--from", "pipeline/relase"]));
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("error[NotFound]: no pipeline \"relase\" in namespace team-a\n"), "{said}");
    assert!(said.contains("did you mean \"release\"?"), "{said}");
}

const NOT_FOUND: &str = r#"{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
    "message": "pipelines.windlass.dev not found", "details": {"kind": "pipelines"}}"#;

/// Whether the name is right is asked for people's sake alone: who gets no answer, or no right to it, starts the run.
#[rstest]
#[case::silent(Answer::Never, &["run", "--from", "pipeline/release", "-d"], "run x in namespace team-a")]
#[case::forbidden(Answer::Json(403, "{}".into()), &["run", "--from", "pipeline/release", "-d"], "run x in namespace team-a")]
#[case::dry(Answer::Json(404, NOT_FOUND.into()), &["run", "--from", "pipeline/release", "--dry-run=client"], "nothing was started")]
fn a_pipeline_that_nobody_tells_of_holds_no_run_up(
    #[case] of_pipelines: Answer,
    #[case] arguments: &[&str],
    #[case] told: &str,
) {
    let of_pipelines = Mutex::new(Some(of_pipelines));
    let server = Server::start(move |request| match request.split_once(' ') {
        Some(("POST", _)) => Answer::Json(201, RUN.into()),
        _ => of_pipelines.lock().expect("no panic").take().unwrap_or(Answer::Never),
    });
    let (code, said) = end(Place::new(&server, RUN).start(arguments));
    assert!(code == Some(0) && said.contains(told), "{code:?} {said}");
}

#[test]
fn a_run_goes_by_the_name_that_kubectl_prints() {
    let server = Server::start(|request| match request.split('?').next() {
        Some(one) if one == format!("GET {RUNS}/x") => Answer::Json(200, RUN.into()),
        _ => Answer::Json(404, "{}".into()),
    });
    let (code, said) = end(Place::new(&server, RUN).start(&["status", "pipelinerun.windlass.dev/x"]));
    assert!(code == Some(0), "{code:?} {said}");
}
