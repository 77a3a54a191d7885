//! Logins and Secret values from the volumes that the kubelet mounted for the run's pod.
//!
//! `push` asks for them when a push begins.
//!
//! **Invariant:** the pod's word counts for nothing: which Secret belongs to a step comes from the frozen spec, its
//! values from the kubelet's own mount. No value is in an error.

use super::files::{FileError, Volumes};
use crate::{
    api::{
        PipelineSpec,
        condition::reason,
        env::{EnvFrom, EnvVar, can_be_set},
        push::DockerPush,
    },
    registry::{Credentials, CredentialsError, NamedSecret, PushError, Repository, Secret},
    wire::{push_volume, secret_volume},
};

/// Largest value of a Secret's key; Kubernetes stores no larger Secret.
const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// Most bytes of Secret values that are looked for in layers; an environment has at most one megabyte.
const MAX_ALL_BYTES: usize = 8 * 1024 * 1024;
/// Most values that are looked for.
const MAX_VALUES: usize = 1000;
/// Keys of a Secret that hold logins.
const CONFIG_JSON: &str = ".dockerconfigjson";
/// The older form: what is below `auths`.
const CONFIG: &str = ".dockercfg";
const USERNAME: &str = "username";
const PASSWORD: &str = "password";

/// The login of a push step; `None` if it names no Secret.
pub fn login(
    volumes: &Volumes,
    spec: &PipelineSpec,
    push: &DockerPush,
    repository: &Repository,
) -> Result<Option<Credentials>, PushError> {
    let Some(name) = push.credentials.as_ref().map(|credentials| credentials.secret_name.as_str()) else {
        return Ok(None);
    };
    let missing = |what: String| PushError::new(reason::CREDENTIALS_NOT_FOUND, what);
    let Some(index) = spec.push_secrets().iter().position(|known| *known == name) else {
        return Err(missing(format!("Secret {name} is not one of this run")));
    };
    let volume = push_volume(index);
    let unreadable = |error: FileError| missing(format!("Secret {name} cannot be read: {}", told(&error)));
    let unusable = |key: &str, error: CredentialsError| missing(format!("Secret {name}, key {key}: {error}"));
    let read = |key: &str| volumes.secret(&volume, key, MAX_VALUE_BYTES).map_err(unreadable);
    for key in [CONFIG_JSON, CONFIG] {
        let Some(bytes) = read(key)? else { continue };
        let bytes = if key == CONFIG { below_auths(&bytes) } else { bytes };
        let found = Credentials::from_docker_config_json(&bytes, repository).map_err(|error| unusable(key, error))?;
        return match found {
            Some(credentials) => Ok(Some(credentials)),
            None => Err(missing(format!("Secret {name} has no login for {}", repository.host))),
        };
    }
    match (read(USERNAME)?, read(PASSWORD)?) {
        (Some(_), Some(_)) if !host_is_fixed(push) => Err(missing(format!(
            "Secret {name} is a login for no host in particular, and repository takes its host from a variable: \
             write the host out, or use a Secret of type kubernetes.io/dockerconfigjson"
        ))),
        (Some(username), Some(password)) => Credentials::from_basic_auth(&username, &password)
            .map(Some)
            .map_err(|error| unusable("username or password", error)),
        (Some(_), None) => Err(missing(format!("Secret {name} has no key {PASSWORD}"))),
        (None, Some(_)) => Err(missing(format!("Secret {name} has no key {USERNAME}"))),
        (None, None) => Err(missing(format!(
            "Secret {name} does not exist, or has neither {CONFIG_JSON} nor {USERNAME} and {PASSWORD}"
        ))),
    }
}

/// Whether the pipeline itself says which host is pushed to. What the box exports may choose a repository,
/// but never who is given a login.
fn host_is_fixed(push: &DockerPush) -> bool {
    let literal = |text: &str| !text.contains('$');
    push.registry.as_deref().is_some_and(literal) || push.repository.split('/').next().is_some_and(literal)
}

/// What an image is searched for.
#[derive(Default)]
pub struct Sought {
    /// Values that must not be in the image.
    pub values: Vec<NamedSecret>,
    /// Why other values cannot be looked for; for people.
    pub missed: Vec<String>,
}

/// The values that must not be in an image: those that feed variables of the run, and the login of the push. A key that
/// feeds nothing is not even read.
#[must_use]
pub fn sought(volumes: &Volumes, spec: &PipelineSpec, login: Option<&Credentials>) -> Sought {
    let mut sought = Sought::default();
    let mut room = MAX_ALL_BYTES;
    let (secrets, _) = spec.env_objects();
    for (index, secret) in secrets.into_iter().enumerate() {
        let volume = secret_volume(index);
        let keys = volumes.secret_keys(&volume).unwrap_or_else(|error| {
            sought.missed.push(format!("the keys of Secret {secret} cannot be read: {}", told(&error)));
            Vec::new()
        });
        for (key, variable, optional) in feeds(spec, secret, &keys) {
            let why = if sought.values.len() >= MAX_VALUES {
                format!("more than {MAX_VALUES} values are too many")
            } else {
                let value = volumes.secret(&volume, key, room).map(|bytes| bytes.map(String::from_utf8));
                match value {
                    Ok(None) if optional => continue,
                    Ok(Some(Ok(value))) => {
                        room -= value.len().min(room);
                        sought
                            .values
                            .push(NamedSecret { name: format!("variable {variable}"), value: Secret::new(value) });
                        continue;
                    }
                    Ok(None) => "it is gone".into(),
                    Ok(Some(Err(_))) => "it is no text".into(),
                    Err(error) => told(&error),
                }
            };
            sought
                .missed
                .push(format!("variable {variable} (key {key} of Secret {secret}) cannot be looked for: {why}"));
        }
    }
    if let Some(login) = login {
        let name = format!("the password of {}", login.username());
        sought.values.push(NamedSecret { name, value: login.password().clone() });
        let token = login.identity_token().cloned();
        let token = token.map(|value| NamedSecret { name: format!("the token of {}", login.username()), value });
        sought.values.extend(token);
    }
    sought
}

/// The keys of a Secret that feed variables: each once, with the first variable, and whether it may be missing.
fn feeds<'a>(spec: &'a PipelineSpec, secret: &str, keys: &'a [String]) -> Vec<(&'a str, String, bool)> {
    let mut all: Vec<(&str, String, bool)> = Vec::new();
    // As `prepare` has it: in each of these lists the last of a name counts.
    let run = vars(&spec.box_.env).chain(spec.env_from.iter().flat_map(|from| whole(from, secret, keys)));
    let run: Vec<_> = run.chain(vars(&spec.env)).collect();
    let steps = spec.all_steps().map(|(_, step)| vars(&step.env).collect());
    for list in std::iter::once(run).chain(steps) {
        for (at, (variable, source)) in list.iter().enumerate() {
            let Some((_, key, optional)) = source.filter(|(name, ..)| *name == secret) else { continue };
            if list.iter().skip(at + 1).any(|(later, _)| later == variable) {
                continue;
            }
            match all.iter_mut().find(|(known, ..)| *known == key) {
                Some((.., may_be_missing)) => *may_be_missing &= optional,
                None => all.push((key, variable.clone(), optional)),
            }
        }
    }
    all
}

/// A variable, and the Secret and key that feed it, if any does, with whether it may be missing.
type Fed<'a> = (String, Option<(&'a str, &'a str, bool)>);

fn vars(env: &[EnvVar]) -> impl Iterator<Item = Fed<'_>> {
    env.iter().map(|var| {
        let fed = var.secret_key_ref.as_ref().map(|r| (r.name.as_str(), r.key.as_str(), r.optional));
        (var.name.clone(), fed)
    })
}

/// The variables that a whole Secret gives. What it has no longer was none of the run's, as far as anyone can tell.
fn whole<'a>(from: &'a EnvFrom, secret: &str, keys: &'a [String]) -> Vec<Fed<'a>> {
    let Some(r) = from.secret_ref.as_ref().filter(|r| r.name == secret) else { return Vec::new() };
    let prefix = from.prefix.as_deref().unwrap_or_default();
    let variables = keys.iter().map(|key| (format!("{prefix}{key}"), Some((r.name.as_str(), key.as_str(), true))));
    variables.filter(|(variable, _)| can_be_set(variable)).collect()
}

/// The older form of a Docker config inside the newer.
fn below_auths(bytes: &[u8]) -> Vec<u8> {
    [br#"{"auths":"#.as_slice(), bytes, b"}"].concat()
}

/// An error with its cause.
fn told(error: &FileError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
