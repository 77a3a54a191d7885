//! `windlass prepare`: the short-lived container beside the box. It checks that Secrets and ConfigMaps
//! are there, fetches the source, waits for services, writes the plan and places the runner.
//!
//! Called by the command line, in the pod that the controller made; its [`Order`] comes in environment
//! variables. A local run calls [`here`] instead. It is on the critical path of every run: nothing is done that this run
//! does not need.
//!
//! **Invariant:** it runs no user code, and its last act is either the runner's rename, or a
//! termination message followed by `in/failed`.

mod env;
mod failure;
mod layout;
mod mounts;
mod order;
mod place;
mod plan;
mod services;
mod source;

use self::{failure::failure, layout::Layout, place::StagedRunner, source::Fetched};
use crate::{
    api::{condition::reason, duration},
    wire::{self, Failure, Order, ServiceCheck, SourceOrder},
};
use nix::sys::{
    signal::{SigSet, Signal},
    stat::{Mode, umask},
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc, OnceLock,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long git has to end, once killed, before its temporary files are left to the pod's end.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Time between two looks whether it has ended.
const STOP_INTERVAL: Duration = Duration::from_millis(5);
/// Exit code after SIGTERM.
const EXIT_TERMINATED: u8 = 143;

/// Arguments of `windlass prepare`.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Arguments {
    /// Directory that stands for `/` of the pod.
    #[arg(long, hide = true)]
    root: Option<PathBuf>,
    /// The runner's executable; default: beside this one.
    #[arg(long, hide = true)]
    runner: Option<PathBuf>,
    #[command(subcommand)]
    action: Option<Action>,
}

/// What else this role does.
#[derive(clap::Subcommand, Clone, Debug)]
enum Action {
    /// Answers git's question for a password.
    #[command(hide = true)]
    Credential(source::CredentialArguments),
}

/// Why a preparation ended early.
enum Ended {
    Failed(Failure),
    Terminated,
}

impl<T: Into<Failure>> From<T> for Ended {
    fn from(why: T) -> Self {
        Self::Failed(why.into())
    }
}

/// Where a preparation works.
struct Place {
    layout: Layout,
    runner: PathBuf,
    /// A directory that is the source, whatever the order says.
    directory: Option<Directory>,
    /// Where services are.
    services: IpAddr,
}

/// A directory of this machine that is the source of a local run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// The directory.
    pub path: PathBuf,
    /// A file in it with patterns, as in `.gitignore`, of what is left out; it need not be there.
    pub ignore_file: String,
    /// More such patterns.
    pub ignore: Vec<String>,
    /// The project whose output this is: its commit is the run's, and all of the directory comes along.
    pub of: Option<PathBuf>,
    /// The box has it mounted: nothing is copied.
    pub mounted: bool,
    /// What never comes along, though it may lie below: directories of runs, files of Secrets.
    pub apart: Vec<PathBuf>,
}

/// A preparation on this machine, for a local run.
#[derive(Clone, Debug)]
pub struct Here {
    /// Directory that stands for `/` of the pod.
    pub root: PathBuf,
    /// The runner's executable.
    pub runner: PathBuf,
    /// A directory that is the source, whatever the order says.
    pub directory: Option<Directory>,
    /// Where services are.
    pub services: IpAddr,
}

/// Ends a preparation from another thread.
#[derive(Clone)]
pub struct Stopper {
    sender: Sender<Event>,
    processes: source::Processes,
    fate: Fate,
}

/// Whether the box was let begin; unknown until that or a stop came first.
type Fate = Arc<OnceLock<bool>>;

impl Stopper {
    /// A stopper, and what [`here`] listens to.
    #[must_use]
    pub fn new() -> (Self, Stopped) {
        let (sender, events) = mpsc::channel();
        let (processes, fate) = (source::Processes::default(), Fate::default());
        let stopper = Self { sender: sender.clone(), processes: processes.clone(), fate: Arc::clone(&fate) };
        (stopper, Stopped { sender, events, processes, fate })
    }

    /// Ends it soon, with all that it started. Whether that was in time: if so, the box never begins a step.
    pub fn stop(&self) -> bool {
        let begins = *self.fate.get_or_init(|| false);
        self.processes.kill();
        // Without a listener it is over already.
        let _ = self.sender.send(Event::Terminated);
        !begins
    }
}

/// See [`Stopper::new`].
pub struct Stopped {
    sender: Sender<Event>,
    events: Receiver<Event>,
    processes: source::Processes,
    fate: Fate,
}

/// Prepares a local run. `None`: it was stopped.
///
/// # Errors
/// As the termination message of the container.
pub fn here(order: &Order, place: &Here, stopped: Stopped) -> Result<Option<()>, Failure> {
    let Here { root, runner, directory, services } = place.clone();
    let place = Place { layout: Layout::new(Some(root)), runner, directory, services };
    let done = watched(order, &place, stopped);
    match done {
        Ok(()) => Ok(Some(())),
        Err(Ended::Terminated) => Ok(None),
        Err(Ended::Failed(why)) => Err(why),
    }
}

/// What the threads report.
enum Event {
    Source(Result<Fetched, Failure>),
    Service(String, Result<Duration, Failure>),
    Terminated,
}

/// Runs the role to its exit code.
#[must_use]
pub fn main(arguments: &Arguments) -> ExitCode {
    if let Some(Action::Credential(question)) = &arguments.action {
        return source::answer_credential(question);
    }
    // The box's UID must be able to read what git writes.
    umask(Mode::from_bits_truncate(0o022));
    let layout = Layout::new(arguments.root.clone());
    match prepare(arguments, &layout) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ended::Failed(why)) => {
            eprintln!("error[{}]: {}", why.reason, why.message);
            // Both are tried whatever becomes of the other: each reaches somebody else.
            report(place::write_termination(&why, &layout));
            report(place::write_failed(&format!("{}: {}", why.reason, why.message), &layout));
            ExitCode::FAILURE
        }
        Err(Ended::Terminated) => {
            eprintln!("stopped by SIGTERM");
            report(place::write_failed("stopped", &layout));
            ExitCode::from(EXIT_TERMINATED)
        }
    }
}

fn report(result: Result<(), place::Error>) {
    if let Err(error) = result {
        eprintln!("{error}");
    }
}

fn prepare(arguments: &Arguments, layout: &Layout) -> Result<(), Ended> {
    let order = order::read(std::env::vars_os())?;
    if layout.in_file(wire::RUNNER_FILE).exists() {
        // The container was started again after it had done all its work.
        return Ok(());
    }
    let (_, stopped) = Stopper::new();
    // As PID 1 the process would ignore SIGTERM; blocked before any thread, it goes to the one that waits.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    if signals.thread_block().is_ok() {
        spawn(&stopped.sender, move || signals.wait().map_or(Event::Terminated, |_| Event::Terminated));
    }
    let place = Place {
        layout: layout.clone(),
        runner: runner_path(arguments)?,
        directory: None,
        services: Ipv4Addr::LOCALHOST.into(),
    };
    watched(&order, &place, stopped)
}

/// All the work, and the end of what it started.
fn watched(order: &Order, place: &Place, stopped: Stopped) -> Result<(), Ended> {
    let Stopped { sender, events, processes, fate } = stopped;
    let mut fetching = None;
    let done = match work(order, place, &processes, &mut fetching, &sender, &events) {
        Ok(runner) if *fate.get_or_init(|| true) => runner.release().map_err(Ended::from),
        Ok(_) => Err(Ended::Terminated),
        Err(ended) => Err(ended),
    };
    if done.is_err() {
        processes.kill();
        let end = Instant::now() + STOP_GRACE;
        // The thread removes its keys and temporary files once its git is gone.
        while fetching.as_ref().is_some_and(|thread| !thread.is_finished()) && Instant::now() < end {
            thread::sleep(STOP_INTERVAL);
        }
    }
    done
}

/// All the work before the runner's release.
fn work(
    order: &Order,
    place: &Place,
    processes: &source::Processes,
    fetching: &mut Option<JoinHandle<()>>,
    sender: &Sender<Event>,
    events: &Receiver<Event>,
) -> Result<StagedRunner, Ended> {
    let deadline = deadline(order, SystemTime::now());
    let layout = &place.layout;
    let source = {
        let (order, layout, processes) = (order.clone(), layout.clone(), processes.clone());
        let directory = place.directory.clone();
        move || match &directory {
            Some(directory) => source::copy(directory, &layout, &processes),
            None => source::fetch(&order, &layout, &processes),
        }
    };
    let mut fetched = None;
    if place.directory.is_some() || matches!(order.source, SourceOrder::Git(_)) {
        *fetching = Some(spawn(sender, move || Event::Source(source())));
    } else {
        fetched = Some(source()?);
    }
    for check in order.services.iter().cloned() {
        let at = place.services;
        spawn(sender, move || Event::Service(check.name.clone(), services::wait(&check, at)));
    }
    let environment = env::resolve(order, &mounts::read(order, layout)?)?;
    for key in &environment.skipped {
        eprintln!("skipped {key}: not a name for a variable");
    }
    let runner = place::stage_runner(&place.runner, layout)?;
    let mut waiting: BTreeSet<&str> = order.services.iter().map(|ServiceCheck { name, .. }| name.as_str()).collect();
    while fetched.is_none() || !waiting.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        match events.recv_timeout(left) {
            Ok(Event::Source(result)) => fetched = Some(result?),
            Ok(Event::Service(name, result)) => {
                let took = result?;
                // Beside a local run nobody reads it, and somebody reads something else.
                if place.services.is_loopback() {
                    eprintln!("service {name} is ready after {}", duration::human(took));
                }
                waiting.remove(name.as_str());
            }
            Ok(Event::Terminated) => return Err(Ended::Terminated),
            Err(_) => return Err(overdue(fetched.is_none(), &waiting).into()),
        }
    }
    let mounted = place.directory.as_ref().is_some_and(|directory| directory.mounted);
    let plan = plan::plan(order, environment, fetched.unwrap_or_default(), mounted);
    place::write_plan(&plan, layout)?;
    if let Some(ip) = std::env::var(wire::POD_IP_VARIABLE).ok().and_then(|text| text.parse().ok()) {
        place::write_pod_ip(ip, layout)?;
    }
    Ok(runner)
}

/// Runs `work` in a thread that reports its end.
fn spawn(sender: &Sender<Event>, work: impl FnOnce() -> Event + Send + 'static) -> JoinHandle<()> {
    let sender = sender.clone();
    thread::spawn(move || {
        // The receiver is gone only when nobody waits for this any more.
        let _ = sender.send(work());
    })
}

fn deadline(order: &Order, now: SystemTime) -> Instant {
    let now_ms = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let left_ms = u128::from(order.deadline_ms).saturating_sub(now_ms);
    // A week is the longest run; more would only overflow the clock.
    Instant::now() + Duration::from_millis(u64::try_from(left_ms).unwrap_or(u64::MAX)).min(Duration::from_hours(168))
}

fn overdue(fetching: bool, waiting: &BTreeSet<&str>) -> Failure {
    let what = if fetching {
        "the source was being fetched".to_owned()
    } else {
        format!("it waited for service {}", waiting.iter().copied().collect::<Vec<_>>().join(", "))
    };
    failure(reason::RUN_TIMED_OUT, format!("the run took longer than its timeout; {what}"))
}

fn runner_path(arguments: &Arguments) -> Result<PathBuf, Failure> {
    if let Some(path) = &arguments.runner {
        return Ok(path.clone());
    }
    let own = std::env::current_exe().map_err(|e| {
        failure(reason::BOX_FAILED_TO_START, format!("cannot find the runner beside this program: {e}"))
    })?;
    Ok(own.with_file_name(wire::RUNNER_FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, Order, Here) {
        let root = tempfile::tempdir().unwrap();
        let runner = root.path().join("runner");
        std::fs::write(&runner, "").unwrap();
        let directory = Directory { path: root.path().to_owned(), mounted: true, ..Directory::default() };
        let here = Here {
            root: root.path().to_owned(),
            runner,
            directory: Some(directory),
            services: Ipv4Addr::LOCALHOST.into(),
        };
        let order = Order { version: wire::VERSION, deadline_ms: u64::MAX, ..Order::default() };
        (root, order, here)
    }

    #[test]
    fn a_box_begins_or_was_stopped_in_time_and_never_both() {
        let (root, order, here) = place();
        let released = Layout::new(Some(root.path().to_owned())).in_file(wire::RUNNER_FILE);
        std::fs::create_dir_all(released.parent().unwrap()).unwrap();
        let (stopper, stopped) = Stopper::new();
        assert!(stopper.stop());
        assert_eq!((super::here(&order, &here, stopped).unwrap(), released.exists()), (None, false));
        let (stopper, stopped) = Stopper::new();
        assert_eq!((super::here(&order, &here, stopped).unwrap(), released.exists()), (Some(()), true));
        assert!(!stopper.stop() && !stopper.stop());
    }
}
