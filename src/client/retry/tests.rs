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
    let new = again(&run).expect("a new run");
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
    assert_eq!(again(&twice).expect("a new run")["metadata"]["generateName"], "release-retry-");
}

#[test]
fn a_run_that_was_never_resolved_cannot_be_retried() {
    let run = old("{apiVersion: windlass.dev/v1alpha1, kind: PipelineRun, metadata: {name: x}, spec: {}}");
    let Err(stop) = again(&run) else { panic!("retried") };
    assert_eq!(stop.exit(), Exit::NotFound);
}
