//! Brings the source into the `source` directory of `disk`.
//!
//! Called by `prepare`; a git repository is fetched in a thread of its own, while services start.
//!
//! **Invariant:** the directory appears only when it is complete, every UID can read it, and no
//! credential is in it.

mod address;
mod checkout;
mod command;
mod credential;
mod directory;
mod explain;
mod git;
mod inline;
mod repository;
mod revision;

pub(super) use self::{
    command::Processes,
    credential::{CredentialArguments, answer as answer_credential},
};
use super::{Directory, failure::failure, layout::Layout};
use crate::{
    api::condition::reason,
    wire::{Failure, Order, SourceOrder},
};
use std::{
    fs,
    io::{Error, ErrorKind},
    path::{Component, Path, PathBuf},
};

/// What is known of the source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fetched {
    /// Commit.
    pub(super) revision: Option<String>,
    /// Branch, if it was one.
    pub(super) branch: Option<String>,
    /// Tag, if it was one.
    pub(super) tag: Option<String>,
    /// Host of the repository.
    pub(super) domain: Option<String>,
    /// All but the last part of its path.
    pub(super) owner: Option<String>,
    /// The last part of its path.
    pub(super) repository: Option<String>,
}

impl Fetched {
    /// Variables for the steps, without their prefix.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        let known = [
            ("GIT_COMMIT", &self.revision),
            ("GIT_BRANCH", &self.branch),
            ("GIT_TAG", &self.tag),
            ("GIT_DOMAIN", &self.domain),
            ("GIT_OWNER", &self.owner),
            ("GIT_REPOSITORY", &self.repository),
        ];
        known.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

/// Brings the source.
///
/// # Errors
/// Why it could not be had.
pub(super) fn fetch(order: &Order, layout: &Layout, processes: &Processes) -> Result<Fetched, Failure> {
    let part = Part::new(layout).map_err(not_written)?;
    match &order.source {
        SourceOrder::None => part.complete(None)?,
        SourceOrder::Inline(files) => {
            inline::write(files, &part.path)?;
            part.complete(None)?;
        }
        SourceOrder::Git(git) => {
            let fetched = git::fetch(git, order, layout, &part.path, processes)?;
            part.complete(git.directory.as_deref())?;
            return Ok(fetched);
        }
    }
    Ok(Fetched::default())
}

/// Brings a directory of this machine, for a local run; one that the box has mounted stays where it is.
///
/// # Errors
/// Why it could not be read.
pub(super) fn copy(from: &Directory, layout: &Layout, processes: &Processes) -> Result<Fetched, Failure> {
    if from.mounted {
        return directory::mounted(from, layout, processes);
    }
    let part = Part::new(layout).map_err(not_written)?;
    let fetched = directory::copy(from, &part.path, layout, processes)?;
    part.complete(None)?;
    Ok(fetched)
}

/// A source that is not complete yet.
struct Part {
    path: PathBuf,
    name: PathBuf,
}

impl Part {
    /// An empty directory beside the name that the source will have. What an earlier attempt left goes.
    fn new(layout: &Layout) -> Result<Self, Error> {
        let name = layout.source();
        let path = name.with_extension("part");
        for old in [&name, &path] {
            match fs::remove_dir_all(old) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        fs::create_dir(&path)?;
        Ok(Self { path, name })
    }

    /// Gives the source, or one directory of it, its name.
    fn complete(self, directory: Option<&str>) -> Result<(), Failure> {
        let Some(directory) = directory.filter(|directory| !directory.is_empty() && *directory != ".") else {
            return fs::rename(&self.path, &self.name).map_err(not_written);
        };
        let inside = real_directory(&self.path, directory)?;
        fs::rename(inside, &self.name).and_then(|()| fs::remove_dir_all(&self.path)).map_err(not_written)
    }
}

/// The directory below `base`; a symlink on the way could lead out of the source.
fn real_directory(base: &Path, directory: &str) -> Result<PathBuf, Failure> {
    let no = |what: &str| failure(reason::SOURCE_FAILED, format!("source.git.directory: {directory} {what}"));
    let relative = relative(directory).ok_or_else(|| no("must be a relative directory without .."))?;
    let mut path = base.to_path_buf();
    for component in relative.components() {
        path.push(component);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(no("is not a directory of the repository")),
            Err(_) => return Err(no("does not exist in the repository")),
        }
    }
    Ok(path)
}

/// The path, if it stays below where it starts and names something.
fn relative(path: &str) -> Option<&Path> {
    let path = Path::new(path);
    let mut components = path.components().peekable();
    components.peek()?;
    let inside = components.all(|component| matches!(component, Component::Normal(_)));
    (inside && !path.as_os_str().as_encoded_bytes().contains(&0)).then_some(path)
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
fn not_written(error: Error) -> Failure {
    let message = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "the disk of the node has no space left".into(),
        _ => format!("cannot write the source: {error}"),
    };
    failure(reason::SOURCE_FAILED, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_stays_inside() {
        for good in ["a", "a/b", "a/./b", "a//b", "..a/b..", "a/"] {
            assert!(relative(good).is_some(), "{good}");
        }
        for bad in ["", "/", "/a", "..", "a/../b", "../a", "a/..", "./a", ".", "a\0b"] {
            assert!(relative(bad).is_none(), "{bad:?}");
        }
    }
}
