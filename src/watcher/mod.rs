//! Sees changes in a directory and all below it: by the kernel's word, or, where a limit of the
//! kernel is reached, by looking again and again. Called by the runner while a watched step runs, and by `windlass dev`.
//!
//! **Invariant:** a change of a file that counts is reported: at once by the kernel's word, which
//! comes when a file that was written is closed. Nothing is waited for, links are not followed, and
//! directories, files, events of a turn and the time spent looking are bounded.

mod ignore;
mod tree;

use ignore::IGNORE_FILE;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;
pub(crate) use tree::Tree;
use tree::{Seen, difference};

/// How often events are read in a turn of the loop; each read takes some hundred at most.
const READS: usize = 64;
/// Between two looks without the kernel's word, at least.
const LOOK_MS: u64 = 1_000;
/// Looking may take one part in so many of the time.
const LOOK_SHARE: u64 = 20;
/// What counts: files that were closed after writing, names that came and went.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// Why the kernel does not report all changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// It watches no more directories.
    Watches,
    /// It makes no more watchers.
    Instances,
    /// The directory itself was moved or removed.
    Moved,
    /// It refuses.
    Refused(Errno),
}

impl From<Errno> for Limit {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ENOSPC => Self::Watches,
            Errno::EMFILE => Self::Instances,
            Errno::ENOENT => Self::Moved,
            other => Self::Refused(other),
        }
    }
}

/// How many directories and files count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) directories: usize,
    pub(crate) files: usize,
    /// Whether there are more, which are not looked at.
    pub(crate) cut: bool,
}

/// Watches one directory.
pub(crate) struct Watcher {
    ignore: Vec<String>,
    tree: Tree,
    eyes: Eyes,
    limit: Option<Limit>,
    /// Whether what counts is to be found out again, and when at the earliest.
    afresh: bool,
    earliest: u64,
}

enum Eyes {
    /// The kernel's word.
    Kernel(Kernel),
    /// Our own, and when to look next.
    Own { seen: Seen, next: u64 },
}

impl Watcher {
    /// Watches `root`; `ignore` are the step's patterns.
    pub(crate) fn open(now: u64, root: &Path, ignore: &[String]) -> Self {
        let mut tree = Tree::new(root, ignore);
        let (eyes, limit) = match Kernel::open(&mut tree) {
            Ok(kernel) => (Eyes::Kernel(kernel), None),
            Err(limit) => (own(now, &mut tree), Some(limit)),
        };
        Self { ignore: ignore.to_vec(), tree, eyes, limit, afresh: false, earliest: now }
    }

    /// Readable when there is something to [`Self::look`] at.
    pub(crate) fn changes(&self) -> Option<BorrowedFd<'_>> {
        match &self.eyes {
            Eyes::Kernel(kernel) => Some(kernel.inotify.as_fd()),
            Eyes::Own { .. } => None,
        }
    }

    /// When to [`Self::look`] without the kernel's word.
    pub(crate) fn wake(&self) -> Option<u64> {
        match &self.eyes {
            Eyes::Kernel(_) => self.afresh.then_some(self.earliest),
            Eyes::Own { next, .. } => Some(*next),
        }
    }

    /// Why the kernel does not report all changes, if so. It may come about at any time.
    pub(crate) fn limit(&self) -> Option<Limit> {
        self.limit
    }

    /// How much there is.
    pub(crate) fn size(&self) -> Size {
        Size { directories: self.tree.directories, files: self.tree.files, cut: self.tree.cut }
    }

    /// Looks for changes; the answer is what changed first, in the tree. Its path is empty if that is
    /// not known.
    pub(crate) fn look(&mut self, now: u64) -> Option<PathBuf> {
        match &mut self.eyes {
            Eyes::Kernel(_) => self.listen(now),
            Eyes::Own { seen, next } if now >= *next => {
                let old = std::mem::take(seen);
                self.eyes = own(now, &mut self.tree);
                if let Eyes::Own { seen, .. } = &self.eyes { difference(&old, seen) } else { None }
            }
            Eyes::Own { .. } => None,
        }
    }

    /// Takes what the kernel reported; the answer is the first change.
    fn listen(&mut self, now: u64) -> Option<PathBuf> {
        let Eyes::Kernel(kernel) = &mut self.eyes else { return None };
        let mut first = None;
        'reads: for _ in 0..READS {
            let Ok(events) = kernel.inotify.read_events() else { break };
            for event in events {
                match kernel.hear(&event, &mut self.tree) {
                    Heard::Nothing => {}
                    Heard::Changed(path) => drop(first.get_or_insert(path)),
                    Heard::Afresh(path) => {
                        first.get_or_insert(path);
                        self.afresh = true;
                        if now >= self.earliest {
                            break 'reads;
                        }
                    }
                }
            }
        }
        if !self.afresh || now < self.earliest {
            return first;
        }
        self.look_afresh(now);
        // If it had to wait, a change may have gone unseen meanwhile.
        Some(first.unwrap_or_default())
    }

    /// Watches the tree anew. This is done no more often than looking is, as events that are too many come again.
    fn look_afresh(&mut self, now: u64) {
        let (root, began) = (self.tree.root.clone(), Instant::now());
        // The old watches go first: both at once may be more than the kernel allows.
        self.eyes = Eyes::Own { seen: Seen::new(), next: now };
        *self = Self::open(now, &root, &self.ignore);
        self.earliest = now + pause_ms(began);
    }
}

/// Looks with our own eyes.
fn own(now: u64, tree: &mut Tree) -> Eyes {
    let began = Instant::now();
    let seen = tree.look();
    Eyes::Own { seen, next: now + pause_ms(began) }
}

/// How long not to look again after a look that began then.
fn pause_ms(began: Instant) -> u64 {
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(LOOK_MS);
    took_ms.saturating_mul(LOOK_SHARE).max(LOOK_MS)
}

/// What an event means.
enum Heard {
    Nothing,
    /// This counts.
    Changed(PathBuf),
    /// This too, and what counts has to be found out again.
    Afresh(PathBuf),
}

/// An inotify instance, and the directories it watches, by their path in the tree.
struct Kernel {
    inotify: Inotify,
    directories: HashMap<WatchDescriptor, PathBuf>,
}

impl Kernel {
    /// Watches the whole tree.
    fn open(tree: &mut Tree) -> Result<Self, Limit> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let mut kernel = Self { inotify, directories: HashMap::new() };
        kernel.add(tree, Path::new(""))?;
        Ok(kernel)
    }

    /// Watches a directory and all below it.
    fn add(&mut self, tree: &mut Tree, from: &Path) -> Result<(), Errno> {
        // What is watched is bounded, not what came and went in a long time.
        (tree.directories, tree.files) = (self.directories.len(), 0);
        tree.walk(from, |path, whole, is_dir| {
            let is_root = path.as_os_str().is_empty();
            let flags = if is_root { CHANGES } else { CHANGES | AddWatchFlags::IN_DONT_FOLLOW };
            match is_dir.then(|| self.inotify.add_watch(whole, flags)) {
                None => Ok(()),
                Some(Ok(watch)) => {
                    self.directories.insert(watch, path.to_owned());
                    Ok(())
                }
                Some(Err(errno @ (Errno::ENOSPC | Errno::ENOMEM))) => Err(errno),
                Some(Err(errno)) if is_root => Err(errno),
                // Gone again, or not ours to read.
                Some(Err(_)) => Ok(()),
            }
        })
    }

    /// Stops watching a directory and all below it: it may live on elsewhere.
    fn remove(&mut self, tree: &mut Tree, from: &Path) {
        let Self { inotify, directories } = self;
        directories.retain(|watch, path| {
            let stays = !path.starts_with(from);
            if !stays {
                // It fails for what is gone.
                let _ = inotify.rm_watch(*watch);
            }
            stays
        });
        tree.rules.forget(from);
    }

    /// Takes one event.
    fn hear(&mut self, event: &InotifyEvent, tree: &mut Tree) -> Heard {
        let is = |flag| event.mask.contains(flag);
        if is(AddWatchFlags::IN_Q_OVERFLOW) {
            return Heard::Afresh(PathBuf::new());
        }
        let Some(directory) = self.directories.get(&event.wd).cloned() else { return Heard::Nothing };
        let Some(name) = &event.name else {
            let gone = is(AddWatchFlags::IN_IGNORED);
            if gone {
                self.directories.remove(&event.wd);
            }
            let lost = directory.as_os_str().is_empty() && (gone || is(AddWatchFlags::IN_MOVE_SELF));
            return if lost { Heard::Afresh(directory) } else { Heard::Nothing };
        };
        let path = directory.join(name);
        let is_dir = is(AddWatchFlags::IN_ISDIR);
        if tree.rules.ignores(&path, is_dir) {
            return Heard::Nothing;
        }
        if !is_dir {
            return match name == IGNORE_FILE {
                true => Heard::Afresh(path),
                false if is(AddWatchFlags::IN_CREATE) && !is_whole(&tree.root.join(&path)) => Heard::Nothing,
                false => Heard::Changed(path),
            };
        }
        if is(AddWatchFlags::IN_MOVED_FROM) || is(AddWatchFlags::IN_DELETE) {
            self.remove(tree, &path);
        } else if self.add(tree, &path).is_err() {
            return Heard::Afresh(path);
        }
        Heard::Changed(path)
    }
}

/// Whether what was just made is complete: a link, or another name of a file. A new file is when it
/// is closed; sockets and the like are the program's own.
fn is_whole(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| {
        let kind = meta.file_type();
        kind.is_symlink() || (kind.is_file() && meta.nlink() > 1)
    })
}

#[cfg(test)]
mod tests;
