//! The definitions on a real API server: the cases of `tests/api` get the answers they name.

use crate::{
    cluster::client,
    fast::crds::{Case, cases, definitions, typed},
};
use futures::{StreamExt, stream};
use http::Method;
use kube::Client;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use windlass::api::{
    PipelineRunStatus,
    run::Param,
    status::{ArtifactStatus, ImageStatus, Report, ReportResult, StepPhase, StepStatus, Summary, moment},
};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const JSON: &str = "application/json";
const APPLY: &str = "application/apply-patch+yaml";
/// How many cases are asked at the same time.
const AT_ONCE: usize = 8;
/// How long the server may take to use new definitions.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the server answers, or the message of its refusal.
async fn send(client: &Client, method: Method, path: &str, content: &str, body: &Value) -> Result<Value, String> {
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
    let request = http::Request::builder().method(method).uri(path).header("content-type", content).body(body);
    client.request::<Value>(request.unwrap()).await.map_err(|error| match error {
        kube::Error::Api(status) => status.message.clone(),
        other => panic!("{path}: {other}"),
    })
}

async fn get(client: &Client, path: &str) -> Result<Value, String> {
    send(client, Method::GET, path, JSON, &Value::Null).await
}

/// Makes the server use exactly our definitions, whoever applied which before.
async fn install(client: &Client) {
    for crd in definitions() {
        let path = format!("{CRDS}/{}", crd["metadata"]["name"].as_str().unwrap());
        let deadline = Instant::now() + PATIENCE;
        loop {
            let done = match get(client, &path).await {
                Err(_) => send(client, Method::POST, CRDS, JSON, crd).await,
                Ok(mut live) => {
                    live["spec"] = crd["spec"].clone();
                    send(client, Method::PUT, &path, JSON, &live).await
                }
            };
            match done {
                Ok(_) => break,
                Err(message) => assert!(Instant::now() < deadline, "{message}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while !in_use(client).await {
        assert!(Instant::now() < deadline, "the server does not publish the new definitions");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Whether what the server publishes holds all that our definitions say.
async fn in_use(client: &Client) -> bool {
    let Ok(published) = get(client, "/openapi/v3/apis/windlass.dev/v1alpha1").await else { return false };
    definitions().iter().all(|crd| {
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        let ours = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        holds(&published["components"]["schemas"][format!("dev.windlass.v1alpha1.{kind}")]["properties"], ours)
    })
}

/// Whether `all` has at least what `part` has.
fn holds(all: &Value, part: &Value) -> bool {
    match (all, part) {
        (Value::Object(all), Value::Object(part)) => {
            part.iter().all(|(key, part)| all.get(key).is_some_and(|all| holds(all, part)))
        }
        _ => all == part,
    }
}

/// A namespace for one test; `body` returns what went wrong.
async fn in_namespace(body: impl AsyncFnOnce(&Client, &str) -> Vec<String>) {
    let client = client().await;
    install(&client).await;
    let namespace = json!({"metadata": {"generateName": "windlass-crds-"}});
    let made = send(&client, Method::POST, "/api/v1/namespaces", JSON, &namespace).await.unwrap();
    let name = made["metadata"]["name"].as_str().unwrap();
    let wrong = body(&client, name).await;
    send(&client, Method::DELETE, &format!("/api/v1/namespaces/{name}"), JSON, &Value::Null).await.unwrap();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Where objects of this one's kind are.
fn collection(namespace: &str, object: &Value) -> String {
    let plural = format!("{}s", object["kind"].as_str().unwrap().to_lowercase());
    format!("/apis/windlass.dev/v1alpha1/namespaces/{namespace}/{plural}")
}

async fn create(client: &Client, namespace: &str, object: &Value, how: &str) -> Result<Value, String> {
    let path = format!("{}?fieldValidation=Strict{how}", collection(namespace, object));
    send(client, Method::POST, &path, JSON, object).await
}

/// Applies an object to its status, as the agent and the controller do.
async fn apply_status(client: &Client, namespace: &str, object: &Value, how: &str) -> Result<Value, String> {
    let name = object["metadata"]["name"].as_str().unwrap();
    let path = format!("{}/{name}/status", collection(namespace, object));
    let path = format!("{path}?fieldManager=test&force=true&fieldValidation=Strict{how}");
    send(client, Method::PATCH, &path, APPLY, object).await
}

const DRY: &str = "&dryRun=All";

/// Plays a case up to its last document, and returns the answer to that.
async fn play(client: &Client, namespace: &str, case: &Case) -> Result<Value, String> {
    let mut documents = case.documents.clone();
    let updates = case.stem.starts_with("update-");
    let states = case.stem.starts_with("status-");
    if !updates && !states {
        assert_eq!(documents.len(), 1, "{}", case.stem);
        return create(client, namespace, &documents[0], DRY).await;
    }
    // Cases run at the same time, so each has an object of its own.
    for document in &mut documents {
        document["metadata"]["name"] = case.stem.clone().into();
    }
    let made = create(client, namespace, &documents[0], "").await.unwrap();
    if states {
        apply_status(client, namespace, &documents[1], "").await.unwrap();
        return apply_status(client, namespace, &documents[2], DRY).await;
    }
    documents[1]["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    let path = format!("{}/{}?fieldValidation=Strict{DRY}", collection(namespace, &made), case.stem);
    send(client, Method::PUT, &path, JSON, &documents[1]).await
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_its_message() {
    in_namespace(async |client, namespace| {
        let verdict = async |case: Case| match play(client, namespace, &case).await {
            Ok(_) => Some(format!("{} was accepted", case.stem)),
            Err(message) if message.contains(&case.head) => None,
            Err(message) => Some(format!("{}: wanted {:?}, got: {message}", case.stem, case.head)),
        };
        stream::iter(cases("reject")).map(verdict).buffer_unordered(AT_ONCE).filter_map(async |v| v).collect().await
    })
    .await;
}

#[tokio::test]
async fn what_is_right_is_accepted_and_read_as_stored() {
    in_namespace(async |client, namespace| {
        let mut wrong = Vec::new();
        for Case { stem, documents, .. } in cases("accept") {
            for object in documents {
                match create(client, namespace, &object, DRY).await {
                    Err(message) => wrong.push(format!("{stem} was refused: {message}")),
                    Ok(stored) => match typed(&stored) {
                        Ok(read) if read["spec"] == stored["spec"] => {}
                        Ok(read) => wrong.push(format!("{stem}: {} was read as {}", stored["spec"], read["spec"])),
                        Err(error) => wrong.push(format!("{stem} was not read: {error}")),
                    },
                }
            }
        }
        wrong
    })
    .await;
}

/// A status with every field, so that none can be missing from the schema.
fn status() -> PipelineRunStatus {
    let time = || serde_json::from_value(json!("2026-01-02T03:04:05Z")).unwrap();
    let condition = json!({"type": "Succeeded", "status": "True", "reason": "Succeeded", "message": "1 step in 2s",
        "lastTransitionTime": "2026-01-02T03:04:05Z", "observedGeneration": 1});
    PipelineRunStatus {
        observed_generation: Some(1),
        phase: Some("Succeeded".into()),
        reason_time: Some(time()),
        conditions: vec![serde_json::from_value(condition).unwrap()],
        pipeline_spec: Some(json!({"box": {"image": "a:1"}, "steps": [{"name": "s", "script": "x"}], "later": 1})),
        params: vec![Param { name: "stage".into(), value: "test".into() }],
        build_number: Some(7),
        attempt: Some(1),
        pod_name: Some("r-1".into()),
        pod_uid: Some("0123".into()),
        node_name: Some("windlass-test-node".into()),
        start_time: Some(time()),
        completion_time: Some(time()),
        source_revision: Some("abc".into()),
        steps: vec![StepStatus {
            name: "s".into(),
            phase: StepPhase::Succeeded,
            reason: Some("ExitCode".into()),
            message: Some("ended".into()),
            exit_code: Some(-1),
            attempts: Some(2),
            started_at: Some(moment(time().0)),
            finished_at: Some(moment(time().0)),
            images: vec![ImageStatus {
                repository: "registry.example.com/team/app".into(),
                tags: vec!["latest".into()],
                digest: "sha256:0123".into(),
                size: Some(1 << 40),
            }],
            addresses: vec!["http://10.0.0.1:5000".into()],
            results: [("version".to_owned(), "1.4".to_owned())].into(),
        }],
        artifacts: vec![ArtifactStatus {
            name: "report".into(),
            location: Some("file:///report".into()),
            digest: Some("sha256:4567".into()),
            size: Some(1),
        }],
        report: Some(Report {
            attempt: 1,
            result: ReportResult::Passed,
            reason: Some("StepFailed".into()),
            failed_step: Some("s".into()),
            message: Some("ended".into()),
            finished_at: Some(moment(time().0)),
        }),
        summary: Some(Summary {
            steps: Some("1/1".into()),
            duration: Some("2s".into()),
            image: Some("registry.example.com/team/app:latest".into()),
            digest: Some("sha256:0123".into()),
        }),
    }
}

#[tokio::test]
async fn every_field_of_the_status_is_kept_and_runs_are_found_by_node() {
    in_namespace(async |client, namespace| {
        let status = serde_json::to_value(status()).unwrap();
        let head = json!({"apiVersion": "windlass.dev/v1alpha1", "kind": "PipelineRun", "metadata": {"name": "r"}});
        let (mut run, mut state) = (head.clone(), head);
        run["spec"] = json!({"pipelineRef": {"name": "p"}});
        state["status"] = status.clone();
        create(client, namespace, &run, "").await.unwrap();
        let kept = apply_status(client, namespace, &state, "").await.unwrap()["status"].clone();
        let mut wrong = Vec::new();
        if kept != status {
            wrong.push(format!("{kept} is not {status}"));
        }
        for (node, expected) in [("windlass-test-node", 1), ("other", 0)] {
            let path = format!("{}?fieldSelector=status.nodeName%3D{node}", collection(namespace, &run));
            let found = get(client, &path).await.unwrap()["items"].as_array().map(Vec::len);
            if found != Some(expected) {
                wrong.push(format!("{found:?} runs on node {node}"));
            }
        }
        wrong
    })
    .await;
}
