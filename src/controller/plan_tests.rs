use super::*;
use crate::api::status::{Report, ReportResult, StepPhase, StepStatus, moment};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};
use rstest::rstest;

#[path = "cancel_tests.rs"]
mod cancel;
#[path = "lost_tests.rs"]
mod lost;
#[path = "starting_tests.rs"]
mod starting;

const NOW: &str = "2026-11-21T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn ago(seconds: i64) -> Time {
    Time(now() - SignedDuration::from_secs(seconds))
}

const SPEC: &str = "{box: {image: 'a:1'}, steps: [{name: one, script: x}, {name: two, script: y}], afterSteps: [{name: tell, script: z}]}";
const PUSH: &str =
    "{box: {image: 'a:1'}, steps: [{name: one, script: x}, {name: push, dockerPush: {repository: h.io/a}}]}";

/// A run with its finalizer on, and nothing else.
fn seen(run_spec: &str) -> Observed {
    let run = format!(
        "{{apiVersion: windlass.dev/v1alpha1, kind: PipelineRun, metadata: {{name: r, namespace: n, uid: u-1, generation: 1,
           creationTimestamp: '{NOW}', finalizers: [windlass.dev/cleanup]}}, spec: {run_spec}}}"
    );
    Observed {
        now: now(),
        run: serde_yaml::from_str(&run).unwrap(),
        unreadable: None,
        pipeline: None,
        pod: None,
        refused: None,
        agent_seen: Some(now()),
        written: None,
        settings: PodSettings { image: "windlass:test".into(), ..Default::default() },
    }
}

/// The same, frozen.
fn frozen(spec: &str) -> Observed {
    let mut seen = seen(&format!("{{pipelineSpec: {spec}}}"));
    let spec = serde_json::to_value(seen.run.spec.pipeline_spec.clone().unwrap()).unwrap();
    let status = seen.run.status.get_or_insert_default();
    status.pipeline_spec = Some(spec);
    status.build_number = Some(3);
    seen
}

/// The same with its pod, whose status is `pod_status`, recorded.
fn with_pod(spec: &str, pod_status: &str) -> Observed {
    let mut seen = frozen(spec);
    let Ok([Change::CreatePod(pod)]) = <[Change; 1]>::try_from(plan(&seen).changes) else { panic!("no pod is made") };
    let mut pod = *pod;
    pod.metadata.uid = Some("p-1".into());
    pod.metadata.creation_timestamp = Some(ago(5));
    pod.spec.as_mut().unwrap().node_name = Some("node".into());
    pod.status = Some(serde_yaml::from_str(pod_status).unwrap());
    seen.pod = Some(pod);
    let status = seen.run.status.as_mut().unwrap();
    status.start_time = Some(ago(5));
    settle(seen)
}

/// Applies the plan's status to the world, until nothing is left to do.
fn settle(mut seen: Observed) -> Observed {
    for _ in 0..5 {
        let Some(new) = plan(&seen).status else { return seen };
        let mut json = serde_json::to_value(seen.run.status.clone().unwrap_or_default()).unwrap();
        let new = serde_json::to_value(new).unwrap();
        for key in ["podName", "podUID", "nodeName", "completionTime"] {
            json.as_object_mut().unwrap().remove(key);
        }
        for (key, value) in new.as_object().unwrap() {
            json[key] = value.clone();
        }
        seen.run.status = Some(serde_json::from_value(json).unwrap());
        seen.refused = None;
    }
    panic!("no fixpoint: {:?}", plan(&seen))
}

fn reason_of(seen: &Observed) -> (String, String, String) {
    let status = seen.run.status.as_ref().unwrap();
    let condition = &status.conditions[0];
    (condition.status.clone(), condition.reason.clone(), condition.message.clone())
}

fn step(name: &str, phase: StepPhase) -> StepStatus {
    let started_at = (phase != StepPhase::Pending && phase != StepPhase::Skipped).then(|| moment(ago(3).0));
    StepStatus { name: name.into(), phase, started_at, ..Default::default() }
}

const BOX_RUNS: &str = "{phase: Running, containerStatuses: [
  {name: box, image: 'a:1', imageID: '', ready: true, restartCount: 0, state: {running: {}}},
  {name: prepare, image: w, imageID: '', ready: false, restartCount: 0, state: {terminated: {exitCode: 0}}}]}";

const BOX_ENDED: &str = "{phase: Failed, containerStatuses: [
  {name: box, image: 'a:1', imageID: '', ready: false, restartCount: 0, state: {terminated: {exitCode: 143, startedAt: '2026-11-21T11:59:00Z'}}},
  {name: prepare, image: w, imageID: '', ready: false, restartCount: 0, state: {terminated: {exitCode: 0}}}]}";

#[test]
fn a_run_becomes_a_pod_in_order() {
    let mut seen = seen(&format!("{{pipelineSpec: {SPEC}}}"));
    seen.run.metadata.finalizers = None;
    assert_eq!(plan(&seen).changes, [Change::AddFinalizer]);
    seen.run.metadata.finalizers = Some(vec![meta::FINALIZER.into()]);
    assert!(matches!(plan(&seen).changes.as_slice(), [Change::Freeze { counter: None, .. }]));
    let seen = with_pod(SPEC, "{phase: Pending}");
    let status = seen.run.status.as_ref().unwrap();
    assert_eq!(
        (status.pod_name.as_deref(), status.pod_uid.as_deref(), status.node_name.as_deref()),
        (Some("r-1"), Some("p-1"), Some("node"))
    );
    assert!(plan(&seen).is_empty());
}

#[test]
fn a_missing_pipeline_has_a_grace_then_fails() {
    let mut early = seen("{pipelineRef: {name: p}}");
    assert_eq!(plan(&early).wake, Some(Duration::from_secs(30)));
    early = settle(early);
    let waits = "waiting up to 30s for Pipeline p in namespace n; create it or mend pipelineRef.name";
    assert_eq!(reason_of(&early), ("Unknown".into(), "PipelineNotFound".into(), waits.into()));
    early.now += SignedDuration::from_secs(31);
    let events = plan(&early).events;
    assert_eq!(events.iter().map(|e| (e.warning, e.reason.as_str())).collect::<Vec<_>>(), [(true, "PipelineNotFound")]);
    let late = settle(early);
    assert_eq!(
        reason_of(&late),
        (
            "False".into(),
            "PipelineNotFound".into(),
            "Pipeline p does not exist in namespace n; create it or mend pipelineRef.name".into()
        )
    );
}

#[test]
fn a_foreign_pod_of_our_name_is_not_adopted() {
    let mut seen = frozen(SPEC);
    seen.pod = Some(Pod::default());
    let seen = settle(seen);
    assert_eq!(reason_of(&seen).1, "PodNameConflict");
    assert!(plan(&seen).changes.iter().all(|c| !matches!(c, Change::DeletePod { .. })), "it is not ours to delete");
}

#[test]
fn a_report_ends_the_run_at_once_and_green_needs_every_record() {
    let mut seen = with_pod(SPEC, BOX_RUNS);
    let status = seen.run.status.as_mut().unwrap();
    status.report = Some(Report { attempt: 1, result: ReportResult::Passed, ..Default::default() });
    status.steps = vec![step("one", StepPhase::Succeeded), step("two", StepPhase::Succeeded)];
    let lost = settle(seen.clone());
    assert_eq!(reason_of(&lost).1, "ReportLost");
    seen.run.status.as_mut().unwrap().steps.push(step("tell", StepPhase::Succeeded));
    let green = settle(seen);
    assert_eq!(reason_of(&green), ("True".into(), "Succeeded".into(), "2 steps in 5.0s".into()));
    assert_eq!(green.run.status.as_ref().unwrap().phase.as_deref(), Some("Succeeded"));
    assert!(plan(&green).changes.is_empty(), "the pod is kept for its logs");
}

#[test]
fn a_stale_report_of_an_earlier_attempt_does_not_count() {
    let mut seen = with_pod(SPEC, BOX_RUNS);
    seen.run.status.as_mut().unwrap().report =
        Some(Report { attempt: 2, result: ReportResult::Passed, ..Default::default() });
    assert_eq!(reason_of(&settle(seen)).0, "Unknown");
}

#[rstest]
#[case("{name: box, state: {waiting: {reason: ErrImageNeverPull}}}", "ImagePullFailed")]
#[case("{name: box, state: {waiting: {reason: InvalidImageName, message: x}}}", "InvalidImageName")]
#[case(
    "{name: box, state: {terminated: {exitCode: 127, reason: ContainerCannotRun, message: 'exec: \"/bin/sh\": stat /bin/sh: no such file or directory'}}}",
    "NoShell"
)]
#[case(
    "{name: box, state: {terminated: {exitCode: 137, startedAt: '2026-11-21T11:59:58Z', reason: OOMKilled}}}",
    "OutOfMemory"
)]
#[case(
    "{name: box, state: {terminated: {exitCode: 0, startedAt: '2026-11-21T11:59:58Z', reason: Completed}}}",
    "ReportLost"
)]
#[case(
    "{name: prepare, state: {terminated: {exitCode: 1, message: '{\"reason\":\"SecretNotFound\",\"message\":\"m\"}'}}}",
    "SecretNotFound"
)]
fn a_pod_that_cannot_go_on_says_why(#[case] container: &str, #[case] reason: &str) {
    let container = container.replacen("{name", "{image: 'a:1', imageID: '', ready: false, restartCount: 0, name", 1);
    let seen = with_pod(SPEC, &format!("{{phase: Running, containerStatuses: [{container}]}}"));
    let (status, why, _) = reason_of(&seen);
    assert_eq!((status.as_str(), why.as_str()), ("False", reason));
    let steps = &seen.run.status.as_ref().unwrap().steps;
    assert!(steps.is_empty() || steps.iter().all(|s| s.phase.is_final()), "{steps:?}");
    let deletes = matches!(plan(&seen).changes.as_slice(), [Change::DeletePod { .. }]);
    let runs = !container.contains("name: box, state: {terminated");
    assert_eq!(deletes, runs, "what still runs is stopped, what ended keeps its logs");
}

#[test]
fn the_summary_finishes_a_run_without_an_agent() {
    let summary = crate::wire::Summary {
        passed: false,
        reason: Some("StepFailed".into()),
        failed: Some(1),
        message: Some("step two (2 of 2) failed with exit code 2".into()),
        steps: [(0, 0), (0, 2), (5, 0)]
            .map(|(reason, code)| {
                let reason = crate::wire::EndReason::from_number(reason).unwrap();
                Some(crate::wire::StepEnd { reason, code: Some(code), started_ms: 1, finished_ms: 2 })
            })
            .to_vec(),
    };
    // The pod's phase lags behind the box's state.
    let status = format!(
        "{{phase: Running, containerStatuses: [{{name: box, image: a, imageID: '', ready: false, restartCount: 0, state: {{terminated: {{exitCode: 1,
            startedAt: '2026-11-21T11:59:58Z', finishedAt: '{NOW}', message: '{}'}}}}}}]}}",
        summary.encode()
    );
    let waits = with_pod(SPEC, &status);
    assert_eq!(reason_of(&waits).0, "Unknown", "the agent is there and will say more");
    let mut unseen = waits.clone();
    unseen.now += SignedDuration::from_secs(20);
    unseen.agent_seen = Some(unseen.now);
    assert_eq!(reason_of(&settle(unseen.clone())).0, "False", "the agent had its time");
    unseen.written = Some(unseen.now);
    assert_eq!(reason_of(&settle(unseen.clone())).0, "Unknown", "the agent has just learned of the run");
    let status = unseen.run.status.as_mut().unwrap();
    (unseen.written, status.node_name) = (None, None);
    assert!(plan(&unseen).status.unwrap().completion_time.is_none(), "the agent knows nothing of the run yet");
    let mut alone = waits;
    alone.agent_seen = None;
    let alone_before = alone.clone();
    let ended = settle(alone);
    assert_eq!(reason_of(&ended).2, "step two (2 of 2) failed with exit code 2");
    assert!(plan(&ended).changes.is_empty(), "the pod is kept for its logs");
    assert_eq!(plan(&alone_before).status.unwrap().summary.unwrap().steps.as_deref(), Some("2/2"));
    let phases: Vec<_> = ended.run.status.as_ref().unwrap().steps.iter().map(|s| (s.phase, s.exit_code)).collect();
    assert_eq!(phases, [(StepPhase::Succeeded, Some(0)), (StepPhase::Failed, Some(2)), (StepPhase::Skipped, Some(0))]);
}

#[test]
fn the_box_cannot_say_that_a_push_was_carried_out() {
    let end =
        crate::wire::StepEnd { reason: crate::wire::EndReason::ExitCode, code: None, started_ms: 1, finished_ms: 2 };
    let summary =
        crate::wire::Summary { passed: true, reason: None, failed: None, message: None, steps: vec![Some(end); 2] };
    let status = format!(
        "{{phase: Running, containerStatuses: [{{name: box, image: a, imageID: '', ready: false, restartCount: 0, state: {{terminated: {{exitCode: 0,
            startedAt: '2026-11-21T11:59:58Z', finishedAt: '{NOW}', message: '{}'}}}}}}]}}",
        summary.encode()
    );
    let mut seen = with_pod(PUSH, &status);
    seen.agent_seen = None;
    let mut seen = settle(seen);
    let waits = ("Unknown".to_owned(), "WaitingForAgent".to_owned());
    let (state, reason, message) = reason_of(&seen);
    assert_eq!((state, reason), waits, "an agent that was away may still say so");
    assert_eq!(message, "step push ended, and the agent of node node has still to say how");
    seen.now += SignedDuration::from_secs(600);
    let seen = settle(seen);
    assert_eq!((reason_of(&seen).0.as_str(), reason_of(&seen).1.as_str()), ("False", "ReportLost"));
    let push = &seen.run.status.as_ref().unwrap().steps[1];
    assert_eq!((push.phase, push.reason.as_deref()), (StepPhase::Failed, Some("ReportLost")));
}

#[test]
fn after_steps_do_not_change_the_result() {
    let spec = SPEC.replace("z}]", "z}, {name: more, script: z}]");
    let mut seen = with_pod(&spec, BOX_RUNS);
    let status = seen.run.status.as_mut().unwrap();
    status.report = Some(Report { attempt: 1, result: ReportResult::Passed, ..Default::default() });
    let good = StepPhase::Succeeded;
    status.steps =
        vec![step("one", good), step("two", good), step("tell", StepPhase::Failed), step("more", StepPhase::Skipped)];
    assert_eq!(reason_of(&settle(seen)).1, "SucceededWithFailures");
}

#[test]
fn a_lost_node_ends_the_run_and_frees_its_name() {
    let mut seen = with_pod(SPEC, BOX_RUNS);
    seen.pod.as_mut().unwrap().metadata.deletion_timestamp = Some(ago(299));
    assert_eq!(reason_of(&settle(seen.clone())).0, "Unknown");
    seen.now += SignedDuration::from_secs(1);
    let ended = settle(seen.clone());
    assert_eq!(reason_of(&ended).1, "NodeLost");
    let forced = [Change::DeletePod { name: "r-1".into(), uid: "p-1".into(), grace_s: 0 }];
    assert_eq!(plan(&ended).changes, forced, "nobody else ends it");
    seen.run.metadata.deletion_timestamp = Some(ago(299));
    assert_eq!(plan(&seen).changes, forced, "or a deletion in the foreground waits for it for ever");
    let mut held = seen.clone();
    held.pod.as_mut().unwrap().metadata.deletion_grace_period_seconds = Some(0);
    assert_eq!(plan(&held).changes, [Change::RemoveFinalizer], "a finalizer holds the pod");
    held.run = ended.run.clone();
    assert_eq!(
        (plan(&held).changes, plan(&held).wake),
        (Vec::new(), None),
        "and is awaited, not asked again and again"
    );
    seen.pod = None;
    assert_eq!(plan(&seen).changes, [Change::RemoveFinalizer]);
}

#[test]
fn a_lost_node_does_not_keep_the_pod_of_an_earlier_attempt() {
    let mut seen = with_pod(&SPEC.replace("{box", "{retries: 1, box"), BOX_RUNS);
    seen.pod.as_mut().unwrap().metadata.deletion_timestamp = Some(ago(300));
    let plan = plan(&seen);
    assert_eq!(plan.changes, [Change::DeletePod { name: "r-1".into(), uid: "p-1".into(), grace_s: 0 }]);
    assert_eq!(plan.status.unwrap().attempt, Some(2));
}

#[test]
fn a_run_ends_though_its_kubelet_does_not_answer() {
    let mut seen = with_pod(SPEC, BOX_RUNS);
    seen.now += SignedDuration::from_secs(3600 + 330 + 300);
    assert_eq!(reason_of(&settle(seen)).1, "RunTimedOut");
}

#[test]
fn a_push_waits_for_its_agent_and_says_so_but_scripts_do_not() {
    for (spec, reason) in [(PUSH, "WaitingForAgent"), (SPEC, "Running")] {
        let mut seen = with_pod(spec, BOX_RUNS);
        seen.agent_seen = None;
        seen.now += SignedDuration::from_secs(40);
        let seen = settle(seen);
        assert_eq!((reason_of(&seen).0.as_str(), reason_of(&seen).1.as_str()), ("Unknown", reason));
    }
}

#[rstest]
#[case::it_was_there(Some(40), "step push needs the agent of node node, which has not answered for 30s")]
#[case::it_never_was(
    None,
    "step push needs an agent, and node node has none: it needs Docker Engine, and the labels of the chart's agent.nodeSelector"
)]
fn a_run_that_waits_for_an_agent_says_which_one(#[case] renewed_ago: Option<i64>, #[case] message: &str) {
    let mut seen = with_pod(PUSH, BOX_RUNS);
    seen.now += SignedDuration::from_secs(40);
    seen.agent_seen = renewed_ago.map(|s| seen.now - SignedDuration::from_secs(s));
    assert_eq!(reason_of(&settle(seen)).2, message);
}

#[rstest]
#[case::it_ran(StepPhase::Running)]
#[case::term_ended_it_first(StepPhase::Cancelled)]
fn a_lost_pod_names_the_step(#[case] phase: StepPhase) {
    let mut seen = with_pod(SPEC, BOX_RUNS);
    seen.pod = None;
    seen.run.status.as_mut().unwrap().steps = vec![step("one", phase), step("two", StepPhase::Pending)];
    assert_eq!(reason_of(&settle(seen)).2, "the pod was deleted at step one");
}

#[test]
fn a_lost_pod_is_retried_only_if_asked_and_never_after_a_digest() {
    let lost = |retries: u32, digest: bool| {
        let mut seen = with_pod(&SPEC.replace("{box", &format!("{{retries: {retries}, box")), BOX_RUNS);
        let mut running = step("one", StepPhase::Running);
        if digest {
            running.images.push(crate::api::status::ImageStatus { digest: "sha256:x".into(), ..Default::default() });
        }
        seen.run.status.as_mut().unwrap().steps = vec![running];
        seen.pod = None;
        plan(&seen)
    };
    let ended = |plan: &Plan| plan.status.as_ref().unwrap().completion_time.is_some();
    assert!(ended(&lost(0, false)));
    assert!(ended(&lost(1, true)));
    let again = lost(1, false);
    assert!(again.changes.is_empty(), "first the old agent is fenced off by the status");
    let status = again.status.unwrap();
    assert_eq!(
        (status.attempt, status.pod_name.as_deref(), status.pod_uid, status.node_name),
        (Some(2), Some("r-2"), None, None)
    );

    let mut old = frozen(&SPEC.replace("{box", "{retries: 1, box"));
    let status = old.run.status.as_mut().unwrap();
    status.attempt = Some(2);
    status.steps = vec![step("one", StepPhase::Succeeded)];
    assert_eq!(plan(&old).changes, [Change::ClearAgentStatus]);
    old.run.status.as_mut().unwrap().steps.clear();
    assert!(matches!(plan(&old).changes.as_slice(), [Change::CreatePod(_)]));
}

#[test]
fn a_refused_pod_is_the_users_to_mend() {
    let mut seen = frozen(SPEC);
    seen.refused = Some(NoPod::Forbidden("exceeded quota".into()));
    let seen = settle(seen);
    assert_eq!(reason_of(&seen), ("False".into(), "PodForbidden".into(), "exceeded quota".into()));
}

#[test]
fn a_refused_pod_is_asked_for_again_after_a_while_each_time_longer() {
    let mut seen = frozen(&SPEC.replace("{box", "{retries: 2, box"));
    for (attempt, wait_s) in [(2, 10), (3, 20)] {
        seen.refused = Some(NoPod::Forbidden("exceeded quota".into()));
        let events = plan(&seen).events;
        assert_eq!(events.iter().map(|e| e.reason.as_str()).collect::<Vec<_>>(), ["Retrying"]);
        seen = settle(seen);
        let message = format!("attempt {attempt} of 3 after PodForbidden, in {wait_s}s: exceeded quota");
        assert_eq!(reason_of(&seen), ("Unknown".into(), "PodForbidden".into(), message));
        assert_eq!(plan(&seen), Plan::wake(Some(Duration::from_secs(wait_s))));
        seen.now += SignedDuration::from_secs(wait_s.cast_signed() - 1);
        assert_eq!(plan(&seen), Plan::wake(Some(Duration::from_secs(1))));
        let mut cancelled = seen.clone();
        cancelled.run.spec.cancel = Some(Cancel::Graceful);
        assert_eq!(reason_of(&settle(cancelled)).1, "Cancelled");
        seen.now += SignedDuration::from_secs(1);
        assert!(matches!(plan(&seen).changes.as_slice(), [Change::CreatePod(_)]));
    }
    seen.refused = Some(NoPod::Forbidden("exceeded quota".into()));
    assert_eq!(reason_of(&settle(seen)), ("False".into(), "PodForbidden".into(), "exceeded quota".into()));
}

#[test]
fn a_run_that_cannot_be_read_ends_keeps_what_is_known_and_can_be_deleted() {
    let mut seen = with_pod(SPEC, BOX_RUNS);
    seen.unreadable = Some("invalid type".into());
    seen.run.spec = crate::api::run::PipelineRunSpec::default();
    let mut ended = settle(seen.clone());
    assert_eq!(
        reason_of(&ended),
        ("False".into(), "InvalidSpec".into(), "this version of Windlass cannot read the run: invalid type".into())
    );
    let facts = |seen: &Observed| PodFacts::recorded(seen.run.status.as_ref().unwrap());
    assert_eq!(facts(&ended), facts(&seen));
    let completed = ended.run.status.as_ref().unwrap().completion_time.clone();
    ended.now += SignedDuration::from_secs(9);
    ended.unreadable = Some("in other words".into());
    assert!(matches!(plan(&ended).changes.as_slice(), [Change::DeletePod { .. }]), "what still runs is stopped");
    assert_eq!(plan(&ended).status, None);
    assert_eq!(ended.run.status.as_ref().unwrap().completion_time, completed);
    seen.run.metadata.deletion_timestamp = Some(ago(0));
    assert!(matches!(plan(&seen).changes.as_slice(), [Change::DeletePod { .. }]));
    seen.pod = None;
    assert_eq!(plan(&seen).changes, [Change::RemoveFinalizer]);
}

#[test]
fn an_ended_run_keeps_its_pod_then_loses_pod_finalizer_and_itself() {
    let mut seen = with_pod(SPEC, "{phase: Succeeded}");
    let status = seen.run.status.as_mut().unwrap();
    status.completion_time = Some(ago(10));
    seen.run.spec.pod_ttl_after_finished = "1m".into();
    seen.run.spec.ttl_after_finished = Some("2m".into());
    assert_eq!(plan(&seen), Plan::wake(Some(Duration::from_secs(50))));
    seen.now += SignedDuration::from_secs(60);
    assert!(matches!(plan(&seen).changes.as_slice(), [Change::DeletePod { .. }]));
    seen.pod = None;
    assert_eq!(plan(&seen).changes, [Change::RemoveFinalizer]);
    seen.run.metadata.finalizers = None;
    seen.now += SignedDuration::from_secs(60);
    assert_eq!(plan(&seen).changes, [Change::DeleteRun]);
}

#[test]
fn deletion_removes_the_pod_then_the_finalizer() {
    let mut seen = with_pod(SPEC, BOX_RUNS);
    seen.run.metadata.deletion_timestamp = Some(ago(0));
    assert!(matches!(plan(&seen).changes.as_slice(), [Change::DeletePod { .. }]));
    seen.pod = None;
    assert_eq!(plan(&seen).changes, [Change::RemoveFinalizer]);
}

#[test]
fn a_service_that_ends_fails_the_run_unless_it_may() {
    for (on_exit, ended) in [("FailRun", true), ("Ignore", false)] {
        let spec = SPEC.replace("{box", &format!("{{services: [{{name: db, image: 'p:1', onExit: {on_exit}}}], box"));
        let status = BOX_RUNS.replacen(
            "{phase: Running,",
            "{phase: Running, initContainerStatuses: [{name: svc-db, image: p, imageID: '', ready: true, restartCount: 1, state: {running: {}},
               lastState: {terminated: {exitCode: 3}}}],",
            1,
        );
        let seen = with_pod(&spec, &status);
        assert_eq!(seen.run.status.as_ref().unwrap().completion_time.is_some(), ended);
        if ended {
            assert_eq!(
                reason_of(&seen).2,
                "service db ended with exit code 3; its output: windlass logs r --service db"
            );
        }
    }
}

#[test]
fn a_service_that_dies_ends_all_steps_and_its_output_is_kept() {
    let spec = SPEC.replace("{box", "{services: [{name: db, image: 'p:1'}], box");
    let mut seen = with_pod(&spec, BOX_RUNS);
    seen.run.status.as_mut().unwrap().steps = vec![step("one", StepPhase::Succeeded), step("two", StepPhase::Running)];
    let died = "{name: svc-db, image: p, imageID: '', ready: true, restartCount: 1, state: {running: {}}}";
    let status = seen.pod.as_mut().unwrap().status.as_mut().unwrap();
    status.init_container_statuses = Some(vec![serde_yaml::from_str(died).unwrap()]);
    let mut seen = settle(seen);
    let status = seen.run.status.as_ref().unwrap();
    let ends: Vec<_> = status.steps.iter().map(|s| (s.phase, s.reason.as_deref(), s.finished_at.is_some())).collect();
    let failed = (StepPhase::Failed, Some("ServiceFailed"), true);
    let skipped = (StepPhase::Skipped, Some("EarlierStepFailed"), false);
    assert_eq!(ends, [(StepPhase::Succeeded, None, false), failed, skipped]);

    let stop = Change::StopPod { name: "r-1".into(), uid: "p-1".into(), time_s: 1 };
    assert_eq!(plan(&seen).changes, [stop], "what still runs is stopped, and its output kept");
    let mut stuck = seen.clone();
    stuck.now += SignedDuration::from_secs(60);
    assert!(matches!(plan(&stuck).changes.as_slice(), [Change::DeletePod { .. }]), "its node does not end it");
    let pod = seen.pod.as_mut().unwrap();
    pod.spec.as_mut().unwrap().active_deadline_seconds = Some(1);
    assert_eq!(plan(&seen), Plan::wake(Some(Duration::from_secs(60))), "asked once");
    let ended = "{phase: Failed, reason: DeadlineExceeded}";
    seen.pod.as_mut().unwrap().status = Some(serde_yaml::from_str(ended).unwrap());
    assert_eq!(plan(&seen), Plan::wake(Some(Duration::from_secs(3600))), "kept for podTTLAfterFinished");
    assert_eq!(reason_of(&seen).1, "ServiceFailed");
    seen.now += SignedDuration::from_secs(3600);
    assert!(matches!(plan(&seen).changes.as_slice(), [Change::DeletePod { .. }]));
}

#[test]
fn progress_alone_is_written_seldom() {
    let mut seen = with_pod(SPEC, BOX_RUNS);
    seen.run.status.as_mut().unwrap().steps = vec![step("one", StepPhase::Running)];
    seen = settle(seen);
    seen.run.status.as_mut().unwrap().steps.push(step("two", StepPhase::Running));
    seen.written = Some(seen.now);
    assert_eq!(plan(&seen), Plan::wake(Some(Duration::from_secs(2))));
}

const BREAKS: &str = "{box: {image: 'a:1'}, steps: [{name: one, script: x}, {name: push, dockerPush: {repository: h.io/a}}]}, breakpoint: {atFailure: true}";

#[rstest]
#[case::a_shell(
    step_that_waits("one", "attach with: windlass shell r"),
    SPEC,
    Some("step one waits; attach with: windlass shell r")
)]
#[case::the_agents_wait(StepStatus { reason: None, ..step_that_waits("one", "pushing") }, SPEC, None)]
#[case::a_failed_push(
    step("push", StepPhase::Failed),
    BREAKS,
    Some("step push failed and waits; attach with: windlass shell r; go on with: windlass continue r")
)]
#[case::a_failed_script(step("one", StepPhase::Failed), BREAKS, None)]
#[case::a_failed_push_without_a_breakpoint(step("push", StepPhase::Failed), PUSH, None)]
fn a_run_that_waits_for_a_person_says_so(#[case] waits: StepStatus, #[case] spec: &str, #[case] message: Option<&str>) {
    let mut seen = with_pod(spec, BOX_RUNS);
    seen.run.status.as_mut().unwrap().steps = vec![waits];
    let seen = settle(seen);
    let (status, reason, said) = reason_of(&seen);
    let phase = seen.run.status.as_ref().unwrap().phase.clone().unwrap();
    match message {
        Some(message) => {
            assert_eq!((status.as_str(), reason.as_str(), said.as_str()), ("Unknown", "WaitingForUser", message));
            assert_eq!(phase, "Waiting");
        }
        None => assert_eq!((reason.as_str(), phase.as_str()), ("Running", "Running")),
    }
}

fn step_that_waits(name: &str, message: &str) -> StepStatus {
    let reason = Some(reason::ATTACH.to_owned());
    StepStatus { reason, message: Some(message.to_owned()), ..step(name, StepPhase::Waiting) }
}

#[test]
fn a_pipeline_with_a_shell_needs_no_agent() {
    let mut seen = with_pod("{box: {image: 'a:1'}, steps: [{name: look, shell: {}}]}", BOX_RUNS);
    seen.agent_seen = None;
    seen.now += SignedDuration::from_secs(60);
    assert_eq!(reason_of(&settle(seen)).1, "Running");
}
