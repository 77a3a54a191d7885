//! Steps in all their forms: a name, a name with properties, and properties at the indentation of the name.
//!
//! **Invariant:** the last form is read as Wercker did: the first key is the step, all others are its properties.

use super::{
    super::{
        document::{Property, Step, Text},
        internal::{self, Takes},
    },
    MOST_ENTRIES,
    containers::ports,
    finder::Finder,
};
use crate::{
    api::condition::reason::INVALID_PROPERTY,
    registry::reference::split_host,
    steps::{expand, grammar},
    yaml::{Entry, Node, nearest, reason},
};

/// The steps of a list.
pub(super) fn steps(finder: &mut Finder, what: &str, node: &Node) -> Vec<Step> {
    if node.is_null() {
        return Vec::new();
    }
    let Some(items) = finder.list(&format!("{what}: steps"), node) else { return Vec::new() };
    if let Some(beyond) = items.get(MOST_ENTRIES) {
        let said = format!("{what}: more than {MOST_ENTRIES} steps");
        finder.error(reason::INVALID_STEP, beyond.at, &said, "", None);
    }
    items.iter().take(MOST_ENTRIES).filter_map(|item| step(finder, what, item)).collect()
}

/// After-steps run when nobody may be there.
pub(super) fn no_people(finder: &mut Finder, what: &str, steps: &[Step]) {
    for step in steps.iter().filter(|step| step.is_internal() && ["watch", "shell"].contains(&step.id.as_str())) {
        let said = format!("{what}: internal/{} cannot be an after-step", step.id);
        finder.error(reason::INVALID_STEP, step.at, &said, "it waits for a person", None);
    }
}

fn step(finder: &mut Finder, what: &str, node: &Node) -> Option<Step> {
    let Some(entries) = node.map() else {
        let id = node.text().map(|text| Text { value: text.to_owned(), at: node.at });
        if id.is_none() {
            let said = format!("{what}: a step is {}", node.kind());
            finder.error(reason::INVALID_STEP, node.at, &said, "expected a name, or a name with properties", None);
        }
        return finish(finder, what, id?, &[]);
    };
    let (first, others) = entries.split_first()?;
    let id = Text { value: first.key.clone(), at: first.key_at };
    if first.key == "name" || first.key == "code" || first.key == "cwd" {
        let said = format!("{what}: a step begins with {}", first.key);
        let hint = "write the step first: - script: and its properties below it, indented further";
        finder.error(reason::INVALID_STEP, first.key_at, &said, "this is a property, not a step", Some(hint.into()));
        return None;
    }
    let below = first.value.map();
    match (below, others.is_empty()) {
        (Some(below), true) => finish(finder, what, id, below),
        (None, false) if first.value.is_null() => finish(finder, what, id, others),
        (Some(below), false) => {
            // Two steps in one item, or properties at two indentations.
            if let Some(extra) = others.first() {
                let said = format!("{what}: {} beside step {} and its properties", extra.key, id.value);
                let hint =
                    format!("a step of its own begins with - ; a property of {} is indented as the others", id.value);
                finder.error(reason::INVALID_STEP, extra.key_at, &said, "neither a step nor a property", Some(hint));
            }
            finish(finder, what, id, below)
        }
        (None, true) if first.value.is_null() => {
            let said = format!("{what}: step {} has a colon and no properties", id.value);
            let hint = format!("write - {}", id.value);
            if id.value == "script" {
                finder.error(reason::INVALID_STEP, id.at, &said, "expected code", Some("code: echo hello".into()));
                return None;
            }
            finder.warning(reason::CHANGED, id.at, &said, &hint);
            finish(finder, what, id, &[])
        }
        (None, _) => {
            let said = format!("{what}: step {} is {}", id.value, first.value.kind());
            let hint = (id.value == "script").then(|| "script: {code: …}, with the code as a property".to_owned());
            finder.error(reason::INVALID_STEP, first.value.at, &said, "expected properties", hint);
            None
        }
    }
}

fn finish(finder: &mut Finder, what: &str, id: Text, entries: &[Entry]) -> Option<Step> {
    let (owner, name, url) = split_id(&id.value);
    let mut step =
        Step { at: id.at, owner, id: name, url, name: None, cwd: None, checkpoint: None, properties: Vec::new() };
    if step.id.is_empty() || step.id.contains(char::is_whitespace) {
        let said = format!("{what}: {:?} is no step", id.value);
        finder.error(reason::INVALID_STEP, id.at, &said, "expected [OWNER/]NAME[@VERSION]", None);
        return None;
    }
    let shown = format!("{what}: {}", step.full_id());
    for entry in entries {
        let named = format!("{shown}: {}", entry.key);
        match entry.key.as_str() {
            "name" => step.name = finder.text(&named, &entry.value).filter(|name| !name.value.is_empty()),
            "cwd" => step.cwd = finder.text(&named, &entry.value).filter(|cwd| !cwd.value.is_empty()),
            "checkpoint" => step.checkpoint = finder.text(&named, &entry.value),
            _ => {
                let name = Text { value: entry.key.clone(), at: entry.key_at };
                step.properties.push(Property { name, value: entry.value.clone() });
            }
        }
    }
    if step.is_internal() {
        internal_step(finder, &shown, &mut step);
    } else {
        plain_step(finder, &shown, &step);
    }
    Some(step)
}

/// `[owner/]name[@version]`, and an address in quotes.
fn split_id(id: &str) -> (String, String, Option<String>) {
    let (id, url) = match id.trim().split_once(char::is_whitespace) {
        Some((id, url)) => (id, Some(url.trim().trim_matches('"').to_owned())),
        None => (id.trim(), None),
    };
    let id = id.split_once('@').map_or(id, |(id, _)| id);
    let (owner, name) = id.split_once('/').unwrap_or(("wercker", id));
    (owner.to_owned(), name.to_owned(), url)
}

/// A script, or a step whose properties only its author knows.
fn plain_step(finder: &mut Finder, shown: &str, step: &Step) {
    for property in &step.properties {
        if !property.value.is_null() && property.value.text().is_none() && step.id == "script" {
            finder.text(&format!("{shown}: {}", property.name.value), &property.value);
        }
    }
    let code = step.property("code").and_then(|code| code.value.text()).unwrap_or_default();
    if step.is_script()
        && code.trim().is_empty()
        && step.property("code").is_none_or(|code| code.value.text().is_some() || code.value.is_null())
    {
        let near = step.properties.iter().find(|p| nearest(&p.name.value, ["code"]).is_some());
        let (at, label) = near.map_or((step.at, "expected code"), |p| (p.name.at, "did you mean code?"));
        finder.error(reason::INVALID_STEP, at, &format!("{shown} has no code"), label, Some("code: echo hello".into()));
    }
}

fn internal_step(finder: &mut Finder, shown: &str, step: &mut Step) {
    let Some(known) = internal::find(&step.id) else {
        let said = format!("{shown}: no such internal step");
        let near = nearest(&step.id, internal::INTERNAL.iter().map(|internal| internal.id));
        let label = near.map_or_else(String::new, |near| format!("did you mean internal/{near}?"));
        finder.error(reason::INVALID_STEP, step.at, &said, &label, None);
        return;
    };
    for property in &step.properties {
        let name = property.name.value.as_str();
        let Some((_, takes)) = known.properties().find(|(known, _)| *known == name) else {
            let entry = Entry { key: name.to_owned(), key_at: property.name.at, value: property.value.clone() };
            finder.unknown(shown, &entry, nearest(name, known.properties().map(|(name, _)| name).chain(["name"])));
            continue;
        };
        let is_push = step.id != "docker-run";
        value(finder, &format!("{shown}: {name}"), property, takes, is_push);
    }
    for required in known.required {
        let given = if *required == "name" { step.name.is_some() } else { step.property(required).is_some() };
        if !given {
            finder.error(reason::INVALID_STEP, step.at, &format!("{shown} has no {required}"), "it needs one", None);
        }
    }
}

fn value(finder: &mut Finder, what: &str, property: &Property, takes: Takes, is_push: bool) {
    let node = &property.value;
    // Empty counts as not given.
    if node.is_null() {
        return;
    }
    match (takes, property.name.value.as_str()) {
        (Takes::Truth, _) => drop(finder.truth(what, node)),
        (Takes::Text, "repository") => judge_repository(finder, what, node),
        (Takes::Text, _) => drop(finder.text(what, node)),
        // Those of the image that is made; a container's are open on the machine.
        (_, "ports") if is_push => judge_ports(finder, what, node),
        (_, "ports") => drop(ports(finder, what, node)),
        (Takes::Words, _) => texts(finder, what, node),
        (Takes::Pairs, _) => match node.map() {
            Some(entries) => {
                for entry in entries.iter().filter(|entry| !entry.value.is_null()) {
                    finder.text(&format!("{what}.{}", entry.key), &entry.value);
                }
            }
            None => texts(finder, what, node),
        },
    }
}

/// The case of a repository is not that of what is pushed. A host has none.
fn judge_repository(finder: &mut Finder, what: &str, node: &Node) {
    let Some(text) = finder.text(what, node) else { return };
    if has_upper_case(&text.value) {
        let said = format!("{what} {:?}: repository names are lower-case", text.value);
        finder.warning(reason::CHANGED, text.at, &said, "it is pushed in lower case, as in Wercker");
    }
}

/// Whether the path of a repository is written with letters that become others. What variables hold is not known here.
pub(in crate::wercker) fn has_upper_case(repository: &str) -> bool {
    expand::literals(split_host(repository.trim()).1).any(|text| text.contains(|c: char| c.is_ascii_uppercase()))
}

fn texts(finder: &mut Finder, what: &str, node: &Node) {
    match node.list() {
        Some(items) => items.iter().for_each(|item| drop(finder.text(what, item))),
        None => drop(finder.text(what, node)),
    }
}

/// Ports without variables, each at its own place.
fn judge_ports(finder: &mut Finder, what: &str, node: &Node) {
    let items = node.list().unwrap_or(std::slice::from_ref(node));
    let texts: Vec<Text> = items.iter().filter_map(|item| finder.text(what, item)).collect();
    for text in texts {
        if expand::has_variables(&text.value) {
            continue;
        }
        for flaw in grammar::ports(&text.value).into_iter().filter_map(Result::err) {
            let said = format!("{what}: {:?} is not a port", flaw.item);
            let number: String = flaw.item.chars().take_while(char::is_ascii_digit).collect();
            let hint = (!number.is_empty() && flaw.item.contains('/')).then(|| format!("did you mean {number}/tcp?"));
            let label = "expected NUMBER, NUMBER/tcp or NUMBER/udp";
            finder.error(INVALID_PROPERTY, text.at, &said, label, hint);
        }
    }
}
