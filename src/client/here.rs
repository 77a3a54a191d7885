//! Runs on the engine of this machine: `build`, `run PIPELINE`, `run -f FILE --local`.
//!
//! **Invariant:** what cannot be run is told before anything is started, and when the verb ends, however it ends, the run
//! has ended too and what it made is gone.

use super::{
    Session,
    args::{BuildArgs, OnInterrupt, RunArgs, RunOutput},
    exit::Exit,
    fault::{Fault, Stop, reason},
    feed::{Fed, Feed},
    follow::{self, Interrupt, Left, Options},
    logtext::Decoder,
    output::{Heard, Over},
    project::{self, Project},
    request::{Asked, engine_address, request},
    screen::Screen,
    signals::{Signals, handler},
    start::not_both,
    view::RunView,
};
use crate::{
    api::PipelineRun,
    engine::docker::DockerEngine,
    local::{self, StartError, Started},
};
use bytes::Bytes;
use jiff::Timestamp;
use std::{path::Path, time::Duration};
use tokio::{
    signal::unix::SignalKind,
    sync::{mpsc, watch},
};

/// Where the run is, for people.
const PLACE: &str = "local Docker";
/// The pipeline of `build`.
const BUILD: &str = "build";

/// Whether `run` means this machine.
pub(super) fn is_meant(args: &RunArgs) -> bool {
    let in_project = args.what.file.is_none() && args.pipeline.is_some() && project::find(Path::new(".")).is_some();
    args.local || in_project
}

/// `build`.
///
/// # Errors
/// What keeps the run from starting.
pub(super) async fn build(session: &mut Session, args: &BuildArgs) -> Result<Exit, Stop> {
    let asked = Asked {
        what: &args.what,
        as_written: false,
        pipeline: Some(BUILD),
        manner: &args.manner,
        here: &args.here,
        again: format!("{} build", session.name),
    };
    carry_out(session, asked).await
}

/// `run PIPELINE`, `run --local`.
///
/// # Errors
/// What keeps the run from starting.
pub(super) async fn run(session: &mut Session, args: &RunArgs) -> Result<Exit, Stop> {
    let of_cluster = [
        (args.from.is_some(), "--from"),
        (args.revision.is_some(), "--revision"),
        (args.dry_run.is_some(), "--dry-run"),
        (args.detach, "--detach"),
        (args.timeout.is_some(), "--timeout"),
        (args.on_interrupt == OnInterrupt::Detach, "--on-interrupt detach"),
    ];
    refuse(&of_cluster)?;
    let name = args.pipeline.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    let file = args.what.file.as_ref().map(|file| format!(" -f {} --local", file.display())).unwrap_or_default();
    let asked = Asked {
        what: &args.what,
        as_written: args.what.file.is_some(),
        pipeline: args.pipeline.as_deref(),
        manner: &args.manner,
        here: &args.here,
        again: format!("{} run{file}{name}", session.name),
    };
    carry_out(session, asked).await
}

/// Flags that only a cluster could carry out.
fn refuse(of_cluster: &[(bool, &str)]) -> Result<(), Stop> {
    match of_cluster.iter().find(|(given, _)| *given) {
        Some((_, flag)) => {
            Err(Fault::usage(format!("{flag} is for a run in a cluster; this one is on {PLACE}")).into())
        }
        None => Ok(()),
    }
}

async fn carry_out(session: &mut Session, asked: Asked<'_>) -> Result<Exit, Stop> {
    not_both(session, asked.manner.output)?;
    let place = &session.global.place;
    refuse(&[(place.namespace.is_some(), "--namespace"), (place.context.is_some(), "--context")])?;
    let file = match &asked.what.file {
        Some(file) => file.clone(),
        None => project::find(Path::new(".")).ok_or_else(|| {
            let fault = Fault::usage(format!("no {} in this directory", project::FILES[0]));
            fault.hint(format!("{} build -f FILE", session.name))
        })?,
    };
    let project = Project::read(&file)?;
    let chosen = project.choose(asked.pipeline, session.name)?;
    let request = request(&asked, &file, project, chosen)?;
    let engine = DockerEngine::of_local_runs(&engine_address()?).map_err(|error| unreachable(&error.to_string()))?;
    let signals = Signals::catch()?;
    let started = local::start(request, engine).await.map_err(refused)?;
    for port in &asked.here.publish {
        session.screen.message(&format!("port {} of the box is at 127.0.0.1:{}", port.remote, port.local))?;
    }
    follow_here(session, &asked, started, signals).await
}

async fn follow_here(
    session: &mut Session,
    asked: &Asked<'_>,
    mut started: Started,
    signals: Signals,
) -> Result<Exit, Stop> {
    let view = view(&started.changes.borrow_and_update());
    // A terminal that is closed takes the run with it, as a second Ctrl-C does.
    let (mut hangup, abandon) = (handler(SignalKind::hangup())?, started.abandoning());
    tokio::spawn(async move {
        if hangup.recv().await.is_some() {
            abandon();
        }
    });
    let mut setting = session.setting();
    setting.show = asked.manner.show;
    setting.tail = asked.manner.tail;
    setting.interrupt = "Ctrl-C cancels";
    setting.again = Some(asked.again.clone());
    let options = Options {
        made: Some(Duration::ZERO),
        interrupt: Some(Interrupt::Cancel),
        exit_code: asked.manner.exit_code,
        ..Options::watching()
    };
    if asked.manner.output == Some(RunOutput::Name) {
        session.screen.data(&format!("{}\n", view.name))?;
    }
    let mut screen = Screen::new(&session.look, asked.manner.output.is_some(), false);
    let feed = OfHere { started: &mut started };
    let followed = follow::follow_feed(feed, view, &mut screen, setting, options, signals).await;
    // However following ended: the run ends with us.
    started.abandon();
    let last = started.changes.borrow().clone();
    started.cleaned().await;
    let followed = followed?;
    match asked.manner.output {
        Some(RunOutput::Digest) => {
            for image in followed.view.images() {
                session.screen.data(&format!("{}@{}\n", image.repository, image.digest))?;
            }
        }
        Some(RunOutput::Json) => {
            let object = serde_json::to_value(&last).unwrap_or_default();
            session.screen.data(&format!("{object:#}\n"))?;
        }
        Some(RunOutput::Name) | None => {}
    }
    Ok(followed.exit)
}

fn unreachable(message: &str) -> Stop {
    let fault = Fault::new(reason::ENGINE_UNREACHABLE, Exit::World, message);
    fault.hint("is Docker running? if it is, join the group docker, or set DOCKER_HOST").into()
}

fn refused(error: StartError) -> Stop {
    match error {
        StartError::Refused(refusal) => {
            Fault::new(refusal.reason, Exit::Usage, refusal.message).note("nothing was started").into()
        }
        StartError::Engine(error) => unreachable(&error.to_string()),
        StartError::Machine(message) => Fault::new(reason::ENGINE_UNREACHABLE, Exit::World, message).into(),
    }
}

/// The run as all verbs see one; without a namespace, as there is none.
fn view(run: &PipelineRun) -> RunView {
    let object = serde_json::to_value(run).and_then(serde_json::from_value);
    let mut view = object.map(|object| RunView::read(&object)).unwrap_or_default();
    view.namespace = String::new();
    view.created = run.metadata.creation_timestamp.as_ref().map(|time| time.0);
    view.status.start_time = run.status.as_ref().and_then(|status| status.start_time.clone());
    view
}

/// A run of this machine.
struct OfHere<'a> {
    started: &'a mut Started,
}

impl Feed for OfHere<'_> {
    fn place(&self) -> &str {
        PLACE
    }

    fn check(&mut self) -> Result<Option<String>, Fault> {
        Ok(None)
    }

    async fn next(&mut self) -> Fed {
        match self.started.changes.changed().await {
            Ok(()) => Fed::Run(Box::new(view(&self.started.changes.borrow_and_update()))),
            // The run's task is over; its last word was heard.
            Err(_) => std::future::pending().await,
        }
    }

    fn hear(&mut self, _pod: &str, _caught_up: bool, speak: mpsc::Sender<Heard>, _over: watch::Receiver<Over>) {
        let (_, none) = mpsc::channel(1);
        let output = std::mem::replace(&mut self.started.output, none);
        tokio::spawn(read(output, speak));
    }

    async fn cancel(&mut self, _run: &str, now: bool) -> Result<(), Stop> {
        if now {
            self.started.abandon();
        } else {
            self.started.cancel();
        }
        Ok(())
    }

    async fn finish(&mut self, _run: RunView, _step: &str) -> Result<(), String> {
        Err("only a run in a cluster has somebody to ask".into())
    }

    fn second_interrupt(&self) -> &'static str {
        "to stop now"
    }

    fn left(&mut self, run: &str, _how: Left) -> String {
        self.started.abandon();
        format!("stopping {run} now; after-steps do not run")
    }

    fn goes_on(&self, run: &str) -> String {
        format!("{run} ends with this program")
    }
}

/// Reads what the box prints, each line with the time at which it came.
async fn read(mut output: mpsc::Receiver<Bytes>, speak: mpsc::Sender<Heard>) {
    let mut decoder = Decoder::default();
    let mut begins = true;
    while let Some(bytes) = output.recv().await {
        let stamp = format!("{} ", Timestamp::now());
        let mut text = Vec::with_capacity(bytes.len() + 2 * stamp.len());
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if begins {
                text.extend_from_slice(stamp.as_bytes());
            }
            text.extend_from_slice(part);
            begins = part.ends_with(b"\n");
        }
        for piece in decoder.feed(&text) {
            if speak.send(Heard::Piece(piece)).await.is_err() {
                return;
            }
        }
    }
    for piece in decoder.reconnect() {
        let _ = speak.send(Heard::Piece(piece)).await;
    }
    let _ = speak.send(Heard::Ended(None)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_comes_line_by_line_with_its_time() {
        let (pieces, output) = mpsc::channel(8);
        let (speak, mut heard) = mpsc::channel(64);
        for part in ["> step  [0.1s] 1/2 bu", "ild\nmaking", " it\n", "no line end"] {
            pieces.send(Bytes::from_static(part.as_bytes())).await.unwrap();
        }
        drop(pieces);
        read(output, speak).await;
        let (mut text, mut stamped) = (String::new(), Vec::new());
        while let Some(next) = heard.recv().await {
            let Heard::Piece(piece) = next else { continue };
            if piece.stamp.is_some() {
                stamped.push(String::from_utf8_lossy(&piece.bytes).into_owned());
            }
            text += &String::from_utf8_lossy(&piece.bytes);
        }
        assert_eq!(text, "> step  [0.1s] 1/2 build\nmaking it\nno line end");
        assert_eq!(stamped[0], "> step  [0.1s] 1/2 build\n", "a line of the runner comes whole");
        assert_eq!(stamped.len(), 3, "{stamped:?}");
    }
}
