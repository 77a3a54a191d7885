use super::*;
use rstest::rstest;

fn spec(yaml: &str) -> PipelineSpec {
    serde_yaml::from_str(&format!("{{box: {{image: 'a:1'}}, {yaml}}}")).unwrap()
}

const ENV: &str =
    "env: [{name: NAME, secretKeyRef: {name: login, key: user}}, {name: PASS, secretKeyRef: {name: login, key: pass}},
    {name: OTHER, secretKeyRef: {name: other, key: o}}, {name: TEXT, value: 'say $PASS'}]";
const PUSH: &str = "{name: push, dockerPush: {repository: a/b, username: $NAME, password: $PASS}}";

/// A pipeline with the login of the documents and something else.
fn with(more: &str) -> PipelineSpec {
    spec(&format!("{ENV}, steps: [{PUSH}{more}]"))
}

/// What is given to the box and what is not, and which Secrets are mounted for whom.
#[rstest]
#[case::nothing_else("", &["NAME", "PASS"], &["other"])]
#[case::a_script(", {name: s, script: 'echo ${PASS}'}", &["NAME"], &["login", "other"])]
#[case::a_script_without_a_dollar(", {name: s, script: \"printenv\\nPASS\"}", &["NAME"], &["login", "other"])]
#[case::a_longer_word(", {name: s, script: 'PASSWORD= $MYPASS PASS_ x'}", &["NAME", "PASS"], &["other"])]
#[case::a_property(", {name: t, dockerPush: {repository: $NAME/app}}", &["PASS"], &["login", "other"])]
#[case::the_key_of_a_map(", {name: t, dockerPush: {repository: a/b, labels: {'a.$NAME': x}}}", &["PASS"], &["login", "other"])]
#[case::the_value_in_a_map(", {name: t, dockerPush: {repository: a/b, labels: {name: $NAME}}}", &["PASS"], &["login", "other"])]
#[case::another_login(", {name: t, dockerPush: {repository: a/b, username: ci, password: $PASS}}", &["NAME", "PASS"], &["other"])]
#[case::a_directory(", {name: s, script: x, cwd: /home/$NAME}", &["PASS"], &["login", "other"])]
#[case::a_script_with_its_own(", {name: s, script: x, env: [{name: PASS, secretKeyRef: {name: own, key: p}}]}", &["NAME", "PASS"], &["other", "own"])]
fn what_the_box_is_not_given(#[case] more: &str, #[case] expected: &[&str], #[case] mounted: &[&str]) {
    let spec = with(more);
    assert_eq!(withheld(&spec).into_iter().collect::<Vec<_>>(), expected);
    let (secrets, _) = env_objects(&spec);
    assert_eq!(secrets.into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>(), mounted);
    assert_eq!(push_secrets(&spec), ["login"]);
}

#[test]
fn a_push_step_declares_its_own_login() {
    let spec = spec(
        "afterSteps: [{name: push, env: [{name: P, secretKeyRef: {name: own, key: p}}], dockerPush: {repository: a/b, username: u, password: $P}}],
          steps: [{name: first, dockerPush: {repository: a/b, credentials: {secretName: whole}}}]",
    );
    assert_eq!(push_secrets(&spec), ["whole", "own"]);
    assert_eq!(env_objects(&spec), (vec![], vec![]));
    let keys = login_keys(&spec);
    let keys: Vec<_> = keys.iter().map(|login| (login.step, login.variable, login.key.key.as_str())).collect();
    assert_eq!(keys, [("push", "P", "p")]);
}

/// The key is withheld from the box, so it must be mounted for the agent.
#[test]
fn a_login_of_the_boxs_env_beside_a_whole_secret() {
    let mut spec = spec(&format!("envFrom: [{{secretRef: {{name: whole}}}}], steps: [{PUSH}]"));
    spec.box_.env = serde_yaml::from_str("[{name: PASS, secretKeyRef: {name: login, key: pass}}]").unwrap();
    assert_eq!(push_secrets(&spec), ["login"]);
    assert_eq!(env_objects(&spec).0, ["whole"]);
}

#[test]
fn a_scratch_push_logs_in_the_same_way() {
    let spec = with("").steps.remove(0).docker_push.unwrap();
    let step = Step {
        docker_scratch_push: Some(crate::api::push::DockerScratchPush { push: spec, ..Default::default() }),
        ..Default::default()
    };
    let mut pipeline = with("");
    pipeline.steps = vec![step];
    assert_eq!(push_secrets(&pipeline), ["login"]);
    assert_eq!(withheld(&pipeline).len(), 2);
}

#[test]
fn objects_are_named_once_in_order_of_first_use() {
    let spec = spec(
        "envFrom: [{secretRef: {name: s1}}, {configMapRef: {name: c1}}],
          env: [{name: A, secretKeyRef: {name: s2, key: k}}, {name: B, secretKeyRef: {name: s1, key: k}}],
          steps: [{name: s, script: x, env: [{name: C, configMapKeyRef: {name: c2, key: k}}, {name: D, configMapKeyRef: {name: c1, key: k}}]}]",
    );
    assert_eq!(env_objects(&spec), (vec!["s1", "s2"], vec!["c1", "c2"]));
}

#[rstest]
#[case("A", "Literal(\"own\")")]
#[case("B", "Key(KeyRef { name: \"s\", key: \"b\", optional: false })")]
#[case("C", "Whole { secrets: [(\"late\", \"C\"), (\"early\", \"C\")], or: Elsewhere }")]
#[case("P_C", "Whole { secrets: [(\"late\", \"P_C\"), (\"prefixed\", \"C\"), (\"early\", \"P_C\")], or: Elsewhere }")]
#[case("L", "Whole { secrets: [(\"late\", \"L\"), (\"early\", \"L\")], or: Literal(\"of the box\") }")]
#[case(
    "K",
    "Whole { secrets: [(\"late\", \"K\"), (\"early\", \"K\")], or: Key(KeyRef { name: \"s\", key: \"k\", optional: false }) }"
)]
#[case("M", "Elsewhere")]
fn the_origin_of_a_variable(#[case] variable: &str, #[case] expected: &str) {
    let mut spec = spec(
        "envFrom: [{secretRef: {name: early}}, {prefix: P_, secretRef: {name: prefixed}}, {configMapRef: {name: c}}, {secretRef: {name: late}}],
          env: [{name: A, value: all}, {name: B, secretKeyRef: {name: s, key: b}}, {name: M, configMapKeyRef: {name: c, key: m}}],
          steps: [{name: s, script: x, env: [{name: A, value: own}]}]",
    );
    spec.box_.env = serde_yaml::from_str(
        "[{name: A, value: box}, {name: L, value: of the box}, {name: K, secretKeyRef: {name: s, key: k}}]",
    )
    .unwrap();
    assert_eq!(format!("{:?}", origin(&spec, &spec.steps[0], variable)), expected);
}

#[rstest]
#[case("password: $PASS", None)]
#[case(
    "password: $TEXT",
    Some("x.password: $TEXT does not come from a Secret; declare it in env with secretKeyRef, or use credentials")
)]
#[case(
    "password: $NOPE",
    Some("x.password: $NOPE does not come from a Secret; declare it in env with secretKeyRef, or use credentials")
)]
#[case("password: hunter2", Some("x.password: must be one variable such as $PASSWORD whose value comes from a Secret"))]
#[case(
    "awsSecretKey: $TEXT",
    Some("x.awsSecretKey: $TEXT does not come from a Secret; declare it in env with secretKeyRef, or use credentials")
)]
fn a_password_comes_from_a_secret(#[case] login: &str, #[case] problem: Option<&str>) {
    let spec = spec(&format!("{ENV}, steps: [{{name: p, dockerPush: {{repository: a/b, {login}}}}}]"));
    let push = spec.steps[0].docker_push.as_ref().unwrap();
    let told = check("x", &spec, &spec.steps[0], push).err();
    assert_eq!(told, problem.map(|problem| StepError::new(reason::INVALID_PROPERTY, problem)));
}
