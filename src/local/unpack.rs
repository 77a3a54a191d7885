//! Unpacks what the runner packed into a directory of this machine.
//!
//! `workshop` calls it for what is kept of a run, which the next run of a workflow may begin with.
//!
//! **Invariant:** each entry is judged by the rules of `archive::Tree` first: nothing is written outside the directory, and
//! through no link. Owners, and bits that give rights, are not taken over.

use crate::{
    api::condition::reason,
    archive::{Entry, Kind, ReadError, Reader, Tree, short},
    registry::PushError,
};
use std::{
    ffi::OsStr,
    fs::{self, File, FileTimes, OpenOptions, Permissions},
    io::{self, Read, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{OpenOptionsExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Bytes that are read of a file at a time.
const CONTENT_BYTES: usize = 128 * 1024;
/// Rights that may be taken over, and what the user needs to remove it all again.
const RIGHTS: u32 = 0o777;
const OWN_DIRECTORY: u32 = 0o700;
const OWN_FILE: u32 = 0o600;

/// Unpacks into `to`, which is made anew. Gives how many files there are.
///
/// # Errors
/// `UnsafeFile`, or whatever keeps it from being read or written.
pub(super) fn unpack(archive: impl Read, to: &Path) -> Result<u64, PushError> {
    let unwritten = |error: io::Error| PushError::new(reason::COMMIT_FAILED, format!("{}: {error}", to.display()));
    match fs::remove_dir_all(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unwritten(error)),
        Ok(()) | Err(_) => fs::create_dir_all(to).map_err(unwritten)?,
    }
    let mut reader = Reader::new(io::BufReader::with_capacity(CONTENT_BYTES, archive));
    let mut tree = Tree::default();
    let mut directories: Vec<(PathBuf, Entry)> = Vec::new();
    while let Some(entry) = reader.next_entry().map_err(unreadable)? {
        tree.admit(&entry).map_err(|refusal| unreadable(ReadError::Refused(refusal)))?;
        let path = to.join(OsStr::from_bytes(&entry.path));
        match &entry.kind {
            Kind::Directory => {
                fs::create_dir(&path).map_err(unwritten)?;
                directories.push((path, entry));
            }
            Kind::File { .. } => content(&mut reader, &path, &entry).map_err(|error| error.map_or_else(unwritten))?,
            Kind::Symlink { target } => symlink(OsStr::from_bytes(target), &path).map_err(unwritten)?,
            Kind::HardLink { target } => {
                fs::hard_link(to.join(OsStr::from_bytes(target)), &path).map_err(unwritten)?;
            }
        }
    }
    // What is written into a directory changes it.
    for (path, entry) in directories.iter().rev() {
        let rights = Permissions::from_mode(entry.mode & RIGHTS | OWN_DIRECTORY);
        fs::set_permissions(path, rights).and_then(|()| keep_time(&File::open(path)?, entry)).map_err(unwritten)?;
    }
    Ok(tree.files())
}

/// Why the content of a file was not taken over.
enum Lost {
    Unreadable(PushError),
    Unwritten(io::Error),
}

impl Lost {
    fn map_or_else(self, unwritten: impl Fn(io::Error) -> PushError) -> PushError {
        match self {
            Self::Unreadable(error) => error,
            Self::Unwritten(error) => unwritten(error),
        }
    }
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        Self::Unwritten(error)
    }
}

fn content(reader: &mut Reader<impl Read>, path: &Path, entry: &Entry) -> Result<(), Lost> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(OWN_FILE).open(path)?;
    let mut buffer = vec![0; CONTENT_BYTES];
    loop {
        let length = reader.content(&mut buffer).map_err(|error| Lost::Unreadable(unreadable(error)))?;
        if length == 0 {
            break;
        }
        file.write_all(buffer.get(..length).unwrap_or_default())?;
    }
    file.set_permissions(Permissions::from_mode(entry.mode & RIGHTS | OWN_FILE))?;
    Ok(keep_time(&file, entry)?)
}

fn keep_time(file: &File, entry: &Entry) -> io::Result<()> {
    let seconds = Duration::from_secs(u64::try_from(entry.mtime).unwrap_or_default());
    let time = SystemTime::UNIX_EPOCH.checked_add(seconds).unwrap_or(SystemTime::UNIX_EPOCH);
    file.set_times(FileTimes::new().set_modified(time))
}

fn unreadable(error: ReadError) -> PushError {
    let why = match &error {
        ReadError::Refused(_) => reason::UNSAFE_FILE,
        ReadError::Io(_) | ReadError::Malformed(..) => reason::COMMIT_FAILED,
    };
    PushError::new(why, short(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Writer;
    use std::os::unix::fs::MetadataExt as _;

    fn entry(path: &str, kind: Kind, mode: u32) -> Entry {
        Entry { path: path.into(), kind, mode, uid: 0, gid: 0, mtime: 1_700_000_000 }
    }

    fn packed(entries: &[(Entry, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (entry, content) in entries {
            writer.entry(entry, false).unwrap();
            writer.content(content).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn files_links_and_rights_come_back() {
        let file = Kind::File { size: 2, linked: false };
        let bytes = packed(&[
            (entry("d", Kind::Directory, 0o555), b""),
            (entry("d/run", file, 0o4755), b"hi"),
            (entry("link", Kind::Symlink { target: b"d/run".to_vec() }, 0o777), b""),
        ]);
        let place = tempfile::tempdir().unwrap();
        let to = place.path().join("output");
        fs::create_dir(&to).unwrap();
        fs::write(to.join("old"), "x").unwrap();
        assert_eq!(unpack(bytes.as_slice(), &to).ok(), Some(2));
        assert_eq!(fs::read(to.join("link")).unwrap(), b"hi");
        let meta = fs::metadata(to.join("d/run")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o755, 1_700_000_000));
        assert!(!to.join("old").exists());
        fs::remove_dir_all(&to).unwrap();
    }

    #[test]
    fn nothing_is_written_outside() {
        let place = tempfile::tempdir().unwrap();
        let file = || Kind::File { size: 1, linked: false };
        let through_a_link = packed(&[
            (entry("a", Kind::Symlink { target: b"..".to_vec() }, 0o777), b""),
            (entry("a/out", file(), 0o644), b"x"),
        ]);
        let error = unpack(through_a_link.as_slice(), &place.path().join("to")).err().unwrap();
        assert_eq!(error.reason, reason::UNSAFE_FILE, "{error}");
        assert!(!place.path().join("out").exists());
    }
}
