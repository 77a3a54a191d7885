//! What the Docker engine does wrong, and what becomes of it: answers cut off, errors inside streams, no sense.

use base64::{Engine as _, engine::general_purpose};
use rstest::rstest;
use serde_json::{Value, json as value};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};
use windlass::engine::{
    BoxContainer, BoxState, CommitKey, CommittedImage, Engine, EngineError,
    docker::{DockerEngine, images::NamedCommit},
};

/// An engine that gives canned answers: (method and beginning of the path, raw response; empty: none ever). What is not
/// listed is 404.
struct FakeEngine {
    requests: Arc<Mutex<Vec<String>>>,
    directory: tempfile::TempDir,
}

impl FakeEngine {
    fn start(answers: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("docker.sock")).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let answers: Vec<(String, String)> =
            answers.iter().map(|(request, answer)| ((*request).to_owned(), (*answer).to_owned())).collect();
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answers.clone(), Arc::clone(&seen)));
            }
        });
        Self { requests, directory }
    }

    fn client(&self) -> DockerEngine {
        DockerEngine::new(self.directory.path().join("docker.sock").to_str().unwrap()).unwrap()
    }

    /// The requests seen, heads only.
    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Answers one request and closes the connection.
async fn serve(mut stream: UnixStream, answers: Vec<(String, String)>, seen: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 65_536 {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let answer = answers.iter().find(|(request, _)| head.starts_with(request)).map(|(_, answer)| answer.clone());
    seen.lock().unwrap().push(head);
    let answer = answer.unwrap_or_else(|| json(404, r#"{"message":"no such thing"}"#));
    if answer.is_empty() {
        return std::future::pending().await;
    }
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn json(status: u16, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// A streamed answer; `whole` says whether its end is sent.
fn stream(lines: &str, whole: bool) -> String {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let end = if whole { "0\r\n\r\n" } else { "" };
    format!("{head}{:x}\r\n{lines}\r\n{end}", lines.len())
}

const TARGET: &str = "127.0.0.1:5999/nonce/x:t";
#[tokio::test]
async fn a_push_sends_no_login() {
    let progress = r#"{"status":"Pushing","progressDetail":{"current":5,"total":9}}"#;
    let fake = FakeEngine::start(&[("POST /images/127.0.0.1", &stream(&format!("{progress}\n"), true))]);
    let seen = Mutex::new(Vec::new());
    fake.client().push(TARGET, &|progress| seen.lock().unwrap().push(progress)).await.unwrap();
    let seen = seen.into_inner().unwrap();
    assert_eq!((seen[0].status.as_str(), seen[0].current_bytes, seen[0].total_bytes), ("Pushing", 5, 9));

    let requests = fake.requests();
    let firsts: Vec<&str> = requests.iter().filter_map(|head| head.lines().next()).collect();
    assert!(firsts[0].starts_with("POST /images/127.0.0.1:5999/nonce/x/push?tag=t"), "{firsts:?}");
    let auth = requests[0].lines().find_map(|line| {
        line.to_ascii_lowercase().starts_with("x-registry-auth:").then(|| line[16..].trim().to_owned())
    });
    let auth: Value = serde_json::from_slice(&general_purpose::STANDARD.decode(auth.unwrap()).unwrap()).unwrap();
    assert!(auth.as_object().unwrap().values().all(Value::is_null), "{auth}");
}

#[rstest]
#[case::error_in_the_stream(
    stream(
        "{\"status\":\"Pushing\"}\n{\"errorDetail\":{\"message\":\"denied by the door\"},\"error\":\"denied\"}\n",
        true
    ),
    "denied by the door"
)]
#[case::error_without_words(stream("{\"errorDetail\":{}}\n", true), "gave no reason")]
#[case::cut_off(stream("{\"status\":\"Pushing\"}\n", false), "")]
#[case::cut_off_at_once("HTTP/1.1 200 OK\r\n".to_owned(), "")]
#[case::nonsense(stream("{\"status\": 5}\n", true), "")]
#[case::refused(json(500, r#"{"message":"no space left on device"}"#), "no space left on device")]
#[tokio::test]
async fn a_push_that_does_not_end_well_is_an_error(#[case] answer: String, #[case] words: &str) {
    let fake = FakeEngine::start(&[("POST /images/127.0.0.1", &answer)]);
    let error = fake.client().push(TARGET, &|_| {}).await.unwrap_err();
    assert!(error.to_string().contains(words), "{error}");
}

#[rstest]
#[case::heard("{\"Id\":\"sha256:1\"}", false)]
#[case::refused("", false)]
#[case::given_up("", true)]
#[tokio::test]
async fn a_commit_that_nobody_waits_for_any_more_is_known(#[case] answer: &str, #[case] silent: bool) {
    let status = if answer.is_empty() { 500 } else { 201 };
    let answer = if silent { String::new() } else { json(status, answer) };
    // Without an answer the connection stays open.
    let fake = FakeEngine::start(&[("GET /containers/c", &json(200, "{}")), ("POST /commit", &answer)]);
    let engine = fake.client();
    let commit = NamedCommit { names: vec!["mine:t".into()], config: value!({}), ..NamedCommit::default() };
    let container = a_box();
    let mut committing = std::pin::pin!(engine.commit_named(&container, &commit));
    if silent {
        let begun = async {
            while !fake.requests().iter().any(|head| head.starts_with("POST /commit")) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            done = &mut committing => panic!("{done:?}"),
            () = begun => {}
        }
    } else {
        let _ = committing.await;
    }
    assert_eq!(engine.may_still_commit(), silent);
}

#[tokio::test]
async fn the_tags_of_a_repository_are_found_under_each_of_its_names() {
    let image = |names: &[&str]| {
        let of_image = value!({"Id": "a", "ParentId": "", "RepoTags": names, "RepoDigests": [], "Created": 1, "Size": 1,
            "SharedSize": -1, "Labels": {}, "Containers": -1});
        of_image.to_string()
    };
    let names = [
        &["team/app:w-deps", "team/app:w-built"][..],
        &["busybox:w-x"],
        &[],
        &["team/apple:w-no", "h:5000/team/app:w-other"],
    ];
    let images = format!("[{}]", names.map(image).join(","));
    let fake = FakeEngine::start(&[("GET /images/json", &json(200, &images))]);
    for (name, tags) in [
        ("team/app", &["w-built", "w-deps"][..]),
        ("docker.io/team/app", &["w-built", "w-deps"]),
        ("docker.io/library/busybox", &["w-x"]),
        ("h:5000/team/app", &["w-other"]),
        ("nobody", &[]),
    ] {
        assert_eq!(fake.client().tags(name).await.unwrap(), tags, "{name}");
    }
}

#[rstest]
#[case(r#"{"State":{"Status":"exited","ExitCode":3}}"#, Some(3))]
#[case(r#"{"State":{"Status":"running","ExitCode":0}}"#, None)]
#[case(r#"{"State":{"Status":"created","ExitCode":0}}"#, None)]
#[tokio::test]
async fn only_a_container_that_has_run_has_an_end(#[case] state: &str, #[case] code: Option<i32>) {
    let fake = FakeEngine::start(&[("GET /containers/c", &json(200, state))]);
    assert_eq!(fake.client().end_of("c").await.unwrap().map(|end| end.code), code);
    assert_eq!(fake.client().end_of("gone").await.unwrap(), None);
}

#[tokio::test]
async fn an_old_engine_is_refused_with_what_is_needed() {
    let fake = FakeEngine::start(&[("GET /version", &json(200, r#"{"Version":"18.09","ApiVersion":"1.39"}"#))]);
    let error = fake.client().ping().await.unwrap_err();
    assert_eq!(error.to_string(), "ask for the version: the engine speaks API \"1.39\"; 1.41 or newer is needed");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn an_engine_that_went_away_is_unreachable() {
    let fake = FakeEngine::start(&[]);
    let client = fake.client();
    drop(fake);
    let error = client.ping().await.unwrap_err();
    assert!(matches!(error, EngineError::Unreachable { .. }) && error.is_transient(), "{error:?}");
}

/// A container whose labels do not match is not taken, whatever the engine's filter let through.
#[tokio::test]
async fn the_filter_of_the_engine_is_not_trusted() {
    let listed = |uid: &str, kind: &str| {
        let labels = format!(
            r#"{{"io.kubernetes.pod.uid":"{uid}","io.kubernetes.pod.namespace":"team","io.kubernetes.pod.name":"p","io.kubernetes.container.name":"box","io.kubernetes.docker.type":"{kind}"}}"#
        );
        json(200, &format!(r#"[{{"Id":"c1","Created":1,"Labels":{labels}}}]"#))
    };
    let inspected =
        json(200, r#"{"Id":"c1","Image":"sha256:1","State":{"Running":true,"StartedAt":"2026-11-21T08:00:00Z"}}"#);
    for (uid, kind, found) in [("u1", "container", true), ("u12", "container", false), ("u1", "podsandbox", false)] {
        let fake =
            FakeEngine::start(&[("GET /containers/json", &listed(uid, kind)), ("GET /containers/c1", &inspected)]);
        let got = fake.client().find_box("u1", "team", "p").await.unwrap();
        assert_eq!(got.is_some(), found, "{uid} {kind}");
    }
}

fn a_box() -> BoxContainer {
    BoxContainer {
        id: "c1".to_owned(),
        image_id: "sha256:1".to_owned(),
        started_at: String::new(),
        state: BoxState::Running,
    }
}

#[tokio::test]
async fn a_commit_freezes_the_box_and_has_the_name_that_it_is_pushed_by() {
    let fake = FakeEngine::start(&[("POST /commit", &json(201, r#"{"Id":"sha256:2"}"#))]);
    let container = a_box();
    let key = CommitKey { run_uid: "u1".to_owned(), step: "push".to_owned() };
    assert_eq!(fake.client().commit(&container, &key, TARGET).await.unwrap().id, "sha256:2");
    let requests = fake.requests();
    let firsts: Vec<&str> = requests.iter().filter_map(|head| head.lines().next()).collect();
    for part in ["container=c1", "repo=127.0.0.1%3A5999%2Fnonce%2Fx", "tag=t", "pause=true"] {
        assert!(firsts.len() == 1 && firsts[0].contains(part), "{part} in {firsts:?}");
    }
    let elsewhere = fake.client().commit(&container, &key, "registry.io/team/app:1").await;
    assert!(elsewhere.is_err() && fake.requests().len() == 1, "{elsewhere:?}");
}

/// A name of the user's stays, also one of a registry on the node.
#[tokio::test]
async fn only_names_of_ours_are_removed() {
    let (door, built) = ("127.0.0.1:5999/0123456789abcdef0123456789abcdef/x:x", "windlass.invalid/commit/u1:push");
    let found = format!(r#"{{"Id":"sha256:1","RepoTags":["{door}","127.0.0.1:5000/team/app:1","{built}"]}}"#);
    let fake =
        FakeEngine::start(&[("GET /images/sha256:1/json", &json(200, &found)), ("DELETE /images/", &json(200, "[]"))]);
    fake.client().remove(&CommittedImage { id: "sha256:1".to_owned() }).await.unwrap();
    let requests = fake.requests();
    let deleted: Vec<&str> =
        requests.iter().filter_map(|head| head.strip_prefix("DELETE /images/")?.split('?').next()).collect();
    assert_eq!(deleted, [door, built]);
}
