//! The rules for what may be in the tree of an image from scratch.
//!
//! The runner asks [`Tree::admit`] for each file before it packs it, the agent for each entry that it reads.
//!
//! What is refused, and why: a path that an unpacker could lead out of the image or that it takes for a deletion
//! (`.wh.`); anything that is no file, directory or link; links that leave the tree; numbers that runtimes have
//! misread (owners above 2147483647 have become root). A setuid file is kept, as images may hold them.
//!
//! **Invariant:** what was admitted is a tree: each path once, in order, below a directory that came before, and a
//! hard link names a file that came before.

use super::{Entry, Kind};
use std::borrow::Cow;
use std::collections::{HashSet, hash_map::RandomState};
use std::fmt;
use std::hash::BuildHasher as _;

/// Longest path. Engines put the path of their own folder before it, and Linux takes 4095 bytes.
pub const MAX_PATH_BYTES: usize = 3072;
/// Longest name between two slashes.
const MAX_NAME_BYTES: usize = 255;
/// Longest content of a symbolic link.
const MAX_LINK_BYTES: usize = 4095;
/// Most files, directories and links.
pub const MAX_ENTRIES: u64 = 1_000_000;
/// Most bytes of all files together.
pub const MAX_BYTES: u64 = 10 * 1024 * 1024 * 1024;
/// Most files that hard links name.
const MAX_LINKED: usize = 100_000;
/// Largest owner or group.
const MAX_ID: u32 = i32::MAX.unsigned_abs();
/// How names begin that unpackers take for "delete this".
const WHITEOUT: &[u8] = b".wh.";
/// Most characters of a message at each of its ends.
const MAX_SHOWN: usize = 200;

/// What kind of rule was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The file must not be in an image.
    Unsafe,
    /// The tree is too large.
    TooLarge,
}

/// Why a file is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of rule.
    pub fault: Fault,
    /// Path of the file, below the root.
    pub path: Vec<u8>,
    /// What is wrong with it, as in `is a device`.
    pub why: String,
}

impl Refusal {
    /// The file must not be in an image.
    #[must_use]
    pub fn unsafe_file(path: &[u8], why: impl Into<String>) -> Self {
        Self { fault: Fault::Unsafe, path: path.to_owned(), why: why.into() }
    }
}

/// The whole of it, as a path may hold what is to be masked before it is cut; then see [`short`].
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{} {}", text(&self.path), self.why)
    }
}

impl std::error::Error for Refusal {}

/// A message about a file, on one line and bounded. It is cut in its middle: paths can be long, and its end says what
/// is wrong.
#[must_use]
pub fn short(message: &str) -> String {
    let shown = |text: &str| -> String { text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect() };
    let head = message.char_indices().nth(MAX_SHOWN).map(|(at, _)| at);
    let tail = message.char_indices().nth_back(MAX_SHOWN - 1).map(|(at, _)| at);
    match (head.and_then(|at| message.get(..at)), tail.and_then(|at| message.get(at..))) {
        (Some(head), Some(tail)) if head.len() + tail.len() < message.len() => {
            format!("{}…{}", shown(head), shown(tail))
        }
        _ => shown(message),
    }
}

fn text(path: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(path)
}

/// What was admitted so far.
#[derive(Default)]
pub struct Tree {
    last: Vec<u8>,
    /// The directory that new entries can be in, or in one above it.
    directory: Vec<u8>,
    /// Hashes of the paths that hard links may name. The keys of the hash are random.
    linked: HashSet<u64>,
    hashes: RandomState,
    entries: u64,
    files: u64,
    bytes: u64,
}

impl Tree {
    /// Entries that are no directories.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.files
    }

    /// Bytes of all files together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the next entry, or says why it may not be.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn admit(&mut self, entry: &Entry) -> Result<(), Refusal> {
        let path = entry.path.as_slice();
        let wrong = |why: &str| Refusal::unsafe_file(path, why);
        check_path(path).map_err(|why| wrong(&why))?;
        self.place(path).map_err(wrong)?;
        if entry.uid > MAX_ID || entry.gid > MAX_ID {
            let why = format!("belongs to {}:{}; numbers end at {MAX_ID}", entry.uid, entry.gid);
            return Err(wrong(&why));
        }
        match &entry.kind {
            Kind::File { linked: true, .. } => {
                if self.linked.len() >= MAX_LINKED {
                    return Err(too_large(path, format!("is one too many with hard links; {MAX_LINKED} are the most")));
                }
                self.linked.insert(self.hashes.hash_one(path));
            }
            Kind::HardLink { target } if !self.linked.contains(&self.hashes.hash_one(target.as_slice())) => {
                return Err(wrong(&format!("is a hard link to {}, which is no file of this tree", text(target))));
            }
            Kind::Symlink { target } => check_symlink(path, target).map_err(|why| wrong(&why))?,
            Kind::Directory => self.directory = path.to_owned(),
            Kind::File { linked: false, .. } | Kind::HardLink { .. } => {}
        }
        self.entries += 1;
        self.files += u64::from(entry.kind != Kind::Directory);
        self.bytes = self.bytes.saturating_add(entry.size());
        if self.entries > MAX_ENTRIES {
            return Err(too_large(path, format!("is one file too many; {MAX_ENTRIES} are the most")));
        }
        if self.bytes > MAX_BYTES {
            return Err(too_large(path, format!("makes it more than {} GiB", MAX_BYTES >> 30)));
        }
        path.clone_into(&mut self.last);
        Ok(())
    }

    /// Whether a path can come next: after the last, and below a directory that came before.
    fn place(&mut self, path: &[u8]) -> Result<(), &'static str> {
        let slash = path.iter().rposition(|byte| *byte == b'/');
        let parent = slash.and_then(|at| path.get(..at)).unwrap_or_default();
        let below = self.directory.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
        if !parent.is_empty() && !below {
            return Err("is not below a directory of this tree");
        }
        if !self.last.is_empty() && !components(path).gt(components(&self.last)) {
            return Err("is there twice, or out of order");
        }
        self.directory.truncate(parent.len());
        Ok(())
    }
}

fn too_large(path: &[u8], why: String) -> Refusal {
    Refusal { fault: Fault::TooLarge, path: path.to_owned(), why }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
}

/// Whether a path stays in the image, is not too long, and means nothing but itself.
fn check_path(path: &[u8]) -> Result<(), String> {
    if path.len() > MAX_PATH_BYTES {
        return Err(format!("has a path of {} bytes; {MAX_PATH_BYTES} are the most", path.len()));
    }
    for name in components(path) {
        if name.is_empty() || name == b"." || name == b".." || name.contains(&0) {
            return Err("has a path that leads elsewhere".into());
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(format!("has a name of {} bytes; {MAX_NAME_BYTES} are the most", name.len()));
        }
        if name.starts_with(WHITEOUT) {
            return Err("has a name that begins with .wh., which means a deletion in an image; rename it".into());
        }
    }
    Ok(())
}

/// Whether a symbolic link stays in the image. An absolute one does: its root is that of the image.
fn check_symlink(path: &[u8], target: &[u8]) -> Result<(), String> {
    if target.is_empty() || target.contains(&0) || target.len() > MAX_LINK_BYTES {
        return Err("is a link that is empty or too long".into());
    }
    let absolute = target.starts_with(b"/");
    let mut depth = if absolute { 0 } else { components(path).count() - 1 };
    for name in components(target) {
        match name {
            b"" | b"." => {}
            b".." if depth == 0 => return Err(format!("is a link to {}, which is outside the image", text(target))),
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    Ok(())
}
