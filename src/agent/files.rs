//! The volumes of a run pod as the kubelet keeps them on the node.
//!
//! `observe` reads the journal here, `push` the request and `credentials` the Secrets; `apply` writes answers.
//!
//! **Invariant:** everything in `out` and `disk` is hostile. It is opened beneath the volume's directory without
//! following a link, must be a regular file, and is read up to a cap. No descriptor of `in` and `out` is kept, as an
//! open one would keep the kubelet from taking the volume down.

use super::work::Verdict;
use crate::wire::{DISK_VOLUME, IN_VOLUME, OUT_VOLUME, PLAN_FILE, POD_IP_FILE, Plan, verdict_file};
use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, fstat, openat2, renameat_with, statat,
        unlinkat,
    },
    io::{Errno, pread, write},
};
use std::{
    net::IpAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// Most entries that are read of a directory of a Secret.
const MAX_ENTRIES: usize = 1000;
/// Largest verdict: a few hundred tags with their repository, and a message.
const MAX_VERDICT_BYTES: usize = 1024 * 1024;
/// Largest plan: an environment of one megabyte, and the scripts.
const MAX_PLAN_BYTES: usize = 8 * 1024 * 1024;
/// Longest text of an IP address.
const MAX_IP_BYTES: usize = 64;

/// What went wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("{operation} {name}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Name of the file.
        name: String,
        /// What the system said.
        #[source]
        source: Errno,
    },
    /// Not a regular file.
    #[error("read {0}: not a regular file")]
    NotAFile(String),
    /// Likewise, where the words of the parser may quote a value.
    #[error("read {0}: not as expected")]
    Unreadable(String),
    /// Over the cap.
    #[error("read {name}: larger than {cap} bytes")]
    TooLarge {
        /// Name of the file.
        name: String,
        /// The cap.
        cap: usize,
    },
    /// A directory over the cap.
    #[error("list {name}: more than {cap} entries")]
    TooMany {
        /// Name of the directory.
        name: String,
        /// The cap.
        cap: usize,
    },
}

impl FileError {
    /// Whether the file or its volume is not there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::System { source: Errno::NOENT | Errno::NOTDIR, .. })
    }
}

fn failed(operation: &'static str, name: &str) -> impl FnOnce(Errno) -> FileError {
    move |source| FileError::System { operation, name: name.to_owned(), source }
}

/// The volumes of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volumes {
    root: PathBuf,
}

impl Volumes {
    /// The volumes of a pod. The UID was checked to be one.
    #[must_use]
    pub fn new(kubelet_dir: &Path, pod_uid: &str) -> Self {
        Self { root: kubelet_dir.join("pods").join(pod_uid).join("volumes") }
    }

    /// What the box writes.
    #[must_use]
    pub fn out_dir(&self) -> PathBuf {
        self.root.join("kubernetes.io~empty-dir").join(OUT_VOLUME)
    }

    /// What the box reads.
    #[must_use]
    pub fn in_dir(&self) -> PathBuf {
        self.root.join("kubernetes.io~empty-dir").join(IN_VOLUME)
    }

    /// What the box writes that is large.
    #[must_use]
    pub fn disk_dir(&self) -> PathBuf {
        self.root.join("kubernetes.io~empty-dir").join(DISK_VOLUME)
    }

    fn secrets_dir(&self) -> PathBuf {
        self.root.join("kubernetes.io~secret")
    }

    /// A piece of a file in `out`, from `offset` on, at most `cap` bytes; `None` if there is no such file.
    pub fn read_out_at(&self, name: &str, offset: u64, cap: usize) -> Result<Option<Vec<u8>>, FileError> {
        let Some(file) = open_regular(&self.out_dir(), name)? else { return Ok(None) };
        let mut bytes = vec![0; cap];
        let length = read_up_to(&file, &mut bytes, offset, name)?;
        bytes.truncate(length);
        Ok(Some(bytes))
    }

    /// A whole file in `out`; `None` if there is no such file.
    pub fn read_out(&self, name: &str, cap: usize) -> Result<Option<Vec<u8>>, FileError> {
        read_whole(&self.out_dir(), name, cap)
    }

    /// Opens a file in `disk` to read it piece by piece; `None` if there is no such file. That volume is a plain
    /// directory, so an open file does not keep the kubelet from taking it down.
    pub fn open_disk(&self, name: &str) -> Result<Option<std::fs::File>, FileError> {
        Ok(open_regular(&self.disk_dir(), name)?.map(std::fs::File::from))
    }

    /// Whether a file is in `in`.
    #[must_use]
    pub fn is_in(&self, name: &str) -> bool {
        open_dir(&self.in_dir()).is_ok_and(|dir| statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok())
    }

    /// The pod's address as `prepare` left it in `in`, which the box cannot write to.
    pub fn pod_ip(&self) -> Result<Option<IpAddr>, FileError> {
        let file = read_whole(&self.in_dir(), POD_IP_FILE, MAX_IP_BYTES)?;
        Ok(file.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.parse().ok()))
    }

    /// The verdict that an agent left in `in`. The box cannot write there, but `prepare` could: what is not of our own user
    /// is no verdict.
    pub fn verdict(&self, step: usize) -> Result<Option<Verdict>, FileError> {
        let name = verdict_file(step);
        let Some(file) = open_regular(&self.in_dir(), &name)? else { return Ok(None) };
        let stat = fstat(&file).map_err(failed("look at", &name))?;
        if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o022 != 0 {
            tracing::warn!(name, uid = stat.st_uid, "a verdict that no agent wrote is left alone");
            return Ok(None);
        }
        Ok(Verdict::from_bytes(step, &read_regular(&file, &name, MAX_VERDICT_BYTES)?))
    }

    /// What `prepare` told the runner, which the box cannot write to. An error quotes no value.
    pub fn plan(&self) -> Result<Option<Plan>, FileError> {
        let bytes = read_whole(&self.in_dir(), PLAN_FILE, MAX_PLAN_BYTES)?;
        let read = |bytes: Vec<u8>| serde_json::from_slice(&bytes).map_err(|_| FileError::Unreadable(PLAN_FILE.into()));
        bytes.map(read).transpose()
    }

    /// Puts a file into `in` whole, readable by all. A file that is there stays: `false`.
    pub fn put_in(&self, name: &str, bytes: &[u8]) -> Result<bool, FileError> {
        let dir = open_dir(&self.in_dir()).map_err(failed("open the directory of", name))?;
        let temporary = format!(".{name}.part");
        match unlinkat(&dir, temporary.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed("remove the rest of", name)(errno)),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat2(&dir, temporary.as_str(), flags, Mode::from_raw_mode(0o644), beneath())
            .map_err(failed("create", name))?;
        // The umask must not decide who reads it: the UID of the box is not known.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644)).map_err(failed("create", name))?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = write(&file, rest).map_err(failed("write", name))?;
            rest = rest.get(written..).unwrap_or_default();
        }
        drop(file);
        match renameat_with(&dir, temporary.as_str(), &dir, name, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => {
                let _ = unlinkat(&dir, temporary.as_str(), AtFlags::empty());
                Ok(false)
            }
            Err(errno) => Err(failed("rename", name)(errno)),
        }
    }

    /// Names of the keys in a Secret volume, sorted; empty if it is missing.
    pub fn secret_keys(&self, volume: &str) -> Result<Vec<String>, FileError> {
        let mut keys = names(&self.secrets_dir().join(volume), volume)?;
        keys.retain(|key| !key.starts_with(".."));
        Ok(keys)
    }

    /// The value of a key in a Secret volume; `None` if there is no such key. The kubelet keeps the values
    /// behind links of its own, which are followed no further than the volume.
    pub fn secret(&self, volume: &str, key: &str, cap: usize) -> Result<Option<Vec<u8>>, FileError> {
        let dir = match open_dir(&self.secrets_dir().join(volume)) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed("open the volume of", key)(errno)),
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match openat2(&dir, key, flags, Mode::empty(), resolve) {
            Ok(file) => read_regular(&file, key, cap).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed("open", key)(errno)),
        }
    }
}

fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

/// A directory that the kubelet made; the path is not in the hands of the box.
fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// A regular file right in a hostile directory; `None` if there is none.
fn open_regular(dir: &Path, name: &str) -> Result<Option<OwnedFd>, FileError> {
    let dir = match open_dir(dir) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed("open the directory of", name)(errno)),
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match openat2(&dir, name, flags, Mode::empty(), beneath()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        // A link where a file belongs.
        Err(Errno::LOOP) => return Err(FileError::NotAFile(name.to_owned())),
        Err(errno) => return Err(failed("open", name)(errno)),
    };
    let stat = fstat(&file).map_err(failed("look at", name))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(FileError::NotAFile(name.to_owned()));
    }
    Ok(Some(file))
}

fn read_whole(dir: &Path, name: &str, cap: usize) -> Result<Option<Vec<u8>>, FileError> {
    let Some(file) = open_regular(dir, name)? else { return Ok(None) };
    read_regular(&file, name, cap).map(Some)
}

fn read_regular(file: &OwnedFd, name: &str, cap: usize) -> Result<Vec<u8>, FileError> {
    let stat = fstat(file).map_err(failed("look at", name))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(FileError::NotAFile(name.to_owned()));
    }
    // Room for what the file claims to hold and a byte more, to see that it holds more.
    let claimed = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    if claimed > cap {
        return Err(FileError::TooLarge { name: name.to_owned(), cap });
    }
    let mut bytes = vec![0; claimed + 1];
    let length = read_up_to(file, &mut bytes, 0, name)?;
    if length > claimed {
        return Err(FileError::TooLarge { name: name.to_owned(), cap: claimed });
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Fills the buffer as far as the file goes.
fn read_up_to(file: &OwnedFd, buffer: &mut [u8], offset: u64, name: &str) -> Result<usize, FileError> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match pread(file, rest, offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed("read", name)(errno)),
        }
    }
    Ok(filled)
}

/// Names in a directory, sorted; empty if it is missing.
fn names(path: &Path, name: &str) -> Result<Vec<String>, FileError> {
    let dir = match open_dir(path) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(errno) => return Err(failed("open", name)(errno)),
    };
    let mut names = Vec::new();
    for entry in Dir::new(dir).map_err(failed("list", name))? {
        let entry = entry.map_err(failed("list", name))?;
        // Keys of a Secret are ASCII.
        let Ok(entry) = entry.file_name().to_str() else { continue };
        if entry == "." || entry == ".." {
            continue;
        }
        if names.len() == MAX_ENTRIES {
            return Err(FileError::TooMany { name: name.to_owned(), cap: MAX_ENTRIES });
        }
        names.push(entry.to_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests;
