use super::*;
use crate::wire::{OrderStep, RunInfo, ServiceLink};

fn text(name: &str, value: &str) -> EnvItem {
    EnvItem::One { name: name.into(), value: EnvValue::Text(value.into()) }
}

fn secret(variable: &str, name: &str, key: &str, optional: bool) -> EnvItem {
    let value = EnvValue::Secret { name: name.into(), key: key.into(), optional };
    EnvItem::One { name: variable.into(), value }
}

fn config(variable: &str, name: &str, key: &str, optional: bool) -> EnvItem {
    let value = EnvValue::ConfigMap { name: name.into(), key: key.into(), optional };
    EnvItem::One { name: variable.into(), value }
}

fn all(prefix: &str, secret: bool, name: &str, optional: bool) -> EnvItem {
    EnvItem::All(EnvFromSource { prefix: prefix.into(), secret, name: name.into(), optional })
}

fn object(pairs: &[(&str, &[u8])]) -> Object {
    Object { keys: pairs.iter().map(|(key, value)| ((*key).into(), Some(value.to_vec()))).collect() }
}

/// Secrets `keys` and `bad`, ConfigMap `settings`, push credential `registry-login`.
fn mounted() -> Mounted {
    let keys =
        object(&[("token", b"s3cret"), ("user", b"me"), ("tls.crt", b"pem"), ("1st", b"one"), ("WINDLASS_X", b"no")]);
    let bad = object(&[("latin", b"caf\xe9"), ("nul", b"a\0b")]);
    let settings = object(&[("COLOUR", b"blue"), ("token", b"plain")]);
    Mounted {
        secrets: [("keys".into(), keys), ("bad".into(), bad), ("gone".into(), Object::default())].into(),
        config_maps: [("settings".into(), settings)].into(),
        push_secrets: [
            ("registry-login".into(), vec!["password".into(), "username".into()]),
            ("misspelt".into(), vec!["pass".into(), "user".into()]),
        ]
        .into(),
    }
}

fn order(env: Vec<EnvItem>) -> Order {
    Order { env, run: RunInfo { namespace: "team".into(), ..RunInfo::default() }, ..Order::default() }
}

#[test]
fn services_are_found_by_variables_and_the_pipeline_wins() {
    let own = EnvItem::One { name: "DB_PORT".into(), value: EnvValue::Text("mine".into()) };
    let link = ServiceLink { name: "db".into(), ports: vec![5432], env: Vec::new() };
    let environment = resolve(&Order { links: vec![link], ..order(vec![own]) }, &mounted()).unwrap();
    let shown = show(&environment.run);
    assert!(shown.contains(&"DB_PORT=mine".into()) && shown.contains(&"DB_PORT_5432_TCP_ADDR=127.0.0.1".into()));
    assert_eq!(shown.iter().filter(|shown| shown.starts_with("DB_PORT=")).count(), 1, "{shown:?}");
}

fn show(variables: &[Variable]) -> Vec<String> {
    let show = |v: &Variable| format!("{}={}{}", v.name, v.value, if v.secret { " secret" } else { "" });
    variables.iter().map(show).collect()
}

fn check(env: Vec<EnvItem>, expected: &[&str]) {
    let environment = resolve(&order(env), &mounted()).unwrap();
    assert_eq!(show(&environment.run), expected);
}

fn check_failure(order: &Order, expected: &str) {
    let why = resolve(order, &mounted()).unwrap_err();
    assert_eq!(format!("{}: {}", why.reason, why.message), expected);
}

#[test]
fn takes_values_from_everywhere() {
    check(vec![text("A", "$B stays"), text("EMPTY", "")], &["A=$B stays", "EMPTY="]);
    check(vec![secret("T", "keys", "token", false)], &["T=s3cret secret"]);
    check(vec![config("C", "settings", "COLOUR", false)], &["C=blue"]);
    check(vec![all("", true, "keys", false)], &["token=s3cret secret", "user=me secret"]);
    check(vec![all("P_", false, "settings", false)], &["P_COLOUR=blue", "P_token=plain"]);
}

#[test]
fn a_later_one_wins_and_keeps_no_secrecy_of_the_earlier() {
    check(
        vec![all("", true, "keys", false), text("user", "you"), config("token", "settings", "token", false)],
        &["token=plain", "user=you"],
    );
}

#[test]
fn a_prefix_can_make_a_name_of_a_key() {
    let environment = resolve(&order(vec![all("K", true, "keys", false)]), &mounted()).unwrap();
    assert_eq!(show(&environment.run)[0], "K1st=one secret");
    assert_eq!(environment.skipped, ["key tls.crt of Secret keys"]);
    let environment = resolve(&order(vec![all("", true, "keys", false)]), &mounted()).unwrap();
    let skipped = ["key 1st of Secret keys", "key WINDLASS_X of Secret keys", "key tls.crt of Secret keys"];
    assert_eq!(environment.skipped, skipped);
}

#[test]
fn what_is_optional_may_be_missing() {
    check(
        vec![
            secret("A", "gone", "token", true),
            secret("B", "never", "token", true),
            secret("C", "keys", "api", true),
            config("D", "settings", "api", true),
            all("", true, "gone", true),
            all("", false, "never", true),
        ],
        &[],
    );
}

#[test]
fn says_what_is_missing() {
    for (item, expected) in [
        (
            secret("API_KEY", "gone", "api", false),
            "SecretNotFound: Secret gone does not exist in namespace team; env API_KEY needs it",
        ),
        (
            config("API_KEY", "never", "api", false),
            "ConfigMapNotFound: ConfigMap never does not exist in namespace team; env API_KEY needs it",
        ),
        (
            all("", true, "gone", false),
            "SecretNotFound: Secret gone does not exist in namespace team; envFrom needs it",
        ),
        (
            secret("API_KEY", "keys", "api", false),
            "SecretKeyNotFound: Secret keys has no key api; it has: 1st, WINDLASS_X, tls.crt, token, user",
        ),
        (
            config("API_KEY", "settings", "api", false),
            "ConfigMapKeyNotFound: ConfigMap settings has no key api; it has: COLOUR, token",
        ),
    ] {
        check_failure(&order(vec![item]), expected);
    }
}

#[test]
fn says_which_step_needs_it() {
    let step = OrderStep { name: "build".into(), env: vec![secret("K", "gone", "k", false)], ..OrderStep::default() };
    let expected = "SecretNotFound: Secret gone does not exist in namespace team; env K of step build needs it";
    check_failure(&Order { steps: vec![step], ..order(vec![]) }, expected);
    let push_secrets = vec![("first".into(), "registry-login".into()), ("push".into(), "other-login".into())];
    let expected = "SecretNotFound: Secret other-login does not exist in namespace team; step push needs it";
    check_failure(&Order { push_secrets, ..order(vec![]) }, expected);
    let push_secrets = vec![("push".into(), "misspelt".into())];
    let expected = "SecretKeyNotFound: Secret misspelt has neither .dockerconfigjson nor username and password; it has: \
                    pass, user; step push logs in with it";
    check_failure(&Order { push_secrets, ..order(vec![]) }, expected);
}

#[test]
fn says_which_login_is_missing() {
    let key = |secret: &str, key: &str| LoginKey {
        step: "push".into(),
        variable: "PASSWORD".into(),
        secret: secret.into(),
        key: key.into(),
    };
    let with = |login| Order { login_keys: vec![login], ..order(vec![]) };
    assert!(resolve(&with(key("registry-login", "password")), &mounted()).is_ok());
    let expected = "SecretNotFound: Secret other does not exist in namespace team; PASSWORD of step push needs it";
    check_failure(&with(key("other", "password")), expected);
    let expected = "SecretKeyNotFound: Secret registry-login has no key token; it has: password, username";
    check_failure(&with(key("registry-login", "token")), expected);
}

/// Only what comes from a Secret: a variable of the same name from elsewhere is what it was.
#[test]
fn a_login_of_a_whole_secret_is_not_given_to_the_box() {
    let order = |env| Order { withheld: vec!["token".into()], ..order(env) };
    let whole = resolve(&order(vec![all("", true, "keys", false)]), &mounted()).unwrap();
    assert_eq!(show(&whole.run), ["user=me secret"]);
    let plain = resolve(&order(vec![all("", false, "settings", false)]), &mounted()).unwrap();
    assert_eq!(show(&plain.run), ["COLOUR=blue", "token=plain"]);
}

#[test]
fn names_a_value_that_is_no_text_but_never_shows_it() {
    for (item, expected) in [
        (
            secret("L", "bad", "latin", false),
            "InvalidPipeline: env L: the value is not UTF-8; a variable can only hold text",
        ),
        (
            secret("N", "bad", "nul", false),
            "InvalidPipeline: env N: the value holds a NUL byte; a variable can only hold text",
        ),
        (text("T", "a\0"), "InvalidPipeline: env T: the value holds a NUL byte; a variable can only hold text"),
        (
            all("", true, "bad", false),
            "InvalidPipeline: env latin (key latin of Secret bad): the value is not UTF-8; a variable can only hold text",
        ),
    ] {
        check_failure(&order(vec![item]), expected);
    }
}

#[test]
fn bounds_the_environment() {
    let large = |name: &str, kib: usize| text(name, &"x".repeat(kib * 1024));
    check_failure(
        &order((0..11).map(|n| large(&format!("V{n}"), 100 + n)).collect()),
        "EnvironmentTooLarge: the environment holds 1.2 MiB, at most 1 MiB fits; the largest is V10 (111 KiB)",
    );
    let steps = (0..9).map(|n| OrderStep { env: vec![large("S", 120)], name: format!("s{n}"), ..OrderStep::default() });
    check_failure(
        &Order { steps: steps.collect(), ..order(vec![]) },
        "EnvironmentTooLarge: the environment holds 1.1 MiB, at most 1 MiB fits; the largest is S (121 KiB)",
    );
    check_failure(
        &order(vec![large("CERTS", 128)]),
        "EnvironmentTooLarge: variable CERTS holds 129 KiB, at most 128 KiB fit into one; use a file",
    );
    assert!(resolve(&order((0..10).map(|n| large(&format!("V{n}"), 100)).collect()), &mounted()).is_ok());
}

#[test]
fn a_long_list_of_keys_is_cut() {
    let keys: Vec<String> = (10..40).map(|n| format!("k{n}")).collect();
    let message = no_key("Secret", "many", "x", keys.iter().map(String::as_str));
    assert!(message.ends_with("k28, k29 and 10 more"), "{message}");
}
