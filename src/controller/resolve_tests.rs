use super::*;

fn pipeline(yaml: &str) -> PipelineSpec {
    serde_yaml::from_str(yaml).unwrap()
}

fn run(yaml: &str) -> PipelineRunSpec {
    serde_yaml::from_str(yaml).unwrap()
}

const MINIMAL: &str = "{box: {image: 'a:1'}, steps: [{name: s, script: x}]}";

#[track_caller]
fn refused(run_yaml: &str, pipeline_yaml: &str, reason: &str, message: &str) {
    let refusal = resolve(&run(run_yaml), &pipeline(pipeline_yaml)).unwrap_err();
    assert_eq!((refusal.reason, refusal.message.as_str()), (reason, message));
}

#[test]
fn parameters_are_replaced_everywhere_but_in_names() {
    let spec = pipeline(
        "{box: {image: $(params.image)}, params: [{name: image, default: 'b:2'}, {name: n}],
          env: [{name: A, value: 'x$(params.n)y$(params.n)'}], steps: [{name: s, script: 'echo $(params.n) $HOME $(date)'}]}",
    );
    let resolved = resolve(&run("{params: [{name: n, value: '7'}]}"), &spec).unwrap();
    assert_eq!(resolved.spec.box_.image, "b:2");
    assert_eq!(resolved.spec.env[0].value.as_deref(), Some("x7y7"));
    assert_eq!(resolved.spec.steps[0].script.as_deref(), Some("echo 7 $HOME $(date)"));
    assert_eq!(resolved.params.iter().map(|p| p.value.as_str()).collect::<Vec<_>>(), ["b:2", "7"]);
}

#[test]
fn the_run_overrides_environment_timeout_source_and_revision() {
    let spec = pipeline(
        "{box: {image: 'a:1'}, source: {git: {url: 'https://h/x'}}, env: [{name: A, value: '1'}, {name: B, value: '2'}], steps: [{name: s, script: x}]}",
    );
    let resolved = resolve(&run("{env: [{name: A, value: '9'}], timeout: 10m, revision: v2}"), &spec).unwrap().spec;
    assert_eq!(
        resolved.env.iter().map(|e| (e.name.as_str(), e.value.as_deref().unwrap())).collect::<Vec<_>>(),
        [("B", "2"), ("A", "9")]
    );
    assert_eq!(resolved.timeout, "10m");
    assert_eq!(resolved.source.unwrap().git.unwrap().revision.as_deref(), Some("v2"));
    let replaced = resolve(&run("{source: {none: {}}}"), &spec).unwrap().spec.source.unwrap();
    assert!(replaced.none.is_some() && replaced.git.is_none());
}

#[test]
fn parameters_are_judged() {
    let spec = "{box: {image: 'a:1'}, params: [{name: stage, enum: [test, live]}], steps: [{name: s, script: x}]}";
    refused("{}", spec, "InvalidParam", "params: stage has no value and no default; give it in spec.params");
    refused(
        "{params: [{name: stage, value: x}]}",
        spec,
        "InvalidParam",
        "params: stage is \"x\"; allowed are: test, live",
    );
    refused(
        "{params: [{name: stag, value: x}]}",
        spec,
        "InvalidParam",
        "params: the pipeline has no parameter stag; it has: stage",
    );
    let unknown = "{box: {image: 'a:1'}, steps: [{name: s, script: 'x $(params.y)'}]}";
    refused(
        "{}",
        unknown,
        "InvalidParam",
        "steps[0].script: $(params.y) is not a parameter of the pipeline; it has: none",
    );
}

#[test]
fn a_priority_is_not_ignored() {
    let message = "spec.priority: runs do not wait for each other in this version of Windlass; leave it out";
    refused("{priority: 5}", MINIMAL, "InvalidPipeline", message);
}

#[test]
fn a_revision_needs_git() {
    refused(
        "{revision: v1}",
        MINIMAL,
        "InvalidPipeline",
        "spec.revision: the pipeline has no source.git that it could apply to; leave revision out",
    );
}

#[test]
fn image_names_are_judged() {
    let spec = "{box: {image: 'Debian:12'}, steps: [{name: s, script: x}]}";
    refused("{}", spec, "InvalidImageName", "box.image \"Debian:12\": repository names are lower-case");
    let spec = "{box: {image: 'a:1'}, services: [{name: d, image: 'x::'}], steps: [{name: s, script: x}]}";
    refused(
        "{}",
        spec,
        "InvalidImageName",
        "services[0].image \"x::\": it is not an image reference such as debian:12 or registry.example.com/team/app:1.0",
    );
}

#[test]
fn services_cannot_share_a_port() {
    let spec = "{box: {image: 'a:1'}, services: [{name: web, image: n, ports: [80]}, {name: two, image: n, ports: [80]}], steps: [{name: s, script: x}]}";
    refused(
        "{}",
        spec,
        "InvalidPipeline",
        "services[1].ports: 80 is already taken by service web; all services share one network",
    );
}

#[test]
fn a_password_comes_from_a_secret() {
    let spec = |env: &str| {
        format!(
            "{{box: {{image: 'a:1'}}, env: [{env}], steps: [{{name: p, dockerPush: {{repository: a/b, username: u, password: $P}}}}]}}"
        )
    };
    let message = "steps[0].dockerPush.password: $P does not come from a Secret; declare it in env with secretKeyRef, or use credentials";
    refused("{}", &spec("{name: P, value: x}"), "InvalidProperty", message);
    let declared = spec("{name: P, secretKeyRef: {name: s, key: k}}");
    assert!(resolve(&run("{}"), &pipeline(&declared)).is_ok());
    // The run may replace the Secret, but not by a literal.
    refused("{env: [{name: P, value: x}]}", &declared, "InvalidProperty", message);
}

#[test]
fn a_watch_step_is_judged() {
    let spec = |watch: &str| format!("{{box: {{image: 'a:1'}}, steps: [{{name: s, watch: {watch}}}]}}");
    assert!(resolve(&run("{}"), &pipeline(&spec("{code: x, reload: true, ignore: ['*.o'], ports: [80]}"))).is_ok());
    let message = "steps[0].watch.ignore: it counts only with reload: true; set reload or leave it out";
    refused("{}", &spec("{code: x, ignore: ['*.o']}"), "InvalidProperty", message);
}

#[test]
fn what_is_stored_has_a_name_of_its_own_and_a_store() {
    let spec =
        |steps: &str| format!("{{box: {{image: 'a:1'}}, steps: [{{name: s, script: x}}], afterSteps: [{steps}]}}");
    let one =
        resolve(&run("{}"), &pipeline(&spec("{name: a, storeContainer: {name: app, message: 'of $X'}}"))).unwrap();
    assert_eq!(check_store(&one.spec, true), Ok(()));
    let refusal = check_store(&one.spec, false).unwrap_err();
    assert_eq!(refusal.reason, "StoreFailed");
    assert!(refusal.message.starts_with("afterSteps[0].storeContainer: no artifact store is set; "), "{refusal:?}");
    let none = resolve(&run("{}"), &pipeline(&spec(""))).unwrap();
    assert_eq!(check_store(&none.spec, false), Ok(()));
    let twice = spec("{name: a, storeContainer: {}}, {name: b, storeContainer: {name: a}}");
    let message = "afterSteps[1].storeContainer.name: an earlier step stores a; choose another name";
    refused("{}", &twice, "InvalidProperty", message);
}

#[test]
fn what_this_version_cannot_do_is_refused_not_ignored() {
    for (member, path) in [
        ("steps: [{name: s, script: x, when: 'true'}]", "steps[0].when"),
        ("caches: [{name: c, key: k, paths: [x]}], steps: [{name: s, script: x}]", "caches"),
        ("artifacts: [{name: c, paths: [x]}], steps: [{name: s, script: x}]", "artifacts"),
    ] {
        let refusal = resolve(&run("{}"), &pipeline(&format!("{{box: {{image: 'a:1'}}, {member}}}"))).unwrap_err();
        assert_eq!(refusal.message, format!("{path}: this version of Windlass cannot carry it out yet; leave it out"));
    }
}

#[test]
fn breakpoints_are_before_steps_that_there_are() {
    let spec = "{box: {image: 'a:1'}, steps: [{name: a, script: x}, {name: b, script: x}], afterSteps: [{name: c, script: x}]}";
    resolve(&run("{breakpoint: {atFailure: true, before: [a, b]}}"), &pipeline(spec)).unwrap();
    for name in ["lint", "c"] {
        let message = format!("spec.breakpoint.before: the pipeline has no step {name}; it has: a, b");
        refused(&format!("{{breakpoint: {{before: [a, {name}]}}}}"), spec, "InvalidPipeline", &message);
    }
}

#[test]
fn a_shell_is_a_step_whose_command_must_be_words() {
    let spec = |shell: &str| format!("{{box: {{image: 'a:1'}}, steps: [{{name: look, shell: {shell}}}]}}");
    resolve(&run("{}"), &pipeline(&spec("{cmd: 'bash -l', code: 'cd /'}"))).unwrap();
    let refusal = resolve(&run("{}"), &pipeline(&spec("{cmd: \"bash 'x\"}"))).unwrap_err();
    assert_eq!(refusal.reason, "InvalidProperty");
    assert!(refusal.message.starts_with("steps[0].shell.cmd: "), "{}", refusal.message);
}
