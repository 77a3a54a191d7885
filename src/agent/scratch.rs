//! Makes the layer of a `dockerScratchPush` of what the runner packed: checked, shaped, compressed, piece by piece.
//!
//! `transport` runs [`make`] beside the upload; `local` runs [`make_of`] beside a build, whose context it becomes.
//!
//! **Invariant:** nothing of the archive goes on as it stands: each entry is read, judged and written anew. Memory is
//! bounded, and the same archive and shape give the same bytes.

use crate::{
    api::condition::reason,
    archive::{Entry, Fault, ReadError, Reader, Tree, Writer, short},
    registry::{PushError, digest::Hasher},
    steps::docker_push::scratch::Shape,
};
use bytes::{Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use std::io::{self, Read, Write};
use tokio::sync::mpsc;

/// Bytes of a piece on its way to the registry.
const PIECE_BYTES: usize = 64 * 1024;
/// Bytes that are read of a file at a time.
const CONTENT_BYTES: usize = 128 * 1024;

/// What becomes of an entry.
pub(crate) enum Fate {
    /// It goes along with its content.
    Goes,
    /// It goes along with this content, of the size that it says.
    GoesWith(Box<dyn Read>),
    /// It stays out.
    StaysOut,
}

/// Makes the layer. Gives the config document that an engine would have written for it.
///
/// # Errors
/// `UnsafeFile` or `ImageTooLarge` for what must not be in an image, `CommitFailed` for an archive that is none, or
/// when nobody takes the pieces any more.
pub(crate) fn make(archive: impl Read, shape: Shape, pieces: mpsc::Sender<Bytes>) -> Result<Vec<u8>, PushError> {
    make_of(archive, shape, pieces, |_, _| Fate::Goes)
}

/// The same of a part of the archive: `fate` is asked for each entry, which it may change, with the place of its content
/// in the archive. Each entry has been judged by then.
///
/// # Errors
/// As [`make`].
pub(crate) fn make_of(
    archive: impl Read,
    shape: Shape,
    pieces: mpsc::Sender<Bytes>,
    mut fate: impl FnMut(&mut Entry, u64) -> Fate,
) -> Result<Vec<u8>, PushError> {
    let mut reader = Reader::new(io::BufReader::with_capacity(CONTENT_BYTES, archive));
    let mut tree = Tree::default();
    let gzip = GzEncoder::new(Pieces { pieces, piece: BytesMut::new() }, Compression::default());
    let mut writer = Writer::new(Hashed { out: gzip, hasher: Hasher::default() });
    let mut buffer = vec![0; CONTENT_BYTES];
    while let Some(mut entry) = reader.next_entry().map_err(unreadable)? {
        tree.admit(&entry).map_err(|refusal| unreadable(ReadError::Refused(refusal)))?;
        let mut other = match fate(&mut entry, reader.position()) {
            Fate::Goes => None,
            Fate::GoesWith(content) => Some(content),
            Fate::StaysOut => continue,
        };
        shape_entry(&mut entry, shape);
        writer.entry(&entry, false).map_err(unsent)?;
        loop {
            let read = match &mut other {
                Some(content) => content.read(&mut buffer).map_err(ReadError::Io),
                None => reader.content(&mut buffer),
            };
            let length = read.map_err(unreadable)?;
            if length == 0 {
                break;
            }
            writer.content(buffer.get(..length).unwrap_or_default()).map_err(unsent)?;
        }
    }
    if tree.files() == 0 {
        return Err(PushError::new(reason::EMPTY_IMAGE, "the archive holds no file"));
    }
    let Hashed { out, hasher } = writer.finish().map_err(unsent)?;
    out.finish().and_then(Pieces::end).map_err(unsent)?;
    let document = serde_json::json!({
        "architecture": architecture(),
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [hasher.finish().as_str()]},
    });
    Ok(document.to_string().into_bytes())
}

fn shape_entry(entry: &mut Entry, shape: Shape) {
    if let Some((uid, gid)) = shape.owner {
        (entry.uid, entry.gid) = (uid, gid);
    }
    if shape.zero_times {
        entry.mtime = 0;
    }
}

/// Why an archive cannot be read on, for people.
pub(crate) fn unreadable(error: ReadError) -> PushError {
    let reason = match &error {
        ReadError::Refused(refusal) => match refusal.fault {
            Fault::Unsafe => reason::UNSAFE_FILE,
            Fault::TooLarge => reason::IMAGE_TOO_LARGE,
        },
        ReadError::Io(_) | ReadError::Malformed(..) => reason::COMMIT_FAILED,
    };
    PushError::new(reason, short(&error.to_string()))
}

fn unsent(error: io::Error) -> PushError {
    PushError::transient(reason::COMMIT_FAILED, format!("the layer cannot be made: {error}"))
}

/// The architecture of the node, as Go and so images call it: the agent's own, as it runs there.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        other => other,
    }
}

/// Hashes what goes through.
struct Hashed<W> {
    out: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.out.write(bytes)?;
        self.hasher.update(bytes.get(..length).unwrap_or_default());
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Sends what is written, in pieces; waits while the registry is slow.
struct Pieces {
    pieces: mpsc::Sender<Bytes>,
    piece: BytesMut,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = self.piece.split().freeze();
        self.pieces.blocking_send(piece).map_err(|_| io::Error::other("nobody takes it any more"))
    }

    fn end(mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.send() }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
