//! The only door to a container engine: find the box, commit it, push the result, clean up.
//!
//! The agent holds an `Arc<dyn Engine>`; so does a local run. [`docker`] is the implementation for
//! Docker Engine, which does more for local runs and for people.
//!
//! **Invariant:** an engine never sees a credential or a name that a user chose. What it commits bears the name of the push
//! door that it goes to, whose nonce is used once, and what it builds one under [`COMMIT_REPOSITORY`], a host that cannot
//! exist: so no image of the node is ever re-pointed.

pub mod docker;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::fmt;

/// Host and path under which images that are built are named on the node. `.invalid` never resolves (RFC 2606), so an
/// image of this name was made here and not pulled.
pub const COMMIT_REPOSITORY: &str = "windlass.invalid/commit";
/// Label of a committed image: `<run uid>/<step>`. It never reaches a registry.
pub const COMMIT_LABEL: &str = "windlass.dev/commit";
/// Label of a committed image: ID of the container it was made from.
pub const CONTAINER_LABEL: &str = "windlass.dev/container";
/// Label of the containers and networks of a local run: the process that owns them.
pub const OWNER_LABEL: &str = "windlass.dev/local-owner";

/// What went wrong at the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine cannot be reached.
    #[error("reach the engine at {address}: {problem}")]
    Unreachable {
        /// Address of the engine.
        address: String,
        /// Why.
        problem: String,
    },
    /// A container or image is not there.
    #[error("{call}: {message}")]
    NotFound {
        /// What was tried.
        call: &'static str,
        /// The engine's words.
        message: String,
    },
    /// The engine refused a call.
    #[error("{call}: {message}")]
    Refused {
        /// What was tried.
        call: &'static str,
        /// HTTP status, or 0 for an error inside a stream.
        status: u16,
        /// The engine's words.
        message: String,
    },
    /// The engine did not answer in time.
    #[error("{call}: the engine did not answer in time")]
    TimedOut {
        /// What was tried.
        call: &'static str,
    },
    /// The engine answered what cannot be understood.
    #[error("{call}: {message}")]
    Unexpected {
        /// What was tried.
        call: &'static str,
        /// What was wrong.
        message: String,
    },
    /// A name that cannot be used.
    #[error("use {0:?} as the name of a commit: expected lower-case letters, digits and '-'")]
    BadKey(String),
}

impl EngineError {
    /// Whether another try may go better: the engine was away, busy, or failed inside.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Refused { status, .. } => matches!(status, 429 | 500..=599),
            Self::NotFound { .. } | Self::Unexpected { .. } | Self::BadKey(_) => false,
        }
    }
}

/// Who the engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// `docker`.
    pub name: &'static str,
    /// Version of the engine.
    pub version: String,
    /// Version of its API.
    pub api_version: String,
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoxState {
    /// Its processes run.
    Running,
    /// Its processes are frozen: a commit is under way, or one was cut off.
    Paused,
}

/// The box of a run pod, as the engine knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoxContainer {
    /// ID of the container.
    pub id: String,
    /// ID of the image it was made from.
    pub image_id: String,
    /// When it was started, in RFC 3339.
    pub started_at: String,
    /// What it does.
    pub state: BoxState,
}

/// The config of the box image, as its builder wrote it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BaseImage {
    /// The config section: `Env`, `Cmd`, `Labels`, ...
    pub config: Value,
    /// The author, or empty.
    pub author: String,
    /// Digests of its uncompressed layers.
    pub diff_ids: Vec<String>,
}

impl BaseImage {
    /// As a config document, the form that `steps::image_config::rebuild` takes.
    #[must_use]
    pub fn document(&self) -> Value {
        json!({"author": self.author, "config": self.config, "rootfs": {"type": "layers", "diff_ids": self.diff_ids}})
    }
}

/// Which commit this is. The image bears it as a label, so that a restarted agent knows whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommitKey {
    /// UID of the run.
    pub run_uid: String,
    /// Name of the step.
    pub step: String,
}

impl CommitKey {
    /// The image's name on the node.
    ///
    /// # Errors
    /// [`EngineError::BadKey`] for anything but lower-case letters, digits and `-`: the parts are used in an
    /// image name, where a `/` or `:` would lead elsewhere.
    pub fn image_name(&self) -> Result<String, EngineError> {
        for part in [&self.run_uid, &self.step] {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            let valid = (1..=63).contains(&part.len())
                && part.chars().all(|c| plain(c) || c == '-')
                && part.starts_with(plain)
                && part.ends_with(plain);
            if !valid {
                return Err(EngineError::BadKey(part.clone()));
            }
        }
        Ok(format!("{COMMIT_REPOSITORY}/{}:{}", self.run_uid, self.step))
    }

    /// Reads [`COMMIT_LABEL`] of an image back. An image whose name nobody but us gives is of this commit; any other is a
    /// forgery, as everybody can build an image with our label and have a pod pull it.
    #[must_use]
    pub fn of_image(label: &str, names: &[String]) -> Option<Self> {
        let (run_uid, step) = label.split_once('/')?;
        let key = Self { run_uid: run_uid.to_owned(), step: step.to_owned() };
        let own = key.image_name().ok()?;
        names.iter().any(|name| *name == own || is_door(name)).then_some(key)
    }
}

/// Whether a name is that of a push door, `127.0.0.1:PORT/NONCE/x:x`.
///
/// Who runs a registry on the node's loopback can give a pulled image such a name. With our label it is swept like a commit
/// of ours, which does nobody harm: it is not used for anything.
#[must_use]
pub fn is_door(name: &str) -> bool {
    let path = name.strip_prefix("127.0.0.1:").and_then(|rest| rest.split_once('/'));
    let nonce = path.filter(|(port, _)| port.parse::<u16>().is_ok()).and_then(|(_, path)| path.strip_suffix("/x:x"));
    nonce.is_some_and(|nonce| nonce.len() == 32 && nonce.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

impl fmt::Display for CommitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.run_uid, self.step)
    }
}

/// An image that a commit made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedImage {
    /// ID of the image.
    pub id: String,
}

/// A committed image that is still on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Which commit it was.
    pub key: CommitKey,
    /// The image.
    pub image: CommittedImage,
    /// When it was made, in seconds since the epoch.
    pub created_s: i64,
    /// ID of the container it was made from: another attempt of the same run has another box, so a commit may
    /// be used again only for the same container.
    pub container_id: String,
}

/// How far the engine is with the layers of a push. The engine names no layer, so these are for a sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushProgress {
    /// The engine's words, such as `Pushing`.
    pub status: String,
    /// Bytes done, of the layer the words are about.
    pub current_bytes: u64,
    /// Bytes in all, or 0.
    pub total_bytes: u64,
}

/// Takes the progress of a push.
pub type ProgressSink<'a> = &'a (dyn Fn(PushProgress) + Send + Sync);

/// A future that an engine gives.
pub type EngineFuture<'a, T> = BoxFuture<'a, Result<T, EngineError>>;

/// A container engine.
pub trait Engine: Send + Sync {
    /// Asks who it is; also the check that it is there.
    fn ping(&self) -> EngineFuture<'_, EngineInfo>;

    /// Finds the box of a run pod: the newest live container named `box` of the pod with this UID, whose
    /// namespace and pod name must be these as well. `None`: there is none, or it has ended.
    fn find_box<'a>(
        &'a self,
        pod_uid: &'a str,
        namespace: &'a str,
        pod_name: &'a str,
    ) -> EngineFuture<'a, Option<BoxContainer>>;

    /// Reads the config of the image that a box was made from.
    fn base_image<'a>(&'a self, container: &'a BoxContainer) -> EngineFuture<'a, BaseImage>;

    /// Commits a box under the name of the door that it will be pushed to, its processes frozen meanwhile. An earlier commit
    /// of the same key, whose push was cut off, stays for the sweep.
    fn commit<'a>(
        &'a self,
        container: &'a BoxContainer,
        key: &'a CommitKey,
        target: &'a str,
    ) -> EngineFuture<'a, CommittedImage>;

    /// Gives an image one more name, that of a door.
    fn name<'a>(&'a self, image: &'a CommittedImage, target: &'a str) -> EngineFuture<'a, ()>;

    /// Pushes the image of this name to a loopback registry, `127.0.0.1:PORT/PATH:TAG`, without credentials.
    fn push<'a>(&'a self, target: &'a str, progress: ProgressSink<'a>) -> EngineFuture<'a, ()>;

    /// Removes a committed image and every name it has. One that is gone already is no error; one that has a
    /// name which is not ours keeps that name.
    fn remove<'a>(&'a self, image: &'a CommittedImage) -> EngineFuture<'a, ()>;

    /// Lists the committed images that are on the node.
    fn leftovers(&self) -> EngineFuture<'_, Vec<Leftover>>;

    /// Thaws boxes of these pods (by UID) that a commit left frozen when the engine or the agent died; gives
    /// their container IDs. For the start of the agent only: it would end the freeze of a commit under way.
    fn unpause_stuck<'a>(&'a self, pod_uids: &'a [String]) -> EngineFuture<'a, Vec<String>>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn key(run_uid: &str, step: &str) -> CommitKey {
        CommitKey { run_uid: run_uid.to_owned(), step: step.to_owned() }
    }

    fn of(label: &str, name: &str) -> Option<CommitKey> {
        CommitKey::of_image(label, &["busybox:local".to_owned(), name.to_owned()])
    }

    #[test]
    fn what_is_built_is_named_under_a_host_that_cannot_exist() {
        let key = key("0f3c1c5e-7d6b-4d6c-9a53-6f2a6f5d2b11", "push-2");
        let name = key.image_name().unwrap();
        assert_eq!(name, "windlass.invalid/commit/0f3c1c5e-7d6b-4d6c-9a53-6f2a6f5d2b11:push-2");
        assert_eq!(of(&key.to_string(), &name), Some(key));
    }

    #[rstest]
    #[case("", "push")]
    #[case("uid", "")]
    #[case("a/b", "push")]
    #[case("uid", "a:b")]
    #[case("UID", "push")]
    #[case("-uid", "push")]
    #[case("uid", "push-")]
    #[case("uid", "../x")]
    #[case("uid", "a@sha256")]
    fn keys_that_would_lead_elsewhere_are_refused(#[case] run_uid: &str, #[case] step: &str) {
        assert!(matches!(key(run_uid, step).image_name(), Err(EngineError::BadKey(_))));
    }

    #[rstest]
    #[case::door("uid/push", "127.0.0.1:5999/0123456789abcdef0123456789abcdef/x:x", true)]
    #[case::built("uid/push", "windlass.invalid/commit/uid:push", true)]
    #[case::of_another("uid/push", "windlass.invalid/commit/uid:pull", false)]
    #[case::without_label("", "windlass.invalid/commit/uid:push", false)]
    #[case::no_key("uid/../x", "127.0.0.1:5999/0123456789abcdef0123456789abcdef/x:x", false)]
    #[case::short_nonce("uid/push", "127.0.0.1:5999/0123456789abcdef/x:x", false)]
    #[case::a_registrys_own("uid/push", "127.0.0.1:5000/team/app:x", false)]
    #[case::elsewhere("uid/push", "registry.io:5999/0123456789abcdef0123456789abcdef/x:x", false)]
    #[case::no_port("uid/push", "127.0.0.1:x/0123456789abcdef0123456789abcdef/x:x", false)]
    #[case::prefixed("uid/push", "evil.io/windlass.invalid/commit/uid:push", false)]
    fn an_image_is_ours_by_its_label_and_its_name(#[case] label: &str, #[case] name: &str, #[case] ours: bool) {
        assert_eq!(of(label, name).is_some(), ours);
    }

    proptest! {
        #[test]
        fn labels_lead_back_to_their_key(run_uid in ".{0,8}|[a-z0-9-]{1,40}", step in ".{0,8}|[a-z0-9-]{1,63}") {
            let key = key(&run_uid, &step);
            if let Ok(name) = key.image_name() {
                prop_assert_eq!(of(&key.to_string(), &name), Some(key));
            }
        }
    }
}
