//! Follows a run to its end: its status, its output, signals and the clock go in, a renderer's text
//! comes out.
//!
//! `run`, `retry`, `logs -f` and `status --wait` use it. **Invariant:** ending the view never ends the
//! run; only the first Ctrl-C of who started it asks for a cancel.

use super::{
    args::{ExitCodeOf, OnInterrupt},
    cancel,
    connect::{Cluster, run_resource},
    event::{At, Event},
    exit::Exit,
    fault::{Fault, Stop, reason},
    happenings,
    output::{self, Heard, Over, Source},
    refusal,
    render::{Renderer, Setting, Text},
    screen::Screen,
    signals::{self, Asked, Signals},
    style::{self, Mode},
    track::Tracker,
    view::{Outcome, RunView, millis_between},
};
use futures::{StreamExt, stream::BoxStream};
use jiff::Timestamp;
use kube::{
    Api,
    api::DynamicObject,
    runtime::{WatchStreamExt, watcher},
};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// A live footer is repainted no more often.
const FRAME: Duration = Duration::from_millis(95);
/// Pieces of text after which a frame is not waited for.
const MOST_PENDING: usize = 4096;
/// How long the cluster may be away before following ends.
const PATIENCE: Duration = Duration::from_secs(120);
/// After this long without the cluster a line says so.
const NOTICE_AFTER: Duration = Duration::from_secs(5);

/// What following is to do.
#[derive(Debug)]
pub(super) struct Options {
    /// The run was made by us, just now: how long the answer took.
    pub made: Option<Duration>,
    /// What the first Ctrl-C does; none: it ends the view.
    pub interrupt: Option<OnInterrupt>,
    /// Whether step output is read.
    pub with_output: bool,
    /// Longest time to follow.
    pub timeout: Option<Duration>,
    /// Whose exit code a failed run ends with.
    pub exit_code: ExitCodeOf,
    /// Output that was printed before is left out.
    pub since: Option<Timestamp>,
}

/// How following ended.
#[derive(Debug)]
pub(super) struct Followed {
    /// What the process ends with.
    pub exit: Exit,
    /// The run as last seen.
    pub view: RunView,
}

struct Follow<'a> {
    cluster: &'a Cluster,
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
    /// What the cluster says of the run, with -v.
    reports: mpsc::Receiver<String>,
    report: mpsc::Sender<String>,
    signals: Signals,
    over: watch::Sender<Over>,
    cancelled: bool,
    away_since: Option<(Instant, bool)>,
    flushed: Instant,
    /// Text that waits for the next frame, and when the last one was.
    pending: Vec<Text>,
    framed: Option<Instant>,
}

/// What woke the loop.
enum Wake {
    Status(Option<Box<watcher::Result<watcher::Event<DynamicObject>>>>),
    Heard(Option<Heard>),
    Reported(String),
    Asked(Asked),
    Tick,
}

/// Follows `run` to its end.
///
/// # Errors
/// When the cluster or the output goes away, or the run is deleted.
pub(super) async fn follow(
    cluster: &Cluster,
    run: &DynamicObject,
    screen: &mut Screen,
    setting: Setting,
    options: Options,
    signals: Signals,
) -> Result<Followed, Stop> {
    let view = RunView::read(run);
    let began_at = cluster_time(Timestamp::now(), view.created.zip(options.made));
    let origin = view.created.unwrap_or(began_at);
    let (speak, heard) = mpsc::channel(256);
    let (report, reports) = mpsc::channel(64);
    // The screen has a footer from here on.
    cluster.say_no_more_of_waiting();
    let mut follow = Follow {
        cluster,
        screen,
        renderer: Renderer::new(setting),
        tracker: Tracker::new(options.made.is_some(), origin, options.since),
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
        report,
        signals,
        over: watch::Sender::new(Over::No),
        cancelled: view.cancel.is_some(),
        away_since: None,
        flushed: Instant::now(),
        pending: Vec::new(),
        framed: None,
    };
    let result = follow.run(view).await;
    let exit = match &result {
        Ok(followed) => followed.exit,
        Err(stop) => stop.exit(),
    };
    let at = follow.now();
    let mut last = std::mem::take(&mut follow.pending);
    if let Err(Stop::Faults(faults)) = &result {
        last.extend(faults.iter().flat_map(|fault| follow.renderer.fault(at, fault)));
    }
    last.extend(follow.renderer.end(at, exit));
    let shown = follow.screen.show(&last, Vec::new()).and_then(|()| follow.screen.clear());
    let followed = result?;
    shown?;
    Ok(followed)
}

impl Follow<'_> {
    async fn run(&mut self, view: RunView) -> Result<Followed, Stop> {
        let begin = self.renderer.begin(self.now(), &self.cluster.context);
        let created = Event::RunCreated {
            run: view.name.clone(),
            namespace: view.namespace.clone(),
            cluster: self.cluster.context.clone(),
            pipeline: view.pipeline.clone(),
            steps: view.steps.clone(),
        };
        self.screen.show(&begin, Vec::new())?;
        self.tell(&[created])?;
        self.status(view);
        self.advance()?;
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.cluster.client.clone(), &self.tracker.view().namespace, &run_resource());
        let select = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut changes = watcher(api, select).default_backoff().boxed();
        if self.screen.look().verbose > 0 {
            let run = self.tracker.view().clone();
            tokio::spawn(happenings::watch(self.cluster.client.clone(), run, self.report.clone()));
        }
        let mut clock = tokio::time::interval(Duration::from_millis(100));
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if self.tracker.is_over() {
                return Ok(self.finished());
            }
            let wake = tokio::select! {
                asked = self.signals.next() => Wake::Asked(asked),
                change = changes.next() => Wake::Status(change.map(Box::new)),
                heard = self.heard.recv() => Wake::Heard(heard),
                Some(report) = self.reports.recv() => Wake::Reported(report),
                _ = clock.tick() => Wake::Tick,
            };
            if let Some(exit) = self.wake(wake, &mut changes).await? {
                return Ok(Followed { exit, view: self.tracker.view().clone() });
            }
            self.advance()?;
        }
    }

    async fn wake(
        &mut self,
        wake: Wake,
        changes: &mut BoxStream<'_, watcher::Result<watcher::Event<DynamicObject>>>,
    ) -> Result<Option<Exit>, Stop> {
        match wake {
            Wake::Asked(Asked::End(exit)) => return self.signal(exit).await,
            Wake::Asked(Asked::Suspend) => self.suspend()?,
            Wake::Status(Some(change)) => self.change(*change)?,
            Wake::Reported(message) => self.tell(&[Event::Notice { message }])?,
            Wake::Status(None) => *changes = futures::stream::pending().boxed(),
            Wake::Heard(first) => {
                // What is there already goes into one frame.
                let mut next = first;
                for _ in 0..256 {
                    match next {
                        Some(Heard::Piece(piece)) => self.tracker.output(piece, self.now_ms()),
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
        if let Some((since, told)) = self.away_since {
            if since.elapsed() > PATIENCE {
                let hint = format!("the run goes on; later: {} logs -f {}", self.cluster.program, self.name);
                let what = format!("no answer from {} for {}s", self.cluster.url, PATIENCE.as_secs());
                return Err(self.cluster.unreachable(&what).hint(hint).into());
            }
            if since.elapsed() > NOTICE_AFTER && !told {
                self.away_since = Some((since, true));
                let message = format!("no answer from {}; trying again", self.cluster.url);
                self.tell(&[Event::Notice { message }])?;
            }
        }
        if self.flushed.elapsed() >= Duration::from_secs(1) {
            self.flushed = Instant::now();
            self.screen.flush_line()?;
        }
        let texts = self.renderer.tick(self.now());
        self.paint(texts)
    }

    fn change(&mut self, change: watcher::Result<watcher::Event<DynamicObject>>) -> Result<(), Stop> {
        match change {
            Ok(watcher::Event::Apply(run) | watcher::Event::InitApply(run)) => {
                self.away_since = None;
                self.status(RunView::read(&run));
            }
            Ok(watcher::Event::Delete(_)) => return Err(self.deleted().into()),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) => {
                if let kube::Error::Api(status) = &error
                    && matches!(status.code, 401 | 403 | 404)
                {
                    return Err(refusal::explain(&error, &refusal::Ask::run("watch", &self.name), self.cluster));
                }
                self.away_since.get_or_insert((Instant::now(), false));
            }
            Err(_) => {
                self.away_since.get_or_insert((Instant::now(), false));
            }
        }
        Ok(())
    }

    /// Takes a state of the run in; begins to hear its pod.
    fn status(&mut self, view: RunView) {
        let pod = view.status.pod_name.clone();
        let ended = view.outcome().is_some();
        self.over.send_replace(Over::of(&view));
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
        let namespace = self.tracker.view().namespace.clone();
        let pods = Api::namespaced(self.cluster.client.clone(), &namespace);
        self.hearing = Some(pod.clone());
        tokio::spawn(output::read(
            Source { pods, pod, container: output::BOX.into(), follow: true },
            speak,
            self.over.subscribe(),
        ));
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

    async fn signal(&mut self, exit: Exit) -> Result<Option<Exit>, Stop> {
        let (name, program) = (self.name.clone(), self.cluster.program.clone());
        match self.options.interrupt {
            Some(OnInterrupt::Cancel) if !self.cancelled => {
                self.cancelled = true;
                let step = self.tracker.running().map(|s| format!("stopping step {s}"));
                let after = self.tracker.view().steps.iter().any(|s| s.after).then(|| "then after-steps".to_owned());
                let what: Vec<String> = step.into_iter().chain(after).collect();
                let what = if what.is_empty() { String::new() } else { format!(": {}", what.join(", ")) };
                let message = format!("cancelling {name}{what} (Ctrl-C again to leave now)");
                self.tell(&[Event::Notice { message }])?;
                self.tracker.cancel_was_told();
                // A cluster that is slow to answer holds nobody here.
                tokio::select! {
                    asked = cancel::request(self.cluster, &name, false) => {
                        asked?;
                        Ok(None)
                    }
                    exit = self.signals.asked_to_end() => {
                        let message = format!("left; {name} may not have heard it: {program} cancel {name}");
                        self.tell(&[Event::Notice { message }])?;
                        Ok(Some(exit))
                    }
                }
            }
            Some(OnInterrupt::Cancel) => {
                self.tell(&[Event::Notice {
                    message: format!("left; {name} is being cancelled: {program} status {name}"),
                }])?;
                Ok(Some(exit))
            }
            Some(OnInterrupt::Detach) => {
                self.tell(&[Event::Notice { message: format!("left; {name} goes on: {program} logs -f {name}") }])?;
                Ok(Some(exit))
            }
            None => Ok(Some(exit)),
        }
    }

    fn suspend(&mut self) -> Result<(), Stop> {
        self.framed = None;
        self.paint(Vec::new())?;
        self.screen.clear()?;
        signals::suspend();
        Ok(())
    }

    /// Tells what the tracker has to tell by now.
    fn advance(&mut self) -> Result<(), Stop> {
        let now_ms = self.now_ms();
        let mut texts: Vec<Text> = Vec::new();
        for (ms, event) in self.tracker.advance(now_ms) {
            let mut at = self.at(ms, now_ms);
            // The first times count from the creation, until the status says when the run began.
            at.run_ms = at.run_ms.max(self.told_run_ms);
            self.told_run_ms = at.run_ms;
            texts.extend(self.renderer.event(at, &event));
        }
        self.paint(texts)
    }

    /// Tells what happens now.
    fn tell(&mut self, events: &[Event]) -> Result<(), Stop> {
        let at = self.now();
        let texts: Vec<Text> = events.iter().flat_map(|event| self.renderer.event(at, event)).collect();
        self.paint(texts)
    }

    fn paint(&mut self, texts: Vec<Text>) -> Result<(), Stop> {
        self.pending.extend(texts);
        let live = self.screen.look().mode == Mode::Live;
        let recent = self.framed.is_some_and(|at| at.elapsed() < FRAME);
        if live && recent && self.pending.len() < MOST_PENDING {
            return Ok(());
        }
        self.framed = Some(Instant::now());
        let texts = std::mem::take(&mut self.pending);
        let footer = if live {
            // Two columns stay free: the terminal writes ^C where the cursor is.
            let width = style::columns().unwrap_or(80).saturating_sub(3);
            self.renderer.footer(self.now(), width)
        } else {
            Vec::new()
        };
        Ok(self.screen.show(&texts, footer)?)
    }

    fn finished(&self) -> Followed {
        let view = self.tracker.view().clone();
        let exit = result_of(&view, self.options.exit_code);
        Followed { exit, view }
    }

    fn timed_out(&self) -> Fault {
        let limit = self.options.timeout.unwrap_or_default();
        let (why, message) = self.tracker.view().why();
        let state = if why.is_empty() { String::new() } else { format!(": {why}: {message}") };
        Fault::new(reason::TIMED_OUT, Exit::TimedOut, format!("{} has not ended in {limit:?}{state}", self.name))
            .hint(format!("the run goes on: {} logs -f {}", self.cluster.program, self.name))
    }

    fn deleted(&self) -> Fault {
        let message = format!("run {:?} was deleted while it was followed", self.name);
        Fault::new(reason::NOT_FOUND, Exit::NotFound, message)
    }

    fn now_ms(&self) -> u64 {
        let elapsed_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        millis_between(self.origin, self.began_at).unwrap_or_default().saturating_add(elapsed_ms)
    }

    fn now(&self) -> At {
        let now_ms = self.now_ms();
        self.at(now_ms, now_ms)
    }

    /// A time of the tracker, as renderers show it.
    fn at(&self, ms: u64, now_ms: u64) -> At {
        let since_origin = jiff::SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX));
        let wall = self.origin.checked_add(since_origin).unwrap_or(self.origin);
        At { run_ms: self.tracker.run_ms(ms), now_ms: self.tracker.run_ms(now_ms), wall }
    }
}

/// The cluster's time when ours is `ours` and the cluster says that it made something, and took so long to say it.
/// The two clocks are taken to agree if they can: times of objects are whole seconds.
fn cluster_time(ours: Timestamp, made: Option<(Timestamp, Duration)>) -> Timestamp {
    match made {
        Some((made, took)) => ours.max(made).min(made.checked_add(took + Duration::from_secs(1)).unwrap_or(made)),
        None => ours,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_wrong_is_set_by_the_answer() {
        let time = |text: &str| text.parse::<Timestamp>().expect("a time");
        let made = Some((time("2026-11-21T13:03:07Z"), Duration::from_millis(200)));
        for (ours, cluster) in [
            ("2026-11-21T13:03:07.9Z", "2026-11-21T13:03:07.9Z"),
            ("2026-11-21T13:03:02Z", "2026-11-21T13:03:07Z"),
            ("2026-11-21T14:03:02Z", "2026-11-21T13:03:08.2Z"),
        ] {
            assert_eq!(cluster_time(time(ours), made), time(cluster), "{ours}");
        }
        assert_eq!(cluster_time(time("2026-11-21T14:03:02Z"), None), time("2026-11-21T14:03:02Z"));
    }
}
