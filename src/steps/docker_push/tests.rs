use super::*;
use proptest::prelude::*;
use rstest::rstest;

const STEP: &str = "steps[2].dockerPush";

/// A push step from YAML, as a user writes it.
fn push(yaml: &str) -> DockerPush {
    let repository = if yaml.contains("repository:") { "" } else { "repository: team/app\n" };
    serde_yaml::from_str(&format!("{repository}{yaml}")).unwrap()
}

fn env() -> BTreeMap<String, String> {
    let pairs = [
        ("VERSION", "1.4"),
        ("TAGS", "a, b c"),
        ("EMPTY", ""),
        ("SECRET", "hunter2 hunter2!"),
        ("NAME", "world x"),
        ("CMD", "run 'a b' --x"),
        ("DOLLAR", "$VERSION"),
        ("PAIRS", "A=1,B=$VERSION"),
        ("PORTS", "80, 53/udp"),
        ("REPO", "Registry.example.com/Team/App"),
        ("HOST", "quay.io"),
        ("WERCKER_GIT_BRANCH", "feature/x"),
        ("KEY", "containerd.io/restart.loguri"),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn planned(yaml: &str) -> PushPlan {
    let push = push(yaml);
    check(STEP, &push).unwrap();
    plan(&push, &env(), 42).unwrap()
}

fn refused(yaml: &str) -> String {
    plan(&push(yaml), &env(), 42).unwrap_err().to_string()
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn every_property_of_the_documented_example() {
    let plan = planned(
        r#"
repository: registry.example.com/team/hello
registry: https://registry.example.com/v2
tags: ["$VERSION", latest]
entrypoint: /pipeline/source/hello --listen "0.0.0.0:5000"
cmd: ["--verbose"]
ports: "5000, 8080/udp"
volumes: [/data, /cache]
workingDir: /pipeline/source
user: "1000"
env: {LANG: C.UTF-8, GREETING: "hello, $NAME"}
labels: {org.opencontainers.image.source: "https://git.example.com/team/hello"}
author: The Team <team@example.com>
message: built by Windlass $VERSION
stopSignal: SIGINT
secretsInImage: Warn
"#,
    );
    insta::assert_debug_snapshot!(plan);
}

#[test]
fn the_words_of_the_old_documents() {
    let plan = planned(
        r#"
username: $USERNAME
password: $PASSWORD
email: me@example.com
repository: turing/bar
registry: https://registry.hub.docker.com
tag: my-amazing-tag, other
cmd: my-amazing-command
ports: 5000
volumes: "/data, /cache"
env: '["VAR=value","VAR2=value2"]'
labels: '"LABEL=label","LABEL2=label2"'
stopSignal: 15
"#,
    );
    assert_eq!((plan.repository.as_str(), plan.registry.as_deref()), ("turing/bar", Some("docker.io")));
    assert_eq!(plan.tags, ["my-amazing-tag", "other", "42"]);
    assert_eq!(plan.changes.cmd, Some(strings(&["my-amazing-command"])));
    assert_eq!(plan.changes.ports, ["5000/tcp"]);
    assert_eq!(plan.changes.volumes, ["/cache", "/data"]);
    assert_eq!(plan.changes.env, [("VAR".into(), "value".into()), ("VAR2".into(), "value2".into())]);
    assert_eq!(plan.changes.labels["LABEL2"], "label2");
    assert_eq!(plan.changes.stop_signal.as_deref(), Some("15"));
}

#[rstest]
#[case::none("buildNumberTag: true", &["latest", "42"])]
#[case::single("tag: x", &["x", "42"])]
#[case::split("tags: ['a b', 'c,,d']", &["a", "b", "c", "d", "42"])]
#[case::variable("tags: [\"$VERSION\", \"v${VERSION}-$VERSION\"]", &["1.4", "v1.4-1.4", "42"])]
#[case::variable_with_several("tag: $TAGS", &["a", "b", "c", "42"])]
#[case::twice("tags: [x, y, x, '42']", &["x", "y", "42"])]
#[case::no_build_number("buildNumberTag: false", &["latest"])]
#[case::blank("tag: ' , '", &["latest", "42"])]
#[case::blank_entry("tags: ['', x]", &["x", "42"])]
fn tags_are_read(#[case] yaml: &str, #[case] expected: &[&str]) {
    assert_eq!(planned(yaml).tags, expected);
}

#[test]
fn a_run_without_build_number_has_no_such_tag() {
    for number in [0, -1] {
        assert_eq!(plan(&push("buildNumberTag: true"), &env(), number).unwrap().tags, ["latest"]);
    }
}

#[rstest]
#[case::hub("team/app", None, "team/app")]
#[case::hub_by_name("docker.io/team/app", None, "docker.io/team/app")]
#[case::hub_alias("registry.hub.docker.com/turing/bar", None, "docker.io/turing/bar")]
#[case::hub_registry("turing/bar", Some("https://index.docker.io/v2/"), "turing/bar")]
#[case::one_word("app", None, "app")]
#[case::host("registry.example.com:5000/a/b", None, "registry.example.com:5000/a/b")]
#[case::localhost("localhost/a", None, "localhost/a")]
#[case::ipv6("[::1]:5000/a", None, "[::1]:5000/a")]
#[case::completed("a/b", Some("quay.io"), "quay.io/a/b")]
#[case::confirmed("quay.io/a/b", Some("https://QUAY.io/v2"), "quay.io/a/b")]
#[case::two_names_of_hub("docker.io/a/b", Some("registry-1.docker.io"), "docker.io/a/b")]
#[case::upper_case("Quay.io/Team/App", None, "quay.io/team/app")]
#[case::variable("$REPO", None, "registry.example.com/team/app")]
#[case::registry_variable("a/b", Some("https://$HOST"), "quay.io/a/b")]
#[case::odd_paths("a__b/c--d/e.f_g", None, "a__b/c--d/e.f_g")]
fn destinations(#[case] repository: &str, #[case] registry: Option<&str>, #[case] expected: &str) {
    let push =
        DockerPush { repository: repository.into(), registry: registry.map(str::to_owned), ..Default::default() };
    check(STEP, &push).unwrap();
    assert_eq!(plan(&push, &env(), 0).unwrap().repository, expected);
}

#[rstest]
#[case("repository: ''", "InvalidProperty: repository: expected a repository such as registry.example.com/team/app")]
#[case(
    "repository: a/b:tag",
    "InvalidProperty: repository: \"a/b:tag\": must not hold a tag or digest; put the tag into tags"
)]
#[case(
    "repository: a/b@sha256:00",
    "InvalidProperty: repository: \"a/b@sha256:00\": must not hold a tag or digest; put the tag into tags"
)]
#[case(
    "repository: https://a.io/b",
    "InvalidProperty: repository: \"https://a.io/b\": must not begin with https://; write registry.example.com/team/app"
)]
#[case(
    "repository: a//b",
    "InvalidProperty: repository: \"a//b\": expected a repository such as team/app: letters, digits, and single '.', '_' or '-' between them"
)]
#[case(
    "repository: a.io:99999/b",
    "InvalidProperty: repository: \"a.io:99999/b\": expected a host such as registry.example.com or registry.example.com:5000 before the first /"
)]
#[case(
    "repository: a.io:5000/b:tag",
    "InvalidProperty: repository: \"a.io:5000/b:tag\": must not hold a tag or digest; put the tag into tags"
)]
#[case(
    "repository: b.io/x\nregistry: https://a.io",
    "RegistryMismatch: registry: host \"a.io\" differs from repository host \"b.io\"; leave registry out"
)]
#[case(
    "repository: quay.io.evil.io/x\nregistry: quay.io",
    "RegistryMismatch: registry: host \"quay.io\" differs from repository host \"quay.io.evil.io\"; leave registry out"
)]
#[case(
    "repository: docker.io/a/b\nregistry: quay.io",
    "RegistryMismatch: registry: host \"quay.io\" differs from repository host \"docker.io\"; leave registry out"
)]
#[case(
    "registry: http://a.io",
    "InvalidProperty: registry: must be https; registries without TLS are listed by the administrator"
)]
#[case(
    "registry: https://a.io/v1",
    "InvalidProperty: registry: the registry API v1 no longer exists; end the address with /v2 or leave it out"
)]
#[case(
    "registry: https://a.io/team",
    "InvalidProperty: registry: expected a host or an https address such as https://registry.example.com/v2"
)]
#[case("registry: https://me:pass@a.io", "InvalidProperty: registry: expected a host such as registry.example.com")]
#[case(
    "tag: -x",
    "InvalidProperty: tag: \"-x\": expected a tag: at most 128 letters, digits, '_', '.' and '-', not beginning with '.' or '-'"
)]
#[case("cmd: sh -c 'unclosed", "InvalidProperty: cmd: \"'\" at position 7: missing closing quote")]
#[case("ports: '53, 80/xyz'", "InvalidProperty: ports: \"80/xyz\" at position 5: expected tcp or udp")]
#[case("ports: [80, '80/xyz']", "InvalidProperty: ports[1]: \"80/xyz\": expected tcp or udp")]
#[case("volumes: data", "InvalidProperty: volumes: \"data\": expected an absolute directory such as /data")]
#[case(
    "volumes: '/a, b'",
    "InvalidProperty: volumes: \"b\" at position 5: expected an absolute directory such as /data"
)]
#[case(
    "workingDir: /proc/self/fd/8",
    "InvalidProperty: workingDir: \"/proc/self/fd/8\": expected a directory outside /proc, /sys and /dev"
)]
#[case("user: '4294967296'", "InvalidProperty: user: \"4294967296\": expected a number up to 2147483647")]
#[case(
    "stopSignal: SIGFOO",
    "InvalidProperty: stopSignal: \"SIGFOO\": must be a signal such as SIGTERM, or a number from 1 to 64"
)]
#[case(
    "stopSignal: 0",
    "InvalidProperty: stopSignal: \"0\": must be a signal such as SIGTERM, or a number from 1 to 64"
)]
#[case(
    "env: 'A=1 2'",
    "InvalidProperty: env: \"2\" at position 5: expected a name, '=' and a value; quote a value that holds a space or a comma"
)]
#[case(
    "env: ['1A=1']",
    "InvalidProperty: env[0]: \"1A=1\": expected a name of letters, digits, '_', '.' and '-', not beginning with a digit"
)]
#[case(
    "labels: [novalue]",
    "InvalidProperty: labels[0]: \"novalue\": expected a name, '=' and a value; quote a value that holds a space or a comma"
)]
#[case(
    "labels: ['containerd.io/restart.loguri=binary:///x']",
    "ForbiddenLabel: labels[0]: \"containerd.io/restart.loguri=binary:///x\": labels that begin with containerd.io/ steer container runtimes and may not be set"
)]
#[case(
    "labels: {io.kubernetes.pod.uid: x}",
    "ForbiddenLabel: labels.io.kubernetes.pod.uid: \"io.kubernetes.pod.uid\": labels that begin with io.kubernetes. steer container runtimes and may not be set"
)]
#[case(
    "message: 'v${VERSION:-1}'",
    "InvalidProperty: message: \"v${VERSION:-1}\" at position 2: expected ${NAME}; write $$ for a dollar that stays"
)]
#[case("author: \"a\\0b\"", "InvalidProperty: author: \"a\\u{0}b\" holds a NUL character")]
#[case("ports: '1-999 2000-2009'", "InvalidProperty: ports: expected at most 1000 ports")]
// All that is wrong is told at once.
#[case(
    "ports: '0, 80/xyz'\nstopSignal: 99\nuser: -x",
    "InvalidProperty: ports: \"0\" at position 1: expected a port from 1 to 65535, or a range such as 8000-8010; ports: \"80/xyz\" at position 4: expected tcp or udp; user: \"-x\": expected a user such as 1000, 1000:1000 or app; stopSignal: \"99\": must be a signal such as SIGTERM, or a number from 1 to 64"
)]
#[case(
    "ports: 'a b c d e f g'\ntag: .",
    "InvalidProperty: ports: \"a\" at position 1: expected a port from 1 to 65535, or a range such as 8000-8010; ports: \"b\" at position 3: expected a port from 1 to 65535, or a range such as 8000-8010; ports: \"c\" at position 5: expected a port from 1 to 65535, or a range such as 8000-8010; ports: \"d\" at position 7: expected a port from 1 to 65535, or a range such as 8000-8010; ports: \"e\" at position 9: expected a port from 1 to 65535, or a range such as 8000-8010; and 3 more"
)]
fn literals_are_refused_when_the_run_is_resolved(#[case] yaml: &str, #[case] expected: &str) {
    let push = push(yaml);
    let error = plan(&push, &env(), 42).unwrap_err();
    assert_eq!(error.to_string(), expected);
    let early = check(STEP, &push).unwrap_err();
    assert_eq!(early.reason, error.reason);
    assert_eq!(early.message.replace(&format!("{STEP}."), ""), error.message);
    assert!(early.message.starts_with(STEP));
}

#[rstest]
#[case("tags: [\"$NOPE\"]", "UndefinedVariable: tags[0]: $NOPE is not set; export it in an earlier step")]
#[case("tag: ${NOPE}", "UndefinedVariable: tag: $NOPE is not set; export it in an earlier step")]
#[case("repository: $NOPE/app", "UndefinedVariable: repository: $NOPE is not set; export it in an earlier step")]
#[case(
    "cmd: sh -c 'echo $NOPE'",
    "UndefinedVariable: cmd: $NOPE is not set; export it in an earlier step, or write $$ for a dollar that stays"
)]
#[case(
    "env: {A: $NOPE}",
    "UndefinedVariable: env.A: $NOPE is not set; export it in an earlier step, or write $$ for a dollar that stays"
)]
#[case("tags: [\"$EMPTY\", x]", "InvalidProperty: tags[0]: \"$EMPTY\" is empty once expanded: expected a tag")]
#[case("user: $EMPTY", "InvalidProperty: user: \"$EMPTY\" is empty once expanded: expected a value")]
#[case(
    "tag: $SECRET",
    "InvalidProperty: tag: \"$SECRET\" is wrong at position 9 once expanded: expected a tag: at most 128 letters, digits, '_', '.' and '-', not beginning with '.' or '-'"
)]
#[case(
    "repository: $SECRET",
    "InvalidProperty: repository: \"$SECRET\" once expanded: expected a repository such as team/app: letters, digits, and single '.', '_' or '-' between them"
)]
#[case(
    "repository: $HOST/a\nregistry: a.io",
    "RegistryMismatch: registry: its host differs from the host of repository; leave registry out"
)]
#[case(
    "labels: ['$KEY=x']",
    "ForbiddenLabel: labels[0]: \"$KEY=x\" once expanded: labels that begin with containerd.io/ steer container runtimes and may not be set"
)]
#[case(
    "labels: {$KEY: x}",
    "ForbiddenLabel: labels.$KEY: \"$KEY\" once expanded: labels that begin with containerd.io/ steer container runtimes and may not be set"
)]
#[case(
    "env: $SECRET",
    "InvalidProperty: env: \"$SECRET\" at position 1 once expanded: expected a name, '=' and a value; quote a value that holds a space or a comma; env: \"$SECRET\" at position 9 once expanded: expected a name, '=' and a value; quote a value that holds a space or a comma"
)]
fn variables_are_judged_when_the_step_runs(#[case] yaml: &str, #[case] expected: &str) {
    check(STEP, &push(yaml)).unwrap();
    assert_eq!(refused(yaml), expected);
}

#[rstest]
#[case::words_first(r#"cmd: run "$NAME" $NAME"#, &["run", "world x", "world x"])]
#[case::sole_variable("cmd: $CMD", &["run", "a b", "--x"])]
#[case::list(r#"cmd: [echo, "$NAME", "a 'b"]"#, &["echo", "world x", "a 'b"])]
#[case::value_is_not_expanded_again("cmd: [$DOLLAR]", &["$VERSION"])]
#[case::sole_value_is_not_expanded_again("cmd: $DOLLAR", &["$VERSION"])]
#[case::dollar("cmd: sh -c 'echo $$HOME'", &["sh", "-c", "echo $HOME"])]
#[case::cleared("cmd: []", &[])]
fn commands(#[case] yaml: &str, #[case] expected: &[&str]) {
    assert_eq!(planned(yaml).changes.cmd, Some(strings(expected)));
}

#[rstest]
#[case("cmd: ''")]
#[case("cmd: ' '")]
#[case("cmd: {}")]
#[case("cmd: null")]
fn unset_commands(#[case] yaml: &str) {
    assert_eq!(planned(yaml).changes, ImageChanges::default());
}

#[rstest]
#[case::map("env: {A: '1', B: 'x=$VERSION'}", &[("A", "1"), ("B", "x=1.4")])]
#[case::list("env: ['A=1', 'B=x y,z', 'A=2']", &[("A", "2"), ("B", "x y,z")])]
#[case::spaces("env: A=1 B=2", &[("A", "1"), ("B", "2")])]
#[case::documents(r#"env: '"A=1","B=2"'"#, &[("A", "1"), ("B", "2")])]
#[case::json(r#"env: '["A=1","B=$NAME"]'"#, &[("A", "1"), ("B", "world x")])]
#[case::value_stays_one("env: A=$NAME B=$DOLLAR", &[("A", "world x"), ("B", "$VERSION")])]
#[case::sole_variable("env: $PAIRS", &[("A", "1"), ("B", "$VERSION")])]
#[case::name_variable("env: ['X_$VERSION=1']", &[("X_1.4", "1")])]
#[case::a_value_cannot_end_a_name("env: ['A$PAIRS=x']", &[])]
#[case::empty_value("env: [A=]", &[("A", "")])]
#[case::empty("env: ''", &[])]
#[case::empty_map("env: {}", &[])]
fn env_is_read(#[case] yaml: &str, #[case] expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    match plan(&push(yaml), &env(), 1) {
        Ok(plan) => assert_eq!(plan.changes.env, expected),
        Err(error) => assert!(yaml.contains("A$PAIRS") && error.message.contains("expected a name"), "{error}"),
    }
}

#[test]
fn a_name_is_judged_early_though_its_value_is_not_known() {
    for yaml in
        ["labels: {io.kubernetes.x: $LATER}", "labels: ['io.kubernetes.x=$LATER']", "labels: io.kubernetes.x=$LATER"]
    {
        assert_eq!(check(STEP, &push(yaml)).unwrap_err().reason, reason::FORBIDDEN_LABEL, "{yaml}");
    }
    check(STEP, &push("labels: {$LATER: x}\nenv: [\"$LATER\", \"A=$LATER\"]")).unwrap();
}

#[test]
fn ports_are_sorted_and_named_once() {
    assert_eq!(
        planned("ports: '8080 80 80/tcp 53/udp 53 9-10'").changes.ports,
        ["9/tcp", "10/tcp", "53/tcp", "53/udp", "80/tcp", "8080/tcp"]
    );
    assert_eq!(planned("ports: $PORTS").changes.ports, ["53/udp", "80/tcp"]);
    assert_eq!(planned("ports: {}").changes.ports, Vec::<String>::new());
}

const ECR: &str = "awsAccessKey: $A\nawsSecretKey: $S\nawsRegion: eu-west-1\nawsRegistryId: '123456789012'\n";

#[test]
fn ecr_completes_the_repository_and_tags_with_the_branch() {
    let plan = planned(&format!("{ECR}repository: team/app"));
    assert_eq!(plan.repository, "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app");
    assert_eq!(plan.tags, ["feature-x", "42"]);
    let full = planned(&format!("{ECR}repository: 123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app\ntag: x"));
    assert_eq!((full.repository, full.tags), (plan.repository, strings(&["x", "42"])));
    assert!(refused(&format!("{ECR}repository: a.io/x")).starts_with("RegistryMismatch: repository: its host"));
    let odd = ECR.replace("eu-west-1", "evil.example.com/x");
    assert!(refused(&odd).starts_with("InvalidProperty: awsRegion: \"evil.example.com/x\": expected a region"));
    assert!(refused("awsSecretKey: $S").contains("go together"));
}

#[rstest]
#[case("us-east-1", "amazonaws.com")]
#[case("us-gov-west-1", "amazonaws.com")]
#[case("cn-northwest-1", "amazonaws.com.cn")]
#[case("us-iso-east-1", "c2s.ic.gov")]
#[case("us-isob-east-1", "sc2s.sgov.gov")]
#[case("us-isof-south-1", "csp.hci.ic.gov")]
#[case("eu-isoe-west-1", "cloud.adc-e.uk")]
#[case("eusc-de-east-1", "amazonaws.eu")]
fn ecr_is_below_the_domain_of_its_partition(#[case] region: &str, #[case] domain: &str) {
    let yaml = format!("{}repository: team/app", ECR.replace("eu-west-1", region));
    assert_eq!(planned(&yaml).repository, format!("123456789012.dkr.ecr.{region}.{domain}/team/app"));
    let env = BTreeMap::from([("A".to_owned(), "AKIA".to_owned()), ("S".to_owned(), "s3cret".to_owned())]);
    let Ok(Some(Login::Ecr { access_key, secret_key, ecr })) = login(&push(&yaml), &env) else { panic!("no login") };
    assert_eq!((access_key.as_str(), secret_key.as_str()), ("AKIA", "s3cret"));
    assert_eq!(ecr.registry, format!("123456789012.dkr.ecr.{region}.{domain}"));
    assert_eq!(ecr.api, format!("api.ecr.{region}.{domain}"));
}

#[rstest]
#[case("username: $NAME\npassword: $SECRET", Ok(Some(("world x", "hunter2 hunter2!"))))]
#[case("username: _json_key\npassword: ${SECRET}", Ok(Some(("_json_key", "hunter2 hunter2!"))))]
#[case("email: me@example.com", Ok(None))]
#[case("username: $EMPTY\npassword: $SECRET", Err("username: \"$EMPTY\" is empty once expanded: expected a user name"))]
#[case("username: x\npassword: $EMPTY", Err("password: \"$EMPTY\" is empty once expanded: expected a password"))]
#[case("username: $NOPE\npassword: $SECRET", Err("username: $NOPE is not set; export it in an earlier step"))]
fn passwords(#[case] yaml: &str, #[case] expected: Result<Option<(&str, &str)>, &str>) {
    match (login(&push(yaml), &env()), expected) {
        (Ok(Some(Login::Password { username, password })), Ok(Some(pair))) => {
            assert_eq!((username.as_str(), password.as_str()), pair);
        }
        (Ok(None), Ok(None)) => {}
        (Err(error), Err(message)) => assert_eq!(error.message, message),
        (_, expected) => panic!("not {expected:?}"),
    }
}

#[rstest]
#[case("repository: registry.example.com/$NOPE/app", Some("registry.example.com"))]
#[case("repository: team/$NOPE", Some("docker.io"))]
#[case("repository: $NOPE/app", None)]
#[case("repository: $NOPE", None)]
#[case("repository: $HOST/app", Some("quay.io"))]
#[case("repository: $REPO", Some("registry.example.com"))]
#[case("repository: app\nregistry: https://$HOST/v2", Some("quay.io"))]
#[case("repository: a.io/app\nregistry: quay.io", None)]
#[case("repository: registry.hub.docker.com/a/b", Some("docker.io"))]
fn the_host_by_these_variables_alone(#[case] yaml: &str, #[case] expected: Option<&str>) {
    assert_eq!(host(&push(yaml), &env()).as_deref(), expected);
}

#[test]
fn lists_and_sizes_are_bounded() {
    let many: Vec<String> = (0..51).map(|i| format!("t{i}")).collect();
    let push = DockerPush { repository: "a/b".into(), tags: Some(many), ..Default::default() };
    assert_eq!(check(STEP, &push).unwrap_err().message, format!("{STEP}.tags: expected at most 50 tags"));

    let env = BTreeMap::from([("V".to_owned(), "x".repeat(60_000))]);
    let list = (0..9).map(|i| format!("A{i}=$V")).collect();
    let push = DockerPush { repository: "a/b".into(), env: Some(Pairs::List(list)), ..Default::default() };
    assert!(plan(&push, &env, 1).unwrap_err().message.contains("at most 512 KiB"));
    let push = DockerPush { repository: "a/b".into(), message: Some("$V$V".into()), ..Default::default() };
    assert_eq!(plan(&push, &env, 1).unwrap_err().message, "message: \"$V$V\" expands to more than 64 KiB");
}

prop_compose! {
    /// A push step with odd texts everywhere, among them variables.
    fn any_push()(
        texts in prop::collection::vec("[a-z$ ]{0,4}|\\$SECRET|.{0,12}|[a-z.:/]{1,12}|[A-C=,\"' ]{0,10}|[0-9/-]{1,9}", 14),
        lists in any::<bool>(),
        ecr in any::<bool>(),
    ) -> DockerPush {
        let text = |i: usize| texts[i].clone();
        let some = |i: usize| Some(text(i)).filter(|text| !text.is_empty());
        let words = |i: usize| Some(if lists { Words::List(vec![text(i), text(i + 1)]) } else { Words::Text(text(i)) });
        let pairs = |i: usize| Some(if lists { Pairs::List(vec![text(i)]) } else { Pairs::Text(text(i)) });
        DockerPush {
            repository: text(0), registry: some(1), tag: some(2), tags: Some(vec![text(3)]),
            ports: some(4).map(Ports::Text), volumes: words(5), cmd: words(6), entrypoint: words(7), env: pairs(8),
            labels: pairs(9), working_dir: some(10), user: some(11), author: some(12), message: some(13),
            stop_signal: some(4).map(IntOrText::Text), aws_secret_key: ecr.then(|| "$S".to_owned()),
            aws_region: some(12), aws_registry_id: some(4), ..Default::default()
        }
    }
}

proptest! {
    #[test]
    fn no_message_repeats_what_a_variable_holds(push in any_push(), marker in "ZQ[a-z]{4}[ !='\"/,:\n-]{1,3}Q{1,3}") {
        let env: BTreeMap<String, String> =
            ["SECRET", "a", "b", "S"].map(|name| (name.to_owned(), format!("{marker} {name}"))).into();
        if let Err(error) = plan(&push, &env, 1) {
            prop_assert!(!error.message.contains("ZQ"), "{}", error);
            prop_assert!(!error.message.is_empty());
        }
    }

    #[test]
    fn what_is_refused_early_is_refused_later(push in any_push()) {
        let env: BTreeMap<String, String> = ["SECRET", "S", "a"].map(|name| (name.to_owned(), "v".to_owned())).into();
        let early = check(STEP, &push);
        if let (Err(early), later) = (&early, plan(&push, &env, 1)) {
            prop_assert!(later.is_err(), "{}", early);
        }
    }

    #[test]
    fn plans_hold_what_they_promise(push in any_push(), number in -1_i64..100) {
        let env: BTreeMap<String, String> = ["SECRET", "S", "a", "b"].map(|name| (name.to_owned(), "v".to_owned())).into();
        if let Ok(plan) = plan(&push, &env, number) {
            prop_assert!(!plan.tags.is_empty());
            prop_assert_eq!(plan.tags.iter().collect::<BTreeSet<_>>().len(), plan.tags.len());
            prop_assert!(grammar::tags(&plan.tags.join(",")).iter().all(Result::is_ok));
            prop_assert!(!plan.repository.is_empty() && !plan.repository.contains(['$', '@', ' ']));
            prop_assert!(plan.changes.labels.keys().all(|key| grammar::forbidden_label(key).is_none()));
        }
    }
}
