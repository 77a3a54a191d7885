//! Server-side apply and merge patch, as far as the field managers of a run's status need them.
//!
//! **Invariant:** pure. A field that its last owner no longer applies goes; what another owns stays.

use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A way into an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// A member of an object.
    Field(String),
    /// An item of a list that is a map, by its key.
    Item(String),
}

type Path = Vec<Part>;
/// Who owns which fields.
pub(super) type Owners = BTreeMap<String, BTreeSet<Path>>;

/// The key of the list at `path` below `status`, if it is a map (`x-kubernetes-list-type` in `crds/`).
fn list_key(path: &[Part]) -> Option<&'static str> {
    match path {
        [Part::Field(name)] if name == "conditions" => Some("type"),
        [Part::Field(name)] if name == "steps" || name == "artifacts" => Some("name"),
        _ => None,
    }
}

/// Whether the object at `path` below `status` is written as a whole.
fn atomic(path: &[Part]) -> bool {
    matches!(path, [Part::Field(name)] if name == "pipelineSpec")
}

/// Applies `new` to `status` for `manager`, by force.
pub(super) fn apply(status: &mut Value, owners: &mut Owners, manager: &str, new: &Value) {
    let mut fields = BTreeMap::new();
    leaves(new, &mut Vec::new(), &mut fields);
    let old = owners.remove(manager).unwrap_or_default();
    for (path, value) in &fields {
        if matches!(path.last(), Some(Part::Field(_))) && find(status, path) != Some(value) {
            owners.values_mut().for_each(|set| _ = set.remove(path));
            *place(status, path) = value.clone();
        } else if matches!(path.last(), Some(Part::Item(_))) {
            place(status, path);
        }
    }
    // Items before the fields in them.
    for path in old.iter().filter(|path| !fields.contains_key(*path)) {
        let wanted = owners.values().flatten().chain(fields.keys()).any(|owned| owned.starts_with(path));
        if !wanted {
            remove(status, path);
        }
    }
    owners.insert(manager.to_owned(), fields.into_keys().collect());
}

fn leaves(value: &Value, path: &mut Path, out: &mut BTreeMap<Path, Value>) {
    match (value, list_key(path)) {
        (Value::Object(members), _) if !atomic(path) => {
            for (name, member) in members {
                path.push(Part::Field(name.clone()));
                leaves(member, path, out);
                path.pop();
            }
        }
        (Value::Array(items), Some(key)) => {
            for item in items {
                path.push(Part::Item(item[key].as_str().expect("items of a list map have a key").to_owned()));
                out.insert(path.clone(), Value::Null);
                leaves(item, path, out);
                path.pop();
            }
        }
        _ => _ = out.insert(path.clone(), value.clone()),
    }
}

fn find<'a>(mut at: &'a Value, path: &[Part]) -> Option<&'a Value> {
    for (depth, part) in path.iter().enumerate() {
        at = match part {
            Part::Field(name) => at.get(name)?,
            Part::Item(name) => at.as_array()?.iter().find(|i| i[list_key(&path[..depth]).unwrap()] == **name)?,
        };
    }
    Some(at)
}

/// The place at `path`, made where it is missing.
fn place<'a>(mut at: &'a mut Value, path: &[Part]) -> &'a mut Value {
    for (depth, part) in path.iter().enumerate() {
        at = match part {
            Part::Field(name) => {
                if !at.is_object() {
                    *at = Value::Object(Map::new());
                }
                &mut at[name.as_str()]
            }
            Part::Item(name) => {
                if !at.is_array() {
                    *at = Value::Array(Vec::new());
                }
                let key = list_key(&path[..depth]).unwrap();
                let items = at.as_array_mut().unwrap();
                let index = items.iter().position(|i| i[key] == **name).unwrap_or(items.len());
                if index == items.len() {
                    items.push(serde_json::json!({key: name}));
                }
                &mut items[index]
            }
        };
    }
    at
}

fn remove(status: &mut Value, path: &[Part]) {
    let Some((last, parent)) = path.split_last() else { return };
    if find(status, parent).is_none() {
        return;
    }
    let key = list_key(parent);
    let holder = place(status, parent);
    match last {
        Part::Field(name) => _ = holder.as_object_mut().and_then(|members| members.remove(name)),
        Part::Item(name) => holder.as_array_mut().unwrap().retain(|item| item[key.unwrap()] != **name),
    }
    let empty = holder.as_object().is_some_and(Map::is_empty) || holder.as_array().is_some_and(Vec::is_empty);
    if empty && matches!(parent.last(), Some(Part::Field(_))) {
        remove(status, parent);
    }
}

/// RFC 7386.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    for (name, member) in members {
        if member.is_null() {
            target.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut target[name.as_str()], member);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_manager_keeps_its_own_fields_and_loses_what_it_leaves_out() {
        let (mut status, mut owners) = (json!({}), Owners::new());
        let agent = json!({"steps": [{"name": "a", "phase": "Running"}, {"name": "b", "phase": "Pending"}],
            "summary": {"steps": "1/2"}, "report": {"attempt": 1}});
        apply(&mut status, &mut owners, "agent", &agent);
        let controller =
            json!({"phase": "Failed", "steps": [{"name": "a", "phase": "Failed"}], "summary": {"duration": "1s"}});
        apply(&mut status, &mut owners, "controller", &controller);
        assert_eq!(status["steps"][0]["phase"], "Failed", "forced");
        assert_eq!(status["summary"], json!({"steps": "1/2", "duration": "1s"}));
        apply(&mut status, &mut owners, "agent", &json!({}));
        let left =
            json!({"phase": "Failed", "steps": [{"name": "a", "phase": "Failed"}], "summary": {"duration": "1s"}});
        assert_eq!(status, left);
        apply(&mut status, &mut owners, "controller", &json!({"phase": "Failed"}));
        assert_eq!(status, json!({"phase": "Failed"}));
    }

    #[test]
    fn an_atomic_field_is_replaced_as_a_whole() {
        let (mut status, mut owners) = (json!({}), Owners::new());
        for frozen in [json!({"box": {"image": "a"}, "timeout": "1h"}), json!({"box": {"image": "b"}})] {
            apply(&mut status, &mut owners, "resolver", &json!({"pipelineSpec": frozen}));
            assert_eq!(status["pipelineSpec"], frozen);
        }
    }

    #[test]
    fn a_merge_patch_replaces_lists_and_removes_by_null() {
        let mut object = json!({"a": [1, 2], "b": {"c": 1, "d": 2}});
        merge(&mut object, &json!({"a": [3], "b": {"c": null}}));
        assert_eq!(object, json!({"a": [3], "b": {"d": 2}}));
    }
}
