//! The directory on this machine: what is in it, what of it the box has, and what is to be sent.
//!
//! **Invariant:** ignore rules are those of a watched step (`watcher::ignore`). A link that leaves the directory is not
//! sent, and none is followed. Nothing is told to be gone that is still here, or that was never sent.

use crate::{
    archive::{Entry, Kind, Writer, sync, sync::Change},
    watcher::Tree,
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Write},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

/// What a file was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    kind: What,
    mode: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Directory,
    /// Size, time of the last change in nanoseconds, number.
    File(u64, i128, u64),
    Link(Vec<u8>),
}

/// What is in a directory, by path; a directory stands before what is in it.
pub(super) type Looks = BTreeMap<Vec<u8>, Look>;

/// The directory.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub root: PathBuf,
    /// Patterns of `--ignore`.
    pub ignore: Vec<String>,
}

/// What is here, and what of it cannot be sent.
#[derive(Debug, Default)]
pub(super) struct Here {
    pub looks: Looks,
    /// Files, or links, that are left out though no rule says so, and why.
    pub odd: BTreeMap<Vec<u8>, &'static str>,
    /// There is more than is looked at.
    pub cut: bool,
}

/// What is to be sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Delta {
    /// What is in a directory before the directory.
    pub gone: Vec<Vec<u8>>,
    /// A directory before what is in it.
    pub came: Vec<Vec<u8>>,
    /// Bytes of all files.
    pub bytes: u64,
}

impl Local {
    /// Looks at everything that counts.
    pub(super) fn look(&self) -> Here {
        let mut tree = Tree::new(&self.root, &self.ignore);
        let mut here = Here::default();
        // It cannot fail: nothing here does.
        let _ = tree.walk(Path::new(""), |path, whole, _| {
            let path = path.as_os_str().as_bytes();
            match look_at(path, whole) {
                _ if path.is_empty() => {}
                Ok(Some(look)) => drop(here.looks.insert(path.to_vec(), look)),
                // It went meanwhile.
                Ok(None) => {}
                Err(why) => drop(here.odd.insert(path.to_vec(), why)),
            }
            Ok(())
        });
        here.cut = tree.cut;
        here
    }

    /// What the box does not have, or has otherwise.
    pub(super) fn delta(&self, sent: &Looks, here: &Looks) -> Delta {
        // What lies behind a link that was a directory is elsewhere.
        let is_here = |path: &[u8]| {
            let path = Path::new(std::ffi::OsStr::from_bytes(path));
            let real = |above: &Path| {
                above.as_os_str().is_empty()
                    || fs::symlink_metadata(self.root.join(above)).is_ok_and(|meta| meta.is_dir())
            };
            path.ancestors().skip(1).all(real) && fs::symlink_metadata(self.root.join(path)).is_ok()
        };
        let went = sent.keys().rev().filter(|path| !here.contains_key(*path));
        // What is ignored since then is here all the same.
        let gone = went.filter(|path| !is_here(path)).cloned().collect();
        let came: Vec<_> = here.iter().filter(|(path, look)| sent.get(*path) != Some(*look)).collect();
        let size = |look: &Look| if let What::File(size, ..) = look.kind { size } else { 0 };
        let bytes = came.iter().map(|(_, look)| size(look)).sum();
        Delta { gone, came: came.into_iter().map(|(path, _)| path.clone()).collect(), bytes }
    }

    /// Writes a delta as an archive, and takes note in `sent` of what the box has then. `told` is called with the number
    /// of files and bytes as they are written.
    ///
    /// # Errors
    /// The stream's. What cannot be read is left out: it is found again at the next look.
    pub(super) fn pack(
        &self,
        delta: &Delta,
        sent: &mut Looks,
        out: impl Write,
        mut told: impl FnMut(u64, u64),
    ) -> io::Result<()> {
        let mut writer = Writer::new(out);
        for path in &delta.gone {
            writer.entry(&sync::entry(&Change::Gone(path.clone())), false)?;
            sent.remove(path);
        }
        let (mut files, mut bytes) = (0, 0);
        for path in &delta.came {
            files += 1;
            let whole = self.whole(path);
            let Ok(Some(look)) = look_at(path, &whole) else { continue };
            let entry = |kind: Kind| Entry { path: path.clone(), kind, mode: look.mode, uid: 0, gid: 0, mtime: 0 };
            match &look.kind {
                What::Directory => writer.entry(&entry(Kind::Directory), false)?,
                What::Link(target) => writer.entry(&entry(Kind::Symlink { target: target.clone() }), false)?,
                What::File(..) => {
                    let Some((mut file, look)) = open(&whole) else { continue };
                    let What::File(size, ..) = look.kind else { continue };
                    let kind = Kind::File { size, linked: false };
                    writer.entry(&Entry { mode: look.mode, ..entry(kind) }, false)?;
                    let whole = copy(&mut file, size, &mut writer, |count| {
                        bytes += count;
                        told(files, bytes);
                    })?;
                    // One that changed under our hands is sent again.
                    match whole {
                        true => drop(sent.insert(path.clone(), look)),
                        false => drop(sent.remove(path)),
                    }
                    continue;
                }
            }
            sent.insert(path.clone(), look);
        }
        told(files, bytes);
        writer.finish()?.flush()
    }

    fn whole(&self, path: &[u8]) -> PathBuf {
        self.root.join(std::ffi::OsStr::from_bytes(path))
    }
}

/// What is at a path; `None` if nothing is, or nothing that a source can hold.
fn look_at(path: &[u8], whole: &Path) -> Result<Option<Look>, &'static str> {
    let Ok(meta) = fs::symlink_metadata(whole) else { return Ok(None) };
    let kind = meta.file_type();
    let is = |what| Ok(Some(Look { kind: what, mode: meta.mode() & 0o777 }));
    if !path.is_empty() && !sync::is_tellable(path) {
        return Err("its name or path cannot be sent");
    }
    if kind.is_dir() {
        return is(What::Directory);
    }
    if kind.is_symlink() {
        let target = fs::read_link(whole).map_err(|_| "the link cannot be read")?.into_os_string().into_vec();
        return if sync::stays(path, &target) {
            is(What::Link(target))
        } else {
            Err("the link leads out of the directory")
        };
    }
    if kind.is_file() { is(of_file(&meta)) } else { Ok(None) }
}

fn of_file(meta: &fs::Metadata) -> What {
    What::File(meta.len(), i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()), meta.ino())
}

/// Opens a file, and says what it is while it is open.
fn open(whole: &Path) -> Option<(File, Look)> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(whole).ok()?;
    let meta = file.metadata().ok().filter(fs::Metadata::is_file)?;
    Some((file, Look { kind: of_file(&meta), mode: meta.mode() & 0o777 }))
}

/// Copies as many bytes as were promised; false if the file has not as many any more, and zeros stand for them.
fn copy(file: &mut File, size: u64, writer: &mut Writer<impl Write>, mut told: impl FnMut(u64)) -> io::Result<bool> {
    let (mut left, mut whole) = (size, true);
    let mut buffer = vec![0; 64 * 1024];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let room = buffer.get_mut(..most).unwrap_or_default();
        let count = match file.read(room) {
            Ok(0) | Err(_) => {
                whole = false;
                room.fill(0);
                room.len()
            }
            Ok(count) => count,
        };
        writer.content(buffer.get(..count).unwrap_or_default())?;
        left -= count as u64;
        told(count as u64);
    }
    Ok(whole)
}
