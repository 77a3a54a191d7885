//! Rings when something changes in a directory: one inotify instance for all runs of the node.
//!
//! `follow` hangs a bell on `out` and waits for it, with a look now and then in case inotify sees nothing.
//!
//! **Invariant:** a directory holds no more than one pending ring, however often a box writes.

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Notify,
};

type Bells = Arc<Mutex<HashMap<WatchDescriptor, Arc<Notify>>>>;

/// The bells of all directories.
pub struct Doorbell {
    inotify: Arc<AsyncFd<Inotify>>,
    bells: Bells,
    task: tokio::task::JoinHandle<()>,
}

/// A bell on one directory; taken off when dropped.
pub struct Bell {
    inotify: Arc<AsyncFd<Inotify>>,
    bells: Bells,
    descriptor: WatchDescriptor,
}

impl Doorbell {
    /// Begins to listen.
    pub fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let inotify = Arc::new(AsyncFd::with_interest(inotify, Interest::READABLE)?);
        let bells = Bells::default();
        let task = tokio::spawn(listen(Arc::clone(&inotify), Arc::clone(&bells)));
        Ok(Self { inotify, bells, task })
    }

    /// Rings `notify` whenever a file in the directory is written, made or moved there.
    pub fn hang(&self, dir: &Path, notify: &Arc<Notify>) -> io::Result<Bell> {
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_ONLYDIR
            | AddWatchFlags::IN_DONT_FOLLOW;
        // Held over both, so that no event comes before its bell is known.
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        let descriptor = self.inotify.get_ref().add_watch(dir, flags)?;
        bells.insert(descriptor, Arc::clone(notify));
        Ok(Bell { inotify: Arc::clone(&self.inotify), bells: Arc::clone(&self.bells), descriptor })
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.descriptor);
        // The directory may be gone, and its watch with it.
        let _ = self.inotify.get_ref().rm_watch(self.descriptor);
    }
}

async fn listen(inotify: Arc<AsyncFd<Inotify>>, bells: Bells) {
    loop {
        let Ok(mut ready) = inotify.readable().await else { return };
        match inotify.get_ref().read_events() {
            Ok(events) => {
                let bells = bells.lock().unwrap_or_else(PoisonError::into_inner);
                for event in &events {
                    if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                        bells.values().for_each(|bell| bell.notify_one());
                    } else if let Some(bell) = bells.get(&event.wd) {
                        bell.notify_one();
                    }
                }
            }
            Err(nix::errno::Errno::EAGAIN) => ready.clear_ready(),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => {
                tracing::warn!(%error, "file changes are no longer seen at once");
                return;
            }
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
