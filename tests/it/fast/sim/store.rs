//! What the simulated API server holds: objects, who owns their fields, and every change ever made.
//!
//! **Invariant:** every change goes through `Store::commit`, which gives it a version, writes it into the
//! history that watches read, refuses what the API server's rules refuse, and has the oracle look at it.

use super::{
    apply::{self, Owners},
    clock, oracle,
};
use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use tokio::sync::watch;

/// Where an object is: plural of its kind, namespace, name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self { kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }
}

/// An answer that is not the object: the HTTP code, the reason and words.
#[derive(Clone, Debug)]
pub(super) struct Refused(pub(super) u16, pub(super) &'static str, pub(super) String);

pub(super) type Answer = Result<Arc<Version>, Refused>;

/// One change of an object.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) key: Key,
    /// Absent: it was created.
    pub(super) before: Option<Arc<Version>>,
    /// Absent: it was deleted.
    pub(super) after: Option<Arc<Version>>,
}

/// What is between the wish for a pod and the pod.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Admission {
    /// Nothing.
    #[default]
    Open,
    /// A quota, which refuses the pods of the first two attempts.
    Quota,
    /// A webhook that does not answer for so long, and fails in other words each time.
    Away(Duration),
    /// One that never does.
    Gone,
}

struct Object {
    value: Arc<Version>,
    owners: Owners,
}

/// Everything in the cluster.
pub(super) struct Store {
    objects: BTreeMap<Key, Object>,
    version: u64,
    history: Vec<Change>,
    uids: u32,
    /// Rises with each change, and when something moves in a box.
    changed: watch::Sender<u64>,
    violations: Vec<String>,
    admission: Admission,
    /// Pods that were asked for.
    asked: u32,
    /// The pod that was refused last, and when.
    refused: Option<(String, SignedDuration)>,
}

/// An object as one version of it is: written as JSON once, as it is sent often, or never.
#[derive(Debug)]
pub(super) struct Version {
    value: Value,
    json: OnceLock<Bytes>,
}

impl Version {
    fn new(value: Value) -> Arc<Self> {
        Arc::new(Self { value, json: OnceLock::new() })
    }

    /// As JSON.
    pub(super) fn json(&self) -> &Bytes {
        self.json.get_or_init(|| Bytes::from(self.value.to_string()))
    }

    /// Whether any string of it holds `words`.
    pub(super) fn contains(&self, words: &str) -> bool {
        contains(&self.value, words)
    }
}

fn contains(value: &Value, words: &str) -> bool {
    match value {
        Value::String(text) => text.contains(words),
        Value::Array(items) => items.iter().any(|item| contains(item, words)),
        Value::Object(members) => members.iter().any(|(name, member)| name.contains(words) || contains(member, words)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

impl std::ops::Deref for Version {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.value
    }
}

/// The store, shared by all that talk to it.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Store>>, watch::Receiver<u64>);

impl Shared {
    pub(super) fn new() -> Self {
        let (changed, receiver) = watch::channel(0);
        let (objects, history, violations, admission, refused) = Default::default();
        let store = Store { objects, version: 0, history, uids: 0, changed, violations, admission, asked: 0, refused };
        Self(Arc::new(Mutex::new(store)), receiver)
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Store) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.1.clone()
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Version>> {
        self.with(|store| store.objects.get(key).map(|o| o.value.clone()))
    }

    /// Something happened that watchers of the store may wait for.
    pub(super) fn touch(&self) {
        self.with(|store| store.changed.send_modify(|n| *n += 1));
    }
}

fn missing(key: &Key) -> Refused {
    Refused(404, "NotFound", format!("{} {:?} not found", key.kind, key.name))
}

fn text<'a>(object: &'a Value, path: &str) -> Option<&'a str> {
    object.pointer(path).and_then(Value::as_str)
}

fn timestamp(after_s: i64) -> Value {
    json!(Time(clock::now() + SignedDuration::from_secs(after_s)))
}

/// What a caller said of the object it means must hold.
fn expect(given: &Value, is: &Value) -> Result<(), Refused> {
    for path in ["/metadata/uid", "/metadata/resourceVersion"] {
        if let Some(wanted) = text(given, path)
            && Some(wanted) != text(is, path)
        {
            return Err(Refused(409, "Conflict", format!("the object has been modified: {path} is not {wanted}")));
        }
    }
    Ok(())
}

impl Store {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// A version that nothing has, so that history before it can be lost.
    pub(super) fn skip_version(&mut self) {
        self.version += 1;
    }

    pub(super) fn violations(&self) -> &[String] {
        &self.violations
    }

    pub(super) fn set_admission(&mut self, admission: Admission) {
        self.admission = admission;
    }

    /// Whether a pod may be made. Another pod is to be asked for only 10 s after one was refused, give or take the
    /// fraction of a second that times in a status do not have.
    fn admit(&mut self, name: &str) -> Result<(), Refused> {
        let now = clock::elapsed();
        if let Some((last, at)) = self.refused.clone().filter(|(last, at)| last != name && (now - *at).as_secs() < 9) {
            self.violated(format!("pod {name} was asked for {:#} after {last} was refused", now - at));
        }
        self.asked += 1;
        let failed = |words: String| Err(Refused(500, "InternalError", format!("failed calling webhook: {words}")));
        match self.admission {
            Admission::Quota if !name.ends_with("-3") => {
                self.refused = Some((name.to_owned(), now));
                Err(Refused(403, "Forbidden", format!("pods {name:?} is forbidden: exceeded quota: pods")))
            }
            Admission::Away(time) if now < time.try_into().unwrap() => {
                failed(format!("from port {}: connection refused", self.asked))
            }
            Admission::Gone => failed("no endpoints available".into()),
            Admission::Open | Admission::Quota | Admission::Away(_) => Ok(()),
        }
    }

    pub(super) fn violated(&mut self, what: String) {
        self.violations.push(what);
    }

    /// All changes, oldest first.
    pub(super) fn history(&self) -> &[Change] {
        &self.history
    }

    /// Objects of a kind as they were at a version.
    pub(super) fn at(&self, kind: &str, version: u64) -> Vec<Arc<Version>> {
        let mut found = BTreeMap::new();
        for change in self.history.iter().take_while(|c| c.version <= version).filter(|c| c.key.kind == kind) {
            match &change.after {
                Some(object) => _ = found.insert(&change.key, object.clone()),
                None => _ = found.remove(&change.key),
            }
        }
        found.into_values().collect()
    }

    pub(super) fn list(&self, kind: &str) -> Vec<Arc<Version>> {
        self.objects.iter().filter(|(key, _)| key.kind == kind).map(|(_, o)| o.value.clone()).collect()
    }

    pub(super) fn read(&self, key: &Key) -> Answer {
        self.objects.get(key).map(|o| o.value.clone()).ok_or_else(|| missing(key))
    }

    pub(super) fn create(&mut self, key: &Key, mut object: Value) -> Answer {
        if self.objects.contains_key(key) {
            return Err(Refused(409, "AlreadyExists", format!("{} {:?} already exists", key.kind, key.name)));
        }
        if key.kind == "pods" {
            self.admit(&key.name)?;
        }
        self.uids += 1;
        object["metadata"]["uid"] = json!(format!("uid-{}", self.uids));
        object["metadata"]["creationTimestamp"] = timestamp(0);
        object["metadata"]["generation"] = json!(1);
        object["metadata"]["namespace"] = json!(key.namespace);
        if key.kind == "pods" {
            object["status"] = json!({"phase": "Pending"});
        }
        self.commit(key, Some(object), Owners::new())
    }

    /// PUT: the whole object.
    pub(super) fn replace(&mut self, key: &Key, object: Value) -> Answer {
        let old = self.read(key)?;
        expect(&object, &old)?;
        self.commit(key, Some(object), Owners::new())
    }

    /// JSON merge patch of all but the status.
    pub(super) fn patch(&mut self, key: &Key, mut patch: Value) -> Answer {
        let mut object = self.read(key)?.value.clone();
        expect(&patch, &object)?;
        patch.as_object_mut().unwrap().remove("status");
        apply::merge(&mut object, &patch);
        self.commit_owned(key, object)
    }

    /// Server-side apply of the status.
    pub(super) fn apply_status(&mut self, key: &Key, manager: &str, body: &Value) -> Answer {
        let mut object = self.read(key)?.value.clone();
        expect(body, &object)?;
        let mut owners = self.objects[key].owners.clone();
        let mut status = object.get("status").cloned().unwrap_or_else(|| json!({}));
        apply::apply(&mut status, &mut owners, manager, &body["status"]);
        object["status"] = status;
        self.commit(key, Some(object), owners)
    }

    /// What the kubelet or a user changes.
    pub(super) fn edit(&mut self, key: &Key, change: impl FnOnce(&mut Value)) -> Answer {
        let mut object = self.read(key)?.value.clone();
        change(&mut object);
        self.commit_owned(key, object)
    }

    /// Deletes, or marks as being deleted what has finalizers or, a pod, still runs.
    pub(super) fn delete(&mut self, key: &Key, options: &Value) -> Answer {
        let mut object = self.read(key)?.value.clone();
        expect(&json!({"metadata": options["preconditions"]}), &object)?;
        let finalizers =
            object.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty());
        let ended = matches!(text(&object, "/status/phase"), Some("Succeeded" | "Failed"));
        let bound = key.kind == "pods" && text(&object, "/spec/nodeName").is_some() && !ended;
        let grace = options["gracePeriodSeconds"].as_i64().unwrap_or(if bound { 30 } else { 0 });
        if !finalizers && (!bound || grace == 0) {
            return self.commit(key, None, Owners::new());
        }
        if object["metadata"]["deletionTimestamp"].is_null() {
            object["metadata"]["deletionTimestamp"] = timestamp(grace);
            object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        }
        self.commit_owned(key, object)
    }

    fn commit_owned(&mut self, key: &Key, object: Value) -> Answer {
        let owners = self.objects[key].owners.clone();
        self.commit(key, Some(object), owners)
    }

    fn commit(&mut self, key: &Key, after: Option<Value>, owners: Owners) -> Answer {
        let before = self.objects.get(key).map(|o| o.value.clone());
        if let (Some(before), Some(after)) = (&before, &after)
            && let Some(field) = oracle::written_twice(before, after)
        {
            self.violated(format!("{field} of {} was to be written again", key.name));
            return Err(Refused(422, "Invalid", format!("status.{field}: is written once")));
        }
        let mut after = after;
        if let Some(object) = &mut after {
            let gone = !object["metadata"]["deletionTimestamp"].is_null()
                && key.kind != "pods"
                && object.pointer("/metadata/finalizers").and_then(Value::as_array).is_none_or(Vec::is_empty);
            if gone {
                after = None;
            } else if let Some(before) = &before {
                if before.value == *object {
                    self.objects.get_mut(key).unwrap().owners = owners;
                    return Ok(before.clone());
                }
                if before["spec"] != object["spec"] {
                    object["metadata"]["generation"] =
                        json!(before["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
                }
            }
        }
        self.version += 1;
        let alive = after.is_some();
        // What is deleted is shown as it was, at the version of its deletion.
        let mut shown =
            after.take().or_else(|| before.as_ref().map(|b| b.value.clone())).ok_or_else(|| missing(key))?;
        shown["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let shown = Version::new(shown);
        if alive {
            self.objects.insert(key.clone(), Object { value: shown.clone(), owners });
        } else {
            self.objects.remove(key);
        }
        let before = if alive { before } else { Some(shown.clone()) };
        let change = Change { version: self.version, key: key.clone(), before, after: alive.then(|| shown.clone()) };
        self.violations.extend(oracle::transition(&change));
        self.history.push(change);
        if !alive {
            self.collect(&shown);
        }
        self.changed.send_modify(|n| *n += 1);
        Ok(shown)
    }

    /// The garbage collector: pods go with the run that owns them.
    fn collect(&mut self, owner: &Value) {
        let uid = &owner["metadata"]["uid"];
        let owned =
            |o: &Value| o["metadata"]["ownerReferences"].as_array().is_some_and(|r| r.iter().any(|r| r["uid"] == *uid));
        let pods: Vec<Key> =
            self.objects.iter().filter(|(k, o)| k.kind == "pods" && owned(&o.value)).map(|(k, _)| k.clone()).collect();
        for key in pods {
            self.delete(&key, &json!({})).unwrap();
        }
    }
}
