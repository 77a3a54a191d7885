//! Logins and Secret values from the volumes that the kubelet mounted for the run's pod.
//!
//! `push` asks for them when a push begins.
//!
//! **Invariant:** the pod's word counts for nothing: which Secret belongs to a step comes from the frozen spec, its
//! values from the kubelet's own mount. No value is in an error.

use super::files::{FileError, Volumes};
use crate::{
    api::{PipelineSpec, condition::reason, env::EnvVar, push::DockerPush},
    registry::{Credentials, CredentialsError, NamedSecret, PushError, Repository, Secret},
    wire::{push_volume, secret_volume},
};

/// Largest value of a Secret's key; Kubernetes stores no larger Secret.
const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// Most bytes of Secret values that are looked for in layers.
const MAX_ALL_BYTES: usize = 8 * 1024 * 1024;
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

/// The values that must not be in an image: those that feed the run's environment, and the login of the push.
#[must_use]
pub fn values(volumes: &Volumes, spec: &PipelineSpec, login: Option<&Credentials>) -> Vec<NamedSecret> {
    let mut found = Vec::new();
    let mut room = MAX_ALL_BYTES;
    let (secrets, _) = spec.env_objects();
    for (index, name) in secrets.iter().enumerate() {
        let volume = secret_volume(index);
        for key in volumes.secret_keys(&volume) {
            let Ok(Some(bytes)) = volumes.secret(&volume, &key, MAX_VALUE_BYTES.min(room)) else { continue };
            room -= bytes.len().min(room);
            // A value that is no text cannot be in the environment.
            let Ok(value) = String::from_utf8(bytes) else { continue };
            let name = variable(spec, name, &key).unwrap_or_else(|| format!("key {key} of Secret {name}"));
            found.push(NamedSecret { name, value: Secret::new(value) });
        }
    }
    if let Some(login) = login {
        let name = format!("the password of {}", login.username());
        found.push(NamedSecret { name, value: login.password().clone() });
        let token = login.identity_token().cloned();
        found.extend(token.map(|value| NamedSecret { name: format!("the token of {}", login.username()), value }));
    }
    found
}

/// The first variable that is fed by this key.
fn variable(spec: &PipelineSpec, secret: &str, key: &str) -> Option<String> {
    let is_it = |var: &&EnvVar| var.secret_key_ref.as_ref().is_some_and(|r| r.name == secret && r.key == key);
    let steps = spec.all_steps().flat_map(|(_, step)| &step.env);
    spec.box_.env.iter().chain(&spec.env).chain(steps).find(is_it).map(|var| format!("variable {}", var.name))
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
