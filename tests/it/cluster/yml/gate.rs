//! The socket of the cluster's engine with a gate in it: one request waits there until a test lets it through, so that what
//! happens meanwhile happens for certain. The engine carries it out also if whoever asked has gone, as one does that was
//! already at it.
//!
//! **Invariant:** bytes pass as they are; a gate that is dropped is open.

use crate::cluster::engines::Which;
use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
/// How long a request that is let through still waits: whoever does not wait for its answer is gone by then.
const LATE: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Gate {
    /// For `DOCKER_HOST`.
    pub(super) host: String,
    requests: mpsc::Receiver<String>,
    open: Arc<Said>,
    answered: Arc<Said>,
    _directory: TempDir,
}

/// Something that is said once, to all who wait for it.
#[derive(Default)]
struct Said(Mutex<bool>, Condvar);

impl Said {
    fn say(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn wait(&self) {
        let (said, _) = self.1.wait_timeout_while(self.0.lock().unwrap(), PATIENCE, |said| !*said).unwrap();
        assert!(*said, "it did not come in {PATIENCE:?}");
    }
}

impl Gate {
    /// A gate at which the request whose line holds these words waits.
    pub(super) fn before(words: &'static [&'static str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (open, answered) = (Arc::new(Said::default()), Arc::new(Said::default()));
        let (sender, requests) = mpsc::channel();
        let (opened, answers) = (Arc::clone(&open), Arc::clone(&answered));
        std::thread::spawn(move || {
            for person in listener.incoming() {
                let (person, engine) = (person.unwrap(), UnixStream::connect(Which::Clusters.socket()).unwrap());
                let (mut to, from) = (person.try_clone().unwrap(), engine.try_clone().unwrap());
                let (sender, opened, answers) = (sender.clone(), Arc::clone(&opened), Arc::clone(&answers));
                let held = Arc::new(AtomicBool::new(false));
                let (asked, answer) = (Arc::clone(&held), Arc::clone(&answers));
                std::thread::spawn(move || {
                    pass(from, |bytes| {
                        if asked.load(Ordering::SeqCst) {
                            answer.say();
                        }
                        to.write_all(bytes).is_ok()
                    });
                    // It may be gone already.
                    let _ = to.shutdown(Shutdown::Write);
                });
                std::thread::spawn(move || {
                    let mut to = engine;
                    pass(person, |bytes| {
                        let text = String::from_utf8_lossy(bytes);
                        let line = text.lines().next().unwrap_or_default();
                        // A test that has seen enough does not listen any more.
                        let _ = sender.send(line.to_owned());
                        if !words.iter().all(|word| line.contains(word)) {
                            return to.write_all(bytes).is_ok();
                        }
                        opened.wait();
                        std::thread::sleep(LATE);
                        held.store(true, Ordering::SeqCst);
                        to.write_all(bytes).unwrap();
                        // Until then the engine is not told that nobody listens.
                        answers.wait();
                        true
                    });
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        });
        Self { host: format!("unix://{}", path.display()), requests, open, answered, _directory: directory }
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

    /// Lets the request through.
    pub(super) fn open(&self) {
        self.open.say();
    }

    /// Waits until the engine has carried it out.
    pub(super) fn answered(&self) {
        self.answered.wait();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

/// Passes bytes on until either side has ended.
fn pass(mut from: UnixStream, mut to: impl FnMut(&[u8]) -> bool) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        if !to(&bytes[..length]) {
            return;
        }
    }
}
