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

fn named(sought: &Sought) -> Vec<(&str, &str)> {
    sought.values.iter().map(|secret| (secret.name.as_str(), secret.value.expose().as_str())).collect()
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
    let login = Credentials::new("demo".into(), Secret::new("mnopqr".into()));
    let sought = sought(&volumes, &run().spec, Some(&login));
    assert_eq!(named(&sought), [("variable API_KEY", "abcdef"), ("the password of demo", "mnopqr")]);
    assert_eq!(sought.missed, Vec::<String>::new());
}

/// A run with the Secrets `one`, `whole` and `mine`, in this order.
fn with_secrets() -> PipelineSpec {
    let spec = serde_json::json!({
        "box": {"image": "debian", "env": [{"name": "FIRST", "secretKeyRef": {"name": "one", "key": "a"}}]},
        "env": [
            {"name": "AGAIN", "secretKeyRef": {"name": "one", "key": "a"}},
            {"name": "OVER", "secretKeyRef": {"name": "one", "key": "never"}},
            {"name": "MAYBE", "secretKeyRef": {"name": "one", "key": "maybe", "optional": true}},
            {"name": "P_SHADOWED", "value": "text"},
            {"name": "OVER", "value": "text"},
        ],
        "envFrom": [{"prefix": "P_", "secretRef": {"name": "whole"}}],
        "steps": [{"name": "s", "script": "true", "env": [{"name": "STEP", "secretKeyRef": {"name": "mine", "key": "b"}}]}],
    });
    crate::agent::fixture::run_of(spec).spec.clone()
}

#[test]
fn only_keys_that_feed_a_variable_are_looked_for() {
    let spec = with_secrets();
    assert_eq!(spec.env_objects().0, ["whole", "one", "mine"]);
    let files = [
        ("secret-1/a", "value of a"),
        ("secret-1/never", "value of never"),
        ("secret-1/unused", "value of unused"),
        ("secret-0/KEY", "value of KEY"),
        ("secret-0/SHADOWED", "value of SHADOWED"),
        ("secret-0/tls.crt", "value of tls.crt"),
        ("secret-2/b", "value of b"),
        ("secret-2/unused", "value of unused"),
    ];
    let (_kubelet, volumes) = volumes(&files);
    let sought = sought(&volumes, &spec, None);
    let expected =
        [("variable P_KEY", "value of KEY"), ("variable FIRST", "value of a"), ("variable STEP", "value of b")];
    assert_eq!((named(&sought).as_slice(), sought.missed.as_slice()), (expected.as_slice(), [].as_slice()));
}

#[test]
fn what_cannot_be_looked_for_is_said() {
    let (kubelet, volumes) = volumes(&[("secret-0/KEY", "value of KEY"), ("secret-1/unused", "x")]);
    let secrets = kubelet.path().join("pods").join(POD_UID).join("volumes/kubernetes.io~secret");
    // Larger than all together may be, no text, and a Secret that cannot be listed.
    std::fs::File::create(secrets.join("secret-0/LARGE")).unwrap().set_len(1 << 40).unwrap();
    std::fs::write(secrets.join("secret-0/BYTES"), [0xff, 0xfe]).unwrap();
    std::fs::create_dir(secrets.join("secret-1/never")).unwrap();
    std::fs::write(secrets.join("secret-2"), "no directory").unwrap();
    let sought = sought(&volumes, &with_secrets(), None);
    assert_eq!(named(&sought), [("variable P_KEY", "value of KEY")]);
    let expected = [
        "variable P_BYTES (key BYTES of Secret whole) cannot be looked for: it is no text",
        "variable P_LARGE (key LARGE of Secret whole) cannot be looked for: read LARGE: larger than 8388596 bytes",
        "variable FIRST (key a of Secret one) cannot be looked for: it is gone",
        "the keys of Secret mine cannot be read: open secret-2: Not a directory (os error 20)",
        "variable STEP (key b of Secret mine) cannot be looked for: open the volume of b: Not a directory (os error 20)",
    ];
    assert_eq!(sought.missed, expected);
}

#[test]
fn too_many_values_are_not_looked_for_in_silence() {
    let env: Vec<_> = (0..1001)
        .map(|n| serde_json::json!({"name": format!("V{n}"), "secretKeyRef": {"name": "keys", "key": n.to_string()}}))
        .collect();
    let spec = serde_json::json!({"box": {"image": "debian"}, "env": env, "steps": [{"name": "s", "script": "true"}]});
    let (kubelet, volumes) = volumes(&[]);
    let secret = kubelet.path().join("pods").join(POD_UID).join("volumes/kubernetes.io~secret/secret-0");
    std::fs::create_dir_all(&secret).unwrap();
    (0..1000).for_each(|n| std::fs::write(secret.join(n.to_string()), "value").unwrap());
    let sought = sought(&volumes, &crate::agent::fixture::run_of(spec).spec, None);
    assert_eq!(sought.values.len(), 1000);
    let text = "variable V1000 (key 1000 of Secret keys) cannot be looked for: more than 1000 values are too many";
    assert_eq!(sought.missed, [text]);
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
