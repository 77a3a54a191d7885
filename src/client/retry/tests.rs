use super::*;

fn old(yaml: &str) -> DynamicObject {
    serde_yaml::from_str(yaml).expect("a run")
}

#[test]
fn a_retry_runs_what_was_frozen() {
    let run = old("
        apiVersion: windlass.dev/v1alpha1
        kind: PipelineRun
        metadata: {name: release-x7k2p, generateName: release-, namespace: team-a, uid: u, labels: {a: b}}
        spec: {pipelineRef: {name: release}, params: [{name: v, value: '1'}], env: [{name: E, value: x}], cancel: Graceful}
        status: {pipelineSpec: {box: {image: 'debian:12'}, params: [{name: v}], steps: []}, params: [{name: v, value: '1'}]}
    ");
    let new = again(&run);
    assert_eq!(
        new,
        json!({
            "apiVersion": "windlass.dev/v1alpha1",
            "kind": "PipelineRun",
            "metadata": {"generateName": "release-retry-", "namespace": "team-a", "labels": {meta::PIPELINE: "release"}},
            "spec": {
                "pipelineSpec": {"box": {"image": "debian:12"}, "params": [{"name": "v"}], "steps": []},
                "params": [{"name": "v", "value": "1"}],
                "env": [{"name": "E", "value": "x"}],
            },
        })
    );
    // A retry of a retry is named after the first.
    let twice = old("
        apiVersion: windlass.dev/v1alpha1
        kind: PipelineRun
        metadata: {name: release-retry-abcde, generateName: release-retry-}
        spec: {}
        status: {pipelineSpec: {}}
    ");
    assert_eq!(again(&twice)["metadata"]["generateName"], "release-retry-");
}

#[test]
fn a_run_that_was_never_resolved_is_asked_for_again() {
    let run = old("
        apiVersion: windlass.dev/v1alpha1
        kind: PipelineRun
        metadata: {name: late, namespace: team-a}
        spec: {pipelineRef: {name: release}, params: [{name: v, value: '1'}], revision: main, cancel: Graceful}
        status: {conditions: [{type: Succeeded, status: 'False', reason: PipelineNotFound}]}
    ");
    let new = again(&run);
    assert_eq!(
        new["spec"],
        json!({"pipelineRef": {"name": "release"}, "params": [{"name": "v", "value": "1"}], "revision": "main"})
    );
    assert_eq!(new["metadata"]["generateName"], "late-retry-");
    assert_eq!(new["metadata"]["labels"], json!({meta::PIPELINE: "release"}));
}

/// A field that is added to runs has to be given a value here, so that somebody thinks of retries.
#[test]
fn all_that_was_asked_for_is_asked_for_again() {
    let schema = serde_json::to_value(schemars::schema_for!(crate::api::run::PipelineRunSpec)).expect("a schema");
    let fields: Vec<String> = schema["properties"].as_object().expect("fields").keys().cloned().collect();
    let spec = json!({
        "pipelineRef": {"name": "release"},
        "pipelineSpec": {"box": {"image": "debian:12"}},
        "params": [{"name": "v", "value": "1"}],
        "env": [{"name": "E", "value": "x"}],
        "source": {"none": {}},
        "revision": "main",
        "timeout": "10m",
        "breakpoint": {"atFailure": true},
        "breakpointTimeout": "2h",
        "priority": 7,
        "cancel": "Graceful",
        "ttlAfterFinished": "1h",
        "podTTLAfterFinished": "2h",
    });
    let mut missing = fields.clone();
    missing.retain(|field| spec.get(field).is_none());
    assert!(missing.is_empty(), "give these fields a value in this test: {missing:?}");
    let run = |status: &Value| -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "windlass.dev/v1alpha1", "kind": "PipelineRun", "metadata": {"name": "x"},
            "spec": spec, "status": status,
        }))
        .expect("a run")
    };
    let resolved = again(&run(&json!({"pipelineSpec": {"frozen": true}})))["spec"].clone();
    for field in &fields {
        let expected = match field.as_str() {
            "pipelineSpec" => json!({"frozen": true}),
            "pipelineRef" | "params" | "cancel" => Value::Null,
            _ => spec[field].clone(),
        };
        assert_eq!(resolved[field], expected, "{field} of a run that was resolved");
        let expected = if field == "cancel" { Value::Null } else { spec[field].clone() };
        assert_eq!(again(&run(&Value::Null))["spec"][field], expected, "{field} of one that was not");
    }
}
