//! The main job on the real cluster: steps in one box, and what users see of them.

use super::world::{POD_SECURITY, World, step, verdict};
use windlass::api::status::StepPhase;

#[tokio::test]
async fn a_failing_step_skips_the_rest_and_after_steps_see_it() {
    let world = World::new().await;
    let status = world
        .run(
            "r",
            "    box: {image: 'busybox:local'}
    steps:
    - {name: build, script: 'echo built; export WHAT=it'}
    - {name: test, script: 'echo testing $WHAT; exit 3'}
    - {name: push, script: 'echo never'}
    afterSteps:
    - {name: tell, script: 'echo \"$WERCKER_RESULT at $WERCKER_FAILED_STEP_DISPLAY_NAME\"'}",
        )
        .await;
    assert_eq!(verdict(&status), ("StepFailed".into(), "step test (2 of 3) failed with exit code 3".into()));
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    let ends: Vec<_> = status.steps.iter().map(|s| (s.name.as_str(), s.phase, s.exit_code)).collect();
    assert_eq!(
        ends,
        [
            ("build", StepPhase::Succeeded, Some(0)),
            ("test", StepPhase::Failed, Some(3)),
            ("push", StepPhase::Skipped, None),
            ("tell", StepPhase::Succeeded, Some(0)),
        ]
    );
    assert!(step(&status, "test").started_at.is_some() && step(&status, "push").started_at.is_none());
    let log = world.log("r").await;
    assert!(log.contains("testing it\n") && log.contains("failed at test\n") && !log.contains("never"), "{log}");
}

#[tokio::test]
async fn pod_security_restricted_admits_a_box_and_a_service_without_rights() {
    let world = World::new().await;
    let label = format!("{POD_SECURITY}=restricted");
    world.kubectl(&["label", "namespace", &world.namespace, "--overwrite", &label], "").unwrap();
    let rights = "{runAsNonRoot: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}";
    let pipeline = |of_service: &str| {
        format!(
            "    box: {{image: 'busybox:local', user: '1000', workingDir: /tmp/build, securityContext: {rights}}}
    services:
    - name: web
      image: 'busybox:local'
      user: '1001'
      command: [sh, -c, 'while :; do id -u | nc -l -p 8080; done']
      readiness: {{tcp: 8080}}
      {of_service}
    steps:
    - {{name: ask, script: 'id -u; until nc -w 2 web 8080 </dev/null | grep 1001; do sleep 0.1; done'}}"
        )
    };
    world.start("none", &pipeline(""));
    let status = world.run("r", &pipeline(&format!("securityContext: {rights}"))).await;
    let log = world.log("r").await;
    assert_eq!(verdict(&status).0, "Succeeded", "{:?} {log}", verdict(&status));
    assert!(log.contains("1000\n1001\n"), "{log}");
    // The namespace is as strict as it should be: it names what the service has too much.
    let (reason, message) = verdict(&world.end("none").await);
    assert_eq!(reason, "PodForbidden", "{message}");
    assert!(message.contains("svc-web") && !message.contains("\"box\""), "{message}");
}
