//! The header block of a tar, as POSIX.1-2001 (`ustar`, `pax`) and GNU tar write it.
//!
//! [`super::Reader`], [`super::Writer`] and the search for secrets in layers read and write it here.
//!
//! **Invariant:** pure; a field out of range is empty, never a panic.

/// Size of a block.
pub const BLOCK: usize = 512;
/// What stands before the version in a `ustar` header.
pub const MAGIC: &[u8; 8] = b"ustar\x0000";

/// Where the fields are: offset and length.
pub mod at {
    #![allow(missing_docs, reason = "the names are those of POSIX.1-2001, pax, \"ustar Interchange Format\"")]
    pub const NAME: (usize, usize) = (0, 100);
    pub const MODE: (usize, usize) = (100, 8);
    pub const UID: (usize, usize) = (108, 8);
    pub const GID: (usize, usize) = (116, 8);
    pub const SIZE: (usize, usize) = (124, 12);
    pub const MTIME: (usize, usize) = (136, 12);
    pub const CHECKSUM: (usize, usize) = (148, 8);
    pub const TYPEFLAG: usize = 156;
    pub const LINKNAME: (usize, usize) = (157, 100);
    pub const MAGIC: (usize, usize) = (257, 8);
    pub const PREFIX: (usize, usize) = (345, 155);
}

/// A field of a header.
#[must_use]
pub fn field(header: &[u8], (offset, length): (usize, usize)) -> &[u8] {
    header.get(offset..offset + length).unwrap_or_default()
}

/// What stands before the first NUL.
#[must_use]
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// An octal number, or a binary one as GNU tar writes for large files.
#[must_use]
pub fn number(field: &[u8]) -> Option<u64> {
    if field.first().is_some_and(|byte| byte & 0x80 != 0) {
        return field.get(4..)?.iter().try_fold(0_u64, |sum, byte| sum.checked_mul(256)?.checked_add(u64::from(*byte)));
    }
    let text = std::str::from_utf8(until_nul(field)).ok()?.trim();
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

/// The checksum that a header should have.
#[must_use]
pub fn checksum(header: &[u8]) -> u64 {
    let (begin, length) = at::CHECKSUM;
    let own = begin..begin + length;
    header.iter().enumerate().map(|(at, byte)| if own.contains(&at) { 32 } else { u64::from(*byte) }).sum()
}

/// Whether a header has the checksum that it should have.
#[must_use]
pub fn checksum_holds(header: &[u8]) -> bool {
    number(field(header, at::CHECKSUM)) == Some(checksum(header))
}
