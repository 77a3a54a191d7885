use super::*;
use crate::{
    agent::fixture::run,
    api::status::{ImageStatus, Report, ReportResult, StepPhase, StepStatus},
};
use http::{Request, Response};
use kube::client::Body;
use rstest::rstest;
use std::sync::{Arc, Mutex};

/// Lines and bodies of requests.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// An API server that keeps what it is asked and answers with these codes in turn.
fn api(answers: &[(u16, Value)]) -> (ApiSink, Asked) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let answers = Arc::new(Mutex::new(answers.to_vec()));
    let kept = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (kept, answers) = (kept.clone(), answers.clone());
        async move {
            let line = format!("{} {}", request.method(), request.uri());
            let bytes = request.into_body().collect_bytes().await.unwrap();
            kept.lock().unwrap().push((line, serde_json::from_slice(&bytes).unwrap_or_default()));
            let (code, body) = answers.lock().unwrap().remove(0);
            let body = Body::from(serde_json::to_vec(&body).unwrap());
            Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    (ApiSink::new(Client::new(service, "default"), "n1"), asked)
}

fn status() -> AgentStatus {
    let image = ImageStatus { repository: "r.io/a".into(), tags: Vec::new(), digest: "sha256:aa".into(), size: None };
    let steps = vec![
        StepStatus { name: "build".into(), phase: StepPhase::Succeeded, exit_code: Some(0), ..StepStatus::default() },
        StepStatus { name: "push".into(), phase: StepPhase::Running, images: vec![image], ..StepStatus::default() },
    ];
    let report = Report { attempt: 1, result: ReportResult::Passed, ..Report::default() };
    let summary_steps = Some("1/2".into());
    AgentStatus { source_revision: None, steps, artifacts: Vec::new(), report: Some(report), summary_steps }
}

fn object(uid: &str) -> Value {
    json!({
        "apiVersion": "windlass.dev/v1alpha1", "kind": "PipelineRun",
        "metadata": {"name": "hello-7", "namespace": "team", "uid": uid}, "spec": {},
    })
}

fn refusal(code: u16) -> (u16, Value) {
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no", "reason": ""}),
    )
}

#[tokio::test]
async fn a_write_applies_the_agents_fields_and_nothing_else() {
    let (sink, asked) = api(&[(200, object("11111111-2222-3333-4444-555555555555"))]);
    sink.write(&run(), &status()).await.unwrap();
    let (line, body) = asked.lock().unwrap().remove(0);
    let path = "/apis/windlass.dev/v1alpha1/namespaces/team/pipelineruns/hello-7/status";
    assert_eq!(line, format!("PATCH {path}?&force=true&fieldManager=windlass-agent"));
    assert_eq!(
        body,
        json!({
            "apiVersion": "windlass.dev/v1alpha1",
            "kind": "PipelineRun",
            "metadata": {"name": "hello-7", "namespace": "team", "uid": "11111111-2222-3333-4444-555555555555"},
            "status": {
                "steps": [
                    {"name": "build", "phase": "Succeeded", "exitCode": 0},
                    {"name": "push", "phase": "Running", "images": [{"repository": "r.io/a", "digest": "sha256:aa"}]},
                ],
                "report": {"attempt": 1, "result": "Passed"},
                "summary": {"steps": "1/2"},
            },
        })
    );
}

#[tokio::test]
async fn a_run_that_is_gone_is_told_from_trouble() {
    let (sink, _) = api(&[refusal(404)]);
    assert!(matches!(sink.write(&run(), &status()).await, Err(WriteError::Gone)));
    let (sink, _) = api(&[refusal(409), (200, object("another"))]);
    assert!(matches!(sink.write(&run(), &status()).await, Err(WriteError::Gone)));
    let (sink, _) = api(&[refusal(409), (200, object("11111111-2222-3333-4444-555555555555"))]);
    assert!(matches!(sink.write(&run(), &status()).await, Err(WriteError::Failed(_))));
    let (sink, _) = api(&[refusal(403)]);
    assert!(matches!(sink.write(&run(), &status()).await, Err(WriteError::Failed(_))));
}

/// A run as the API server has it now.
fn current(change: impl FnOnce(&mut Value)) -> (u16, Value) {
    let run = run();
    let mut object = object(&run.uid);
    object["metadata"]["resourceVersion"] = json!("41");
    object["status"] = json!({
        "pipelineSpec": {"box": {"image": "debian"}, "steps": [{"name": "build", "script": "make"}]},
        "podUID": run.pod_uid, "attempt": run.attempt,
    });
    change(&mut object);
    (200, object)
}

#[tokio::test]
async fn a_last_write_is_bound_to_the_version_that_was_read() {
    let (sink, asked) = api(&[
        current(|_| {}),
        refusal(409),
        current(|o| o["metadata"]["resourceVersion"] = json!("42")),
        current(|_| {}),
    ]);
    assert!(sink.write_last(&run(), &status()).await.unwrap());
    let lines: Vec<_> = asked.lock().unwrap().iter().map(|(line, _)| line[..5].to_owned()).collect();
    assert_eq!(lines, ["GET /", "PATCH", "GET /", "PATCH"], "one that came between is read again");
    let version = |n: usize| asked.lock().unwrap()[n].1["metadata"]["resourceVersion"].clone();
    assert_eq!((version(1), version(3)), (json!("41"), json!("42")));
}

#[rstest]
#[case::over(current(|o| o["status"]["completionTime"] = json!("2026-01-01T00:00:00Z")))]
#[case::another_attempt(current(|o| o["status"]["attempt"] = json!(2)))]
#[case::another_pod(current(|o| o["status"]["podUID"] = Value::Null))]
#[case::another_run(current(|o| o["metadata"]["uid"] = json!("another")))]
#[case::gone(refusal(404))]
#[tokio::test]
async fn a_run_that_went_on_without_us_is_not_written(#[case] now: (u16, Value)) {
    let (sink, asked) = api(&[now]);
    assert!(!sink.write_last(&run(), &status()).await.unwrap());
    assert_eq!(asked.lock().unwrap().len(), 1);
}
