//! Reads an archive that hostile code may have written.
//!
//! **Invariant:** only what [`super::Writer`] writes is taken; all else is an error that says where. One entry is
//! held, and no number of the archive decides how much is read or kept.

use super::{
    Entry, Kind, Refusal,
    header::{BLOCK, MAGIC, at, checksum_holds, field, until_nul},
    tree::MAX_PATH_BYTES,
    write::LINKED,
};
use std::io::{self, Read, Seek};

/// Longest extended header: a path, a link and some numbers.
const MAX_EXTENDED: u64 = 2 * MAX_PATH_BYTES as u64 + 4096;

/// Why an archive cannot be read on.
#[derive(Debug)]
pub enum ReadError {
    /// The stream's own error.
    Io(io::Error),
    /// It is not what the runner writes; where, in bytes, and what is wrong.
    Malformed(u64, &'static str),
    /// It holds what an image must not.
    Refused(Refusal),
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the archive cannot be read: {error}"),
            Self::Malformed(at, what) => write!(f, "the archive was changed after it was packed: byte {at}: {what}"),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

/// Reads entries from a stream.
pub struct Reader<R> {
    stream: R,
    position: u64,
    /// Bytes of the content that are still to come, and of the padding after it.
    left: u64,
    padding: u64,
    over: bool,
}

/// What an extended header says of the next entry.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<i64>,
    linked: bool,
}

impl<R: Read> Reader<R> {
    /// Reads an archive from its beginning.
    pub fn new(stream: R) -> Self {
        Self { stream, position: 0, left: 0, padding: 0, over: false }
    }

    /// The next entry; `None` at the end. What is left of the content before is passed over.
    ///
    /// # Errors
    /// As [`ReadError`] says; there is no going on after one.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ReadError> {
        let mut scratch = [0; 8 * BLOCK];
        while self.left > 0 {
            self.content(&mut scratch)?;
        }
        if self.over {
            return Ok(None);
        }
        let mut header = self.block()?;
        let mut extended = Extended::default();
        if field(&header, (at::TYPEFLAG, 1)) == b"x" {
            extended = self.extended(&header)?;
            header = self.block()?;
        } else if header == [0; BLOCK] {
            if self.block()? != [0; BLOCK] {
                return Err(self.malformed("one block of zeros"));
            }
            self.over = true;
            return Ok(None);
        }
        let entry = self.entry(&header, extended)?;
        self.left = entry.size();
        self.padding = (BLOCK as u64 - self.left % BLOCK as u64) % BLOCK as u64;
        Ok(Some(entry))
    }

    /// Reads from the content of the last entry; 0 at its end.
    ///
    /// # Errors
    /// As [`ReadError`] says.
    pub fn content(&mut self, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let length = loop {
            match self.stream.read(buffer.get_mut(..most).unwrap_or_default()) {
                Ok(0) => return Err(self.malformed("a content breaks off")),
                Ok(length) => break length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::Io(error)),
            }
        };
        self.position += length as u64;
        self.left -= length as u64;
        if self.left == 0 {
            self.zeros(self.padding)?;
        }
        Ok(length)
    }

    /// Where the content of the last entry goes on, in bytes from the beginning of the archive.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Passes over what is left of the content of the last entry without reading it.
    ///
    /// # Errors
    /// As [`ReadError`] says. That the archive ends before is told by the next read.
    pub fn pass_over(&mut self) -> Result<(), ReadError>
    where
        R: Seek,
    {
        if self.left == 0 {
            return Ok(());
        }
        let left = i64::try_from(self.left).map_err(|_| self.malformed("a content breaks off"))?;
        self.stream.seek_relative(left).map_err(ReadError::Io)?;
        self.position += self.left;
        self.left = 0;
        self.zeros(self.padding)
    }

    /// Passes over padding.
    fn zeros(&mut self, length: u64) -> Result<(), ReadError> {
        let mut padding = [0; BLOCK];
        let padding = padding.get_mut(..usize::try_from(length).unwrap_or(BLOCK)).unwrap_or_default();
        self.fill(padding)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(self.malformed("padding that is not zero"));
        }
        Ok(())
    }

    fn block(&mut self) -> Result<[u8; BLOCK], ReadError> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        Ok(block)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), ReadError> {
        match self.stream.read_exact(buffer) {
            Ok(()) => {
                self.position += buffer.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.malformed("it breaks off")),
            Err(error) => Err(ReadError::Io(error)),
        }
    }

    fn malformed(&self, what: &'static str) -> ReadError {
        ReadError::Malformed(self.position, what)
    }

    /// Reads an extended header whole.
    fn extended(&mut self, header: &[u8; BLOCK]) -> Result<Extended, ReadError> {
        let length = self.number(header, at::SIZE)?;
        if length > MAX_EXTENDED || !checksum_holds(header) {
            return Err(self.malformed("an extended header that is too long or broken"));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.fill(&mut bytes)?;
        self.zeros((BLOCK as u64 - length % BLOCK as u64) % BLOCK as u64)?;
        records(&bytes).ok_or_else(|| self.malformed("an extended header that cannot be read"))
    }

    fn entry(&self, header: &[u8; BLOCK], extended: Extended) -> Result<Entry, ReadError> {
        if field(header, at::MAGIC) != MAGIC
            || !checksum_holds(header)
            || !field(header, at::PREFIX).iter().all(|b| *b == 0)
        {
            return Err(self.malformed("a header that is none"));
        }
        let mut path = extended.path.unwrap_or_else(|| until_nul(field(header, at::NAME)).to_owned());
        let target = extended.link.unwrap_or_else(|| until_nul(field(header, at::LINKNAME)).to_owned());
        let size = match extended.size {
            Some(size) => size,
            None => self.number(header, at::SIZE)?,
        };
        let refuse = |path: &[u8], why: &str| Err(ReadError::Refused(Refusal::unsafe_file(path, why)));
        let kind = match field(header, (at::TYPEFLAG, 1)) {
            b"0" => Kind::File { size, linked: extended.linked },
            b"1" => Kind::HardLink { target },
            b"2" => Kind::Symlink { target },
            b"5" if path.pop() == Some(b'/') => Kind::Directory,
            b"5" => return Err(self.malformed("a directory without a slash")),
            b"3" | b"4" => return refuse(&path, "is a device"),
            b"6" => return refuse(&path, "is a FIFO"),
            _ => return Err(self.malformed("an entry of an unknown kind")),
        };
        if size > 0 && !matches!(kind, Kind::File { .. }) {
            return Err(self.malformed("content of what is no file"));
        }
        let id = |read: Option<u32>, place| match read {
            Some(id) => Ok(id),
            None => self.number(header, place).map(|id| u32::try_from(id).unwrap_or(u32::MAX)),
        };
        Ok(Entry {
            path,
            kind,
            mode: u32::try_from(self.number(header, at::MODE)?).unwrap_or(0) & 0o7777,
            uid: id(extended.uid, at::UID)?,
            gid: id(extended.gid, at::GID)?,
            mtime: match extended.mtime {
                Some(mtime) => mtime,
                None => i64::try_from(self.number(header, at::MTIME)?).unwrap_or(0),
            },
        })
    }

    /// A number in the one form that the writer has: octal digits, then NUL.
    fn number(&self, header: &[u8; BLOCK], place: (usize, usize)) -> Result<u64, ReadError> {
        let digits = field(header, place).split_last().filter(|(last, _)| **last == 0).map(|(_, digits)| digits);
        let octal = |digits: &[u8]| {
            digits
                .iter()
                .try_fold(0_u64, |sum, digit| matches!(digit, b'0'..=b'7').then(|| sum * 8 + u64::from(digit - b'0')))
        };
        digits.and_then(octal).ok_or_else(|| self.malformed("a number that is none"))
    }
}

/// The records of an extended header; `None` if one is not known, there twice, or broken.
fn records(mut bytes: &[u8]) -> Option<Extended> {
    let mut extended = Extended::default();
    while !bytes.is_empty() {
        let space = bytes.iter().take(6).position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(bytes.get(..space)?).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        bytes = bytes.get(length..)?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (record.get(..equals)?, record.get(equals + 1..)?);
        let text = || std::str::from_utf8(value).ok();
        let free = match key {
            b"path" => extended.path.replace(value.to_owned()).is_none(),
            b"linkpath" => extended.link.replace(value.to_owned()).is_none(),
            b"size" => extended.size.replace(text()?.parse().ok()?).is_none(),
            b"uid" => extended.uid.replace(text()?.parse().ok()?).is_none(),
            b"gid" => extended.gid.replace(text()?.parse().ok()?).is_none(),
            b"mtime" => extended.mtime.replace(text()?.parse().ok()?).is_none(),
            key if key == LINKED.as_bytes() => value == b"1" && !std::mem::replace(&mut extended.linked, true),
            _ => false,
        };
        if !free {
            return None;
        }
    }
    Some(extended)
}
