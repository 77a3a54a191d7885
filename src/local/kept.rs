//! Where the output of a run is kept: below a directory that is the user's own, there whole or not at all.
//!
//! `client::wercker` says where, `start` and `workshop` keep it, and the next run may begin with it.
//!
//! **Invariant:** follows no link below that directory: a repository may carry one, and a box may make one. What has the
//! name of the output is complete: it is written beside it and exchanged for it, and loses the name before it is removed.

use super::unpack::unpack;
use crate::{api::condition::reason, registry::PushError};
use rustix::{
    fs::{
        AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, flock, mkdirat, openat, renameat_with,
        statat, unlinkat,
    },
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, Read},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Component, Path, PathBuf},
};

/// Opens a directory that is none of a link.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// How names of outputs begin that are not complete yet, or not any more.
const PART: &str = ".output-";
/// Most names that are looked at for such.
const MOST: usize = 1000;
/// Tries to give an output its name while another run does the same.
const TRIES: usize = 16;

/// A place for the output of runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    base: PathBuf,
    below: PathBuf,
    passes: bool,
}

impl Kept {
    /// The place `below` the directory `base`, which is trusted, as is the way to it.
    #[must_use]
    pub fn new(base: &Path, below: impl Into<PathBuf>) -> Self {
        Self { base: base.to_owned(), below: below.into(), passes: false }
    }

    /// The same for an output that is only there for the runs after it: people cannot look at it.
    #[must_use]
    pub fn passing(base: &Path, below: impl Into<PathBuf>) -> Self {
        Self { passes: true, ..Self::new(base, below) }
    }

    /// Whether people cannot look at it.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.passes
    }

    /// Where it is, for people. For what is there see [`Kept::find`].
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.base.join(&self.below)
    }

    /// What is kept.
    ///
    /// # Errors
    /// When a link is on the way, or it cannot be told.
    pub fn find(&self) -> io::Result<Option<PathBuf>> {
        let Some(parent) = self.parent(false)? else { return Ok(None) };
        match openat(&parent, self.name(), DIRECTORY, Mode::empty()) {
            Ok(_) => Ok(Some(self.path())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.wrong(&parent, self.name(), &self.below, error)),
        }
    }

    /// Makes room for an output: all directories around it are there. A link that had the name of one is removed, as
    /// Wercker did to its own with every build; but not the first, where all of its files would be.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make(&self) -> io::Result<()> {
        self.parent(true).map(drop)
    }

    /// Whether a run was to keep its output here, and none is there: room was made, and nobody gave it up.
    ///
    /// # Errors
    /// As those of [`Kept::find`].
    pub fn is_missing(&self) -> io::Result<bool> {
        Ok(self.parent(false)?.is_some() && self.find()?.is_none())
    }

    /// Takes the room away that was made and is not needed: a run ended well and has nothing to keep. What is kept
    /// there stays, as does what another run is about to keep.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn give_up(&self) -> io::Result<()> {
        let Some(below) = self.below.parent() else { return Ok(()) };
        let room = Self::new(&self.base, below);
        // Behind a link no room was made.
        let Ok(Some(around)) = room.parent(false) else { return Ok(()) };
        match unlinkat(&around, room.name(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what was kept, and what runs left that were killed while they kept theirs.
    ///
    /// # Errors
    /// When it cannot be removed; never when nothing was kept.
    pub fn clear(&self) -> io::Result<()> {
        // Behind a link nothing was kept.
        let Ok(Some(parent)) = self.parent(false) else { return Ok(()) };
        for name in parts(&parent)? {
            let part = openat(&parent, &name, DIRECTORY, Mode::empty());
            // Who writes it holds its lock.
            if part.is_ok_and(|part| flock(&part, FlockOperation::NonBlockingLockExclusive).is_ok()) {
                remove(&parent, &name)?;
            }
        }
        let old = part_name();
        match renameat_with(&parent, self.name(), &parent, &old, RenameFlags::NOREPLACE) {
            Ok(()) => remove(&parent, &old),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps an archive in place of what was kept. Gives how many files it has.
    ///
    /// # Errors
    /// `UnsafeFile`, or whatever keeps it from being read or written; then what was kept stays.
    pub(super) fn fill(&self, archive: impl Read) -> Result<u64, PushError> {
        let unwritten =
            |error: io::Error| PushError::new(reason::COMMIT_FAILED, format!("{}: {error}", self.path().display()));
        let missing = || unwritten(io::Error::from(io::ErrorKind::NotFound));
        let parent = self.parent(true).map_err(unwritten)?.ok_or_else(missing)?;
        let part = part_name();
        let filled = (|| {
            let open = || {
                mkdirat(&parent, &part, Mode::from_raw_mode(0o700))?;
                let directory = openat(&parent, &part, DIRECTORY, Mode::empty())?;
                flock(&directory, FlockOperation::NonBlockingLockExclusive).map(|()| directory)
            };
            let directory = open().map_err(|error| unwritten(error.into()))?;
            let files = unpack(archive, &directory).map_err(|lost| lost.error(unwritten))?;
            exchange(&parent, &part, self.name()).map_err(unwritten)?;
            Ok(files)
        })();
        // What is left under this name is what was kept before, or a part.
        let removed = remove(&parent, &part).map_err(unwritten);
        filled.and_then(|files| removed.map(|()| files))
    }

    fn name(&self) -> &OsStr {
        self.below.file_name().unwrap_or_default()
    }

    /// Opens the directory of the output. None: it is not there.
    fn parent(&self, make: bool) -> io::Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut directory = rustix::fs::open(&self.base, flags, Mode::empty())?;
        let mut path = PathBuf::new();
        for component in self.below.parent().into_iter().flat_map(Path::components) {
            let Component::Normal(name) = component else { return Err(io::ErrorKind::InvalidInput.into()) };
            if make && !path.as_os_str().is_empty() && is_link(&directory, name) {
                unlinkat(&directory, name, AtFlags::empty())?;
            }
            path.push(name);
            let mut opened = openat(&directory, name, DIRECTORY, Mode::empty());
            if make && matches!(opened, Err(Errno::NOENT)) {
                match mkdirat(&directory, name, Mode::from_raw_mode(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => opened = openat(&directory, name, DIRECTORY, Mode::empty()),
                    Err(error) => return Err(error.into()),
                }
            }
            directory = match opened {
                Ok(opened) => opened,
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(self.wrong(&directory, name, &path, error)),
            };
        }
        Ok(Some(directory))
    }

    fn wrong(&self, directory: &OwnedFd, name: &OsStr, below: &Path, error: Errno) -> io::Error {
        let path = self.base.join(below);
        if is_link(directory, name) {
            return io::Error::other(format!("{} is a link, and none is followed here; remove it", path.display()));
        }
        io::Error::other(format!("{}: {}", path.display(), io::Error::from(error)))
    }
}

fn is_link(directory: &OwnedFd, name: &OsStr) -> bool {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

fn part_name() -> OsString {
    format!("{PART}{:016x}", rand::random::<u64>()).into()
}

/// Names of parts.
fn parts(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)?.take(MOST) {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name.as_bytes().starts_with(PART.as_bytes()) {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

/// Gives a part the name of the output. What had it has the name of the part then.
fn exchange(directory: &OwnedFd, part: &OsStr, name: &OsStr) -> io::Result<()> {
    for _ in 0..TRIES {
        match renameat_with(directory, part, directory, name, RenameFlags::EXCHANGE) {
            Err(Errno::NOENT) => {}
            // Some file systems cannot; without the old one it is a moment with none at all.
            Err(Errno::INVAL) => remove(directory, name)?,
            done => return Ok(done?),
        }
        match renameat_with(directory, part, directory, name, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            done => return Ok(done?),
        }
    }
    Err(io::Error::other("other runs keep their output there all the time"))
}

/// Removes what has a name, if anything has: a link itself, a directory with all that is in it.
fn remove(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {
            // By way of what is open, as its own path may lead elsewhere by now. This follows no link below.
            fs::remove_dir_all(Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{Entry, Kind, Writer};
    use std::os::unix::fs::symlink;

    fn packed(name: &str, content: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        let kind = Kind::File { size: content.len() as u64, linked: false };
        writer.entry(&Entry { path: name.into(), kind, mode: 0o644, uid: 0, gid: 0, mtime: 0 }, false).unwrap();
        writer.content(content).unwrap();
        writer.finish().unwrap()
    }

    fn project() -> (tempfile::TempDir, Kept) {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("project")).unwrap();
        let kept = Kept::new(&place.path().join("project"), ".wercker/latest/output");
        (place, kept)
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn an_output_takes_the_place_of_the_one_before() {
        let (_place, kept) = project();
        assert_eq!(kept.find().unwrap(), None);
        kept.clear().unwrap();
        for name in ["one", "two"] {
            assert_eq!(kept.fill(packed(name, b"x").as_slice()).unwrap(), 1);
            assert_eq!(names(&kept.find().unwrap().unwrap()), [name]);
        }
        assert_eq!(names(kept.path().parent().unwrap()), ["output"], "nothing else is left");
        kept.clear().unwrap();
        assert_eq!((kept.find().unwrap(), names(kept.path().parent().unwrap())), (None, vec![]));
    }

    #[test]
    fn an_output_is_missing_where_room_for_it_stays_empty() {
        let (place, kept) = project();
        let room = kept.path().parent().unwrap().to_owned();
        let missing = || kept.is_missing().unwrap();
        assert!(!missing());
        kept.give_up().unwrap();
        kept.make().unwrap();
        assert!(missing());
        kept.give_up().unwrap();
        assert!(!missing() && !room.exists() && room.parent().unwrap().is_dir());
        kept.fill(packed("one", b"x").as_slice()).unwrap();
        kept.give_up().unwrap();
        assert!(!missing() && names(&kept.path()) == ["one"]);
        kept.clear().unwrap();
        assert!(missing());
        // What another run writes.
        fs::create_dir(room.join(".output-living")).unwrap();
        kept.give_up().unwrap();
        assert!(missing());
        fs::remove_dir_all(&room).unwrap();
        symlink(place.path(), &room).unwrap();
        kept.give_up().unwrap();
        assert!(room.is_symlink());
    }

    #[test]
    fn what_breaks_off_leaves_the_one_before_as_it_was() {
        let (_place, kept) = project();
        kept.fill(packed("one", b"x").as_slice()).unwrap();
        let two = packed("two", &[7; 100_000]);
        let error = kept.fill(&two[..50_000]).err().unwrap();
        assert_eq!(error.reason, reason::COMMIT_FAILED, "{error}");
        assert_eq!(names(&kept.find().unwrap().unwrap()), ["one"]);
        assert_eq!(names(kept.path().parent().unwrap()), ["output"]);
    }

    #[test]
    fn what_a_killed_run_left_goes_and_what_a_living_one_writes_stays() {
        let (_place, kept) = project();
        kept.make().unwrap();
        let around = kept.path().parent().unwrap().to_owned();
        for name in [".output-dead", ".output-living", "other"] {
            fs::create_dir(around.join(name)).unwrap();
            fs::write(around.join(name).join("file"), "x").unwrap();
        }
        let living = fs::File::open(around.join(".output-living")).unwrap();
        flock(&living, FlockOperation::NonBlockingLockExclusive).unwrap();
        kept.clear().unwrap();
        assert_eq!(names(&around), [".output-living", "other"]);
    }

    #[test]
    fn several_at_once_leave_one_of_theirs_whole() {
        let (_place, kept) = project();
        let archives: Vec<Vec<u8>> = (0..8).map(|n| packed(&format!("file-{n}"), &[b'0' + n; 10_000])).collect();
        std::thread::scope(|threads| {
            for archive in &archives {
                threads.spawn(|| kept.fill(archive.as_slice()).unwrap());
            }
        });
        let [name] = names(&kept.find().unwrap().unwrap()).try_into().unwrap();
        let content = fs::read(kept.path().join(&name)).unwrap();
        assert_eq!(content, [name.as_bytes()[5]; 10_000], "{name}");
        assert_eq!(names(kept.path().parent().unwrap()), ["output"]);
    }

    #[test]
    fn no_link_is_followed() {
        let (place, kept) = project();
        let project = place.path().join("project");
        // Beside the project, as `.wercker/latest -> ../..` makes it.
        fs::create_dir(place.path().join("output")).unwrap();
        fs::write(place.path().join("output/precious"), "x").unwrap();
        let precious = || names(&place.path().join("output")) == ["precious"];
        fs::create_dir(project.join(".wercker")).unwrap();
        symlink("../..", project.join(".wercker/latest")).unwrap();
        let said = kept.find().unwrap_err().to_string();
        assert!(said.contains(".wercker/latest is a link"), "{said}");
        kept.clear().unwrap();
        assert!(precious());
        kept.fill(packed("one", b"x").as_slice()).unwrap();
        assert!(precious() && kept.path().join("one").is_file());
        // The output itself.
        kept.clear().unwrap();
        symlink(place.path().join("output"), kept.path()).unwrap();
        assert!(kept.find().unwrap_err().to_string().contains("output is a link"));
        kept.fill(packed("two", b"x").as_slice()).unwrap();
        assert!(precious() && names(&kept.find().unwrap().unwrap()) == ["two"]);
        symlink(place.path().join("output"), kept.path().with_file_name(".output-x")).unwrap();
        kept.clear().unwrap();
        assert!(precious());
        // The first may be anything of the user's.
        fs::remove_dir_all(project.join(".wercker")).unwrap();
        fs::create_dir_all(place.path().join("latest/output")).unwrap();
        symlink(place.path(), project.join(".wercker")).unwrap();
        for refused in [kept.find().map(drop), kept.make()] {
            assert!(refused.unwrap_err().to_string().contains(".wercker is a link"));
        }
        assert!(kept.fill(packed("one", b"x").as_slice()).is_err());
        kept.clear().unwrap();
        assert!(place.path().join("latest/output").is_dir());
    }
}
