//! The directories of a fetch: a private one for git's own files, the disk for objects and work tree.
//!
//! Called by `git`. The box's image runs beside this container and can write to the disk, so settings,
//! hooks and refs stay where it cannot reach them until nothing is fetched with credentials any more.
//!
//! **Invariant:** a [`Home`] is gone when it is dropped, with the keys in it.

use super::command::Git;
use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{self, Command},
};

/// Directories deeper than this are not copied; git makes none.
const MAX_DEPTH: usize = 32;

/// A directory in memory that only this container has.
pub(super) struct Home {
    pub(super) path: PathBuf,
}

impl Home {
    /// A new directory in `parent`, which is made if it is missing.
    pub(super) fn new(parent: &Path) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        let path = parent.join(format!("windlass-prepare-{}", process::id()));
        // Left by a container that was killed: the number of the process is the same each time.
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&path)?;
        let home = Self { path };
        // The repository behind a file address may belong to another user.
        fs::write(home.path.join("gitconfig"), "[safe]\n\tdirectory = *\n")?;
        Ok(home)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// A repository whose objects and work tree are on the disk.
pub(super) struct Repository {
    git_dir: PathBuf,
    objects: PathBuf,
    pub(super) work: PathBuf,
}

impl Repository {
    /// An empty repository. Its few files are written here, as that is faster than to run `git init`.
    pub(super) fn create(home: &Home, work: &Path, url: &str) -> io::Result<Self> {
        let git_dir = home.path.join("git");
        let objects = work.join(".git/objects");
        for directory in [git_dir.join("refs/heads"), git_dir.join("info"), objects.join("info"), objects.join("pack")]
        {
            fs::create_dir_all(directory)?;
        }
        fs::write(git_dir.join("HEAD"), "ref: refs/heads/main\n")?;
        let url = url.replace('\\', r"\\").replace('"', "\\\"");
        let config = format!(
            "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n\
             [remote \"origin\"]\n\turl = \"{url}\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n"
        );
        fs::write(git_dir.join("config"), config)?;
        Ok(Self { git_dir, objects, work: work.into() })
    }

    /// A command on this repository, before [`Self::install`].
    pub(super) fn command(&self, git: &Git) -> Command {
        let mut command = git.command(&self.work);
        command.env("GIT_DIR", &self.git_dir).env("GIT_WORK_TREE", &self.work);
        command.env("GIT_OBJECT_DIRECTORY", &self.objects);
        command
    }

    /// A file beside the private directory's own.
    pub(super) fn scratch_file(&self, name: &str) -> PathBuf {
        self.git_dir.with_file_name(name)
    }

    /// Copies the private files into `.git`, so that steps find a whole repository.
    pub(super) fn install(&self) -> io::Result<()> {
        copy(&self.git_dir, &self.work.join(".git"), MAX_DEPTH)
    }
}

/// Copies directories and regular files.
fn copy(from: &Path, to: &Path, depth: usize) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::other("directories are too deep"));
    }
    match fs::create_dir(to) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to, depth - 1)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_private_and_goes_with_its_owner() {
        use std::os::unix::fs::PermissionsExt as _;
        let own = tempfile::tempdir().unwrap();
        let home = Home::new(&own.path().join("tmp")).unwrap();
        let path = home.path.clone();
        assert!(path.starts_with(own.path()), "what is left of a run that was killed is removed with its directory");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(home);
        assert!(!path.exists());
    }
}
