//! Looks for a credential in all that the cluster writes down: every version of every object in etcd, and every log.
//!
//! **Invariant:** reads only. A search shows that it can find: the Secret itself in etcd, a step's output in the logs.

use super::world::{World, tool};
use aho_corasick::AhoCorasick;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

/// Keys of Secrets, where credentials belong.
const SECRETS: &str = "/registry/secrets/";
/// Longest that reading back may take, in seconds.
const PATIENCE: &str = "60";

/// Where etcd answers; the test cluster's has its usual place.
fn etcd() -> String {
    std::env::var("WINDLASS_ETCD").unwrap_or_else(|_| "http://127.0.0.1:2379".into())
}

/// A place in the history of etcd.
pub(super) struct Ledger {
    revision: u64,
}

/// Keys of etcd under which something was found.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    /// Of Secrets.
    pub(super) secrets: Vec<String>,
    /// Of all else.
    pub(super) others: Vec<String>,
}

impl Ledger {
    /// From now on.
    pub(super) fn open() -> Self {
        let body = json!({"key": STANDARD.encode("x"), "keys_only": true}).to_string();
        let answer = tool("curl", &["-fsS", "-d", &body, &format!("{}/v3/kv/range", etcd())], "").unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        Self { revision: answer["header"]["revision"].as_str().unwrap().parse().unwrap() }
    }

    /// Where one of these texts was written since, be it overwritten or deleted by now.
    pub(super) fn search(&self, world: &World, forms: &[String]) -> Found {
        // The last that is read: what was written before it stands before it.
        world.kubectl(&["create", "configmap", "ledger-end"], "").unwrap();
        let last = format!("/registry/configmaps/{}/ledger-end", world.namespace);
        let request = json!({"create_request": {
            // All keys.
            "key": "AA==", "range_end": "AA==",
            "start_revision": (self.revision + 1).to_string(), "fragment": true,
        }});
        let mut watch = Command::new("curl")
            .args(["-sSN", "--max-time", PATIENCE, "-d", &request.to_string(), &format!("{}/v3/watch", etcd())])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let forms = AhoCorasick::new(forms).unwrap();
        let mut found = Found { secrets: Vec::new(), others: Vec::new() };
        let mut whole = false;
        for line in BufReader::new(watch.stdout.take().unwrap()).lines() {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            assert!(line["error"].is_null() && line["result"]["canceled"].is_null(), "{line}");
            for event in line["result"]["events"].as_array().into_iter().flatten() {
                let text = |field: &str| STANDARD.decode(event["kv"][field].as_str().unwrap_or_default()).unwrap();
                let (key, value) = (String::from_utf8_lossy(&text("key")).into_owned(), text("value"));
                whole |= key == last;
                if !forms.is_match(&value) && !forms.is_match(&key) {
                    continue;
                }
                if key.starts_with(SECRETS) { found.secrets.push(key) } else { found.others.push(key) }
            }
            if whole {
                break;
            }
        }
        watch.kill().unwrap();
        watch.wait().unwrap();
        assert!(whole, "etcd did not tell all in {PATIENCE}s");
        found.secrets.dedup();
        found
    }
}

/// Logs of the node and of all pods that hold one of these texts.
pub(super) fn logs_with(forms: &[String]) -> Vec<String> {
    let logs = std::env::var("WINDLASS_CLUSTER_LOGS").expect("source target/cluster/env");
    let found = tool("grep", &["-RlaF", "-f", "-", &logs, "/var/log/pods"], &forms.join("\n"));
    // None found is an error without words.
    let found = found.unwrap_or_else(|error| {
        assert!(error.is_empty(), "{error}");
        String::new()
    });
    found.lines().map(str::to_owned).collect()
}

/// A text as it is, and as base64 has it wherever it begins.
pub(super) fn forms(text: &str) -> Vec<String> {
    let encoded = (0..3).map(|lead| {
        let packed = STANDARD.encode([&vec![0; lead], text.as_bytes()].concat());
        // The first and the last characters depend on the neighbours.
        let whole = packed.trim_end_matches('=');
        whole[(lead * 8).div_ceil(6)..whole.len() - 1].to_owned()
    });
    std::iter::once(text.to_owned()).chain(encoded).collect()
}

#[test]
fn base64_is_seen_wherever_it_begins() {
    let encoded = AhoCorasick::new(&forms("the-password")[1..]).unwrap();
    for lead in 0..6 {
        for tail in 0..3 {
            let text = format!("{}the-password{}", "x".repeat(lead), "y".repeat(tail));
            assert!(encoded.is_match(&STANDARD.encode(text)), "{lead} {tail}");
        }
    }
}
