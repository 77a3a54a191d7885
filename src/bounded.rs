//! Small files that others write, such as the exports of a step or a `.gitignore`.
//!
//! The runner and `watcher` read them. **Invariant:** no link is followed, nothing is waited for, and no more is read
//! than was said.

use nix::fcntl::OFlag;
use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// What a regular file holds; `None` if it is none, cannot be read, or holds more than `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    if !file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= limit) {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
