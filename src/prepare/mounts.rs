//! Reads what the kubelet mounted: Secrets and ConfigMaps of the environment, names of push credentials.
//!
//! Called by `mod.rs`; what is found goes to `env`, which judges it.
//!
//! **Invariant:** only keys that the order names are read, and never more than [`READ_BYTES`] in all.

use super::{
    env::{Mounted, Object, Objects},
    failure::failure,
    layout::Layout,
};
use crate::{
    api::{condition::reason, env::can_be_set},
    wire::{EnvItem, EnvValue, Failure, Order},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Read,
    path::Path,
};

/// Most that is read in all. The environment may hold an eighth of it; the rest is for a message that
/// says how large it would be.
const READ_BYTES: u64 = 8 * 1024 * 1024;

/// What goes wrong when a mounted file is read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {source}")]
pub(crate) struct Error {
    path: String,
    source: std::io::Error,
}

impl Error {
    fn new(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        |source| Self { path, source }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        failure(reason::BOX_FAILED_TO_START, error.to_string())
    }
}

/// Keys of one object that the order asks for.
#[derive(Default)]
struct Wanted<'a> {
    all: bool,
    keys: BTreeSet<&'a str>,
}

/// Reads all that the order names.
///
/// # Errors
/// When it is more than [`READ_BYTES`], or cannot be read although it is there.
pub(crate) fn read(order: &Order, layout: &Layout) -> Result<Mounted, Failure> {
    let (mut secrets, mut config_maps) = (BTreeMap::new(), BTreeMap::new());
    for item in order.env.iter().chain(order.steps.iter().flat_map(|step| &step.env)) {
        match item {
            EnvItem::One { value: EnvValue::Text(_), .. } => {}
            EnvItem::One { value: EnvValue::Secret { name, key, .. }, .. } => {
                want(&mut secrets, name).keys.insert(key);
            }
            EnvItem::One { value: EnvValue::ConfigMap { name, key, .. }, .. } => {
                want(&mut config_maps, name).keys.insert(key);
            }
            EnvItem::All(from) => {
                let objects = if from.secret { &mut secrets } else { &mut config_maps };
                want(objects, &from.name).all = true;
            }
        }
    }
    let mut budget = READ_BYTES;
    let secrets = objects(&secrets, |name| layout.secret(name), "Secret", &mut budget)?;
    let config_maps = objects(&config_maps, |name| layout.config_map(name), "ConfigMap", &mut budget)?;
    let mut push_secrets = BTreeMap::new();
    let names = order.push_secrets.iter().map(|(_, name)| name);
    for name in names.chain(order.login_keys.iter().map(|login| &login.secret)) {
        let keys = keys(&layout.push_secret(name))?;
        if !keys.is_empty() {
            push_secrets.insert(name.clone(), keys);
        }
    }
    Ok(Mounted { secrets, config_maps, push_secrets })
}

fn want<'m, 'a>(objects: &'m mut BTreeMap<&'a str, Wanted<'a>>, name: &'a str) -> &'m mut Wanted<'a> {
    objects.entry(name).or_default()
}

fn objects(
    wanted: &BTreeMap<&str, Wanted<'_>>,
    directory: impl Fn(&str) -> std::path::PathBuf,
    kind: &str,
    budget: &mut u64,
) -> Result<Objects, Failure> {
    let mut objects = Objects::new();
    for (name, wanted) in wanted {
        let directory = directory(name);
        let mut object = Object::default();
        for key in keys(&directory)? {
            // A prefix may make a name of a key that begins with a digit.
            let read = wanted.keys.contains(key.as_str()) || (wanted.all && can_be_set(&format!("_{key}")));
            let value = if read { Some(value(&directory.join(&key), budget)?) } else { None };
            if value.as_ref().is_some_and(Option::is_none) {
                let limit = format!("the environment holds more than {} MiB", READ_BYTES >> 20);
                let message = format!("{limit}, at most 1 MiB fits; key {key} of {kind} {name} is one key too many");
                return Err(failure(reason::ENVIRONMENT_TOO_LARGE, message));
            }
            object.keys.insert(key, value.flatten());
        }
        objects.insert((*name).to_owned(), object);
    }
    Ok(objects)
}

/// Names of the keys; none when the object does not exist, as its volume is optional.
///
/// The kubelet swaps whole versions of an object through names that begin with two dots.
pub(crate) fn keys(directory: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::new(directory)(e)),
    };
    let mut keys = Vec::new();
    for entry in entries {
        // Kubernetes allows only ASCII in keys.
        if let Ok(key) = entry.map_err(Error::new(directory))?.file_name().into_string()
            && !key.starts_with("..")
        {
            keys.push(key);
        }
    }
    keys.sort_unstable();
    Ok(keys)
}

/// The value of a key; `None` when it does not fit into the budget.
pub(crate) fn value(path: &Path, budget: &mut u64) -> Result<Option<Vec<u8>>, Error> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Error::new(path))?;
    file.take(*budget + 1).read_to_end(&mut bytes).map_err(Error::new(path))?;
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if size > *budget {
        return Ok(None);
    }
    *budget -= size;
    Ok(Some(bytes))
}
