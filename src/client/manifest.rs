//! Files of runs and of what they need: read, checked for what makes them unusable, completed from flags.
//!
//! `run` uses it. **Invariant:** what the user wrote is sent as written; the API server judges the
//! fields. Nothing of a file that holds a Secret is quoted. Bounded: a file of at most [`MOST_BYTES`].

use super::{
    args::{BreakAt, RunArgs},
    exit::Exit,
    fault::{Fault, Stop, nearest, reason},
};
use crate::{
    api::{GROUP, VERSION, meta},
    yaml::{self, Span},
};
use serde::{Deserialize, de};
use serde_json::{Map, Value, json};
use std::{fmt, io::Read, path::Path};

/// Longest file: the API server takes objects of at most 3 MiB.
pub(super) const MOST_BYTES: u64 = 4 << 20;
/// Most documents in a file.
const MOST_DOCUMENTS: usize = 200;

/// What a file asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Manifest {
    /// Pipelines, Secrets and all else that is no run: applied first, in the order of the file.
    pub objects: Vec<Value>,
    /// The run to make and follow.
    pub run: Value,
    /// More runs to make.
    pub others: Vec<Value>,
}

impl Manifest {
    /// A run and nothing else.
    #[must_use]
    pub(super) fn of(run: Value) -> Self {
        Self { objects: Vec::new(), run, others: Vec::new() }
    }

    /// All runs, the one to follow first.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Value> {
        std::iter::once(&self.run).chain(&self.others)
    }
}

/// Reads a file, or stdin for `-`.
///
/// # Errors
/// `UnreadableFile`.
pub(super) fn read(path: &Path) -> Result<String, Stop> {
    let name = path.display();
    let unreadable = |cause: String| Fault::new(reason::UNREADABLE_FILE, Exit::Usage, format!("{name}: {cause}"));
    if name.to_string().contains("://") {
        let hint = format!("curl -fsSL {name} | windlass run -f -");
        return Err(unreadable("addresses are not fetched".into()).hint(hint).into());
    }
    let mut bytes = Vec::new();
    let result = if path == Path::new("-") {
        std::io::stdin().lock().take(MOST_BYTES + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
    };
    result.map_err(|e| unreadable(e.to_string()))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(unreadable(format!("is longer than {} MiB", MOST_BYTES >> 20)).into());
    }
    String::from_utf8(bytes).map_err(|_| unreadable("is not UTF-8 text".into()).into())
}

/// The documents of a file.
///
/// # Errors
/// `YamlSyntax` with line and column.
pub(super) fn parse(file: &str, text: &str) -> Result<Vec<Value>, Stop> {
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text).take(MOST_DOCUMENTS + 1) {
        let value = Strict::deserialize(document).map_err(|e| syntax(file, text, &e))?;
        if !value.0.is_null() {
            documents.push(value.0);
        }
    }
    if documents.len() > MOST_DOCUMENTS {
        return Err(Fault::usage(format!("{file} holds more than {MOST_DOCUMENTS} documents")).into());
    }
    Ok(documents)
}

fn syntax(file: &str, text: &str, error: &serde_yaml::Error) -> Stop {
    let place = error.location().map(|l| (l.line(), l.column()));
    let cause = error.to_string();
    // The library repeats the place in words.
    let cause = yaml::clean(cause.split(" at line ").next().unwrap_or(&cause));
    let Some((line, column)) = place else {
        return Fault::new(reason::YAML_SYNTAX, Exit::Usage, format!("{file}: {cause}")).into();
    };
    let mut fault = Fault::new(reason::YAML_SYNTAX, Exit::Usage, format!("{file}:{line}:{column}: {cause}"));
    // The line may be that of a password.
    if text.lines().any(|line| line.contains("kind") && line.contains("Secret")) {
        return fault.note("the line is not shown, as the file holds a Secret").note("nothing was started").into();
    }
    fault.notes.extend(yaml::excerpt(Span { line, column, width: 1 }, text, "").lines().map(str::to_owned));
    fault.note("nothing was started").into()
}

/// What a file asks for, with what flags add; a lone Pipeline is run.
///
/// # Errors
/// When it is not clear what to run, or the namespaces differ.
pub(super) fn assemble(
    file: &str,
    documents: Vec<Value>,
    place: (&str, bool),
    args: &RunArgs,
) -> Result<Manifest, Stop> {
    let (mut objects, mut runs, mut pipelines) = (Vec::new(), Vec::new(), Vec::new());
    for (i, mut document) in documents.into_iter().flat_map(items).enumerate() {
        let kind = kind(file, i, &document)?;
        settle_namespace(file, &mut document, place, kind)?;
        if kind == Kind::Pipeline {
            pipelines.push(name_of(&document).to_owned());
        }
        match kind {
            Kind::Run => runs.push(document),
            Kind::Pipeline | Kind::Other => objects.push(document),
        }
    }
    if runs.is_empty() {
        runs.push(match pipelines.as_slice() {
            [] => {
                let fault = Fault::usage(format!("{file} holds no PipelineRun and no Pipeline"));
                let hint = format!("kubectl apply -f {}   for other kinds", as_argument(file));
                return Err(if objects.is_empty() { fault } else { fault.hint(hint) }.into());
            }
            [one] => run_of(one, place.0),
            many => {
                let fault = Fault::usage(format!("{file} holds {} Pipelines and no PipelineRun", many.len()));
                return Err(fault.note(format!("it has {}; nothing was applied", many.join(", "))).into());
            }
        });
    }
    let flags = !args.what.params.is_empty() || !args.what.env.is_empty() || args.revision.is_some();
    if runs.len() > 1 && flags {
        let message =
            format!("{file} holds {} PipelineRuns; -p, -e and --revision are for a file with one", runs.len());
        return Err(Fault::usage(message).note("nothing was started").into());
    }
    for run in &mut runs {
        complete(file, run, args)?;
    }
    let mut runs = runs.into_iter();
    let run = runs.next().unwrap_or_default();
    Ok(Manifest { objects, run, others: runs.collect() })
}

/// The file as it stands behind `-f`.
#[must_use]
pub(super) fn as_argument(file: &str) -> &str {
    if file == "stdin" { "-" } else { file }
}

/// The objects of a List, as `kubectl get -o yaml` prints it; else the document itself.
fn items(mut document: Value) -> Vec<Value> {
    let is_list = document.get("apiVersion").and_then(Value::as_str) == Some("v1")
        && document.get("kind").and_then(Value::as_str) == Some("List");
    match document.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if is_list => items,
        Some(other) => {
            if let Some(object) = document.as_object_mut() {
                object.insert("items".into(), other);
            }
            vec![document]
        }
        None => vec![document],
    }
}

/// `metadata.name`, else `metadata.generateName`; empty if there is none.
#[must_use]
pub(super) fn name_of(object: &Value) -> &str {
    let name = object.pointer("/metadata/name").or_else(|| object.pointer("/metadata/generateName"));
    name.and_then(Value::as_str).unwrap_or_default()
}

/// Whether it is a Secret: nothing of its values is ever shown.
#[must_use]
pub(super) fn is_secret(object: &Value) -> bool {
    object.get("kind").and_then(Value::as_str) == Some("Secret")
}

/// An object as it may be shown.
#[must_use]
pub(super) fn shown(object: &Value) -> Value {
    let mut shown = object.clone();
    if !is_secret(object) {
        return shown;
    }
    for key in ["data", "stringData"] {
        match shown.get_mut(key) {
            Some(Value::Object(values)) => values.values_mut().for_each(|value| *value = json!("***")),
            Some(other) => *other = json!("***"),
            None => {}
        }
    }
    // kubectl keeps a copy of all values there.
    let copy = "kubectl.kubernetes.io/last-applied-configuration";
    if let Some(value) = shown.pointer_mut("/metadata/annotations").and_then(|a| a.get_mut(copy)) {
        *value = json!("***");
    }
    shown
}

/// A new run of a Pipeline.
#[must_use]
pub(super) fn run_of(pipeline: &str, namespace: &str) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "PipelineRun",
        "metadata": {
            "generateName": generate_name(pipeline),
            "namespace": namespace,
            "labels": {meta::PIPELINE: pipeline},
        },
        "spec": {"pipelineRef": {"name": pipeline}},
    })
}

/// A beginning that leaves room for the five characters that the API server adds; a run's name has 58 at most.
#[must_use]
pub(super) fn generate_name(base: &str) -> String {
    let base: String = base.chars().take(52).collect();
    format!("{}-", base.trim_end_matches('-'))
}

/// Puts `-p`, `-e` and `--revision` into the run; they win over what the file says.
///
/// # Errors
/// When the file has something else than a list where they belong.
pub(super) fn complete(file: &str, run: &mut Value, args: &RunArgs) -> Result<(), Stop> {
    let pairs = |given: &[super::args::KeyValue]| {
        given.iter().map(|kv| json!({"name": kv.name, "value": kv.value})).collect::<Vec<_>>()
    };
    let Some(spec) = run.get_mut("spec").and_then(Value::as_object_mut) else {
        return Err(Fault::usage(format!("{file}: the PipelineRun has no spec")).into());
    };
    merge(file, spec, "params", pairs(&args.what.params))?;
    merge(file, spec, "env", pairs(&args.what.env))?;
    if let Some(revision) = &args.revision {
        spec.insert("revision".into(), json!(revision));
    }
    break_at(file, run, &args.manner.breakpoint)
}

/// Puts breakpoints into a run, beside those that it has.
pub(super) fn break_at(file: &str, run: &mut Value, at: &[BreakAt]) -> Result<(), Stop> {
    if at.is_empty() {
        return Ok(());
    }
    let wrong = || Fault::usage(format!("{file}: spec.breakpoint is not a map with a list before"));
    let spec = run.get_mut("spec").and_then(Value::as_object_mut).ok_or_else(wrong)?;
    let breakpoint = spec.entry("breakpoint").or_insert_with(|| json!({})).as_object_mut().ok_or_else(wrong)?;
    for at in at {
        match at {
            BreakAt::Failure => drop(breakpoint.insert("atFailure".into(), json!(true))),
            BreakAt::Before(step) => {
                let before =
                    breakpoint.entry("before").or_insert_with(|| json!([])).as_array_mut().ok_or_else(wrong)?;
                if !before.contains(&json!(step)) {
                    before.push(json!(step));
                }
            }
        }
    }
    Ok(())
}

fn merge(file: &str, spec: &mut Map<String, Value>, key: &str, given: Vec<Value>) -> Result<(), Stop> {
    if given.is_empty() {
        return Ok(());
    }
    let Some(list) = spec.entry(key).or_insert_with(|| json!([])).as_array_mut() else {
        return Err(Fault::usage(format!("{file}: spec.{key} is not a list")).into());
    };
    for item in given {
        list.retain(|old| old.get("name") != item.get("name"));
        list.push(item);
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pipeline,
    Run,
    /// Of another API: the cluster says what it is.
    Other,
}

fn kind(file: &str, index: usize, document: &Value) -> Result<Kind, Stop> {
    let word = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (word("apiVersion"), word("kind"));
    let wanted = format!("{GROUP}/{VERSION}");
    let unknown = |message: String| Fault::new(reason::UNKNOWN_KIND, Exit::Usage, message).note("nothing was started");
    let named = format!("{file}, document {}", index + 1);
    match kind {
        "Pipeline" | "PipelineRun" if version == wanted => {
            Ok(if kind == "Pipeline" { Kind::Pipeline } else { Kind::Run })
        }
        "" => {
            let fault = unknown(format!("{named}: no kind; expected PipelineRun, Pipeline or what they need"));
            let is_wercker = is_wercker(|key| document.get(key).is_some());
            Err(if is_wercker { fault.hint(wercker_hint(file)) } else { fault }.into())
        }
        // Other APIs have kinds of these names, which is no reason to apply one by mistake.
        "Pipeline" | "PipelineRun" => {
            Err(unknown(format!("{named}: apiVersion is {version:?}, expected {wanted:?}")).into())
        }
        other if version.starts_with(&format!("{GROUP}/")) => {
            let fault = unknown(format!("{named}: kind {other:?} cannot be run; expected Pipeline or PipelineRun"));
            Err(match nearest(other, ["Pipeline", "PipelineRun"]) {
                Some(near) => fault.hint(format!("did you mean {near}?")),
                None => fault,
            }
            .into())
        }
        other if version.is_empty() => Err(unknown(format!("{named}: kind {other:?} without apiVersion")).into()),
        _ => Ok(Kind::Other),
    }
}

/// Whether a document looks like a `wercker.yml`, by the keys that it has.
pub(super) fn is_wercker(has: impl Fn(&str) -> bool) -> bool {
    let one_of = |keys: &[&str]| keys.iter().any(|key| has(key));
    !one_of(&["apiVersion", "kind"]) && one_of(&["box", "build", "deploy", "dev", "workflows"])
}

/// Who reads a `wercker.yml`: it has steps, files and a source beside it, so that it is never read from stdin.
pub(super) fn wercker_hint(file: &str) -> String {
    let file = if as_argument(file) == "-" { "FILE" } else { file };
    format!("it looks like a wercker.yml, which runs on Docker: windlass build -f {file}")
}

/// A document without a namespace goes where `-n` or the context says; one with another is refused. Objects of
/// other kinds get theirs when the cluster has said whether they are in a namespace at all.
fn settle_namespace(
    file: &str,
    document: &mut Value,
    (namespace, given): (&str, bool),
    kind: Kind,
) -> Result<(), Stop> {
    let Some(metadata) = document.as_object_mut().map(|o| o.entry("metadata").or_insert_with(|| json!({}))) else {
        return Ok(());
    };
    let Some(metadata) = metadata.as_object_mut() else {
        return Err(Fault::usage(format!("{file}: metadata is not a map")).into());
    };
    match metadata.get("namespace").and_then(Value::as_str) {
        Some(written) if written != namespace && given => {
            let fault = Fault::usage(format!("{file} says namespace {written}, -n says {namespace}"));
            Err(fault.note("nothing was started").into())
        }
        None if kind != Kind::Other => {
            metadata.insert("namespace".into(), json!(namespace));
            Ok(())
        }
        Some(_) | None => Ok(()),
    }
}

/// A YAML value in which no key stands twice: of two, one would be lost without a word.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> de::Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("not a number that JSON has"))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(Strict(key)) = map.next_key()? {
            let key = match key {
                Value::String(key) => key,
                Value::Number(key) => key.to_string(),
                Value::Bool(key) => key.to_string(),
                _ => return Err(de::Error::custom("a key is not a word")),
            };
            if object.contains_key(&key) {
                return Err(de::Error::custom(format!("key {key:?} stands twice")));
            }
            let Strict(value) = map.next_value()?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests;
