//! Changes of a directory as an archive: what came or changed as itself, what went as a whiteout.
//!
//! `windlass dev` sends them, the runner's `receive` carries them out. A whiteout is an empty file `.wh.NAME` beside
//! where NAME was, as in layers of images (OCI image specification, "Layer Filesystem Changeset").
//!
//! **Invariant:** pure; a path or link that leaves the directory is refused, whoever wrote it.

use super::{Entry, Kind, MAX_PATH_BYTES};

/// How the name of a whiteout begins.
const WHITEOUT: &[u8] = b".wh.";

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// There is this now.
    Is(Entry),
    /// There is nothing any more.
    Gone(Vec<u8>),
}

/// Whether a file can be told of at all: its name must not read as a whiteout.
#[must_use]
pub fn is_tellable(path: &[u8]) -> bool {
    leads_below(path) && !name_of(path).1.starts_with(WHITEOUT)
}

/// The entry that says so.
#[must_use]
pub fn entry(change: &Change) -> Entry {
    match change {
        Change::Is(entry) => entry.clone(),
        Change::Gone(path) => {
            let (directory, name) = name_of(path);
            let path = [directory, WHITEOUT, name].concat();
            Entry { path, kind: Kind::File { size: 0, linked: false }, mode: 0, uid: 0, gid: 0, mtime: 0 }
        }
    }
}

/// What an entry says.
///
/// # Errors
/// Why it must not be carried out, as in `has a path that leads elsewhere`.
pub fn change(entry: Entry) -> Result<Change, &'static str> {
    if !leads_below(&entry.path) {
        return Err("has a path that leads elsewhere");
    }
    let (directory, name) = name_of(&entry.path);
    if let Some(gone) = name.strip_prefix(WHITEOUT) {
        let path = [directory, gone].concat();
        return if leads_below(&path) { Ok(Change::Gone(path)) } else { Err("removes what is elsewhere") };
    }
    match &entry.kind {
        Kind::Symlink { target } if !stays(&entry.path, target) => Err("is a link that leads elsewhere"),
        Kind::HardLink { .. } => Err("is a hard link, of which nothing is known here"),
        Kind::Symlink { .. } | Kind::File { .. } | Kind::Directory => Ok(Change::Is(entry)),
    }
}

/// Whether a link at `path` stays in the directory.
#[must_use]
pub fn stays(path: &[u8], target: &[u8]) -> bool {
    if target.is_empty() || target.starts_with(b"/") || target.contains(&0) || target.len() > MAX_PATH_BYTES {
        return false;
    }
    let mut depth = path.split(|byte| *byte == b'/').count() - 1;
    for name in target.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return false,
            },
            _ => depth += 1,
        }
    }
    true
}

/// Whether a path names something below the directory.
fn leads_below(path: &[u8]) -> bool {
    let names = |name: &[u8]| !name.is_empty() && name != b"." && name != b".." && !name.contains(&0);
    path.len() <= MAX_PATH_BYTES && path.split(|byte| *byte == b'/').all(names)
}

/// The directory with its slash, and the name.
fn name_of(path: &[u8]) -> (&[u8], &[u8]) {
    path.split_at(path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn file(path: &str) -> Entry {
        let kind = Kind::File { size: 3, linked: false };
        Entry { path: path.into(), kind, mode: 0o644, uid: 0, gid: 0, mtime: 0 }
    }

    #[test]
    fn a_change_is_told_and_understood() {
        for told in [Change::Is(file("a/b")), Change::Gone(b"a/b".to_vec()), Change::Gone(b"b".to_vec())] {
            assert_eq!(change(entry(&told)), Ok(told));
        }
        assert_eq!(entry(&Change::Gone(b"a/b".to_vec())).path, b"a/.wh.b");
        assert!(is_tellable(b"a/b") && is_tellable(b".wh/b") && !is_tellable(b"a/.wh.b"));
    }

    #[rstest]
    #[case("")]
    #[case("/etc/passwd")]
    #[case("a//b")]
    #[case("a/../../b")]
    #[case("./a")]
    #[case("a/.wh...")]
    #[case(".wh.")]
    #[case("a\0b")]
    fn what_leads_elsewhere_is_refused(#[case] path: &str) {
        assert!(change(file(path)).is_err(), "{path}");
    }

    #[rstest]
    #[case("a", "b", true)]
    #[case("a", "./b/../c", true)]
    #[case("a/b", "../c", true)]
    #[case("a/b", "../../c", false)]
    #[case("a", "..", false)]
    #[case("a", "b/../../c", false)]
    #[case("a", "/etc", false)]
    #[case("a", "", false)]
    fn a_link_stays_in_the_directory(#[case] path: &str, #[case] target: &str, #[case] stays: bool) {
        let link = Entry { kind: Kind::Symlink { target: target.into() }, ..file(path) };
        assert_eq!(change(link).is_ok(), stays);
    }
}
