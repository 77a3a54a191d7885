//! Follows a run to its end: its status, its output, signals and the clock go in, a renderer's text
//! comes out.
//!
//! `run`, `retry`, `logs -f` and `status --wait` use it, with a [`Feed`] of the cluster or of this machine. **Invariant:**
//! ending the view never ends a run of the cluster; only a Ctrl-C of who started it asks for a cancel, or who fails beside it.

mod attach;
mod leave;
mod options;
mod tell;

pub(super) use options::{Aside, Interrupt, MustPass, Options};

use super::{
    args::ExitCodeOf,
    connect::Cluster,
    event::Event,
    exit::Exit,
    fault::{Fault, Stop, reason},
    feed::{Fed, Feed, OfCluster},
    output::{self, Heard, Over},
    render::{Renderer, Setting, Text},
    screen::Screen,
    signals::{Asked, Signals},
    track::Tracker,
    view::{Outcome, RunView},
};
use jiff::Timestamp;
use kube::api::DynamicObject;
use std::time::{Duration, Instant};
use tell::cluster_time;
use tokio::sync::{mpsc, watch};

/// How somebody leaves a run that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Before the cancel was heard.
    Unheard,
    /// Before the cancel without after-steps was heard.
    UnheardNow,
    /// While it is being cancelled.
    Cancelled,
    /// It is left as it is.
    Detached,
}

/// How following ended.
#[derive(Debug)]
pub(super) struct Followed {
    /// What the process ends with.
    pub exit: Exit,
    /// The run as last seen.
    pub view: RunView,
    /// What was not done though the run passed; it is told to programs, and is the caller's to return.
    pub fault: Option<Fault>,
}

struct Follow<'a, F: Feed> {
    feed: F,
    screen: &'a mut Screen,
    renderer: Renderer,
    tracker: Tracker,
    options: Options,
    name: String,
    began: Instant,
    /// By the cluster's clock: when following began.
    began_at: Timestamp,
    /// What the tracker's times count from.
    origin: Timestamp,
    /// Time of the run that was told last.
    told_run_ms: u64,
    hearing: Option<String>,
    heard: mpsc::Receiver<Heard>,
    speak: mpsc::Sender<Heard>,
    /// Who does something beside: what it tells, why it cannot go on, and where it is told of the run.
    reports: Option<mpsc::Receiver<Event>>,
    failed: Option<mpsc::Receiver<Stop>>,
    told: Option<watch::Sender<RunView>>,
    signals: &'a mut Signals,
    over: watch::Sender<Over>,
    cancelled: bool,
    /// The last `shell` step that was given our terminal.
    attached: Option<String>,
    /// How often somebody asked to end, if that finishes a step first.
    asked: usize,
    flushed: Instant,
    /// Text that waits for the next frame, and when the last one was.
    pending: Vec<Text>,
    framed: Option<Instant>,
}

/// What woke the loop.
enum Wake {
    Fed(Fed),
    Heard(Option<Heard>),
    Reported(Event),
    Failed(Stop),
    Asked(Asked),
    Tick,
}

/// Follows a run of the cluster to its end.
///
/// # Errors
/// When the cluster or the output goes away, or the run is deleted.
pub(super) async fn follow(
    cluster: &Cluster,
    run: &DynamicObject,
    screen: &mut Screen,
    setting: Setting,
    options: Options,
    signals: &mut Signals,
) -> Result<Followed, Stop> {
    let view = RunView::read(run);
    // The screen has a footer from here on.
    cluster.say_no_more_of_waiting();
    let feed = OfCluster::new(cluster, &view, screen.look().verbose > 0);
    follow_feed(feed, view, screen, setting, options, signals).await
}

/// Follows a run to its end, as its feed tells it.
///
/// # Errors
/// When the feed or the output goes away, or the run is deleted.
pub(super) async fn follow_feed(
    feed: impl Feed,
    view: RunView,
    screen: &mut Screen,
    setting: Setting,
    mut options: Options,
    signals: &mut Signals,
) -> Result<Followed, Stop> {
    let began_at = cluster_time(Timestamp::now(), view.created.zip(options.made));
    let origin = view.created.unwrap_or(began_at);
    let (speak, heard) = mpsc::channel(256);
    let mut tracker = Tracker::new(options.made.is_some(), origin, options.since).with_tail(options.tail.take());
    tracker = tracker.attaching(options.attach);
    let (mut reports, mut failed, mut told) = (None, None, None);
    if let Some(aside) = options.aside.take() {
        tracker = tracker.without_wait_before(aside.lets_begin);
        (reports, failed, told) = (Some(aside.said), Some(aside.failed), Some(aside.run));
    }
    let mut follow = Follow {
        feed,
        screen,
        renderer: Renderer::new(setting),
        tracker,
        options,
        name: view.name.clone(),
        began: Instant::now(),
        began_at,
        origin,
        told_run_ms: 0,
        hearing: None,
        heard,
        speak,
        reports,
        failed,
        told,
        attached: None,
        asked: 0,
        signals,
        over: watch::Sender::new(Over::No),
        cancelled: view.cancel.is_some(),
        flushed: Instant::now(),
        pending: Vec::new(),
        framed: None,
    };
    let result = follow.run(view).await;
    let (exit, faults) = match &result {
        Ok(followed) => (followed.exit, followed.fault.as_slice()),
        Err(stop @ Stop::Faults(faults)) => (stop.exit(), faults.as_slice()),
        Err(stop @ Stop::ClosedPipe) => (stop.exit(), &[][..]),
    };
    let at = follow.now();
    let mut last = std::mem::take(&mut follow.pending);
    last.extend(faults.iter().flat_map(|fault| follow.renderer.fault(at, fault)));
    last.extend(follow.renderer.end(at, exit, faults.first()));
    let shown = follow.screen.show(&last, Vec::new()).and_then(|()| follow.screen.clear());
    let followed = result?;
    shown?;
    Ok(followed)
}

impl<F: Feed> Follow<'_, F> {
    async fn run(&mut self, view: RunView) -> Result<Followed, Stop> {
        let begin = self.renderer.begin(self.now(), self.feed.place());
        let created = Event::RunCreated {
            run: view.name.clone(),
            namespace: view.namespace.clone(),
            cluster: self.feed.place().to_owned(),
            pipeline: view.pipeline.clone(),
            steps: view.steps.clone(),
        };
        self.screen.show(&begin, Vec::new())?;
        self.tell(&[created])?;
        for message in std::mem::take(&mut self.options.notes) {
            self.tell(&[Event::Notice { message }])?;
        }
        self.status(view);
        self.advance()?;
        let mut clock = tokio::time::interval(Duration::from_millis(100));
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if self.tracker.is_over() {
                return Ok(self.finished());
            }
            let wake = tokio::select! {
                asked = self.signals.next() => Wake::Asked(asked),
                fed = self.feed.next() => Wake::Fed(fed),
                heard = self.heard.recv() => Wake::Heard(heard),
                Some(report) = from_aside(&mut self.reports) => Wake::Reported(report),
                Some(stop) = from_aside(&mut self.failed) => Wake::Failed(stop),
                _ = clock.tick() => Wake::Tick,
            };
            if let Some(exit) = self.wake(wake).await? {
                return Ok(Followed { exit, view: self.tracker.view().clone(), fault: None });
            }
            self.advance()?;
            self.attach().await?;
        }
    }

    async fn wake(&mut self, wake: Wake) -> Result<Option<Exit>, Stop> {
        match wake {
            Wake::Asked(Asked::End(exit)) => return self.signal(exit).await,
            Wake::Asked(Asked::Suspend) => self.suspend()?,
            Wake::Fed(Fed::Run(view)) => self.status(*view),
            Wake::Fed(Fed::Deleted) => return Err(self.deleted().into()),
            Wake::Fed(Fed::Refused(stop)) => return Err(stop),
            Wake::Fed(Fed::Report(event)) | Wake::Reported(event) => self.tell(&[event])?,
            Wake::Failed(stop) => return Err(self.cancelled_by(stop).await),
            Wake::Heard(first) => {
                // What is there already goes into one frame.
                let mut next = first;
                for _ in 0..256 {
                    match next {
                        Some(Heard::Piece(piece)) => self.tracker.output(piece, self.now_ms()),
                        Some(Heard::CaughtUp) => self.tracker.caught_up(),
                        Some(Heard::Ended(missing)) => self.output_ended(missing)?,
                        None => break,
                    }
                    next = self.heard.try_recv().ok();
                }
            }
            Wake::Tick => {
                self.tick()?;
                if self.options.timeout.is_some_and(|limit| self.began.elapsed() >= limit) {
                    return Err(self.timed_out().into());
                }
            }
        }
        Ok(None)
    }

    fn tick(&mut self) -> Result<(), Stop> {
        if let Some(message) = self.feed.check()? {
            self.tell(&[Event::Notice { message }])?;
        }
        if self.flushed.elapsed() >= Duration::from_secs(1) {
            self.flushed = Instant::now();
            self.screen.flush_line()?;
        }
        let texts = self.renderer.tick(self.now());
        self.paint(texts)
    }

    /// Takes a state of the run in; begins to hear its pod.
    fn status(&mut self, view: RunView) {
        let pod = view.status.pod_name.clone();
        let ended = view.outcome().is_some();
        self.over.send_replace(Over::of(&view));
        if let Some(told) = &self.told {
            told.send_replace(view.clone());
        }
        self.tracker.status(view, self.now_ms());
        match pod {
            Some(pod) if self.options.with_output && self.hearing.as_ref() != Some(&pod) => self.hear(pod),
            Some(_) if self.options.with_output => {}
            // Without a pod there will be no output; with one that is not read neither.
            _ if ended || !self.options.with_output => self.tracker.output_ended(),
            _ => {}
        }
    }

    fn hear(&mut self, pod: String) {
        // A new channel: what an older pod still says is not mixed in.
        let (speak, heard) = mpsc::channel(256);
        self.heard = heard;
        self.speak = speak.clone();
        let tell_caught_up = self.tracker.is_catching_up();
        self.feed.hear(&pod, tell_caught_up, speak, self.over.subscribe());
        self.hearing = Some(pod);
    }

    fn output_ended(&mut self, missing: Option<output::Missing>) -> Result<(), Stop> {
        self.tracker.output_ended();
        let never_ran = missing == Some(output::Missing::NeverRan);
        if let (Some(missing), false) = (missing, never_ran) {
            let message = missing.words(self.hearing.as_deref().unwrap_or_default());
            self.advance()?;
            if !self.tracker.is_over() || self.options.made.is_none() {
                self.tell(&[Event::Notice { message }])?;
            }
        }
        Ok(())
    }

    fn finished(&self) -> Followed {
        let view = self.tracker.view().clone();
        let exit = result_of(&view, self.options.exit_code);
        let must_pass = self.options.must_pass.as_ref().filter(|_| exit == Exit::Success);
        let fault = must_pass.and_then(|must_pass| must_pass.judge(&view));
        Followed { exit: fault.as_ref().map_or(exit, |fault| fault.exit), view, fault }
    }

    fn timed_out(&self) -> Fault {
        let limit = self.options.timeout.unwrap_or_default();
        let (why, message) = self.tracker.view().why();
        let state = if why.is_empty() { String::new() } else { format!(": {why}: {message}") };
        let fault = format!("{} has not ended in {limit:?}{state}", self.name);
        Fault::new(reason::TIMED_OUT, Exit::TimedOut, fault).hint(self.feed.goes_on(&self.name))
    }

    fn deleted(&self) -> Fault {
        let message = format!("run {:?} was deleted while it was followed", self.name);
        Fault::new(reason::NOT_FOUND, Exit::NotFound, message)
    }
}

/// What comes from who does something beside; nothing ever, if nobody does.
async fn from_aside<T>(channel: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match channel {
        Some(channel) => channel.recv().await,
        None => std::future::pending().await,
    }
}

/// The exit code of a run that has ended.
#[must_use]
pub(super) fn result_of(view: &RunView, whose: ExitCodeOf) -> Exit {
    match view.outcome() {
        Some(Outcome::Succeeded) => Exit::Success,
        Some(Outcome::Cancelled) => Exit::Cancelled,
        Some(Outcome::Failed) => {
            let code = view.failed_step().and_then(|s| s.exit_code).and_then(|code| u8::try_from(code).ok());
            match code.filter(|code| whose == ExitCodeOf::Step && (1..=125).contains(code)) {
                Some(code) => Exit::Step(code),
                None => Exit::Failed,
            }
        }
        None => Exit::Unfinished,
    }
}
