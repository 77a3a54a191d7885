//! Changes of the source from a person's machine: `windlass-runner receive`, which `windlass dev` execs.
//!
//! ```text
//! windlass dev ── exec, stdin: an archive (archive::sync) ──> receive ──> files of the source directory
//!              <── stdout: how many ──
//! ```
//!
//! **Invariant:** nothing outside the source directory is written, and no link in it is followed. A file is there
//! as it was or as it is now, never half of it. What is read is bounded by the rules of `archive`.

use super::control::{self, Call, Reply};
use super::terminal::say;
use crate::archive::{
    Entry, Kind, MAX_BYTES, MAX_ENTRIES, Reader,
    sync::{self, Change},
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// The verb.
pub(super) const RECEIVE_COMMAND: &str = "receive";
/// The run does not take it, now.
const EXIT_REFUSED: u8 = 1;
/// It was taken, and could not be carried out.
const EXIT_FAILED: u8 = 74;
/// Where the source is, among the variables of a step.
const SOURCE_VARIABLE: &[u8] = b"WINDLASS_SOURCE_DIR=";
/// How the name of a file begins that is not whole yet; `watcher::ignore` leaves it out.
const PART_PREFIX: &str = ".windlass-part-";

/// Carries the verb out: changes from stdin, into the source directory of the run.
pub(super) fn run(outbox: &Path) -> u8 {
    let source = match source_of_the_run(outbox) {
        Ok(source) => source,
        Err(why) => {
            say(&why);
            return EXIT_REFUSED;
        }
    };
    match receive(&source, io::stdin().lock()) {
        Ok(count) => {
            // Whoever sent it may have left; it is done.
            let _ = writeln!(io::stdout(), "{} changed, {} removed", count.changed, count.removed);
            0
        }
        Err(why) => {
            say(&why);
            EXIT_FAILED
        }
    }
}

fn source_of_the_run(outbox: &Path) -> Result<PathBuf, String> {
    let encoded = match control::call(outbox, &Call::Environment)? {
        Reply::Environment(encoded) => encoded,
        Reply::Refused(why) => return Err(why),
        Reply::Done(_) | Reply::Terminal { .. } => return Err("the run answered something else".into()),
    };
    let bytes = BASE64.decode(encoded).map_err(|error| format!("the environment cannot be read: {error}"))?;
    let mut variables = bytes.split(|byte| *byte == 0);
    let source = variables.find_map(|variable| variable.strip_prefix(SOURCE_VARIABLE));
    source
        .map(|source| PathBuf::from(OsStr::from_bytes(source)))
        .ok_or_else(|| "the run has no source directory".into())
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    changed: u64,
    removed: u64,
}

/// Carries out the changes of an archive in `root`.
///
/// # Errors
/// What went wrong, for people; what came before it is done.
fn receive(root: &Path, stream: impl Read) -> Result<Count, String> {
    let mut target = Target::open(root).map_err(|errno| format!("{}: {errno}", root.display()))?;
    let mut reader = Reader::new(stream);
    let (mut count, mut bytes) = (Count::default(), 0_u64);
    while let Some(entry) = reader.next_entry().map_err(|error| error.to_string())? {
        let named = String::from_utf8_lossy(&entry.path).into_owned();
        bytes = bytes.saturating_add(entry.size());
        if count.changed + count.removed >= MAX_ENTRIES || bytes > MAX_BYTES {
            return Err(format!("{named}: too much for one time"));
        }
        let failed = |error: io::Error| format!("{named}: {error}");
        match sync::change(entry).map_err(|why| format!("{named} {why}"))? {
            Change::Gone(path) => {
                target.remove(&path).map_err(failed)?;
                count.removed += 1;
            }
            Change::Is(entry) => {
                target.put(&entry, &mut reader).map_err(failed)?;
                count.changed += 1;
            }
        }
    }
    Ok(count)
}

/// The source directory, and the directory below it that was written to last.
struct Target {
    root: OwnedFd,
    last: Option<(Vec<u8>, OwnedFd)>,
    parts: u64,
}

/// A directory that is no link.
const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

impl Target {
    fn open(root: &Path) -> Result<Self, Errno> {
        let root =
            openat(nix::fcntl::AT_FDCWD, root, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Self { root, last: None, parts: 0 })
    }

    /// The directory of `path`, made if it is missing and if it shall be, and the name in it.
    fn parent(&mut self, path: &[u8], make: bool) -> Result<(&OwnedFd, OsString), Errno> {
        let slash = path.iter().rposition(|byte| *byte == b'/');
        let (directory, name) = match slash {
            Some(slash) => (path.get(..slash).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default()),
            None => (&[][..], path),
        };
        let name = OsString::from_vec(name.to_vec());
        if directory.is_empty() {
            return Ok((&self.root, name));
        }
        if self.last.as_ref().is_none_or(|(last, _)| last != directory) {
            let mut at = None;
            for part in directory.split(|byte| *byte == b'/') {
                let below = at.as_ref().unwrap_or(&self.root);
                at = Some(enter(below, OsStr::from_bytes(part), make)?);
            }
            self.last = at.map(|at| (directory.to_vec(), at));
        }
        Ok((self.last.as_ref().map_or(&self.root, |(_, at)| at), name))
    }

    /// Makes what an entry says, in place of what is there.
    fn put(&mut self, entry: &Entry, content: &mut Reader<impl Read>) -> io::Result<()> {
        self.parts += 1;
        let part = OsString::from(format!("{PART_PREFIX}{}-{}", std::process::id(), self.parts));
        let mode = Mode::from_bits_truncate(entry.mode & 0o777);
        let (directory, name) = self.parent(&entry.path, true)?;
        match &entry.kind {
            Kind::Directory => {
                let made = enter(directory, &name, true)?;
                // One that we could not enter any more could not be kept up to date.
                fchmod(&made, mode | Mode::S_IRWXU)?;
                return Ok(());
            }
            Kind::Symlink { target } => symlinkat(OsStr::from_bytes(target), directory, part.as_os_str())?,
            Kind::File { .. } => {
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let file = openat(directory, part.as_os_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
                if let Err(error) = fill(File::from(file), mode, content) {
                    let _ = unlinkat(directory, part.as_os_str(), UnlinkatFlags::NoRemoveDir);
                    return Err(error);
                }
            }
            Kind::HardLink { .. } => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
        }
        if is_directory(directory, &name) {
            clear(directory, &name)?;
        }
        if let Err(errno) = renameat(directory, part.as_os_str(), directory, name.as_os_str()) {
            let _ = unlinkat(directory, part.as_os_str(), UnlinkatFlags::NoRemoveDir);
            return Err(errno.into());
        }
        Ok(())
    }

    /// Removes a file, or a directory with nothing in it: what steps made in it stays.
    fn remove(&mut self, path: &[u8]) -> io::Result<()> {
        let (directory, name) = match self.parent(path, false) {
            Ok(found) => found,
            // It is gone with its directory.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let how = if is_directory(directory, &name) { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir };
        match unlinkat(directory, name.as_os_str(), how) {
            Ok(()) => {
                self.last = None;
                Ok(())
            }
            Err(Errno::ENOENT | Errno::ENOTEMPTY | Errno::EEXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Writes the content of an entry.
fn fill(mut file: File, mode: Mode, content: &mut Reader<impl Read>) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = content.content(&mut buffer).map_err(io::Error::other)?;
        if count == 0 {
            break;
        }
        file.write_all(buffer.get(..count).unwrap_or_default())?;
    }
    Ok(fchmod(file.as_fd(), mode)?)
}

/// Opens a directory; what else has its name makes way if it shall be made.
fn enter(below: &OwnedFd, name: &OsStr, make: bool) -> Result<OwnedFd, Errno> {
    match openat(below, name, DIRECTORY, Mode::empty()) {
        Err(Errno::ENOENT) if make => {}
        Err(Errno::ENOTDIR | Errno::ELOOP) if make => unlinkat(below, name, UnlinkatFlags::NoRemoveDir)?,
        other => return other,
    }
    mkdirat(below, name, Mode::from_bits_truncate(0o755))?;
    openat(below, name, DIRECTORY, Mode::empty())
}

fn is_directory(at: &OwnedFd, name: &OsStr) -> bool {
    fstatat(at, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| stat.st_mode & nix::libc::S_IFMT == nix::libc::S_IFDIR)
}

/// Removes a directory with all that is in it.
fn clear(at: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let directory = openat(at, name, DIRECTORY, Mode::empty())?;
    let mut left = nix::dir::Dir::from_fd(directory.try_clone()?)?;
    let names: Vec<OsString> = left
        .iter()
        .flatten()
        .map(|entry| OsString::from_vec(entry.file_name().to_bytes().to_vec()))
        .filter(|name| name != "." && name != "..")
        .collect();
    for inside in names {
        if is_directory(&directory, &inside) {
            clear(&directory, &inside)?;
        } else {
            unlinkat(&directory, inside.as_os_str(), UnlinkatFlags::NoRemoveDir)?;
        }
    }
    Ok(unlinkat(at, name, UnlinkatFlags::RemoveDir)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Writer;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    /// An archive: `path/`, `path>link`, `path=content`, `-path`.
    fn archive(words: &[&str]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for word in words {
            let entry = |path: &str, kind| Entry { path: path.into(), kind, mode: 0o755, uid: 0, gid: 0, mtime: 0 };
            if let Some(path) = word.strip_prefix('-') {
                writer.entry(&sync::entry(&Change::Gone(path.into())), false).unwrap();
            } else if let Some((path, target)) = word.split_once('>') {
                writer.entry(&entry(path, Kind::Symlink { target: target.into() }), false).unwrap();
            } else if let Some((path, content)) = word.split_once('=') {
                let kind = Kind::File { size: content.len() as u64, linked: false };
                writer.entry(&entry(path, kind), false).unwrap();
                writer.content(content.as_bytes()).unwrap();
            } else {
                writer.entry(&entry(word.trim_end_matches('/'), Kind::Directory), false).unwrap();
            }
        }
        writer.finish().unwrap()
    }

    fn take(root: &Path, words: &[&str]) -> Result<Count, String> {
        receive(root, archive(words).as_slice())
    }

    #[test]
    fn changes_are_carried_out() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let read = |path: &str| fs::read_to_string(at(path)).unwrap();
        let done = take(dir.path(), &["a/", "a/b=one", "c=two", "d>a/b", "e/f=three"]).unwrap();
        assert_eq!(done, Count { changed: 5, removed: 0 });
        assert_eq!((read("a/b").as_str(), read("d").as_str(), read("e/f").as_str()), ("one", "one", "three"));
        assert_eq!(fs::metadata(at("a/b")).unwrap().permissions().mode() & 0o7777, 0o755);
        // Files for directories and the other way round; what steps made in a directory stays with it.
        fs::write(at("a/made"), "here").unwrap();
        take(dir.path(), &["-a/b", "-a", "-nosuch/x", "-c", "c/", "c/x=1", "d=file", "e=file"]).unwrap();
        assert!(!at("a/b").exists() && read("a/made") == "here" && read("c/x") == "1");
        assert!(read("d") == "file" && !at("d").is_symlink() && read("e") == "file");
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| !name.to_string_lossy().starts_with(PART_PREFIX)), "{names:?}");
    }

    #[test]
    fn nothing_outside_is_written_or_removed() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("kept"), "kept").unwrap();
        symlink(outside.path(), dir.path().join("way")).unwrap();
        for words in [&["/etc/x=1"][..], &["../x=1"], &["a/../../x=1"], &["x>/etc"], &["a/x>../../y"], &["-../x"]] {
            let why = take(dir.path(), words).unwrap_err();
            assert!(why.contains("elsewhere"), "{words:?}: {why}");
        }
        // A link that a step made is not followed: it makes way.
        take(dir.path(), &["-way/kept"]).unwrap();
        take(dir.path(), &["way/new=1"]).unwrap();
        assert!(!dir.path().join("way").is_symlink());
        let names: Vec<_> = fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["kept"]);
        // A directory that a file replaces goes with what is in it, but not with what links in it name.
        symlink(outside.path(), dir.path().join("way/out")).unwrap();
        take(dir.path(), &["way=file"]).unwrap();
        assert_eq!(fs::read_to_string(outside.path().join("kept")).unwrap(), "kept");
    }

    #[test]
    fn what_breaks_off_leaves_the_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "old").unwrap();
        let long = format!("a={}", "x".repeat(100_000));
        let whole = archive(&["b=1", &long]);
        assert!(receive(dir.path(), &whole[..80_000]).is_err());
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no part is left");
        assert!(receive(dir.path(), whole.as_slice()).is_ok());
    }
}
