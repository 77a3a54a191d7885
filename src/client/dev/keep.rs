//! Keeps the source in the box as the directory on this machine is, until the run is over.
//!
//! **Invariant:** one delta at a time; what changes meanwhile is in the next. Bursts of changes are one delta.

use super::{
    Dev,
    local::{Delta, Local, Looks},
    publish,
    send::{Failure, Sent, send},
};
use crate::{
    client::{
        connect::Cluster,
        event::Event,
        exit::Exit,
        fault::{Stop, one_line},
        in_box::{Ended, InBox},
        render::bytes,
        view::RunView,
    },
    watcher::Watcher,
};
use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot, watch};

/// After a change, as long without another the delta is made.
const QUIET: Duration = Duration::from_millis(100);
/// But no later than this after the first.
const LATEST: Duration = Duration::from_secs(1);
/// How often the kernel's word is asked for.
const LISTEN: Duration = Duration::from_millis(50);
/// How often everything is looked at without a word, at least: modes make none.
const LOOK: Duration = Duration::from_secs(5);
/// Looking may take one part in so many of the time.
const LOOK_SHARE: u32 = 50;
/// Between two tries while the box does not take it yet.
const AGAIN: Duration = Duration::from_millis(300);
/// For so long nobody is told that the box does not take it yet.
const NO_NEWS: Duration = Duration::from_secs(10);
/// The longest pause between two tries over a connection that is lost.
const LONGEST: Duration = Duration::from_secs(5);
/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(500);
/// Files that are left out and named; more are counted.
const NAMED: usize = 5;

/// Starts all that goes on beside following; the receiver is told why it cannot go on.
pub(super) fn start(
    dev: Dev,
    cluster: &Cluster,
    run: watch::Receiver<RunView>,
    say: mpsc::Sender<Event>,
) -> mpsc::Receiver<Stop> {
    let (fail, failed) = mpsc::channel(1);
    let ports: Vec<_> = dev.taken.iter().map(|taken| taken.ports).collect();
    for taken in dev.taken {
        tokio::spawn(publish::serve(taken, cluster.clone(), run.clone(), say.clone()));
    }
    let (cluster, local, first) = (cluster.clone(), dev.local, dev.first);
    let mut keeper = Keeper { cluster, run, say, local, first, has: Has::default(), begun: None, told_odd: false };
    tokio::spawn(async move {
        for ports in ports {
            keeper.tell(format!("http://localhost:{} is port {} of the box", ports.local, ports.remote)).await;
        }
        if let Err(stop) = keeper.keep().await {
            // Who follows has left already: then nobody asks.
            let _ = fail.send(stop).await;
        }
    });
    failed
}

struct Keeper {
    cluster: Cluster,
    run: watch::Receiver<RunView>,
    say: mpsc::Sender<Event>,
    local: Local,
    first: String,
    has: Has,
    /// The pod whose first step was let begin.
    begun: Option<String>,
    told_odd: bool,
}

/// What the box has, and whose box it is.
#[derive(Debug, Default)]
pub(super) struct Has {
    pod: Option<String>,
    pub(super) files: Looks,
}

impl Has {
    /// Takes note of the pod that the run has now: one that takes the place of another has nothing yet.
    pub(super) fn be_in(&mut self, pod: Option<&str>) {
        if pod.is_some() && pod != self.pod.as_deref() {
            *self = Self { pod: pod.map(str::to_owned), files: Looks::new() };
        }
    }
}

impl Keeper {
    async fn keep(&mut self) -> Result<(), Stop> {
        // Before the first look, so that nothing falls between the two.
        let changes = listen(self.local.root.clone(), self.local.ignore.clone()).await;
        if self.start().await? { self.follow_changes(changes).await } else { Ok(()) }
    }

    /// Brings everything into a box that is new and lets its first step begin; false if the run ends before.
    async fn start(&mut self) -> Result<bool, Stop> {
        if !self.until_it_runs().await {
            return Ok(false);
        }
        let files = self.bring(true).await?;
        if self.is_over() {
            return Ok(false);
        }
        match files {
            Some(files) => self.tell(files).await,
            None if self.has.files.is_empty() => self.tell("the directory is empty: nothing was sent".into()).await,
            None => {}
        }
        self.begun = self.has.pod.clone();
        self.begin().await?;
        Ok(true)
    }

    async fn follow_changes(&mut self, mut changes: mpsc::Receiver<()>) -> Result<(), Stop> {
        let mut look = LOOK;
        while !self.is_over() {
            // An attempt after one that was lost has a pod of its own, which waits as the first did.
            let pod = self.run.borrow().status.pod_name.clone();
            if pod.is_some() && pod != self.begun {
                if !self.start().await? {
                    return Ok(());
                }
                continue;
            }
            tokio::select! {
                Some(()) = changes.recv() => {
                    let began = Instant::now();
                    while began.elapsed() < LATEST && tokio::time::timeout(QUIET, changes.recv()).await.is_ok() {}
                }
                () = tokio::time::sleep(look) => {}
                _ = self.run.changed() => continue,
            }
            let began = Instant::now();
            if let Some(files) = self.bring(false).await? {
                self.tell(files).await;
            } else {
                look = LOOK.max(began.elapsed() * LOOK_SHARE);
            }
        }
        Ok(())
    }

    /// Waits for the box; false if the run ends before.
    async fn until_it_runs(&mut self) -> bool {
        let runs = |view: &RunView| {
            view.outcome().is_some()
                || (view.status.pod_name.is_some() && ["Running", "Waiting"].contains(&view.phase()))
        };
        self.run.wait_for(runs).await.is_ok() && !self.is_over()
    }

    fn is_over(&self) -> bool {
        self.run.borrow().outcome().is_some() || self.run.has_changed().is_err()
    }

    /// Brings what changed into the box, over as many connections as it takes; the answer says what it was, if anything.
    async fn bring(&mut self, first: bool) -> Result<Option<String>, Stop> {
        let mut pause = AGAIN;
        let mut told = String::new();
        let began = Instant::now();
        loop {
            if self.is_over() {
                return Ok(None);
            }
            let pod = self.run.borrow().status.pod_name.clone();
            self.has.be_in(pod.as_deref());
            let Some(delta) = self.look().await else { return Ok(None) };
            if *delta == Delta::default() {
                return Ok(None);
            }
            match self.send(&delta, first).await {
                Ok(sent) => {
                    self.has.files = sent;
                    let took = first.then(|| began.elapsed());
                    return Ok(Some(words(&delta, took)));
                }
                // Its steps have not begun, or are over; that is no news for a while.
                Err(Failure::NotNow(_)) if began.elapsed() < NO_NEWS => pause = AGAIN,
                Err(Failure::NotNow(why) | Failure::Lost(why) | Failure::InBox(why)) => {
                    if told != why {
                        self.tell(format!("the source did not arrive ({}); trying again", one_line(&why))).await;
                        told = why;
                    }
                    pause = (pause * 2).min(LONGEST);
                }
                Err(Failure::Stop(stop)) => return Err(stop),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.run.changed() => tokio::time::sleep(QUIET).await,
            }
        }
    }

    /// What is to be sent now. Looking goes on beside the screen.
    async fn look(&mut self) -> Option<Arc<Delta>> {
        let (local, sent) = (self.local.clone(), self.has.files.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let here = local.look();
            let delta = local.delta(&sent, &here.looks);
            (here.odd, here.cut, delta)
        });
        let (odd, cut, delta) = looked.await.ok()?;
        if !std::mem::replace(&mut self.told_odd, true) {
            for (path, why) in odd.iter().take(NAMED) {
                self.tell(format!("{} is not sent: {why}", String::from_utf8_lossy(path))).await;
            }
            if odd.len() > NAMED {
                self.tell(format!("{} more are not sent", odd.len() - NAMED)).await;
            }
            if cut {
                self.tell("the directory holds more files than are looked at; leave some out with --ignore".into())
                    .await;
            }
        }
        Some(Arc::new(delta))
    }

    async fn send(&self, delta: &Arc<Delta>, first: bool) -> Result<Looks, Failure> {
        let view = self.run.borrow().clone();
        let progress = Arc::new(Sent::default());
        let sending = send(&self.cluster, &view, &self.local, (Arc::clone(delta), self.has.files.clone()), &progress);
        let mut sending = std::pin::pin!(sending);
        let mut clock = tokio::time::interval(PROGRESS);
        clock.tick().await;
        loop {
            tokio::select! {
                sent = &mut sending => {
                    if first {
                        self.progress(String::new()).await;
                    }
                    return sent;
                }
                _ = clock.tick() => {
                    let (files, done) = (progress.files.load(Ordering::Relaxed), progress.bytes.load(Ordering::Relaxed));
                    let (all, size) = (delta.came.len(), number(delta.bytes));
                    self.progress(format!("sending the source: {files} of {all} files, {} of {}", bytes(number(done)), bytes(size))).await;
                }
            }
        }
    }

    /// Lets the first step begin.
    async fn begin(&mut self) -> Result<(), Stop> {
        let view = self.run.borrow().clone();
        let there = InBox::of(&self.cluster, view)?;
        loop {
            match there.say(&["continue", &self.first]).await {
                Ok((Ended::Code(0), _)) => return Ok(()),
                // Somebody else did, or the run ends.
                Ok((Ended::Code(_) | Ended::Refused(_), said)) => {
                    self.tell(format!("step {} was not waiting: {}", self.first, one_line(&said))).await;
                    return Ok(());
                }
                Ok((Ended::Lost, _)) => {}
                Err(stop) if stop.exit() == Exit::World => {}
                Err(stop) => return Err(stop),
            }
            if self.is_over() {
                return Ok(());
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn tell(&self, message: String) {
        // Who follows has left: then nobody reads it.
        let _ = self.say.send(Event::Notice { message }).await;
    }

    async fn progress(&self, message: String) {
        let view = self.run.borrow().clone();
        if let Some(step) = view.steps.into_iter().find(|step| step.name == self.first) {
            let _ = self.say.send(Event::Progress { step, message }).await;
        }
    }
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// `server.js sent`, or how many and how much.
fn words(delta: &Delta, took: Option<Duration>) -> String {
    let name = |path: &[u8]| one_line(&String::from_utf8_lossy(path));
    let what = match (delta.came.as_slice(), delta.gone.as_slice()) {
        ([one], []) => format!("{} sent", name(one)),
        ([], [one]) => format!("{} removed", name(one)),
        (came, []) => format!("{} files sent", came.len()),
        ([], gone) => format!("{} files removed", gone.len()),
        (came, gone) => format!("{} files sent, {} removed", came.len(), gone.len()),
    };
    match took {
        Some(took) => format!("{what} ({} in {})", bytes(number(delta.bytes)), crate::api::duration::human(took)),
        None => what,
    }
}

/// Tells that something changed, until nobody listens. The kernel's word is asked for in a thread, as new directories
/// are walked there.
async fn listen(root: PathBuf, ignore: Vec<String>) -> mpsc::Receiver<()> {
    let (say, changes) = mpsc::channel(1);
    let (ready, opened) = oneshot::channel();
    std::thread::spawn(move || {
        let began = Instant::now();
        let now = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut watcher = Watcher::open(now(), &root, &ignore);
        // Who asked may be gone: then the channel is closed too.
        let _ = ready.send(());
        while !say.is_closed() {
            if watcher.look(now()).is_some() {
                // One that waits already says the same.
                let _ = say.try_send(());
            }
            std::thread::sleep(LISTEN);
        }
    });
    let _ = opened.await;
    changes
}
