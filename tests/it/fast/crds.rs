//! The definitions, the types and the cases of `tests/api` against each other.

use serde_json::{Map, Value};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};
use windlass::api::{Pipeline, PipelineRun, crds};

const MAX_BYTES: usize = 256 * 1024;

/// A file of `tests/api/accept` or `tests/api/reject`.
pub(crate) struct Case {
    /// Name of the file, without its end.
    pub(crate) stem: String,
    /// Its first line without the `#`: in `reject`, the message.
    pub(crate) head: String,
    /// Its objects.
    pub(crate) documents: Vec<Value>,
}

/// All cases of a folder, sorted by name.
pub(crate) fn cases(folder: &str) -> Vec<Case> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(root().join("tests/api").join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| case(path)).collect()
}

fn case(path: &Path) -> Case {
    let text = fs::read_to_string(path).unwrap();
    let documents: Result<Vec<Value>, _> =
        serde_yaml::Deserializer::from_str(&text).map(serde::Deserialize::deserialize).collect();
    Case {
        stem: path.file_stem().unwrap().to_str().unwrap().to_owned(),
        head: text.lines().next().unwrap().trim_start_matches('#').trim().to_owned(),
        documents: documents.unwrap_or_else(|error| panic!("{}: {error}", path.display())),
    }
}

/// The object as our types read and write it.
pub(crate) fn typed(object: &Value) -> Result<Value, String> {
    fn through<T: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Result<Value, String> {
        let typed: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
        serde_json::to_value(&typed).map_err(|error| error.to_string())
    }
    match object["kind"].as_str() {
        Some("Pipeline") => through::<Pipeline>(object),
        Some("PipelineRun") => through::<PipelineRun>(object),
        other => Err(format!("no such kind: {other:?}")),
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The definitions, as `windlass crds` prints them.
pub(crate) fn definitions() -> &'static [Value] {
    static DEFINITIONS: LazyLock<Vec<Value>> = LazyLock::new(|| {
        let text = crds::yaml();
        serde_yaml::Deserializer::from_str(&text).map(|d| serde::Deserialize::deserialize(d).unwrap()).collect()
    });
    &DEFINITIONS
}

/// The schema of a kind.
fn schema(kind: &str) -> &'static Value {
    let crd = definitions().iter().find(|crd| crd["spec"]["names"]["kind"] == kind).unwrap();
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap()
}

/// Calls `look` for a schema and all below it, with the path as the server writes it.
fn walk(schema: &Value, path: &str, look: &mut impl FnMut(&str, &Map<String, Value>)) {
    let fields = schema.as_object().unwrap();
    look(path, fields);
    for (name, property) in fields.get("properties").and_then(Value::as_object).into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), look);
    }
    for (key, sign) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(below) = fields.get(key) {
            walk(below, &format!("{path}{sign}"), look);
        }
    }
}

/// What the server makes of a value before it stores it: no nulls, defaults filled in.
fn stored(value: &Value, schema: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let none = Map::new();
            let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
            let set = fields.iter().filter(|(_, value)| !value.is_null());
            let mut out: Map<String, Value> = set
                .map(|(name, value)| (name.clone(), stored(value, properties.get(name).unwrap_or(&Value::Null))))
                .collect();
            for (name, property) in properties {
                if let Some(default) = property.get("default") {
                    out.entry(name.as_str()).or_insert_with(|| default.clone());
                }
            }
            out.into()
        }
        Value::Array(items) => {
            items.iter().map(|item| stored(item, schema.get("items").unwrap_or(&Value::Null))).collect()
        }
        _ => value.clone(),
    }
}

#[test]
fn committed_files_are_what_the_types_say() {
    let names: BTreeSet<String> = fs::read_dir(root().join("crds"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names, crds::files().iter().map(|file| file.name.to_owned()).collect());
    for file in crds::files() {
        let committed = fs::read_to_string(root().join("crds").join(file.name)).unwrap();
        assert!(committed == file.text, "crds/{} is out of date: run `windlass crds --dir crds`", file.name);
    }
}

#[test]
fn the_stream_is_the_files_one_after_another() {
    let text = crds::yaml();
    assert!(text.starts_with("# Generated by `windlass crds`"));
    let names: Vec<Value> = definitions().iter().map(|crd| crd["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["pipelines.windlass.dev", "pipelineruns.windlass.dev"]);
    for file in crds::files() {
        let body = file.text.split_once('\n').unwrap().1;
        assert!(text.contains(body), "{}", file.name);
    }
}

#[test]
fn fit_their_budget() {
    for crd in definitions() {
        let bytes = serde_json::to_vec(&crd).unwrap().len();
        assert!(bytes <= MAX_BYTES, "{}: {bytes} bytes", crd["metadata"]["name"]);
    }
}

#[test]
fn every_property_is_described() {
    for kind in ["Pipeline", "PipelineRun"] {
        walk(schema(kind), "", &mut |path, fields| {
            let is_property = !path.ends_with("[]") && !path.ends_with("{}");
            let described = fields.get("description").and_then(Value::as_str).is_some_and(|text| text.ends_with('.'));
            assert!(!is_property || described, "{kind}{path} needs a description that ends with a full stop");
        });
    }
}

#[test]
fn every_value_has_a_limit() {
    for kind in ["Pipeline", "PipelineRun"] {
        walk(schema(kind), "", &mut |path, fields| {
            let has = |key: &str| fields.contains_key(key);
            let bounded = match fields.get("type").and_then(Value::as_str) {
                Some("string") => has("maxLength") || has("enum") || fields["format"] == "date-time",
                Some("array") => has("maxItems"),
                Some("object") => has("maxProperties") || !has("additionalProperties"),
                Some("integer" | "boolean") => true,
                None => has("maxLength"),
                Some(other) => panic!("{kind}{path}: a {other}?"),
            };
            assert!(bounded, "{kind}{path} has no limit: the server would refuse rules on it");
        });
    }
}

/// Fields that are kept without being known: what takes a string, a list or a map, and the frozen spec.
#[test]
fn nothing_unknown_is_kept_elsewhere() {
    let mut kept = BTreeSet::new();
    for kind in ["Pipeline", "PipelineRun"] {
        walk(schema(kind), "", &mut |path, fields| {
            assert!(!fields.contains_key("nullable"), "{kind}{path}");
            if fields.contains_key("x-kubernetes-preserve-unknown-fields") {
                let step = path.rsplit_once("teps[]").map_or(path, |(_, below)| below);
                kept.insert(step.replace(".dockerScratchPush", ".dockerPush"));
            }
        });
    }
    let push = ["cmd", "entrypoint", "env", "labels", "ports", "volumes"].map(|name| format!(".dockerPush.{name}"));
    let expected = push.into_iter().chain([".shell.cmd".to_owned(), ".status.pipelineSpec".to_owned()]);
    assert_eq!(kept, expected.collect());
}

#[test]
fn a_run_holds_the_same_pipeline() {
    let own = &schema("Pipeline")["properties"]["spec"];
    let mut in_run = schema("PipelineRun")["properties"]["spec"]["properties"]["pipelineSpec"].clone();
    let rules = in_run["x-kubernetes-validations"].as_array_mut().unwrap();
    assert_eq!(rules.pop().unwrap()["rule"], "self == oldSelf", "the one rule of a run alone comes last");
    for field in ["type", "required", "properties", "x-kubernetes-validations"] {
        assert!(own[field] == in_run[field], "{field} differs");
    }
}

/// A rule that no case breaks is a rule that may not work.
#[test]
fn every_rule_has_a_case_that_breaks_it() {
    let heads: Vec<String> = cases("reject").into_iter().map(|case| case.head).collect();
    assert!(heads.iter().all(|head| head.len() > 10), "a case in tests/api/reject begins with no message");
    for kind in ["Pipeline", "PipelineRun"] {
        walk(schema(kind), "", &mut |path, fields| {
            for rule in fields.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
                let message = rule["message"].as_str().unwrap();
                // Some cases name the beginning of a message only.
                let broken = heads.iter().any(|head| head.ends_with(message) || message.starts_with(head.as_str()));
                assert!(broken, "{kind}{path}: no case in tests/api/reject begins with `# {message}`");
            }
        });
    }
}

#[test]
fn accepted_objects_go_through_the_types_without_loss() {
    for Case { stem, documents, .. } in cases("accept") {
        for object in documents {
            let stored = stored(&object, schema(object["kind"].as_str().unwrap()));
            let back = typed(&stored).unwrap_or_else(|error| panic!("{stem}: {error}"));
            assert_eq!(back, stored, "{stem}");
        }
    }
}

/// The types fill in what an object leaves out: the same as the server does.
#[test]
fn types_and_schema_have_the_same_defaults() {
    for Case { stem, documents, .. } in cases("accept") {
        for object in documents {
            let schema = schema(object["kind"].as_str().unwrap());
            let sparse = stored(&object, &Value::Null);
            let back = typed(&sparse).unwrap_or_else(|error| panic!("{stem}: {error}"));
            assert_eq!(back, stored(&object, schema), "{stem}");
        }
    }
}

/// So that the tests above speak of all properties. The same property in another place counts.
#[test]
fn every_property_is_in_an_accepted_object() {
    fn note(value: &Value, schema: &Value, seen: &mut BTreeSet<String>) {
        for (name, value) in value.as_object().into_iter().flatten() {
            if let Some(property) = schema.pointer(&format!("/properties/{name}")) {
                seen.insert(same(name, property.as_object().unwrap()));
                note(value, property, seen);
            }
        }
        for item in value.as_array().into_iter().flatten() {
            note(item, &schema["items"], seen);
        }
    }
    fn same(name: &str, property: &Map<String, Value>) -> String {
        let plain = property.iter().filter(|(key, _)| !matches!(key.as_str(), "description" | "maxItems"));
        format!("{name}: {}", Value::Object(plain.map(|(k, v)| (k.clone(), v.clone())).collect()))
    }
    let mut seen = BTreeSet::new();
    for object in cases("accept").iter().flat_map(|case| &case.documents) {
        note(object, schema(object["kind"].as_str().unwrap()), &mut seen);
    }
    for kind in ["Pipeline", "PipelineRun"] {
        walk(&schema(kind)["properties"]["spec"], ".spec", &mut |path, fields| {
            let name = path.rsplit('.').next().unwrap();
            if path != ".spec" && !name.ends_with("[]") && !name.ends_with("{}") {
                assert!(seen.contains(&same(name, fields)), "{kind}{path} is in no case of tests/api/accept");
            }
        });
    }
}

/// The server keeps numbers as they come where both are allowed.
#[test]
fn quantities_may_be_numbers() {
    let resources: windlass::api::pipeline::Resources =
        serde_json::from_value(serde_json::json!({"limits": {"cpu": 2, "memory": "1Gi"}})).unwrap();
    assert_eq!(resources.limits["cpu"].0, "2");
    assert_eq!(resources.limits["memory"].0, "1Gi");
}
