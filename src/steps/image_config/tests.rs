use super::*;
use proptest::prelude::*;
use rstest::rstest;
use std::collections::BTreeMap;

const LAYER_A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const LAYER_B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const LAYER_OWN: &str = "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

/// The box image as Docker 29 lists it.
fn base() -> Value {
    json!({
        "author": "The Base Team",
        "config": {
            "User": "postgres",
            "ExposedPorts": {"5432/tcp": {}},
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=en_US.utf8", "PGDATA=/var/lib/postgresql/data"],
            "Entrypoint": ["docker-entrypoint.sh"],
            "Cmd": ["postgres"],
            "Healthcheck": {"Test": ["CMD", "pg_isready"], "Interval": 30000000000_i64},
            "Volumes": {"/var/lib/postgresql/data": {}},
            "WorkingDir": "/srv",
            "Labels": {"maintainer": "base", "com.docker.compose.project": "p", "io.kubernetes.pod.name": "older-commit"},
            "OnBuild": ["RUN true"],
            "Shell": ["/bin/bash", "-c"],
            "StopSignal": "SIGINT"
        },
        "rootfs": {"type": "layers", "diff_ids": [LAYER_A, LAYER_B]}
    })
}

/// What Docker 29 writes when it commits a container that the kubelet's adapter made.
fn committed() -> Value {
    json!({
        "architecture": "arm64",
        "variant": "v8",
        "os": "linux",
        "author": "",
        "created": "2026-11-21T08:24:42.309983407Z",
        "container": "81dd3e050d0c",
        "config": {
            "Hostname": "hello-1",
            "User": "0",
            "Healthcheck": {"Test": ["NONE"]},
            "Env": ["KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_PORT=tcp://10.96.0.1:443", "LANG=en_US.utf8"],
            "Entrypoint": ["/bin/sh", "-c", "while [ ! -e /dev/windlass/in/windlass-runner ]; do :; done"],
            "Cmd": null,
            "Image": "sha256:182e0f16fc2927afb8c0f8d5682f624ffee32718179ef8804c726da8aff58695",
            "WorkingDir": "/",
            "OpenStdin": true,
            "Labels": {
                "io.kubernetes.pod.uid": "0b1", "io.kubernetes.container.logpath": "/var/log/pods/x",
                "annotation.io.kubernetes.container.restartCount": "0", "windlass.dev/commit": "uid/push"
            }
        },
        "history": [
            {"created": "2026-01-01T00:00:00Z", "created_by": "/bin/sh -c #(nop) ADD file:abc in / "},
            {"created": "2026-01-01T00:00:01Z", "created_by": "CMD [\"bash\"]", "comment": "buildkit.dockerfile.v0", "empty_layer": true},
            {"created": "2026-01-01T00:00:02Z", "created_by": "RUN apt-get install postgresql", "comment": "buildkit.dockerfile.v0"},
            {"created": "2026-11-21T08:24:42.309983407Z", "created_by": "/bin/sh -c while [ ! -e /dev/windlass/in/windlass-runner ]"}
        ],
        "rootfs": {"type": "layers", "diff_ids": [LAYER_A, LAYER_B, LAYER_OWN]}
    })
}

fn from() -> Provenance {
    Provenance { created_by: "windlass dockerPush team/hello-1 push".into(), created: "2026-11-21T08:00:00Z".into() }
}

fn words(list: &[&str]) -> Option<Vec<String>> {
    Some(list.iter().map(|word| (*word).to_owned()).collect())
}

fn all_changes() -> ImageChanges {
    ImageChanges {
        entrypoint: words(&["/pipeline/source/hello", "--listen", "0.0.0.0:5000"]),
        cmd: words(&["--verbose"]),
        env: vec![("LANG".into(), "C.UTF-8".into()), ("GREETING".into(), "hello, world=1".into())],
        labels: BTreeMap::from([(
            "org.opencontainers.image.source".into(),
            "https://git.example.com/team/hello".into(),
        )]),
        ports: vec!["5000/tcp".into(), "8080/udp".into()],
        volumes: vec!["/cache".into()],
        working_dir: Some("/pipeline/source".into()),
        user: Some("1000".into()),
        author: Some("The Team <team@example.com>".into()),
        message: Some("built by Windlass".into()),
        stop_signal: Some("SIGTERM".into()),
    }
}

fn built(changes: &ImageChanges) -> Value {
    rebuild(Some(&base()), &committed(), changes, &from()).unwrap()
}

#[test]
fn without_changes_the_box_images_own_config_stays() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&built(&ImageChanges::default())).unwrap());
}

#[test]
fn every_property_changes_its_part() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&built(&all_changes())).unwrap());
}

#[test]
fn an_image_from_scratch_has_only_what_the_step_says() {
    let committed = json!({
        "architecture": "amd64", "os": "linux", "config": {"Env": ["KUBERNETES_PORT=1"]},
        "rootfs": {"type": "layers", "diff_ids": [LAYER_OWN]}
    });
    let changes = ImageChanges { cmd: words(&["/app"]), ..Default::default() };
    insta::assert_snapshot!(rebuild(None, &committed, &changes, &from()).unwrap().to_string(), @r#"{"architecture":"amd64","config":{"Cmd":["/app"]},"created":"2026-11-21T08:00:00Z","history":[{"created":"2026-11-21T08:00:00Z","created_by":"windlass dockerPush team/hello-1 push"}],"os":"linux","rootfs":{"diff_ids":["sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"],"type":"layers"}}"#);
}

#[rstest]
#[case::neither(None, None, json!(["docker-entrypoint.sh"]), json!(["postgres"]))]
#[case::cmd(None, words(&["x"]), json!(["docker-entrypoint.sh"]), json!(["x"]))]
#[case::entrypoint_clears_cmd(words(&["x"]), None, json!(["x"]), Value::Null)]
#[case::both(words(&["x"]), words(&["y"]), json!(["x"]), json!(["y"]))]
#[case::empty_cmd(None, words(&[]), json!(["docker-entrypoint.sh"]), Value::Null)]
#[case::empty_entrypoint(words(&[]), words(&["y"]), Value::Null, json!(["y"]))]
fn commands(
    #[case] entrypoint: Option<Vec<String>>,
    #[case] cmd: Option<Vec<String>>,
    #[case] expected_entrypoint: Value,
    #[case] expected_cmd: Value,
) {
    let built = built(&ImageChanges { entrypoint, cmd, ..Default::default() });
    assert_eq!(built["config"]["Entrypoint"], expected_entrypoint);
    assert_eq!(built["config"]["Cmd"], expected_cmd);
}

#[rstest]
// The commit's own entry is replaced, whatever it says.
#[case::as_written(json!([{"created_by": "a"}, {"created_by": "b"}, {"created_by": "commit"}]), &[LAYER_A, LAYER_B, LAYER_OWN], &["a", "b", "windlass"])]
#[case::unchanged_box(json!([{"created_by": "a"}, {"created_by": "b"}, {"created_by": "commit", "empty_layer": true}]), &[LAYER_A, LAYER_B], &["a", "b", "windlass (empty)"])]
#[case::squashed(json!([{"created_by": "a"}, {"created_by": "b"}, {"created_by": "c"}, {"created_by": "d"}]), &[LAYER_A, LAYER_B, LAYER_OWN], &["layer", "layer", "windlass"])]
#[case::none(Value::Null, &[LAYER_A, LAYER_B, LAYER_OWN], &["layer", "layer", "windlass"])]
#[case::base_without(json!([{"created_by": "commit"}]), &[LAYER_A, LAYER_B, LAYER_OWN], &["layer", "layer", "windlass"])]
#[case::rubbish(json!({"a": 1}), &[LAYER_A, LAYER_B], &["layer", "layer", "windlass (empty)"])]
fn histories(#[case] history: Value, #[case] layers: &[&str], #[case] expected: &[&str]) {
    let mut committed = committed();
    committed["history"] = history;
    committed["rootfs"]["diff_ids"] = json!(layers);
    let built = rebuild(Some(&base()), &committed, &ImageChanges::default(), &from()).unwrap();
    let short = |entry: &Value| {
        let first = entry["created_by"].as_str().unwrap().split(' ').next().unwrap().to_owned();
        if entry["empty_layer"] == true { format!("{first} (empty)") } else { first }
    };
    assert_eq!(built["history"].as_array().unwrap().iter().map(short).collect::<Vec<_>>(), expected);
}

/// What Docker's own builder writes for labels that it is given: an entry each, last.
#[test]
fn a_label_of_ours_leaves_no_trace() {
    let layer = json!({"created_by": "/bin/sh -c echo LABEL windlass.dev/commit=x > /v"});
    let theirs = json!({"created_by": "/bin/sh -c #(nop)  LABEL by=1.4", "empty_layer": true});
    let ours = json!({"created_by": "/bin/sh -c #(nop)  LABEL windlass.dev/commit=uid/built-1", "empty_layer": true});
    let labels = json!({"by": "1.4", "windlass.dev/commit": "uid/built-1"});
    let mut config = json!({"config": {"Labels": labels}, "history": [layer, theirs, ours]});
    forget_label(&mut config, "windlass.dev/commit");
    assert_eq!(config, json!({"config": {"Labels": {"by": "1.4"}}, "history": [layer, theirs]}));
    let mut none = json!({"config": {}});
    forget_label(&mut none, "windlass.dev/commit");
    assert_eq!(none, json!({"config": {}}));
}

#[rstest]
#[case::no_layers("/rootfs/diff_ids", json!([]), "no usable list of layers")]
#[case::no_digest("/rootfs/diff_ids", json!(["sha256:short"]), "no usable list of layers")]
#[case::no_os("/os", json!(""), "has no os")]
#[case::no_architecture("/architecture", Value::Null, "has no architecture")]
#[case::other_base("/rootfs/diff_ids", json!([LAYER_B, LAYER_OWN]), "does not begin with the layers")]
fn documents_that_do_not_fit_are_refused(#[case] at: &str, #[case] value: Value, #[case] message: &str) {
    let mut committed = committed();
    *committed.pointer_mut(at).unwrap() = value;
    let error = rebuild(Some(&base()), &committed, &ImageChanges::default(), &from()).unwrap_err();
    assert_eq!(error.reason, reason::COMMIT_FAILED);
    assert!(error.message.contains(message), "{error}");
}

#[test]
fn env_keeps_its_order_and_odd_entries() {
    let base = json!(["A=1", "ODD", "B=2", "=x"]);
    let changes = [("B".into(), "3".into()), ("C".into(), "=".into()), ("ODD".into(), String::new())];
    assert_eq!(merged_env(Some(&base), &changes), ["A=1", "ODD=", "B=3", "=x", "C=="]);
}

prop_compose! {
    fn json_text()(text in "[ -~é]{0,12}") -> Value { text.into() }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        json_text()
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z]{1,8}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    /// Whatever the engine says about the container and the history, nothing of the container gets through and
    /// history and layers agree.
    #[test]
    fn nothing_of_the_container_gets_through(
        history in prop::collection::vec((any::<bool>(), "[a-z]{1,5}"), 0..6),
        own_layer in any::<bool>(),
        secret in "hunter2-[a-z]{4}",
    ) {
        let mut committed = committed();
        let entry = |(empty, by): &(bool, String)| json!({"created_by": by, "empty_layer": empty, "x": secret});
        let mut entries: Vec<Value> = history.iter().map(entry).collect();
        entries.push(json!({"created_by": secret, "comment": secret}));
        committed["history"] = entries.into();
        committed["config"]["Env"] = json!([format!("TOKEN={secret}")]);
        committed["config"]["Labels"] = json!({"annotation.x": secret, secret.clone(): "1"});
        committed["config"]["Cmd"] = json!([secret]);
        committed["container_config"] = json!({"Env": [secret]});
        if !own_layer {
            committed["rootfs"]["diff_ids"] = json!([LAYER_A, LAYER_B]);
        }
        let built = rebuild(Some(&base()), &committed, &ImageChanges::default(), &from()).unwrap();
        prop_assert!(!built.to_string().contains("hunter2"), "{}", built);
        let filled = built["history"].as_array().unwrap().iter().filter(|entry| entry["empty_layer"] != true).count();
        prop_assert_eq!(filled, if own_layer { 3 } else { 2 });
        let ours = |entry: &&Value| entry["created_by"].as_str().is_some_and(|by| by.starts_with("windlass "));
        prop_assert_eq!(built["history"].as_array().unwrap().iter().filter(ours).count(), 1);
    }

    #[test]
    fn any_document_is_taken_or_refused(base in any_json(), committed in any_json(), config in any_json()) {
        let _ = rebuild(Some(&base), &committed, &all_changes(), &from());
        let mut known = self::committed();
        known["config"] = config.clone();
        let base = json!({"config": config, "author": base, "rootfs": committed});
        let _ = rebuild(Some(&base), &known, &all_changes(), &from());
    }

    #[test]
    fn the_same_input_gives_the_same_bytes(labels in prop::collection::btree_map("[a-z.]{1,8}", "[a-z]{0,4}", 0..6)) {
        let changes = ImageChanges { labels, ..all_changes() };
        prop_assert_eq!(built(&changes).to_string(), built(&changes).to_string());
        prop_assert_eq!(sorted(built(&changes)).to_string(), built(&changes).to_string());
    }
}
