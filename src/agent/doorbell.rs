//! Rings when something changes in a directory: one inotify instance for all runs of the node.
//!
//! `follow` hangs a bell on `out` and waits for it, with a look now and then in case inotify sees nothing.
//!
//! **Invariant:** a directory holds no more than one pending ring, however often a box writes.

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};
use std::{
    collections::HashMap,
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Notify,
};

type Bells = Arc<Mutex<HashMap<i32, Arc<Notify>>>>;

/// The bells of all directories.
pub struct Doorbell {
    inotify: Arc<AsyncFd<OwnedFd>>,
    bells: Bells,
    task: tokio::task::JoinHandle<()>,
}

/// A bell on one directory; taken off when dropped.
pub struct Bell {
    inotify: Arc<AsyncFd<OwnedFd>>,
    bells: Bells,
    descriptor: i32,
    kept: bool,
}

impl Bell {
    /// Whether both hang on the same directory.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.descriptor == other.descriptor
    }

    /// Leaves the watch to another bell on the same directory.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Doorbell {
    /// Begins to listen.
    pub fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for the sake of types that close early; an OwnedFd does not"
        )]
        let inotify = Arc::new(AsyncFd::with_interest(inotify, Interest::READABLE)?);
        let bells = Bells::default();
        let task = tokio::spawn(listen(Arc::clone(&inotify), Arc::clone(&bells)));
        Ok(Self { inotify, bells, task })
    }

    /// Rings `notify` whenever a file in the directory is written, made or moved there.
    pub fn hang(&self, dir: &Path, notify: &Arc<Notify>) -> io::Result<Bell> {
        let flags = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW;
        // Held over both, so that no event comes before its bell is known.
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        let descriptor = inotify::add_watch(self.inotify.get_ref(), dir, flags)?;
        bells.insert(descriptor, Arc::clone(notify));
        Ok(Bell { inotify: Arc::clone(&self.inotify), bells: Arc::clone(&self.bells), descriptor, kept: false })
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        self.bells.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.descriptor);
        // The directory may be gone, and its watch with it.
        let _ = inotify::remove_watch(self.inotify.get_ref(), self.descriptor);
    }
}

async fn listen(inotify: Arc<AsyncFd<OwnedFd>>, bells: Bells) {
    loop {
        let Ok(mut ready) = inotify.readable().await else { return };
        match ring(inotify.get_ref(), &bells) {
            Errno::AGAIN => ready.clear_ready(),
            Errno::INTR => {}
            error => {
                tracing::warn!(%error, "file changes are no longer seen at once");
                return;
            }
        }
    }
}

/// Rings for all events that are there; gives why there are no more.
fn ring(inotify: &OwnedFd, bells: &Bells) -> Errno {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(inotify, &mut buffer);
    loop {
        let (descriptor, overflow) = match events.next() {
            Ok(event) => (event.wd(), event.events().contains(ReadFlags::QUEUE_OVERFLOW)),
            Err(errno) => return errno,
        };
        let bells = bells.lock().unwrap_or_else(PoisonError::into_inner);
        if overflow {
            bells.values().for_each(|bell| bell.notify_one());
        } else if let Some(bell) = bells.get(&descriptor) {
            bell.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn rings_for_its_own_directory() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let doorbell = Doorbell::new().unwrap();
        let (first, second) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let _first = doorbell.hang(one.path(), &first).unwrap();
        let bell = doorbell.hang(two.path(), &second).unwrap();
        std::fs::write(one.path().join("journal"), "x").unwrap();
        tokio::time::timeout(Duration::from_secs(10), first.notified()).await.expect("no ring");
        std::fs::write(two.path().join("journal"), "x").unwrap();
        tokio::time::timeout(Duration::from_secs(10), second.notified()).await.expect("no ring");
        drop(bell);
        assert_eq!(doorbell.bells.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_missing_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let doorbell = Doorbell::new().unwrap();
        assert!(doorbell.hang(&dir.path().join("none"), &Arc::new(Notify::new())).is_err());
    }
}
