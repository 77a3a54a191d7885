use super::*;
use crate::client::view::tests::a_run;

const FAILED: &str = r#"
apiVersion: windlass.dev/v1alpha1
kind: PipelineRun
metadata: {name: hello-7, namespace: team-a, creationTimestamp: "2026-11-21T14:03:06Z"}
spec: {pipelineRef: {name: hello}}
status:
  phase: Failed
  buildNumber: 7
  nodeName: node-3
  sourceRevision: main@3f9c2d1
  startTime: "2026-11-21T14:03:07Z"
  completionTime: "2026-11-21T14:03:28Z"
  conditions:
  - {type: Succeeded, status: "False", reason: StepFailed, message: step test ended with exit code 2, lastTransitionTime: "2026-11-21T14:03:28Z"}
  pipelineSpec:
    box: {image: "debian:12"}
    steps: [{name: build, script: x}, {name: test, script: x}, {name: push, dockerPush: {repository: r}}]
    afterSteps: [{name: tell, script: x}]
  steps:
  - {name: build, phase: Succeeded, exitCode: 0, startedAt: "2026-11-21T14:03:07Z", finishedAt: "2026-11-21T14:03:19Z"}
  - {name: test, phase: Failed, reason: ExitCode, exitCode: 2, startedAt: "2026-11-21T14:03:19Z", finishedAt: "2026-11-21T14:03:24Z"}
  - {name: push, phase: Skipped, reason: EarlierStepFailed}
  - {name: tell, phase: Succeeded, exitCode: 0, startedAt: "2026-11-21T14:03:24Z", finishedAt: "2026-11-21T14:03:24Z"}
"#;

fn now() -> Timestamp {
    "2026-11-21T14:06:07Z".parse().unwrap()
}

#[test]
fn a_failed_run() {
    let look = Look { glyphs: true, width: Some(100), ..Look::default() };
    let run = a_run(FAILED);
    assert_eq!(
        describe(&run, &look, now(), &TimeZone::UTC),
        "\
hello-7   Failed  StepFailed: step test ended with exit code 2                  #7 of pipeline hello
started 14:03:07 (3m ago), took 21.0s   node node-3   source main@3f9c2d1
  ✓ build     12s
  ✗ test       5s  exit code 2
  · push        -  skipped
  ✓ tell      <1s  after-step
"
    );
    assert_eq!(next(&run, "windlass").as_deref(), Some("windlass logs hello-7 --step test"));
}

#[test]
fn steps_have_tenths_where_the_status_has() {
    let fine = [
        ("07Z\", finishedAt: \"2026-11-21T14:03:19Z", "07.1Z\", finishedAt: \"2026-11-21T14:03:19.4Z"),
        ("24Z\", finishedAt: \"2026-11-21T14:03:24Z", "24Z\", finishedAt: \"2026-11-21T14:03:24.312Z"),
    ];
    let run = a_run(&fine.iter().fold(FAILED.to_owned(), |text, (from, to)| text.replace(from, to)));
    let text = describe(&run, &Look::default(), now(), &TimeZone::UTC);
    for line in ["  ok   build   12.3s\n", "  FAIL test       5s  ", "  ok   tell     0.3s  after-step\n"] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn words_without_a_terminal() {
    let text = describe(&a_run(FAILED), &Look::default(), now(), &TimeZone::UTC);
    assert!(text.contains("exit code 2   #7 of pipeline hello\n"), "{text}");
    assert!(text.contains("\n  FAIL test       5s  exit code 2\n  skip push        -  skipped\n"), "{text}");
}

#[test]
fn a_run_that_waits_says_why() {
    let run = a_run(
        r#"
        apiVersion: windlass.dev/v1alpha1
        kind: PipelineRun
        metadata: {name: hello-8, namespace: team-a, creationTimestamp: "2026-11-21T14:06:00Z"}
        spec: {pipelineSpec: {box: {image: "debian:12"}, steps: [{name: build, script: x}]}}
        status:
          phase: Starting
          conditions: [{type: Succeeded, status: Unknown, reason: PullingImages, message: "pulling debian:12", lastTransitionTime: "2026-11-21T14:06:01Z"}]
        "#,
    );
    assert_eq!(
        describe(&run, &Look::default(), now(), &TimeZone::UTC),
        "hello-8   Starting  PullingImages: pulling debian:12\nmade 14:06:00 (7s ago), not started\n  -    build       -\n"
    );
    assert_eq!(next(&run, "kubectl windlass").as_deref(), Some("kubectl windlass logs -f hello-8"));
}

#[test]
fn a_watched_step_says_where_it_is_reachable_and_what_limits_it() {
    let run = a_run(
        r#"
        apiVersion: windlass.dev/v1alpha1
        kind: PipelineRun
        metadata: {name: dev-1, namespace: team-a, creationTimestamp: "2026-11-21T14:06:00Z"}
        spec: {pipelineSpec: {box: {image: "debian:12"}, steps: [{name: serve, watch: {code: x}}]}}
        status:
          steps:
          - {name: serve, phase: Running, reason: WatchLimit, message: raise it, addresses: ["10.1.2.3:80", "10.1.2.3:81"],
             startedAt: "2026-11-21T14:06:01Z"}
        "#,
    );
    let text = describe(&run, &Look::default(), now(), &TimeZone::UTC);
    assert!(text.ends_with("  run  serve      6s  raise it  10.1.2.3:80  10.1.2.3:81\n"), "{text}");
}

#[test]
fn the_result_decides_the_exit_code() {
    let run = a_run(FAILED);
    assert_eq!(follow::result_of(&run, ExitCodeOf::Windlass), Exit::Failed);
    assert_eq!(follow::result_of(&run, ExitCodeOf::Step), Exit::Step(2));
    let cancelled = a_run(&FAILED.replace("reason: StepFailed", "reason: Cancelled"));
    assert_eq!(follow::result_of(&cancelled, ExitCodeOf::Step), Exit::Cancelled);
    let killed = a_run(&FAILED.replace("exitCode: 2", "exitCode: 137"));
    assert_eq!(follow::result_of(&killed, ExitCodeOf::Step), Exit::Failed);
    let running = a_run(&FAILED.replace("status: \"False\"", "status: Unknown"));
    assert_eq!(follow::result_of(&running, ExitCodeOf::Windlass), Exit::Unfinished);
}
