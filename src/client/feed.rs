//! Where the news of a run comes from that is followed: the cluster, or the run on this machine.
//!
//! `follow` asks it; `here` has the other one. **Invariant:** a feed says what is, and decides nothing; waiting for news
//! can be given up at any time without losing any.

use super::{
    away::Away,
    cancel,
    connect::{Cluster, run_resource},
    event::Event,
    fault::{Fault, Stop, one_line},
    follow::Left,
    happenings,
    in_box::{Ended, InBox},
    output::{self, Heard, Over, Source},
    refusal::Ask,
    view::RunView,
};
use futures::{StreamExt, stream::BoxStream};
use kube::{
    Api,
    api::DynamicObject,
    runtime::{WatchStreamExt, watcher},
};
use tokio::sync::{mpsc, watch};

/// News of a run.
pub(super) enum Fed {
    /// How it is now.
    Run(Box<RunView>),
    /// It was deleted.
    Deleted,
    /// There will be none.
    Refused(Stop),
    /// Something said about it, for people.
    Report(Event),
}

/// See the module.
pub(super) trait Feed {
    /// Where the run is, for people.
    fn place(&self) -> &str;
    /// What is to be said of a silence, if anything; asked again and again.
    ///
    /// # Errors
    /// When there was no answer for too long.
    fn check(&mut self) -> Result<Option<String>, Fault>;
    /// The next news. To be dropped without harm.
    async fn next(&mut self) -> Fed;
    /// Begins to tell what the box of this pod prints.
    fn hear(&mut self, pod: &str, tell_caught_up: bool, speak: mpsc::Sender<Heard>, over: watch::Receiver<Over>);
    /// Asks for a cancel: with after-steps, or `now` without.
    ///
    /// # Errors
    /// When nobody could be asked.
    async fn cancel(&mut self, run: &str, now: bool) -> Result<(), Stop>;
    /// Ends a watched step of the run with success.
    ///
    /// # Errors
    /// Why it could not be ended, for people.
    async fn finish(&mut self, run: RunView, step: &str) -> Result<(), String>;
    /// Hands our terminal to the `shell` step at which the run waits, until somebody leaves it; the words for how.
    ///
    /// # Errors
    /// When there is no terminal, here or there.
    async fn attach(&mut self, run: &str, step: &str) -> Result<String, Stop>;
    /// What a second Ctrl-C does: `to …`.
    fn second_interrupt(&self) -> &'static str;
    /// Somebody leaves: the words for it.
    fn left(&mut self, run: &str, how: Left) -> String;
    /// That the run goes on, for who does not follow it any more.
    fn goes_on(&self, run: &str) -> String;
}

/// A run of a cluster.
pub(super) struct OfCluster<'a> {
    cluster: &'a Cluster,
    namespace: String,
    run: String,
    away: Away,
    changes: BoxStream<'static, watcher::Result<watcher::Event<DynamicObject>>>,
    /// What the cluster says of the run, with -v.
    reports: mpsc::Receiver<Event>,
    /// Keeps the channel open without -v.
    _report: mpsc::Sender<Event>,
}

impl<'a> OfCluster<'a> {
    /// The feed of a run; with the cluster's events about it if they are wanted.
    pub(super) fn new(cluster: &'a Cluster, view: &RunView, with_events: bool) -> Self {
        let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), &view.namespace, &run_resource());
        let select = watcher::Config::default().fields(&format!("metadata.name={}", view.name));
        let changes = watcher(api, select).default_backoff().boxed();
        let (report, reports) = mpsc::channel(64);
        if with_events {
            tokio::spawn(happenings::watch(cluster.client.clone(), view.clone(), report.clone()));
        }
        let (namespace, run) = (view.namespace.clone(), view.name.clone());
        Self { cluster, namespace, run, away: Away::default(), changes, reports, _report: report }
    }

    /// What a change of the watch means, if anything.
    fn read(&mut self, change: watcher::Result<watcher::Event<DynamicObject>>) -> Option<Fed> {
        match change {
            Ok(watcher::Event::Apply(run) | watcher::Event::InitApply(run)) => {
                self.away.is_back();
                Some(Fed::Run(Box::new(RunView::read(&run))))
            }
            Ok(watcher::Event::Delete(_)) => Some(Fed::Deleted),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => None,
            Err(error) => self.away.failed(&error, &Ask::run("watch", &self.run), self.cluster).err().map(Fed::Refused),
        }
    }
}

impl Feed for OfCluster<'_> {
    fn place(&self) -> &str {
        &self.cluster.context
    }

    fn check(&mut self) -> Result<Option<String>, Fault> {
        let hint = || format!("the run goes on; later: {} logs -f {}", self.cluster.program, self.run);
        self.away.check(self.cluster).map_err(|fault| fault.hint(hint()))
    }

    async fn next(&mut self) -> Fed {
        loop {
            let change = tokio::select! {
                change = self.changes.next() => change,
                Some(report) = self.reports.recv() => return Fed::Report(report),
            };
            match change {
                Some(change) => {
                    if let Some(fed) = self.read(change) {
                        return fed;
                    }
                }
                None => self.changes = futures::stream::pending().boxed(),
            }
        }
    }

    fn hear(&mut self, pod: &str, tell_caught_up: bool, speak: mpsc::Sender<Heard>, over: watch::Receiver<Over>) {
        let pods = Api::namespaced(self.cluster.client.clone(), &self.namespace);
        let source = Source { pods, pod: pod.to_owned(), container: output::BOX.into(), follow: true, tell_caught_up };
        tokio::spawn(output::read(source, speak, over));
    }

    async fn cancel(&mut self, run: &str, now: bool) -> Result<(), Stop> {
        cancel::request(self.cluster, run, now).await.map(drop)
    }

    async fn finish(&mut self, run: RunView, step: &str) -> Result<(), String> {
        let finished = async { InBox::of(self.cluster, run)?.say(&["finish", step]).await };
        match finished.await {
            Ok((Ended::Code(0), _)) => Ok(()),
            Ok((_, said)) => Err(one_line(&said)),
            Err(stop) => Err(stop.message().to_owned()),
        }
    }

    async fn attach(&mut self, run: &str, step: &str) -> Result<String, Stop> {
        // Nobody asks: who follows a run of the cluster may not be the one whom its shell waits for.
        Ok(format!("step {step} waits: {} shell {run}", self.cluster.program))
    }

    fn second_interrupt(&self) -> &'static str {
        "to leave now"
    }

    fn left(&mut self, run: &str, how: Left) -> String {
        let program = &self.cluster.program;
        match how {
            Left::Unheard => format!("left; {run} may not have heard it: {program} cancel {run}"),
            Left::UnheardNow => format!("left; {run} may not have heard it: {program} cancel {run} --now"),
            Left::Cancelled => format!("left; {run} is being cancelled: {program} status {run}"),
            Left::Detached => format!("left; {run} goes on: {program} logs -f {run}"),
        }
    }

    fn goes_on(&self, run: &str) -> String {
        format!("the run goes on: {} logs -f {run}", self.cluster.program)
    }
}
