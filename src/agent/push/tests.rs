use super::*;
use crate::agent::fixture::{POD_UID, run};
use rstest::rstest;

const OURS: &str = "sha256:aa";
const OTHER: &str = "sha256:bb";

fn tags(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[rstest]
#[case::nothing_moved(&[], &[Some(OTHER), None], false, Resume::StartOver)]
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
    let kubelet = tempfile::tempdir().unwrap();
    let volumes = Volumes::new(kubelet.path(), POD_UID);
    std::fs::create_dir_all(volumes.out_dir()).unwrap();
    if !request.is_empty() {
        std::fs::write(volumes.out_dir().join("request-1.json"), request).unwrap();
    }
    let login = kubelet.path().join("pods").join(POD_UID).join("volumes/kubernetes.io~secret/push-0");
    std::fs::create_dir_all(&login).unwrap();
    std::fs::write(login.join("username"), "demo").unwrap();
    std::fs::write(login.join("password"), "pw").unwrap();
    let job = Job { run: Arc::new(run()), step: 1, began_ms: 1000, recorded: None };
    prepare(&volumes, &job)
}

#[test]
fn a_push_is_made_of_the_spec_and_the_environment() {
    let push = prepared(r#"{"version":1,"step":1,"run_env":{},"env":{"VERSION":"1.4"}}"#).ok().unwrap();
    assert_eq!(push.plan.tags, ["1.4", "latest"]);
    assert_eq!(push.repository.to_string(), "registry.example.com/team/app");
    assert_eq!(push.created, "1970-01-01T00:00:01Z");
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
