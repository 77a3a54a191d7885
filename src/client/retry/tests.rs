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
