use super::*;
use rstest::rstest;

fn run() -> PipelineRun {
    serde_yaml::from_str(
        "{apiVersion: windlass.dev/v1alpha1, kind: PipelineRun, metadata: {name: r, namespace: n, uid: u-1},
          spec: {}, status: {buildNumber: 7}}",
    )
    .unwrap()
}

fn spec(yaml: &str) -> PipelineSpec {
    serde_yaml::from_str(yaml).unwrap()
}

fn settings() -> PodSettings {
    let prepare = Resources {
        requests: BTreeMap::from([("memory".into(), Quantity("32Mi".into()))]),
        limits: BTreeMap::from([("memory".into(), Quantity("256Mi".into()))]),
    };
    let agent_nodes = BTreeMap::from([("build".to_owned(), "yes".to_owned()), ("disk".to_owned(), "ssd".to_owned())]);
    PodSettings { image: "windlass:test".into(), prepare, agent_nodes, ..Default::default() }
}

/// What `prepare` will read, as the API server and the kubelet hand it over.
fn order_of(pod: &Pod) -> wire::Order {
    let prepare = pod.spec.as_ref().unwrap().containers.iter().find(|c| c.name == PREPARE).unwrap();
    let pieces = prepare.env.as_ref().unwrap().iter().filter(|e| e.name.starts_with(wire::ORDER_VARIABLE));
    let text: String = pieces.map(|e| e.value.clone().unwrap().replace("$$", "$")).collect();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_large_order_travels_in_pieces_and_comes_back_whole() {
    let script = "echo '$$$HOME $(date) ü'\n".repeat(9000);
    let steps = serde_json::json!({"box": {"image": "a:1"}, "steps": [{"name": "s", "script": script}]});
    let spec: PipelineSpec = serde_json::from_value(steps).unwrap();
    let pod = pod(&run(), &spec, 1, &settings(), 1000);
    let prepare = &pod.spec.as_ref().unwrap().containers[0];
    let pieces = prepare.env.as_ref().unwrap();
    assert!(pieces.len() > 3 && pieces.iter().all(|p| p.value.as_ref().is_none_or(|text| text.len() < 128 * 1024)));
    let order = order_of(&pod);
    assert_eq!(order.steps[0].work, wire::StepWork::Script(script));
    assert_eq!(order.deadline_ms, 3_601_000);
    assert_eq!((order.run.name.as_str(), order.run.uid.as_str(), order.run.build_number), ("r", "u-1", 7));
}

#[test]
fn a_watch_step_is_the_runners_and_has_what_is_left_of_the_run() {
    let spec = spec(
        "{box: {image: 'a:1'}, steps: [{name: w, watch: {code: serve, reload: true, ignore: ['*.o'], ports: [80]}},
          {name: t, timeout: 5m, watch: {code: serve}}]}",
    );
    let order = order_of(&pod(&run(), &spec, 2, &settings(), 0));
    let work = wire::WatchWork { code: "serve".into(), reload: true, ignore: vec!["*.o".into()], ports: vec![80] };
    assert_eq!(order.steps[0].work, wire::StepWork::Watch(work));
    assert_eq!((order.steps[0].timeout_s, order.steps[0].no_output_timeout_s), (None, None));
    assert_eq!((order.steps[1].timeout_s, order.steps[1].no_output_timeout_s), (Some(300), None));
    assert_eq!(order.run.pod, "r-2");
}

#[test]
fn no_secret_reaches_the_box() {
    let spec = spec(
        "{box: {image: 'a:1', env: [{name: X, secretKeyRef: {name: k, key: a}}]}, env: [{name: Y, secretKeyRef: {name: k, key: b}}],
          steps: [{name: p, dockerPush: {repository: h.io/a, credentials: {secretName: login}}}]}",
    );
    let pod = pod(&run(), &spec, 1, &settings(), 0).spec.unwrap();
    let boxed = pod.containers.iter().find(|c| c.name == BOX).unwrap();
    assert!(boxed.env.is_none() && boxed.env_from.is_none());
    let mounts: Vec<&str> = boxed.volume_mounts.as_ref().unwrap().iter().map(|m| m.name.as_str()).collect();
    assert_eq!(mounts, ["in", "out", "disk"]);
    assert_eq!(pod.automount_service_account_token, Some(false));
    let modes: Vec<_> =
        pod.volumes.unwrap().into_iter().filter_map(|v| Some((v.name, v.secret?.default_mode?))).collect();
    assert_eq!(modes, [("secret-0".into(), 0o444), ("push-0".into(), 0)]);
}

#[test]
fn what_a_push_logs_in_with_is_for_the_agent_alone() {
    let spec = spec(
        "{box: {image: 'a:1'}, env: [{name: U, secretKeyRef: {name: login, key: user}}, {name: P, secretKeyRef: {name: login, key: pass}},
            {name: O, secretKeyRef: {name: other, key: o}}],
          steps: [{name: s, script: 'echo $O'}, {name: p, dockerPush: {repository: $U/a, username: $U, password: $P}}]}",
    );
    let pod = pod(&run(), &spec, 1, &settings(), 0);
    let order = order_of(&pod);
    let given: Vec<_> =
        order.env.iter().map(|item| format!("{item:?}").split('"').nth(1).unwrap().to_owned()).collect();
    assert_eq!((given, order.withheld), (vec!["U".to_owned(), "O".into()], vec!["P".to_owned()]));
    let keys: Vec<_> = order.login_keys.iter().map(|login| (login.variable.as_str(), login.key.as_str())).collect();
    assert_eq!(keys, [("P", "pass"), ("U", "user")]);
    let volumes = pod.spec.as_ref().unwrap().volumes.iter().flatten();
    let secrets: Vec<_> = volumes
        .filter_map(|v| {
            Some((v.name.as_str(), v.secret.as_ref()?.secret_name.as_deref()?, v.secret.as_ref()?.default_mode?))
        })
        .collect();
    assert_eq!(secrets, [("secret-0", "login", 0o444), ("secret-1", "other", 0o444), ("push-0", "login", 0)]);
}

#[test]
fn services_are_native_sidecars_with_names_on_localhost() {
    let spec = spec(
        "{box: {image: 'a:1'}, steps: [{name: s, script: x}], services: [
          {name: db, image: 'p:1', readiness: {tcp: 5432, within: 1m}, env: [{name: P, value: 'a$b'}]},
          {name: q, image: 'q:1', readiness: {exec: {command: [ok]}, within: 3s}, command: [run], user: '7:8'}]}",
    );
    let pod = pod(&run(), &spec, 1, &settings(), 0);
    assert_eq!(
        order_of(&pod).services,
        [wire::ServiceCheck { name: "db".into(), port: 5432, http_path: None, within_s: 60 }]
    );
    insta::assert_yaml_snapshot!(pod.spec.as_ref().unwrap().init_containers);
    let hosts = pod.spec.unwrap().host_aliases.unwrap().remove(0);
    assert_eq!(hosts.hostnames.unwrap(), ["db", "q"]);
}

#[test]
fn a_service_may_have_as_few_rights_as_the_box() {
    let rights = "{runAsNonRoot: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}";
    let spec = spec(&format!(
        "{{box: {{image: 'a:1', user: '7:8', securityContext: {rights}}}, steps: [{{name: s, script: x}}],
          services: [{{name: db, image: 'p:1', user: '7:8', securityContext: {rights}}}]}}"
    ));
    let pod = pod(&run(), &spec, 1, &settings(), 0).spec.unwrap();
    let service = pod.init_containers.unwrap().remove(0).security_context.unwrap();
    let boxed = pod.containers.into_iter().find(|c| c.name == BOX).unwrap().security_context.unwrap();
    assert_eq!(service, boxed);
    assert_eq!(service.capabilities.unwrap().drop.unwrap(), ["ALL"]);
    assert_eq!((service.run_as_non_root, service.allow_privilege_escalation), (Some(true), Some(false)));
}

#[rstest]
#[case::scripts_go_anywhere("steps: [{name: s, script: x}]", "[]")]
#[case::a_push_goes_where_agents_are(
    "steps: [{name: s, dockerPush: {repository: h.io/a}}]",
    r#"[("build", "yes"), ("disk", "ssd")]"#
)]
#[case::so_does_one_after_the_steps(
    "steps: [{name: s, script: x}], afterSteps: [{name: k, storeContainer: {}}]",
    r#"[("build", "yes"), ("disk", "ssd")]"#
)]
#[case::the_pipeline_may_want_others(
    "nodeSelector: {disk: hdd, zone: a}, steps: [{name: s, dockerPush: {repository: h.io/a}}]",
    r#"[("build", "yes"), ("disk", "hdd"), ("zone", "a")]"#
)]
fn a_run_goes_to_a_node_that_can_do_its_steps(#[case] rest: &str, #[case] expected: &str) {
    let pod = pod(&run(), &spec(&format!("{{box: {{image: 'a:1'}}, {rest}}}")), 1, &settings(), 0);
    let selector: Vec<_> = pod.spec.unwrap().node_selector.unwrap().into_iter().collect();
    assert_eq!(format!("{selector:?}"), expected);
}

#[test]
fn the_minimal_pod() {
    insta::assert_yaml_snapshot!(pod(
        &run(),
        &spec("{box: {image: 'a:1', user: '1000'}, steps: [{name: s, script: x}]}"),
        2,
        &settings(),
        0
    ));
}
