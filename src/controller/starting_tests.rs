use super::*;

/// A run whose pod is on its node; `now` is 12:00:00.
fn starting(spec: &str, containers: &str) -> Observed {
    with_pod(
        spec,
        &format!(
            "{{phase: Pending, startTime: '2026-11-21T11:50:00Z', conditions: [{{type: PodScheduled, status: 'True'}}], {containers}}}"
        ),
    )
}

/// A container of the pod.
fn container(name: &str, state: &str) -> String {
    format!("{{name: {name}, image: '{name}:1', imageID: '', ready: false, restartCount: 0, {state}}}")
}

const CREATING: &str = "state: {waiting: {reason: ContainerCreating}}";
const FAILS: &str = "state: {waiting: {reason: ErrImagePull, message: 'i/o timeout'}}";
const DENIED: &str = "state: {waiting: {reason: ImagePullBackOff, message: 'pull access denied'}}";

/// The kubelet sorts them by name.
fn pair(prepare: &str, box_: &str) -> String {
    format!("containerStatuses: [{}, {}]", container("box", box_), container("prepare", prepare))
}

#[rstest]
#[case::world(FAILS, 120)]
#[case::sure(DENIED, 10)]
fn a_failing_pull_has_its_grace_from_the_first_failure_on(#[case] state: &str, #[case] grace_s: i64) {
    // The pod is ten minutes old: the pull took so long.
    let failing = starting(SPEC, &pair("state: {running: {}}", state));
    let (status, reason, message) = reason_of(&failing);
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "ImagePullFailed"));
    assert!(message.starts_with("image box:1 cannot be pulled: "), "{message}");
    assert_eq!(plan(&failing).wake, Some(Duration::from_secs(grace_s.cast_unsigned())));
    let mut later = failing.clone();
    later.now += SignedDuration::from_secs(grace_s - 1);
    assert_eq!(reason_of(&settle(later.clone())).0, "Unknown");
    later.now += SignedDuration::from_secs(1);
    let ended = settle(later);
    assert_eq!((reason_of(&ended).0.as_str(), reason_of(&ended).1.as_str()), ("False", "ImagePullFailed"));
    // One that mends begins anew.
    let good = starting(SPEC, &pair("state: {running: {}}", CREATING));
    let mut mended = failing;
    mended.now += SignedDuration::from_secs(5);
    let bad = std::mem::replace(&mut mended.pod, good.pod);
    let mut again = settle(mended);
    assert_eq!(reason_of(&again).1, "PullingImages");
    again.now += SignedDuration::from_secs(300);
    again.pod = bad;
    assert_eq!(reason_of(&settle(again)).0, "Unknown");
}

#[rstest]
#[case::engine(
    "CreateContainerError",
    "context deadline exceeded",
    "image box:1 cannot be started: context deadline exceeded"
)]
#[case::name_in_use("RunContainerError", "name is reserved", "image box:1 cannot be started: name is reserved")]
#[case::cache(
    "CreateContainerConfigError",
    "failed to sync secret cache: timed out waiting for the condition",
    "container box: failed to sync secret cache: timed out waiting for the condition"
)]
fn what_the_kubelet_may_mend_has_a_minute(#[case] why: &str, #[case] words: &str, #[case] message: &str) {
    let fails = format!("state: {{waiting: {{reason: {why}, message: '{words}'}}}}");
    let mut seen = starting(SPEC, &pair("state: {running: {}}", &fails));
    assert_eq!(reason_of(&seen), ("Unknown".into(), "BoxFailedToStart".into(), message.into()));
    assert_eq!(plan(&seen).wake, Some(Duration::from_secs(60)));
    seen.now += SignedDuration::from_secs(59);
    seen = settle(seen);
    assert_eq!(reason_of(&seen).0, "Unknown");
    let mut mended = seen.clone();
    mended.pod = starting(SPEC, &pair("state: {running: {}}", CREATING)).pod;
    assert_eq!(reason_of(&settle(mended)).1, "PullingImages");
    seen.now += SignedDuration::from_secs(1);
    assert_eq!(reason_of(&settle(seen)), ("False".into(), "BoxFailedToStart".into(), message.into()));
}

#[rstest]
#[case("CreateContainerError", "unable to find user git: no matching entries in passwd file", "BoxFailedToStart")]
#[case("RunContainerError", "exec /srv: no such file or directory", "BoxFailedToStart")]
#[case("RunContainerError", "exec format error", "BoxFailedToStart")]
#[case("CreateContainerConfigError", "container has runAsNonRoot and image will run as root", "BoxFailedToStart")]
#[case("CreateContainerConfigError", "couldn''t find key a in Secret n/s", "SecretKeyNotFound")]
#[case("CreateContainerConfigError", "secret \"s\" not found", "SecretNotFound")]
#[case("CreateContainerConfigError", "configmap \"c\" not found", "ConfigMapNotFound")]
fn what_only_a_person_can_mend_ends_the_run_at_once(#[case] why: &str, #[case] words: &str, #[case] reason: &str) {
    let fails = format!("state: {{waiting: {{reason: {why}, message: '{words}'}}}}");
    let seen = starting(SPEC, &pair("state: {running: {}}", &fails));
    assert_eq!((reason_of(&seen).0.as_str(), reason_of(&seen).1.as_str()), ("False", reason));
}

#[test]
fn a_box_without_a_shell_is_told_what_it_is_for() {
    let fails = "state: {waiting: {reason: RunContainerError, message: 'exec: \"/bin/sh\": stat /bin/sh: no such file or directory'}}";
    let push = "{box: {image: 'a:1'}, steps: [{name: push, dockerPush: {repository: h.io/a}}]}";
    let seen = starting(push, &pair("state: {running: {}}", fails));
    let message =
        "image box:1 has no /bin/sh; every box needs one, as its runner is started by it: choose an image with a shell";
    assert_eq!(reason_of(&seen), ("False".into(), "NoShell".into(), message.into()));
}

#[rstest]
#[case::no_secret("box: {", "if it is private, name a Secret in box.imagePullSecrets")]
#[case::a_secret(
    "box: {imagePullSecrets: [{name: a}, {name: b}], ",
    "the login is looked for in Secret a, b (box.imagePullSecrets), which must be in namespace n"
)]
fn a_pull_without_a_login_says_where_one_would_be(#[case] spec: &str, #[case] hint: &str) {
    let said = "Back-off pulling image \"r.io/a\": ErrImagePull: Error: no basic auth credentials";
    let waits = format!("state: {{waiting: {{reason: ImagePullBackOff, message: '{said}'}}}}");
    let failing = starting(&SPEC.replacen("box: {", spec, 1), &pair("state: {running: {}}", &waits));
    let expected = format!("image box:1 cannot be pulled: Error: no basic auth credentials; {hint}");
    assert_eq!(reason_of(&failing).2, expected);
}

#[rstest]
#[case::no_sandbox("False", 60, "PodPending", "node node sets up pod r-1")]
#[case::images_are_there("True", 1, "PodPending", "node node sets up pod r-1")]
#[case::takes_longer("True", 2, "PullingImages", "pulling box:1")]
fn a_pull_is_said_when_the_start_takes_longer_than_without(
    #[case] sandbox: &str,
    #[case] age_s: i64,
    #[case] reason: &str,
    #[case] message: &str,
) {
    let mut seen = starting(SPEC, &pair("state: {running: {}}", CREATING));
    let conditions = seen.pod.as_mut().unwrap().status.as_mut().unwrap().conditions.as_mut().unwrap();
    conditions.push(k8s_openapi::api::core::v1::PodCondition {
        type_: "PodReadyToStartContainers".into(),
        status: sandbox.into(),
        last_transition_time: Some(ago(age_s)),
        ..Default::default()
    });
    let seen = settle(seen);
    assert_eq!(reason_of(&seen), ("Unknown".into(), reason.into(), message.into()));
    if age_s == 1 {
        assert_eq!(plan(&seen).wake, Some(Duration::from_secs(1)));
    }
}

#[test]
fn the_image_that_is_pulled_is_the_one_whose_turn_it_is() {
    let spec = SPEC.replace("{box", "{services: [{name: db, image: 'p:1'}, {name: amqp, image: 'q:1'}], box");
    let both = |amqp: &str, db: &str| {
        let services = [container("svc-amqp", amqp), container("svc-db", db)].join(", ");
        format!("initContainerStatuses: [{services}], {}", pair(CREATING, CREATING))
    };
    let init =
        |state: &str| format!("initContainerStatuses: [{}], {}", container("svc-db", state), pair(CREATING, CREATING));
    for (containers, image) in [
        (both(CREATING, CREATING), "svc-db:1"),
        (both(CREATING, "started: true, state: {running: {}}"), "svc-amqp:1"),
        (init(CREATING), "svc-db:1"),
        (init("started: true, state: {running: {}}"), "prepare:1"),
        (pair("state: {running: {}}", CREATING), "box:1"),
        (pair(CREATING, "state: {running: {}}"), "prepare:1"),
    ] {
        assert_eq!(reason_of(&starting(&spec, &containers)).2, format!("pulling {image}"));
    }
    let slow = starting(&spec, &init("started: false, state: {running: {}}"));
    assert_eq!(
        (reason_of(&slow).1.as_str(), reason_of(&slow).2.as_str()),
        ("WaitingForServices", "waiting for db (command)")
    );
}

#[rstest]
#[case::nothing_takes_time("", "Running", "the steps run")]
#[case::inline("source: {inline: {files: [{path: a, content: b}]}},", "Running", "the steps run")]
#[case::git("source: {git: {url: 'https://h/a'}},", "FetchingSource", "fetching https://h/a")]
#[case::checked_by_the_kubelet(
    "services: [{name: db, image: p, readiness: {exec: {command: [x]}}}],",
    "Running",
    "the steps run"
)]
#[case::services(
    "services: [{name: db, image: p, readiness: {tcp: 5432}}, {name: web, image: w, readiness: {http: {port: 80}}}],",
    "WaitingForServices",
    "waiting for db (tcp 5432), web (http 80/)"
)]
#[case::both(
    "source: {git: {url: 'https://h/a'}}, services: [{name: db, image: p, readiness: {tcp: 5432}}],",
    "WaitingForServices",
    "fetching https://h/a and waiting for db (tcp 5432)"
)]
fn what_prepare_is_at(#[case] fields: &str, #[case] reason: &str, #[case] message: &str) {
    let spec = SPEC.replace("{box", &format!("{{{fields} box"));
    let running = "state: {running: {}}";
    let seen = starting(&spec, &pair(running, running));
    assert_eq!((reason_of(&seen).1.as_str(), reason_of(&seen).2.as_str()), (reason, message));
    let done = starting(&spec, &pair("state: {terminated: {exitCode: 0}}", running));
    assert_eq!(reason_of(&done).1, "Running");
}
