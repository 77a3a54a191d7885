//! Goes through a directory and writes what is in it, sorted, into an archive. Called by [`super::run`].
//!
//! A file is named by its path below the root in every call, so a deep tree takes no descriptors; the kernel refuses
//! links and mounts on the way (`openat2`).
//!
//! **Invariant:** as much is read of a file as its entry says. Memory is one directory's names a level, and the
//! paths of files with several names.

use super::Stop;
use crate::archive::{Entry, Kind, MAX_ENTRIES, Refusal, Tree, Writer};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{Whence, lseek};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::time::{Duration, Instant};

/// Most bytes of holes in a file; they take no disk here, but they do in an image.
const MAX_HOLES: u64 = 64 * 1024 * 1024;
/// Bytes that are read at a time.
const PIECE_BYTES: usize = 128 * 1024;
/// How often to tell how far it is.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// How many setuid files are named.
const MAX_TOLD: usize = 10;

/// Goes through a directory.
pub(super) struct Walk<'a, W> {
    root: &'a OwnedFd,
    writer: Writer<W>,
    tree: Tree,
    /// Paths of files with several names, by device and inode.
    seen: HashMap<(u64, u64), Vec<u8>>,
    piece: Vec<u8>,
    told: Instant,
    privileged: usize,
}

impl<'a, W: Write> Walk<'a, W> {
    /// Before the first file.
    pub(super) fn new(root: &'a OwnedFd, writer: Writer<W>) -> Self {
        Self {
            root,
            writer,
            tree: Tree::default(),
            seen: HashMap::new(),
            piece: vec![0; PIECE_BYTES],
            told: Instant::now(),
            privileged: 0,
        }
    }

    /// The writer, and how much it took in words; `None` if there was no file.
    pub(super) fn end(self) -> (Writer<W>, Option<String>) {
        let said = (self.tree.files() > 0).then(|| amount(&self.tree));
        (self.writer, said)
    }

    /// Packs everything below the root. The directories above the current file are in a list, not on the stack:
    /// there can be very many.
    pub(super) fn everything(&mut self) -> Result<(), Stop> {
        let mut above = vec![(Vec::new(), self.names(b"")?.into_iter())];
        while let Some((path, names)) = above.last_mut() {
            let Some(name) = names.next() else {
                above.pop();
                continue;
            };
            let child = if path.is_empty() { name } else { [path.as_slice(), b"/", &name].concat() };
            if self.one(&child)? {
                let names = self.names(&child)?.into_iter();
                above.push((child, names));
            }
        }
        Ok(())
    }

    /// Names in a directory, sorted as bytes.
    fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, Stop> {
        let unread = |errno| refused(path, errno);
        let place: &[u8] = if path.is_empty() { b"." } else { path };
        let directory = self.open(place, OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(unread)?;
        let mut names = Vec::new();
        for entry in Dir::from_fd(directory).map_err(unread)?.iter() {
            let entry = entry.map_err(unread)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_owned());
            }
            if names.len() as u64 > MAX_ENTRIES {
                break; // The tree says which is one too many.
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Packs one file, directory or link; `true` for a directory, whose names come next.
    fn one(&mut self, path: &[u8]) -> Result<bool, Stop> {
        let held = self.open(path, OFlag::O_PATH).map_err(|errno| refused(path, errno))?;
        let stat = fstat(&held).map_err(|errno| refused(path, errno))?;
        let refuse = |why: &str| Err(Refusal::unsafe_file(path, why).into());
        match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => self.begin(&entry(path, Kind::Directory, &stat)).map(|()| true),
            SFlag::S_IFREG => self.file(path, &stat).map(|()| false),
            SFlag::S_IFLNK => {
                let target = readlinkat(&held, "").map_err(|errno| refused(path, errno))?.into_vec();
                self.begin(&entry(path, Kind::Symlink { target }, &stat)).map(|()| false)
            }
            SFlag::S_IFCHR | SFlag::S_IFBLK => refuse("is a device"),
            SFlag::S_IFIFO => refuse("is a FIFO"),
            SFlag::S_IFSOCK => refuse("is a socket"),
            _ => refuse("is no file, directory or link"),
        }
    }

    fn file(&mut self, path: &[u8], stat: &FileStat) -> Result<(), Stop> {
        let inode = (stat.st_dev, stat.st_ino);
        let linked = stat.st_nlink > 1;
        if let Some(target) = self.seen.get(&inode).filter(|_| linked) {
            return self.begin(&entry(path, Kind::HardLink { target: target.clone() }, stat));
        }
        let content = self.open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK).map_err(|errno| refused(path, errno))?;
        let now = fstat(&content).map_err(|errno| refused(path, errno))?;
        if (now.st_dev, now.st_ino) != inode || now.st_mode != stat.st_mode {
            return Err(changed(path).into());
        }
        let size = u64::try_from(now.st_size).unwrap_or_default();
        let stored = u64::try_from(now.st_blocks).unwrap_or_default().saturating_mul(512);
        if size.saturating_sub(stored) > MAX_HOLES && holes(&content, now.st_size) > MAX_HOLES {
            let why = format!("is a sparse file: it says {} and holds {}", bytes(size), bytes(stored));
            return Err(Refusal::unsafe_file(path, why).into());
        }
        self.begin(&entry(path, Kind::File { size, linked }, &now))?;
        if now.st_mode & 0o6000 != 0 {
            self.tell_privileged(path);
        }
        self.content(path, &content, size)?;
        if linked {
            self.seen.insert(inode, path.to_owned());
        }
        Ok(())
    }

    /// Writes the header of an entry that may be in an image.
    fn begin(&mut self, entry: &Entry) -> Result<(), Stop> {
        self.tree.admit(entry)?;
        self.writer.entry(entry, true).map_err(unwritten)
    }

    /// Copies as much of a file as its entry says.
    fn content(&mut self, path: &[u8], content: &OwnedFd, size: u64) -> Result<(), Stop> {
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let length = match nix::unistd::read(content, self.piece.get_mut(..most).unwrap_or_default()) {
                Ok(0) => return Err(changed(path).into()),
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(refused(path, errno)),
            };
            self.writer.content(self.piece.get(..length).unwrap_or_default()).map_err(unwritten)?;
            left -= length as u64;
            self.tell();
        }
        self.tell();
        Ok(())
    }

    /// Opens a path below the root, with no link and no mount on its way; a link itself as what it is.
    fn open(&self, path: &[u8], flags: OFlag) -> nix::Result<OwnedFd> {
        let stay = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
        let how = OpenHow::new()
            .flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .mode(Mode::empty())
            .resolve(stay | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(self.root, OsStr::from_bytes(path), how)
    }

    /// Tells how far it is, now and then.
    fn tell(&mut self) {
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            println!("packing: {}", amount(&self.tree));
        }
    }

    /// Names a file that gives rights to whoever runs it: allowed, but worth to know.
    fn tell_privileged(&mut self, path: &[u8]) {
        self.privileged += 1;
        match self.privileged {
            ..=MAX_TOLD => println!("note: /{} is setuid or setgid", OsStr::from_bytes(path).display()),
            told if told == MAX_TOLD + 1 => println!("note: more files are setuid or setgid"),
            _ => {}
        }
    }
}

fn entry(path: &[u8], kind: Kind, stat: &FileStat) -> Entry {
    Entry {
        path: path.to_owned(),
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: stat.st_mtime,
    }
}

/// Bytes of a file that are not stored; a file system that compresses stores less without holes.
fn holes(content: &OwnedFd, size: i64) -> u64 {
    let (mut holes, mut at) = (0, 0);
    while at < size {
        let Ok(hole) = lseek(content, at, Whence::SeekHole) else { break };
        at = lseek(content, hole, Whence::SeekData).unwrap_or(size);
        holes += u64::try_from(at - hole).unwrap_or_default();
        if holes > MAX_HOLES {
            return holes;
        }
    }
    let _ = lseek(content, 0, Whence::SeekSet);
    holes
}

fn changed(path: &[u8]) -> Refusal {
    Refusal::unsafe_file(path, "was changed while it was packed; end what still writes to it before this step")
}

fn unwritten(error: io::Error) -> Stop {
    Stop::failed("write the archive", error)
}

/// Why a file cannot be packed, by what the system says of it.
fn refused(path: &[u8], errno: Errno) -> Stop {
    match errno {
        Errno::EXDEV => {
            Refusal::unsafe_file(path, "is a mount of another file system; copy what the image needs of it").into()
        }
        Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR | Errno::ESTALE => changed(path).into(),
        Errno::ENAMETOOLONG => Refusal::unsafe_file(path, "has a path that is too long").into(),
        Errno::EACCES | Errno::EPERM => {
            let user = nix::unistd::geteuid();
            Refusal::unsafe_file(path, format!("cannot be read by user {user}: {}", errno.desc())).into()
        }
        errno => Stop::failed(&format!("read /{}", OsStr::from_bytes(path).display()), errno),
    }
}

/// `12 files, 3.4 MB`.
fn amount(tree: &Tree) -> String {
    let files = tree.files();
    format!("{files} file{}, {}", if files == 1 { "" } else { "s" }, bytes(tree.bytes()))
}

/// `340 B`, `3.4 MB`: in powers of ten, as `windlass` shows what is pushed.
fn bytes(count: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")];
    match units.iter().find(|(size, _)| count >= *size) {
        Some((size, unit)) => format!("{}.{} {unit}", count / size, count % size * 10 / size),
        None => format!("{count} B"),
    }
}
