//! What a push knows of blobs: which are there, which wait, which are on their way.
//!
//! **Invariant:** blobs that may be the engine's config are held here and go nowhere; how much is held is bounded.

use super::upload::Upload;
use crate::registry::digest::Digest;
use bytes::Bytes;
use std::collections::{HashMap, HashSet};

/// Most bytes that are held until the manifest: in practice one config of some kilobytes.
const MAX_HELD: usize = 16 * 1024 * 1024;
/// Most uploads that the engine may have open.
const MAX_OPEN: usize = 64;
/// Most blobs that are remembered; images have at most 127 layers.
const MAX_KNOWN: usize = 4096;

/// How a blob came to be in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was there, or was mounted.
    There,
    /// This push sent it.
    Sent,
}

/// The blobs of a push.
#[derive(Default)]
pub(super) struct Blobs {
    /// In the registry. `true`: counted as a layer.
    known: HashMap<Digest, (Origin, bool)>,
    /// Not in the registry, when the engine asked.
    absent: HashSet<Digest>,
    held: HashMap<Digest, Bytes>,
    /// What the engine has given, with its size: it may look for it afterwards.
    given: HashMap<Digest, u64>,
    open: HashMap<String, Upload>,
    /// Uploads that a request is working on.
    working: usize,
}

impl Blobs {
    /// Notes that a blob is in the registry; `counted` once the engine need not send it any more.
    pub(super) fn note(&mut self, digest: Digest, origin: Origin, counted: bool) {
        if self.known.len() < MAX_KNOWN || self.known.contains_key(&digest) {
            let entry = self.known.entry(digest).or_insert((origin, counted));
            entry.1 |= counted;
        }
    }

    /// Notes that a blob is not in the registry.
    pub(super) fn note_absent(&mut self, digest: Digest) {
        if self.absent.len() < MAX_KNOWN {
            self.absent.insert(digest);
        }
    }

    /// Whether a blob was looked for in vain.
    pub(super) fn is_absent(&self, digest: &Digest) -> bool {
        self.absent.contains(digest)
    }

    pub(super) fn is_known(&self, digest: &Digest) -> bool {
        self.known.contains_key(digest)
    }

    /// Notes that the engine has given a blob.
    pub(super) fn note_given(&mut self, digest: Digest, size: u64) {
        if self.given.len() < MAX_KNOWN {
            self.given.insert(digest, size);
        }
    }

    /// Size of a blob that the engine has given.
    pub(super) fn given(&self, digest: &Digest) -> Option<u64> {
        self.given.get(digest).copied()
    }

    /// Keeps a blob until the manifest tells what it is.
    pub(super) fn hold(&mut self, digest: Digest, bytes: Bytes) -> bool {
        let held: usize = self.held.values().map(Bytes::len).sum();
        let fits = held + bytes.len() <= MAX_HELD;
        if fits {
            self.held.insert(digest, bytes);
        }
        fits
    }

    pub(super) fn held(&self, digest: &Digest) -> Option<Bytes> {
        self.held.get(digest).cloned()
    }

    /// Adds an upload of the engine; `false` if there are too many.
    pub(super) fn open(&mut self, id: String, upload: Upload) -> bool {
        let fits = self.open.len() < MAX_OPEN;
        if fits {
            self.open.insert(id, upload);
        }
        fits
    }

    /// Takes an upload out, to work on it.
    pub(super) fn take(&mut self, id: &str) -> Option<Upload> {
        self.open.remove(id)
    }

    /// One more or one less upload that a request is working on.
    pub(super) fn work(&mut self, begins: bool) {
        self.working = if begins { self.working + 1 } else { self.working.saturating_sub(1) };
    }

    /// Layers that were there, that were sent, and that are open.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let count = |origin| self.known.values().filter(|(own, counted)| *own == origin && *counted).count();
        (count(Origin::There), count(Origin::Sent), self.working)
    }
}
