//! Writes the archive: a header for each entry, extended where `ustar` has no room, and its content.
//!
//! **Invariant:** the same entries give the same bytes; a content that is longer or shorter than its header says is
//! an error.

use super::{
    Entry, Kind,
    header::{BLOCK, MAGIC, at, checksum},
};
use std::io::{self, Write};

/// Largest number in the size field, and in that of a time.
const MAX_SIZE: u64 = 0o77_777_777_777;
/// Largest number in the fields of owner and group.
const MAX_ID: u32 = 0o7_777_777;
/// Name of extended headers; nobody unpacks it.
const EXTENDED_NAME: &[u8] = b"PaxHeaders";
/// Record that marks a file which hard links name.
pub(super) const LINKED: &str = "WINDLASS.linked";

/// Writes entries to a stream.
pub struct Writer<W> {
    out: W,
    /// Bytes of content that the last header promised and that are still to come.
    left: u64,
    /// Bytes that fill the last block after it.
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// An archive without entries.
    pub fn new(out: W) -> Self {
        Self { out, left: 0, padding: 0 }
    }

    /// Begins an entry. The content of a file follows by [`Self::content`]; `with_marks` adds what the agent needs
    /// to judge the archive and an image has no use for.
    ///
    /// # Errors
    /// The stream's; or the content of the entry before is not whole.
    pub fn entry(&mut self, entry: &Entry, with_marks: bool) -> io::Result<()> {
        if self.left > 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the content before is too short"));
        }
        let mut name = entry.path.clone();
        let (flag, link, size) = match &entry.kind {
            Kind::File { size, .. } => (b'0', [].as_slice(), *size),
            Kind::HardLink { target } => (b'1', target.as_slice(), 0),
            Kind::Symlink { target } => (b'2', target.as_slice(), 0),
            Kind::Directory => {
                name.push(b'/');
                (b'5', [].as_slice(), 0)
            }
        };
        let mut records = Vec::new();
        let (name_length, link_length) = (at::NAME.1, at::LINKNAME.1);
        if name.len() > name_length {
            record(&mut records, "path", &name);
        }
        if link.len() > link_length {
            record(&mut records, "linkpath", link);
        }
        if size > MAX_SIZE {
            record(&mut records, "size", size.to_string().as_bytes());
        }
        for (key, id) in [("uid", entry.uid), ("gid", entry.gid)] {
            if id > MAX_ID {
                record(&mut records, key, id.to_string().as_bytes());
            }
        }
        let mtime = u64::try_from(entry.mtime).ok().filter(|mtime| *mtime <= MAX_SIZE);
        if mtime.is_none() {
            record(&mut records, "mtime", entry.mtime.to_string().as_bytes());
        }
        if with_marks && matches!(entry.kind, Kind::File { linked: true, .. }) {
            record(&mut records, LINKED, b"1");
        }
        if !records.is_empty() {
            let length = records.len() as u64;
            self.out.write_all(&block(EXTENDED_NAME, b"", b'x', [0o644, 0, 0], length, 0))?;
            self.out.write_all(&records)?;
            self.out.write_all(&vec![0; padding(length)])?;
        }
        let id = |id: u32| if id > MAX_ID { 0 } else { id };
        let numbers = [entry.mode & 0o7777, id(entry.uid), id(entry.gid)];
        let fits = if size > MAX_SIZE { 0 } else { size };
        self.out.write_all(&block(&name, link, flag, numbers, fits, mtime.unwrap_or(0)))?;
        (self.left, self.padding) = (size, padding(size));
        Ok(())
    }

    /// Adds to the content of the entry that was begun last.
    ///
    /// # Errors
    /// The stream's; or the content is longer than its entry says.
    pub fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        if length > self.left {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the content is too long"));
        }
        self.out.write_all(bytes)?;
        self.left -= length;
        if self.left == 0 {
            self.out.write_all(&vec![0; std::mem::take(&mut self.padding)])?;
        }
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// The stream's; or the last content is not whole.
    pub fn finish(mut self) -> io::Result<W> {
        if self.left > 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the last content is too short"));
        }
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }
}

/// Bytes that fill the last block of a content.
fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    (BLOCK - over) % BLOCK
}

/// A record of an extended header: its own length in decimal, a space, `key=value` and a newline.
fn record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// A header block. What is too long for its field is cut: then an extended header has it.
fn block(name: &[u8], link: &[u8], flag: u8, [mode, uid, gid]: [u32; 3], size: u64, mtime: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    put(&mut header, at::NAME, name);
    put(&mut header, at::LINKNAME, link);
    put(&mut header, at::MAGIC, MAGIC);
    for (field, number) in [(at::MODE, mode), (at::UID, uid), (at::GID, gid)] {
        put(&mut header, field, format!("{number:07o}").as_bytes());
    }
    for (field, number) in [(at::SIZE, size), (at::MTIME, mtime)] {
        put(&mut header, field, format!("{number:011o}").as_bytes());
    }
    put(&mut header, (at::TYPEFLAG, 1), &[flag]);
    let sum = checksum(&header);
    put(&mut header, at::CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
    header
}

fn put(header: &mut [u8; BLOCK], (offset, length): (usize, usize), bytes: &[u8]) {
    let fitting = bytes.get(..length).unwrap_or(bytes);
    if let Some(field) = header.get_mut(offset..offset + fitting.len()) {
        field.copy_from_slice(fitting);
    }
}
