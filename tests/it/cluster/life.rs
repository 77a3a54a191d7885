//! The life of a run: cancel, deletion, times to live, a lost pod, services, who the box is, and who leads.

use super::{
    installation::{self, AGENT, CONTROLLER, until},
    push::repository,
    world::{World, step, tool, verdict},
};
use serde_json::json;
use std::time::{Duration, Instant};
use windlass::api::status::{PipelineRunStatus, StepPhase};

pub(super) const BUSYBOX: &str = "    box: {image: 'busybox:local'}\n";

/// Whether an object is gone, after some waiting.
fn gone(world: &World, object: &str, patience: Duration) -> Result<(), String> {
    until(&format!("{object} of {} is gone", world.namespace), patience, || {
        world.kubectl(&["get", object, "--ignore-not-found", "-o", "name"], "").unwrap().is_empty().then_some(())
    })
}

pub(super) fn cancel(world: &World, run: &str, how: &str) {
    world
        .kubectl(&["patch", "plr", run, "--type=merge", "-p", &json!({"spec": {"cancel": how}}).to_string()], "")
        .unwrap();
}

/// Waits until the first step runs.
pub(super) async fn at_work(world: &World, run: &str) {
    let runs = |s: &PipelineRunStatus| s.steps.first().is_some_and(|s| s.phase == StepPhase::Running);
    world.until(run, "at its first step", runs).await;
}

fn phases(status: &PipelineRunStatus) -> Vec<StepPhase> {
    status.steps.iter().map(|s| s.phase).collect()
}

#[tokio::test]
async fn cancel_at_all_times() {
    use StepPhase::{Cancelled, Skipped, Succeeded};
    let world = World::new().await;
    let steps = "    steps: [{name: long, script: 'echo begun; sleep 300'}, {name: never, script: echo never}]
    afterSteps: [{name: tell, script: 'echo \"it $WERCKER_RESULT\"'}]";
    world.apply(
        "apiVersion: windlass.dev/v1alpha1\nkind: PipelineRun\nmetadata: {name: waits}\nspec: {pipelineRef: {name: nosuch}}\n",
    );
    world.apply(&format!(
        "apiVersion: windlass.dev/v1alpha1\nkind: PipelineRun\nmetadata: {{name: born}}\nspec:\n  cancel: Graceful\n  pipelineSpec:\n{BUSYBOX}{steps}\n"
    ));
    world.start("graceful", &format!("{BUSYBOX}{steps}"));
    world.start("immediate", &format!("{BUSYBOX}{steps}"));
    world.start("over", &format!("{BUSYBOX}    steps: [{{name: s, script: ':'}}]"));

    at_work(&world, "graceful").await;
    let began = Instant::now();
    cancel(&world, "graceful", "Graceful");
    let status = world.end("graceful").await;
    assert_eq!(verdict(&status), ("Cancelled".into(), "cancelled (Graceful) at step long".into()));
    assert_eq!(status.phase.as_deref(), Some("Cancelled"));
    assert_eq!(phases(&status)[..], [Cancelled, Skipped, Succeeded]);
    assert!(step(&status, "never").started_at.is_none());
    let log = world.log("graceful").await;
    assert!(log.contains("begun\n") && log.contains("it failed\n") && !log.contains("never\n"), "{log}");
    assert!(began.elapsed() < Duration::from_secs(10), "TERM ends the step");

    at_work(&world, "immediate").await;
    cancel(&world, "immediate", "Immediate");
    let status = world.end("immediate").await;
    assert_eq!(verdict(&status), ("Cancelled".into(), "cancelled (Immediate) at step long".into()));
    assert_eq!(phases(&status), [Cancelled, Skipped, Skipped]);
    gone(&world, "pod/immediate-1", Duration::from_secs(30)).unwrap();

    cancel(&world, "waits", "Graceful");
    for run in ["waits", "born"] {
        let status = world.end(run).await;
        assert_eq!((verdict(&status).0.as_str(), status.pod_uid.as_ref()), ("Cancelled", None), "{run}");
        assert_eq!(world.kubectl(&["get", "pod", &format!("{run}-1"), "--ignore-not-found"], "").unwrap(), "");
    }

    let before = world.end("over").await;
    assert_eq!(verdict(&before).0, "Succeeded");
    cancel(&world, "over", "Immediate");
    // The controller has seen it once another run, asked later, has gone its way.
    assert_eq!(
        verdict(&world.run("later", &format!("{BUSYBOX}    steps: [{{name: s, script: ':'}}]")).await).0,
        "Succeeded"
    );
    let after = world.end("over").await;
    assert_eq!((after.conditions, after.steps), (before.conditions, before.steps));
    world.kubectl(&["get", "pod", "over-1"], "").unwrap();
}

#[tokio::test]
async fn a_deleted_run_takes_its_pod_along() {
    let world = World::new().await;
    world.start("r", &format!("{BUSYBOX}    steps: [{{name: long, script: sleep 300}}]\n    afterSteps: [{{name: tell, script: sleep 300}}]"));
    at_work(&world, "r").await;
    world.kubectl(&["delete", "plr", "r", "--wait=false"], "").unwrap();
    // The finalizer holds the run until the pod is gone.
    gone(&world, "plr/r", Duration::from_secs(25)).unwrap();
    assert_eq!(world.kubectl(&["get", "pods", "-o", "name"], "").unwrap(), "");
    let left = tool(
        "docker",
        &["ps", "-q", "--filter", &format!("label=io.kubernetes.pod.namespace={}", world.namespace)],
        "",
    );
    assert_eq!(left.as_deref(), Ok(""));
}

#[tokio::test]
async fn runs_and_pods_go_when_their_time_is_over() {
    let world = World::new().await;
    for (name, ttl) in
        [("run", "ttlAfterFinished: 2s"), ("pod", "podTTLAfterFinished: 2s"), ("none", "podTTLAfterFinished: 0s")]
    {
        world.apply(&format!(
            "apiVersion: windlass.dev/v1alpha1\nkind: PipelineRun\nmetadata: {{name: {name}}}\nspec:\n  {ttl}\n  pipelineSpec:\n{BUSYBOX}    steps: [{{name: s, script: ':'}}]\n"
        ));
    }
    for name in ["pod", "none"] {
        let before = world.end(name).await;
        assert_eq!(verdict(&before).0, "Succeeded");
        gone(&world, &format!("pod/{name}-1"), Duration::from_secs(30)).unwrap();
        let after = world.end(name).await;
        assert_eq!((after.conditions, after.steps), (before.conditions, before.steps));
    }
    gone(&world, "plr/run", Duration::from_secs(30)).unwrap();
    gone(&world, "pod/run-1", Duration::from_secs(30)).unwrap();
}

#[tokio::test]
async fn a_pod_that_a_user_deletes_is_lost_and_tried_again_if_asked() {
    let world = World::new().await;
    // The pod's name tells the attempt.
    let steps = "    steps: [{name: work, script: 'case $(hostname) in *-1) sleep 60;; esac'}]\n    afterSteps: [{name: tell, script: echo told}]";
    world.start("once", &format!("{BUSYBOX}{steps}"));
    world.start("twice", &format!("{BUSYBOX}    retries: 1\n{steps}"));
    world.start("forced", &format!("{BUSYBOX}    retries: 1\n{steps}"));
    at_work(&world, "once").await;
    world.kubectl(&["delete", "pod", "once-1", "--wait=false"], "").unwrap();
    at_work(&world, "twice").await;
    world.kubectl(&["delete", "pod", "twice-1", "--wait=false"], "").unwrap();
    at_work(&world, "forced").await;
    world.kubectl(&["delete", "pod", "forced-1", "--grace-period=0", "--force"], "").unwrap();
    let status = world.end("once").await;
    assert_eq!(verdict(&status), ("PodLost".into(), "the pod was deleted at step work".into()));
    // By the runner's own record if that came through, else as the controller has it.
    assert!(
        matches!(phases(&status)[..], [StepPhase::Cancelled | StepPhase::Failed, StepPhase::Skipped]),
        "{status:?}"
    );
    for run in ["twice", "forced"] {
        let status = world.end(run).await;
        assert_eq!(verdict(&status).0, "Succeeded", "{run}: {:?}", verdict(&status));
        assert_eq!((status.attempt, status.pod_name.as_deref()), (Some(2), Some(&*format!("{run}-2"))));
        assert_eq!(phases(&status), [StepPhase::Succeeded; 2]);
        gone(&world, &format!("pod/{run}-1"), Duration::from_secs(30)).unwrap();
    }
}

#[tokio::test]
async fn services_are_ready_under_their_names() {
    let world = World::new().await;
    world.apply("{apiVersion: v1, kind: Secret, metadata: {name: db}, stringData: {page: the-page-of-the-secret}}");
    let status = world
        .run(
            "r",
            &format!(
                "{BUSYBOX}    services:
    - name: port
      image: 'busybox:local'
      command: [sh, -c, 'sleep 2; exec nc -ll -p 6379 -e echo hello']
      readiness: {{tcp: 6379}}
    - name: web
      image: 'busybox:local'
      env: [{{name: PAGE, secretKeyRef: {{name: db, key: page}}}}]
      command: [sh, -c, 'sleep 2; mkdir /www; echo \"$PAGE\" > /www/up; exec httpd -f -p 8080 -h /www']
      readiness: {{http: {{port: 8080, path: /up}}}}
      ports: [8080]
    - name: file
      image: 'busybox:local'
      command: [sh, -c, 'sleep 2; nc -ll -p 7000 -e cat /etc/passwd & touch /ready; wait']
      readiness: {{exec: {{command: [test, -f, /ready]}}}}
    steps:
    - name: look
      script: |
        test \"$(nc port 6379 </dev/null)\" = hello
        wget -qO- http://web:8080/up | tr a-z A-Z
        wget -qO- http://$WEB_PORT_8080_TCP_ADDR:$WEB_PORT_8080_TCP_PORT/up | tr a-z A-Z
        test -z \"$FILE_NAME$WEB_ENV_PAGE\"
        nc file 7000 </dev/null | grep -q root"
            ),
        )
        .await;
    let log = world.log("r").await;
    assert_eq!(verdict(&status).0, "Succeeded", "{:?}\n{log}", verdict(&status));
    assert_eq!(log.matches("THE-PAGE-OF-THE-SECRET\n").count(), 2, "{log}");
}

#[tokio::test]
async fn a_box_of_another_user_has_its_source() {
    let world = World::new().await;
    // The user's own directory, if there is one that can be written to.
    let images = [
        ("debian", "debian:local", 1000, "/home/user/pipeline"),
        ("busybox", "busybox:local", 1000, "/home/pipeline"),
        ("nobody", "busybox:local", 2000, "/tmp/pipeline"),
    ];
    for (name, image, user, _) in images {
        let repository = repository(&world, name);
        world.start(
            name,
            &format!(
                "    box: {{image: '{image}', user: '{user}:{user}'}}
    source: {{inline: {{files: [{{path: app/run, mode: '0755', content: \"#!/bin/sh\\necho ran\\n\"}}]}}}}
    steps:
    - name: work
      script: |
        echo \"in $WERCKER_SOURCE_DIR as $(id -u):$(id -g)\"
        test \"$PWD\" = \"$WERCKER_SOURCE_DIR\"
        ./app/run > made
        echo x > app/made
    - {{name: push, dockerPush: {{repository: '{repository}', entrypoint: [$WERCKER_SOURCE_DIR/app/run]}}}}"
            ),
        );
    }
    for (name, _, user, place) in images {
        let status = world.end(name).await;
        let log = world.log(name).await;
        assert_eq!(verdict(&status).0, "Succeeded", "{name}: {:?}\n{log}", verdict(&status));
        assert!(log.contains(&format!("in {place}/source as {user}:{user}\n")), "{log}");
        let image = format!("{}:latest", repository(&world, name));
        let made = format!("{place}/source/app/made");
        let owner = ["run", "--rm", "--pull=always", "-q", "--entrypoint=stat", &image, "-c", "%u:%g", &made];
        assert_eq!(tool("docker", &owner, "").as_deref(), Ok(&*format!("{user}:{user}\n")));
        assert_eq!(tool("docker", &["run", "--rm", &image], "").as_deref(), Ok("ran\n"));
        tool("docker", &["rmi", "-f", &image], "").unwrap();
    }
}

#[tokio::test]
async fn the_environment_of_the_box_is_nobody_elses() {
    let world = World::new().await;
    world.apply("{apiVersion: v1, kind: Secret, metadata: {name: keys}, stringData: {api: correct-horse-battery, LINES: \"first-line-of-it\\nsecond-line-of-it\"}}");
    world.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {colour: dark-ultramarine, SIZE: extra-large-size}}");
    world.start(
        "r",
        &format!(
            "{BUSYBOX}    env:
    - {{name: KEY, secretKeyRef: {{name: keys, key: api}}}}
    - {{name: COLOUR, configMapKeyRef: {{name: settings, key: colour}}}}
    envFrom:
    - {{secretRef: {{name: keys}}, prefix: S_}}
    - {{configMapRef: {{name: settings}}}}
    steps:
    - name: say
      script: |
        test ${{#KEY}} = 21 && test ${{#COLOUR}} = 16 && test ${{#SIZE}} = 16
        echo \"key [$KEY] lines [$S_LINES]\"
        printf %s \"${{KEY%-*}}\"; sleep 0.2; echo \"-${{KEY##*-}} in two\"
    - {{name: wait, script: 'while [ ! -e /tmp/on ]; do sleep 0.1; done'}}"
        ),
    );
    let waits = |s: &PipelineRunStatus| s.steps.get(1).is_some_and(|s| s.phase == StepPhase::Running);
    world.until("r", "at its second step", waits).await;
    let name = format!("name=k8s_box_r-1_{}", world.namespace);
    let id = tool("docker", &["ps", "-q", "--filter", &name], "").unwrap();
    let container = tool("docker", &["inspect", id.trim()], "").unwrap();
    let objects = world.kubectl(&["get", "pods,plr,events", "-o", "yaml"], "").unwrap();
    world.kubectl(&["exec", "r-1", "-c", "box", "--", "touch", "/tmp/on"], "").unwrap();
    let status = world.end("r").await;
    let log = world.log("r").await;
    assert_eq!(verdict(&status).0, "Succeeded", "{:?}\n{log}", verdict(&status));
    for value in ["horse", "line-of-it", "ultramarine", "extra-large"] {
        assert!(!container.contains(value) && !objects.contains(value), "{value} can be read from outside");
    }
    assert!(log.contains("key [***] lines [***") && !log.contains("horse") && !log.contains("line-of-it"), "{log}");
}

#[tokio::test]
async fn build_numbers_count_by_pipeline() {
    let world = World::new().await;
    let steps = "steps: [{name: s, script: 'echo \"number $WERCKER_BUILD_NUMBER\"'}]";
    for name in ["p", "q"] {
        world.apply(&format!(
            "{{apiVersion: windlass.dev/v1alpha1, kind: Pipeline, metadata: {{name: {name}}}, spec: {{box: {{image: 'busybox:local'}}, {steps}}}}}"
        ));
    }
    let mut numbers = Vec::new();
    for (run, pipeline) in [("p-1", "p"), ("p-2", "p"), ("q-1", "q")] {
        world.apply(&format!(
            "{{apiVersion: windlass.dev/v1alpha1, kind: PipelineRun, metadata: {{name: {run}}}, spec: {{pipelineRef: {{name: {pipeline}}}}}}}"
        ));
        numbers.push(world.end(run).await.build_number);
    }
    for run in ["inline-1", "inline-2"] {
        numbers.push(world.run(run, &format!("{BUSYBOX}    {steps}")).await.build_number);
    }
    assert_eq!(numbers, [1, 2, 1, 1, 2].map(Some));
    assert!(world.log("p-2").await.contains("number 2\n"));
    let told = "jsonpath={.status.lastBuildNumber} {.status.lastRun.name} {.status.lastRun.phase}";
    let tells = || (world.kubectl(&["get", "pl", "p", "-o", told], "").unwrap() == "2 p-2 Succeeded").then_some(());
    until("the Pipeline tells of its last run", Duration::from_secs(5), tells).unwrap();
}

/// Changes the installation back, also after a panic.
struct Restore(&'static [&'static str]);

impl Drop for Restore {
    fn drop(&mut self) {
        if let Err(error) = installation::kubectl(self.0) {
            eprintln!("not restored: {error}");
        }
    }
}

#[tokio::test]
async fn with_the_agent_away_scripts_run_and_pushes_wait() {
    let world = World::alone().await;
    let repository = repository(&world, "r");
    let back = Restore(&[
        "patch",
        "ds/windlass-agent",
        "--type=merge",
        "-p",
        r#"{"spec":{"template":{"spec":{"nodeSelector":{"windlass.dev/away":null}}}}}"#,
    ]);
    let away = r#"{"spec":{"template":{"spec":{"nodeSelector":{"windlass.dev/away":"true"}}}}}"#;
    installation::kubectl(&["patch", "ds/windlass-agent", "--type=merge", "-p", away]).unwrap();
    installation::kubectl(&["wait", "pod", "-lapp.kubernetes.io/component=agent", "--for=delete", "--timeout=60s"])
        .unwrap();

    world.start("push", &format!("{BUSYBOX}    steps: [{{name: make, script: 'echo it > /made'}}, {{name: push, dockerPush: {{repository: '{repository}'}}}}]"));
    world.start("stop", &format!("{BUSYBOX}    steps: [{{name: long, script: sleep 300}}]"));
    let script = "    steps: [{name: a, script: ':'}, {name: b, script: 'exit 3', onFailure: Continue}]\n    afterSteps: [{name: c, script: ':'}]";
    let status = world.run("script", &format!("{BUSYBOX}{script}")).await;
    assert_eq!(verdict(&status).0, "SucceededWithFailures", "{:?}", verdict(&status));
    assert_eq!(phases(&status), [StepPhase::Succeeded, StepPhase::Failed, StepPhase::Succeeded]);
    assert_eq!(step(&status, "b").exit_code, Some(3));
    assert_eq!(status.summary.unwrap().steps.as_deref(), Some("2/2"));

    // With nobody to tell, a graceful cancel is an immediate one.
    cancel(&world, "stop", "Graceful");
    assert_eq!(verdict(&world.end("stop").await).0, "Cancelled");

    let waits = |s: &PipelineRunStatus| s.conditions.iter().any(|c| c.reason == "WaitingForAgent");
    let status = world.until("push", "waiting for the agent", waits).await;
    assert!(verdict(&status).1.starts_with("step push needs the agent of node "), "{:?}", verdict(&status));
    assert_eq!(status.phase.as_deref(), Some("Waiting"));
    drop(back);
    let status = world.end("push").await;
    assert_eq!(verdict(&status).0, "Succeeded", "{:?}", verdict(&status));
    let image = format!("{repository}:latest");
    assert_eq!(tool("docker", &["run", "--rm", "-q", &image, "cat", "/made"], "").as_deref(), Ok("it\n"));
    tool("docker", &["rmi", "-f", &image], "").unwrap();
    until("the agent is back", Duration::from_secs(30), || (!installation::ready(AGENT).is_empty()).then_some(()))
        .unwrap();
}

#[tokio::test]
async fn the_second_controller_takes_over() {
    let world = World::alone().await;
    let _back = Restore(&["scale", "deploy/windlass-controller", "--replicas=1"]);
    installation::kubectl(&["scale", "deploy/windlass-controller", "--replicas=2"]).unwrap();
    until("two controllers", Duration::from_secs(30), || (installation::ready(CONTROLLER).len() == 2).then_some(()))
        .unwrap();
    world.start("r", &format!("{BUSYBOX}    steps: [{{name: work, script: sleep 3}}]"));
    at_work(&world, "r").await;
    let first = installation::leader().unwrap();
    installation::kill_pod(&first, CONTROLLER);
    until("another leads", Duration::from_secs(20), || (installation::leader()? != first).then_some(())).unwrap();
    let status = world.end("r").await;
    assert_eq!(verdict(&status).0, "Succeeded", "{:?}", verdict(&status));
    let next = world.run("next", &format!("{BUSYBOX}    steps: [{{name: s, script: ':'}}]")).await;
    assert_eq!(verdict(&next).0, "Succeeded");
}
