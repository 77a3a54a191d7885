//! Logins, read from Secrets as Docker and Kubernetes write them.
//!
//! The agent reads the mounted Secret and makes [`Credentials`]; `auth` turns them into headers.
//!
//! **Invariant:** no value of a secret is in any `Debug`, `Display`, serialised form or error.

use super::{
    ecr::AwsKeys,
    reference::{Repository, canonical_host},
};
use base64::{Engine, engine::general_purpose};
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};

/// Largest Secret that Kubernetes stores.
const MAX_CONFIG: usize = 1024 * 1024;
/// The user name that stands for a key file of Google: the password is a JSON document of many lines.
const KEY_FILE_USER: &str = "_json_key";
/// The user name that ECR knows.
const AWS_USER: &str = "AWS";

/// A value that must not be shown. Without `Debug`, `Display` and `Serialize` on purpose.
#[derive(Clone)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, where it is used.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

/// Why a Secret gives no login. Messages name the place, never the content.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CredentialsError {
    /// Not a Docker configuration.
    #[error("not a docker config.json (line {line}, column {column})")]
    Json {
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// Larger than a Secret can be.
    #[error("larger than {MAX_CONFIG} bytes")]
    TooLarge,
    /// An entry that cannot be read.
    #[error("entry {key:?}: {problem}")]
    Entry {
        /// Key below `auths`.
        key: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A user name or password that cannot be sent.
    #[error("{0}")]
    Value(&'static str),
}

/// Reads a password again: what it is now, or why it cannot be read.
pub type ReadAgain = Arc<dyn Fn() -> Result<Secret<String>, String> + Send + Sync>;

/// User name and password, or what is exchanged for them.
#[derive(Clone)]
pub struct Credentials {
    username: String,
    password: Secret<String>,
    identity_token: Option<Secret<String>>,
    aws: Option<AwsKeys>,
    again: Option<ReadAgain>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
struct Entry {
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    auth: Option<String>,
    #[serde(default, rename = "identitytoken")]
    identity_token: Option<String>,
}

impl Credentials {
    /// User name and password.
    #[must_use]
    pub fn new(username: String, password: Secret<String>) -> Self {
        Self { username, password, identity_token: None, aws: None, again: None }
    }

    /// The same with a password that changes while it is used: a session asks for it now and then, and at each refusal.
    #[must_use]
    pub fn changing(self, again: ReadAgain) -> Self {
        Self { again: Some(again), ..self }
    }

    /// The keys of an AWS account, for its ECR registry. The secret key counts as the password.
    #[must_use]
    pub fn aws(keys: AwsKeys) -> Self {
        let password = keys.secret_key.clone();
        Self { aws: Some(keys), ..Self::new(AWS_USER.to_owned(), password) }
    }

    /// The values of a `kubernetes.io/basic-auth` Secret. A newline at the end is dropped: it is there by mistake,
    /// as nobody can log in with one.
    pub fn from_basic_auth(username: &[u8], password: &[u8]) -> Result<Self, CredentialsError> {
        let username = text(username).ok_or(CredentialsError::Value("username is not text on one line"))?;
        if username.is_empty() || username.contains(':') {
            return Err(CredentialsError::Value("username is empty or has a colon"));
        }
        let password = std::str::from_utf8(password).ok().map(|text| text.trim_end_matches(['\r', '\n']));
        let password = password.filter(|password| is_password(&username, password));
        let password = password.ok_or(CredentialsError::Value("password is not text on one line"))?.to_owned();
        Ok(Self::new(username, Secret::new(password)))
    }

    /// The login for a repository in a `.dockerconfigjson`; `None` if no entry is for its registry.
    ///
    /// As with Docker, a key is a host, or an address whose host counts (`https://index.docker.io/v1/`). As with the
    /// kubelet, a key may have a path (`registry.example.com/team`): then it is for repositories below, and the
    /// longest path wins. There are no wildcards.
    pub fn from_docker_config_json(bytes: &[u8], repository: &Repository) -> Result<Option<Self>, CredentialsError> {
        if bytes.len() > MAX_CONFIG {
            return Err(CredentialsError::TooLarge);
        }
        // The parser's own message may quote a password.
        let config: Config = serde_json::from_slice(bytes)
            .map_err(|error| CredentialsError::Json { line: error.line(), column: error.column() })?;
        let best = config
            .auths
            .iter()
            .filter_map(|(key, entry)| specificity(key, repository).map(|length| (length, key, entry)))
            .max_by_key(|(length, ..)| *length);
        best.map_or(Ok(None), |(_, key, entry)| entry.login(key))
    }

    /// The user's name, for messages.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The password.
    #[must_use]
    pub fn password(&self) -> &Secret<String> {
        &self.password
    }

    /// A token that is exchanged for access tokens, in place of the password.
    #[must_use]
    pub fn identity_token(&self) -> Option<&Secret<String>> {
        self.identity_token.as_ref()
    }

    /// The keys that are exchanged for a login first.
    #[must_use]
    pub fn aws_keys(&self) -> Option<&AwsKeys> {
        self.aws.as_ref()
    }

    /// The value of an `Authorization` header, if nothing is to be exchanged for it.
    pub(super) fn basic(&self) -> Secret<String> {
        self.basic_with(&self.password)
    }

    /// The same with the password that holds now; `None` if it does not change.
    pub(super) fn basic_again(&self) -> Option<Result<Secret<String>, String>> {
        let read = self.again.as_ref()?;
        Some(read().map(|password| self.basic_with(&password)))
    }

    fn basic_with(&self, password: &Secret<String>) -> Secret<String> {
        let pair = format!("{}:{}", self.username, password.expose());
        Secret::new(format!("Basic {}", general_purpose::STANDARD.encode(pair)))
    }
}

impl Entry {
    fn login(&self, key: &str) -> Result<Option<Credentials>, CredentialsError> {
        let wrong = |problem| CredentialsError::Entry { key: key.to_owned(), problem };
        let identity_token = self.identity_token.clone().filter(|token| !token.is_empty()).map(Secret::new);
        let (username, password) = match self.auth.as_deref().filter(|auth| !auth.is_empty()) {
            Some(auth) => decode(auth).ok_or_else(|| wrong("auth is not base64 of user:password"))?,
            None => (self.username.clone().unwrap_or_default(), self.password.clone().unwrap_or_default()),
        };
        if username.is_empty() && identity_token.is_none() {
            return if password.is_empty() { Ok(None) } else { Err(wrong("it has no username")) };
        }
        if username.chars().any(char::is_control) || !is_password(&username, &password) {
            return Err(wrong("username or password has control characters"));
        }
        Ok(Some(Credentials { identity_token, ..Credentials::new(username, Secret::new(password)) }))
    }
}

/// How well a key fits a repository: the length of its path; `None` if it is for something else.
fn specificity(key: &str, repository: &Repository) -> Option<usize> {
    let address = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    if canonical_host(host) != repository.host {
        return None;
    }
    let path = path.trim_matches('/');
    if matches!(path, "" | "v1" | "v2") {
        return Some(0);
    }
    let rest = repository.path.strip_prefix(path)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(path.len())
}

fn decode(auth: &str) -> Option<(String, String)> {
    let bytes = general_purpose::STANDARD
        .decode(auth.trim())
        .or_else(|_| general_purpose::STANDARD_NO_PAD.decode(auth.trim()))
        .ok()?;
    let pair = String::from_utf8(bytes).ok()?;
    let (username, password) = pair.split_once(':')?;
    Some((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// Whether a password can be one. Only key files have lines, and theirs stay as they are.
fn is_password(username: &str, password: &str) -> bool {
    let allowed = |c: char| username == KEY_FILE_USER && matches!(c, '\n' | '\r' | '\t');
    password.chars().all(|c| !c.is_control() || allowed(c))
}

fn text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches(['\r', '\n']);
    (!text.chars().any(char::is_control)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn found(json: &str, repository: &str) -> Option<(String, String)> {
        let repository = Repository::parse(repository, None).unwrap();
        let credentials = match Credentials::from_docker_config_json(json.as_bytes(), &repository) {
            Ok(credentials) => credentials?,
            Err(error) => panic!("{error}"),
        };
        Some((credentials.username().to_owned(), credentials.password().expose().clone()))
    }

    fn pair(user: &str, password: &str) -> Option<(String, String)> {
        Some((user.into(), password.into()))
    }

    #[rstest]
    #[case("registry.example.com")]
    #[case("https://registry.example.com")]
    #[case("https://registry.example.com/v1/")]
    #[case("https://registry.example.com/v2/")]
    #[case("http://Registry.example.com/")]
    #[case("registry.example.com/team")]
    #[case("registry.example.com/team/app")]
    fn keys_that_fit(#[case] key: &str) {
        let json = format!(r#"{{"auths":{{"{key}":{{"auth":"Y2k6czNjOnJldA=="}}}}}}"#);
        assert_eq!(found(&json, "registry.example.com/team/app"), pair("ci", "s3c:ret"));
    }

    #[rstest]
    #[case("example.com")]
    #[case("registry.example.com:5000")]
    #[case("registry.example.com.evil.io")]
    #[case("*.example.com")]
    #[case("registry.example.com/tea")]
    #[case("https://index.docker.io/v1/")]
    fn keys_that_do_not(#[case] key: &str) {
        let json = format!(r#"{{"auths":{{"{key}":{{"auth":"Y2k6czNjOnJldA=="}}}}}}"#);
        assert_eq!(found(&json, "registry.example.com/team/app"), None);
    }

    #[test]
    fn docker_hub_has_its_own_key() {
        let json = r#"{"auths":{"https://index.docker.io/v1/":{"username":"u","password":"p"}}}"#;
        assert_eq!(found(json, "turing/bar"), pair("u", "p"));
    }

    /// As `kubectl create secret docker-registry --docker-password="$(cat key.json)"` writes it.
    #[test]
    fn a_key_file_keeps_its_lines() {
        let key = "{\n  \"type\": \"service_account\",\n\t\"private_key\": \"a\\nb\"\n}";
        let auth = general_purpose::STANDARD.encode(format!("_json_key:{key}"));
        let json = serde_json::json!({"auths": {"gcr.io": {"username": "_json_key", "password": key, "auth": auth}}});
        assert_eq!(found(&json.to_string(), "gcr.io/project/app"), pair("_json_key", key));
    }

    #[test]
    fn the_longest_path_wins() {
        let json =
            r#"{"auths":{"a.io":{"username":"all","password":"1"},"a.io/team":{"username":"team","password":"2"}}}"#;
        assert_eq!(found(json, "a.io/team/app"), pair("team", "2"));
        assert_eq!(found(json, "a.io/other"), pair("all", "1"));
    }

    #[test]
    fn errors_do_not_show_the_content() {
        let repository = Repository::parse("a.io/b", None).unwrap();
        for json in [
            r#"{"auths":{"a.io":{"auth":"hunter2!!"}}}"#,
            r#"{"auths":{"a.io":{"password":"hunter2"}}}"#,
            r#"{"auths":{"a.io":"hunter2"}}"#,
            r#"hunter2"#,
            r#"{"auths":{"a.io":{"username":"u","password":"hunter2\n"}}}"#,
        ] {
            match Credentials::from_docker_config_json(json.as_bytes(), &repository) {
                Ok(_) => panic!("accepted {json}"),
                Err(error) => assert!(!error.to_string().contains("hunter2"), "{error}"),
            }
        }
    }

    #[test]
    fn basic_auth() {
        let Ok(login) = Credentials::from_basic_auth(b"ci\n", b"p\xc3\xa4ss\r\n") else { panic!("refused") };
        assert_eq!((login.username(), login.password().expose().as_str()), ("ci", "päss"));
        assert_eq!(login.basic().expose(), "Basic Y2k6cMOkc3M=");
        let key = "{\n  \"private_key\": \"-----BEGIN PRIVATE KEY-----\\nMIIE\\n\"\n}";
        let Ok(login) = Credentials::from_basic_auth(b"_json_key", key.as_bytes()) else { panic!("refused") };
        assert_eq!(login.password().expose(), key);
        assert!(Credentials::from_basic_auth(b"", b"x").is_err());
        assert!(Credentials::from_basic_auth(b"a:b", b"x").is_err());
        assert!(Credentials::from_basic_auth(b"a", b"x\ny").is_err());
        assert!(Credentials::from_basic_auth(b"a", b"\xff").is_err());
    }
}
