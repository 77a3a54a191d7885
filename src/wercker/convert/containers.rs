//! Boxes and services.
//!
//! **Invariant:** a password of the file is not copied: what is written names the Secret to make instead.

use super::{
    super::{
        document::{Container, Text},
        out::{Map, Out, map},
        read::image,
    },
    Converter, MOST_STEP_NAME, SECRET, engine, from_key,
    here::TEXTS,
    slug, unique,
};
use crate::{
    registry::reference::{image_on, split_tag},
    steps::{expand, grammar, links},
    yaml::{Span, reason, sounds_secret},
};
use std::collections::{BTreeMap, BTreeSet};

/// Secret with which images are pulled.
const PULL_SECRET: &str = "box-login";

/// Ports on which well-known images listen: Wercker read them from the image to make link variables.
const PORTS: [(&str, &[u16]); 16] = [
    ("postgres", &[5432]),
    ("mysql", &[3306]),
    ("mariadb", &[3306]),
    ("percona", &[3306]),
    ("mongo", &[27017]),
    ("redis", &[6379]),
    ("memcached", &[11211]),
    ("rabbitmq", &[5672]),
    ("elasticsearch", &[9200]),
    ("nginx", &[80]),
    ("httpd", &[80]),
    ("couchdb", &[5984]),
    ("rethinkdb", &[28015]),
    ("consul", &[8500]),
    ("neo4j", &[7474]),
    ("influxdb", &[8086]),
];

/// What a pipeline's texts need before it runs: variables become parameters.
#[derive(Default)]
pub(super) struct Params {
    names: BTreeSet<String>,
}

impl Params {
    /// A text in which variables are parameters. `$$` is a dollar there no more.
    pub(super) fn replace(&mut self, text: &str) -> String {
        let mut values = BTreeMap::new();
        for name in expand::variables(text) {
            self.names.insert(name.to_owned());
            values.insert(name.to_owned(), format!("$(params.{name})"));
        }
        expand::expand(text, &values).unwrap_or_else(|_| text.to_owned())
    }

    /// The parameters of the pipeline.
    pub(super) fn list(&self) -> Vec<Map> {
        self.names.iter().map(|name| map([("name", name.as_str())])).collect()
    }
}

/// What both have: the image, and the login to pull it.
fn image_of(converter: &mut Converter<'_>, container: &Container, params: &mut Params) -> String {
    let mut image = image(container);
    for name in expand::variables(&image).filter(|name| name.starts_with("WERCKER_")) {
        let said = format!("{image}: {name} is not known before the run");
        converter.refuse(reason::NOT_IN_CLUSTER, container.id.at, &said, "write a tag, or a variable of your own");
    }
    if converter.is_here() {
        image = converter.expand_here(&image, container.id.at);
    }
    if let Some(registry) = registry_of(container) {
        let known = converter.expand_here(&registry.value, registry.at);
        match image_on(&image, &known) {
            Ok(on) => image = on,
            Err(error) => {
                let said = error.to_string().replace("repository host", "image host");
                converter.refuse(error.reason(), registry.at, &said, "name the registry in one place only");
            }
        }
    }
    if image.starts_with("wcr.io/") {
        let hint = "push the image to a registry of yours and name it here";
        converter.refuse(reason::NOT_IN_CLUSTER, container.at, &format!("{image}: the registry wcr.io is gone"), hint);
    }
    if !converter.is_here() {
        return params.replace(&image);
    }
    if !container.login.is_empty() {
        converter.login(container, &image);
    }
    image
}

/// The registry that a container's login is for.
fn registry_of(container: &Container) -> Option<&Text> {
    let of = |key: &str| container.login.iter().find(|(name, _)| name == key).map(|(_, text)| text);
    of("azure-client-secret").and_then(|_| of("azure-login-server")).or_else(|| of("registry"))
}

/// A text in which variables are parameters, or what they hold where that is known.
fn text(converter: &mut Converter<'_>, params: &mut Params, text: &str, at: Span) -> String {
    if converter.is_here() { converter.expand_here(text, at) } else { params.replace(text) }
}

/// Notes of how to make the Secret for pulls.
fn pull_notes(container: &Container) -> Vec<String> {
    let of = |key: &str| container.login.iter().find(|(name, _)| name == key).map(|(_, text)| text.value.as_str());
    let plain = |text: Option<&str>, otherwise: &str| {
        text.filter(|text| !text.is_empty()).unwrap_or(otherwise).replace('"', "")
    };
    let image = image(container);
    let host = image.split('/').next().filter(|host| image.contains('/') && host.contains(['.', ':']));
    let server = plain(registry_of(container).map(|text| text.value.as_str()).or(host), "https://index.docker.io/v1/");
    if of("aws-secret-key").is_some() {
        return vec![format!(
            "The login of the box was for AWS. Make the Secret from `aws ecr get-login-password`, or let the nodes pull: \
             kubectl create secret docker-registry {PULL_SECRET} --docker-server=REGISTRY --docker-username=AWS \
             --docker-password=\"$(aws ecr get-login-password)\""
        )];
    }
    let user = plain(of("username").or(of("azure-client-id")), "USER");
    vec![format!(
        "The login of the image is a Secret now: kubectl create secret docker-registry {PULL_SECRET} \
         --docker-server={server} --docker-username=\"{user}\" --docker-password=\"$PASSWORD\""
    )]
}

/// The box.
pub(super) fn box_(
    converter: &mut Converter<'_>,
    container: &Container,
    services: &[Container],
    base_path: Option<&Text>,
    params: &mut Params,
) -> Map {
    let mut out = Map::default();
    if container.url.is_some() {
        converter.refuse(
            reason::NOT_IN_CLUSTER,
            container.at,
            "a box that is built first",
            "push it as an image and name that",
        );
    }
    let image = image_of(converter, container, params);
    let checkpoint = converter.options.here.as_ref().and_then(|here| here.checkpoint.as_deref());
    let image = checkpoint
        .map_or_else(|| image.clone(), |checkpoint| format!("{}:{}", split_tag(&image).0, engine::tag(checkpoint)));
    converter.beside.image.clone_from(&image);
    out.text("image", image);
    let pulls = [container].into_iter().chain(services).find(|container| !container.login.is_empty());
    if let Some(container) = pulls.filter(|_| !converter.is_here()) {
        out.notes(pull_notes(container));
        out.list("imagePullSecrets", vec![map([("name", PULL_SECRET)])]);
    }
    out.list("env", env(converter, container, params));
    if let Some(path) = base_path {
        out.note("base-path; $WERCKER_ROOT names it, which stayed /pipeline/source in Wercker");
        out.text("workingDir", path.value.clone());
    }
    shell(converter, container, &mut out);
    if converter.is_here() {
        converter.beside.of_box = converter.beside(container);
        return out;
    }
    for (what, at) in [("ports", container.ports.first()), ("volumes", container.volumes.first())] {
        if let Some(at) = at {
            let said =
                format!("{what} of the box were for the command line on your machine; the cluster has none of them.");
            let note = converter.lost(at.at, &said);
            out.note(note);
        }
    }
    out
}

/// `cmd` and `entrypoint` of a box chose the shell that steps were typed into.
fn shell(converter: &mut Converter<'_>, container: &Container, out: &mut Map) {
    let commands = [&container.entrypoint, &container.cmd].into_iter().flatten();
    for command in commands {
        let program = command.words.first().map(String::as_str).unwrap_or_default();
        let is_shell = ["sh", "bash", "ash", "dash"].iter().any(|name| program.rsplit('/').next() == Some(name));
        if is_shell && program.starts_with('/') {
            out.note("the cmd of the box: here the shell of script steps");
            out.text("shell", program);
            return;
        }
        if !is_shell {
            let said = format!(
                "cmd or entrypoint of the box ({program}) is not run: steps need no process of the image to talk to."
            );
            let note = converter.lost(command.at, &said);
            out.note(note);
        }
    }
}

fn env(converter: &mut Converter<'_>, container: &Container, params: &mut Params) -> Vec<Map> {
    let mut entry = |(name, value): &(Text, Text)| match expand::sole_variable(&value.value) {
        // What Wercker's users protected: a parameter could be read in every run.
        Some(variable) if sounds_secret(variable) => {
            converter.protect(variable, value.at);
            from_key(&name.value, "secretKeyRef", SECRET, variable)
        }
        _ if converter.hides(&value.value) => {
            // Not the value itself: what people see of the run has it too.
            let key = format!("{}.{}.{}", container.at.line, container.at.column, name.value);
            let expanded = converter.expand_here(&value.value, value.at);
            converter.hide(&key, expanded);
            from_key(&name.value, "secretKeyRef", TEXTS, &key)
        }
        _ => map([("name", name.value.as_str()), ("value", text(converter, params, &value.value, value.at).as_str())]),
    };
    // The last of one name wins, as in Wercker.
    let mut seen = BTreeSet::new();
    let mut kept: Vec<&(Text, Text)> =
        container.env.iter().rev().filter(|(name, _)| seen.insert(&name.value)).collect();
    kept.reverse();
    kept.into_iter().map(&mut entry).collect()
}

/// The services.
pub(super) fn services(converter: &mut Converter<'_>, services: &[Container], params: &mut Params) -> Vec<Map> {
    let mut names = BTreeSet::new();
    let mut taken: BTreeMap<u16, String> = BTreeMap::new();
    services.iter().filter_map(|service| one(converter, service, params, &mut names, &mut taken)).collect()
}

fn one(
    converter: &mut Converter<'_>,
    service: &Container,
    params: &mut Params,
    names: &mut BTreeSet<String>,
    taken: &mut BTreeMap<u16, String>,
) -> Option<Map> {
    if let Some(url) = &service.url {
        let hint = "push the service as an image from its own pipeline, and name that image as id";
        converter.refuse(reason::NOT_IN_CLUSTER, url.at, "a service that is built first (url)", hint);
        return None;
    }
    let mut out = Map::default();
    let alias = alias(service);
    let slug = slug(&alias, MOST_STEP_NAME, "service");
    let slug = if ["localhost", "box", "prepare"].contains(&slug.as_str()) { format!("{slug}-service") } else { slug };
    let name = unique(&slug, MOST_STEP_NAME, names);
    if name != alias {
        let said = format!(
            "Service {alias} is called {name} here, and its link variables begin with {}_.",
            links::prefix(&name)
        );
        let note = converter.lost(service.at, &said);
        out.note(note);
    }
    out.text("name", name.clone());
    out.text("image", image_of(converter, service, params));
    for (key, words) in [("command", &service.entrypoint), ("args", &service.cmd)] {
        if let Some(words) = words.as_ref().filter(|words| !words.words.is_empty()) {
            out.put(key, Out::Words(words.words.clone()));
        }
    }
    out.list("env", env(converter, service, params));
    ports(converter, service, &name, taken, &mut out);
    out.note("in Wercker the end of a service did not end the run");
    out.text("onExit", "Ignore");
    if converter.is_here() {
        let beside = converter.beside(service);
        converter.beside.of_services.insert(name, beside);
    } else if let Some(volume) = service.volumes.first() {
        let said =
            format!("Service {name}: volumes were for the command line on your machine; the cluster has none of them.");
        let note = converter.lost(volume.at, &said);
        out.note(note);
    }
    Some(out)
}

fn ports(
    converter: &mut Converter<'_>,
    service: &Container,
    name: &str,
    taken: &mut BTreeMap<u16, String>,
    out: &mut Map,
) {
    let image = image(service);
    let base = image.rsplit('/').next().unwrap_or_default().split([':', '@']).next().unwrap_or_default();
    let known = PORTS.iter().find(|(image, _)| *image == base).map(|(_, ports)| ports.to_vec()).unwrap_or_default();
    let written = service.ports.iter().filter_map(|port| port.value.rsplit(':').next());
    let written = written.flat_map(grammar::ports).filter_map(Result::ok).flatten();
    let mut ports: Vec<u16> = written.filter_map(|port| port.split('/').next()?.parse().ok()).collect();
    if ports.is_empty() && !known.is_empty() {
        out.note(format!(
            "for the link variables ({}_PORT_…): Wercker read the ports from the image",
            links::prefix(name)
        ));
        ports = known;
    }
    ports.sort_unstable();
    ports.dedup();
    for port in &ports {
        if let Some(other) = taken.insert(*port, name.to_owned()) {
            let said = format!("services {other} and {name} both listen on port {port}, and share one network");
            let hint = format!(
                "let one of them listen elsewhere, by cmd or env, and give it ports: [\"{}\"]",
                u32::from(*port) + 1
            );
            converter.refuse(reason::NOT_IN_CLUSTER, service.at, &said, &hint);
        }
    }
    if !ports.is_empty() {
        let ports = ports.into_iter().take(20).map(|port| (Vec::new(), Out::Number(i64::from(port)))).collect();
        out.put("ports", Out::List(ports));
    }
}

/// The host name of a service: its name, else the last part of its image.
pub(super) fn alias(service: &Container) -> String {
    let last = service.id.value.rsplit('/').next().unwrap_or_default();
    let alias = last.split([':', '@']).next().unwrap_or_default();
    service.name.as_ref().map_or_else(|| alias.to_owned(), |name| name.value.clone())
}

/// The note of the Secret for variables that log in.
pub(super) fn secret_note(keys: &[&str]) -> String {
    let literals: Vec<String> = keys.iter().map(|key| format!("--from-literal={key}=\"${key}\"")).collect();
    format!("Logins come from a Secret: kubectl create secret generic {SECRET} {}", literals.join(" "))
}
