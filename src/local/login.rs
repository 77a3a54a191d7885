//! The user's docker login, for pulls and pushes of local runs.
//!
//! `setup` asks for the login of a pull; [`WithLogins`] gives one to pushes whose step names none.
//!
//! **Invariant:** a login goes to the host that it was made for, as everywhere, and never to the engine for a push. What a
//! step of the pipeline says wins. No value is in an error.

use super::Objects;
use crate::{
    agent::{
        line::Line,
        push::{Push, Transport},
    },
    api::{PipelineSpec, condition::reason, push::SecretsInImage},
    engine::docker::containers::PullLogin,
    registry::{Credentials, NamedSecret, PushError, Pushed, Repository},
};
use futures::future::BoxFuture;
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
use tokio::{io::AsyncWriteExt as _, process::Command};

/// Largest configuration, and largest answer of a helper.
const MAX_BYTES: u64 = 1024 * 1024;
/// Longest time of a helper: it may ask the user to unlock something.
const HELPER_MAX: Duration = Duration::from_secs(60);
/// What Docker calls its own registry in logins.
const HUB_KEY: &str = "https://index.docker.io/v1/";
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

    /// The login for a pull, as the engine takes it. A login that cannot be had is left out: most images are public.
    pub(super) async fn of_pull(&self, image: &str) -> Option<PullLogin> {
        let name = image.split('@').next().unwrap_or_default();
        let name = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name, |(name, _)| name);
        let repository = Repository::parse(name, None).ok()?;
        let login = self.login(&repository).await.ok().flatten()?;
        let token = login.identity_token().map(|token| token.expose().clone());
        let server = if repository.host == "docker.io" { HUB_KEY.to_owned() } else { repository.host };
        Some(PullLogin {
            username: token.is_none().then(|| login.username().to_owned()),
            password: token.is_none().then(|| login.password().expose().clone()),
            identity_token: token,
            server,
        })
    }
}

/// The program of a helper.
fn program(helper: &str) -> Result<String, String> {
    if helper.contains('/') {
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
    let output = tokio::time::timeout(HELPER_MAX, child.wait_with_output()).await;
    let output = output.map_err(|_| format!("{program}: no answer in {}s", HELPER_MAX.as_secs()))?.map_err(failed)?;
    if !output.status.success() {
        return Ok(None);
    }
    // The parser's own message may quote a password.
    serde_json::from_slice(&output.stdout).map(Some).map_err(|_| format!("{program}: its answer is not as expected"))
}

/// Lets the docker login stand in for Secrets of `credentials` that were not given.
pub(super) fn stand_in(spec: &mut PipelineSpec, objects: &Objects) {
    let steps = spec.steps.iter_mut().chain(&mut spec.after_steps);
    let pushes = steps.flat_map(|step| {
        step.docker_push.iter_mut().chain(step.docker_scratch_push.as_mut().map(|scratch| &mut scratch.push))
    });
    for push in pushes {
        push.credentials.take_if(|credentials| !objects.secrets.contains_key(&credentials.secret_name));
    }
}

/// A transport that logs in as the user where a step says nothing of its own.
pub(super) struct WithLogins<T> {
    pub(super) inner: T,
    pub(super) logins: DockerLogins,
}

impl<T: Transport> WithLogins<T> {
    /// The push with the user's login; `None` if it has one, or there is none.
    async fn logged_in(&self, push: &Push) -> Result<Option<Push>, PushError> {
        if push.credentials.is_some() {
            return Ok(None);
        }
        let login = self.logins.login(&push.repository).await;
        let Some(login) = login.map_err(|text| PushError::new(reason::CREDENTIALS_NOT_FOUND, text))? else {
            return Ok(None);
        };
        let mut secrets = push.secrets.clone();
        if push.plan.secrets_in_image != SecretsInImage::Allow {
            let name = format!("the password of {}", login.username());
            secrets.push(NamedSecret { name, value: login.password().clone() });
        }
        Ok(Some(Push {
            run: Arc::clone(&push.run),
            step: push.step.clone(),
            plan: push.plan.clone(),
            content: push.content.clone(),
            repository: push.repository.clone(),
            credentials: Some(login),
            secrets,
            warnings: push.warnings.clone(),
            created: push.created.clone(),
            artifact: push.artifact,
        }))
    }
}

impl<T: Transport> Transport for WithLogins<T> {
    fn push<'a>(&'a self, push: &'a Push, line: &'a Line) -> BoxFuture<'a, Result<Pushed, PushError>> {
        Box::pin(async move {
            let own = self.logged_in(push).await?;
            self.inner.push(own.as_ref().unwrap_or(push), line).await
        })
    }

    fn digest_of<'a>(
        &'a self,
        push: &'a Push,
        tag: &'a str,
        line: &'a Line,
    ) -> BoxFuture<'a, Result<Option<String>, PushError>> {
        Box::pin(async move {
            let own = self.logged_in(push).await?;
            self.inner.digest_of(own.as_ref().unwrap_or(push), tag, line).await
        })
    }

    fn tag_again<'a>(
        &'a self,
        push: &'a Push,
        digest: &'a str,
        tag: &'a str,
        line: &'a Line,
    ) -> BoxFuture<'a, Result<(), PushError>> {
        Box::pin(async move {
            let own = self.logged_in(push).await?;
            self.inner.tag_again(own.as_ref().unwrap_or(push), digest, tag, line).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::logins;
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

    #[test]
    fn the_docker_login_stands_in_for_what_was_not_given() {
        let spec = json!({"box": {"image": "debian"}, "steps": [
            {"name": "a", "dockerPush": {"repository": "a.io/x", "credentials": {"secretName": "given"}}},
            {"name": "b", "dockerScratchPush": {"repository": "a.io/x", "credentials": {"secretName": "missing"}}},
        ]});
        let mut spec: PipelineSpec = serde_json::from_value(spec).unwrap();
        let objects = Objects { secrets: BTreeMap::from([("given".into(), BTreeMap::new())]), ..Objects::default() };
        stand_in(&mut spec, &objects);
        let left: Vec<bool> =
            spec.steps.iter().map(|step| logins::push_of(step).unwrap().credentials.is_some()).collect();
        assert_eq!(left, [true, false]);
    }
}
