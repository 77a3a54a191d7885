//! Writes what the box waits for: runner, plan, or the mark of failure. Also the termination message.
//!
//! Called by `mod.rs`. The box starts the runner as soon as its name appears, so a file is written
//! under a temporary name, closed, then renamed; a runner still open for writing could not be started.
//!
//! **Invariant:** the runner's rename is the last act of a preparation that succeeded; files can be
//! read by every UID, as that of the box is unknown.

use super::{
    failure::{failure, termination_message},
    layout::Layout,
};
use crate::{
    api::condition::reason,
    wire::{self, Failure, Plan},
};
use std::{
    fs::{self, Permissions},
    io,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// What goes wrong when files are placed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot copy the runner from {path}: {source}")]
    Runner { path: PathBuf, source: io::Error },
    #[error("cannot write the plan as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        failure(reason::BOX_FAILED_TO_START, error.to_string())
    }
}

/// A complete runner that the box does not see yet.
pub(crate) struct StagedRunner {
    temporary: PathBuf,
    name: PathBuf,
}

/// Copies the runner next to its place.
///
/// # Errors
/// When it cannot be read or written.
pub(crate) fn stage_runner(from: &Path, layout: &Layout) -> Result<StagedRunner, Error> {
    let name = layout.in_file(wire::RUNNER_FILE);
    let temporary = temporary(&name);
    fs::copy(from, &temporary)
        .and_then(|_| fs::set_permissions(&temporary, Permissions::from_mode(0o755)))
        .map_err(|source| Error::Runner { path: from.into(), source })?;
    Ok(StagedRunner { temporary, name })
}

impl StagedRunner {
    /// Lets the box start it.
    ///
    /// # Errors
    /// When the rename fails.
    pub(crate) fn release(self) -> Result<(), Error> {
        fs::rename(&self.temporary, &self.name).map_err(|source| Error::Write { path: self.name, source })
    }
}

/// Writes the plan.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_plan(plan: &Plan, layout: &Layout) -> Result<(), Error> {
    write_whole(&layout.in_file(wire::PLAN_FILE), &serde_json::to_vec(plan)?)
}

/// Writes the pod's address.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_pod_ip(ip: IpAddr, layout: &Layout) -> Result<(), Error> {
    write_whole(&layout.in_file(wire::POD_IP_FILE), ip.to_string().as_bytes())
}

/// Writes the termination message.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_termination(why: &Failure, layout: &Layout) -> Result<(), Error> {
    // The kubelet bind-mounts this very file: it is written in place, never renamed over.
    let path = layout.termination_log();
    fs::write(&path, termination_message(why)).map_err(|source| Error::Write { path, source })
}

/// Tells the waiting box that nothing will come.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_failed(words: &str, layout: &Layout) -> Result<(), Error> {
    write_whole(&layout.in_file(wire::FAILED_FILE), format!("{words}\n").as_bytes())
}

fn write_whole(path: &Path, content: &[u8]) -> Result<(), Error> {
    let temporary = temporary(path);
    fs::write(&temporary, content)
        .and_then(|()| fs::set_permissions(&temporary, Permissions::from_mode(0o644)))
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|source| Error::Write { path: path.into(), source })
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}
