use super::*;
use serde_json::json;

fn said(status: &Value, ask: &Ask<'_>) -> (Exit, String) {
    let status: Status = serde_json::from_value(status.clone()).expect("a status");
    let stop = answer(&status, ask, "team-a", "windlass");
    let Stop::Faults(faults) = &stop else { panic!("{stop:?}") };
    (stop.exit(), faults.iter().map(|f| f.render(false)).collect())
}

#[test]
fn forbidden_names_who_what_and_the_role() {
    let status = json!({"code": 403, "reason": "Forbidden", "message":
        "pipelineruns.windlass.dev is forbidden: User \"ann\" cannot create resource \"pipelineruns\" in API group \
         \"windlass.dev\" in the namespace \"team-a\""});
    let (exit, text) = said(&status, &Ask::runs("create"));
    assert_eq!(exit, Exit::Denied);
    assert_eq!(
        text,
        "error[Forbidden]: ann may not create pipelineruns in team-a\nhint: needs ClusterRole windlass-edit\n"
    );
    let policy = json!({"code": 403, "reason": "Forbidden", "message": "exceeded quota: runs"});
    assert!(said(&policy, &Ask::runs("create")).1.contains("exceeded quota: runs"));
}

#[test]
fn a_missing_group_is_not_a_missing_run() {
    let group = json!({"code": 404, "reason": "NotFound", "message": "404 page not found"});
    let (exit, text) = said(&group, &Ask::runs("list"));
    assert_eq!(exit, Exit::World);
    assert!(text.starts_with("error[NotInstalled]: this cluster has no windlass.dev/v1alpha1\n"), "{text}");
    let run = json!({"code": 404, "reason": "NotFound", "message": "pipelineruns.windlass.dev \"x\" not found",
        "details": {"name": "x", "group": "windlass.dev", "kind": "pipelineruns"}});
    let (exit, text) = said(&run, &Ask::run("patch", "x"));
    assert_eq!((exit, text.as_str()), (Exit::NotFound, "error[NotFound]: no pipelinerun \"x\" in namespace team-a\n"));
    let namespace = json!({"code": 404, "reason": "NotFound", "message": "namespaces \"nope\" not found",
        "details": {"name": "nope", "kind": "namespaces"}});
    assert!(said(&namespace, &Ask::runs("create")).1.contains("no namespace \"nope\""));
}

#[test]
fn a_run_is_made_once() {
    let status = json!({"code": 409, "reason": "AlreadyExists", "message": "pipelineruns \"hello-1\" already exists"});
    let (exit, text) = said(&status, &Ask::run("create", "hello-1"));
    assert_eq!(exit, Exit::Usage);
    assert!(text.starts_with("error[AlreadyExists]: a run \"hello-1\" exists already in namespace team-a"), "{text}");
    assert!(text.contains("hint: write metadata.generateName instead of name"), "{text}");
}

/// A refusal as the API server gives it for a run with these causes.
fn refusal(causes: &[(&str, &str)]) -> Value {
    let causes: Vec<Value> =
        causes.iter().map(|(f, m)| json!({"reason": "FieldValueInvalid", "field": f, "message": m})).collect();
    json!({"code": 422, "reason": "Invalid", "message": "PipelineRun \"x\" is invalid: …",
        "details": {"name": "x", "kind": "PipelineRun", "causes": causes}})
}

#[test]
fn refused_fields_are_named_with_their_step() {
    let object = json!({"kind": "PipelineRun", "metadata": {"name": "x"},
        "spec": {"pipelineSpec": {"steps": [{"name": "build"}, {"name": "test"}, {"name": "deploy"}]}}});
    let status = refusal(&[
        ("spec.pipelineSpec.steps[2]", "Invalid value: \"object\": set exactly one of script, dockerPush and shell"),
        ("spec.pipelineSpec.timeout", "Invalid value: \"string\": must be a duration such as 90s, 5m or 1h30m"),
        ("spec.pipelineSpec.box.image", "Required value"),
        ("spec.pipelineSpec.retries", "Invalid value: 9: spec.retries in body should be less than or equal to 5"),
        (
            "<nil>",
            "Invalid value: \"null\": some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        ),
    ]);
    let (exit, text) = said(&status, &Ask::object("create", "pipelineruns", &object, "hello.yaml"));
    assert_eq!(exit, Exit::Usage);
    assert_eq!(
        text,
        "\
error[InvalidStep]: hello.yaml: spec.pipelineSpec.steps[2] (deploy): set exactly one of script, dockerPush and shell
error[InvalidPipeline]: hello.yaml: spec.pipelineSpec.timeout: must be a duration such as 90s, 5m or 1h30m
error[InvalidPipeline]: hello.yaml: spec.pipelineSpec.box.image: is required
error[InvalidPipeline]: hello.yaml: spec.pipelineSpec.retries: 9: should be less than or equal to 5
  nothing was started
"
    );
}

#[test]
fn unknown_fields_are_listed() {
    let strict = json!({"code": 400, "reason": "BadRequest", "message": "PipelineRun in version \"v1alpha1\" cannot be \
        handled as a PipelineRun: strict decoding error: unknown field \"spec.pipelineSpec.stepz\", unknown field \"spec.x\""});
    let object = json!({"kind": "PipelineRun"});
    let (exit, text) = said(&strict, &Ask::object("create", "pipelineruns", &object, "hello.yaml"));
    assert_eq!(exit, Exit::Usage);
    assert_eq!(
        text,
        "error[UnknownKey]: hello.yaml: spec.pipelineSpec.stepz: no such field\n\
         error[UnknownKey]: hello.yaml: spec.x: no such field\n  nothing was started\n"
    );
    let apply = json!({"code": 500, "reason": "InternalError", "message":
        "failed to create typed patch object (default/p; windlass.dev/v1alpha1, Kind=Pipeline): .spec.stepz: field not declared in schema"});
    let (exit, text) = said(&apply, &Ask::object("patch", "pipelines", &object, "p.yaml"));
    assert_eq!((exit, text.as_str()), (Exit::Usage, "error[UnknownKey]: p.yaml: spec.stepz: no such field\n"));
}

#[test]
fn other_answers_are_the_worlds_fault() {
    let status = json!({"code": 503, "reason": "ServiceUnavailable", "message": "etcd is away"});
    let (exit, text) = said(&status, &Ask::runs("list"));
    assert_eq!(
        (exit, text.as_str()),
        (Exit::World, "error[ClusterError]: the cluster answered 503: \"etcd is away\"\n")
    );
    assert_eq!(said(&json!({"code": 401, "message": "Unauthorized"}), &Ask::runs("list")).0, Exit::Denied);
}

#[test]
fn a_field_that_somebody_else_has_set_is_named() {
    let status = json!({
        "code": 409, "reason": "Conflict",
        "message": "Apply failed with 1 conflict: conflict with \"kubectl\" using v1: .data.a",
        "details": {"causes": [{"reason": "FieldManagerConflict", "message": "conflict", "field": ".data.a"}]},
    });
    let object = json!({"metadata": {"name": "settings"}});
    let (exit, text) = said(&status, &Ask::object("patch", "configmaps", &object, "stdin"));
    assert_eq!(exit, Exit::Usage);
    assert_eq!(
        text,
        "error[FieldConflict]: stdin: configmaps \"settings\": kubectl has set .data.a to something else\n  \
         no run was started\nhint: kubectl apply --server-side --force-conflicts -f -   or take it out of the file\n"
    );
}
