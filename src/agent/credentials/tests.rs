use super::*;
use crate::agent::fixture::{POD_UID, run};
use rstest::rstest;
use std::path::PathBuf;

fn volumes(files: &[(&str, &str)]) -> (tempfile::TempDir, Volumes) {
    let kubelet = tempfile::tempdir().unwrap();
    let secrets: PathBuf = kubelet.path().join("pods").join(POD_UID).join("volumes/kubernetes.io~secret");
    for (path, content) in files {
        let file = secrets.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
    }
    let volumes = Volumes::new(kubelet.path(), POD_UID);
    (kubelet, volumes)
}

fn read(files: &[(&str, &str)]) -> Result<Option<Credentials>, PushError> {
    let (_kubelet, volumes) = volumes(files);
    let run = run();
    let push = run.spec.steps[1].docker_push.clone().unwrap();
    let repository = Repository::parse(&push.repository, None).unwrap();
    login(&volumes, &run.spec, &push, &repository)
}

#[rstest]
#[case::config_json(&[("push-0/.dockerconfigjson", r#"{"auths":{"registry.example.com":{"username":"demo","password":"pw"}}}"#)])]
#[case::older_form(&[("push-0/.dockercfg", r#"{"registry.example.com":{"username":"demo","password":"pw"}}"#)])]
#[case::basic_auth(&[("push-0/username", "demo"), ("push-0/password", "pw\n")])]
fn logins(#[case] files: &[(&str, &str)]) {
    let login = read(files).unwrap_or_else(|error| panic!("{error}")).unwrap();
    assert_eq!((login.username(), login.password().expose().as_str()), ("demo", "pw"));
}

#[rstest]
#[case::no_secret(&[], "Secret login does not exist")]
#[case::another_secret(&[("push-1/password", "pw")], "Secret login does not exist")]
#[case::half(&[("push-0/username", "demo")], "Secret login has no key password")]
#[case::another_host(&[("push-0/.dockerconfigjson", r#"{"auths":{"other.io":{"username":"a","password":"b"}}}"#)], "Secret login has no login for registry.example.com")]
#[case::rubbish(&[("push-0/.dockerconfigjson", "hunter2")], "Secret login, key .dockerconfigjson")]
fn no_login(#[case] files: &[(&str, &str)], #[case] expected: &str) {
    let Err(error) = read(files) else { panic!("a login was found") };
    assert_eq!(error.reason, reason::CREDENTIALS_NOT_FOUND);
    assert!(error.message.starts_with(expected), "{}", error.message);
    assert!(!error.message.contains("hunter2"));
}

#[test]
fn a_step_without_credentials_logs_in_nowhere() {
    let (_kubelet, volumes) = volumes(&[("push-0/username", "demo"), ("push-0/password", "pw")]);
    let run = run();
    let mut push = run.spec.steps[1].docker_push.clone().unwrap();
    push.credentials = None;
    let repository = Repository::parse(&push.repository, None).unwrap();
    assert!(login(&volumes, &run.spec, &push, &repository).is_ok_and(|login| login.is_none()));
}

#[test]
fn values_have_the_names_of_their_variables() {
    let files = [
        ("secret-0/api", "abcdef"),
        ("secret-0/other", "ghijkl"),
        ("push-0/username", "demo"),
        ("push-0/password", "pw"),
    ];
    let (_kubelet, volumes) = volumes(&files);
    let run = run();
    let login = Credentials::new("demo".into(), Secret::new("mnopqr".into()));
    let found = values(&volumes, &run.spec, Some(&login));
    let found: Vec<_> = found.iter().map(|secret| (secret.name.as_str(), secret.value.expose().as_str())).collect();
    assert_eq!(
        found,
        [("variable API_KEY", "abcdef"), ("key other of Secret keys", "ghijkl"), ("the password of demo", "mnopqr")]
    );
}

#[test]
fn the_box_cannot_choose_who_is_given_a_bare_login() {
    let (_kubelet, volumes) = volumes(&[("push-0/username", "demo"), ("push-0/password", "hunter2")]);
    let run = run();
    let mut push = run.spec.steps[1].docker_push.clone().unwrap();
    push.repository = "$REPO".into();
    let chosen = Repository::parse("evil.example.com/x", None).unwrap();
    let Err(error) = login(&volumes, &run.spec, &push, &chosen) else { panic!("a login was given away") };
    assert_eq!(error.reason, reason::CREDENTIALS_NOT_FOUND);
    assert!(!error.message.contains("hunter2"));
}

#[rstest]
#[case("registry.example.com/$TEAM/app", None, true)]
#[case("turing/$APP", None, true)]
#[case("$REPO", None, false)]
#[case("registry.${DOMAIN}/app", None, false)]
#[case("app$SUFFIX", None, false)]
#[case("$REPO", Some("https://registry.example.com"), true)]
#[case("$REPO", Some("$REGISTRY"), false)]
fn the_host_is_fixed_by_the_pipeline(#[case] repository: &str, #[case] registry: Option<&str>, #[case] fixed: bool) {
    let registry = registry.map(str::to_owned);
    assert_eq!(host_is_fixed(&DockerPush { repository: repository.into(), registry, ..DockerPush::default() }), fixed);
}
