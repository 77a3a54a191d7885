//! The caller's own Docker logins, and the certificates that his Docker trusts.
//!
//! **Invariant:** a helper is asked for one host; what it answers is in no error. Nothing is written.

use crate::registry::{Credentials, Repository, Secret};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Largest file of logins, and largest answer of a helper.
const MAX_BYTES: u64 = 1024 * 1024;
/// Name of Docker Hub in Docker's own files.
const HUB: &str = "https://index.docker.io/v1/";
/// Where Docker looks for certificates.
const CERTIFICATES: &str = "/etc/docker/certs.d";

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

/// What a helper answers (`docker-credential-helpers`, protocol `get`).
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// The login for a repository; `None` if there is none.
pub(super) fn find(repository: &Repository) -> Result<Option<Credentials>, String> {
    let Some(file) = config_file() else { return Ok(None) };
    find_in(&file, repository, ask)
}

fn config_file() -> Option<PathBuf> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")));
    folder.map(|folder| folder.join("config.json"))
}

fn find_in(
    file: &Path,
    repository: &Repository,
    ask: impl Fn(&str, &str) -> Result<Option<Answer>, String>,
) -> Result<Option<Credentials>, String> {
    let mut bytes = Vec::new();
    match fs::File::open(file) {
        Ok(open) => {
            open.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| format!("read {}: {error}", file.display()))?
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("read {}: {error}", file.display())),
    };
    let wrong = |what: String| format!("{}: {what}", file.display());
    // The parser's own message may quote a login.
    let config: Config = serde_json::from_slice(&bytes)
        .map_err(|error| wrong(format!("line {}, column {} is not as expected", error.line(), error.column())))?;
    let host = if repository.host == "docker.io" { HUB } else { repository.host.as_str() };
    if let Some(helper) = config.helpers.get(host).or(config.store.as_ref())
        && let Some(answer) = ask(helper, host)?
    {
        return Ok(Some(Credentials::new(answer.username, Secret::new(answer.secret))));
    }
    Credentials::from_docker_config_json(&bytes, repository).map_err(|error| wrong(error.to_string()))
}

/// Asks `docker-credential-NAME`; it has no login: `None`.
fn ask(helper: &str, host: &str) -> Result<Option<Answer>, String> {
    let program = format!("docker-credential-{helper}");
    if helper.contains(['/', '\\']) {
        return Err(format!("{helper:?} is not the name of a credential helper"));
    }
    let failed = |error: std::io::Error| format!("run {program}: {error}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(host.as_bytes()).map_err(failed)?;
    }
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_BYTES).read_to_end(&mut said).map_err(failed)?;
    }
    // It also says so of a host that it knows nothing of.
    if !child.wait().map_err(failed)?.success() {
        return Ok(None);
    }
    serde_json::from_slice(&said).map(Some).map_err(|_| format!("{program} answered what cannot be understood"))
}

/// Certificates that Docker trusts for a host.
pub(super) fn certificates(host: &str) -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir(Path::new(CERTIFICATES).join(host)) else { return Vec::new() };
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let certificates = files.filter(|file| file.extension().is_some_and(|end| end == "crt"));
    certificates.filter_map(|file| Some((host.to_owned(), fs::read_to_string(file).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const AUTHS: &str = r#"{"auths":{"r.io":{"username":"plain","password":"p"}}}"#;

    #[rstest]
    #[case::from_the_file(AUTHS, "r.io/a", Some("plain"))]
    #[case::for_another_host(AUTHS, "other.io/a", None)]
    #[case::by_a_helper(r#"{"credHelpers":{"r.io":"x"}}"#, "r.io/a", Some("x of r.io"))]
    #[case::by_the_store(r#"{"credsStore":"x"}"#, "r.io/a", Some("x of r.io"))]
    #[case::hub_has_its_own_name(r#"{"credsStore":"x"}"#, "demo/app", Some("x of https://index.docker.io/v1/"))]
    #[case::a_helper_that_knows_nothing(
        r#"{"credsStore":"none","auths":{"r.io":{"username":"plain","password":"p"}}}"#,
        "r.io/a",
        Some("plain")
    )]
    fn logins(#[case] config: &str, #[case] repository: &str, #[case] expected: Option<&str>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        fs::write(&file, config).unwrap();
        let ask = |helper: &str, host: &str| {
            let answer = Answer { username: format!("{helper} of {host}"), secret: "s".into() };
            Ok((helper != "none").then_some(answer))
        };
        let found = find_in(&file, &Repository::parse(repository, None).unwrap(), ask).unwrap();
        assert_eq!(found.map(|login| login.username().to_owned()).as_deref(), expected);
    }

    #[test]
    fn no_file_is_no_login_and_a_bad_one_is_told_without_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        let repository = Repository::parse("r.io/a", None).unwrap();
        assert!(find_in(&file, &repository, ask).unwrap().is_none());
        fs::write(&file, r#"{"auths": "hunter2"#).unwrap();
        let error = find_in(&file, &repository, ask).err().unwrap();
        assert!(error.contains("line 1") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn helpers_that_are_not_there() {
        assert!(ask("does-not-exist", "r.io").err().unwrap().contains("docker-credential-does-not-exist"));
        assert!(ask("../x", "r.io").is_err());
    }
}
