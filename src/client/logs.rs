//! `logs`: prints step output.
//!
//! **Invariant:** stdout gets the bytes that the steps printed and nothing else; headers are on stderr.

use super::{
    Session,
    args::{ExitCodeOf, LogsArgs, Show},
    connect::Cluster,
    exit::Exit,
    fault::{Fault, Stop, nearest, one_line, reason},
    follow::{self, Options},
    header::{Line, Reader},
    logtext::Piece,
    output::{self, Heard, Over, Source},
    render::Text,
    screen::Screen,
    signals::Signals,
    style::{Mode, Sign},
    track::{TAIL_BYTES, Tail},
    view::{RunView, StepInfo, millis_between},
};
use crate::api::{duration, status::StepPhase};
use jiff::Timestamp;
use kube::Api;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};

/// How long after the end of a service its run may take to be judged.
const JUDGED_WITHIN: Duration = Duration::from_secs(30);

/// `logs`.
///
/// # Errors
/// No such run or step, no output any more, or whatever the cluster answered.
pub(super) async fn logs(session: &mut Session, args: &LogsArgs) -> Result<Exit, Stop> {
    let cluster = session.cluster().await?;
    let object = cluster.find_run(args.run.as_deref()).await?;
    let view = RunView::read(&object);
    if !args.follow || args.service.is_some() {
        session.name_run(args.run.as_deref(), &view.name, &view.namespace)?;
    }
    let only = only_step(&view, args)?;
    let service = args.service.as_ref().map(|wanted| service(&view, wanted)).transpose()?;
    if session.look.mode == Mode::Json && (!args.follow || service.is_some()) {
        let fault = Fault::usage("--json is for verbs that follow a run");
        return Err(fault.hint(format!("{} logs -f {} --json", cluster.program, view.name)).into());
    }
    if let Some(pod) = &view.status.pod_name {
        let container = service.as_deref().unwrap_or(output::BOX);
        session.kubectl(&format!("-n {} logs {pod} -c {container}", view.namespace))?;
    }
    if !args.follow {
        print(session, &cluster, &view, only.as_deref(), service, args).await?;
        return Ok(Exit::Success);
    }
    if service.is_some() {
        return follow_service(session, &cluster, &view, service, args).await;
    }
    let mut setting = session.setting();
    setting.only_step = only;
    setting.timestamps = args.timestamps;
    setting.prefix = args.prefix;
    setting.since = args.since;
    setting.show = Show::All;
    setting.interrupt = "Ctrl-C leaves";
    let tail = args.tail.map(|lines| Tail::of(lines, setting.only_step.clone()));
    let options = Options { since: args.since, tail, ..Options::watching() };
    let mut screen = Screen::new(&session.look, false, args.raw);
    Ok(follow::follow(&cluster, &object, &mut screen, setting, options, &mut Signals::catch()?).await?.exit)
}

/// A service ends with its run; then the run's result is the answer.
async fn follow_service(
    session: &mut Session,
    cluster: &Cluster,
    view: &RunView,
    service: Option<String>,
    args: &LogsArgs,
) -> Result<Exit, Stop> {
    print(session, cluster, view, None, service, args).await?;
    let began = Instant::now();
    loop {
        let view = RunView::read(&cluster.find_run(Some(&view.name)).await?);
        let result = follow::result_of(&view, ExitCodeOf::Windlass);
        // A service that ended before its run is no result.
        if result != Exit::Unfinished || began.elapsed() > JUDGED_WITHIN {
            return Ok(result);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The container of a service.
fn service(view: &RunView, wanted: &str) -> Result<String, Stop> {
    if view.services.is_empty() && view.status.pipeline_spec.is_none() || view.services.iter().any(|s| s == wanted) {
        return Ok(format!("{}{wanted}", output::SERVICE_PREFIX));
    }
    let names = view.services.join(", ");
    let has = if names.is_empty() { "it has none".to_owned() } else { format!("it has {names}") };
    let message = format!("{} has no service {wanted:?} ({has})", view.name);
    let fault = Fault::new(reason::NOT_FOUND, Exit::NotFound, message);
    Err(match nearest(wanted, view.services.iter().map(String::as_str)) {
        Some(near) => fault.hint(format!("did you mean {near:?}?")),
        None => fault,
    }
    .into())
}

/// The step that is asked for.
fn only_step(view: &RunView, args: &LogsArgs) -> Result<Option<String>, Stop> {
    if args.failed {
        let failed = view.failed_step().map(|s| s.name.clone());
        return failed.map(Some).ok_or_else(|| {
            let message = format!("no step of {} failed", view.name);
            Fault::new(reason::NOT_FOUND, Exit::NotFound, message).into()
        });
    }
    let Some(wanted) = &args.step else { return Ok(None) };
    // Before a run is resolved its steps may not be known; then the name is believed.
    if view.steps.is_empty() || view.steps.iter().any(|s| s.name == *wanted) {
        return Ok(Some(wanted.clone()));
    }
    let names: Vec<&str> = view.steps.iter().map(|s| s.name.as_str()).collect();
    let message = format!("{} has no step {wanted:?} (it has {})", view.name, names.join(", "));
    let fault = Fault::new(reason::NOT_FOUND, Exit::NotFound, message);
    Err(match nearest(wanted, names) {
        Some(near) => fault.hint(format!("did you mean {near:?}?")),
        None => fault,
    }
    .into())
}

/// Prints what there is, and of a service that is followed what comes.
async fn print(
    session: &mut Session,
    cluster: &Cluster,
    view: &RunView,
    only: Option<&str>,
    service: Option<String>,
    args: &LogsArgs,
) -> Result<(), Stop> {
    let Some(pod) = view.status.pod_name.clone() else {
        let (why, message) = view.why();
        let cause = if why.is_empty() { "it has no pod yet".to_owned() } else { format!("{why}: {message}") };
        let fault = Fault::new(reason::LOGS_GONE, Exit::NotFound, format!("{} has no output: {cause}", view.name));
        return Err(fault.hint(format!("{} logs -f {}", cluster.program, view.name)).into());
    };
    let (speak, mut heard) = mpsc::channel(256);
    let pods = Api::namespaced(cluster.client.clone(), &view.namespace);
    let over = watch::Sender::new(Over::of(view));
    let container = service.clone().unwrap_or_else(|| output::BOX.into());
    let tell_caught_up = args.follow && args.tail.is_some();
    let source = Source { pods, pod: pod.clone(), container, follow: args.follow, tell_caught_up };
    tokio::spawn(output::read(source, speak, over.subscribe()));
    let mut printer = Printer::new(session, view, only, args);
    loop {
        // What is there already is written at once.
        let next = heard.try_recv().ok();
        if next.is_none() {
            printer.flush()?;
        }
        let said = match next {
            Some(said) => said,
            None => match heard.recv().await {
                Some(said) => said,
                None => break,
            },
        };
        match said {
            Heard::Piece(piece) => printer.piece(&piece)?,
            Heard::CaughtUp => printer.end_tail(),
            Heard::Ended(None) => break,
            Heard::Ended(Some(missing)) => {
                let fault = Fault::new(missing.reason(), Exit::NotFound, missing.words(&pod));
                return Err(match missing {
                    output::Missing::PodGone => {
                        let keep = "a pod is deleted 1h after the end; set spec.podTTLAfterFinished to keep it longer";
                        fault.note(keep).hint(format!("{} retry {}", cluster.program, view.name))
                    }
                    output::Missing::NeverRan => fault.hint(format!("{} status {}", cluster.program, view.name)),
                    output::Missing::Forbidden | output::Missing::Unreadable => fault,
                }
                .into());
            }
        }
    }
    printer.end()
}

struct Printer<'a> {
    screen: Screen,
    view: &'a RunView,
    only: Option<&'a str>,
    service: Option<&'a str>,
    since: Option<Timestamp>,
    /// The line that comes now is older than that.
    old: bool,
    prefix: bool,
    timestamps: bool,
    quiet: bool,
    /// A header that waits for output under it.
    header: Option<String>,
    reader: Reader,
    signed: String,
    pending: Vec<Text>,
    tail: Option<(usize, VecDeque<Vec<u8>>, usize)>,
}

impl<'a> Printer<'a> {
    fn new(session: &Session, view: &'a RunView, only: Option<&'a str>, args: &'a LogsArgs) -> Self {
        Self {
            screen: Screen::new(&session.look, false, args.raw),
            view,
            only,
            service: args.service.as_deref(),
            since: args.since,
            old: false,
            prefix: args.prefix,
            timestamps: args.timestamps,
            // The name of the one step that was asked for says nothing new.
            quiet: session.look.quiet > 0 || only.is_some() || args.tail.is_some() || args.prefix,
            header: None,
            reader: Reader::default(),
            signed: session.look.signed(Sign::Run),
            pending: Vec::new(),
            tail: args.tail.map(|lines| (lines, VecDeque::new(), 0)),
        }
    }

    fn piece(&mut self, piece: &Piece) -> Result<(), Stop> {
        let line = match self.service {
            Some(_) => Line::Output,
            None => self.reader.read(piece, &self.view.steps, &self.view.name),
        };
        match line {
            Line::Begin(step) => {
                let Some(info) = self.view.steps.get(step).filter(|_| !self.quiet) else { return Ok(()) };
                let header = format!("{} {}   ({})", self.signed, info.label(), self.state(info));
                if self.since.is_none() {
                    return self.say(&header);
                }
                self.header = Some(header);
                return Ok(());
            }
            Line::Note(message) => return self.say(&format!("! {}", one_line(&message))),
            Line::Watch(message) => return self.say(&format!("· {}", one_line(&message))),
            Line::End(_) | Line::Known => return Ok(()),
            Line::Output => {}
        }
        let step = self.reader.current().and_then(|i| self.view.steps.get(i)).map(|s| s.name.as_str());
        if self.only.is_some_and(|only| step != Some(only)) || self.is_old(piece) {
            return Ok(());
        }
        let mut bytes = Vec::new();
        if let Some(stamp) = &piece.stamp {
            if let Some(name) = self.service.or(step).filter(|_| self.prefix) {
                bytes.extend_from_slice(format!("[{name}] ").as_bytes());
            }
            if self.timestamps {
                bytes.extend_from_slice(stamp.as_bytes());
                bytes.push(b' ');
            }
        }
        bytes.extend_from_slice(&piece.bytes);
        if let Some(header) = self.header.take() {
            self.say(&header)?;
        }
        let Some((lines, tail, size)) = &mut self.tail else {
            self.pending.push(Text::Data(bytes));
            return Ok(());
        };
        *size += bytes.len();
        match tail.back_mut().filter(|line| !line.ends_with(b"\n")) {
            Some(open) => open.extend(bytes),
            None => tail.push_back(bytes),
        }
        while tail.len() > *lines || *size > TAIL_BYTES {
            let Some(dropped) = tail.pop_front() else { break };
            *size -= dropped.len();
        }
        Ok(())
    }

    /// Whether it belongs to a line that was printed before `--since`.
    fn is_old(&mut self, piece: &Piece) -> bool {
        let stamp = piece.stamp.as_deref().and_then(|stamp| stamp.parse::<Timestamp>().ok());
        if let (Some(since), Some(stamp)) = (self.since, stamp) {
            self.old = stamp < since;
        }
        self.old
    }

    fn say(&mut self, line: &str) -> Result<(), Stop> {
        self.flush()?;
        Ok(self.screen.message(line)?)
    }

    fn flush(&mut self) -> Result<(), Stop> {
        Ok(self.screen.show(&std::mem::take(&mut self.pending), Vec::new())?)
    }

    /// `12.3s, ended 2m ago`, `running 5s`.
    fn state(&self, info: &StepInfo) -> String {
        let Some(status) = self.view.step(&info.name) else { return "no status".into() };
        let now = jiff::Timestamp::now();
        let human = |ms: Option<u64>| ms.map(|ms| duration::human(Duration::from_millis(ms))).unwrap_or_default();
        let since = |time: &k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime| {
            millis_between(time.0, now).map(|ms| super::table::age(ms / 1000)).unwrap_or_default()
        };
        match (&status.started_at, &status.finished_at) {
            (Some(from), Some(to)) => {
                let failed = match (status.phase, status.exit_code) {
                    (StepPhase::Failed, Some(code)) => format!(", exit code {code}"),
                    _ => String::new(),
                };
                format!("{}{failed}, ended {} ago", human(millis_between(from.0, to.0)), since(to))
            }
            (Some(from), None) => format!("running {}", since(from)),
            (None, _) => "starting".into(),
        }
    }

    /// Prints the last lines of what there was; what comes is printed as it comes.
    fn end_tail(&mut self) {
        if let Some((_, tail, _)) = self.tail.take() {
            self.pending.extend(tail.into_iter().map(Text::Data));
        }
    }

    fn end(mut self) -> Result<(), Stop> {
        self.end_tail();
        self.flush()?;
        Ok(self.screen.clear()?)
    }
}
