//! An object against the schema of its kind: what the API server refuses before any rule is asked.
//!
//! Of the rules (CEL) only unions are judged, which are all of one form; `kubectl apply --dry-run=server` asks them all.
//!
//! **Invariant:** the schema is that of `windlass crds`; no field is known here by name.

use crate::{
    api::crds,
    yaml::{Diagnostic, Entry, Findings, Node, Value as Tree, nearest, reason},
};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, sync::LazyLock};

/// They are made from the types, which takes a while: each only when it is asked for.
static SCHEMAS: [(&str, LazyLock<Option<Value>>); 2] = [
    ("Pipeline", LazyLock::new(|| crds::schema("Pipeline"))),
    ("PipelineRun", LazyLock::new(|| crds::schema("PipelineRun"))),
];

/// Judges an object.
pub(super) fn check(object: &Node, kind: &str, findings: &mut Findings) {
    let Some(schema) = SCHEMAS.iter().find(|(known, _)| *known == kind).and_then(|(_, schema)| schema.as_ref()) else {
        return;
    };
    let empty = Map::new();
    let fields = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    for entry in object.map().unwrap_or_default() {
        match entry.key.as_str() {
            "apiVersion" | "kind" | "metadata" => {}
            key => match fields.get(key) {
                Some(schema) => value(&entry.value, schema, key, findings),
                None => unknown(entry, "the object", fields.keys().map(String::as_str), findings),
            },
        }
    }
    if object.get("spec").is_none() {
        findings.push(Diagnostic::error(reason::WRONG_TYPE, "the object has no spec").at(object.at, ""));
    }
}

fn unknown<'a>(entry: &Entry, path: &str, known: impl Iterator<Item = &'a str>, findings: &mut Findings) {
    let label = nearest(&entry.key, known).map_or_else(String::new, |near| format!("did you mean {near}?"));
    let message = format!("{path}: no such key: {}", entry.key);
    findings.push(Diagnostic::error(reason::UNKNOWN_KEY, message).at(entry.key_at, label));
}

fn wrong(node: &Node, path: &str, expected: &str, findings: &mut Findings) {
    let found = Diagnostic::error(reason::WRONG_TYPE, format!("{path} is {}", shown(node)));
    findings.push(found.at(node.at, format!("expected {expected}")));
}

/// What a value is, for people.
fn shown(node: &Node) -> String {
    match node.json() {
        Value::String(_) => "text".to_owned(),
        Value::Number(number) => format!("the number {number}"),
        Value::Bool(truth) => format!("the truth value {truth}"),
        _ => node.kind().to_owned(),
    }
}

fn number(schema: &Value, key: &str) -> Option<i64> {
    schema.get(key).and_then(Value::as_i64)
}

fn value(node: &Node, schema: &Value, path: &str, findings: &mut Findings) {
    // A null is a field that is left out.
    if node.is_null() {
        return;
    }
    let loose = schema.get("x-kubernetes-preserve-unknown-fields").is_some();
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => object(node, schema, path, findings),
        Some("array") => list(node, schema, path, findings),
        Some("string") => text(node, schema, path, findings),
        Some("boolean") if !node.json().is_boolean() => wrong(node, path, "true or false", findings),
        Some("integer") => whole(node, schema, path, findings),
        None if loose && schema.get("maxLength").is_some() => several(node, schema, path, findings),
        None if schema.get("x-kubernetes-int-or-string").is_some() => match node.json() {
            Value::Number(_) => whole(node, schema, path, findings),
            _ => text(node, schema, path, findings),
        },
        _ => {}
    }
}

/// What takes text, a list and perhaps a map: the checks of each stand side by side.
fn several(node: &Node, schema: &Value, path: &str, findings: &mut Findings) {
    match (&node.value, node.json()) {
        (Tree::List(_), _) => list(node, schema, path, findings),
        (Tree::Map(entries), _) if number(schema, "maxProperties") == Some(0) && !entries.is_empty() => {
            wrong(node, path, "text or a list", findings);
        }
        (Tree::Map(_), _) => object(node, schema, path, findings),
        (_, Value::Bool(_)) => wrong(node, path, "text or a list; quote it", findings),
        (_, Value::Number(_)) if number(schema, "minimum") > number(schema, "maximum") => {
            wrong(node, path, "text or a list; quote it", findings);
        }
        (_, Value::Number(_)) => whole(node, schema, path, findings),
        _ => text(node, schema, path, findings),
    }
}

fn object(node: &Node, schema: &Value, path: &str, findings: &mut Findings) {
    let Some(entries) = node.map() else { return wrong(node, path, "a map", findings) };
    let empty = Map::new();
    let fields = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let others = schema.get("additionalProperties");
    let loose = schema.get("x-kubernetes-preserve-unknown-fields").is_some();
    for entry in entries {
        let below = format!("{path}.{}", entry.key);
        match fields.get(&entry.key).or(others) {
            Some(schema) => value(&entry.value, schema, &below, findings),
            None if loose => {}
            None => unknown(entry, path, fields.keys().map(String::as_str), findings),
        }
    }
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for field in required.filter(|field| node.get(field).is_none_or(Node::is_null)) {
        findings
            .push(Diagnostic::error(reason::WRONG_TYPE, format!("{path} has no {field}")).at(node.at, "it needs one"));
    }
    if number(schema, "maxProperties").is_some_and(|most| as_count(most) < entries.len()) {
        wrong(node, path, "fewer entries", findings);
    }
    for rule in schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
        union(node, rule, path, findings);
    }
}

/// Rules of the form `[has(self.a), has(self.b)].filter(x, x).size() == 1`.
fn union(node: &Node, rule: &Value, path: &str, findings: &mut Findings) {
    let text = rule.get("rule").and_then(Value::as_str).unwrap_or_default();
    let Some(list) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix("].filter(x, x).size() == 1")) else {
        return;
    };
    let members = list.split(", ").filter_map(|part| part.strip_prefix("has(self.")?.strip_suffix(')'));
    let set: Vec<&str> = members.filter(|member| node.get(member).is_some_and(|value| !value.is_null())).collect();
    if set.len() != 1 {
        let message = rule.get("message").and_then(Value::as_str).unwrap_or_default();
        let label = if set.is_empty() { "it has none".to_owned() } else { format!("it has {}", set.join(" and ")) };
        findings.push(Diagnostic::error(reason::INVALID_STEP, format!("{path}: {message}")).at(node.at, label));
    }
}

fn list(node: &Node, schema: &Value, path: &str, findings: &mut Findings) {
    let Some(items) = node.list() else { return wrong(node, path, "a list", findings) };
    if number(schema, "minItems").is_some_and(|least| as_count(least) > items.len()) {
        wrong(node, path, "at least one item", findings);
    }
    if let Some(most) = number(schema, "maxItems").map(as_count).filter(|most| *most < items.len()) {
        wrong(node, path, &format!("at most {most} items"), findings);
    }
    for (index, item) in items.iter().enumerate() {
        if let Some(schema) = schema.get("items") {
            value(item, schema, &format!("{path}[{index}]"), findings);
        }
    }
    let keys: Vec<&str> = schema
        .get("x-kubernetes-list-map-keys")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let is_set = schema.get("x-kubernetes-list-type").and_then(Value::as_str) == Some("set");
    let mut seen = BTreeSet::new();
    for item in items {
        let own = keys.iter().find_map(|key| item.get(key)).or(is_set.then_some(item));
        if let Some(text) = own.and_then(Node::text)
            && !seen.insert(text.to_owned())
        {
            let at = own.map_or(item.at, |own| own.at);
            findings.push(
                Diagnostic::error(reason::DUPLICATE_KEY, format!("{path}: {text} stands twice")).at(at, "the second"),
            );
        }
    }
}

fn text(node: &Node, schema: &Value, path: &str, findings: &mut Findings) {
    let Value::String(text) = node.json() else { return wrong(node, path, "text; quote it", findings) };
    let allowed: Vec<&str> =
        schema.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if !allowed.is_empty() && !allowed.contains(&text.as_str()) {
        let near = nearest(&text, allowed.iter().copied());
        let label = near
            .map_or_else(|| format!("expected one of {}", allowed.join(", ")), |near| format!("did you mean {near}?"));
        findings.push(Diagnostic::error(reason::WRONG_TYPE, format!("{path} is {text:?}")).at(node.at, label));
    }
    let length = text.chars().count();
    if number(schema, "minLength").is_some_and(|least| as_count(least) > length) {
        wrong(node, path, "longer text", findings);
    }
    if let Some(most) = number(schema, "maxLength").map(as_count).filter(|most| *most < length) {
        wrong(node, path, &format!("at most {most} characters; it has {length}"), findings);
    }
}

fn whole(node: &Node, schema: &Value, path: &str, findings: &mut Findings) {
    let Some(found) = node.json().as_i64() else { return wrong(node, path, "a whole number", findings) };
    let (least, most) = (number(schema, "minimum").unwrap_or(i64::MIN), number(schema, "maximum").unwrap_or(i64::MAX));
    if !(least..=most).contains(&found) {
        wrong(node, path, &format!("a number from {least} to {most}"), findings);
    }
}

fn as_count(limit: i64) -> usize {
    usize::try_from(limit).unwrap_or(0)
}
