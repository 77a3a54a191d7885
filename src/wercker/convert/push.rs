//! `internal/docker-push` and `internal/docker-scratch-push`.
//!
//! **Invariant:** what is written passes `steps::docker_push::check`, which is asked about each property by itself, so
//! that an error stands at its place.

use super::{
    super::{
        document::{Step, Text},
        out::{Map, Out},
        read::has_upper_case,
    },
    Converter, SECRET,
    steps::{Body, words},
};
use crate::{
    api::{
        condition::reason::INVALID_PROPERTY,
        push::{DockerPush, DockerScratchPush},
    },
    registry::reference::{HUB, canonical_host},
    steps::{docker_push, expand},
    yaml::{Node, reason, truth},
};

/// Names there and here, in the order of the reference.
const SAME: [(&str, &str); 15] = [
    ("repository", "repository"),
    ("tag", "tag"),
    ("ports", "ports"),
    ("volumes", "volumes"),
    ("working-dir", "workingDir"),
    ("user", "user"),
    ("cmd", "cmd"),
    ("entrypoint", "entrypoint"),
    ("env", "env"),
    ("labels", "labels"),
    ("author", "author"),
    ("message", "message"),
    ("stopsignal", "stopSignal"),
    ("email", "email"),
    ("disable-sync", "disableSync"),
];
/// What a push to AWS needs.
const AWS: [(&str, &str); 4] = [
    ("aws-access-key", "awsAccessKey"),
    ("aws-secret-key", "awsSecretKey"),
    ("aws-region", "awsRegion"),
    ("aws-registry-id", "awsRegistryId"),
];

/// The step.
pub(super) fn body(converter: &mut Converter<'_>, step: &Step) -> Body {
    let mut body = Body::default();
    if converter.is_here() {
        body.built = built(converter, step);
    } else if let Some(image) = step.property("image-name") {
        let hint = "push the box itself: leave image-name out";
        let said = format!(
            "{}: image-name is an image of internal/docker-build, which a cluster does not run",
            step.full_id()
        );
        converter.refuse(reason::NOT_IN_CLUSTER, image.name.at, &said, hint);
        return body;
    }
    let mut push = Map::default();
    for (theirs, ours) in SAME {
        let Some(property) = step.property(theirs).filter(|property| !property.value.is_null()) else { continue };
        match theirs {
            "repository" => {
                let repository = repository(step, &property.value);
                if has_upper_case(&repository) {
                    push.note("pushed in lower case, as in Wercker: repository names are lower-case");
                }
                push.text(ours, repository);
            }
            "disable-sync" => {
                if property.value.text().and_then(truth) == Some(true) {
                    push.put(ours, Out::Truth(true));
                }
            }
            "tag" => tag(&mut push, &property.value),
            "env" | "labels" => pairs(&mut push, ours, &property.value),
            _ => {
                if matches!(theirs, "cmd" | "entrypoint")
                    && texts(&property.value).iter().any(|text| text.contains('$'))
                {
                    push.note("variables are expanded here when the image is pushed; Wercker left them for the container. Write $$ for a $ that it shall see");
                }
                words(&mut push, ours, &property.value);
            }
        }
        body.texts.extend(texts(&property.value));
    }
    registry(converter, step, &mut push);
    login(converter, step, &mut push, &mut body);
    for theirs in ["auth-server", "aws-strict-auth"] {
        if step.property(theirs).is_some() {
            push.note(format!("{theirs} is left out: Wercker did not use it"));
        }
    }
    judge(converter, step);
    let kind = if step.id == "docker-push" { "dockerPush" } else { "dockerScratchPush" };
    body.kind = Some((kind, Out::Map(push)));
    body
}

/// The image that is pushed in place of the box. It is pushed as it was built, as in Wercker: what does not count is told.
fn built(converter: &mut Converter<'_>, step: &Step) -> Option<String> {
    let image = step.property("image-name").filter(|image| !image.value.is_null())?;
    if step.id != "docker-push" {
        let said = format!("{}: image-name is for internal/docker-push", step.full_id());
        converter.refuse(
            INVALID_PROPERTY,
            image.name.at,
            &said,
            "an image from scratch is made of files: leave it out",
        );
        return None;
    }
    for (theirs, _) in SAME {
        let counts = matches!(theirs, "repository" | "tag" | "email" | "disable-sync");
        let Some(property) = step.property(theirs).filter(|property| !counts && !property.value.is_null()) else {
            continue;
        };
        let said =
            format!("{}: {theirs} does not count: the image of image-name is pushed as it was built", step.full_id());
        converter.lost(property.name.at, &said);
    }
    image.value.text().map(str::to_owned)
}

/// All texts of a value.
fn texts(node: &Node) -> Vec<String> {
    match (node.list(), node.map()) {
        (Some(items), _) => items.iter().flat_map(texts).collect(),
        (_, Some(entries)) => entries.iter().flat_map(|entry| texts(&entry.value)).collect(),
        (None, None) => node.text().map(str::to_owned).into_iter().collect(),
    }
}

/// The repository, with the registry of Azure before it.
fn repository(step: &Step, node: &Node) -> String {
    let written = node.text().unwrap_or_default().trim().to_owned();
    match step.text("azure-login-server") {
        Some(server) if step.text("azure-client-secret").is_some() && !written.starts_with(&server.value) => {
            format!("{}/{written}", server.value)
        }
        _ => written,
    }
}

fn tag(push: &mut Map, node: &Node) {
    match node.list() {
        Some(items) => push.put("tags", Out::Words(items.iter().filter_map(Node::text).map(str::to_owned).collect())),
        None => {
            let text = node.text().unwrap_or_default();
            if text.contains('.') && text.parse::<f64>().is_ok() {
                push.note("Wercker lost a tag that looks like a number, and pushed latest");
            }
            push.maybe("tag", Some(text.to_owned()).filter(|text| !text.is_empty()));
        }
    }
}

fn pairs(push: &mut Map, key: &str, node: &Node) {
    match node.map() {
        Some(entries) => {
            let mut map = Map::default();
            for entry in entries {
                map.text(&entry.key, entry.value.text().unwrap_or_default());
            }
            push.put(key, Out::Map(map));
        }
        None => words(push, key, node),
    }
}

/// `registry`, unless it says what the repository says or what is no more.
fn registry(converter: &mut Converter<'_>, step: &Step, push: &mut Map) {
    let Some(registry) = step.text("registry").filter(|registry| !registry.value.is_empty()) else { return };
    let bare = registry.value.trim_start_matches("https://").trim_start_matches("http://");
    let host = canonical_host(bare.split('/').next().unwrap_or_default());
    if host == "wcr.io" {
        let hint = "push to a registry of yours";
        converter.refuse(reason::NOT_IN_CLUSTER, registry.at, "the registry wcr.io is gone", hint);
    }
    let repository = step.text("repository").map(|text| text.value).unwrap_or_default();
    if repository.starts_with(&format!("{host}/"))
        || host == HUB && !repository.split('/').next().unwrap_or_default().contains('.')
    {
        return;
    }
    if registry.value.trim_end_matches('/').ends_with("/v1") {
        push.note("the registry API v1 is gone");
        push.text("registry", host);
        return;
    }
    if registry.value.starts_with("http://") {
        push.note("pushes are made by https; a registry without is listed in the chart's values");
        push.text("registry", host);
        return;
    }
    push.text("registry", registry.value);
}

/// The login. A password of the file is refused: it could be read by all who can read the Pipeline.
fn login(converter: &mut Converter<'_>, step: &Step, push: &mut Map, body: &mut Body) {
    // An image that stays here needs no login.
    if converter.options.here.as_ref().is_some_and(|here| here.docker_local) {
        return;
    }
    let given = |key: &str| step.text(key).filter(|text| !text.value.trim().is_empty());
    if given("aws-secret-key").is_some() {
        let missing: Vec<&str> =
            AWS.iter().map(|(theirs, _)| *theirs).filter(|theirs| given(theirs).is_none()).collect();
        if !missing.is_empty() {
            let said = format!("{}: a push to AWS needs {} as well", step.full_id(), missing.join(", "));
            converter.refuse(INVALID_PROPERTY, step.at, &said, "aws-registry-id is the number of the account");
        }
        for (theirs, ours) in AWS {
            let Some(text) = given(theirs) else { continue };
            if theirs == "aws-secret-key" {
                secret(converter, step, theirs, ours, &text, push, body);
            } else {
                body.texts.push(text.value.clone());
                push.text(ours, text.value);
            }
        }
        return;
    }
    let (user, password) = match (given("azure-client-id"), given("azure-client-secret")) {
        (Some(user), Some(password)) => {
            push.note("azure-client-id and azure-client-secret are user name and password of the registry");
            (Some(user), Some(password))
        }
        _ => (given("username"), given("password")),
    };
    if let Some((user, password)) = pair(converter, step, user, password) {
        body.texts.push(user.value.clone());
        push.text("username", user.value);
        secret(converter, step, "password", "password", &password, push, body);
    }
}

/// User name and password; one of them alone is refused.
pub(super) fn pair(
    converter: &mut Converter<'_>,
    step: &Step,
    user: Option<Text>,
    password: Option<Text>,
) -> Option<(Text, Text)> {
    match (user, password) {
        (Some(user), Some(password)) => Some((user, password)),
        (Some(one), None) | (None, Some(one)) => {
            let said = format!("{}: username and password go together", step.full_id());
            converter.refuse(INVALID_PROPERTY, one.at, &said, "give both, or neither");
            None
        }
        (None, None) => None,
    }
}

fn secret(
    converter: &mut Converter<'_>,
    step: &Step,
    theirs: &str,
    ours: &str,
    text: &Text,
    push: &mut Map,
    body: &mut Body,
) {
    if let Some(name) = variable(converter, step, theirs, text) {
        body.logins.push(name);
        push.text(ours, text.value.trim());
    }
}

/// The one variable that a password is. Anything else is refused: it could be read by all who see the run.
pub(super) fn variable(converter: &mut Converter<'_>, step: &Step, theirs: &str, text: &Text) -> Option<String> {
    match expand::sole_variable(&text.value) {
        Some(name) if crate::api::env::can_be_set(name) => Some(name.to_owned()),
        _ => {
            let said = format!("{}: {theirs} must be one variable, whose value a Secret has", step.full_id());
            let name = theirs.to_ascii_uppercase().replace('-', "_");
            let hint = if converter.is_here() {
                format!("{theirs}: ${name}, and set XXX_{name}")
            } else {
                format!("{theirs}: ${name}, and kubectl create secret generic {SECRET} --from-literal={name}=…")
            };
            converter.refuse(INVALID_PROPERTY, text.at, &said, &hint);
            None
        }
    }
}

/// Asks the rules of pushes about each property alone, so that what is wrong has a place.
fn judge(converter: &mut Converter<'_>, step: &Step) {
    for (theirs, ours) in SAME {
        let Some(property) = step.property(theirs).filter(|property| !property.value.is_null()) else { continue };
        let mut one = Map::default();
        match theirs {
            "repository" => one.text("repository", repository(step, &property.value)),
            "disable-sync" | "email" => continue,
            _ => {
                one.text("repository", "x/y");
                match theirs {
                    "tag" => tag(&mut one, &property.value),
                    "env" | "labels" => pairs(&mut one, ours, &property.value),
                    _ => words(&mut one, ours, &property.value),
                }
            }
        }
        let yaml = one.yaml();
        let verdict = match step.id.as_str() {
            "docker-push" => serde_yaml::from_str::<DockerPush>(&yaml).map(|push| docker_push::check("", &push)),
            _ => serde_yaml::from_str::<DockerScratchPush>(&yaml).map(|push| docker_push::scratch::check("", &push)),
        };
        let message = match verdict {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.message,
            Err(_) => format!("{ours}: not as it must be"),
        };
        let message = message.trim_start_matches('.').replacen(ours, theirs, 1);
        converter.refuse(INVALID_PROPERTY, property.value.at, &format!("{}: {message}", step.full_id()), "");
    }
}
