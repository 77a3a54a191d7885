//! Boxes and services, as text or as a map.
//!
//! **Invariant:** an image is checked as the cluster will check it, but for variables, which are expanded later.

use super::{
    super::{
        document::{Command, Container, Text},
        internal,
    },
    finder::Finder,
};
use crate::{
    api::condition::reason::INVALID_IMAGE_NAME,
    steps::{expand, grammar, pipeline::image_name},
    yaml::{Entry, Node, nearest, reason},
};

/// Most services: as many as a Pipeline takes.
const MOST_SERVICES: usize = 10;
const KEYS: [&str; 9] = ["id", "name", "tag", "cmd", "entrypoint", "env", "ports", "volumes", "url"];

/// A box or a service.
pub(super) fn container(finder: &mut Finder, what: &str, node: &Node) -> Option<Container> {
    let mut container = Container { at: node.at, ..Container::default() };
    match node.map() {
        Some(entries) => entries.iter().for_each(|entry| field(finder, what, entry, &mut container)),
        None if node.list().is_some() => {
            let said = format!("{what} is a list");
            finder.error(reason::WRONG_TYPE, node.at, &said, "expected an image, or a map with id", None);
            return None;
        }
        None => container.id = finder.text(what, node)?,
    }
    if container.id.value.is_empty() && container.url.is_none() {
        let hint = Some("id: debian:12".to_owned());
        finder.error(reason::WRONG_TYPE, node.at, &format!("{what} has no id"), "expected id: IMAGE", hint);
        return None;
    }
    judge_image(finder, what, &container);
    Some(container)
}

/// The services of a file or pipeline; one alone may stand without a list.
pub(super) fn services(finder: &mut Finder, what: &str, node: &Node) -> Vec<Container> {
    if node.is_null() {
        return Vec::new();
    }
    let Some(items) = finder.list(what, node) else { return Vec::new() };
    if let Some(beyond) = items.get(MOST_SERVICES) {
        finder.error(reason::WRONG_TYPE, beyond.at, &format!("{what}: more than {MOST_SERVICES}"), "", None);
    }
    items
        .iter()
        .take(MOST_SERVICES)
        .enumerate()
        .filter_map(|(i, item)| container(finder, &format!("{what}[{i}]"), item))
        .collect()
}

fn field(finder: &mut Finder, what: &str, entry: &Entry, container: &mut Container) {
    let value = &entry.value;
    let named = format!("{what}: {}", entry.key);
    match entry.key.as_str() {
        "id" => container.id = finder.text(&named, value).unwrap_or_default(),
        "name" => container.name = finder.text(&named, value),
        "tag" => container.tag = finder.text(&named, value),
        "url" => container.url = finder.text(&named, value),
        "cmd" => container.cmd = command(finder, &named, value),
        "entrypoint" => container.entrypoint = command(finder, &named, value),
        "env" => container.env = env(finder, &named, value),
        "ports" => container.ports = ports(finder, &named, value),
        "volumes" => container.volumes = finder.texts(&named, value),
        key if internal::is_login(key) => {
            let text = finder.text(&named, value);
            container.login.extend(text.map(|text| (key.to_owned(), text)));
        }
        key => finder.unknown(what, entry, nearest(key, KEYS.into_iter().chain(internal::login_keys()))),
    }
}

/// A list of words, or a text that is split as a shell does.
fn command(finder: &mut Finder, what: &str, node: &Node) -> Option<Command> {
    if let Some(items) = node.list() {
        let words = items.iter().filter_map(|item| finder.text(what, item)).map(|text| text.value).collect();
        return Some(Command { words, at: node.at });
    }
    let text = finder.text(what, node)?;
    match grammar::words(&text.value, false) {
        Ok(words) => Some(Command { words: words.into_iter().map(|word| word.text).collect(), at: text.at }),
        Err(flaw) => {
            let said = format!("{what} is no list of words: {}", flaw.problem);
            finder.error(reason::WRONG_TYPE, text.at, &said, &format!("at character {}", flaw.position), None);
            None
        }
    }
}

/// Variables: a map, or a list of `NAME=value`. Wercker makes capitals of the names.
fn env(finder: &mut Finder, what: &str, node: &Node) -> Vec<(Text, Text)> {
    let mut pairs = Vec::new();
    if let Some(items) = node.list() {
        let items: Vec<Text> = items.iter().filter_map(|item| finder.text(what, item)).collect();
        for item in items {
            match item.value.split_once('=') {
                Some((name, value)) => pairs.push((
                    Text { value: name.trim().to_owned(), at: item.at },
                    Text { value: value.to_owned(), at: item.at },
                )),
                None => {
                    let said = format!("{what}: {:?} is no variable", item.value);
                    finder.error(reason::WRONG_TYPE, item.at, &said, "expected NAME=value", None);
                }
            }
        }
    } else {
        for entry in finder.map(what, node).unwrap_or_default() {
            let name = Text { value: entry.key.clone(), at: entry.key_at };
            let empty = Text { value: String::new(), at: entry.value.at };
            let value = if entry.value.is_null() {
                Some(empty)
            } else {
                finder.text(&format!("{what}.{}", entry.key), &entry.value)
            };
            pairs.extend(value.map(|value| (name, value)));
        }
    }
    for (name, _) in &mut pairs {
        if crate::api::env::can_be_set(&name.value.to_ascii_uppercase()) {
            name.value.make_ascii_uppercase();
        } else {
            let said = format!("{what}: {:?} is no name of a variable", name.value);
            finder.error(
                reason::WRONG_TYPE,
                name.at,
                &said,
                "expected letters, digits and _, without WINDLASS_ before them",
                None,
            );
        }
    }
    pairs
}

/// `N`, `H:C`, `IP:H:C` or `IP::C`, each with `/tcp` or `/udp`.
pub(super) fn ports(finder: &mut Finder, what: &str, node: &Node) -> Vec<Text> {
    let ports = finder.texts(what, node);
    for port in &ports {
        let inner = port.value.rsplit(':').next().unwrap_or_default();
        let outer = port.value.rsplit(':').nth(1).unwrap_or_default();
        let right = grammar::ports(inner).iter().all(Result::is_ok)
            && !inner.is_empty()
            && (outer.is_empty() || outer.parse::<u16>().is_ok());
        if !right && !expand::has_variables(&port.value) {
            let said = format!("{what}: {:?} is not a port", port.value);
            finder.error(
                reason::WRONG_TYPE,
                port.at,
                &said,
                "expected NUMBER, HOST:NUMBER or IP:HOST:NUMBER, and /tcp or /udp",
                None,
            );
        }
    }
    ports
}

fn judge_image(finder: &mut Finder, what: &str, container: &Container) {
    if let Some(url) = &container.url {
        if !url.value.starts_with("file://") {
            let said = format!("{what}: url {:?} is no service that can be built", url.value);
            finder.error(reason::WRONG_TYPE, url.at, &said, "expected file://DIRECTORY#PIPELINE", None);
        }
        return;
    }
    let image = image(container);
    if expand::has_variables(&image) {
        return;
    }
    if let Err(why) = image_name(&image) {
        let lower = image.to_ascii_lowercase();
        let hint = (image_name(&lower).is_ok()).then(|| format!("did you mean {lower}?"));
        let at = if container.id.value == image { container.id.at } else { container.at };
        finder.error(INVALID_IMAGE_NAME, at, &format!("{what} {image:?}: {why}"), "", hint);
    }
}

/// The image with its tag. A tag of its own replaces that of the id, but not the port of a registry's host.
pub(in crate::wercker) fn image(container: &Container) -> String {
    let id = container.id.value.trim();
    let Some(tag) = container.tag.as_ref().map(|tag| tag.value.trim()).filter(|tag| !tag.is_empty()) else {
        return id.to_owned();
    };
    let name = match id.rsplit_once(':') {
        Some((name, old)) if !old.contains('/') => name,
        _ => id,
    };
    format!("{name}:{tag}")
}
