//! Runs on the engine of this machine: `build`, `deploy`, `workflow`, `dev`, `run PIPELINE`, `run -f FILE --local`.
//!
//! **Invariant:** what cannot be run is told before anything is started, and when the verb ends, however it ends, the run
//! has ended too and what it made is gone.

mod feed;
mod shown;

use self::{
    feed::{OfHere, view},
    shown::Shown,
};
use super::{
    Session,
    args::{BuildArgs, DevArgs, Manner, OnInterrupt, RunArgs, RunOutput, WorkflowArgs},
    check::{self, Input},
    dev::publish::take,
    exit::Exit,
    fault::{Fault, Stop, reason},
    follow::{self, Followed, Interrupt, Options, result_of},
    project::{self, Project},
    request::{Asked, engine_address, request},
    screen::Screen,
    signals::{Signals, handler},
    start::not_both,
    style::Mode,
    tty, wercker,
};
use crate::{
    engine::docker::{
        DockerEngine,
        containers::{Protocol, Publish as Published},
    },
    local::{self, Request, StartError, Started},
};
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    net::{TcpListener, UdpSocket},
    signal::unix::SignalKind,
};

/// Where the run is, for people.
const PLACE: &str = "local Docker";
/// The pipelines of `build` and `deploy`.
pub(super) const BUILD: &str = "build";
pub(super) const DEPLOY: &str = "deploy";
/// The pipeline of `dev`.
const DEV: &str = "dev";

/// Whether `run` means this machine.
pub(super) fn is_meant(args: &RunArgs) -> bool {
    let in_project = args.what.file.is_none() && args.pipeline.is_some() && project::find().is_some();
    args.local || in_project
}

/// `build`.
///
/// # Errors
/// What keeps the run from starting.
pub(super) async fn build(session: &mut Session, args: &BuildArgs) -> Result<Exit, Stop> {
    let again = format!("{} build", session.name);
    carry_out(session, asked(args, Some(BUILD), again)).await
}

/// `deploy`.
///
/// # Errors
/// What keeps the run from starting.
pub(super) async fn deploy(session: &mut Session, args: &BuildArgs) -> Result<Exit, Stop> {
    let again = format!("{} deploy", session.name);
    carry_out(session, Asked { deploys: true, ..asked(args, Some(DEPLOY), again) }).await
}

/// `workflow`.
///
/// # Errors
/// What keeps a run from starting.
pub(super) async fn workflow(session: &mut Session, args: &WorkflowArgs) -> Result<Exit, Stop> {
    let again = format!("{} workflow {}", session.name, args.name);
    let asked = Asked { deploys: true, ..asked(&args.run, None, again) };
    let file = begin(session, &asked)?;
    let input = Input::read(&file)?;
    if !is_wercker(&file, &input) {
        let fault = Fault::usage(format!("{}: workflows are of a wercker.yml", file.display()));
        return Err(fault.hint(format!("run its pipelines one by one: {} run PIPELINE", session.name)).into());
    }
    wercker::workflow(session, &asked, &file, input, &args.name).await
}

/// What `build` and its like ask for.
fn asked<'a>(args: &'a BuildArgs, pipeline: Option<&'a str>, again: String) -> Asked<'a> {
    Asked {
        what: &args.what,
        as_written: false,
        pipeline,
        manner: &args.manner,
        here: &args.here,
        dev: false,
        deploys: false,
        again,
        unless_passed: None,
    }
}

/// Whether `dev` means this machine: no cluster is asked for.
pub(super) fn is_meant_by_dev(session: &Session, args: &DevArgs) -> bool {
    let place = &session.global.place;
    let named = args.cluster || args.from.is_some() || place.namespace.is_some() || place.context.is_some();
    args.local || (!named && args.what.file.is_none())
}

/// `dev`.
///
/// # Errors
/// What keeps the run from starting.
pub(super) async fn dev(session: &mut Session, args: &DevArgs) -> Result<Exit, Stop> {
    refuse(&[(!args.ignore.is_empty(), "--ignore")])?;
    let name = args.pipeline.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    let asked = Asked {
        what: &args.what,
        as_written: false,
        pipeline: args.pipeline.as_deref().or_else(|| args.what.file.is_none().then_some(DEV)),
        manner: &Manner { tail: 20, ..Manner::default() },
        here: &args.here,
        dev: true,
        deploys: false,
        again: format!("{} dev{name}", session.name),
        unless_passed: None,
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
        dev: false,
        deploys: false,
        again: format!("{} run{file}{name}", session.name),
        unless_passed: None,
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
    let file = begin(session, &asked)?;
    let input = Input::read(&file)?;
    if is_wercker(&file, &input) {
        return wercker::pipeline(session, &asked, &file, input).await;
    }
    if let Some((_, flag)) = asked.here.wercker.given().into_iter().find(|(given, _)| *given) {
        let fault = Fault::usage(format!("{flag} is for a wercker.yml, and {} is none", file.display()));
        return Err(fault.note("nothing was started").into());
    }
    let project = Project::of(&input)?;
    let chosen = project.choose(asked.pipeline, session.name)?;
    let request = request(&asked, &file, project.objects, chosen)?;
    play(session, &asked, request, &mut Signals::catch()?).await
}

/// The file that is meant.
fn begin(session: &Session, asked: &Asked<'_>) -> Result<PathBuf, Stop> {
    not_both(session, asked.manner.output)?;
    let place = &session.global.place;
    refuse(&[(place.namespace.is_some(), "--namespace"), (place.context.is_some(), "--context")])?;
    match &asked.what.file {
        Some(file) => Ok(file.clone()),
        None => project::find().ok_or_else(|| {
            let fault = Fault::usage(format!("no {} and no wercker.yml in this directory", project::FILES[0]));
            fault.hint(format!("{} build -f FILE", session.name)).into()
        }),
    }
}

/// Whether the file is a `wercker.yml`. What stdin has is of our own kinds, as it is beside no steps.
fn is_wercker(file: &Path, input: &Input) -> bool {
    file != Path::new("-") && check::is_wercker(file, &input.text)
}

/// Runs it to its end. A signal that comes while it is cleaned up is left to the caller.
///
/// # Errors
/// What keeps the run from starting.
pub(super) async fn play(
    session: &mut Session,
    asked: &Asked<'_>,
    request: Request,
    signals: &mut Signals,
) -> Result<Exit, Stop> {
    let engine = DockerEngine::of_local_runs(&engine_address()?).map_err(|error| unreachable(&error.to_string()))?;
    if !request.publish.is_empty() {
        // A run that was killed may still hold the port; the engine tells of one only once the box is made.
        local::sweep(&engine).await.map_err(refused)?;
        drop(take(&asked.here.publish).await?);
        free(&request.publish).await?;
    }
    let shown = Shown::of(&request);
    let mut hangup = handler(SignalKind::hangup())?;
    let started = tokio::select! {
        started = local::start(request, engine) => started.map_err(refused)?,
        // Nothing is made before.
        exit = signals.asked_to_end() => return Ok(exit),
        _ = hangup.recv() => return Ok(Exit::Terminated),
    };
    // A terminal that is closed takes the run with it, as a second Ctrl-C does.
    let abandon = started.abandoning();
    tokio::spawn(async move {
        if hangup.recv().await.is_some() {
            abandon();
        }
    });
    let mut started = started;
    let followed = follow_here(session, asked, &mut started, signals, shown).await;
    // However following ended: the run ends with us.
    started.abandon();
    let changes = started.changes.clone();
    // Whoever does not read this waits all the same.
    let told = match started.may_still_commit() {
        true => session.screen.message("waiting for Docker: the commit of the box has begun and cannot be interrupted"),
        false => Ok(()),
    };
    let stayed = started.cleaned().await;
    let last = changes.borrow().clone();
    told?;
    let followed = match followed {
        Err(Stop::ClosedPipe) => {
            let view = view(&last);
            let exit = result_of(&view, asked.manner.exit_code);
            if exit == Exit::Cancelled {
                session.screen.message(&format!("nobody reads the output any more: {} was stopped", view.name))?;
            }
            return Ok(exit);
        }
        followed => followed?,
    };
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
    if let Some(stays) = stayed.as_ref().and_then(shown::stays) {
        session.screen.message(&stays)?;
    }
    followed.fault.map_or(Ok(followed.exit), |fault| Err(fault.into()))
}

async fn follow_here(
    session: &mut Session,
    asked: &Asked<'_>,
    started: &mut Started,
    signals: &mut Signals,
    shown: Shown,
) -> Result<Followed, Stop> {
    let view = view(&started.changes.borrow_and_update());
    let mut setting = session.setting();
    setting.show = asked.manner.show;
    setting.tail = asked.manner.tail;
    (setting.interrupt, setting.finishes) = ("Ctrl-C cancels", shown.watches);
    setting.again = Some(asked.again.clone());
    setting.published = shown.published;
    setting.zone = Some(session.zone());
    let options = Options {
        made: Some(Duration::ZERO),
        interrupt: Some(if shown.watches { Interrupt::Finish } else { Interrupt::Cancel }),
        notes: shown.notes,
        // Events on stdout are for a program.
        attach: tty::is_there() && session.look.mode != Mode::Json,
        exit_code: asked.manner.exit_code,
        unless_passed: asked.unless_passed.clone(),
        must_pass: wercker::must_pass(&asked.here.wercker, &started.changes.borrow()),
        ..Options::watching()
    };
    if asked.manner.output == Some(RunOutput::Name) {
        session.screen.data(&format!("{}\n", view.name))?;
    }
    let mut screen = Screen::new(&session.look, asked.manner.output.is_some(), false);
    let feed = OfHere { started, place: shown.place, program: session.name };
    follow::follow_feed(feed, view, &mut screen, setting, options, signals).await
}

/// Whether nobody has the ports; those below 1024 may be the engine's to take, though not ours.
async fn free(ports: &[Published]) -> Result<(), Stop> {
    for port in ports {
        let at = SocketAddr::new(port.ip, port.host);
        let taken = match port.protocol {
            Protocol::Tcp => TcpListener::bind(at).await.map(drop),
            Protocol::Udp => UdpSocket::bind(at).await.map(drop),
        };
        if let Some(error) = taken.err().filter(|error| error.kind() == io::ErrorKind::AddrInUse) {
            let said = format!("port {} of this machine, for port {} of the run: {error}", port.host, port.port);
            return Err(Fault::usage(said).note("nothing was started").into());
        }
    }
    Ok(())
}

/// The directory for temporary files cannot be used.
pub(super) fn no_temporary(message: impl Into<String>) -> Fault {
    let fault = Fault::new(reason::NO_TEMPORARY_DIRECTORY, Exit::World, message).note("nothing was started");
    fault.hint("set TMPDIR to a directory that you can write to, and that Docker sees")
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
        StartError::NoCheckpoint(message) => {
            let fault = Fault::new(reason::NOT_FOUND, Exit::NotFound, message).note("nothing was started");
            fault.hint("a step with the key checkpoint: NAME makes one").into()
        }
        StartError::Temporary(message) => no_temporary(message).into(),
        StartError::Machine(message) => Fault::new(reason::ENGINE_UNREACHABLE, Exit::World, message).into(),
    }
}
