//! The simulated API server as a service that `kube::Client` talks to, and the faults at its door.
//!
//! **Invariant:** a process that crashed is never answered again, and nothing that it sends is applied.

use super::{
    clock,
    fault::{Fault, Strike},
    store::{Answer, Key, Refused, Shared},
    watch::{Selector, Shown, Watch},
};
use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::Notify;

/// What a Secret of the simulation holds: nobody but the kubelet may ever see it.
pub(super) const CANARY: &str = "canary-8f3a61";
/// A request takes this long, so that others come between.
const LATENCY: Duration = Duration::from_millis(2);
/// Objects in one answer, at most: each may be a megabyte.
const PAGE_MAX: usize = 50;

/// What all controllers of one plan did.
#[derive(Default)]
pub(super) struct Record {
    /// Every write that arrived.
    pub(super) writes: Vec<String>,
    /// Those that changed an object, by what they are; events on runs are counted apart.
    pub(super) applied: BTreeMap<String, usize>,
    /// Lists of runs, page by page.
    pub(super) lists: usize,
    /// Looks at each run.
    pub(super) looks: HashMap<String, usize>,
    /// One line a request.
    pub(super) trace: Vec<String>,
    /// Whether lists are of the past, by kind: until each was read once.
    stale: Vec<&'static str>,
}

/// One controller's way to the API server; a new one after each crash.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) store: Shared,
    pub(super) shown: Arc<Shown>,
    pub(super) record: Arc<Mutex<Record>>,
    pub(super) strike: Strike,
    /// Said when this controller is to die.
    pub(super) crash: Arc<Notify>,
    pub(super) dead: Arc<Mutex<bool>>,
}

type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A request, taken apart.
struct Call {
    method: Method,
    key: Key,
    all_namespaces: bool,
    subresource: Option<String>,
    query: HashMap<String, String>,
    kind: String,
    body: Value,
}

impl Call {
    async fn read(request: Request<Body>) -> Self {
        let (head, body) = request.into_parts();
        let bytes = body.collect().await.expect("bodies are in memory").to_bytes();
        assert!(!String::from_utf8_lossy(&bytes).contains(CANARY), "the controller wrote a secret");
        let mut parts = head.uri.path().split('/').filter(|p| !p.is_empty());
        let group = parts.next();
        // The version, after the name of the group.
        _ = if group == Some("apis") { parts.nth(1) } else { parts.next() };
        let mut rest: Vec<&str> = parts.collect();
        let namespace =
            (rest.first() == Some(&"namespaces") && rest.len() > 2).then(|| rest.drain(..2).nth(1).unwrap());
        let query = url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let body: Value = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        let name = rest.get(1).copied().or_else(|| body["metadata"]["name"].as_str()).unwrap_or_default();
        Self {
            method: head.method,
            key: Key::new(rest[0], namespace.unwrap_or_default(), name),
            all_namespaces: namespace.is_none(),
            subresource: rest.get(2).map(ToString::to_string),
            query,
            kind: head.headers.get("content-type").map_or("", |v| v.to_str().unwrap()).to_owned(),
            body,
        }
    }

    fn is_write(&self) -> bool {
        self.method != Method::GET
    }

    fn is_list(&self) -> bool {
        !self.is_write() && self.key.name.is_empty()
    }

    fn describe(&self) -> String {
        let sub = self.subresource.as_ref().map_or(String::new(), |s| format!("/{s}"));
        let manager = self.query.get("fieldManager").map_or(String::new(), |m| format!(" by {m}"));
        // An event's name is its time.
        let name = if self.key.kind == "events" { self.body["reason"].as_str().unwrap_or("") } else { &self.key.name };
        format!("{} {}/{name}{sub}{manager}", self.method, self.key.kind)
    }

    fn selector(&self) -> Selector {
        let pairs = |name: &str| -> Vec<(String, String)> {
            let text = self.query.get(name).map_or("", String::as_str);
            let pair = |p: &str| p.split_once('=').map(|(a, b)| (a.to_owned(), b.trim_start_matches('=').to_owned()));
            text.split(',').filter(|p| !p.is_empty()).map(|p| pair(p).expect("only a=b selectors")).collect()
        };
        Selector {
            kind: self.key.kind.clone(),
            namespace: (!self.all_namespaces).then(|| self.key.namespace.clone()),
            labels: pairs("labelSelector"),
            fields: pairs("fieldSelector"),
        }
    }
}

fn json_reply(code: u16, body: Bytes) -> Reply {
    let body = Full::new(body).boxed_unsync();
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}

fn reply(answer: Answer) -> Reply {
    match answer {
        Ok(object) => json_reply(200, object.json().clone()),
        Err(Refused(code, reason, message)) => {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": message, "reason": reason, "code": code});
            json_reply(code, Bytes::from(status.to_string()))
        }
    }
}

impl Door {
    /// A client of its own for one controller.
    pub(super) fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
    }

    async fn call(self, request: Request<Body>) -> Reply {
        let call = Call::read(request).await;
        tokio::time::sleep(LATENCY).await;
        if *self.dead.lock().unwrap() {
            return std::future::pending().await;
        }
        if call.query.get("watch").is_some_and(|w| w != "false") {
            return self.watch(&call);
        }
        if !call.is_write() {
            return self.read(&call);
        }
        let number = {
            let mut record = self.record.lock().unwrap();
            record.writes.push(call.describe());
            record.writes.len()
        };
        let fault = if self.strike.1 == number { self.strike.0 } else { Fault::None };
        let timeout = || Err(Refused(504, "Timeout", "the server did not answer in time".into()));
        let answer = match fault {
            Fault::CrashBefore => return self.die(&call, "crash before").await,
            Fault::CrashAfter | Fault::StaleList => {
                _ = self.write(&call);
                if fault == Fault::StaleList {
                    self.record.lock().unwrap().stale = vec!["pipelineruns", "pods", "pipelines"];
                }
                return self.die(&call, "applied, then crash").await;
            }
            Fault::Refused => Err(Refused(500, "InternalError", "etcd is away".into())),
            Fault::AppliedTimeout => self.write(&call).and_then(|_| timeout()),
            Fault::Twice => self.write(&call).and_then(|_| self.write(&call)),
            Fault::Conflict => Err(Refused(409, "Conflict", "the object has been modified".into())),
            Fault::Hang => {
                self.note(&call, "never answered");
                return std::future::pending().await;
            }
            _ => self.write(&call),
        };
        let outcome = answer.as_ref().map_or_else(|r| format!("{} {}", r.0, r.2), |_| "done".into());
        self.note(&call, &outcome);
        tokio::time::sleep(LATENCY).await;
        reply(answer)
    }

    async fn die(&self, call: &Call, how: &str) -> Reply {
        self.note(call, how);
        *self.dead.lock().unwrap() = true;
        self.crash.notify_one();
        std::future::pending().await
    }

    fn note(&self, call: &Call, outcome: &str) {
        let at = clock::elapsed().as_secs_f64();
        self.record.lock().unwrap().trace.push(format!("{at:9.3} {}: {outcome}", call.describe()));
    }

    fn write(&self, call: &Call) -> Answer {
        let Call { method, key, subresource, body, .. } = call;
        let apply = call.kind.starts_with("application/apply-patch");
        let before = self.store.with(|store| store.version());
        let answer = self.store.with(|store| match (method.as_str(), subresource.as_deref()) {
            ("POST", None) => store.create(key, body.clone()),
            ("PUT", None) => store.replace(key, body.clone()),
            ("PATCH", Some("status")) if apply => {
                store.apply_status(key, call.query.get("fieldManager").expect("apply names its manager"), body)
            }
            ("PATCH", None) if call.kind.starts_with("application/merge-patch") => store.patch(key, body.clone()),
            ("DELETE", None) => store.delete(key, body),
            _ => panic!("the simulated API server cannot do {} ({})", call.describe(), call.kind),
        });
        if self.store.with(|store| store.version()) != before && key.kind != "events" {
            *self.record.lock().unwrap().applied.entry(call.describe()).or_default() += 1;
        }
        answer
    }

    fn read(&self, call: &Call) -> Reply {
        assert_ne!(call.key.kind, "secrets", "the controller reads no Secret");
        if !call.is_list() {
            if call.key.kind == "pipelineruns" {
                *self.record.lock().unwrap().looks.entry(call.key.name.clone()).or_default() += 1;
            }
            return reply(self.store.with(|store| store.read(&call.key)));
        }
        let mut record = self.record.lock().unwrap();
        record.lists += usize::from(call.key.kind == "pipelineruns");
        let stale = record.stale.iter().position(|kind| *kind == call.key.kind).map(|i| record.stale.remove(i));
        let selector = call.selector();
        let number = |name: &str| call.query.get(name).and_then(|n| n.parse::<usize>().ok());
        let limit = number("limit").filter(|limit| (1..=PAGE_MAX).contains(limit)).unwrap_or_else(|| {
            self.store.with(|store| store.violated(format!("{} is a list without a bound", call.describe())));
            PAGE_MAX
        });
        // A later page is of the version of the first.
        let token = call.query.get("continue").and_then(|token| token.split_once('-'));
        let token = token.map(|(version, start)| (version.parse().unwrap(), start.parse().unwrap()));
        let (version, start): (u64, usize) = token.unwrap_or_else(|| {
            let version = self.store.with(|store| store.version());
            (if stale.is_some() { version / 2 } else { version }, 0)
        });
        let items = self.store.with(|store| store.at(&call.key.kind, version));
        record.trace.push(format!("{:9.3} {} at version {version}", clock::elapsed().as_secs_f64(), call.describe()));
        let items: Vec<&Value> = items.iter().filter(|o| selector.matches(o)).map(|o| &***o).collect();
        let mut list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()},
            "items": items.iter().skip(start).take(limit).collect::<Vec<_>>()});
        if items.len() > start + limit {
            list["metadata"]["continue"] = json!(format!("{version}-{}", start + limit));
        }
        json_reply(200, Bytes::from(list.to_string()))
    }

    fn watch(&self, call: &Call) -> Reply {
        let at = call.query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        let timeout = call.query.get("timeoutSeconds").and_then(|v| v.parse().ok()).unwrap_or(290);
        let watch = Watch {
            store: self.store.clone(),
            shown: self.shown.clone(),
            strike: self.strike,
            selector: call.selector(),
            at,
            timeout: Duration::from_secs(timeout),
        };
        let lines = stream::unfold(watch.start(), |mut lines| async move { Some((lines.recv().await?, lines)) });
        let body = StreamBody::new(lines.map(|line| Ok::<_, Infallible>(Frame::data(line))));
        Response::new(body.boxed_unsync())
    }
}

impl tower::Service<Request<Body>> for Door {
    type Response = Reply;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Reply, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let door = self.clone();
        Box::pin(async move { Ok(door.call(request).await) })
    }
}
