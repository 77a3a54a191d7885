//! What must hold in every plan: at each change of the store, and of the end.
//!
//! **Invariant:** pure.

use super::store::Change;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// How the message of a run begins whose pod was never made.
const NO_POD: &str = "the API server made no pod for ";

/// The write-once field that a change would change or remove.
pub(super) fn written_twice(before: &Value, after: &Value) -> Option<&'static str> {
    ["pipelineSpec", "buildNumber", "completionTime"].into_iter().find(|field| {
        let (before, after) = (&before["status"][field], &after["status"][field]);
        !before.is_null() && before != after
    })
}

/// How far a run is; it never goes back within an attempt.
fn rank(status: &Value) -> u8 {
    match status["phase"].as_str() {
        None => 0,
        Some("Pending" | "Queued") => 1,
        Some("Starting") => 2,
        Some("Running" | "Waiting") => 3,
        Some(_) => 4,
    }
}

/// What is wrong with one change.
pub(super) fn transition(change: &Change) -> Vec<String> {
    let (Some(before), Some(after), "pipelineruns") = (&change.before, &change.after, change.key.kind.as_str()) else {
        return Vec::new();
    };
    let (old, new) = (&before["status"], &after["status"]);
    let mut wrong = Vec::new();
    let mut check = |holds: bool, words: &str| {
        if !holds {
            wrong.push(format!("{} at version {}: {words}", change.key.name, change.version));
        }
    };
    let attempts = (old["attempt"].as_u64().unwrap_or(0), new["attempt"].as_u64().unwrap_or(0));
    check(attempts.0 <= attempts.1, "the attempt went back");
    if attempts.0 == attempts.1 {
        check(old["podUID"].is_null() || old["podUID"] == new["podUID"], "podUID changed within an attempt");
        check(rank(old) <= rank(new), "the phase went back");
    }
    if !old["completionTime"].is_null() {
        check(old["phase"] == new["phase"], "the phase changed after the end");
        check(old["conditions"] == new["conditions"], "the conditions changed after the end");
        check(old["steps"] == new["steps"], "the steps changed after the end");
    }
    let ended = matches!(new["conditions"][0]["status"].as_str(), Some("True" | "False"));
    check(ended != new["completionTime"].is_null(), "a result goes with a completion time");
    wrong
}

/// Writes of a run's or Pipeline's status more than without the fault: words on the way depend on when the controller
/// looked.
const WORDS_MORE: usize = 2;

/// What was written more often than without the fault, or less: a fault changes nothing in how often a run is given a
/// finalizer, its pipeline, a pod or an end. Build numbers may have a gap.
pub(super) fn repeated(expected: &BTreeMap<String, usize>, found: &BTreeMap<String, usize>) -> Vec<String> {
    let kinds: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let count = |of: &BTreeMap<String, usize>, kind: &String| of.get(kind).copied().unwrap_or(0);
    let differs = |kind: &&String| {
        let (expected, found) = (count(expected, kind), count(found, kind));
        match kind.as_str() {
            words if words.ends_with("/status by windlass-controller") => found > expected + WORDS_MORE,
            counter if counter.contains(" configmaps/") => found > expected + 1,
            _ => found != expected,
        }
    };
    let said = |kind| format!("{kind}: {} times, without the fault {}", count(found, kind), count(expected, kind));
    kinds.into_iter().filter(differs).map(said).collect()
}

/// The end state without what differs from one run of the same plan to the next: versions, UIDs, times,
/// durations, and the build number, which may have gaps.
pub(super) fn comparable(object: &Value) -> Value {
    match object {
        Value::Object(members) => {
            let mut kept = Map::new();
            for (name, value) in members {
                let value = match name.as_str() {
                    "uid"
                    | "resourceVersion"
                    | "podUID"
                    | "buildNumber"
                    | "lastBuildNumber"
                    | "windlass.dev/run-uid" => json!("*"),
                    "creationTimestamp" | "lastTransitionTime" | "reasonTime" | "startTime" | "completionTime"
                    | "startedAt" | "finishedAt" | "duration" => json!("*"),
                    // The termination message holds times, the order a UID and a deadline.
                    "message" if value.as_str().is_some_and(|m| m.starts_with("w1:")) => json!("*"),
                    "value" if members["name"].as_str().is_some_and(|n| n.starts_with("WINDLASS_ORDER_")) => json!("*"),
                    // The words of the last failure, which the fault may have changed.
                    "message" if value.as_str().is_some_and(|m| m.starts_with(NO_POD)) => json!(NO_POD),
                    "message" => json!(without_durations(value.as_str().unwrap_or_default())),
                    _ => comparable(value),
                };
                kept.insert(name.clone(), value);
            }
            Value::Object(kept)
        }
        Value::Array(items) => items.iter().map(comparable).collect(),
        other => other.clone(),
    }
}

fn without_durations(message: &str) -> String {
    let duration = |word: &str| {
        let word = word.trim_end_matches([';', ',', ':']);
        word.starts_with(|c: char| c.is_ascii_digit())
            && word.ends_with(['s', 'm', 'h'])
            && word.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'h' | 'm' | 's'))
    };
    message.split(' ').map(|word| if duration(word) { "*" } else { word }).collect::<Vec<_>>().join(" ")
}

/// Where two values differ first, for people.
pub(super) fn difference(path: &str, expected: &Value, found: &Value) -> Option<String> {
    match (expected, found) {
        (Value::Object(a), Value::Object(b)) => {
            let names: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            names.into_iter().find_map(|n| difference(&format!("{path}.{n}"), &expected[n], &found[n]))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(i, (a, b))| difference(&format!("{path}[{i}]"), a, b))
        }
        _ if expected == found => None,
        _ => Some(format!("{path}: without the fault {expected}, with it {found}")),
    }
}
