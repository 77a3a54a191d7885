use super::*;
use crate::{
    agent::fixture::{POD_UID, run, run_of},
    wire,
};
use rstest::rstest;
use serde_json::json;
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
    give(&volumes, &[], &[]);
    (kubelet, volumes)
}

/// Leaves the plan of a run whose variables have these values from Secrets, for all steps and for one.
fn give(volumes: &Volumes, env: &[(&str, &str)], of_step: &[(&str, &str)]) {
    let variables = |env: &[(&str, &str)]| {
        let secret =
            |(name, value): &(&str, &str)| Variable { name: (*name).into(), value: (*value).into(), secret: true };
        env.iter().map(secret).collect::<Vec<_>>()
    };
    let mut plan = wire::Plan { env: variables(env), ..Default::default() };
    plan.env.push(Variable { name: "PLAIN".into(), value: "no secret".into(), secret: false });
    plan.steps.push(wire::PlanStep { env: variables(of_step), ..Default::default() });
    std::fs::create_dir_all(volumes.in_dir()).unwrap();
    std::fs::write(volumes.in_dir().join("plan.json"), serde_json::to_vec(&plan).unwrap()).unwrap();
}

/// The login of the second step of a run, which pushes; `env` is what the box says.
fn login_of(
    run: &crate::agent::run::Run,
    files: &[(&str, &str)],
    env: &[(&str, &str)],
) -> Result<Option<Credentials>, PushError> {
    let (_kubelet, volumes) = volumes(files);
    let step = &run.spec.steps[1];
    let push = step.docker_push.as_ref().unwrap();
    let logins = Logins { volumes: &volumes, spec: &run.spec, step, push };
    let mut env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    logins.fill(&mut env)?;
    let plan = docker_push::plan(push, &env, 7).map_err(|error| PushError::new(error.reason, error.message))?;
    let repository = Repository::parse(&plan.repository, plan.registry.as_deref()).unwrap();
    logins.login(&env, &repository)
}

fn read(files: &[(&str, &str)]) -> Result<Option<Credentials>, PushError> {
    login_of(&run(), files, &[("VERSION", "1")])
}

/// A run that pushes with these properties, in a pipeline with these variables.
fn pushing(env: serde_json::Value, push: serde_json::Value) -> crate::agent::run::Run {
    run_of(json!({
        "box": {"image": "debian"}, "env": env,
        "envFrom": [{"secretRef": {"name": "first"}}, {"prefix": "X_", "secretRef": {"name": "whole"}}],
        "steps": [{"name": "build", "script": "make $USED"}, {"name": "push", "dockerPush": push}],
    }))
}

fn key(variable: &str, secret: &str, key: &str) -> serde_json::Value {
    json!({"name": variable, "secretKeyRef": {"name": secret, "key": key}})
}

#[rstest]
#[case::config_json(&[("push-0/.dockerconfigjson", r#"{"auths":{"registry.example.com":{"username":"demo","password":"pw"}}}"#)])]
#[case::older_form(&[("push-0/.dockercfg", r#"{"registry.example.com":{"username":"demo","password":"pw"}}"#)])]
#[case::basic_auth(&[("push-0/username", "demo"), ("push-0/password", "pw\n")])]
fn logins_of_secrets(#[case] files: &[(&str, &str)]) {
    let login = read(files).unwrap_or_else(|error| panic!("{error}")).unwrap();
    assert_eq!((login.username(), login.password().expose().as_str()), ("demo", "pw"));
}

#[rstest]
#[case::no_secret(&[], "Secret login does not exist")]
#[case::another_secret(&[("push-1/password", "pw")], "Secret login does not exist")]
#[case::half(&[("push-0/username", "demo")], "Secret login has no key password; it has: username")]
#[case::other_keys(&[("push-0/user", "demo"), ("push-0/pass", "pw")], "Secret login has neither .dockerconfigjson nor username and password; it has: pass, user")]
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
    let files = [("push-0/username", "demo"), ("push-0/password", "pw")];
    let mut run = run();
    run.spec.steps[1].docker_push.as_mut().unwrap().credentials = None;
    assert!(login_of(&run, &files, &[("VERSION", "1")]).is_ok_and(|login| login.is_none()));
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
    assert_eq!(logins::env_objects(&spec).0, ["whole", "one", "mine"]);
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

/// Secrets that were changed since the run began: what it got is looked for too, and what they hold now.
#[test]
fn values_as_the_run_got_them() {
    let files = [("secret-1/a", "a new value"), ("secret-0/KEY", "value of KEY"), ("secret-2/b", "value of b")];
    let (_kubelet, volumes) = volumes(&files);
    let env = [("FIRST", "the old value"), ("P_KEY", "value of KEY"), ("P_DROPPED", "value of a dropped key")];
    give(&volumes, &env, &[("STEP", "the old value of b")]);
    let sought = sought(&volumes, &with_secrets(), None);
    let expected = [
        ("variable P_KEY", "value of KEY"),
        ("variable FIRST", "a new value"),
        ("variable STEP", "value of b"),
        ("variable FIRST", "the old value"),
        ("variable P_DROPPED", "value of a dropped key"),
        ("variable STEP", "the old value of b"),
    ];
    assert_eq!((named(&sought).as_slice(), sought.missed.as_slice()), (expected.as_slice(), [].as_slice()));
}

#[test]
fn a_key_that_is_gone_is_looked_for_as_the_run_got_it() {
    let (_kubelet, volumes) = volumes(&[("secret-2/b", "value of b")]);
    give(&volumes, &[("FIRST", "the old value")], &[]);
    let sought = sought(&volumes, &with_secrets(), None);
    assert_eq!(named(&sought), [("variable STEP", "value of b"), ("variable FIRST", "the old value")]);
    assert_eq!(sought.missed, Vec::<String>::new());
}

#[rstest]
#[case::gone(None, "the values that the run got are gone")]
#[case::garbled(
    Some("{\"version\": \"hunter2\"}"),
    "the values that the run got cannot be read: read plan.json: not as expected"
)]
fn what_the_run_got_cannot_be_told(#[case] plan: Option<&str>, #[case] says: &str) {
    let (_kubelet, volumes) = volumes(&[("secret-0/api", "abcdef")]);
    let file = volumes.in_dir().join("plan.json");
    match plan {
        None => std::fs::remove_file(file).unwrap(),
        Some(text) => std::fs::write(file, text).unwrap(),
    }
    assert_eq!(sought(&volumes, &run().spec, None).missed, [says]);
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
    (0..1000).for_each(|n| std::fs::write(secret.join(n.to_string()), format!("value {n}")).unwrap());
    let sought = sought(&volumes, &crate::agent::fixture::run_of(spec).spec, None);
    assert_eq!(sought.values.len(), 1000);
    let text = "variable V1000 (key 1000 of Secret keys) cannot be looked for: more than 1000 values are too many";
    assert_eq!(sought.missed, [text]);
}

const FILES: [(&str, &str); 6] = [
    ("push-0/user", "turing\n"),
    ("push-0/pass", "pa$$ word\n"),
    ("secret-0/TOKEN", "from-first"),
    ("secret-1/TOKEN", "from-whole"),
    ("secret-1/USED", "seen"),
    ("secret-1/latin", "x"),
];

/// The word of the box does not count where a Secret declares the variable.
#[rstest]
#[case::both(json!({"username": "$NAME", "password": "$PASS"}), ("turing", "pa$$ word"))]
#[case::a_literal_user(json!({"username": "ci", "password": "${PASS}"}), ("ci", "pa$$ word"))]
#[case::a_user_that_a_step_exports(json!({"username": "$EXPORTED", "password": "$PASS"}), ("exported", "pa$$ word"))]
#[case::a_user_of_parts(json!({"username": "$NAME+$EXPORTED", "password": "$PASS"}), ("turing\n+exported", ""))]
#[case::a_whole_secret(json!({"username": "ci", "password": "$TOKEN"}), ("ci", "from-first"))]
#[case::a_prefix(json!({"username": "ci", "password": "$X_TOKEN"}), ("ci", "from-whole"))]
fn logins_by_variables(#[case] login: serde_json::Value, #[case] expected: (&str, &str)) {
    let mut push = json!({"repository": "registry.example.com/team/app", "tag": "x"});
    push.as_object_mut().unwrap().extend(login.as_object().unwrap().clone());
    let run = pushing(json!([key("NAME", "login", "user"), key("PASS", "login", "pass")]), push);
    let env = [("NAME", "evil"), ("PASS", "evil"), ("TOKEN", "evil"), ("X_TOKEN", "evil"), ("EXPORTED", "exported")];
    match login_of(&run, &FILES, &env) {
        Ok(login) => {
            let login = login.unwrap();
            assert_eq!((login.username(), login.password().expose().as_str()), expected);
        }
        // A user name has no line break.
        Err(error) => assert!(expected.1.is_empty() && !error.message.contains("turing"), "{error}"),
    }
}

#[rstest]
#[case::no_key(json!([key("PASS", "login", "gone")]), "$PASS", "CredentialsNotFound: Secret login has no key gone; $PASS needs it")]
#[case::no_secret(json!([key("PASS", "gone", "p")]), "$PASS", "CredentialsNotFound: Secret gone has no key p; $PASS needs it")]
#[case::optional(json!([{"name": "PASS", "secretKeyRef": {"name": "login", "key": "gone", "optional": true}}]), "$PASS", "CredentialsNotFound: no Secret that the pipeline names for $PASS has its key")]
#[case::not_in_whole(json!([]), "$PASS", "CredentialsNotFound: no Secret that the pipeline names for $PASS has its key")]
#[case::a_literal(json!([{"name": "PASS", "value": "hunter2"}]), "$PASS", "InvalidProperty: dockerPush.password: $PASS does not come from a Secret")]
#[case::the_secret_itself(json!([]), "hunter2", "InvalidProperty: dockerPush.password: must be one variable")]
fn no_login_by_variables(#[case] env: serde_json::Value, #[case] password: &str, #[case] says: &str) {
    let push = json!({"repository": "registry.example.com/a", "username": "ci", "password": password});
    let Err(error) = login_of(&pushing(env, push), &FILES, &[("PASS", "hunter2")]) else { panic!("a login was found") };
    let told = format!("{}: {}", error.reason, error.message);
    assert!(told.starts_with(says) && !told.contains("hunter2"), "{told}");
}

#[test]
fn aws_keys_are_for_the_registry_of_account_and_region() {
    let env =
        json!([key("ID", "login", "user"), key("KEY", "login", "pass"), {"name": "REGION", "value": "cn-north-1"}]);
    let push = json!({
        "repository": "team/app", "awsAccessKey": "$ID", "awsSecretKey": "$KEY", "awsRegion": "$REGION",
        "awsRegistryId": "123456789012",
    });
    let login = login_of(&pushing(env, push), &FILES, &[("REGION", "cn-north-1"), ("KEY", "evil")]);
    let login = login.unwrap_or_else(|error| panic!("{error}")).unwrap();
    assert_eq!(login.password().expose(), "pa$$ word");
    let keys = login.aws_keys().unwrap();
    assert_eq!((keys.access_key.as_str(), keys.secret_key.expose().as_str()), ("turing", "pa$$ word"));
    assert_eq!(keys.registry, "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn");
    assert_eq!(keys.api, "api.ecr.cn-north-1.amazonaws.com.cn");
}

/// `pushing` has whole Secrets too; what they lack comes from the box's own variables.
#[test]
fn logins_of_the_boxs_env_beside_whole_secrets() {
    let push = json!({"repository": "$PLACE/app", "tag": "x", "username": "$NAME", "password": "$PASS"});
    let mut run = pushing(json!([]), push);
    let literal = |name: &str, value: &str| json!({"name": name, "value": value});
    let env = json!([literal("PLACE", "registry.example.com"), literal("NAME", "ci"), key("PASS", "login", "pass")]);
    run.spec.box_.env = serde_json::from_value(env).unwrap();
    let said = [("PLACE", "registry.example.com"), ("NAME", "ci"), ("PASS", "evil")];
    let login = login_of(&run, &[("push-0/pass", "pa$$ word")], &said);
    let login = login.unwrap_or_else(|error| panic!("{error}")).unwrap();
    assert_eq!((login.username(), login.password().expose().as_str()), ("ci", "pa$$ word"));
    // A whole Secret that has the key comes first, and the box's word is no pipeline's.
    let login = login_of(&run, &[("secret-0/PASS", "whole"), ("push-0/pass", "pw")], &said)
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(login.unwrap().password().expose(), "whole");
    let said = [("PLACE", "evil.example.com"), ("NAME", "ci"), ("PASS", "evil")];
    assert!(login_of(&run, &[("push-0/pass", "pw")], &said).is_err());
}

/// Who is given a login that names no host: what the pipeline says, never what steps export.
#[rstest]
#[case("registry.example.com/$TEAM/app", None, true)]
#[case("turing/$TEAM", None, true)]
#[case("$EXPORTED", None, false)]
#[case("registry.$DOMAIN/app", None, false)]
#[case("$EXPORTED", Some("https://registry.example.com"), true)]
#[case("$EXPORTED", Some("$ELSEWHERE"), false)]
// The pipeline's own variables, literal or from a Secret, as long as the box says the same.
#[case("$NAME/app", None, true)]
#[case("$HOST/app", None, true)]
#[case("app", Some("https://$HOST"), true)]
#[case("$CHANGED/app", None, false)]
fn the_host_is_fixed_by_the_pipeline(#[case] repository: &str, #[case] registry: Option<&str>, #[case] fixed: bool) {
    let env = json!([
        key("NAME", "login", "name"), key("PASS", "login", "pass"),
        {"name": "HOST", "value": "registry.example.com"}, {"name": "CHANGED", "value": "registry.example.com"},
    ]);
    let mut push = json!({"repository": repository, "username": "ci", "password": "$PASS"});
    if let Some(registry) = registry {
        push["registry"] = registry.into();
    }
    let files = [("push-0/pass", "hunter2"), ("secret-2/name", "turing")];
    let said = [
        ("TEAM", "a"),
        ("DOMAIN", "example.com"),
        ("EXPORTED", "registry.example.com/x"),
        ("ELSEWHERE", "registry.example.com"),
        ("NAME", "turing"),
        ("HOST", "registry.example.com"),
        ("CHANGED", "evil.example.com"),
    ];
    let result = login_of(&pushing(env, push), &files, &said);
    match result {
        Ok(login) => assert!(fixed && login.is_some()),
        Err(error) => {
            assert!(!fixed, "{error}");
            assert_eq!(error.reason, reason::CREDENTIALS_NOT_FOUND);
            assert!(error.message.contains("no host in particular") && !error.message.contains("hunter2"), "{error}");
        }
    }
}

#[test]
fn the_box_cannot_choose_who_is_given_a_bare_secret() {
    let mut run = run();
    run.spec.steps[1].docker_push.as_mut().unwrap().repository = "$REPO".into();
    let files = [("push-0/username", "demo"), ("push-0/password", "hunter2")];
    let env = [("VERSION", "1"), ("REPO", "evil.example.com/x")];
    let Err(error) = login_of(&run, &files, &env) else { panic!("a login was given away") };
    assert_eq!(error.reason, reason::CREDENTIALS_NOT_FOUND);
    assert!(!error.message.contains("hunter2"));
}
