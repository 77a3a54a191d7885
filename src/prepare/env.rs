//! The environment of the steps: what the order names, with the values that were mounted.
//!
//! Called by `mod.rs` once the mounts are read.
//!
//! **Invariant:** pure. A value from a Secret is marked as such, and no message holds a value.

use super::failure::failure;
use crate::{
    api::{condition::reason, env::can_be_set},
    steps::{
        links,
        logins::{self, no_key},
    },
    wire::{EnvFromSource, EnvItem, EnvValue, Failure, LoginKey, Order, Variable},
};
use std::collections::BTreeMap;

/// Most that all variables together may hold, names included.
const LIMIT_BYTES: usize = 1024 * 1024;
/// Most that Linux passes to a program in one variable: name, `=`, value and the end.
const VARIABLE_BYTES: usize = 128 * 1024 - 1;

/// A Secret or ConfigMap: its keys, with the values that were asked for.
#[derive(Default)]
pub(crate) struct Object {
    pub(crate) keys: BTreeMap<String, Option<Vec<u8>>>,
}

/// Objects by name.
pub(crate) type Objects = BTreeMap<String, Object>;

/// What was found in the pod. An object without keys does not exist: its volume is optional.
#[derive(Default)]
pub(crate) struct Mounted {
    pub(crate) secrets: Objects,
    pub(crate) config_maps: Objects,
    /// Names of the keys of push credentials that exist.
    pub(crate) push_secrets: BTreeMap<String, Vec<String>>,
}

/// The variables of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Environment {
    /// Of all steps; names are unique.
    pub(crate) run: Vec<Variable>,
    /// Of each step alone.
    pub(crate) steps: Vec<Vec<Variable>>,
    /// Keys that are no names of variables, for people.
    pub(crate) skipped: Vec<String>,
}

/// The environment of the order.
///
/// # Errors
/// What is missing, is not text or is too large.
pub(crate) fn resolve(order: &Order, mounted: &Mounted) -> Result<Environment, Failure> {
    let mut skipped = Vec::new();
    let linked = order.links.iter().flat_map(links::variables);
    let linked = linked.map(|(name, value)| EnvItem::One { name, value: EnvValue::Text(value) });
    // What the pipeline says of a variable wins.
    let items: Vec<EnvItem> = linked.chain(order.env.iter().cloned()).collect();
    let mut run = variables(order, &items, None, mounted, &mut skipped)?;
    run.retain(|variable| !variable.secret || !order.withheld.contains(&variable.name));
    let mut steps = Vec::with_capacity(order.steps.len());
    for step in &order.steps {
        steps.push(variables(order, &step.env, Some(&step.name), mounted, &mut skipped)?);
    }
    check_logins(order, mounted)?;
    check_size(run.iter().chain(steps.iter().flatten()))?;
    Ok(Environment { run, steps, skipped })
}

/// Whether what push steps log in with is there; the values are the agent's to read.
fn check_logins(order: &Order, mounted: &Mounted) -> Result<(), Failure> {
    for (step, name) in &order.push_secrets {
        let Some(keys) = mounted.push_secrets.get(name) else {
            return Err(missing(&SECRET, name, order, &format!("step {step} needs it")));
        };
        if let Some(fault) = logins::no_login(name, keys.iter().map(String::as_str)) {
            return Err(failure(SECRET.key_not_found, format!("{fault}; step {step} logs in with it")));
        }
    }
    for LoginKey { step, variable, secret, key } in &order.login_keys {
        let Some(keys) = mounted.push_secrets.get(secret) else {
            return Err(missing(&SECRET, secret, order, &format!("{variable} of step {step} needs it")));
        };
        if !keys.contains(key) {
            let message = no_key(SECRET.name, secret, key, keys.iter().map(String::as_str));
            return Err(failure(SECRET.key_not_found, message));
        }
    }
    Ok(())
}

/// What differs between Secrets and ConfigMaps.
struct Kind {
    name: &'static str,
    secret: bool,
    not_found: &'static str,
    key_not_found: &'static str,
}

const SECRET: Kind = Kind {
    name: "Secret",
    secret: true,
    not_found: reason::SECRET_NOT_FOUND,
    key_not_found: reason::SECRET_KEY_NOT_FOUND,
};

const CONFIG_MAP: Kind = Kind {
    name: "ConfigMap",
    secret: false,
    not_found: reason::CONFIG_MAP_NOT_FOUND,
    key_not_found: reason::CONFIG_MAP_KEY_NOT_FOUND,
};

fn variables(
    order: &Order,
    items: &[EnvItem],
    step: Option<&str>,
    mounted: &Mounted,
    skipped: &mut Vec<String>,
) -> Result<Vec<Variable>, Failure> {
    let of_step = step.map(|step| format!(" of step {step}")).unwrap_or_default();
    let mut found = Vec::new();
    for item in items {
        match item {
            EnvItem::One { name, value } => {
                let what = format!("env {name}{of_step}");
                let (bytes, secret) = match value {
                    EnvValue::Text(text) => (Some(text.as_bytes()), false),
                    EnvValue::Secret { name, key, optional } => {
                        (key_value(&SECRET, &mounted.secrets, name, key, *optional, order, &what)?, true)
                    }
                    EnvValue::ConfigMap { name, key, optional } => {
                        (key_value(&CONFIG_MAP, &mounted.config_maps, name, key, *optional, order, &what)?, false)
                    }
                };
                if let Some(bytes) = bytes {
                    found.push(variable(name.clone(), bytes, secret, &what)?);
                }
            }
            EnvItem::All(from) => found.extend(all_keys(from, mounted, order, &of_step, skipped)?),
        }
    }
    Ok(last_wins(found))
}

/// The value of a key; `None` when it is optional and missing.
fn key_value<'a>(
    kind: &Kind,
    objects: &'a Objects,
    name: &str,
    key: &str,
    optional: bool,
    order: &Order,
    what: &str,
) -> Result<Option<&'a [u8]>, Failure> {
    let object = objects.get(name).filter(|object| !object.keys.is_empty());
    let value = object.and_then(|object| object.keys.get(key)).and_then(Option::as_deref);
    match (value, object) {
        (Some(value), _) => Ok(Some(value)),
        (None, _) if optional => Ok(None),
        (None, None) => Err(missing(kind, name, order, &format!("{what} needs it"))),
        (None, Some(object)) => {
            Err(failure(kind.key_not_found, no_key(kind.name, name, key, object.keys.keys().map(String::as_str))))
        }
    }
}

fn missing(kind: &Kind, name: &str, order: &Order, need: &str) -> Failure {
    let message = format!("{} {name} does not exist in namespace {}; {need}", kind.name, order.run.namespace);
    failure(kind.not_found, message)
}

fn all_keys(
    from: &EnvFromSource,
    mounted: &Mounted,
    order: &Order,
    of_step: &str,
    skipped: &mut Vec<String>,
) -> Result<Vec<Variable>, Failure> {
    let (kind, objects) = if from.secret { (SECRET, &mounted.secrets) } else { (CONFIG_MAP, &mounted.config_maps) };
    let Some(object) = objects.get(&from.name).filter(|object| !object.keys.is_empty()) else {
        if from.optional {
            return Ok(Vec::new());
        }
        return Err(missing(&kind, &from.name, order, &format!("envFrom{of_step} needs it")));
    };
    let mut found = Vec::new();
    for (key, value) in &object.keys {
        let name = format!("{}{key}", from.prefix);
        match value {
            Some(value) if can_be_set(&name) => {
                let what = format!("env {name}{of_step} (key {key} of {} {})", kind.name, from.name);
                found.push(variable(name, value, kind.secret, &what)?);
            }
            _ => skipped.push(format!("key {key} of {} {}", kind.name, from.name)),
        }
    }
    Ok(found)
}

fn variable(name: String, value: &[u8], secret: bool, what: &str) -> Result<Variable, Failure> {
    let wrong = |problem: &str| {
        failure(reason::INVALID_PIPELINE, format!("{what}: the value {problem}; a variable can only hold text"))
    };
    let value = std::str::from_utf8(value).map_err(|_| wrong("is not UTF-8"))?;
    if value.contains('\0') {
        return Err(wrong("holds a NUL byte"));
    }
    Ok(Variable { name, value: value.into(), secret })
}

/// Keeps the last variable of each name, in the place of the first.
fn last_wins(variables: Vec<Variable>) -> Vec<Variable> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut unique: Vec<Variable> = Vec::with_capacity(variables.len());
    for variable in variables {
        match places.get(&variable.name).and_then(|place| unique.get_mut(*place)) {
            Some(earlier) => *earlier = variable,
            None => {
                places.insert(variable.name.clone(), unique.len());
                unique.push(variable);
            }
        }
    }
    unique
}

fn check_size<'a>(variables: impl Iterator<Item = &'a Variable>) -> Result<(), Failure> {
    let (mut total, mut largest_size, mut largest) = (0, 0, "");
    for variable in variables {
        let size = variable.name.len() + 1 + variable.value.len();
        total += size;
        if size > largest_size {
            (largest_size, largest) = (size, &variable.name);
        }
    }
    let too_large = |message| Err(failure(reason::ENVIRONMENT_TOO_LARGE, message));
    if total > LIMIT_BYTES {
        let (total, size) = (human_size(total), human_size(largest_size));
        return too_large(format!(
            "the environment holds {total}, at most 1 MiB fits; the largest is {largest} ({size})"
        ));
    }
    if largest_size > VARIABLE_BYTES {
        let size = human_size(largest_size);
        return too_large(format!("variable {largest} holds {size}, at most 128 KiB fit into one; use a file"));
    }
    Ok(())
}

/// `900 KiB`, `1.4 MiB`; rounded up, so that what is over a limit never looks like the limit.
fn human_size(bytes: usize) -> String {
    if bytes < 1024 * 1024 {
        return format!("{} KiB", bytes.div_ceil(1024));
    }
    let tenths = (bytes * 10).div_ceil(1024 * 1024);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests;
