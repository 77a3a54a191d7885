//! The real controller with an API server that answers as a test wants: what it serves, and its end.

use super::{
    answers::{Place, end, send},
    api_server::{Answer, Server},
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/windlass-system/leases/windlass-controller";
const RUN: &str = r#"{"apiVersion": "windlass.dev/v1alpha1", "kind": "PipelineRun",
    "metadata": {"name": "x", "namespace": "team-a", "uid": "u", "resourceVersion": "1"},
    "spec": {"pipelineSpec": {"box": {"image": "x"}, "steps": [{"name": "a", "script": "x"}]}},
    "status": {"phase": "Succeeded", "completionTime": "2026-11-21T13:03:07Z"}}"#;

/// A cluster with one run, which has ended; the Lease is the controller's.
fn cluster() -> Server {
    let list = |items: &str| {
        format!(r#"{{"kind": "List", "apiVersion": "v1", "metadata": {{"resourceVersion": "1"}}, "items": [{items}]}}"#)
    };
    let lease = r#"{"metadata": {"name": "windlass-controller", "namespace": "windlass-system", "resourceVersion": "1"},
        "spec": {"holderIdentity": "me"}}"#;
    Server::start(move |request| match request.split_once(' ') {
        Some((_, path)) if path.starts_with(LEASE) => Answer::Json(200, lease.into()),
        Some(("GET", path)) if path.contains("watch=true") => Answer::Silence,
        Some(("GET", path)) if path.contains("/pipelineruns/x") => Answer::Json(200, RUN.into()),
        Some(("GET", path)) if path.contains("/pods/") => {
            Answer::Json(404, r#"{"kind": "Status", "code": 404, "reason": "NotFound"}"#.into())
        }
        Some(("GET", path)) if path.contains("/pipelineruns?") => Answer::Json(200, list(RUN)),
        _ => Answer::Json(200, list("")),
    })
}

/// Status line and the rest of an answer.
fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (status, rest) = text.split_once("\r\n").expect("a status line");
    (status.to_owned(), rest.to_owned())
}

#[test]
fn a_controller_serves_its_health_and_metrics_and_gives_its_lease_back_at_sigterm() {
    let server = cluster();
    let place = Place::new(&server, "");
    let mut child = place.start(&["controller", "--identity=me", "--image=x", "--listen=127.0.0.1:0"]);
    let mut said = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let address = loop {
        let line = said.next().expect("it says where it listens").expect("text");
        let line: Value = serde_json::from_str(&line).expect("JSON");
        if let Some(address) = line["address"].as_str() {
            break address.to_owned();
        }
    };
    // What else it says is read, so that it can go on.
    let rest = std::thread::spawn(move || said.map_while(Result::ok).collect::<Vec<_>>().join("\n"));
    server.until_asked(&format!("PUT {LEASE}"));
    server.until_asked("GET /apis/windlass.dev/v1alpha1/namespaces/team-a/pipelineruns/x");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(&address, path).0, "HTTP/1.1 200 OK", "{path}");
    }
    let began = Instant::now();
    let metrics = loop {
        let (status, text) = get(&address, "/metrics");
        assert_eq!(status, "HTTP/1.1 200 OK");
        if !text.contains("\nwindlass_reconciliations_total 0\n") {
            break text;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{text}");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(metrics.contains("content-type: application/openmetrics-text"), "{metrics}");
    assert!(metrics.contains("\nwindlass_reconciliations_total 1\n"), "{metrics}");
    assert!(metrics.contains("\nwindlass_reconciliation_failures_total 0\n"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");

    let holder = |server: &Server| {
        let body: Value =
            serde_json::from_str(&server.last_body(&format!("PUT {LEASE}")).expect("a Lease")).expect("JSON");
        body["spec"]["holderIdentity"].clone()
    };
    assert_eq!(holder(&server), "me");
    send(&child, Signal::SIGTERM);
    let (code, _) = end(child);
    let rest = rest.join().expect("what it said");
    assert_eq!(code, Some(0), "{rest}");
    assert_eq!(holder(&server), Value::Null, "{rest}");
    assert!(rest.contains(r#""lost":false"#), "{rest}");
}
