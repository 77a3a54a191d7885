//! Which Secrets a pipeline uses, and for what: to feed the environment, or to log in to registries.
//!
//! The controller makes the pod's volumes and the order of it; the agent reads logins by it. Both see the frozen
//! pipeline, so they agree on which volume holds what.
//!
//! A push step can log in with variables: `password: $PASSWORD`. What such a variable holds is read by the agent
//! from the Secret that declares it. If nothing else in the pipeline names the variable, no step is given it.
//!
//! **Invariant:** pure. Names of Secrets only, never values.

use super::{
    StepError,
    expand::{sole_variable, variables},
};
use crate::api::{
    PipelineSpec, Step,
    condition::reason,
    env::{EnvVar, KeyRef},
    push::DockerPush,
};
use serde_json::Value;
use std::collections::BTreeSet;

/// Most keys that a message lists.
const LISTED_KEYS: usize = 20;
/// Keys of a Secret that hold logins, as `kubernetes.io/dockerconfigjson` has them.
pub const CONFIG_JSON: &str = ".dockerconfigjson";
/// The older form: what is below `auths`.
pub const CONFIG: &str = ".dockercfg";
/// As `kubernetes.io/basic-auth` has them.
pub const USERNAME: &str = "username";
/// Goes with [`USERNAME`].
pub const PASSWORD: &str = "password";

/// Where the value of a variable comes from, by the word of the pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    /// It stands in the pipeline.
    Literal(&'a str),
    /// A key of a Secret.
    Key(&'a KeyRef),
    /// A whole Secret, if it has the key.
    Whole {
        /// The first of these that has it counts: name and key.
        secrets: Vec<(&'a str, String)>,
        /// Where the value comes from if none has.
        or: Box<Self>,
    },
    /// A ConfigMap, a step that exports it, or nothing.
    Elsewhere,
}

/// Why a Secret with these keys is no login to a registry, with what it has instead: a name that is misspelt is seen at
/// once. `None` if it may be one.
pub fn no_login<'a>(name: &str, keys: impl Iterator<Item = &'a str> + Clone) -> Option<String> {
    let has = |key: &str| keys.clone().any(|known| known == key);
    if has(CONFIG_JSON) || has(CONFIG) {
        return None;
    }
    match (has(USERNAME), has(PASSWORD)) {
        (true, true) => None,
        (true, false) => Some(no_key("Secret", name, PASSWORD, keys)),
        (false, true) => Some(no_key("Secret", name, USERNAME, keys)),
        (false, false) => {
            let has = list(keys);
            Some(format!("Secret {name} has neither {CONFIG_JSON} nor {USERNAME} and {PASSWORD}; it has: {has}"))
        }
    }
}

/// `token, user`; at most so many, and how many more there are.
fn list<'a>(keys: impl Iterator<Item = &'a str>) -> String {
    let keys: Vec<_> = keys.collect();
    let more = if keys.len() > LISTED_KEYS { format!(" and {} more", keys.len() - LISTED_KEYS) } else { String::new() };
    format!("{}{more}", keys.iter().take(LISTED_KEYS).copied().collect::<Vec<_>>().join(", "))
}

/// `Secret keys has no key api; it has: token, user`.
pub fn no_key<'a>(kind: &str, name: &str, key: &str, keys: impl Iterator<Item = &'a str>) -> String {
    format!("{kind} {name} has no key {key}; it has: {}", list(keys))
}

/// A key of a Secret that a push step logs in with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginKey<'a> {
    /// The step.
    pub step: &'a str,
    /// The variable that stands for it.
    pub variable: &'a str,
    /// The Secret and its key.
    pub key: &'a KeyRef,
}

/// The push properties of a step, if it is one that pushes.
#[must_use]
pub fn push_of(step: &Step) -> Option<&DockerPush> {
    step.docker_push.as_ref().or(step.docker_scratch_push.as_ref().map(|scratch| &scratch.push))
}

/// Properties that a step logs in with.
fn properties(push: &DockerPush) -> impl Iterator<Item = &str> {
    let aws = [&push.aws_access_key, &push.aws_secret_key, &push.aws_region, &push.aws_registry_id];
    [&push.username, &push.password].into_iter().chain(aws).filter_map(Option::as_deref)
}

/// Variables that a push step logs in with.
#[must_use]
pub fn login_variables(push: &DockerPush) -> BTreeSet<&str> {
    properties(push).flat_map(variables).collect()
}

/// Where a step's variable comes from: its own `env`, that of the pipeline, `envFrom`, then `box.env`. What steps export
/// is not looked at, nor what a whole ConfigMap gives.
#[must_use]
pub fn origin<'a>(spec: &'a PipelineSpec, step: &'a Step, variable: &str) -> Origin<'a> {
    let declared = |list: &'a [EnvVar]| list.iter().rev().find(|var| var.name == variable);
    let of = |var: &'a EnvVar| match (&var.secret_key_ref, &var.value) {
        (Some(key), _) => Origin::Key(key),
        (None, Some(value)) => Origin::Literal(value),
        (None, None) => Origin::Elsewhere,
    };
    if let Some(var) = declared(&step.env).or_else(|| declared(&spec.env)) {
        return of(var);
    }
    let whole: Vec<(&str, String)> = spec
        .env_from
        .iter()
        .rev()
        .filter_map(|from| {
            let key = variable.strip_prefix(from.prefix.as_deref().unwrap_or_default())?;
            Some((from.secret_ref.as_ref()?.name.as_str(), key.to_owned()))
        })
        .collect();
    let of_box = declared(&spec.box_.env).map_or(Origin::Elsewhere, of);
    if whole.is_empty() { of_box } else { Origin::Whole { secrets: whole, or: Box::new(of_box) } }
}

/// The key of a Secret that a variable may come from, if the pipeline names one.
fn key_of<'a>(origin: &Origin<'a>) -> Option<&'a KeyRef> {
    match origin {
        Origin::Key(key) => Some(key),
        Origin::Whole { or, .. } => key_of(or),
        Origin::Literal(_) | Origin::Elsewhere => None,
    }
}

/// Judges the logins of a push step; `path` is such as `steps[2].dockerPush`.
///
/// # Errors
/// `InvalidProperty` for a password that does not come from a Secret.
pub fn check(path: &str, spec: &PipelineSpec, step: &Step, push: &DockerPush) -> Result<(), StepError> {
    for (property, written) in [("password", &push.password), ("awsSecretKey", &push.aws_secret_key)] {
        let Some(written) = written else { continue };
        let refuse =
            |problem: String| Err(StepError::new(reason::INVALID_PROPERTY, format!("{path}.{property}: {problem}")));
        // As written it may be the secret itself, so it is not repeated.
        let Some(variable) = sole_variable(written) else {
            return refuse("must be one variable such as $PASSWORD whose value comes from a Secret".to_owned());
        };
        match origin(spec, step, variable) {
            Origin::Key(_) | Origin::Whole { .. } => {}
            Origin::Literal(_) | Origin::Elsewhere => {
                return refuse(format!(
                    "${variable} does not come from a Secret; declare it in env with secretKeyRef, or use credentials"
                ));
            }
        }
    }
    Ok(())
}

/// The keys that push steps log in with by variables, each with its step.
#[must_use]
pub fn login_keys(spec: &PipelineSpec) -> Vec<LoginKey<'_>> {
    let mut keys = Vec::new();
    for (_, step) in spec.all_steps() {
        for variable in push_of(step).map(login_variables).unwrap_or_default() {
            if let Some(key) = key_of(&origin(spec, step, variable)) {
                keys.push(LoginKey { step: &step.name, variable, key });
            }
        }
    }
    keys
}

/// Names of the Secrets that push steps log in with, each once, in order of first use: `credentials` first.
/// The index in this list names the volume that carries it (`wire::push_volume`).
#[must_use]
pub fn push_secrets(spec: &PipelineSpec) -> Vec<&str> {
    let whole = spec.all_steps().filter_map(|(_, step)| push_of(step)?.credentials.as_ref());
    let whole = whole.map(|credentials| credentials.secret_name.as_str());
    unique(whole.chain(login_keys(spec).into_iter().map(|login| login.key.name.as_str())))
}

/// Names of the Secrets and of the ConfigMaps that feed the environment, each once, in order of first use.
/// The index of a Secret names the volume that carries it (`wire::secret_volume`).
#[must_use]
pub fn env_objects(spec: &PipelineSpec) -> (Vec<&str>, Vec<&str>) {
    let withheld = withheld(spec);
    let own = spec.box_.env.iter().chain(&spec.env);
    let own = own.filter(|var| is_given(var, &withheld));
    let of_steps = spec.all_steps().flat_map(|(_, step)| step_env(step, &withheld));
    let vars: Vec<&EnvVar> = own.chain(of_steps).collect();
    let secrets = spec.env_from.iter().filter_map(|from| Some(from.secret_ref.as_ref()?.name.as_str()));
    let config_maps = spec.env_from.iter().filter_map(|from| Some(from.config_map_ref.as_ref()?.name.as_str()));
    (
        unique(secrets.chain(vars.iter().filter_map(|var| Some(var.secret_key_ref.as_ref()?.name.as_str())))),
        unique(config_maps.chain(vars.iter().filter_map(|var| Some(var.config_map_key_ref.as_ref()?.name.as_str())))),
    )
}

/// Whether the box is given a variable that the pipeline declares for all steps.
#[must_use]
pub fn is_given(var: &EnvVar, withheld: &BTreeSet<&str>) -> bool {
    var.secret_key_ref.is_none() || !withheld.contains(var.name.as_str())
}

/// The variables of one step that the box is given. A script that declares a variable itself wants it.
pub fn step_env<'a>(step: &'a Step, withheld: &BTreeSet<&str>) -> impl Iterator<Item = &'a EnvVar> {
    let pushes = push_of(step).is_some();
    step.env.iter().filter(move |var| !pushes || is_given(var, withheld))
}

/// Variables of logins that nothing else in the pipeline names: the box is not given them.
#[must_use]
pub fn withheld(spec: &PipelineSpec) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for (_, step) in spec.all_steps() {
        for variable in push_of(step).map(login_variables).unwrap_or_default() {
            if matches!(origin(spec, step, variable), Origin::Key(_) | Origin::Whole { .. }) {
                names.insert(variable);
            }
        }
    }
    if !names.is_empty() {
        let rest = serde_json::to_value(without_logins(spec)).unwrap_or_default();
        names.retain(|name| !is_named(&rest, name));
    }
    names
}

/// The pipeline without what declares variables and what logs in. The values of variables are data.
fn without_logins(spec: &PipelineSpec) -> PipelineSpec {
    let mut spec = spec.clone();
    spec.description = None;
    spec.env.clear();
    spec.env_from.clear();
    spec.box_.env.clear();
    spec.services.clear();
    for step in spec.steps.iter_mut().chain(&mut spec.after_steps) {
        step.env.clear();
        let push = step.docker_push.as_mut().or(step.docker_scratch_push.as_mut().map(|scratch| &mut scratch.push));
        if let Some(push) = push {
            let login = [&mut push.username, &mut push.password, &mut push.email, &mut push.aws_access_key];
            let aws = [&mut push.aws_secret_key, &mut push.aws_region, &mut push.aws_registry_id];
            login.into_iter().chain(aws).for_each(|property| *property = None);
        }
    }
    spec
}

/// Whether a text below `value` has this word. A script may use a variable without a dollar: `printenv TOKEN`.
fn is_named(value: &Value, name: &str) -> bool {
    match value {
        Value::String(text) => has_word(text, name),
        Value::Array(items) => items.iter().any(|item| is_named(item, name)),
        // The keys of the pipeline's own fields are no words of the user, and have no dollar.
        Value::Object(fields) => {
            fields.iter().any(|(key, field)| (key.contains('$') && has_word(key, name)) || is_named(field, name))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn has_word(text: &str, name: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let before = text.get(..at).is_some_and(|before| before.ends_with(inside));
        let after = text.get(at + name.len()..).is_some_and(|after| after.starts_with(inside));
        !before && !after
    })
}

fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| seen.insert(*name)).collect()
}

#[cfg(test)]
mod tests;
