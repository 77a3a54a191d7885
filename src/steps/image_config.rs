//! The config of the pushed image, built anew from the box image's own.
//!
//! An engine's commit merges the config of the *container* into the image: the pod's variables, the
//! kubelet's labels, the command that waited for the runner. None of it can be taken out again, so the
//! agent calls [`rebuild`] while the push door holds the manifest, and the engine's config is dropped.
//!
//! What comes from where:
//! - `config`: the box image's section, key by key from a closed list, with the step's changes on top;
//! - `os`, `architecture`, `variant`, `rootfs`: the committed image's, as only it knows its layers;
//! - `history`: the committed image's without its last entry, which the commit wrote, plus one of ours. An
//!   engine copies the box image's history there unchanged, while the history it lists elsewhere has lost
//!   `empty_layer`. Where the counts do not fit the layers (squashed images, builders that write no
//!   history), every layer of the box image gets one generic entry: registries and engines refuse images
//!   whose history and layers disagree.
//!
//! **Invariant:** the same input gives the same bytes, and nothing of the container gets through.

use super::{StepError, docker_push::ImageChanges, grammar::RUNTIME_LABELS};
use crate::api::condition::reason;
use serde_json::{Map, Value, json};

/// Keys of the config section that are an image's own. Others (`Hostname`, `Image`, `AttachStdin`, ...)
/// belong to a container.
const CONFIG_KEYS: [&str; 13] = [
    "ArgsEscaped",
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Labels",
    "OnBuild",
    "Shell",
    "StopSignal",
    "User",
    "Volumes",
    "WorkingDir",
];
/// Keys beside the config section that say where the image runs.
const PLATFORM_KEYS: [&str; 5] = ["architecture", "os", "os.features", "os.version", "variant"];
/// Keys of a history entry.
const HISTORY_KEYS: [&str; 5] = ["author", "comment", "created", "created_by", "empty_layer"];
/// Most layers that an image may have; engines stop at 127.
const MAX_LAYERS: usize = 1000;

/// Where the image comes from, for its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// What made the layer.
    pub created_by: String,
    /// When, in RFC 3339. The same for every try of a step, so that the digest is too.
    pub created: String,
}

/// Builds the config of the image to push.
///
/// `base` is the box image's config document (`None` for an image from scratch): its `config`, `author` and
/// `rootfs.diff_ids` are read. `committed` is the config document that the engine wrote for the commit.
///
/// # Errors
/// `CommitFailed` when the engine's documents do not fit each other.
pub fn rebuild(
    base: Option<&Value>,
    committed: &Value,
    changes: &ImageChanges,
    provenance: &Provenance,
) -> Result<Value, StepError> {
    let layers = diff_ids(committed)?;
    let base_layers = base.and_then(|base| base.pointer("/rootfs/diff_ids")).map(texts).unwrap_or_default();
    if !layers.starts_with(&base_layers) {
        return Err(failed("the committed image does not begin with the layers of the box image"));
    }
    let mut document = Map::new();
    for key in PLATFORM_KEYS {
        if let Some(value) = committed.get(key).filter(|value| !is_empty(value)) {
            document.insert(key.to_owned(), value.clone());
        }
    }
    if let Some(missing) = ["architecture", "os"].into_iter().find(|key| !document.contains_key(*key)) {
        return Err(failed(&format!("the engine's config of the committed image has no {missing}")));
    }
    let base_author = base.and_then(|base| base.get("author")).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(author) = changes.author.as_deref().or(base_author) {
        document.insert("author".to_owned(), author.into());
    }
    document.insert("created".to_owned(), provenance.created.as_str().into());
    document.insert("config".to_owned(), section(base.and_then(|base| base.get("config")), changes).into());
    document.insert("history".to_owned(), history(committed, layers.len(), base_layers.len(), changes, provenance));
    document.insert("rootfs".to_owned(), json!({"type": "layers", "diff_ids": layers}));
    Ok(sorted(document.into()))
}

fn failed(message: &str) -> StepError {
    StepError::new(reason::COMMIT_FAILED, message)
}

/// The layers of the committed image.
fn diff_ids(committed: &Value) -> Result<Vec<String>, StepError> {
    let layers = committed.pointer("/rootfs/diff_ids").map(texts).unwrap_or_default();
    let is_digest = |text: &String| {
        text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    if layers.is_empty() || layers.len() > MAX_LAYERS || !layers.iter().all(is_digest) {
        return Err(failed("the engine's config of the committed image has no usable list of layers"));
    }
    Ok(layers)
}

/// The box image's config section with the step's changes.
#[must_use]
pub fn section(base: Option<&Value>, changes: &ImageChanges) -> Map<String, Value> {
    let mut section = Map::new();
    for key in CONFIG_KEYS {
        if let Some(value) = base.and_then(|base| base.get(key)) {
            section.insert(key.to_owned(), value.clone());
        }
    }
    if let Some(labels) = section.get_mut("Labels").and_then(Value::as_object_mut) {
        labels.retain(|key, _| !RUNTIME_LABELS.iter().any(|prefix| key.starts_with(prefix)));
        labels.extend(changes.labels.iter().map(|(key, value)| (key.clone(), value.as_str().into())));
    } else {
        section.insert("Labels".to_owned(), json!(changes.labels));
    }
    // As in a Dockerfile: a new entry point has no use for the arguments of the old one.
    if changes.entrypoint.is_some() {
        section.remove("Cmd");
    }
    if changes.entrypoint.is_some() || changes.cmd.is_some() {
        section.remove("ArgsEscaped");
    }
    let env = merged_env(section.get("Env"), &changes.env);
    section.insert("Env".to_owned(), env.into());
    for (key, words) in [("Entrypoint", &changes.entrypoint), ("Cmd", &changes.cmd)] {
        if let Some(words) = words {
            section.insert(key.to_owned(), json!(words));
        }
    }
    for (key, names) in [("ExposedPorts", &changes.ports), ("Volumes", &changes.volumes)] {
        add_names(&mut section, key, names);
    }
    let texts = [("User", &changes.user), ("WorkingDir", &changes.working_dir), ("StopSignal", &changes.stop_signal)];
    for (key, text) in texts {
        if let Some(text) = text {
            section.insert(key.to_owned(), text.as_str().into());
        }
    }
    section.retain(|_, value| !is_empty(value));
    section
}

/// The base's variables in their order, replaced in place, new ones behind.
fn merged_env(base: Option<&Value>, changes: &[(String, String)]) -> Vec<String> {
    let mut env = base.map(texts).unwrap_or_default();
    for (name, value) in changes {
        let entry = format!("{name}={value}");
        let same = |old: &&mut String| old.split_once('=').map_or(old.as_str(), |(old, _)| old) == name;
        match env.iter_mut().find(same) {
            Some(old) => *old = entry,
            None => env.push(entry),
        }
    }
    env
}

/// Adds names to a set such as `{"80/tcp": {}}`.
fn add_names(section: &mut Map<String, Value>, key: &str, names: &[String]) {
    let base = section.remove(key);
    let mut set = base.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
    set.extend(names.iter().map(|name| (name.clone(), json!({}))));
    section.insert(key.to_owned(), set.into());
}

/// The base image's history and one entry of ours.
fn history(committed: &Value, layers: usize, base_layers: usize, changes: &ImageChanges, from: &Provenance) -> Value {
    let engine = committed.get("history").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let filled = |entries: &[Value]| entries.iter().filter(|entry| !is_empty_layer(entry)).count();
    let mut history: Vec<Value> = match engine.split_last() {
        // A commit of a box in which nothing changed adds no layer, and its entry says so.
        Some((_, base)) if filled(engine) == layers && (base_layers == 0 || filled(base) == base_layers) => {
            base.iter().map(history_entry).collect()
        }
        _ => {
            let base = if base_layers == 0 { layers - 1 } else { base_layers };
            (0..base).map(|_| json!({"created_by": "layer of the box image, which records no history"})).collect()
        }
    };
    // Layers that are neither the base's nor ours cannot be; should an engine add some, the counts still fit.
    while filled(&history) + 1 < layers {
        history.push(json!({"created_by": "layer of the engine's commit"}));
    }
    let mut own = Map::new();
    own.insert("created".to_owned(), from.created.as_str().into());
    own.insert("created_by".to_owned(), from.created_by.as_str().into());
    if let Some(author) = &changes.author {
        own.insert("author".to_owned(), author.as_str().into());
    }
    if let Some(message) = &changes.message {
        own.insert("comment".to_owned(), message.as_str().into());
    }
    if filled(&history) == layers {
        own.insert("empty_layer".to_owned(), true.into());
    }
    history.push(own.into());
    history.into()
}

/// Takes a label of ours away from a config, and with it the entries of the history that set it: they add no layer.
pub fn forget_label(config: &mut Value, label: &str) {
    if let Some(labels) = config.pointer_mut("/config/Labels").and_then(Value::as_object_mut) {
        labels.remove(label);
    }
    if let Some(history) = config.get_mut("history").and_then(Value::as_array_mut) {
        let sets = |entry: &Value| {
            let made = entry.get("created_by").and_then(Value::as_str).unwrap_or_default();
            is_empty_layer(entry) && made.contains("LABEL ") && made.contains(label)
        };
        history.retain(|entry| !sets(entry));
    }
}

fn is_empty_layer(entry: &Value) -> bool {
    entry.get("empty_layer").and_then(Value::as_bool).unwrap_or_default()
}

/// A history entry with its known keys only.
fn history_entry(entry: &Value) -> Value {
    let known = |key: &&str| Some(((*key).to_owned(), entry.get(*key)?.clone()));
    HISTORY_KEYS.iter().filter_map(known).collect::<Map<_, _>>().into()
}

/// The strings of a list.
fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// Orders all keys, whatever order the JSON library keeps: the digest depends on it.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(list) => list.into_iter().map(sorted).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests;
