//! `read` against an API server whose connections break.

use super::*;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

const LOG: &str = "2026-11-21T13:03:07.1Z one\n2026-11-21T13:03:07.6Z two\n2026-11-21T13:03:08.2Z three\n\
    2026-11-21T13:03:08.2Z four\n2026-11-21T13:03:09.9Z five, without an end";
const TEXT: &str = "one\ntwo\nthree\nfour\nfive, without an end";

/// One answer to a request for the log.
#[derive(Clone)]
enum Log {
    /// What is there from the time asked for up to this byte; then the connection breaks, or ends.
    UpTo(usize, bool),
    /// This code.
    Refused(u16),
    /// Nothing.
    Silent,
}

struct World {
    logs: VecDeque<Log>,
    /// States of the box, in the order in which they are asked for; the last stays.
    states: VecDeque<Option<Value>>,
    asked: Vec<String>,
}

type Frames = futures::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, std::io::Error>>>;

fn body(code: u16, bytes: &[u8], breaks: bool) -> Response<StreamBody<Frames>> {
    let mut frames: Vec<_> = bytes.chunks(7).map(|part| Ok(Frame::data(Bytes::copy_from_slice(part)))).collect();
    if breaks {
        frames.push(Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
    }
    Response::builder().status(code).body(StreamBody::new(futures::stream::iter(frames))).expect("a response")
}

/// `None`: it never comes.
fn answer(world: &Mutex<World>, uri: &http::Uri) -> Option<Response<StreamBody<Frames>>> {
    let mut world = world.lock().expect("no panic");
    world.asked.push(uri.to_string());
    let refusal =
        |code: u16| json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}).to_string();
    if !uri.path().ends_with("/log") {
        let state = if world.states.len() > 1 { world.states.pop_front() } else { world.states.front().cloned() };
        return Some(match state.flatten() {
            Some(state) => {
                let pod = json!({"metadata": {"name": "x-1"}, "status": {"containerStatuses": [{"name": "box",
                    "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": state}]}});
                body(200, pod.to_string().as_bytes(), false)
            }
            None => body(404, refusal(404).as_bytes(), false),
        });
    }
    Some(match world.logs.pop_front() {
        Some(Log::Refused(code)) => body(code, refusal(code).as_bytes(), false),
        Some(Log::UpTo(end, breaks)) => {
            let since = uri.query().and_then(|q| q.split('&').find_map(|p| p.strip_prefix("sinceTime=")));
            let since = since.map(|s| s.replace("%3A", ":").parse::<jiff::Timestamp>().expect("a time"));
            let is_older = |line: &&str| {
                let at: jiff::Timestamp = line.split(' ').next().and_then(|s| s.parse().ok()).expect("a time");
                since.is_some_and(|since| at < since)
            };
            let start: usize = LOG.split_inclusive('\n').take_while(is_older).map(str::len).sum();
            body(200, LOG.get(start..end).unwrap_or_default().as_bytes(), breaks)
        }
        Some(Log::Silent) => return None,
        None => body(200, b"", false),
    })
}

/// What is heard, and what was asked.
async fn heard(logs: Vec<Log>, states: Vec<Option<Value>>, follow: bool, over: Over) -> (String, Heard, Vec<String>) {
    let (text, end, asked, _) = heard_from(logs, states, follow, over).await;
    (text, end, asked)
}

/// The same, with the text that came before it was said that all has come that was there.
async fn heard_from(
    logs: Vec<Log>,
    states: Vec<Option<Value>>,
    follow: bool,
    over: Over,
) -> (String, Heard, Vec<String>, Option<String>) {
    let world = World { logs: logs.into(), states: states.into(), asked: Vec::new() };
    let world = Arc::new(Mutex::new(world));
    let server = world.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let response = answer(&server, request.uri());
        async move {
            match response {
                Some(response) => Ok::<_, std::io::Error>(response),
                None => std::future::pending().await,
            }
        }
    });
    let pods = Api::namespaced(Client::new(service, "team-a"), "team-a");
    let (speak, mut listen) = mpsc::channel(16);
    let over = watch::Sender::new(over);
    let source = Source { pods, pod: "x-1".into(), container: BOX.into(), follow, tell_caught_up: follow };
    tokio::spawn(read(source, speak, over.subscribe()));
    let mut text = Vec::new();
    let mut caught_up = None;
    loop {
        let patience = Duration::from_secs(600);
        match tokio::time::timeout(patience, listen.recv()).await.expect("no end").expect("an end") {
            Heard::Piece(piece) => text.extend(piece.bytes),
            Heard::CaughtUp => assert_eq!(caught_up.replace(text.len()), None, "said once"),
            end @ Heard::Ended(_) => {
                let asked = world.lock().expect("no panic").asked.clone();
                let text = String::from_utf8(text).expect("UTF-8");
                let before = caught_up.map(|length| text.get(..length).unwrap_or_default().to_owned());
                return (text, end, asked, before);
            }
        }
    }
}

fn running() -> Option<Value> {
    Some(json!({"running": {}}))
}

fn ended() -> Option<Value> {
    Some(json!({"terminated": {"exitCode": 0}}))
}

#[tokio::test(start_paused = true)]
async fn every_byte_comes_once_over_broken_connections() {
    let third = LOG.find("three").expect("a line") + 3;
    let logs = vec![
        Log::Refused(400),
        Log::UpTo(third, true),
        Log::UpTo(third + 10, false),
        Log::UpTo(LOG.len() - 5, true),
        Log::UpTo(LOG.len(), false),
    ];
    let states = vec![Some(json!({"waiting": {}})), running(), running(), ended()];
    let (text, end, asked) = heard(logs, states, true, Over::No).await;
    assert_eq!((text.as_str(), end), (TEXT, Heard::Ended(None)));
    let since: Vec<_> = asked.iter().filter_map(|uri| uri.split("sinceTime=").nth(1)).collect();
    // Whole seconds, never after the last line that came.
    assert!(since.iter().all(|s| s.starts_with("2026-11-21T13%3A03%3A0") && !s.contains('.')), "{since:?}");
    let last = asked.iter().rev().find(|uri| uri.contains("/log")).expect("a request");
    assert!(!last.contains("follow=true"), "the last look does not wait: {last}");
}

/// The status names a pod before it is made, and a short run may be over by the next look.
#[rstest::rstest]
#[case(Over::No)]
#[case(Over::Begun)]
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_about_to_be_made_is_waited_for(#[case] over: Over) {
    let logs = vec![Log::Refused(404), Log::UpTo(LOG.len(), false)];
    let (text, end, _) = heard(logs, vec![ended()], true, over).await;
    assert_eq!((text.as_str(), end), (TEXT, Heard::Ended(None)));
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_said() {
    let gone = heard((0..=MOST_WAITS).map(|_| Log::Refused(404)).collect(), vec![None], true, Over::No).await;
    assert_eq!((gone.0.as_str(), gone.1), ("", Heard::Ended(Some(Missing::PodGone))));
    let denied = heard(vec![Log::Refused(403)], vec![running()], true, Over::No).await;
    assert_eq!(denied.1, Heard::Ended(Some(Missing::Forbidden)));
    let waits = Some(json!({"waiting": {"reason": "ImagePullBackOff"}}));
    let never = heard(vec![Log::Refused(400)], vec![waits], true, Over::Unbegun).await;
    assert_eq!(never.1, Heard::Ended(Some(Missing::NeverRan)));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_read_is_given_up() {
    let broken = (0..100).map(|_| Log::UpTo(30, true)).collect();
    let (text, end, asked) = heard(broken, vec![ended()], true, Over::No).await;
    assert_eq!((text.as_str(), end), ("one\n", Heard::Ended(Some(Missing::Unreadable))));
    assert!(asked.len() < 60, "{}", asked.len());
}

#[tokio::test(start_paused = true)]
async fn without_follow_it_is_read_once() {
    let (text, end, asked) = heard(vec![Log::UpTo(LOG.len(), false)], vec![running()], false, Over::No).await;
    assert_eq!((text.as_str(), end, asked.len()), (TEXT, Heard::Ended(None), 1));
    let slow = vec![Log::Silent, Log::UpTo(LOG.len(), false)];
    let (text, end, _) = heard(slow, vec![running()], false, Over::No).await;
    assert_eq!((text.as_str(), end), (TEXT, Heard::Ended(None)));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_faster_than_the_kubelet_still_shows_its_output() {
    let waits = Some(json!({"waiting": {"reason": "PodInitializing"}}));
    let logs = vec![Log::Refused(400), Log::Refused(400), Log::UpTo(LOG.len(), false)];
    for follow in [true, false] {
        let states = vec![waits.clone(), waits.clone(), ended()];
        let (text, end, _) = heard(logs.clone(), states, follow, Over::Begun).await;
        assert_eq!((text.as_str(), end), (TEXT, Heard::Ended(None)));
    }
    let forever = (0..100).map(|_| Log::Refused(400)).collect();
    let (_, end, asked) = heard(forever, vec![waits], true, Over::Begun).await;
    assert_eq!(end, Heard::Ended(Some(Missing::NeverRan)));
    assert!(asked.len() < 60, "{}", asked.len());
}

/// What was there when reading began is told from what comes, over broken connections too.
#[tokio::test(start_paused = true)]
async fn that_all_that_was_there_has_come_is_said_once() {
    let third = LOG.find("three").expect("a line");
    for logs in [
        vec![Log::UpTo(third, false), Log::UpTo(LOG.len(), false)],
        vec![Log::UpTo(5, true), Log::UpTo(third, false), Log::UpTo(LOG.len(), false)],
        // No answer is no end of what is there.
        vec![Log::Silent, Log::UpTo(third, false), Log::Silent, Log::UpTo(LOG.len(), false)],
        // Nothing was there.
        vec![Log::Refused(400), Log::UpTo(LOG.len(), false)],
    ] {
        let states = vec![running(), running(), ended()];
        let nothing_there = matches!(logs.first(), Some(Log::Refused(_)));
        let (text, end, asked, before) = heard_from(logs, states, true, Over::No).await;
        assert_eq!((text.as_str(), end), (TEXT, Heard::Ended(None)));
        assert_eq!(before.as_deref(), Some(if nothing_there { "" } else { "one\ntwo\n" }), "{asked:?}");
    }
}
