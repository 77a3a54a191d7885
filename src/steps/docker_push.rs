//! `dockerPush`: what its properties ask for.
//!
//! The controller calls [`check`] when a run is resolved, so that a wrong literal is told before a pod
//! exists; the agent calls [`plan`] with the step's environment when the push is due. Both run the same
//! code: `check` passes over what it cannot judge before variables are known.
//!
//! **Invariant:** `plan` refuses whatever `check` refuses. Where the values of logins come from is not judged here.

mod destination;
pub(super) mod reader;
pub mod scratch;

pub use destination::Ecr;

use super::{StepError, grammar};
use crate::api::{
    condition::reason,
    push::{DockerPush, SecretsInImage},
    text::{IntOrText, Pairs, Ports, Words},
};
use reader::Reader;
use std::collections::{BTreeMap, BTreeSet};

/// Most tags that one step may set, the build number not counted.
pub const MAX_TAGS: usize = 50;
/// Most bytes of config that the properties may add.
const MAX_CHANGES_BYTES: usize = 512 * 1024;

/// What a push step asks for, with all variables expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushPlan {
    /// Where to push: with its host in front, but for Docker Hub. Never a tag.
    pub repository: String,
    /// The host that `registry` names, if it is set; it is the host of `repository`.
    pub registry: Option<String>,
    /// At least one, none twice, in the order they are to be set.
    pub tags: Vec<String>,
    /// What changes in the box image's config.
    pub changes: ImageChanges,
    /// What to do about Secret values in a layer.
    pub secrets_in_image: SecretsInImage,
}

/// A login by properties, with all variables expanded. Without `Debug` on purpose.
pub enum Login {
    /// `username` and `password`.
    Password {
        /// `username`.
        username: String,
        /// `password`.
        password: String,
    },
    /// The aws properties.
    Ecr {
        /// `awsAccessKey`.
        access_key: String,
        /// `awsSecretKey`.
        secret_key: String,
        /// The registry.
        ecr: Ecr,
    },
}

/// What a step changes in the config of the box image. `None` and empty mean "as in the box image".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageChanges {
    /// ENTRYPOINT; an empty list clears it.
    pub entrypoint: Option<Vec<String>>,
    /// CMD; an empty list clears it.
    pub cmd: Option<Vec<String>>,
    /// Variables to set, in order.
    pub env: Vec<(String, String)>,
    /// Labels to set.
    pub labels: BTreeMap<String, String>,
    /// Ports to expose, as `5000/tcp`.
    pub ports: Vec<String>,
    /// Volumes to declare.
    pub volumes: Vec<String>,
    /// WORKDIR, absolute and clean.
    pub working_dir: Option<String>,
    /// USER.
    pub user: Option<String>,
    /// Author of the image.
    pub author: Option<String>,
    /// Comment of the layer.
    pub message: Option<String>,
    /// STOPSIGNAL.
    pub stop_signal: Option<String>,
}

/// Judges the literal values of a push step; `step_path` is such as `steps[2].dockerPush`.
///
/// # Errors
/// `InvalidProperty`, `RegistryMismatch` or `ForbiddenLabel`, with a message for every property that is wrong.
pub fn check(step_path: &str, push: &DockerPush) -> Result<(), StepError> {
    let mut reader = Reader::literal(step_path);
    read(&mut reader, push, None);
    reader.finish()
}

/// Reads a push step with the environment that the step sees. A `build_number` below 1 means there is none.
///
/// # Errors
/// As [`check`], and `UndefinedVariable`. No message repeats what a variable holds.
pub fn plan(push: &DockerPush, env: &BTreeMap<String, String>, build_number: i64) -> Result<PushPlan, StepError> {
    let mut reader = Reader::with_env(env);
    let build_number = (push.build_number_tag && build_number > 0).then_some(build_number);
    let plan = read(&mut reader, push, build_number);
    reader.finish()?;
    Ok(plan)
}

/// The login of a push step by its properties; `None` if it has none. The caller has put the values of Secrets
/// into `env`.
///
/// # Errors
/// As [`plan`].
pub fn login(push: &DockerPush, env: &BTreeMap<String, String>) -> Result<Option<Login>, StepError> {
    let mut reader = Reader::with_env(env);
    let login = match (&push.username, &push.password, &push.aws_access_key, &push.aws_secret_key) {
        (Some(username), Some(password), ..) => {
            let username = reader.expand_non_empty("username", username, "a user name");
            let password = reader.expand_non_empty("password", password, "a password");
            username.zip(password).map(|(username, password)| Login::Password { username, password })
        }
        (_, _, Some(access_key), Some(secret_key)) => {
            let access_key = reader.expand_non_empty("awsAccessKey", access_key, "an access key");
            let secret_key = reader.expand_non_empty("awsSecretKey", secret_key, "a secret key");
            let ecr = destination::ecr(&mut reader, push).flatten();
            let keys = access_key.zip(secret_key).zip(ecr);
            keys.map(|((access_key, secret_key), ecr)| Login::Ecr { access_key, secret_key, ecr })
        }
        _ => None,
    };
    reader.finish()?;
    Ok(login)
}

/// The host that a step pushes to, if these variables alone tell it: then nothing that steps export has a say.
#[must_use]
pub fn host(push: &DockerPush, env: &BTreeMap<String, String>) -> Option<String> {
    destination::host(env, push)
}

/// Reads everything; what is wrong is left in the reader.
fn read(reader: &mut Reader<'_>, push: &DockerPush, build_number: Option<i64>) -> PushPlan {
    let (repository, registry) = destination::read(reader, push);
    let changes = ImageChanges {
        entrypoint: command(reader, "entrypoint", push.entrypoint.as_ref()),
        cmd: command(reader, "cmd", push.cmd.as_ref()),
        env: env(reader, push.env.as_ref()),
        labels: labels(reader, push.labels.as_ref()),
        ports: ports(reader, push.ports.as_ref()),
        volumes: volumes(reader, push.volumes.as_ref()),
        working_dir: parsed(reader, "workingDir", push.working_dir.as_deref(), grammar::directory),
        user: parsed(reader, "user", push.user.as_deref(), grammar::user),
        author: free_text(reader, "author", push.author.as_deref(), 512),
        message: free_text(reader, "message", push.message.as_deref(), 2048),
        stop_signal: stop_signal(reader, push.stop_signal.as_ref()),
    };
    if changes.size_bytes() > MAX_CHANGES_BYTES {
        reader.wrong("env", "cmd, entrypoint, env and labels together may hold at most 512 KiB");
    }
    let tags = tags(reader, push, build_number);
    PushPlan { repository, registry, tags, changes, secrets_in_image: push.secrets_in_image }
}

impl ImageChanges {
    fn size_bytes(&self) -> usize {
        let words = self.entrypoint.iter().chain(&self.cmd).flatten().map(String::len);
        let env = self.env.iter().map(|(name, value)| name.len() + value.len());
        words.chain(env).chain(self.labels.iter().map(|(key, value)| key.len() + value.len())).sum()
    }
}

/// The tags: expanded, then split, as one variable may hold several.
fn tags(reader: &mut Reader<'_>, push: &DockerPush, build_number: Option<i64>) -> Vec<String> {
    let single = push.tag.iter().map(|text| ("tag".to_owned(), text.as_str()));
    let several = push.tags.iter().flatten().enumerate().map(|(i, text)| (format!("tags[{i}]"), text.as_str()));
    let mut tags = Vec::new();
    for (path, written) in single.chain(several) {
        // A variable that holds nothing must not turn into `latest` behind the user's back.
        let Some(text) = reader.expand_non_empty(&path, written, "a tag") else { continue };
        tags.extend(grammar::tags(&text).into_iter().filter_map(|tag| reader.accept(&path, written, tag)));
    }
    if tags.is_empty() {
        tags.push(destination::default_tag(reader, push));
    }
    let mut seen = BTreeSet::new();
    tags.retain(|tag| seen.insert(tag.clone()));
    if tags.len() > MAX_TAGS {
        reader.wrong(if push.tag.is_some() { "tag" } else { "tags" }, "expected at most 50 tags");
    }
    tags.extend(build_number.map(|number| number.to_string()).filter(|number| !seen.contains(number)));
    tags
}

/// `cmd` and `entrypoint`: split into words first, then expanded, so that a value with spaces stays one
/// word. Only a string that is one variable and nothing else is expanded first.
fn command(reader: &mut Reader<'_>, property: &str, words: Option<&Words>) -> Option<Vec<String>> {
    match words? {
        Words::Empty(_) => None,
        Words::List(list) => {
            let paths = list.iter().enumerate().map(|(i, word)| (format!("{property}[{i}]"), word));
            Some(paths.filter_map(|(path, word)| reader.expand_word(&path, word)).collect())
        }
        Words::Text(text) if text.trim().is_empty() => None,
        Words::Text(text) => {
            let (split, expanded) = reader.split(property, text, |text| grammar::words(text, false))?;
            let words = split.into_iter().map(|word| word.text);
            if expanded {
                return Some(words.collect());
            }
            Some(words.filter_map(|word| reader.expand_word(property, &word)).collect())
        }
    }
}

/// The ports, split after expansion.
fn ports(reader: &mut Reader<'_>, ports: Option<&Ports>) -> Vec<String> {
    let entries: Vec<(String, String)> = match ports {
        None | Some(Ports::Empty(_)) => Vec::new(),
        Some(Ports::Int(port)) => vec![("ports".to_owned(), port.to_string())],
        Some(Ports::Text(text)) => vec![("ports".to_owned(), text.clone())],
        Some(Ports::List(list)) => {
            let text = |entry: &IntOrText| match entry {
                IntOrText::Int(port) => port.to_string(),
                IntOrText::Text(text) => text.clone(),
            };
            list.iter().enumerate().map(|(i, entry)| (format!("ports[{i}]"), text(entry))).collect()
        }
    };
    let mut out = BTreeSet::new();
    for (path, written) in entries {
        let Some(text) = reader.expand(&path, &written) else { continue };
        out.extend(grammar::ports(&text).into_iter().filter_map(|port| reader.accept(&path, &written, port)).flatten());
        if out.len() > grammar::MAX_PORTS {
            reader.wrong(&path, "expected at most 1000 ports");
            break;
        }
    }
    let mut out: Vec<String> = out.into_iter().collect();
    out.sort_by_key(|port| (port.split('/').next().and_then(|n| n.parse::<u16>().ok()), port.clone()));
    out
}

/// The volumes: a string is split after expansion, an entry of a list is one directory.
fn volumes(reader: &mut Reader<'_>, volumes: Option<&Words>) -> Vec<String> {
    let mut out = BTreeSet::new();
    match volumes {
        None | Some(Words::Empty(_)) => {}
        Some(Words::Text(written)) => {
            let text = reader.expand("volumes", written).unwrap_or_default();
            for (position, entry) in grammar::entries(&text) {
                let volume = grammar::volume(entry).map_err(|flaw| grammar::Flaw { position, ..flaw });
                out.extend(reader.accept("volumes", written, volume));
            }
        }
        Some(Words::List(list)) => {
            for (i, written) in list.iter().enumerate() {
                out.extend(parsed(reader, &format!("volumes[{i}]"), Some(written), grammar::volume));
            }
        }
    }
    out.into_iter().collect()
}

/// The variables to set.
fn env(reader: &mut Reader<'_>, pairs: Option<&Pairs>) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (place, name, value) in reader.pairs("env", pairs) {
        if grammar::is_env_name(&name) {
            out.push((name, value));
        } else {
            let problem = "expected a name of letters, digits, '_', '.' and '-', not beginning with a digit";
            reader.refuse_at(reason::INVALID_PROPERTY, &place, problem);
        }
    }
    grammar::last_wins(out)
}

/// The labels to set.
fn labels(reader: &mut Reader<'_>, pairs: Option<&Pairs>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for (place, key, value) in reader.pairs("labels", pairs) {
        if let Some(prefix) = grammar::forbidden_label(&key) {
            let problem = format!("labels that begin with {prefix} steer container runtimes and may not be set");
            reader.refuse_at(reason::FORBIDDEN_LABEL, &place, &problem);
        } else if grammar::is_label_key(&key) {
            out.insert(key, value);
        } else {
            reader.refuse_at(reason::INVALID_PROPERTY, &place, "expected a key without spaces and quotes");
        }
    }
    out
}

/// A property that holds one value.
fn parsed(
    reader: &mut Reader<'_>,
    path: &str,
    written: Option<&str>,
    parse: impl Fn(&str) -> Result<String, grammar::Flaw>,
) -> Option<String> {
    let written = written?;
    let text = reader.expand_non_empty(path, written, "a value")?;
    reader.accept(path, written, parse(&text))
}

/// `stopSignal`: a number or a text.
fn stop_signal(reader: &mut Reader<'_>, signal: Option<&IntOrText>) -> Option<String> {
    let written = match signal? {
        IntOrText::Int(number) => number.to_string(),
        IntOrText::Text(text) => text.clone(),
    };
    parsed(reader, "stopSignal", Some(&written), grammar::stop_signal)
}

/// `author` and `message`: any text of bounded length.
pub(super) fn free_text(reader: &mut Reader<'_>, path: &str, written: Option<&str>, most: usize) -> Option<String> {
    let text = reader.expand(path, written?)?.trim().to_owned();
    if text.chars().count() > most {
        reader.wrong(path, &format!("expected at most {most} characters"));
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests;
