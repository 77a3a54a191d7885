//! Files that stand in the pipeline itself.
//!
//! Called by `source::fetch`.
//!
//! **Invariant:** nothing is written outside the given directory, and nothing twice.

use super::{not_written, relative};
use crate::{api::condition::reason, prepare::failure::failure, wire::Failure};
use std::{
    fs::{self, OpenOptions, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

/// Bits that every file gets: the box's UID is unknown, and the runner copies as that UID.
const READABLE: u32 = 0o444;
/// Bits that a pipeline can choose; neither set-UID nor sticky.
const CHOOSABLE: u32 = 0o777;

/// Writes path, content and mode of each file below `directory`, which is empty.
pub(super) fn write(files: &[(String, String, u32)], directory: &Path) -> Result<(), Failure> {
    for (name, content, mode) in files {
        let wrong = |what: &str| failure(reason::SOURCE_FAILED, format!("source.inline.files: {name} {what}"));
        let path = relative(name).ok_or_else(|| wrong("must be a relative file path without . and .."))?;
        let path = directory.join(path);
        let parent = path.parent().unwrap_or(directory);
        fs::create_dir_all(parent).map_err(|_| wrong("lies below another file"))?;
        let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(wrong("is there twice, or is the directory of another file"));
            }
            Err(e) => return Err(not_written(e)),
        };
        let permissions = Permissions::from_mode(mode & CHOOSABLE | READABLE);
        file.write_all(content.as_bytes()).and_then(|()| file.set_permissions(permissions)).map_err(not_written)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, content: &str, mode: u32) -> (String, String, u32) {
        (path.into(), content.into(), mode)
    }

    #[test]
    fn writes_files_with_their_modes() {
        let directory = tempfile::tempdir().unwrap();
        let files = [file("run.sh", "echo", 0o755), file("a/b/c", "é\n", 0o600), file("a/d", "", 0o4666)];
        write(&files, directory.path()).unwrap();
        for (path, content, mode) in [("run.sh", "echo", 0o755), ("a/b/c", "é\n", 0o644), ("a/d", "", 0o666)] {
            let path = directory.path().join(path);
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode, "{path:?}");
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        for (files, words) in [
            (vec![file("../a", "", 0o644)], "../a must be a relative"),
            (vec![file("/etc/a", "", 0o644)], "/etc/a must be a relative"),
            (vec![file("a", "", 0o644), file("a/b", "", 0o644)], "a/b lies below another file"),
            (vec![file("a", "", 0o644), file("a", "", 0o644)], "a is there twice"),
            (vec![file("a/b", "", 0o644), file("a", "", 0o644)], "or is the directory of another"),
        ] {
            let outer = tempfile::tempdir().unwrap();
            let directory = outer.path().join("source");
            fs::create_dir(&directory).unwrap();
            let failure = write(&files, &directory).unwrap_err();
            assert!(failure.message.contains(words), "{}", failure.message);
            assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1, "wrote outside");
        }
    }
}
