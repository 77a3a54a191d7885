//! Finds out which file of a tar stream an offset belongs to.
//!
//! [`super::scan`] feeds it the stream and asks where a match is.
//!
//! **Invariant:** memory is bounded, whatever the stream says; a stream that is no tar gives no names.

use crate::archive::header::{BLOCK, at, checksum_holds, field, number, until_nul};

/// Longest extended header that is read; names are far shorter.
const MAX_EXTENDED: u64 = 64 * 1024;
/// How many entries are remembered for offsets before the newest piece.
const REMEMBERED: usize = 4096;

/// Follows the entries of a tar stream.
pub(super) struct Entries {
    header: Vec<u8>,
    /// Bytes until the next header.
    skip: u64,
    /// Content of an extended header, with its kind and size.
    extended: Option<(u8, u64, Vec<u8>)>,
    /// Name that an extended header gives to the next entry.
    next_name: Option<Vec<u8>>,
    position: u64,
    /// Begin and name of the last entries.
    entries: std::collections::VecDeque<(u64, Vec<u8>)>,
    lost: bool,
}

impl Entries {
    pub(super) fn new() -> Self {
        Self {
            header: Vec::with_capacity(BLOCK),
            skip: 0,
            extended: None,
            next_name: None,
            position: 0,
            entries: std::collections::VecDeque::new(),
            lost: false,
        }
    }

    /// Takes the next piece of the stream.
    pub(super) fn feed(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() && !self.lost {
            if self.skip > 0 {
                let length = piece.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
                let (content, rest) = piece.split_at(length);
                self.content(content);
                piece = rest;
                continue;
            }
            let (part, rest) = piece.split_at(piece.len().min(BLOCK - self.header.len()));
            self.header.extend_from_slice(part);
            self.position += part.len() as u64;
            piece = rest;
            if self.header.len() == BLOCK {
                let header = std::mem::take(&mut self.header);
                self.entry(&header);
            }
        }
    }

    /// The file that an offset belongs to.
    pub(super) fn name_at(&self, offset: u64) -> Option<&[u8]> {
        self.entries.iter().rev().find(|(begin, _)| *begin <= offset).map(|(_, name)| name.as_slice())
    }

    fn content(&mut self, content: &[u8]) {
        self.skip -= content.len() as u64;
        self.position += content.len() as u64;
        if let Some((_, size, bytes)) = &mut self.extended {
            let missing = usize::try_from(*size).unwrap_or(usize::MAX).saturating_sub(bytes.len());
            bytes.extend_from_slice(content.get(..content.len().min(missing)).unwrap_or_default());
        }
        if self.skip == 0
            && let Some((kind, _, bytes)) = self.extended.take()
        {
            self.next_name = match kind {
                b'L' => Some(until_nul(&bytes).to_vec()),
                _ => pax_path(&bytes).or_else(|| self.next_name.take()),
            };
        }
    }

    fn entry(&mut self, header: &[u8]) {
        if header.iter().all(|byte| *byte == 0) {
            return;
        }
        let (Some(size), true) = (number(field(header, at::SIZE)), checksum_holds(header)) else {
            self.lost = true;
            return;
        };
        let kind = header.get(at::TYPEFLAG).copied().unwrap_or_default();
        // Links, devices and directories have a size of no content.
        let size = if matches!(kind, b'1'..=b'6') { 0 } else { size };
        self.skip = size.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64);
        if matches!(kind, b'L' | b'x') {
            self.extended = (size <= MAX_EXTENDED && size > 0).then(|| (kind, size, Vec::new()));
            return;
        }
        if matches!(kind, b'K' | b'g') {
            return;
        }
        let name = self.next_name.take().unwrap_or_else(|| short_name(header));
        if self.entries.len() == REMEMBERED {
            self.entries.pop_front();
        }
        self.entries.push_back((self.position - BLOCK as u64, name));
    }
}

/// Whether a stream that begins so is a tar: it has a header, or nothing in it.
pub(super) fn is_header(begin: &[u8]) -> bool {
    begin.len() == BLOCK && (begin.iter().all(|byte| *byte == 0) || checksum_holds(begin))
}

fn short_name(header: &[u8]) -> Vec<u8> {
    let name = until_nul(field(header, at::NAME));
    let is_posix = field(header, at::MAGIC).starts_with(b"ustar\0");
    let prefix = if is_posix { until_nul(field(header, at::PREFIX)) } else { &[] };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

/// The `path` record of an extended header.
fn pax_path(mut bytes: &[u8]) -> Option<Vec<u8>> {
    while let Some(space) = bytes.iter().position(|byte| *byte == b' ') {
        let length: usize = std::str::from_utf8(bytes.get(..space)?).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..length.checked_sub(1)?)?;
        if let Some(path) = record.strip_prefix(b"path=") {
            return Some(path.to_vec());
        }
        bytes = bytes.get(length..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(name: &str, size: usize, kind: u8) -> Vec<u8> {
        let mut header = vec![0; BLOCK];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        header[156] = kind;
        header[257..263].copy_from_slice(b"ustar\0");
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|b| u64::from(*b)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        header
    }

    fn file(name: &str, content: &[u8], kind: u8) -> Vec<u8> {
        let mut out = block(name, content.len(), kind);
        out.extend_from_slice(content);
        out.resize(out.len().div_ceil(BLOCK) * BLOCK, 0);
        out
    }

    fn name(entries: &Entries, offset: usize) -> &str {
        std::str::from_utf8(entries.name_at(offset as u64).unwrap()).unwrap()
    }

    #[test]
    fn names_by_offset_whatever_the_pieces() {
        let long = format!("deep/{}/file", "d".repeat(150));
        let stream = [
            file("a/", b"", b'5'),
            file("a/one", &[b'x'; 700], b'0'),
            file("././@LongLink", format!("{long}\0").as_bytes(), b'L'),
            file("cut", b"two", b'0'),
            file("pax", b"18 path=pax/three\n9 mtime=1\n", b'x'),
            file("short", b"three", b'0'),
        ]
        .concat();
        for size in [1, 7, 512, 4096] {
            let mut entries = Entries::new();
            stream.chunks(size).for_each(|piece| entries.feed(piece));
            assert_eq!(name(&entries, 0), "a/");
            assert_eq!(name(&entries, 512 + 512 + 699), "a/one");
            assert_eq!(name(&entries, 512 * 4 + 1024 + 600), long);
            assert_eq!(name(&entries, stream.len() - 1), "pax/three");
        }
    }

    #[test]
    fn binary_sizes_are_read() {
        let mut field = [0_u8; 12];
        field[0] = 0x80;
        field[7] = 2;
        assert_eq!(number(&field), Some(2 << 32));
    }

    proptest! {
        #[test]
        fn any_stream_is_taken(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let mut entries = Entries::new();
            entries.feed(&bytes);
            entries.feed(&block("x", usize::from(*bytes.first().unwrap_or(&0)), b'x'));
            entries.feed(&bytes);
        }
    }
}
