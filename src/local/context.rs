//! The context of a build: what the runner packed, less what its `.dockerignore` leaves out.
//!
//! `workshop` calls [`context`] and hands the stream to the engine.
//!
//! **Invariant:** a `.dockerignore` that cannot be understood fails the step before a byte is sent. The Dockerfile and
//! `.dockerignore` itself go along in any case: the engine reads both, and takes out of the context what the patterns
//! name of them. Entries are judged and written anew by `agent::scratch`, those too that stay out.

use super::dockerignore::{self, Ignore};
use crate::{
    agent::scratch::{self, Fate, unreadable},
    api::condition::reason,
    archive::{Entry, Kind, ReadError, Reader, short},
    registry::PushError,
    steps::docker_push::scratch::Shape,
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Seek as _},
    mem,
    os::unix::fs::FileExt as _,
    sync::Arc,
};
use tokio::sync::mpsc;

/// Pieces of a build's context that wait for the engine.
const CONTEXT_QUEUE: usize = 8;
/// Most links from one to the next.
const MAX_LINKS: usize = 8;
/// What the engine takes for the Dockerfile if there is none of the usual name.
const LOWER_DOCKERFILE: &[u8] = b"dockerfile";
/// The usual name.
const DOCKERFILE: &[u8] = b"Dockerfile";

/// The context of a build with this Dockerfile, of an archive that the runner packed.
///
/// # Errors
/// `InvalidProperty` for a `.dockerignore` that is broken; else as of an archive that cannot be read.
pub(super) async fn context(
    archive: File,
    shape: Shape,
    dockerfile: String,
) -> Result<impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static, PushError> {
    let archive = Arc::new(archive);
    let again = Arc::clone(&archive);
    let reading = tokio::task::spawn_blocking(move || {
        let ignore = ignored(&again, &dockerfile)?;
        (&*again).rewind().map_err(unread)?;
        Ok(Part { ignore, archive: again, away: HashMap::new() })
    });
    let mut part = reading.await.map_err(|_| broke_off())??;
    let (sender, pieces) = mpsc::channel(CONTEXT_QUEUE);
    let making = tokio::task::spawn_blocking(move || {
        scratch::make_of(archive, shape, sender, move |entry, at| part.fate(entry, at))
    });
    let pieces = stream::unfold(pieces, async |mut pieces| Some((Ok(pieces.recv().await?), pieces)));
    let end = stream::once(async move {
        let made = making.await.unwrap_or_else(|_| Err(broke_off()));
        made.err().map(|error| Err(io::Error::other(error.message)))
    });
    Ok(pieces.chain(end.filter_map(std::future::ready)))
}

fn broke_off() -> PushError {
    PushError::new(reason::COMMIT_FAILED, "the making of the context broke off")
}

fn unread(error: io::Error) -> PushError {
    unreadable(ReadError::Io(error))
}

/// What stays out: without a `.dockerignore`, nothing.
fn ignored(archive: &File, dockerfile: &str) -> Result<Ignore, PushError> {
    let found = follow(archive, dockerignore::NAME.as_bytes())?;
    let Some(last) = found.names.last() else { return Ok(Ignore::default()) };
    let wrong = |what: String| PushError::new(reason::INVALID_PROPERTY, what);
    let Some((at, size)) = found.content else {
        let last = String::from_utf8_lossy(last);
        return Err(wrong(short(&format!("{}: {last} is no file of the context", dockerignore::NAME))));
    };
    if size > dockerignore::MAX_BYTES {
        let (name, most) = (dockerignore::NAME, dockerignore::MAX_BYTES);
        return Err(wrong(format!("{name} has {size} bytes; {most} are the most")));
    }
    let mut text = vec![0; usize::try_from(size).unwrap_or_default()];
    archive.read_exact_at(&mut text, at).map_err(unread)?;
    let mut ignore = Ignore::read(&text).map_err(|broken| wrong(broken.to_string()))?;
    ignore.keep(dockerignore::NAME.as_bytes());
    let dockerfile = lexical(b"", dockerfile.as_bytes());
    let mut names = follow(archive, &dockerfile)?.names;
    if names.is_empty() && dockerfile == DOCKERFILE {
        names = follow(archive, LOWER_DOCKERFILE)?.names;
    }
    for name in names {
        ignore.keep(&name);
    }
    Ok(ignore)
}

/// A file of the archive.
#[derive(Default)]
struct Found {
    /// Its name, and those that symbolic links lead to; the last one may be of nothing. None: it is not there.
    names: Vec<Vec<u8>>,
    /// Where its content is, and its bytes, if it is a file.
    content: Option<(u64, u64)>,
}

/// Looks for a file, through links.
fn follow(archive: &File, name: &[u8]) -> Result<Found, PushError> {
    let mut found = Found::default();
    let mut place = name.to_owned();
    for _ in 0..=MAX_LINKS {
        let entry = find(archive, &place)?;
        if entry.is_none() && found.names.is_empty() {
            break;
        }
        let name = place.clone();
        match entry.map(|(entry, at)| (entry.kind, at)) {
            Some((Kind::HardLink { target }, _)) => {
                // Of two hard links each is the file, and the other one may stay out.
                found.content = find(archive, &target)?.map(|(entry, at)| (at, entry.size()));
            }
            Some((Kind::File { size, .. }, at)) => found.content = Some((at, size)),
            Some((Kind::Symlink { target }, _)) => {
                let parent = place.iter().rposition(|byte| *byte == b'/').unwrap_or_default();
                place = lexical(place.get(..parent).unwrap_or_default(), &target);
                found.names.push(name);
                continue;
            }
            Some((Kind::Directory, _)) | None => {}
        }
        found.names.push(name);
        break;
    }
    Ok(found)
}

/// Where a path leads to from a directory, below the root and without a look at what is there.
fn lexical(directory: &[u8], path: &[u8]) -> Vec<u8> {
    let from = if path.starts_with(b"/") { b"".as_slice() } else { directory };
    let mut names: Vec<&[u8]> = Vec::new();
    for name in from.split(|byte| *byte == b'/').chain(path.split(|byte| *byte == b'/')) {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join(b"/".as_slice())
}

/// Looks for an entry. Contents are passed over, so that this takes no longer than the number of entries.
fn find(mut archive: &File, path: &[u8]) -> Result<Option<(Entry, u64)>, PushError> {
    archive.rewind().map_err(unread)?;
    let mut reader = Reader::new(BufReader::new(archive));
    while let Some(entry) = reader.next_entry().map_err(unreadable)? {
        if entry.path == path {
            return Ok(Some((entry, reader.position())));
        }
        reader.pass_over().map_err(unreadable)?;
    }
    Ok(None)
}

/// The part of the archive that is the context.
struct Part {
    ignore: Ignore,
    /// For contents that stand before the entry that needs them.
    archive: Arc<File>,
    /// Files that stay out and that hard links may name, by their paths.
    away: HashMap<Vec<u8>, Away>,
}

/// Where the content of a file is that stays out.
enum Away {
    /// Its place in the archive, and its bytes.
    At(u64, u64),
    /// In the first of its hard links that went along.
    In(Vec<u8>),
}

impl Part {
    fn fate(&mut self, entry: &mut Entry, at: u64) -> Fate {
        if self.ignore.leaves_out(&entry.path, entry.kind == Kind::Directory) {
            if let Kind::File { size, linked: true } = entry.kind {
                self.away.insert(mem::take(&mut entry.path), Away::At(at, size));
            }
            return Fate::StaysOut;
        }
        let Kind::HardLink { target } = &entry.kind else { return Fate::Goes };
        match self.away.get_mut(target) {
            None => Fate::Goes,
            Some(Away::In(other)) => {
                entry.kind = Kind::HardLink { target: other.clone() };
                Fate::Goes
            }
            Some(away @ &mut Away::At(at, size)) => {
                *away = Away::In(entry.path.clone());
                entry.kind = Kind::File { size, linked: false };
                Fate::GoesWith(Box::new(Section { archive: Arc::clone(&self.archive), at, left: size }))
            }
        }
    }
}

/// A content, by its place in the archive.
struct Section {
    archive: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.archive.read_at(buffer.get_mut(..most).unwrap_or_default(), self.at)?;
        self.at += length as u64;
        self.left -= length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests;
