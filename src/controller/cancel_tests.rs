use super::*;

#[rstest]
#[case(Cancel::Graceful, true, "Cancelling")]
#[case(Cancel::Graceful, false, "Cancelled")]
#[case(Cancel::Immediate, true, "Cancelled")]
fn cancel(#[case] how: Cancel, #[case] agent: bool, #[case] reason: &str) {
    let mut seen = with_pod(SPEC, BOX_RUNS);
    seen.run.status.as_mut().unwrap().steps = vec![step("one", StepPhase::Running), step("two", StepPhase::Pending)];
    seen.run.spec.cancel = Some(how);
    if !agent {
        seen.agent_seen = None;
    }
    let seen = settle(seen);
    assert_eq!(reason_of(&seen).1, reason);
    let deletes = matches!(plan(&seen).changes.as_slice(), [Change::DeletePod { .. }]);
    assert_eq!(deletes, reason == "Cancelled");
}

/// Its first step may run, and the agent has not said so yet.
#[rstest]
#[case::the_box_has_begun(BOX_RUNS.to_owned(), "Cancelling")]
#[case::prepare_is_at_work(BOX_RUNS.replace("terminated: {exitCode: 0}", "running: {}"), "Cancelled")]
#[case::the_box_is_not_there(BOX_RUNS.replace("{running: {}}", "{waiting: {reason: ContainerCreating}}"), "Cancelled")]
fn a_box_that_was_let_begin_hears_of_the_cancel(#[case] pod: String, #[case] reason: &str) {
    let mut seen = with_pod(SPEC, &pod);
    seen.run.spec.cancel = Some(Cancel::Graceful);
    let ends = settle(seen);
    assert_eq!(reason_of(&ends).1, reason);
    assert!(!reason_of(&ends).2.ends_with(' '));
}

#[rstest]
#[case::scripts(SPEC, BOX_RUNS, None, false)]
#[case::a_push(PUSH, BOX_RUNS, None, true)]
#[case::a_cancel(SPEC, BOX_RUNS, Some(Cancel::Graceful), true)]
#[case::an_ended_box(
    SPEC,
    "{phase: Running, containerStatuses: [{name: box, image: a, imageID: '', ready: false,
    restartCount: 0, state: {terminated: {exitCode: 0, finishedAt: '2026-11-21T12:00:00Z', message: MESSAGE}}}]}",
    None,
    true
)]
fn the_agents_lease_is_read_where_it_matters(
    #[case] spec: &str,
    #[case] pod: &str,
    #[case] cancel: Option<Cancel>,
    #[case] asks: bool,
) {
    let summary =
        crate::wire::Summary { passed: false, reason: None, failed: None, message: None, steps: vec![None; 3] };
    let mut seen = with_pod(spec, &pod.replace("MESSAGE", &format!("'{}'", summary.encode())));
    let status = seen.run.status.as_mut().unwrap();
    (status.completion_time, status.steps) = (None, vec![step("one", StepPhase::Running)]);
    seen.run.spec.cancel = cancel;
    seen.now += SignedDuration::from_secs(if asks && cancel.is_none() && spec == PUSH { 40 } else { 5 });
    seen.agent_seen = Some(seen.now);
    let mut alone = seen.clone();
    alone.agent_seen = None;
    assert_eq!(judge::asks_for_agent(&seen.run, seen.pod.as_ref()), asks);
    assert_eq!(plan(&seen) != plan(&alone), asks);
}

#[rstest]
#[case::heard(0, 5, "Cancelling")]
#[case::lease_is_older_than_the_cancel(12, 5, "Cancelling")]
#[case::renewed_since(5, 60, "Cancelling")]
#[case::silent(12, 10, "Cancelled")]
#[case::silent_for_long(30, 0, "Cancelled")]
fn a_graceful_cancel_is_not_left_to_a_silent_agent(#[case] silent_s: i64, #[case] since_s: i64, #[case] reason: &str) {
    let mut seen = with_pod(SPEC, BOX_RUNS);
    seen.run.status.as_mut().unwrap().steps = vec![step("one", StepPhase::Running), step("two", StepPhase::Pending)];
    seen.run.spec.cancel = Some(Cancel::Graceful);
    let mut seen = settle(seen);
    assert_eq!(reason_of(&seen).1, "Cancelling");
    seen.now += SignedDuration::from_secs(since_s);
    seen.agent_seen = Some(seen.now - SignedDuration::from_secs(silent_s));
    assert_eq!(reason_of(&settle(seen)).1, reason);
}

/// The agent's silence counts until the runner has the cancel; then the after-steps need nobody.
#[rstest]
#[case::the_step_was_stopped(&[("one", StepPhase::Cancelled), ("two", StepPhase::Cancelled)], "Cancelling")]
#[case::an_after_step_runs(&[("one", StepPhase::Succeeded), ("tell", StepPhase::Running)], "Cancelling")]
#[case::another_step_runs(&[("one", StepPhase::Succeeded), ("two", StepPhase::Running)], "Cancelled")]
fn a_cancel_that_was_heard_needs_no_agent(#[case] steps: &[(&str, StepPhase)], #[case] reason: &str) {
    let mut seen = with_pod(SPEC, BOX_RUNS);
    seen.run.status.as_mut().unwrap().steps = vec![step("one", StepPhase::Running)];
    seen.run.spec.cancel = Some(Cancel::Graceful);
    let mut seen = settle(seen);
    seen.run.status.as_mut().unwrap().steps = steps.iter().map(|(name, phase)| step(name, *phase)).collect();
    seen.now += SignedDuration::from_secs(60);
    assert_eq!(reason_of(&settle(seen.clone())).1, reason, "silent for a minute");
    seen.agent_seen = None;
    assert_eq!(reason_of(&settle(seen)).1, reason, "gone");
}

#[test]
fn an_immediate_cancel_in_mid_push_ends_once_the_agent_has_said_what_moved() {
    let mut seen = with_pod(PUSH, BOX_RUNS);
    seen.run.status.as_mut().unwrap().steps = vec![step("one", StepPhase::Succeeded), step("push", StepPhase::Running)];
    seen.run.spec.cancel = Some(Cancel::Immediate);
    assert!(matches!(plan(&seen).changes.as_slice(), [Change::DeletePod { .. }]), "nothing else keeps the pod");
    seen.pod.as_mut().unwrap().metadata.deletion_timestamp = Some(ago(-15));
    let seen = settle(seen);
    assert_eq!(reason_of(&seen), ("Unknown".into(), "Cancelling".into(), "stopping step push".into()));
    assert!(plan(&seen).changes.is_empty());

    // The box ends by TERM; that is no lost pod.
    let mut ended = seen.clone();
    ended.pod.as_mut().unwrap().status = Some(serde_yaml::from_str(BOX_ENDED).unwrap());
    assert_eq!(reason_of(&settle(ended)).1, "Cancelling");

    let mut gone = seen.clone();
    gone.pod = None;
    let mut told = seen.clone();
    told.run.status.as_mut().unwrap().steps[1].phase = StepPhase::Cancelled;
    let mut away = seen.clone();
    away.agent_seen = None;
    let mut late = seen;
    late.now += SignedDuration::from_secs(16);
    late.agent_seen = Some(late.now);
    for (name, seen) in [("gone", gone), ("told", told), ("away", away), ("late", late)] {
        let (status, reason, message) = reason_of(&settle(seen));
        assert_eq!((status.as_str(), reason.as_str()), ("False", "Cancelled"), "{name}");
        assert_eq!(message, "cancelled (Immediate) at step push", "{name}");
    }
}

#[test]
fn cancel_before_the_pod_makes_no_pod() {
    let mut seen = frozen(SPEC);
    seen.run.spec.cancel = Some(Cancel::Graceful);
    let seen = settle(seen);
    assert_eq!(reason_of(&seen).1, "Cancelled");
    assert!(plan(&seen).changes.iter().all(|c| !matches!(c, Change::CreatePod(_))));
}
