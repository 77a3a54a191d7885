//! Unpacks what the runner packed into a directory of this machine.
//!
//! `kept` calls it for what is kept of a run, which the next run of a workflow may begin with.
//!
//! **Invariant:** each entry is judged by the rules of `archive::Tree` first, and made beneath the directory that is open:
//! nothing is written outside of it, and through no link, whoever else writes there. Owners, and bits that give rights, are
//! not taken over.

use crate::{
    api::condition::reason,
    archive::{Entry, Kind, ReadError, Reader, Tree, short},
    registry::PushError,
};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, linkat, mkdirat, openat2, symlinkat};
use std::{
    ffi::OsStr,
    fs::{File, FileTimes, Permissions},
    io::{self, Read, Write as _},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    },
    path::Path,
    time::{Duration, SystemTime},
};

/// Bytes that are read of a file at a time.
const CONTENT_BYTES: usize = 128 * 1024;
/// Rights that may be taken over, and what the user needs to remove it all again.
const RIGHTS: u32 = 0o777;
const OWN_DIRECTORY: u32 = 0o700;
const OWN_FILE: u32 = 0o600;

/// Unpacks into the open directory `to`, which is empty. Gives how many files there are.
///
/// # Errors
/// What is wrong with the archive, or with writing it.
pub(super) fn unpack(archive: impl Read, to: &OwnedFd) -> Result<u64, Lost> {
    let mut reader = Reader::new(io::BufReader::with_capacity(CONTENT_BYTES, archive));
    let mut tree = Tree::default();
    let mut directories: Vec<Entry> = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        tree.admit(&entry).map_err(ReadError::Refused)?;
        let path = Path::new(OsStr::from_bytes(&entry.path));
        let (parent, name) = place(to, path)?;
        match &entry.kind {
            Kind::Directory => {
                mkdirat(&parent, name, Mode::from_raw_mode(OWN_DIRECTORY)).map_err(io::Error::from)?;
                directories.push(entry);
            }
            Kind::File { .. } => content(&mut reader, &parent, name, &entry)?,
            Kind::Symlink { target } => {
                symlinkat(OsStr::from_bytes(target), &parent, name).map_err(io::Error::from)?;
            }
            Kind::HardLink { target } => {
                let (other, first) = place(to, Path::new(OsStr::from_bytes(target)))?;
                linkat(&other, first, &parent, name, AtFlags::empty()).map_err(io::Error::from)?;
            }
        }
    }
    // What is written into a directory changes it.
    for entry in directories.iter().rev() {
        let path = Path::new(OsStr::from_bytes(&entry.path));
        let directory = File::from(open(to, path, OFlags::RDONLY | OFlags::DIRECTORY, 0)?);
        directory.set_permissions(Permissions::from_mode(entry.mode & RIGHTS | OWN_DIRECTORY))?;
        keep_time(&directory, entry)?;
    }
    Ok(tree.files())
}

/// Opens what is beneath the directory, without any link on the way.
fn open(to: &OwnedFd, path: &Path, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(to, path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode), beneath)?)
}

/// The open directory of a path, and its name there.
fn place<'a>(to: &OwnedFd, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let directory = open(to, parent, OFlags::PATH | OFlags::DIRECTORY, 0)?;
    Ok((directory, path.file_name().unwrap_or_default()))
}

/// Why an archive was not taken over.
pub(super) enum Lost {
    /// The archive's fault.
    Unreadable(PushError),
    /// This machine's.
    Unwritten(io::Error),
}

impl Lost {
    /// As the failure of a step.
    pub(super) fn error(self, unwritten: impl Fn(io::Error) -> PushError) -> PushError {
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

impl From<ReadError> for Lost {
    fn from(error: ReadError) -> Self {
        let why = match &error {
            ReadError::Refused(_) => reason::UNSAFE_FILE,
            ReadError::Io(_) | ReadError::Malformed(..) => reason::COMMIT_FAILED,
        };
        Self::Unreadable(PushError::new(why, short(&error.to_string())))
    }
}

fn content(reader: &mut Reader<impl Read>, parent: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<(), Lost> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let mut file = File::from(open(parent, Path::new(name), flags, OWN_FILE)?);
    let mut buffer = vec![0; CONTENT_BYTES];
    loop {
        let length = reader.content(&mut buffer)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Writer;
    use std::{fs, os::unix::fs::MetadataExt as _};

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
        let to = place.path();
        assert_eq!(unpack(bytes.as_slice(), &opened(to)).ok(), Some(2));
        assert_eq!(fs::read(to.join("link")).unwrap(), b"hi");
        let meta = fs::metadata(to.join("d/run")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o755, 1_700_000_000));
    }

    fn opened(path: &Path) -> OwnedFd {
        File::open(path).unwrap().into()
    }

    #[test]
    fn somebody_else_s_link_is_not_written_through() {
        let (place, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let content = &[7; 3 * CONTENT_BYTES][..];
        let size = content.len() as u64;
        let bytes = packed(&[
            (entry("d", Kind::Directory, 0o755), b""),
            (entry("d/a", Kind::File { size, linked: false }, 0o644), content),
            (entry("d/b", Kind::File { size, linked: false }, 0o644), content),
        ]);
        // When half of it was read, somebody puts a link in place of the directory.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let (from, to) = (place.path().to_owned(), outside.path().to_owned());
        let swap = Swap(move || {
            fs::rename(from.join("d"), from.join("other")).unwrap();
            std::os::unix::fs::symlink(&to, from.join("d")).unwrap();
        });
        let lost = unpack(first.chain(swap).chain(second), &opened(place.path())).err().unwrap();
        assert!(matches!(lost, Lost::Unwritten(_)));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    /// Holds nothing, and does something when it is read.
    struct Swap<F>(F);

    impl<F: Fn()> Read for Swap<F> {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.0();
            Ok(0)
        }
    }

    #[test]
    fn nothing_is_written_outside() {
        let place = tempfile::tempdir().unwrap();
        let file = || Kind::File { size: 1, linked: false };
        let through_a_link = packed(&[
            (entry("a", Kind::Symlink { target: b"..".to_vec() }, 0o777), b""),
            (entry("a/out", file(), 0o644), b"x"),
        ]);
        fs::create_dir(place.path().join("to")).unwrap();
        let lost = unpack(through_a_link.as_slice(), &opened(&place.path().join("to"))).err().unwrap();
        assert!(matches!(&lost, Lost::Unreadable(error) if error.reason == reason::UNSAFE_FILE));
        assert!(!place.path().join("out").exists());
    }
}
