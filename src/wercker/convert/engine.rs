//! Steps that need the engine: `internal/docker-build`, `docker-run`, `docker-kill`, and checkpoints.
//!
//! **Invariant:** a run in a cluster never has them: they are refused there, or left out with a comment.

use super::{
    super::{
        document::{Step, Text},
        out::{Map, Out},
    },
    Converter, MOST_STEP_NAME, push,
    scripts::Made,
    slug,
    steps::Body,
    unique,
};
use crate::{
    api::{
        condition::reason::INVALID_PROPERTY,
        here::{DockerBuild, DockerRun, HereStep},
        push::DockerPush,
        text::Words,
    },
    registry::reference::split_tag,
    steps::{self, expand, grammar},
    yaml::{Node, reason, truth},
};
use std::collections::BTreeSet;

/// What stands in the Pipeline for a step that the machine carries out: it is exchanged once the YAML was read.
const IN_ITS_PLACE: &str = ":";
/// How tags of checkpoints begin.
pub const CHECKPOINT: &str = "w-";

/// The step, for a run on this machine.
pub(super) fn body(converter: &mut Converter<'_>, step: &Step) -> Body {
    let text = |key: &str| step.text(key).map(|text| text.value).filter(|text| !text.is_empty());
    let is = |key: &str| text(key).and_then(|text| truth(&text)) == Some(true);
    let name = step.name.as_ref().map(|name| name.value.clone()).unwrap_or_default();
    let mut logins = Vec::new();
    let here = match step.id.as_str() {
        "docker-build" => HereStep::DockerBuild(DockerBuild {
            image_name: text("image-name").unwrap_or_default(),
            dockerfile: text("dockerfile"),
            context: text("context"),
            build_args: words(converter, step, "build-args", true),
            labels: words(converter, step, "labels", true),
            extra_hosts: words(converter, step, "extra-hosts", true),
            quiet: is("q"),
            no_cache: is("no-cache"),
            squash: is("squash"),
            logins: auth_config(converter, step, &mut logins),
            disable_sync: is("disable-sync"),
        }),
        "docker-run" => HereStep::DockerRun(DockerRun {
            name: host(converter, step, &name),
            image: text("image").unwrap_or_default(),
            entrypoint: words(converter, step, "entrypoint", false),
            cmd: words(converter, step, "cmd", false),
            env: words(converter, step, "env", true),
            ports: words(converter, step, "ports", true),
            working_dir: text("working-dir"),
            user: text("user"),
            registry: text("registry"),
            login: login(converter, step, &mut logins),
            disable_sync: is("disable-sync"),
        }),
        _ => HereStep::DockerKill(host(converter, step, &name)),
    };
    let kind = Some(("script", Out::Text(IN_ITS_PLACE.into())));
    Body { kind, here: Some(here), logins, ..Body::default() }
}

/// User name and password of a pull; `logins` gets the variable that holds the password.
fn login(converter: &mut Converter<'_>, step: &Step, logins: &mut Vec<String>) -> Option<(String, String)> {
    let given = |key: &str| step.text(key).filter(|text| !text.value.trim().is_empty());
    let (user, password) = push::pair(converter, step, given("username"), given("password"))?;
    logins.push(push::variable(converter, step, "password", &password)?);
    Some((user.value, password.value.trim().to_owned()))
}

/// Logins for the pulls of a build: one variable, or JSON in which each password is one. A step's properties are shown with
/// the run.
fn auth_config(converter: &mut Converter<'_>, step: &Step, logins: &mut Vec<String>) -> Option<String> {
    const PROPERTY: &str = "registry-auth-config";
    let text = step.text(PROPERTY).filter(|text| !text.value.trim().is_empty())?;
    if expand::sole_variable(&text.value).is_some() {
        logins.push(push::variable(converter, step, PROPERTY, &text)?);
        return Some(text.value);
    }
    let Some(passwords) = steps::here::passwords(&text.value) else {
        let said = format!("{}: {PROPERTY} is neither one variable nor JSON of logins", step.full_id());
        let hint = format!("{PROPERTY}: '{{\"REGISTRY\": {{\"Username\": \"USER\", \"Password\": \"$PASSWORD\"}}}}'");
        converter.refuse(INVALID_PROPERTY, text.at, &said, &hint);
        return None;
    };
    for password in passwords {
        let password = Text { value: password, at: text.at };
        logins.push(push::variable(converter, step, "Password", &password)?);
    }
    Some(text.value)
}

/// The name of a container, which is a host name too.
fn host(converter: &mut Converter<'_>, step: &Step, name: &str) -> String {
    let made = slug(name, MOST_STEP_NAME, "container");
    if made != name {
        let said = format!("container {name} is called {made}: a host name is of small letters, digits and '-'");
        let at = step.name.as_ref().map_or(step.at, |name| name.at);
        converter.lost(at, &said);
    }
    made
}

/// Refuses two containers of one name, as the engine would once the second begins: a name is free again only after
/// `internal/docker-kill`.
pub(super) fn refuse_twice<'a>(converter: &mut Converter<'_>, steps: impl Iterator<Item = (&'a Step, &'a HereStep)>) {
    let mut taken = BTreeSet::new();
    for (step, here) in steps {
        match here {
            HereStep::DockerRun(run) if !taken.insert(run.name.as_str()) => {
                let said = format!("{}: a container {} is there already", step.full_id(), run.name);
                let at = step.name.as_ref().map_or(step.at, |name| name.at);
                let hint = "choose another name, or end the first with internal/docker-kill";
                converter.refuse(INVALID_PROPERTY, at, &said, hint);
            }
            HereStep::DockerKill(name) => {
                taken.remove(name.as_str());
            }
            HereStep::DockerRun(_) | HereStep::DockerBuild(_) | HereStep::Commit(_) | HereStep::Keep => {}
        }
    }
}

/// A property of words: a text that is split as a shell does, a list, or a map of `NAME: value`.
fn words(converter: &mut Converter<'_>, step: &Step, key: &str, commas: bool) -> Vec<String> {
    let Some(property) = step.property(key) else { return Vec::new() };
    let node = &property.value;
    if let Some(items) = node.list() {
        return items.iter().filter_map(Node::text).map(str::to_owned).collect();
    }
    if let Some(entries) = node.map() {
        let pair = |entry: &crate::yaml::Entry| format!("{}={}", entry.key, entry.value.text().unwrap_or_default());
        return entries.iter().map(pair).collect();
    }
    match grammar::words(node.text().unwrap_or_default(), commas) {
        Ok(words) => words.into_iter().map(|word| word.text).collect(),
        Err(flaw) => {
            let said = format!("{}: {key} is no list of words: {}", step.full_id(), flaw.problem);
            converter.refuse(reason::WRONG_TYPE, node.at, &said, "close the quote");
            Vec::new()
        }
    }
}

/// The step after one with a checkpoint: it makes an image of the box.
pub(super) fn checkpoint(
    converter: &mut Converter<'_>,
    checkpoint: &Text,
    after: bool,
    names: &mut BTreeSet<String>,
) -> Made {
    let title = format!("checkpoint {}", checkpoint.value);
    let name = unique(&slug(&title, MOST_STEP_NAME, "checkpoint"), MOST_STEP_NAME, names);
    let mut out = Map::default();
    out.text("name", name.clone());
    out.text("displayName", title.clone());
    out.text("script", IN_ITS_PLACE);
    let push = DockerPush {
        repository: split_tag(&converter.beside.image).0.to_owned(),
        tags: Some(vec![tag(&checkpoint.value)]),
        cmd: None::<Words>,
        ..DockerPush::default()
    };
    converter.beside.work.insert(name, HereStep::Commit(Box::new(push)));
    Made { out, after, at: checkpoint.at, title, code: String::new(), texts: Vec::new(), logins: Vec::new() }
}

/// The tag of a checkpoint.
pub(super) fn tag(name: &str) -> String {
    format!("{CHECKPOINT}{name}")
}
