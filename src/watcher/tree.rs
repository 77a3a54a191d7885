//! The files below a directory that count. Called by `watcher`, and by `windlass dev` to find what it has to send.
//!
//! **Invariant:** no link is followed, what cannot be read is left out, and no more than [`DIRECTORIES`]
//! and [`FILES`] are looked at, nor, with those that do not count, more than [`NAMES`].

use super::ignore::{GIT_DIR, IGNORE_FILE, Rules};
use crate::bounded;
use nix::errno::Errno;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Most directories.
const DIRECTORIES: usize = 50_000;
/// Most files.
const FILES: usize = 200_000;
/// Most names that are tried against the rules in a walk, whatever comes of it.
const NAMES: usize = 500_000;
/// Largest `.gitignore`.
const IGNORE_BYTES: u64 = 1024 * 1024;

/// A directory, and which files below it count.
pub(crate) struct Tree {
    pub(super) root: PathBuf,
    pub(super) rules: Rules,
    pub(super) directories: usize,
    pub(super) files: usize,
    /// Most names of a walk: [`NAMES`].
    names: usize,
    /// Whether there are more than are looked at.
    pub(crate) cut: bool,
}

/// What a file was like: time of its last change in nanoseconds, size, number.
pub(super) type Seen = HashMap<PathBuf, (i128, u64, u64)>;

impl Tree {
    /// Nothing walked yet; `own` are the step's patterns.
    pub(crate) fn new(root: &Path, own: &[String]) -> Self {
        let mut rules = Rules::new(own);
        let (top, above) = above(root);
        let place = |path: &Path| path.strip_prefix(top).map(Path::to_owned).unwrap_or_default();
        for directory in above {
            if let Some(patterns) = bounded::read(&directory.join(IGNORE_FILE), IGNORE_BYTES) {
                rules.add_above(&place(directory), &place(root), &patterns);
            }
        }
        Self { root: root.into(), rules, directories: 0, files: 0, names: NAMES, cut: false }
    }

    /// Tells of the directory `from` and of all below it that counts, each directory before what is
    /// in it: the path in the tree, the whole path, and whether it is a directory.
    ///
    /// # Errors
    /// What `found` answered; the walk ends there.
    pub(crate) fn walk(
        &mut self,
        from: &Path,
        mut found: impl FnMut(&Path, &Path, bool) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        // A directory that is walked again has its rules already, and they may be others now.
        self.rules.forget(from);
        let (mut left, mut names) = (vec![from.to_owned()], 0);
        while let Some(directory) = left.pop() {
            if self.directories >= DIRECTORIES {
                self.cut = true;
                return Ok(());
            }
            self.directories += 1;
            let whole = self.root.join(&directory);
            found(&directory, &whole, true)?;
            if let Some(patterns) = bounded::read(&whole.join(IGNORE_FILE), IGNORE_BYTES) {
                self.rules.add(&directory, &patterns);
            }
            for entry in fs::read_dir(&whole).into_iter().flatten().flatten() {
                if names >= self.names {
                    self.cut = true;
                    return Ok(());
                }
                names += 1;
                let path = directory.join(entry.file_name());
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if self.rules.ignores(&path, is_dir) {
                    continue;
                }
                if is_dir {
                    left.push(path);
                    continue;
                }
                if self.files >= FILES {
                    self.cut = true;
                    return Ok(());
                }
                self.files += 1;
                found(&path, &entry.path(), false)?;
            }
        }
        Ok(())
    }

    /// What all files are like now, and with them the patterns and numbers.
    pub(super) fn look(&mut self) -> Seen {
        (self.directories, self.files, self.cut) = (0, 0, false);
        let mut seen = Seen::new();
        // It cannot fail: nothing here does.
        let _ = self.walk(Path::new(""), |path, whole, is_dir| {
            if let Ok(meta) = fs::symlink_metadata(whole) {
                let changed = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
                // A directory's own time changes with each file in it, ignored ones too.
                seen.insert(
                    path.to_owned(),
                    if is_dir { (0, 0, meta.ino()) } else { (changed, meta.len(), meta.ino()) },
                );
            }
            Ok(())
        });
        seen
    }
}

/// The top of the repository of a directory, and those above the directory up to it, the top first; none if the directory
/// is the top itself, or in no repository.
fn above(root: &Path) -> (&Path, Vec<&Path>) {
    let mut above = Vec::new();
    for directory in root.ancestors() {
        if directory.join(GIT_DIR).exists() {
            above.reverse();
            return (directory, above);
        }
        if let Some(next) = directory.parent() {
            above.push(next);
        }
    }
    (root, Vec::new())
}

/// The first file, by name, that is not the same in both.
pub(super) fn difference(old: &Seen, new: &Seen) -> Option<PathBuf> {
    let came = new.iter().filter(|(path, is)| old.get(*path) != Some(*is)).map(|(path, _)| path);
    let went = old.keys().filter(|path| !new.contains_key(*path));
    came.chain(went).min().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_do_not_count_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..10 {
            fs::write(dir.path().join(format!("{n}.o")), "").unwrap();
        }
        for (names, cut) in [(10, false), (9, true)] {
            let mut tree = Tree { names, ..Tree::new(dir.path(), &["*.o".into()]) };
            assert_eq!(tree.look().len(), 1, "the directory itself");
            assert_eq!(tree.cut, cut, "{names}");
        }
    }
}
