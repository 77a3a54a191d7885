//! The socket of the cluster's engine with a gate in it: one request waits there until a test lets it through, so that what
//! happens meanwhile happens for certain.
//!
//! **Invariant:** bytes pass as they are; a gate that is dropped is open.

use crate::cluster::engines::Which;
use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Condvar, Mutex, mpsc},
    time::Duration,
};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Gate {
    /// For `DOCKER_HOST`.
    pub(super) host: String,
    requests: mpsc::Receiver<String>,
    open: Arc<Open>,
    _directory: TempDir,
}

#[derive(Default)]
struct Open(Mutex<bool>, Condvar);

impl Open {
    fn wait(&self) {
        let mut open = self.0.lock().unwrap();
        while !*open {
            open = self.1.wait(open).unwrap();
        }
    }
}

impl Gate {
    /// A gate at which the request whose line holds these words waits.
    pub(super) fn before(words: &'static [&'static str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let open = Arc::new(Open::default());
        let (sender, requests) = mpsc::channel();
        let gate = Arc::clone(&open);
        std::thread::spawn(move || {
            for person in listener.incoming() {
                let (person, engine) = (person.unwrap(), UnixStream::connect(Which::Clusters.socket()).unwrap());
                let (to, from) = (person.try_clone().unwrap(), engine.try_clone().unwrap());
                let (sender, gate) = (sender.clone(), Arc::clone(&gate));
                std::thread::spawn(move || {
                    pass(person, engine, |bytes| {
                        let text = String::from_utf8_lossy(bytes);
                        let line = text.lines().next().unwrap_or_default();
                        // A test that has seen enough does not listen any more.
                        let _ = sender.send(line.to_owned());
                        if words.iter().all(|word| line.contains(word)) {
                            gate.wait();
                        }
                    });
                });
                std::thread::spawn(move || pass(from, to, |_| {}));
            }
        });
        Self { host: format!("unix://{}", path.display()), requests, open, _directory: directory }
    }

    /// Waits for a request whose line holds these words.
    pub(super) fn sees(&self, words: &[&str]) {
        let mut seen = Vec::new();
        while let Ok(line) = self.requests.recv_timeout(PATIENCE) {
            if words.iter().all(|word| line.contains(word)) {
                return;
            }
            seen.push(line);
        }
        panic!("no {words:?} in {seen:#?}");
    }

    pub(super) fn open(&self) {
        *self.open.0.lock().unwrap() = true;
        self.open.1.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

/// Passes bytes on until either side has ended.
fn pass(mut from: UnixStream, mut to: UnixStream, mut before: impl FnMut(&[u8])) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        before(&bytes[..length]);
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    // It may be gone already.
    let _ = to.shutdown(Shutdown::Write);
}
