//! The user's own docker logins: `config.json`, and the credential helpers that it names.
//!
//! Runs on a local engine and `windlass pull` ask it; the agent never does.
//!
//! **Invariant:** a login goes to the host that it was made for, a helper is asked for one host, and no value is in an error.
//! Nothing is written.

use super::{Credentials, Repository};
use serde::Deserialize;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

/// Largest configuration, and largest answer of a helper.
const MAX_BYTES: u64 = 1024 * 1024;
/// Longest time of a helper: it may ask the user to unlock something.
const HELPER_MAX: Duration = Duration::from_secs(60);
/// What Docker calls its own registry in logins.
pub const HUB_KEY: &str = "https://index.docker.io/v1/";
/// The user name of a login that is a token.
const TOKEN_USER: &str = "<token>";

/// What `docker login` left: logins, or who keeps them.
#[derive(Clone, Default)]
pub struct DockerLogins {
    text: Arc<[u8]>,
    store: Option<String>,
    helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
struct Config {
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl DockerLogins {
    /// Reads `config.json` of `$DOCKER_CONFIG`, else of `~/.docker`. Without one there are no logins.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read() -> Result<Self, String> {
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
        let directory =
            std::env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty()).map(PathBuf::from).or_else(home);
        directory.map_or_else(|| Ok(Self::default()), |directory| Self::read_from(&directory.join("config.json")))
    }

    fn read_from(path: &Path) -> Result<Self, String> {
        let mut text = Vec::new();
        match fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            read => read.map_err(|error| format!("{}: {error}", path.display()))?,
        };
        // The parser's own message may quote a password.
        let config: Config = serde_json::from_slice(&text).map_err(|error| {
            format!("{}:{}:{}: not a docker config.json", path.display(), error.line(), error.column())
        })?;
        Ok(Self { text: text.into(), store: config.store.filter(|store| !store.is_empty()), helpers: config.helpers })
    }

    /// The login for a repository, if there is one.
    ///
    /// # Errors
    /// When the configuration cannot be understood, or a helper does not answer.
    pub async fn login(&self, repository: &Repository) -> Result<Option<Credentials>, String> {
        self.login_by(repository, program).await
    }

    async fn login_by(
        &self,
        repository: &Repository,
        program: impl Fn(&str) -> Result<String, String>,
    ) -> Result<Option<Credentials>, String> {
        let host = repository.host.as_str();
        let key = if host == "docker.io" { HUB_KEY } else { host };
        let helper = self.helpers.get(key).or_else(|| self.helpers.get(host)).or(self.store.as_ref());
        if let Some(helper) = helper
            && let Some(found) = ask(&program(helper)?, key).await?
        {
            let entry = match found.username.as_str() {
                TOKEN_USER => json!({"identitytoken": found.secret}),
                user => json!({"username": user, "password": found.secret}),
            };
            let config = json!({"auths": {host: entry}}).to_string();
            return Credentials::from_docker_config_json(config.as_bytes(), repository).map_err(|e| e.to_string());
        }
        if self.text.is_empty() {
            return Ok(None);
        }
        Credentials::from_docker_config_json(&self.text, repository).map_err(|e| format!("docker config.json: {e}"))
    }
}

/// The program of a helper.
fn program(helper: &str) -> Result<String, String> {
    if helper.contains(['/', '\\']) {
        return Err(format!(
            "docker config.json names the credential helper {helper:?}, which is no name of a program"
        ));
    }
    Ok(format!("docker-credential-{helper}"))
}

/// Asks a credential helper, as Docker does: the server on its stdin, JSON on its stdout. `None`: it has no login.
async fn ask(program: &str, server: &str) -> Result<Option<Answer>, String> {
    let mut command = Command::new(program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let failed = |error: std::io::Error| format!("{program}: {error}");
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends without reading has said what it has to say by its exit code.
        let _ = stdin.write_all(server.as_bytes()).await;
    }
    let mut said = Vec::new();
    let stdout = child.stdout.take();
    let answered = async {
        if let Some(stdout) = stdout {
            stdout.take(MAX_BYTES).read_to_end(&mut said).await?;
        }
        child.wait().await
    };
    let status = tokio::time::timeout(HELPER_MAX, answered).await;
    let status = status.map_err(|_| format!("{program}: no answer in {}s", HELPER_MAX.as_secs()))?.map_err(failed)?;
    if !status.success() {
        return Ok(None);
    }
    // The parser's own message may quote a password.
    serde_json::from_slice(&said).map(Some).map_err(|_| format!("{program}: its answer is not as expected"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::os::unix::fs::PermissionsExt as _;

    fn config(text: &str) -> Result<DockerLogins, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, text).unwrap();
        DockerLogins::read_from(&path)
    }

    fn repository(name: &str) -> Repository {
        Repository::parse(name, None).unwrap()
    }

    #[tokio::test]
    async fn a_login_is_for_its_host() {
        // "demo:pass"
        let logins = config(r#"{"auths": {"registry.example.com": {"auth": "ZGVtbzpwYXNz"}}}"#).unwrap();
        let found = logins.login(&repository("registry.example.com/team/app")).await.unwrap().unwrap();
        assert_eq!((found.username(), found.password().expose().as_str()), ("demo", "pass"));
        assert!(logins.login(&repository("other.example.com/team/app")).await.unwrap().is_none());
        let none = DockerLogins::read_from(&tempfile::tempdir().unwrap().path().join("config.json")).unwrap();
        assert!(none.login(&repository("r.io/a")).await.unwrap().is_none());
        assert!(DockerLogins::default().login(&repository("a.io/b")).await.unwrap().is_none());
    }

    #[test]
    fn a_broken_configuration_is_told_by_its_place() {
        let error = config("{\"auths\": hunter2").err().unwrap();
        assert!(error.contains("config.json:1:") && !error.contains("hunter2"), "{error}");
    }

    #[tokio::test]
    async fn a_helper_is_asked_for_its_host() {
        let dir = tempfile::tempdir().unwrap();
        let script = "#!/bin/sh\nread server\n[ \"$server\" = a.io ] || exit 1\necho '{\"Username\":\"ann\",\"Secret\":\"pw\"}'\n";
        let program = dir.path().join("docker-credential-windlass-test");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let program = program.to_str().unwrap();
        let found = ask(program, "a.io").await.unwrap().unwrap();
        assert_eq!((found.username.as_str(), found.secret.as_str()), ("ann", "pw"));
        assert!(ask(program, "b.io").await.unwrap().is_none());
        assert!(ask("docker-credential-none-of-this-name", "a.io").await.is_err());
        assert!(super::program("../evil").is_err());
    }

    #[rstest]
    #[case::for_its_host("r.io/a", Some("x of r.io"))]
    #[case::a_host_with_a_helper_of_its_own("own.io/a", Some("y of own.io"))]
    #[case::hub_has_its_own_name("demo/app", Some("x of https://index.docker.io/v1/"))]
    #[case::one_that_the_helper_does_not_know("plain.io/a", Some("plain"))]
    #[case::one_that_nobody_knows("other.io/a", None)]
    #[tokio::test]
    async fn the_store_is_asked_before_the_file(#[case] name: &str, #[case] expected: Option<&str>) {
        let dir = tempfile::tempdir().unwrap();
        let script = "#!/bin/sh\nread server\ncase $server in r.io|own.io|*/v1/) ;; *) exit 1;; esac\n\
            echo \"{\\\"Username\\\":\\\"${0##*/} of $server\\\",\\\"Secret\\\":\\\"pw\\\"}\"\n";
        for name in ["x", "y"] {
            fs::write(dir.path().join(name), script).unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let logins = config(
            r#"{"credsStore":"x","credHelpers":{"own.io":"y"},"auths":{"plain.io":{"username":"plain","password":"p"}}}"#,
        );
        let here = |helper: &str| Ok(dir.path().join(helper).to_string_lossy().into_owned());
        let found = logins.unwrap().login_by(&repository(name), here).await.unwrap();
        assert_eq!(found.map(|login| login.username().to_owned()).as_deref(), expected);
    }

    #[tokio::test]
    async fn an_endless_answer_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("helper");
        fs::write(&program, "#!/bin/sh\nexec cat /dev/zero\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(ask(program.to_str().unwrap(), "a.io").await.is_ok_and(|answer| answer.is_none()));
    }
}
