//! Logins and Secret values from the volumes that the kubelet mounted for the run's pod.
//!
//! `push` asks for them when a push begins.
//!
//! **Invariant:** the pod's word counts for nothing: which Secret belongs to a step comes from the frozen spec, its
//! values from the kubelet's own mount. No value is in an error.

use super::files::{FileError, Volumes};
use crate::{
    api::{
        PipelineSpec, Step,
        condition::reason,
        env::{EnvFrom, EnvVar, can_be_set},
        push::DockerPush,
    },
    registry::{AwsKeys, Credentials, CredentialsError, NamedSecret, PushError, Repository, Secret},
    steps::{
        docker_push::{self, Login},
        expand,
        logins::{self, CONFIG, CONFIG_JSON, Origin, PASSWORD, USERNAME},
    },
    wire::{Variable, push_volume, secret_volume},
};
use std::collections::BTreeMap;

/// Largest value of a Secret's key; Kubernetes stores no larger Secret.
const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// Most bytes of Secret values that are looked for in layers; an environment has at most one megabyte.
const MAX_ALL_BYTES: usize = 8 * 1024 * 1024;
/// Most values that are looked for.
const MAX_VALUES: usize = 1000;

/// A push step, and where its Secrets are.
#[derive(Clone, Copy)]
pub struct Logins<'a> {
    /// The volumes of the run's pod.
    pub volumes: &'a Volumes,
    /// The frozen pipeline.
    pub spec: &'a PipelineSpec,
    /// The step.
    pub step: &'a Step,
    /// Its properties.
    pub push: &'a DockerPush,
}

impl Logins<'_> {
    /// Puts the variables that the step logs in with into its environment, where Secrets declare them: what the
    /// box says of those does not count.
    ///
    /// # Errors
    /// `CredentialsNotFound` when a Secret does not hold what the step names.
    pub fn fill(&self, env: &mut BTreeMap<String, String>) -> Result<(), PushError> {
        let kind = self.step.kind().map_or("", |kind| kind.name());
        logins::check(kind, self.spec, self.step, self.push)
            .map_err(|error| PushError::new(error.reason, error.message))?;
        for variable in logins::login_variables(self.push) {
            match self.declared(variable)? {
                Declared::Secret(value) => {
                    env.insert(variable.to_owned(), value);
                }
                Declared::Literal(_) | Declared::Nowhere if self.is_secret(variable) => {
                    return Err(missing(format!("no Secret that the pipeline names for ${variable} has its key")));
                }
                Declared::Literal(_) | Declared::Nowhere => {}
            }
        }
        Ok(())
    }

    /// The login of the step; `None` if it has none. `env` has been [filled](Self::fill).
    ///
    /// # Errors
    /// `CredentialsNotFound`, or what is wrong with a property.
    pub fn login(
        &self,
        env: &BTreeMap<String, String>,
        repository: &Repository,
    ) -> Result<Option<Credentials>, PushError> {
        if let Some(credentials) = &self.push.credentials {
            return self.of_secret(&credentials.secret_name, repository).map(Some);
        }
        let login = docker_push::login(self.push, env).map_err(|error| PushError::new(error.reason, error.message))?;
        match login {
            None => Ok(None),
            Some(Login::Password { .. }) if !self.host_is_fixed(repository)? => Err(missing(of_no_host("password"))),
            Some(Login::Password { username, password }) => {
                Credentials::from_basic_auth(username.as_bytes(), password.as_bytes())
                    .map(Some)
                    .map_err(|error| missing(format!("username and password: {error}")))
            }
            Some(Login::Ecr { access_key, secret_key, ecr }) => {
                let secret_key = Secret::new(secret_key.trim().to_owned());
                let access_key = access_key.trim().to_owned();
                let (account, region) = (ecr.account, ecr.region);
                let keys = AwsKeys { access_key, secret_key, account, region, registry: ecr.registry, api: ecr.api };
                Ok(Some(Credentials::aws(keys)))
            }
        }
    }

    /// The login in a Secret that `credentials` names.
    fn of_secret(&self, name: &str, repository: &Repository) -> Result<Credentials, PushError> {
        let unusable = |key: &str, error: CredentialsError| missing(format!("Secret {name}, key {key}: {error}"));
        let read = |key: &str| self.push_key(name, key);
        for key in [CONFIG_JSON, CONFIG] {
            let Some(bytes) = read(key)? else { continue };
            let bytes = if key == CONFIG { below_auths(&bytes) } else { bytes };
            let found = Credentials::from_docker_config_json(&bytes, repository).map_err(|e| unusable(key, e))?;
            return found.ok_or_else(|| missing(format!("Secret {name} has no login for {}", repository.host)));
        }
        match (read(USERNAME)?, read(PASSWORD)?) {
            (Some(_), Some(_)) if !self.host_is_fixed(repository)? => {
                Err(missing(of_no_host(&format!("Secret {name}"))))
            }
            (Some(username), Some(password)) => Credentials::from_basic_auth(&username, &password)
                .map_err(|error| unusable("username or password", error)),
            (None, _) | (_, None) => Err(missing(self.no_login(name))),
        }
    }

    /// Why a Secret holds no login.
    fn no_login(&self, name: &str) -> String {
        let index = logins::push_secrets(self.spec).iter().position(|known| *known == name);
        let keys = index.and_then(|index| self.volumes.secret_keys(&push_volume(index)).ok()).unwrap_or_default();
        if keys.is_empty() {
            return format!("Secret {name} does not exist, or is empty");
        }
        let fault = logins::no_login(name, keys.iter().map(String::as_str));
        fault.unwrap_or_else(|| format!("Secret {name} changed while it was read"))
    }

    /// Whether the pipeline itself says which host is pushed to. What the box exports may choose a repository,
    /// but never who is given a login.
    fn host_is_fixed(&self, repository: &Repository) -> Result<bool, PushError> {
        if self.push.registry.as_deref().is_some_and(|text| !text.trim().is_empty() && !expand::has_variables(text)) {
            return Ok(true);
        }
        let mut known = BTreeMap::new();
        let texts = [Some(self.push.repository.as_str()), self.push.registry.as_deref()];
        for variable in texts.into_iter().flatten().flat_map(expand::variables) {
            let value = match self.declared(variable)? {
                Declared::Secret(value) => value,
                Declared::Literal(value) => value.to_owned(),
                Declared::Nowhere => continue,
            };
            known.insert(variable.to_owned(), value);
        }
        Ok(docker_push::host(self.push, &known).as_deref() == Some(repository.host.as_str()))
    }

    /// The value of a variable by the pipeline's word; a key that may be missing, and is, declares nothing.
    fn declared(&self, variable: &str) -> Result<Declared<'_>, PushError> {
        let mut origin = logins::origin(self.spec, self.step, variable);
        if let Origin::Whole { secrets, or } = origin {
            for (name, key) in secrets {
                if let Some(bytes) = self.env_key(name, &key)? {
                    return text(variable, name, bytes).map(Declared::Secret);
                }
            }
            origin = *or;
        }
        match origin {
            Origin::Literal(value) => Ok(Declared::Literal(value)),
            Origin::Elsewhere | Origin::Whole { .. } => Ok(Declared::Nowhere),
            Origin::Key(key) => {
                let bytes = match self.push_key(&key.name, &key.key)? {
                    Some(bytes) => Some(bytes),
                    None => self.env_key(&key.name, &key.key)?,
                };
                match bytes {
                    Some(bytes) => text(variable, &key.name, bytes).map(Declared::Secret),
                    None if key.optional => Ok(Declared::Nowhere),
                    None => Err(missing(format!("Secret {} has no key {}; ${variable} needs it", key.name, key.key))),
                }
            }
        }
    }

    /// Whether a variable stands for a password.
    fn is_secret(&self, variable: &str) -> bool {
        let secret = [&self.push.password, &self.push.aws_secret_key].into_iter().flatten();
        secret.flat_map(|text| expand::variables(text)).any(|name| name == variable)
    }

    /// A key of a Secret that is mounted for logins.
    fn push_key(&self, name: &str, key: &str) -> Result<Option<Vec<u8>>, PushError> {
        let index = logins::push_secrets(self.spec).iter().position(|known| *known == name);
        self.key(name, key, index.map(push_volume))
    }

    /// A key of a Secret that is mounted for the environment.
    fn env_key(&self, name: &str, key: &str) -> Result<Option<Vec<u8>>, PushError> {
        let index = logins::env_objects(self.spec).0.iter().position(|known| *known == name);
        self.key(name, key, index.map(secret_volume))
    }

    fn key(&self, name: &str, key: &str, volume: Option<String>) -> Result<Option<Vec<u8>>, PushError> {
        let Some(volume) = volume else { return Ok(None) };
        let unreadable = |error: FileError| missing(format!("Secret {name} cannot be read: {}", told(&error)));
        self.volumes.secret(&volume, key, MAX_VALUE_BYTES).map_err(unreadable)
    }
}

/// What the pipeline says of a variable.
enum Declared<'a> {
    Secret(String),
    Literal(&'a str),
    Nowhere,
}

fn text(variable: &str, secret: &str, bytes: Vec<u8>) -> Result<String, PushError> {
    let text = String::from_utf8(bytes);
    text.map_err(|_| missing(format!("the value of ${variable} in Secret {secret} is not text")))
}

fn missing(what: String) -> PushError {
    PushError::new(reason::CREDENTIALS_NOT_FOUND, what)
}

fn of_no_host(what: &str) -> String {
    format!(
        "{what} is a login for no host in particular, and the host of repository comes from a variable that steps can \
         export: write the host out, in repository or registry, or use a Secret of type kubernetes.io/dockerconfigjson"
    )
}

/// What an image is searched for.
#[derive(Default)]
pub struct Sought {
    /// Values that must not be in the image.
    pub values: Vec<NamedSecret>,
    /// Why other values cannot be looked for; for people.
    pub missed: Vec<String>,
}

impl Sought {
    /// How many bytes of values may be added.
    fn room(&self) -> usize {
        MAX_ALL_BYTES.saturating_sub(self.values.iter().map(|secret| secret.value.expose().len()).sum())
    }

    /// Adds the value of a variable, once. Gives why it cannot be, if so.
    fn add(&mut self, variable: &str, value: String) -> Option<String> {
        if self.values.iter().any(|secret| *secret.value.expose() == value) {
            return None;
        }
        if self.values.len() >= MAX_VALUES {
            return Some(too_many());
        }
        self.values.push(NamedSecret { name: format!("variable {variable}"), value: Secret::new(value) });
        None
    }
}

fn too_many() -> String {
    format!("more than {MAX_VALUES} values are too many")
}

/// The values that must not be in an image: those that feed variables of the run, as its Secrets have them now and as the
/// run got them, and the login of the push. A key that feeds nothing is not even read.
#[must_use]
pub fn sought(volumes: &Volumes, spec: &PipelineSpec, login: Option<&Credentials>) -> Sought {
    let mut sought = Sought::default();
    let (secrets, _) = logins::env_objects(spec);
    let given = if secrets.is_empty() { Vec::new() } else { given(volumes, &mut sought) };
    for (index, secret) in secrets.into_iter().enumerate() {
        let volume = secret_volume(index);
        let keys = volumes.secret_keys(&volume).unwrap_or_else(|error| {
            sought.missed.push(format!("the keys of Secret {secret} cannot be read: {}", told(&error)));
            Vec::new()
        });
        for (key, variable, optional) in feeds(spec, secret, &keys) {
            let why = if sought.values.len() >= MAX_VALUES {
                Some(too_many())
            } else {
                match volumes.secret(&volume, key, sought.room()).map(|bytes| bytes.map(String::from_utf8)) {
                    Ok(None) if optional || given.iter().any(|known| known.name == variable) => None,
                    Ok(Some(Ok(value))) => sought.add(&variable, value),
                    Ok(None) => Some("it is gone".into()),
                    Ok(Some(Err(_))) => Some("it is no text".into()),
                    Err(error) => Some(told(&error)),
                }
            };
            let missed =
                |why| format!("variable {variable} (key {key} of Secret {secret}) cannot be looked for: {why}");
            sought.missed.extend(why.map(missed));
        }
    }
    for Variable { name, value, .. } in given {
        let why = sought.add(&name, value);
        let missed = |why| format!("variable {name}, as the run got it, cannot be looked for: {why}");
        sought.missed.extend(why.map(missed));
    }
    if let Some(login) = login {
        sought.values.extend(values_of(login));
    }
    sought
}

/// What of a login must not be in an image.
pub fn values_of(login: &Credentials) -> impl Iterator<Item = NamedSecret> {
    let password = ("password", login.password().clone());
    let named = |(what, value)| NamedSecret { name: format!("the {what} of {}", login.username()), value };
    [password].into_iter().chain(login.identity_token().cloned().map(|token| ("token", token))).map(named)
}

/// The variables that the run got from Secrets, which may hold other values by now.
fn given(volumes: &Volumes, sought: &mut Sought) -> Vec<Variable> {
    let plan = match volumes.plan() {
        Ok(Some(plan)) => plan,
        Ok(None) => {
            sought.missed.push("the values that the run got are gone".into());
            return Vec::new();
        }
        Err(error) => {
            sought.missed.push(format!("the values that the run got cannot be read: {}", told(&error)));
            return Vec::new();
        }
    };
    let of_steps = plan.steps.into_iter().flat_map(|step| step.env);
    plan.env.into_iter().chain(of_steps).filter(|variable| variable.secret).collect()
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
