//! Fills the file of a pull, and goes on with one that was cut off.
//!
//! The pieces stand in the file one after another, so what is there is a beginning of it. It is read again before
//! anything is added: what is not as it should be is fetched anew.
//!
//! **Invariant:** a file gets its name only once each blob in it has its digest.

use super::{
    archive::Piece,
    meter::Meter,
    origin::{Lost, Origin, mismatch},
};
use crate::{
    client::{
        Session,
        exit::Exit,
        fault::{Fault, Stop, reason},
        style::{Mode, fit},
    },
    registry::digest::{Digest, Hasher},
};
use futures::StreamExt as _;
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    time::{Duration, Instant},
};

/// How often a blob is asked for again while nothing comes.
const MAX_TRIES: u32 = 6;
/// First pause between two tries; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Between two lines on progress: repainted, and printed.
const REPAINT: Duration = Duration::from_millis(200);
const PRINT: Duration = Duration::from_secs(10);
/// Bytes that are read of the file at a time.
const BUFFER: usize = 256 * 1024;

/// The file, while it is filled.
pub(super) struct Part {
    file: File,
    name: String,
    /// Bytes that are there and right.
    length: u64,
}

impl Part {
    /// Opens or makes the file; nobody else may fill it meanwhile.
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        let name = path.display().to_string();
        let unwritable =
            |error: io::Error| Fault::new(reason::OUTPUT_FAILED, Exit::World, format!("cannot write {name}: {error}"));
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(unwritable)?;
        }
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(unwritable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file, name, length: 0 }),
            Err(TryLockError::WouldBlock) => {
                let text = format!("another windlass is writing {name}");
                Err(Fault::new(reason::OUTPUT_FAILED, Exit::World, text))
            }
            Err(TryLockError::Error(error)) => Err(unwritable(error)),
        }
    }

    fn failed(&self, error: &io::Error) -> Fault {
        Fault::new(reason::OUTPUT_FAILED, Exit::World, format!("cannot write {}: {error}", self.name))
    }

    /// Reads what is there. Gives the piece to go on with, and the hash of what is there of it if it is a blob.
    fn recover(&mut self, pieces: &[Piece]) -> io::Result<(usize, Hasher)> {
        let there = self.file.metadata()?.len();
        self.file.seek(SeekFrom::Start(0))?;
        for (index, piece) in pieces.iter().enumerate() {
            let size = piece.size().min(there - self.length);
            let whole = size == piece.size();
            let (right, hasher) = match piece {
                Piece::Bytes(bytes) => {
                    let mut found = vec![0; usize::try_from(size).unwrap_or_default()];
                    self.file.read_exact(&mut found)?;
                    (whole && found == *bytes, Hasher::default())
                }
                Piece::Blob { digest, .. } => {
                    let hasher = self.hash(size)?;
                    (whole && hasher.clone().finish() == *digest, hasher)
                }
            };
            if right {
                self.length += size;
                continue;
            }
            // Of a blob a part may be there; of all else it is not worth it.
            let keep = matches!(piece, Piece::Blob { .. }) && !whole;
            let at = self.length;
            self.length += if keep { size } else { 0 };
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::Start(self.length))?;
            return Ok((index, if keep && self.length > at { hasher } else { Hasher::default() }));
        }
        self.file.set_len(self.length)?;
        Ok((pieces.len(), Hasher::default()))
    }

    fn hash(&mut self, mut left: u64) -> io::Result<Hasher> {
        let (mut hasher, mut buffer) = (Hasher::default(), vec![0; BUFFER]);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            let count = self.file.read(buffer.get_mut(..most).unwrap_or_default())?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            hasher.update(buffer.get(..count).unwrap_or_default());
            left -= count as u64;
        }
        Ok(hasher)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.file.write_all(bytes).map_err(|error| self.failed(&error))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Takes the last bytes away.
    fn cut(&mut self, length: u64) -> Result<(), Fault> {
        let cut = self.file.set_len(length).and_then(|()| self.file.seek(SeekFrom::Start(length)));
        cut.map_err(|error| self.failed(&error))?;
        self.length = length;
        Ok(())
    }
}

/// Tells how far it is.
struct Teller<'a> {
    session: &'a mut Session,
    meter: Meter,
    began: Instant,
    told: Instant,
}

impl Teller<'_> {
    fn tell(&mut self, done: u64) -> Result<(), Stop> {
        self.meter.done = done;
        let look = self.session.look.clone();
        let every = if look.mode == Mode::Live { REPAINT } else { PRINT };
        if look.quiet > 0 || self.told.elapsed() < every {
            return Ok(());
        }
        self.told = Instant::now();
        let line = self.meter.line(self.began.elapsed(), look.mode == Mode::Live);
        match look.mode {
            Mode::Live => {
                let line = look.width.map_or_else(|| line.clone(), |width| fit(&line, width));
                self.session.screen.show(&[], vec![line])?;
            }
            Mode::Plain => self.session.screen.message(&line)?,
            Mode::None | Mode::Json => {}
        }
        Ok(())
    }
}

/// Fetches what is missing in the file.
///
/// # Errors
/// The file cannot be written, the container is gone, or its bytes do not come or are not what they should be.
pub(super) async fn fetch(
    session: &mut Session,
    origin: &Origin,
    pieces: &[Piece],
    part: &mut Part,
    title: String,
) -> Result<(), Stop> {
    let (next, mut hasher) = part.recover(pieces).map_err(|error| part.failed(&error))?;
    let total = pieces.iter().map(Piece::size).sum();
    let now = Instant::now();
    let meter = Meter { title, total, resumed: part.length, done: part.length };
    let mut teller = Teller { session, meter, began: now, told: now };
    for piece in pieces.iter().skip(next) {
        match piece {
            Piece::Bytes(bytes) => part.append(bytes)?,
            Piece::Blob { digest, size } => {
                let there: u64 = pieces.iter().take_while(|other| !std::ptr::eq(*other, piece)).map(Piece::size).sum();
                blob(origin, digest, *size, part, there, std::mem::take(&mut hasher), &mut teller).await?;
            }
        }
        teller.tell(part.length)?;
    }
    part.file.sync_all().map_err(|error| part.failed(&error))?;
    teller.session.screen.clear()?;
    Ok(())
}

/// Fetches the rest of a blob that begins at `start` of the file.
async fn blob(
    origin: &Origin,
    digest: &Digest,
    size: u64,
    part: &mut Part,
    start: u64,
    mut hasher: Hasher,
    teller: &mut Teller<'_>,
) -> Result<(), Stop> {
    let (mut tries, mut pause, mut anew) = (0, FIRST_PAUSE, false);
    loop {
        let before = part.length;
        let lost = loop {
            let first = part.length - start;
            if first == size {
                break None;
            }
            match some(origin, digest, first, size, part, &mut hasher, teller).await? {
                // An answer without bytes is none.
                None if part.length - start == first => break Some("the answer is too short".to_owned()),
                None => {}
                Some(Lost::Again(why)) => break Some(why),
                Some(Lost::For(fault)) => return Err((*fault).into()),
            }
        };
        match lost {
            None if std::mem::take(&mut hasher).finish() == *digest => return Ok(()),
            // What was there before may be at fault.
            None if !anew => {
                anew = true;
                part.cut(start)?;
            }
            None => return Err(stop(mismatch(&format!("the bytes of {digest} are others")))),
            Some(why) => {
                if part.length > before {
                    (tries, pause) = (0, FIRST_PAUSE);
                }
                tries += 1;
                if tries > MAX_TRIES {
                    let fault = Fault::new(reason::CLUSTER_UNREACHABLE, Exit::World, why);
                    return Err(fault.note("what was fetched stays: the same command goes on with it").into());
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
    }
}

fn stop(lost: Lost) -> Stop {
    match lost {
        Lost::For(fault) => (*fault).into(),
        Lost::Again(why) => Fault::new(reason::CLUSTER_UNREACHABLE, Exit::World, why).into(),
    }
}

/// Fetches what one answer holds.
async fn some(
    origin: &Origin,
    digest: &Digest,
    first: u64,
    size: u64,
    part: &mut Part,
    hasher: &mut Hasher,
    teller: &mut Teller<'_>,
) -> Result<Option<Lost>, Stop> {
    let mut pieces = match origin.blob(digest, first, size).await {
        Ok(pieces) => pieces,
        Err(lost) => return Ok(Some(lost)),
    };
    let mut left = size - first;
    while let Some(piece) = pieces.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(lost) => return Ok(Some(lost)),
        };
        if piece.len() as u64 > left {
            return Ok(Some(mismatch(&format!("there is more of {digest} than there should be"))));
        }
        left -= piece.len() as u64;
        hasher.update(&piece);
        part.append(&piece)?;
        teller.tell(part.length)?;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn pieces() -> Vec<Piece> {
        let blob = |bytes: &[u8]| Piece::Blob { digest: Digest::of(bytes), size: bytes.len() as u64 };
        vec![
            Piece::Bytes(b"head".to_vec()),
            blob(b"0123456789"),
            Piece::Bytes(b"mid".to_vec()),
            blob(b"abcdef"),
            Piece::Bytes(b"end".to_vec()),
        ]
    }

    #[rstest]
    #[case::nothing("", 0, 0)]
    #[case::a_part_of_the_head("he", 0, 0)]
    #[case::another_head("Head0123456789", 0, 0)]
    #[case::a_part_of_a_blob("head0123", 8, 1)]
    #[case::the_beginning_of_a_blob("head", 4, 1)]
    #[case::a_whole_blob("head0123456789", 14, 2)]
    #[case::a_blob_with_other_bytes("head0123456780mid", 4, 1)]
    #[case::a_part_of_the_second("head0123456789midabc", 20, 3)]
    #[case::all_but_the_end("head0123456789midabcdefen", 23, 4)]
    #[case::all("head0123456789midabcdefend", 26, 5)]
    #[case::more_than_all("head0123456789midabcdefend, and more", 26, 5)]
    fn what_is_there_is_gone_on_with(#[case] there: &str, #[case] kept: u64, #[case] next: usize) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/x.part");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, there).unwrap();
        let mut part = Part::open(&path).unwrap();
        let (index, hasher) = part.recover(&pieces()).unwrap();
        assert_eq!((part.length, index), (kept, next));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), there[..usize::try_from(kept).unwrap()]);
        // The hash goes on where the file does.
        let start: u64 = pieces().iter().take(index).map(Piece::size).sum();
        let expected = Digest::of(&there.as_bytes()[usize::try_from(start).unwrap()..usize::try_from(kept).unwrap()]);
        assert_eq!(hasher.finish(), expected);
    }

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/x.part");
        let first = Part::open(&path).unwrap();
        assert!(Part::open(&path).err().unwrap().message.contains("another windlass"));
        drop(first);
        assert!(Part::open(&path).is_ok());
    }
}
