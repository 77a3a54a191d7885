//! Where stored containers go: the artifact server, a registry, or nowhere.
//!
//! `push` asks it when a `storeContainer` step begins. The administrator's settings say what it is.
//!
//! **Invariant:** the place of a container with the artifact server cannot be guessed. Logins are read when they are used,
//! as they change, and are in no error.

use super::run::Run;
use crate::{
    api::{
        artifact::{Location, Place, TAG, server_host, without_places},
        condition::reason,
        status::{ArtifactStatus, ImageStatus},
    },
    registry::{Credentials, PushError, Repository},
};
use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Largest token, or file of logins.
const MAX_LOGIN_BYTES: u64 = 1024 * 1024;
/// Until an authority of the server's certificate that was replaced is known to its agents too.
const CA_PAUSE: Duration = Duration::from_secs(90);
/// The user that the server sees; who it is says the token.
const USER: &str = "windlass-agent";

/// Where stored containers go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Shelf {
    /// Nowhere: steps that store fail.
    #[default]
    None,
    /// To the artifact server of this installation.
    Server {
        /// Its namespace.
        namespace: String,
        /// File with the agent's token for it.
        token: PathBuf,
    },
    /// Into an OCI registry.
    Registry {
        /// What stands before the namespace and the Pipeline, with the host.
        prefix: String,
        /// File with the login, as `~/.docker/config.json`; none: without one.
        login: Option<PathBuf>,
    },
}

/// Where one container goes. Without `Debug`, as it holds a login.
pub struct Slot {
    /// Repository.
    pub repository: Repository,
    /// Login.
    pub credentials: Option<Credentials>,
    /// The one tag.
    pub tag: String,
}

impl Shelf {
    /// Where an artifact of a run goes: to where an earlier try recorded, if one did.
    ///
    /// # Errors
    /// `StoreFailed`: there is no store, or its login cannot be read.
    pub fn slot(&self, run: &Run, artifact: &str, recorded: Option<&ImageStatus>) -> Result<Slot, PushError> {
        let named = |text: &str| Repository::parse(text, None).map_err(|error| failed(&error.to_string()));
        match self {
            Self::None => {
                Err(failed("no artifact store is set; the administrator sets artifacts.store in the chart's values"))
            }
            Self::Server { namespace, .. } => {
                let fresh = || {
                    let place = Place::of_run(&run.namespace, run.pipeline.as_deref(), &run.uid, rand::random());
                    format!("{}/{place}", server_host(namespace))
                };
                let ours = recorded
                    .filter(|image| matches!(Location::parse(&image.repository), Some(Location::Server { .. })));
                let repository = named(&ours.map_or_else(fresh, |image| image.repository.clone()))?;
                let credentials = self.login(&repository)?;
                Ok(Slot { repository, credentials, tag: TAG.to_owned() })
            }
            Self::Registry { prefix, .. } => {
                let group = run.pipeline.as_deref().unwrap_or(&run.name);
                let repository = named(&format!("{}/{}/{group}", prefix.trim_end_matches('/'), run.namespace))?;
                let credentials = self.login(&repository)?;
                Ok(Slot { repository, credentials, tag: format!("{artifact}.{}", run.uid) })
            }
        }
    }

    /// The login for a repository as it is now. That for the artifact server follows its file by itself.
    ///
    /// # Errors
    /// `StoreFailed`: it cannot be read.
    pub fn login(&self, repository: &Repository) -> Result<Option<Credentials>, PushError> {
        match self {
            Self::Server { token, .. } => token_login(token).map(Some),
            Self::Registry { login: Some(file), .. } => Credentials::from_docker_config_json(&read(file)?, repository)
                .map_err(|error| failed(&format!("the store's login: {error}"))),
            Self::Registry { login: None, .. } | Self::None => Ok(None),
        }
    }
}

/// The login by the agent's token. The kubelet writes a new one before the last ends, which a long upload can outlive.
fn token_login(file: &Path) -> Result<Credentials, PushError> {
    let now = |file: &Path| {
        let credentials = Credentials::from_basic_auth(USER.as_bytes(), &read(file)?);
        credentials.map_err(|error| failed(&format!("the agent's token: {error}")))
    };
    let credentials = now(file)?;
    let file = file.to_owned();
    let again = move || now(&file).map(|credentials| credentials.password().clone()).map_err(|error| error.message);
    Ok(credentials.changing(Arc::new(again)))
}

fn failed(what: &str) -> PushError {
    PushError::new(reason::STORE_FAILED, what)
}

fn read(file: &Path) -> Result<Vec<u8>, PushError> {
    let unreadable = |error: std::io::Error| failed(&format!("the store's login cannot be read: {error}"));
    let mut bytes = Vec::new();
    fs::File::open(file).map_err(unreadable)?.take(MAX_LOGIN_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// What the status says of a container whose digest is known.
#[must_use]
pub fn artifact(name: &str, image: &ImageStatus) -> ArtifactStatus {
    let location = match Location::parse(&image.repository) {
        Some(location) => location,
        None => Location::Registry { repository: image.repository.clone(), digest: image.digest.clone() },
    };
    ArtifactStatus {
        name: name.to_owned(),
        location: Some(location.to_string()),
        digest: Some(image.digest.clone()),
        size: image.size,
    }
}

/// The image that the status tells of.
#[must_use]
pub fn image(artifact: &ArtifactStatus) -> Option<ImageStatus> {
    let repository = match Location::parse(artifact.location.as_deref()?)? {
        Location::Registry { repository, .. } => repository,
        server @ Location::Server { .. } => server.to_string(),
    };
    Some(ImageStatus { repository, tags: Vec::new(), digest: artifact.digest.clone()?, size: artifact.size })
}

fn is_server(repository: &Repository) -> bool {
    matches!(Location::parse(&repository.to_string()), Some(Location::Server { .. }))
}

/// An error of a push to the store in the words of a step that stores. Its place is in none of them.
#[must_use]
pub fn told(mut error: PushError, repository: &Repository) -> PushError {
    for name in [&repository.to_string(), &repository.path] {
        error.message = error.message.replace(name, "the artifact store");
    }
    // That of an earlier try, at a server that is no longer the store.
    error.message = without_places(&error.message);
    if error.reason == reason::UNTRUSTED_CERTIFICATE && is_server(repository) {
        // The server and its agents learn of a new authority a little while apart.
        error.transient = true;
        error.retry_after = Some(CA_PAUSE);
    }
    let of_registry = [
        reason::REGISTRY_UNAUTHORIZED,
        reason::REGISTRY_FORBIDDEN,
        reason::REGISTRY_UNREACHABLE,
        reason::UNTRUSTED_CERTIFICATE,
        reason::REGISTRY_REFUSED,
        reason::REGISTRY_TIMEOUT,
        reason::DIGEST_MISMATCH,
        reason::INTERRUPTED,
    ];
    if of_registry.contains(&error.reason) {
        error.reason = reason::STORE_FAILED;
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::fixture::run;

    fn server(dir: &tempfile::TempDir) -> Shelf {
        let token = dir.path().join("token");
        fs::write(&token, "abc\n").unwrap();
        Shelf::Server { namespace: "windlass-system".into(), token }
    }

    #[test]
    fn a_place_with_the_server_is_new_each_time_and_kept_over_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = server(&dir);
        let first = shelf.slot(&run(), "app", None).unwrap();
        let second = shelf.slot(&run(), "app", None).unwrap();
        assert_ne!(first.repository, second.repository);
        assert_eq!(first.repository.host, "windlass-artifacts.windlass-system.svc");
        assert!(first.repository.path.starts_with("team/inline__runs/11111111-"), "{}", first.repository);
        assert_eq!((first.tag.as_str(), first.credentials.unwrap().password().expose().as_str()), ("stored", "abc"));
        let recorded =
            ImageStatus { repository: first.repository.to_string(), digest: "sha256:aa".into(), ..Default::default() };
        let status = artifact("app", &recorded);
        assert_eq!(status.location.as_ref(), Some(&recorded.repository));
        assert_eq!(image(&status).as_ref(), Some(&recorded));
        assert_eq!(shelf.slot(&run(), "app", Some(&recorded)).unwrap().repository, first.repository);
    }

    #[test]
    fn a_registry_has_a_repository_for_each_pipeline() {
        let dir = tempfile::tempdir().unwrap();
        let login = dir.path().join(".dockerconfigjson");
        fs::write(&login, r#"{"auths":{"r.io":{"username":"u","password":"p"}}}"#).unwrap();
        let shelf = Shelf::Registry { prefix: "r.io/kept/".into(), login: Some(login) };
        let slot = shelf.slot(&Run { pipeline: Some("hello".into()), ..run() }, "app", None).unwrap();
        assert_eq!(slot.repository.to_string(), "r.io/kept/team/hello");
        assert_eq!(slot.tag, "app.11111111-2222-3333-4444-555555555555");
        assert_eq!(slot.credentials.unwrap().username(), "u");
        let recorded =
            ImageStatus { repository: slot.repository.to_string(), digest: "sha256:aa".into(), ..Default::default() };
        let status = artifact("app", &recorded);
        assert_eq!(status.location.as_deref(), Some("r.io/kept/team/hello@sha256:aa"));
        assert_eq!(image(&status), Some(recorded));
    }

    #[test]
    fn without_a_store_or_a_login_it_is_said() {
        let gone = Shelf::Server { namespace: "w".into(), token: "/nowhere".into() };
        for (shelf, words) in [(Shelf::None, "artifacts.store"), (gone, "cannot be read")] {
            let error = shelf.slot(&run(), "app", None).err().unwrap();
            assert_eq!(error.reason, reason::STORE_FAILED);
            assert!(error.message.contains(words), "{error}");
        }
    }

    #[test]
    fn no_error_tells_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let repository = server(&dir).slot(&run(), "app", None).unwrap().repository;
        for text in [format!("{repository} refused it"), format!("u may not push to {}", repository.path)] {
            let error = told(PushError::new(reason::REGISTRY_FORBIDDEN, text), &repository);
            assert_eq!(error.reason, reason::STORE_FAILED);
            assert!(!error.message.contains("inline__runs"), "{error}");
            assert!(error.message.contains("the artifact store"), "{error}");
        }
        let kept = told(PushError::new(reason::SECRET_IN_LAYER, "x"), &repository);
        assert_eq!(kept.reason, reason::SECRET_IN_LAYER);
        // The store was another one when the push began.
        let now = Repository::parse("r.io/kept/team/hello", None).unwrap();
        let text = format!("the push to {repository} was interrupted, and the step names {now} now");
        let error = told(PushError::new(reason::INTERRUPTED, text), &now);
        let id = repository.path.rsplit('/').next().unwrap();
        assert!(!error.message.contains(id) && error.message.contains("was interrupted"), "{error}");
    }

    /// Server and agents learn of a new authority one after the other; a registry's is not renewed by us.
    #[test]
    fn a_server_with_another_certificate_is_asked_once_more() {
        let dir = tempfile::tempdir().unwrap();
        let ours = server(&dir).slot(&run(), "app", None).unwrap().repository;
        let registry = Repository::parse("r.io/kept/team/hello", None).unwrap();
        for (repository, again) in [(ours, true), (registry, false)] {
            let error = told(PushError::new(reason::UNTRUSTED_CERTIFICATE, "x"), &repository);
            assert_eq!((error.transient, error.retry_after.is_some()), (again, again), "{repository}");
        }
    }

    #[test]
    fn the_servers_token_is_read_at_each_login() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = server(&dir);
        let repository = shelf.slot(&run(), "app", None).unwrap().repository;
        fs::write(dir.path().join("token"), "def\n").unwrap();
        let login = shelf.login(&repository).unwrap().unwrap();
        assert_eq!(login.password().expose(), "def");
    }
}
