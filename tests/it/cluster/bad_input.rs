//! What users get wrong, on the real cluster: each fault has its own reason, and a message that says what
//! to do, within seconds where the cause is known.

use super::world::{World, verdict};
use k8s_openapi::jiff::Timestamp;

/// Name, pipeline, reason, what the message holds, and seconds that it may take at most.
const FAULTS: &[(&str, &str, &str, &str, i64)] = &[
    (
        "image-name",
        "    box: {image: 'Debian:12'}\n    steps: [{name: s, script: x}]",
        "InvalidImageName",
        "box.image \"Debian:12\": repository names are lower-case",
        3,
    ),
    (
        "never-pulled",
        "    box: {image: 'nosuch:1', imagePullPolicy: Never}\n    steps: [{name: s, script: x}]",
        "ImagePullFailed",
        "image nosuch:1 is not on the node and imagePullPolicy is Never",
        10,
    ),
    (
        "not-in-registry",
        "    box: {image: '127.0.0.1:5000/no/such:1'}\n    steps: [{name: s, script: x}]",
        "ImagePullFailed",
        "image 127.0.0.1:5000/no/such:1 cannot be pulled: ",
        30,
    ),
    (
        "no-shell",
        "    box: {image: 'scratch-noshell:local'}\n    steps: [{name: s, script: x}]",
        "NoShell",
        "image scratch-noshell:local has no /bin/sh; every box needs one",
        20,
    ),
    (
        "no-secret",
        "    box: {image: 'busybox:local'}\n    env: [{name: A, secretKeyRef: {name: keys, key: api}}]\n    steps: [{name: s, script: x}]",
        "SecretNotFound",
        "Secret keys does not exist in namespace ",
        10,
    ),
    (
        "no-key",
        "    box: {image: 'busybox:local'}\n    env: [{name: A, secretKeyRef: {name: login, key: api}}]\n    steps: [{name: s, script: x}]",
        "SecretKeyNotFound",
        "Secret login has no key api; it has: token, user",
        10,
    ),
    (
        "no-config-map",
        "    box: {image: 'busybox:local'}\n    envFrom: [{configMapRef: {name: settings}}]\n    steps: [{name: s, script: x}]",
        "ConfigMapNotFound",
        "ConfigMap settings does not exist in namespace ",
        10,
    ),
    (
        "no-push-secret",
        "    box: {image: 'busybox:local'}\n    steps: [{name: p, dockerPush: {repository: 127.0.0.1:5000/it/a, credentials: {secretName: nosuch}}}]",
        "SecretNotFound",
        "step p needs it",
        10,
    ),
    (
        "no-branch",
        "    box: {image: 'busybox:local'}\n    source: {git: {url: 'http://git.windlass.test:8418/nosuch.git'}}\n    steps: [{name: s, script: x}]",
        "SourceFailed",
        "nosuch.git",
        20,
    ),
    (
        "no-host",
        "    box: {image: 'busybox:local'}\n    source: {git: {url: 'https://git.nosuch.test/x.git'}}\n    steps: [{name: s, script: x}]",
        "SourceFailed",
        "git.nosuch.test",
        20,
    ),
    (
        "git-login",
        "    box: {image: 'busybox:local'}\n    source: {git: {url: 'http://git.windlass.test:8418/private/x.git'}}\n    steps: [{name: s, script: x}]",
        "SourceAuthFailed",
        "source.git.secretName",
        20,
    ),
    (
        "source-not-writable",
        "    box: {image: 'busybox:local', user: '1000', workingDir: /etc/app}\n    steps: [{name: s, script: x}]",
        "SourceNotWritable",
        "user 1000 cannot write /etc/app",
        10,
    ),
    (
        "service-not-ready",
        "    box: {image: 'busybox:local'}\n    services: [{name: db, image: 'busybox:local', command: [sleep, '60'], readiness: {tcp: 5432, within: 2s}}]\n    steps: [{name: s, script: x}]",
        "ServiceNotReady",
        "service db: tcp 5432 not open after 2s",
        15,
    ),
    (
        "service-ends",
        "    box: {image: 'busybox:local'}\n    services: [{name: db, image: 'busybox:local', command: [sh, -c, 'sleep 1; exit 3']}]\n    steps: [{name: s, script: sleep 30}]",
        "ServiceFailed",
        "service db ended with exit code 3",
        15,
    ),
    (
        "port-grammar",
        "    box: {image: 'busybox:local'}\n    steps: [{name: p, dockerPush: {repository: 127.0.0.1:5000/it/a, ports: '80/xyz'}}]",
        "InvalidProperty",
        "steps[0].dockerPush.ports: \"80/xyz\"",
        3,
    ),
    (
        "registry-mismatch",
        "    box: {image: 'busybox:local'}\n    steps: [{name: p, dockerPush: {repository: a.test/x, registry: 'https://b.test/v2'}}]",
        "RegistryMismatch",
        "b.test",
        3,
    ),
    (
        "later",
        "    box: {image: 'busybox:local'}\n    steps: [{name: w, script: x, when: 'true'}]",
        "InvalidPipeline",
        "steps[0].when: this version of Windlass cannot carry it out yet; leave it out",
        3,
    ),
    (
        "time",
        "    box: {image: 'busybox:local'}\n    timeout: 2s\n    steps: [{name: s, script: sleep 30}]",
        "RunTimedOut",
        "the run took longer than 2s",
        20,
    ),
    (
        "step-time",
        "    box: {image: 'busybox:local'}\n    steps: [{name: s, script: sleep 30, timeout: 1s}]",
        "StepTimedOut",
        "step s ran longer than 1s; raise its timeout",
        10,
    ),
    (
        "silent",
        "    box: {image: 'busybox:local'}\n    noOutputTimeout: 1s\n    steps: [{name: s, script: sleep 30}]",
        "NoOutput",
        "step s printed nothing for 1s; raise noOutputTimeout",
        10,
    ),
    (
        "memory",
        "    box: {image: 'debian:local', resources: {limits: {memory: 96Mi}}}\n    steps: [{name: s, script: 'x=$(head -c 300m /dev/zero | tr \"\\\\0\" x); echo ${#x}'}]",
        "OutOfMemory",
        // On cgroup v2 the whole box dies, on v1 the step alone: the words differ.
        "memory",
        30,
    ),
];

#[tokio::test]
async fn each_fault_has_its_reason_and_says_what_to_do() {
    let world = World::new().await;
    world.apply(
        "{apiVersion: v1, kind: Secret, metadata: {name: login}, stringData: {user: u, token: hunter2-hunter2}}",
    );
    for (name, pipeline, ..) in FAULTS {
        world.start(name, pipeline);
    }
    let mut wrong = Vec::new();
    for (name, _, reason, words, seconds) in FAULTS {
        let status = world.end(name).await;
        let (got_reason, message) = verdict(&status);
        if got_reason != *reason || !message.contains(words) {
            wrong.push(format!("{name}: wanted {reason}: {words}\n    got {got_reason}: {message}"));
        }
        let begin = status.start_time.or(status.completion_time.clone()).map_or(Timestamp::MIN, |t| t.0);
        let took = status.completion_time.unwrap().0.duration_since(begin).as_secs();
        // All faults run at once on a small machine: twice the time is still prompt.
        if took > seconds * 2 {
            wrong.push(format!("{name}: took {took}s, at most {seconds}s was wanted"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), FAULTS.len(), wrong.join("\n"));
}

#[tokio::test]
async fn a_foreign_pod_of_our_name_is_neither_adopted_nor_deleted() {
    let world = World::new().await;
    world.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: r-1}, spec: {containers: [{name: c, image: 'busybox:local', command: [sleep, '60']}]}}",
    );
    let status = world.run("r", "    box: {image: 'busybox:local'}\n    steps: [{name: s, script: x}]").await;
    assert_eq!(
        verdict(&status),
        ("PodNameConflict".into(), "pod r-1 exists and is not ours; delete it or use another run name".into())
    );
    world.kubectl(&["get", "pod", "r-1"], "").unwrap();
}

#[tokio::test]
async fn a_missing_pipeline_is_waited_for_and_then_found() {
    let world = World::new().await;
    world.apply(
        "{apiVersion: windlass.dev/v1alpha1, kind: PipelineRun, metadata: {name: r}, spec: {pipelineRef: {name: p}}}",
    );
    let waits = world.until("r", "waiting", |s| !s.conditions.is_empty()).await;
    assert_eq!(
        verdict(&waits),
        (
            "PipelineNotFound".into(),
            format!(
                "waiting up to 30s for Pipeline p in namespace {}; create it or mend pipelineRef.name",
                world.namespace
            )
        )
    );
    world.apply(
        "{apiVersion: windlass.dev/v1alpha1, kind: Pipeline, metadata: {name: p}, spec: {box: {image: 'busybox:local'}, steps: [{name: s, script: x=1}]}}",
    );
    assert_eq!(verdict(&world.end("r").await).0, "Succeeded");
}
