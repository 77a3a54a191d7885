//! The main job on the real cluster: steps in one box, and what users see of them.

use super::world::{World, step, verdict};
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
