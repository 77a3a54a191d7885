//! Where the directories of a run pod are, as `prepare` sees them.
//!
//! Used by every file of this role. A root can be put before all of them, so that tests run the real
//! executable in a directory of their own.
//!
//! **Invariant:** paths only; nothing is touched.

use crate::wire;
use std::path::PathBuf;

/// Where Kubernetes reads a container's last words.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// The directories of a run pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    root: Option<PathBuf>,
}

impl Layout {
    /// All directories below `root`, or where a pod has them.
    pub(crate) fn new(root: Option<PathBuf>) -> Self {
        Self { root }
    }

    fn at(&self, path: &str) -> PathBuf {
        match &self.root {
            Some(root) => root.join(path.trim_start_matches('/')),
            None => PathBuf::from(path),
        }
    }

    /// A file of the `in` volume.
    pub(crate) fn in_file(&self, name: &str) -> PathBuf {
        self.at(wire::IN_DIR).join(name)
    }

    /// The `disk` volume.
    pub(crate) fn disk(&self) -> PathBuf {
        self.at(wire::DISK_DIR)
    }

    /// The fetched source.
    pub(crate) fn source(&self) -> PathBuf {
        self.disk().join(wire::SOURCE_DIR)
    }

    /// A mounted Secret of the environment.
    pub(crate) fn secret(&self, name: &str) -> PathBuf {
        self.at(wire::SECRETS_DIR).join(name)
    }

    /// A mounted ConfigMap of the environment.
    pub(crate) fn config_map(&self, name: &str) -> PathBuf {
        self.at(wire::CONFIG_MAPS_DIR).join(name)
    }

    /// The mounted Secret for git.
    pub(crate) fn git_secret(&self) -> PathBuf {
        self.at(wire::GIT_SECRET_DIR)
    }

    /// A mounted push credential, of which only the names of its keys can be read.
    pub(crate) fn push_secret(&self, name: &str) -> PathBuf {
        self.at(wire::PUSH_SECRETS_DIR).join(name)
    }

    /// A directory for files of this role's own programs, which the box does not see.
    pub(crate) fn own(&self) -> PathBuf {
        self.at("/tmp")
    }

    /// The container's last words.
    pub(crate) fn termination_log(&self) -> PathBuf {
        self.at(TERMINATION_LOG)
    }
}
