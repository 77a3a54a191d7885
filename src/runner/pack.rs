//! Packs the files of a `dockerScratchPush` into an archive on `disk`: `windlass-runner pack`, which the supervisor
//! starts as another process, so that signals and time end it like a script.
//!
//! What it prints goes to the step's log. What came of it stands in a report for the supervisor, who hands it to the
//! agent.
//!
//! **Invariant:** no link is followed and no mount entered below the directory that is packed. Whatever is there is in
//! the archive, or is named in the report.

mod walk;

use super::Error;
use crate::archive::{Fault, Refusal, Writer};
use crate::wire::{PackFault, Packed};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;
use walk::Walk;

/// The subcommand.
pub(super) const PACK_COMMAND: &str = "pack";
/// Largest report.
const REPORT_BYTES: u64 = 64 * 1024;
/// What is gathered before it is written.
const BUFFER_BYTES: usize = 256 * 1024;

/// Why packing ended early.
enum Stop {
    /// A file must not be in an image.
    Refused(Refusal),
    /// The system refused; what was tried, for people.
    Failed(String),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Stop {
    fn failed(what: &str, error: impl Into<io::Error>) -> Self {
        Self::Failed(format!("failed to {what}: {}", error.into()))
    }
}

/// Packs the first of the directories that holds a file, and leaves a report of it.
///
/// # Errors
/// The report cannot be written.
pub(super) fn run(archive: &Path, report: &Path, directories: &[OsString]) -> Result<(), Error> {
    let packed = pack(archive, directories).unwrap_or_else(|stop| match stop {
        Stop::Refused(refusal) => Packed::Refused {
            fault: match refusal.fault {
                Fault::Unsafe => PackFault::Unsafe,
                Fault::TooLarge => PackFault::TooLarge,
            },
            message: refusal.to_string(),
        },
        Stop::Failed(message) => Packed::Refused { fault: PackFault::Failed, message },
    });
    let unfinished = report.with_extension("new");
    let _ = fs::remove_file(&unfinished);
    serde_json::to_vec(&packed)
        .map_err(io::Error::from)
        .and_then(|bytes| fs::write(&unfinished, bytes))
        .and_then(|()| fs::rename(&unfinished, report))
        .map_err(|error| Error::new(format!("write {}", report.display()), error))
}

fn pack(archive: &Path, directories: &[OsString]) -> Result<Packed, Stop> {
    let mut empty = Vec::new();
    for directory in directories {
        let directory = Path::new(directory);
        match open_root(directory)? {
            Some(root) if pack_one(archive, &root, directory)? => return Ok(Packed::Archive),
            Some(_) => empty.push(format!("{} holds no file", directory.display())),
            None => empty.push(format!("{} is no directory", directory.display())),
        }
    }
    let message = format!("{}; put there what the image is to hold", empty.join(" and "));
    Ok(Packed::Refused { fault: PackFault::Empty, message })
}

/// The directory to pack, which may be named through links; `None` if there is none.
fn open_root(directory: &Path) -> Result<Option<OwnedFd>, Stop> {
    match open(directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(root) => Ok(Some(root)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(Stop::failed(&format!("open {}", directory.display()), errno)),
    }
}

/// Gives the archive to who reads it: the owner of the directory, which is root in a cluster and the user on a laptop.
fn hand_over(file: &File, archive: &Path) -> io::Result<()> {
    let Some(directory) = archive.parent() else { return Ok(()) };
    let owner = fs::metadata(directory)?.uid();
    if owner == 0 || owner == file.metadata()?.uid() || fchown(file, Some(owner), None).is_ok() {
        return Ok(());
    }
    // This user may give nothing away; all others of the box could read it then, too.
    file.set_permissions(Permissions::from_mode(0o644))
}

/// Packs a directory; `false` if it holds no file.
fn pack_one(archive: &Path, root: &OwnedFd, directory: &Path) -> Result<bool, Stop> {
    let unwritten = |error: io::Error| Stop::failed("write the archive", error);
    let _ = fs::remove_file(archive);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(archive).map_err(unwritten)?;
    let writer = Writer::new(BufWriter::with_capacity(BUFFER_BYTES, &file));
    let mut walk = Walk::new(root, writer);
    walk.everything()?;
    let (writer, said) = walk.end();
    let written = writer.finish().and_then(|buffer| buffer.into_inner().map_err(io::IntoInnerError::into_error));
    written.map_err(unwritten)?;
    hand_over(&file, archive).map_err(unwritten)?;
    if let Some(said) = said {
        println!("packed {said} of {}", directory.display());
        return Ok(true);
    }
    Ok(false)
}

/// Takes the report that the packing left. It is the step's word: not followed, waited for or read beyond its limit.
pub(super) fn take_report(path: &Path) -> Packed {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let _ = fs::remove_file(path);
    let read = file.and_then(|file: File| {
        let mut bytes = Vec::new();
        if file.metadata()?.is_file() {
            file.take(REPORT_BYTES).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    });
    read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from)).unwrap_or_else(|error| {
        Packed::Refused { fault: PackFault::Failed, message: format!("the packing left no report: {error}") }
    })
}

#[cfg(test)]
mod tests;
