//! Runs that wait for a person: the real command line on a terminal, in a real box.

use super::world::{World, step, tool, verdict};
use crate::terminal::Person;
use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};
use windlass::api::{PipelineRunStatus, status::StepPhase};

const WINDLASS: &str = env!("CARGO_BIN_EXE_windlass");
const RUNNER: &str = "/dev/windlass/in/windlass-runner";
/// How long an event may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn windlass(world: &World, arguments: &[&str]) -> Command {
    let mut command = Command::new(WINDLASS);
    if std::env::var_os("KUBECONFIG").is_none() {
        command.env("KUBECONFIG", Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cluster/kubeconfig"));
    }
    command.args(["-n", &world.namespace]).args(arguments).env_remove("CI");
    command
}

/// Exit code, and what was printed, stdout first.
fn say(world: &World, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = windlass(world, arguments).stdin(Stdio::null()).output().unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

fn waits(status: &PipelineRunStatus) -> bool {
    status.conditions.iter().any(|c| c.type_ == "Succeeded" && c.reason == "WaitingForUser")
}

async fn wait(world: &World, run: &str) -> PipelineRunStatus {
    world.until(run, "waiting for a person", waits).await
}

/// Waits for an event on the run.
fn event(world: &World, run: &str, reason: &str) -> String {
    let began = Instant::now();
    loop {
        let select = format!("--field-selector=regarding.name={run},reason={reason}");
        let notes = world.kubectl(&["get", "events.v1.events.k8s.io", &select, "-o", "jsonpath={.items[*].note}"], "");
        match notes {
            Ok(notes) if !notes.is_empty() => return notes,
            other => assert!(began.elapsed() < PATIENCE, "no event {reason}: {other:?}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

const SHELL: &str = "    box: {image: 'debian:local'}
    env: [{name: STAGE, value: test}]
    steps:
    - {name: build, script: 'mkdir sub; export VERSION=1.4'}
    - {name: look, cwd: sub, shell: {code: 'echo code ran in $(basename $PWD)'}}
    - {name: next, script: 'test \"${LEFT-none}\" = none; echo \"went on with $(cat sub/made)\"'}";

#[tokio::test]
async fn a_shell_step_waits_until_a_person_leaves_it() {
    let world = World::new().await;
    world.start("s", SHELL);
    let status = wait(&world, "s").await;
    let told = "step look waits; attach with: windlass shell s";
    assert_eq!(verdict(&status), ("WaitingForUser".into(), told.into()));
    let look = step(&status, "look");
    assert_eq!(
        (status.phase.as_deref(), look.phase, look.reason.as_deref()),
        (Some("Waiting"), StepPhase::Waiting, Some("Attach"))
    );
    assert_eq!(event(&world, "s", "WaitingForUser"), told);

    // A command has the environment, its own exit code, and ends nothing.
    let (code, said) = say(&world, &["shell", "s", "--", "sh", "-c", "echo $STAGE $VERSION $(basename $PWD); exit 7"]);
    assert_eq!((code, said.as_str()), (Some(7), "test 1.4 sub\n"));
    let (code, said) = say(&world, &["shell", "s", "--", "nosuch"]);
    assert_eq!((code, said.as_str()), (Some(127), "nosuch: not found in the box\n"));
    let (code, said) = say(&world, &["shell", "s"]);
    assert!(code == Some(2) && said.contains("a shell needs a terminal"), "{said}");
    let (code, said) = say(&world, &["retry", "s", "--step", "look"]);
    assert!(code == Some(2) && said.contains("the run waits for nobody: step look runs"), "{said}");

    let mut person = Person::starts(&windlass(&world, &["shell", "s"]));
    person.sees("attaching to s; Ctrl-P Ctrl-Q detaches");
    person.sees("s, step look: /bin/bash; exit or Ctrl-D ends the step and the run goes on");
    person.sees("\ncode ran in sub");
    person.prompts();
    person.types("echo it is $STAGE $VERSION\n");
    person.sees("\nit is test 1.4\r\nready> ");
    person.has_size("30 90");
    person.resizes(40, 120);
    person.has_size("40 120");
    person.types("sleep 1000; echo code $?\n");
    std::thread::sleep(Duration::from_millis(300));
    person.types("\u{3}");
    person.sees("ready> ");
    person.types("echo mended > made; export LEFT=1; KEPT=42\n");
    person.sees("ready> ");
    person.types("\u{10}\u{11}");
    person.sees("detached; s is still at step look");
    assert_eq!(person.leaves(), Some(0));

    // Whoever is killed changes nothing either; the shell stays as it was.
    let mut person = Person::starts(&windlass(&world, &["shell", "s"]));
    person.sees("step look: /bin/bash");
    person.types("echo kept $KEPT\n");
    person.sees("\nkept 42");
    person.loses_the_connection();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(waits(&world.runs().get("s").await.unwrap().status.unwrap()));

    let mut person = Person::starts(&windlass(&world, &["shell"]));
    let before = person.settings();
    person.sees("step look: /bin/bash");
    person.types("(exit 3)\nexit\n");
    // What is left of the run may be over by then.
    person.sees("\r\nleft");
    assert_eq!(person.leaves(), Some(0));
    let after = person.settings();
    assert_eq!(
        (after.local_modes, after.input_modes),
        (before.local_modes, before.input_modes),
        "the terminal is restored"
    );
    let status = world.end("s").await;
    assert_eq!(verdict(&status).0, "Succeeded", "{status:?}");
    assert_eq!(step(&status, "look").exit_code, Some(0));
    let log = world.log("s").await;
    assert!(log.contains("went on with mended\n") && !log.contains("it is test"), "{log}");
    let (code, said) = say(&world, &["shell", "s", "--", "true"]);
    assert!(code == Some(5) && said.contains("error[NoBox]: s has ended (succeeded)"), "{said}");
    let (code, said) = say(&world, &["continue", "nope"]);
    assert!(code == Some(5) && said.contains("error[NotFound]"), "{said}");
}

#[tokio::test]
async fn plain_kubectl_attaches_too_and_a_shell_can_be_ended_from_outside() {
    let world = World::new().await;
    world.start(
        "k",
        "    box: {image: 'busybox:local'}\n    steps: [{name: look, shell: {}}, {name: next, script: 'true'}]",
    );
    wait(&world, "k").await;
    let mut kubectl = Command::new("kubectl");
    kubectl.args(["-n", &world.namespace, "exec", "-it", "k-1", "-c", "box", "--", RUNNER, "shell"]);
    let mut person = Person::starts(&kubectl);
    person.sees("k, step look: /bin/sh");
    person.prompts();
    person.types("echo in $WERCKER_STEP_NAME\n");
    person.sees("\nin look");
    let (code, said) = say(&world, &["finish", "k"]);
    assert!(code == Some(0) && said.starts_with("k: step look is finished\n"), "{said}");
    person.sees("the step was ended");
    assert_eq!(verdict(&world.end("k").await).0, "Succeeded");
}

#[tokio::test]
async fn a_failed_step_is_mended_and_repeated_in_its_box() {
    let world = World::new().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let pipeline = "{box: {image: 'busybox:local'}, steps: [{name: build, script: 'export V=1.4'},
        {name: test, script: 'echo try; grep -q fine state'}, {name: next, script: 'echo next $V'}],
        afterSteps: [{name: tell, script: 'echo the run has $WERCKER_RESULT'}]}";
    let run = format!(
        "{{apiVersion: windlass.dev/v1alpha1, kind: PipelineRun, metadata: {{name: b}}, spec: {{pipelineSpec: {pipeline}}}}}"
    );
    std::fs::write(file.path(), run).unwrap();
    let (code, said) = say(&world, &["run", "-d", "--breakpoint", "on-failure", "-f", file.path().to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    let status = wait(&world, "b").await;
    let told = "step test waits; it failed with exit code 2; attach with: windlass shell b; then: windlass retry b --step test, or windlass continue b";
    assert_eq!(verdict(&status).1, told);
    assert_eq!(event(&world, "b", "WaitingForUser"), told);
    let (code, said) = say(&world, &["retry", "b", "--step", "build"]);
    assert!(code == Some(2) && said.contains("error[NotWaiting]: b: step build does not wait"), "{said}");
    let (code, said) = say(&world, &["shell", "b", "--", "sh", "-c", "echo $V; echo fine > state"]);
    assert_eq!((code, said.as_str()), (Some(0), "1.4\n"));
    let mut person = Person::starts(&windlass(&world, &["shell", "b"]));
    person.sees("b, at step test, which waits: /bin/sh; leaving it changes nothing");
    person.types("exit\n");
    person.sees("left; b still waits at step test");
    assert_eq!(person.leaves(), Some(0));
    let (code, said) = say(&world, &["retry", "b", "--step", "test"]);
    assert!(code == Some(0) && said.starts_with("b: step test is repeated\n"), "{said}");
    let status = world.end("b").await;
    assert_eq!(verdict(&status).0, "Succeeded", "{status:?}");
    assert_eq!((step(&status, "test").attempts, step(&status, "test").exit_code), (Some(2), Some(0)));
    let log = world.log("b").await;
    assert!(log.contains("next 1.4\n") && log.contains("the run has passed\n"), "{log}");
}

#[tokio::test]
async fn a_wait_ends_by_a_word_by_time_and_by_a_cancel() {
    let world = World::new().await;
    let run = |name: &str, breakpoint: &str| {
        world.apply(&format!(
            "{{apiVersion: windlass.dev/v1alpha1, kind: PipelineRun, metadata: {{name: {name}}}, spec: {{{breakpoint},
               pipelineSpec: {{box: {{image: 'busybox:local'}}, steps: [{{name: test, script: exit 3}}]}}}}}}"
        ));
    };
    let failed = ("StepFailed".to_owned(), "step test (1 of 1) failed with exit code 3".to_owned());
    run("told", "breakpoint: {atFailure: true}");
    run("late", "breakpoint: {atFailure: true}, breakpointTimeout: 1s");
    run("before", "breakpoint: {before: [test]}, breakpointTimeout: 1s");
    run("cancel", "breakpoint: {before: [test]}");
    world.apply(
        "{apiVersion: windlass.dev/v1alpha1, kind: PipelineRun, metadata: {name: pushes}, spec: {breakpoint: {before: [push]},
           pipelineSpec: {box: {image: 'busybox:local'}, steps: [{name: push, dockerPush: {repository: h.io/never}}]}}}",
    );
    wait(&world, "told").await;
    assert_eq!(say(&world, &["continue", "told"]).0, Some(0));
    assert_eq!(verdict(&world.end("told").await), failed);
    assert_eq!(verdict(&world.end("late").await), failed);
    let message = "step test waited longer than 1s at its breakpoint; raise breakpointTimeout".to_owned();
    assert_eq!(verdict(&world.end("before").await), ("StepTimedOut".into(), message));
    for name in ["cancel", "pushes"] {
        wait(&world, name).await;
        assert_eq!(say(&world, &["cancel", name]).0, Some(0));
        assert_eq!(verdict(&world.end(name).await).0, "Cancelled");
    }
}

#[tokio::test]
async fn who_may_not_exec_is_told_what_is_missing() {
    let world = World::new().await;
    world.start("s", "    box: {image: 'busybox:local'}\n    steps: [{name: look, shell: {}}]");
    let who = format!("{}:ann", world.namespace);
    world.kubectl(&["create", "serviceaccount", "ann"], "").unwrap();
    for role in ["windlass-view", "windlass-edit"] {
        let subject = format!("--serviceaccount={who}");
        world.kubectl(&["create", "rolebinding", role, &format!("--clusterrole={role}"), &subject], "").unwrap();
    }
    let token = world.kubectl(&["create", "token", "ann"], "").unwrap();
    let config = world.kubectl(&["config", "view", "--raw", "--minify", "-o", "json"], "").unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["users"][0]["user"] = serde_json::json!({ "token": token.trim() });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config.to_string()).unwrap();
    let ann = ["--kubeconfig", file.path().to_str().unwrap()];
    wait(&world, "s").await;
    let (code, said) = say(&world, &[&ann[..], &["continue", "s"]].concat());
    let place = &world.namespace;
    assert_eq!(
        (code, said),
        (
            Some(4),
            format!(
                "error[Forbidden]: system:serviceaccount:{place}:ann may not exec into pods in {place}\n\
                 hint: needs get and create on pods/exec in {place}: ClusterRole edit, or windlass-shell\n"
            )
        )
    );
    let subject = format!("--serviceaccount={who}");
    world.kubectl(&["create", "rolebinding", "shell", "--clusterrole=windlass-shell", &subject], "").unwrap();
    let began = Instant::now();
    let (code, said) = loop {
        let (code, said) = say(&world, &[&ann[..], &["continue", "s"]].concat());
        if code != Some(4) {
            break (code, said);
        }
        assert!(began.elapsed() < PATIENCE, "the right does not take effect: {said}");
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(verdict(&world.end("s").await).0, "Succeeded");
    // Nobody got the right by being an editor of runs.
    let rules = tool("kubectl", &["get", "clusterrole", "windlass-edit", "-o", "yaml"], "").unwrap();
    assert!(!rules.contains("exec"), "{rules}");
}
