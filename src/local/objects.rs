//! Secrets and ConfigMaps of a local run: from documents beside the pipeline, and from files of the user.
//!
//! `client` fills them; `directory` writes them where the run looks.
//!
//! **Invariant:** no value is in an error or in `Debug`. Keys can be names of files and nothing else.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use std::{collections::BTreeMap, fs, io::Read as _, path::Path};

/// Largest value, and largest file of variables.
const MAX_BYTES: u64 = 1024 * 1024;
/// Most keys of an object.
const MAX_KEYS: usize = 1000;

/// The keys of an object, with their values.
pub type Keys = BTreeMap<String, Vec<u8>>;

/// Secrets and ConfigMaps by name.
#[derive(Clone, Default)]
pub struct Objects {
    /// Secrets.
    pub secrets: BTreeMap<String, Keys>,
    /// ConfigMaps.
    pub config_maps: BTreeMap<String, Keys>,
}

/// What is wrong with an object; where, and never with a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ObjectsError(String);

fn wrong(what: impl Into<String>) -> ObjectsError {
    ObjectsError(what.into())
}

impl Objects {
    /// Takes a document of kind `Secret` or `ConfigMap`; `false` if it is of another kind.
    ///
    /// # Errors
    /// When its data is not what such an object holds.
    pub fn take(&mut self, document: &Value) -> Result<bool, ObjectsError> {
        let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default();
        let objects = match (text("apiVersion"), text("kind")) {
            ("v1", "Secret") => &mut self.secrets,
            ("v1", "ConfigMap") => &mut self.config_maps,
            _ => return Ok(false),
        };
        let kind = text("kind");
        let name = document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() {
            return Err(wrong(format!("a {kind} has no metadata.name")));
        }
        if !is_name(name) {
            return Err(wrong(format!("{kind} {name:?}: a name is of lower-case letters, digits, '-' and '.'")));
        }
        let (encoded, plain) = if kind == "Secret" { ("data", "stringData") } else { ("binaryData", "data") };
        let mut keys = Keys::new();
        for (field, base64) in [(encoded, true), (plain, false)] {
            let Some(values) = document.get(field).filter(|values| !values.is_null()) else { continue };
            let values = values.as_object().ok_or_else(|| wrong(format!("{kind} {name}: {field} is not a map")))?;
            for (key, value) in values {
                let at = format!("{kind} {name}, {field}.{key}");
                let value = value.as_str().ok_or_else(|| wrong(format!("{at}: not text; quote it")))?;
                let bytes = if base64 {
                    let packed: String = value.split_ascii_whitespace().collect();
                    STANDARD
                        .decode(packed)
                        .map_err(|_| wrong(format!("{at}: not base64; use {plain} for plain text")))?
                } else {
                    value.as_bytes().to_vec()
                };
                insert(&mut keys, key, bytes, &at)?;
            }
        }
        objects.insert(name.to_owned(), keys);
        Ok(true)
    }

    /// Takes `NAME=PATH`: a directory with one file for each key, or a file of `KEY=VALUE` lines. `secret` says which kind.
    ///
    /// # Errors
    /// When there is no such file, or it cannot be read as that.
    pub fn take_path(&mut self, name: &str, path: &Path, secret: bool) -> Result<(), ObjectsError> {
        let unread = |error: std::io::Error| wrong(format!("{}: {error}", path.display()));
        let keys = if fs::metadata(path).map_err(unread)?.is_dir() {
            let mut keys = Keys::new();
            for entry in fs::read_dir(path).map_err(unread)?.take(MAX_KEYS + 1) {
                let entry = entry.map_err(unread)?;
                let key = entry.file_name().to_string_lossy().into_owned();
                // As the kubelet keeps its versions.
                if key.starts_with("..") || !fs::metadata(entry.path()).is_ok_and(|meta| meta.is_file()) {
                    continue;
                }
                let bytes = bytes(&entry.path()).map_err(|e| wrong(format!("{}: {e}", entry.path().display())))?;
                insert(&mut keys, &key, bytes, &entry.path().display().to_string())?;
            }
            keys
        } else {
            let text = bytes(path).map_err(unread)?;
            let mut keys = Keys::new();
            for (key, value) in env_lines(&text, &path.display().to_string())? {
                let value = value.ok_or_else(|| wrong(format!("{}: {key} has no value", path.display())))?;
                insert(&mut keys, &key, value.into_bytes(), &format!("{}: {key}", path.display()))?;
            }
            keys
        };
        let objects = if secret { &mut self.secrets } else { &mut self.config_maps };
        objects.insert(name.to_owned(), keys);
        Ok(())
    }
}

/// Whether a key may be one: Kubernetes has the same rule, so that it can be the name of a file.
pub(super) fn is_key(key: &str) -> bool {
    (1..=253).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && key != "."
        && !key.starts_with("..")
}

/// Whether a name may be that of an object: a DNS subdomain (RFC 1123).
pub(super) fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let part = |part: &str| {
        part.bytes().all(|b| plain(b) || b == b'-')
            && !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(part)
}

fn insert(keys: &mut Keys, key: &str, value: Vec<u8>, at: &str) -> Result<(), ObjectsError> {
    if !is_key(key) {
        return Err(wrong(format!("{at}: a key is of letters, digits, '-', '_' and '.'")));
    }
    if keys.len() >= MAX_KEYS {
        return Err(wrong(format!("{at}: more than {MAX_KEYS} keys")));
    }
    keys.insert(key.to_owned(), value);
    Ok(())
}

fn bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::other(format!("it is larger than {} MiB", MAX_BYTES >> 20)));
    }
    Ok(bytes)
}

/// Variables of a file as Docker's `--env-file` has it: `NAME=VALUE` lines, `#` begins a comment line, quotes are part of
/// the value. A name alone has no value here.
///
/// # Errors
/// With the number of the line, never with its text.
fn env_lines(text: &[u8], file: &str) -> Result<Vec<(String, Option<String>)>, ObjectsError> {
    let text = std::str::from_utf8(text).map_err(|_| wrong(format!("{file}: not UTF-8 text")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').map_or((line.trim_end(), None), |(name, value)| (name, Some(value)));
        let is_name = name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        if !is_name {
            return Err(wrong(format!("{file}:{}: expected NAME=VALUE", number + 1)));
        }
        found.push((name.to_owned(), value.map(str::to_owned)));
    }
    Ok(found)
}

/// The variables of a file.
///
/// # Errors
/// When it cannot be read.
pub fn env_file(path: &Path) -> Result<Vec<(String, Option<String>)>, ObjectsError> {
    let text = bytes(path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    env_lines(&text, &path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[test]
    fn objects_are_read_as_kubernetes_writes_them() {
        let mut objects = Objects::default();
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"},
            "data": {"a": "c2VjcmV0\n"}, "stringData": {"b": "plain", "a": "wins"}});
        assert_eq!(objects.take(&secret), Ok(true));
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf"},
            "data": {"c": "text"}, "binaryData": {"d": "AAE="}});
        assert_eq!(objects.take(&map), Ok(true));
        assert_eq!(objects.take(&json!({"apiVersion": "apps/v1", "kind": "Deployment"})), Ok(false));
        assert_eq!(objects.secrets["keys"], Keys::from([("a".into(), b"wins".into()), ("b".into(), b"plain".into())]));
        assert_eq!(objects.config_maps["conf"]["d"], [0, 1]);
    }

    #[rstest]
    #[case(json!({"data": {"a": "hunter2!"}}), "Secret k, data.a: not base64; use stringData for plain text")]
    #[case(json!({"stringData": {"a": 5}}), "Secret k, stringData.a: not text; quote it")]
    #[case(json!({"stringData": {"../../etc": "x"}}), "a key is of letters")]
    #[case(json!({"stringData": ["hunter2!"]}), "stringData is not a map")]
    fn a_wrong_object_is_told_without_its_values(#[case] fields: Value, #[case] words: &str) {
        let mut document = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "k"}});
        document.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let message = Objects::default().take(&document).unwrap_err().to_string();
        assert!(message.contains(words) && !message.contains("hunter2"), "{message}");
    }

    #[test]
    fn a_directory_or_a_file_is_an_object_too() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("api"), "s3cret\n").unwrap();
        fs::write(dir.path().join("file.env"), "# comment\nA=1\n B=x=y \n\nC=\"quoted\"\n").unwrap();
        let mut objects = Objects::default();
        objects.take_path("file", &dir.path().join("file.env"), true).unwrap();
        let expected = [("A", "1"), ("B", "x=y "), ("C", "\"quoted\"")];
        assert_eq!(objects.secrets["file"], expected.map(|(k, v)| (k.to_owned(), v.as_bytes().to_vec())).into());
        objects.take_path("dir", dir.path(), false).unwrap();
        assert_eq!(objects.config_maps["dir"]["api"], b"s3cret\n");
        assert!(objects.take_path("none", &dir.path().join("none"), true).is_err());
    }

    #[test]
    fn a_wrong_line_is_told_by_its_number() {
        let error = env_lines(b"A=1\nB C=hunter2\n", "x.env").unwrap_err().to_string();
        assert_eq!(error, "x.env:2: expected NAME=VALUE");
        assert_eq!(env_lines(b"HOME\n", "x").unwrap(), [("HOME".to_owned(), None)]);
    }
}
