//! The archive of a `dockerScratchPush`: the runner packs the files, the agent makes the layer of it.
//!
//! ```text
//! runner: files ─> Tree (may it be?) ─> Writer ─> disk/packed-N.tar
//! agent:  packed-N.tar ─> Reader ─> Tree ─> owner and times as asked ─> Writer ─> gzip ─> registry
//! ```
//!
//! It is a tar in the `pax` form of POSIX.1-2001 with nothing in it that an image has no use for. The runner keeps
//! the rules so that people are told early which file is wrong; the agent keeps them again, as the box can write
//! to the archive.
//!
//! `windlass dev` sends changes of a directory in the same form, see [`sync`].
//!
//! **Invariant:** pure but for the stream. Any bytes give entries or an error; memory is bounded by the rules of
//! [`Tree`] and one entry; the same entries give the same bytes.

pub mod header;
mod read;
pub mod sync;
mod tree;
mod write;

pub use read::{ReadError, Reader};
pub use tree::{Fault, MAX_BYTES, MAX_ENTRIES, MAX_PATH_BYTES, Refusal, Tree, short};
pub use write::Writer;

/// One file of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Below the root, without a slash at either end.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permissions, with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change, in seconds since the epoch.
    pub mtime: i64,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; its content follows.
    File {
        /// Bytes.
        size: u64,
        /// Whether later hard links may name it.
        linked: bool,
    },
    /// Another name of a file that came before.
    HardLink {
        /// Path of that file.
        target: Vec<u8>,
    },
    /// A symbolic link.
    Symlink {
        /// What it holds.
        target: Vec<u8>,
    },
    /// A directory.
    Directory,
}

impl Entry {
    /// Bytes of content that follow.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self.kind {
            Kind::File { size, .. } => size,
            Kind::HardLink { .. } | Kind::Symlink { .. } | Kind::Directory => 0,
        }
    }
}

#[cfg(test)]
mod tests;
