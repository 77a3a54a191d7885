use super::*;
use crate::agent::fixture::{POD_UID, run, run_of};
use rstest::rstest;

const OURS: &str = "sha256:aa";
const OTHER: &str = "sha256:bb";

fn tags(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[rstest]
#[case::nothing_moved(&[], &[Some(OTHER), None], false, Resume::StartOver)]
#[case::the_same_image_was_pushed_before(&[], &[None, None], true, Resume::StartOver)]
#[case::first_moved(&[], &[Some(OURS), Some(OTHER)], true, Resume::Finish(tags(&["b"])))]
#[case::all_moved(&[], &[Some(OURS), Some(OURS)], true, Resume::Finish(tags(&[])))]
#[case::first_moved_on_by_another(&[], &[Some(OTHER), Some(OURS)], true, Resume::Finish(tags(&[])))]
#[case::recorded_and_moved_on_by_another(&["a"], &[Some(OTHER), None], true, Resume::Finish(tags(&["b"])))]
#[case::all_recorded(&["a", "b"], &[Some(OTHER), Some(OTHER)], false, Resume::Finish(tags(&[])))]
fn what_is_left(#[case] moved: &[&str], #[case] at: &[Option<&str>], #[case] present: bool, #[case] expected: Resume) {
    let image = ImageStatus { tags: tags(moved), digest: OURS.into(), repository: "r.io/a".into(), size: None };
    let at: Vec<_> = at.iter().map(|at| at.map(str::to_owned)).collect();
    assert_eq!(decide(&tags(&["a", "b"]), &image, &at, present), expected);
}

#[rstest]
#[case::moved_by_us_and_then_by_another(&[], &[Some(OTHER), Some(OTHER)], true)]
#[case::the_manifest_is_gone(&["a"], &[Some(OTHER), None], false)]
fn what_cannot_be_mended(#[case] moved: &[&str], #[case] at: &[Option<&str>], #[case] present: bool) {
    let image = ImageStatus { tags: tags(moved), digest: OURS.into(), repository: "r.io/a".into(), size: None };
    let at: Vec<_> = at.iter().map(|at| at.map(str::to_owned)).collect();
    let Resume::Interrupted(message) = decide(&tags(&["a", "b"]), &image, &at, present) else { panic!("not told") };
    assert!(message.contains(OURS), "{message}");
}

fn prepared(request: &str) -> Result<Push, PushError> {
    prepared_for(run(), request, &[("secret-0/api", "a secret value")])
}

/// A push that finds these keys of Secrets.
fn prepared_for(run: Run, request: &str, keys: &[(&str, &str)]) -> Result<Push, PushError> {
    prepared_on(Shelf::None, run, request, keys)
}

/// The same where containers can be stored.
fn prepared_on(shelf: Shelf, run: Run, request: &str, keys: &[(&str, &str)]) -> Result<Push, PushError> {
    let kubelet = tempfile::tempdir().unwrap();
    let (volumes, job) = placed(kubelet.path(), shelf, run, request, keys);
    prepare(&volumes, &job)
}

/// The files of such a push below the kubelet's directory.
fn placed(kubelet: &std::path::Path, shelf: Shelf, run: Run, request: &str, keys: &[(&str, &str)]) -> (Volumes, Job) {
    let volumes = Volumes::new(kubelet, POD_UID);
    std::fs::create_dir_all(volumes.out_dir()).unwrap();
    if !request.is_empty() {
        std::fs::write(volumes.out_dir().join("request-1.json"), request).unwrap();
    }
    std::fs::create_dir_all(volumes.in_dir()).unwrap();
    let plan = serde_json::to_vec(&wire::Plan::default()).unwrap();
    std::fs::write(volumes.in_dir().join(wire::PLAN_FILE), plan).unwrap();
    let secrets = kubelet.join("pods").join(POD_UID).join("volumes/kubernetes.io~secret");
    for (path, value) in [("push-0/username", "demo"), ("push-0/password", "pw")].iter().chain(keys) {
        std::fs::create_dir_all(secrets.join(path).parent().unwrap()).unwrap();
        std::fs::write(secrets.join(path), value).unwrap();
    }
    let job = Job { run: Arc::new(run), shelf: Arc::new(shelf), step: 1, began_ms: 1000, recorded: None };
    (volumes, job)
}

const REQUEST: &str = r#"{"version":1,"step":1,"run_env":{},"env":{"VERSION":"1.4"}}"#;

/// The variable's Secret has lost its key since the run began.
#[rstest]
#[case(SecretsInImage::Deny, Err(reason::SECRETS_NOT_SEARCHED))]
#[case(SecretsInImage::Warn, Ok(1))]
#[case(SecretsInImage::Allow, Ok(0))]
fn a_value_that_cannot_be_looked_for(#[case] policy: SecretsInImage, #[case] expected: Result<usize, &str>) {
    let mut run = run();
    run.spec.steps[1].docker_push.as_mut().unwrap().secrets_in_image = policy;
    let push = prepared_for(run, REQUEST, &[]);
    let said = match &push {
        Ok(push) => push.warnings.join("; "),
        Err(error) => error.message.clone(),
    };
    let what = "variable API_KEY (key api of Secret keys) cannot be looked for: it is gone";
    assert_eq!(said.contains(what), policy != SecretsInImage::Allow, "{said}");
    assert_eq!(said.ends_with("set secretsInImage to Warn or Allow"), policy == SecretsInImage::Deny, "{said}");
    assert_eq!(push.map(|push| push.warnings.len()).map_err(|error| error.reason), expected);
}

#[test]
fn a_message_names_a_few_of_many_values() {
    let env: Vec<_> = (0..8)
        .map(|n| serde_json::json!({"name": format!("V{n}"), "secretKeyRef": {"name": "keys", "key": n.to_string()}}))
        .collect();
    let mut run = run();
    run.spec.env = serde_json::from_value(env.into()).unwrap();
    let Err(error) = prepared_for(run, REQUEST, &[]) else { panic!("it is pushed") };
    assert!(error.message.contains("variable V4 ") && error.message.contains("; 3 more; to push"), "{}", error.message);
}

#[test]
fn a_push_is_made_of_the_spec_and_the_environment() {
    let push = prepared(REQUEST).ok().unwrap();
    assert_eq!(push.plan.tags, ["1.4", "latest"]);
    assert_eq!(push.repository.to_string(), "registry.example.com/team/app");
    assert_eq!(push.created.to_string(), "1970-01-01T00:00:01Z");
    assert_eq!(push.credentials.unwrap().username(), "demo");
}

#[rstest]
#[case::no_request("", reason::INVALID_PROPERTY)]
#[case::rubbish("{\"version\":\"hunter2", reason::INVALID_PROPERTY)]
#[case::of_another_step(r#"{"version":1,"step":2,"run_env":{},"env":{}}"#, reason::INVALID_PROPERTY)]
#[case::of_another_version(r#"{"version":2,"step":1,"run_env":{},"env":{}}"#, reason::INVALID_PROPERTY)]
#[case::variable_missing(r#"{"version":1,"step":1,"run_env":{"VERSION":"1"},"env":{}}"#, reason::UNDEFINED_VARIABLE)]
fn a_request_that_cannot_be_used(#[case] request: &str, #[case] reason: &str) {
    let Err(error) = prepared(request) else { panic!("it was used") };
    assert_eq!(error.reason, reason);
    assert!(!error.message.contains("hunter2"));
}

/// The request of a step that packs, with this end.
fn scratch(properties: serde_json::Value, packed: &str) -> Result<Push, PushError> {
    let mut push =
        serde_json::json!({"repository": "registry.example.com/team/app", "credentials": {"secretName": "login"}});
    push.as_object_mut().unwrap().extend(properties.as_object().unwrap().clone());
    let spec = serde_json::json!({
        "box": {"image": "debian"},
        "steps": [{"name": "build", "script": "make"}, {"name": "push", "dockerScratchPush": push}],
    });
    let request = format!(r#"{{"version":1,"step":1,"run_env":{{}},"env":{{"VERSION":"1.4"}}{packed}}}"#);
    prepared_for(run_of(spec), &request, &[])
}

const ARCHIVE: &str = r#","packed":"archive""#;

#[test]
fn a_push_from_scratch_is_made_of_the_spec_and_the_archive() {
    let push =
        scratch(serde_json::json!({"tag": "$VERSION", "owner": "7:8", "timestamps": "Zero"}), ARCHIVE).ok().unwrap();
    assert_eq!(push.plan.tags, ["1.4", "7"]);
    let Content::Files(files) = push.content else { panic!("it pushes the box") };
    assert_eq!((files.step, files.shape), (1, Shape { owner: Some((7, 8)), zero_times: true }));
    assert_eq!(push.credentials.unwrap().username(), "demo");
    assert_eq!(files.open().unwrap_err().message, "the archive that the box packed is gone");
}

#[rstest]
#[case::unsafe_file("unsafe", reason::UNSAFE_FILE)]
#[case::empty("empty", reason::EMPTY_IMAGE)]
#[case::too_large("tooLarge", reason::IMAGE_TOO_LARGE)]
#[case::failed("failed", reason::COMMIT_FAILED)]
fn what_the_runner_refused_is_the_reason(#[case] fault: &str, #[case] reason: &str) {
    let packed = format!(r#","packed":{{"refused":{{"fault":"{fault}","message":"/x is a device"}}}}"#);
    let error = scratch(serde_json::json!({}), &packed).err().unwrap();
    assert_eq!((error.reason, error.message.as_str(), error.transient), (reason, "/x is a device", false));
}

#[test]
fn properties_are_judged_before_the_files() {
    let packed = r#","packed":{"refused":{"fault":"failed","message":"directory $UNSET is not set"}}"#;
    let error = scratch(serde_json::json!({"directory": "$UNSET/x"}), packed).err().unwrap();
    assert_eq!(error.reason, reason::UNDEFINED_VARIABLE, "{error}");
    let error = scratch(serde_json::json!({}), "").err().unwrap();
    assert_eq!((error.reason, error.message.as_str()), (reason::COMMIT_FAILED, "the box packed no files"));
}

#[test]
fn what_is_stored_goes_to_the_shelf_and_holds_no_secret() {
    let spec = serde_json::json!({
        "box": {"image": "debian"},
        "env": [{"name": "API_KEY", "secretKeyRef": {"name": "keys", "key": "api"}}],
        "steps": [{"name": "build", "script": "make"}, {"name": "keep", "storeContainer": {"message": "of $VERSION"}}],
    });
    let key = [("secret-0/api", "a secret value")];
    let error = prepared_for(run_of(spec.clone()), REQUEST, &key).err().unwrap();
    assert_eq!(error.reason, reason::STORE_FAILED, "no store is set");
    let shelf = Shelf::Registry { prefix: "r.io/kept".into(), login: None };
    let error = prepared_on(shelf.clone(), run_of(spec.clone()), REQUEST, &[]).err().unwrap();
    assert_eq!(error.reason, reason::SECRETS_NOT_SEARCHED);
    assert!(!error.message.contains("secretsInImage"), "there is no such property: {error}");
    let push = prepared_on(shelf, run_of(spec), REQUEST, &key).ok().unwrap();
    assert!(push.artifact);
    assert_eq!(push.repository.to_string(), "r.io/kept/team/hello-7");
    assert_eq!(push.plan.secrets_in_image, SecretsInImage::Deny);
    assert_eq!(push.plan.changes.message.as_deref(), Some("of 1.4"));
    assert_eq!(push.secrets.len(), 1);
}

/// A registry that is away once, while somebody changes the login.
struct Changing {
    login: std::path::PathBuf,
    seen: std::sync::Mutex<Vec<String>>,
}

fn docker_config(password: &str) -> String {
    serde_json::json!({"auths": {"r.io": {"username": "u", "password": password}}}).to_string()
}

impl Transport for Changing {
    fn push<'a>(&'a self, push: &'a Push, _: &'a Line) -> BoxFuture<'a, Result<Pushed, PushError>> {
        let mut seen = self.seen.lock().unwrap();
        seen.push(push.credentials.as_ref().unwrap().password().expose().clone());
        std::fs::write(&self.login, docker_config("second")).unwrap();
        let away = PushError::transient(reason::REGISTRY_UNREACHABLE, "away");
        let done = Pushed { digest: OURS.into(), size: 1, tags: Vec::new(), warnings: Vec::new() };
        let result = if seen.len() < 2 { Err(away) } else { Ok(done) };
        Box::pin(async move { result })
    }

    fn digest_of<'a>(
        &'a self,
        _: &'a Push,
        _: &'a str,
        _: &'a Line,
    ) -> BoxFuture<'a, Result<Option<String>, PushError>> {
        unreachable!("nothing was recorded")
    }

    fn tag_again<'a>(
        &'a self,
        _: &'a Push,
        _: &'a str,
        _: &'a str,
        _: &'a Line,
    ) -> BoxFuture<'a, Result<(), PushError>> {
        unreachable!("nothing was recorded")
    }
}

#[tokio::test(start_paused = true)]
async fn the_stores_login_is_read_for_each_try() {
    let kubelet = tempfile::tempdir().unwrap();
    let login = kubelet.path().join("login");
    std::fs::write(&login, docker_config("first")).unwrap();
    let spec = serde_json::json!({
        "box": {"image": "debian"},
        "steps": [{"name": "build", "script": "make"}, {"name": "keep", "storeContainer": {}}],
    });
    let shelf = Shelf::Registry { prefix: "r.io/kept".into(), login: Some(login.clone()) };
    let (volumes, job) = placed(kubelet.path(), shelf, run_of(spec), REQUEST, &[]);
    let transport = Changing { login, seen: std::sync::Mutex::default() };
    let (sender, _told) = tokio::sync::mpsc::unbounded_channel();
    let line = Line::new(1, sender, tokio_util::sync::CancellationToken::new());
    let verdict = carry_out(&volumes, &transport, &job, &line).await;
    assert!(matches!(verdict, Verdict::Passed { .. }), "{verdict:?}");
    assert_eq!(*transport.seen.lock().unwrap(), ["first", "second"]);
}
