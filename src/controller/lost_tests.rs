use super::*;

const OUT_OF_CPU: &str =
    "{phase: Failed, reason: OutOfcpu, message: 'Pod was rejected: Node didn''t have enough resource: cpu'}";
const ADMISSION: &str = "{phase: Failed, reason: UnexpectedAdmissionError, message: 'Allocate failed'}";
const COLLECTED: &str = "{phase: Failed, conditions: [{type: DisruptionTarget, status: 'True', reason: DeletionByPodGC, message: 'PodGC: node no longer exists'}]}";
const PRESSED: &str = "{phase: Failed, reason: Evicted, message: 'low on memory'}";

#[rstest]
#[case::no_cpu(
    OUT_OF_CPU,
    "PodLost",
    "pod r-1 failed with OutOfcpu: Pod was rejected: Node didn't have enough resource: cpu"
)]
#[case::no_device(ADMISSION, "PodLost", "pod r-1 failed with UnexpectedAdmissionError: Allocate failed")]
#[case::no_words("{phase: Failed}", "PodLost", "pod r-1 failed: no reason was given")]
#[case::its_node_is_gone(COLLECTED, "PodLost", "pod r-1 failed with DeletionByPodGC: PodGC: node no longer exists")]
#[case::evicted(PRESSED, "Evicted", "the pod was evicted: low on memory")]
fn a_pod_that_failed_before_its_box_ran_is_lost(#[case] status: &str, #[case] reason: &str, #[case] message: &str) {
    let lost = with_pod(SPEC, status);
    assert_eq!(reason_of(&lost), ("False".into(), reason.into(), message.into()));
    assert!(lost.run.status.as_ref().unwrap().steps.iter().all(|step| step.phase == StepPhase::Skipped));
    let mut again = with_pod(&SPEC.replace("{box", "{retries: 1, box"), "{phase: Pending}");
    again.pod.as_mut().unwrap().status = lost.pod.unwrap().status;
    assert_eq!(plan(&again).status.unwrap().attempt, Some(2), "it is retried");
}

#[test]
fn a_pod_that_failed_for_being_deleted_was_deleted() {
    let mut seen = with_pod(SPEC, BOX_RUNS);
    seen.pod.as_mut().unwrap().metadata.deletion_timestamp = Some(ago(-15));
    seen.pod.as_mut().unwrap().status.as_mut().unwrap().phase = Some("Failed".into());
    seen.run.status.as_mut().unwrap().steps = vec![step("one", StepPhase::Running)];
    assert_eq!(reason_of(&settle(seen)).2, "the pod was deleted at step one");
}

/// `prepare` ended with this code and message, in a pod with these other fields of its status.
fn prepare_ended(code: i32, end: &str, pod: &str) -> String {
    format!(
        "{{{pod} containerStatuses: [
           {{name: box, image: 'a:1', imageID: '', ready: true, restartCount: 0, state: {{running: {{}}}}}},
           {{name: prepare, image: w, imageID: '', ready: false, restartCount: 0, state: {{terminated: {{exitCode: {code}, {end}}}}}}}]}}"
    )
}

#[rstest]
#[case::drained(143, "", "phase: Running,", true, "PodLost", "the pod was deleted")]
#[case::evicted(
    137,
    "",
    "phase: Failed, reason: Evicted, message: low on disk,",
    false,
    "Evicted",
    "the pod was evicted: low on disk"
)]
#[case::shut_down(
    143,
    "",
    "phase: Failed, reason: Terminated, message: node shutdown,",
    false,
    "NodeLost",
    "the node was lost: node shutdown"
)]
#[case::forgotten(
    137,
    "reason: ContainerStatusUnknown, message: The container could not be located",
    "phase: Failed,",
    false,
    "NodeLost",
    "the node lost a container of the pod: The container could not be located"
)]
#[case::its_own_words(
    1,
    "message: '{\"reason\":\"SourceAuthFailed\",\"message\":\"m\"}'",
    "phase: Running,",
    true,
    "SourceAuthFailed",
    "m"
)]
#[case::its_own_fault(
    101,
    "message: panicked",
    "phase: Running,",
    false,
    "SourceFailed",
    "the container prepare ended with exit code 101: panicked"
)]
fn what_ends_prepare_from_outside_is_no_fault_of_the_source(
    #[case] code: i32,
    #[case] end: &str,
    #[case] pod: &str,
    #[case] deleted: bool,
    #[case] reason: &str,
    #[case] message: &str,
) {
    let running = "state: {running: {}}";
    let status = prepare_ended(code, end, pod);
    let before = status.replacen(&format!("state: {{terminated: {{exitCode: {code}, {end}}}}}"), running, 1);
    let before = before.replacen(pod, "phase: Running,", 1);
    let mut seen = with_pod(SPEC, &before);
    assert_eq!(reason_of(&seen).0, "Unknown");
    let pod = seen.pod.as_mut().unwrap();
    pod.status = Some(serde_yaml::from_str(&status).unwrap());
    pod.metadata.deletion_timestamp = deleted.then(|| ago(-15));
    assert_eq!(reason_of(&settle(seen)), ("False".into(), reason.into(), message.into()));
}

#[test]
fn a_box_that_its_node_forgot_is_no_image_that_cannot_be_started() {
    let mut seen = with_pod(SPEC, BOX_RUNS);
    let ended = BOX_ENDED.replace(
        "exitCode: 143, startedAt: '2026-11-21T11:59:00Z'",
        "exitCode: 137, reason: ContainerStatusUnknown, message: The container could not be located",
    );
    assert!(ended.contains("ContainerStatusUnknown"));
    seen.pod.as_mut().unwrap().status = Some(serde_yaml::from_str(&ended).unwrap());
    seen.run.status.as_mut().unwrap().steps = vec![step("one", StepPhase::Succeeded), step("two", StepPhase::Running)];
    let message = "the node lost a container of the pod at step two: The container could not be located";
    assert_eq!(reason_of(&settle(seen.clone())), ("False".into(), "NodeLost".into(), message.into()));
    seen.pod.as_mut().unwrap().metadata.deletion_timestamp = Some(ago(-15));
    assert_eq!(reason_of(&settle(seen)).2, "the pod was deleted at step two");
}

#[test]
fn a_server_that_fails_to_make_the_pod_is_shown_and_waited_for_as_long_as_the_run_may_take() {
    let failed = |seen: &mut Observed| seen.refused = Some(NoPod::Failed("failed calling webhook".into()));
    let mut seen = frozen(&SPEC.replace("{box", "{timeout: 2m, box"));
    failed(&mut seen);
    assert_eq!(seen.no_pod().as_deref(), Some("failed calling webhook"));
    seen = settle(seen);
    let shown = ("Unknown".into(), "PodPending".into(), "the API server makes no pod: failed calling webhook".into());
    assert_eq!(reason_of(&seen), shown);
    assert_eq!(seen.run.status.as_ref().unwrap().phase.as_deref(), Some("Starting"));
    assert!(matches!(plan(&seen).changes.as_slice(), [Change::CreatePod(_)]), "and asked again");
    seen.now += SignedDuration::from_secs(119);
    failed(&mut seen);
    assert!(plan(&seen).is_empty());
    let mut cancelled = seen.clone();
    cancelled.run.spec.cancel = Some(Cancel::Graceful);
    assert_eq!(reason_of(&settle(cancelled)).1, "Cancelled");
    let mut made = seen.clone();
    made.pod = with_pod(SPEC, BOX_RUNS).pod;
    assert_eq!(made.no_pod(), None, "it was made, though the answer said otherwise");
    assert_eq!(reason_of(&settle(made)).1, "Running");
    seen.now += SignedDuration::from_secs(1);
    let ended = settle(seen);
    let message = "the API server made no pod for 2m: failed calling webhook";
    assert_eq!(reason_of(&ended), ("False".into(), "PodForbidden".into(), message.into()));
}
