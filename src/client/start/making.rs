//! Making what a file holds, while somebody may ask us to end.
//!
//! **Invariant:** no signal is lost between a request and its answer: what was made then is cancelled, or left with its
//! name told.

use super::{Shown, create};
use crate::client::{
    Session,
    apply::{apply, title},
    args::{OnInterrupt, RunOutput},
    cancel,
    connect::Cluster,
    exit::Exit,
    fault::Stop,
    manifest::{Manifest, name_of},
    signals::Signals,
};
use kube::api::DynamicObject;
use serde_json::Value;

/// What came of asking the cluster for a run.
pub(super) enum Making {
    /// It is made.
    Made(Box<DynamicObject>),
    /// Somebody asked twice, and did not wait for it.
    Left(Exit),
}

/// Who may ask us to end while runs are made.
pub(super) struct Interrupts {
    pub(super) signals: Signals,
    pub(super) on_interrupt: OnInterrupt,
    /// How to end, if somebody asked; whatever comes of the runs, that is answered.
    pub(super) asked: Option<Exit>,
}

/// Applies what stands beside the run; the answer is how to end, if somebody asks for it meanwhile.
pub(super) async fn objects(
    session: &mut Session,
    cluster: &Cluster,
    manifest: &Manifest,
    file: &str,
    signals: &mut Signals,
) -> Result<Option<Exit>, Stop> {
    for object in &manifest.objects {
        let title = title(object);
        let kind = title.split(['.', '/']).next().unwrap_or_default();
        let name = name_of(object);
        tokio::select! {
            applied = apply(cluster, object, file, false) => drop(applied?),
            exit = signals.asked_to_end() => {
                let message = format!("left; no run was started, {kind} {name} may have been applied");
                session.screen.message(&message)?;
                return Ok(Some(exit));
            }
        }
        session.screen.message(&format!("{kind} {name} applied"))?;
    }
    Ok(None)
}

/// Asks the cluster for a run. Whoever wants to leave meanwhile is answered once it is there; who asks twice leaves
/// without it.
pub(super) async fn make(
    session: &mut Session,
    cluster: &Cluster,
    run: &Value,
    file: &str,
    interrupts: &mut Interrupts,
) -> Result<Making, Stop> {
    let mut making = std::pin::pin!(create(cluster, run, file, false));
    loop {
        tokio::select! {
            made = &mut making => return Ok(Making::Made(Box::new(made?))),
            exit = interrupts.signals.asked_to_end() => {
                if interrupts.asked.replace(exit).is_some() {
                    let program = cluster.called_in(run.pointer("/metadata/namespace").and_then(Value::as_str));
                    let message = format!("left; the run may have been made all the same: {program} list");
                    session.screen.message(&message)?;
                    return Ok(Making::Left(exit));
                }
                session.screen.message(match interrupts.on_interrupt {
                    OnInterrupt::Cancel => "the run is cancelled once it is made (Ctrl-C again to leave now)",
                    OnInterrupt::Detach => "leaving once the run is made (Ctrl-C again to leave now)",
                })?;
            }
        }
    }
}

/// Answers who asked us to end while runs were made: they are cancelled, and the first of them is returned, or left
/// alone. One that cannot be cancelled is no reason to let the others go on.
pub(super) async fn give_up(
    session: &mut Session,
    cluster: &Cluster,
    made: &[DynamicObject],
    interrupts: &mut Interrupts,
) -> Result<Option<DynamicObject>, Stop> {
    let mut first = None;
    let mut wrong = Vec::new();
    let mut left = false;
    for run in made {
        let mut cluster = cluster.clone();
        cluster.go_to(run.metadata.namespace.as_deref().unwrap_or(&cluster.namespace.clone()));
        let (name, program) = (run.metadata.name.as_deref().unwrap_or_default(), &cluster.program);
        if interrupts.on_interrupt == OnInterrupt::Detach {
            session.screen.message(&format!("left; {name} goes on: {program} logs -f {name}"))?;
            continue;
        }
        if left {
            session.screen.message(&format!("left; {name} goes on: {program} cancel {name}"))?;
            continue;
        }
        let cancelled = tokio::select! {
            cancelled = cancel::request(&cluster, name, false) => cancelled,
            _ = interrupts.signals.asked_to_end() => {
                session.screen.message(&format!("left; {name} may not have heard it: {program} cancel {name}"))?;
                left = true;
                continue;
            }
        };
        match cancelled {
            Ok(cancelled) => {
                session.screen.message(&format!("run {name} is being cancelled: {program} status {name}"))?;
                first.get_or_insert(cancelled);
            }
            Err(Stop::Faults(faults)) => wrong.extend(
                faults.into_iter().map(|fault| fault.note(format!("run {name} goes on: {program} cancel {name}"))),
            ),
            Err(Stop::ClosedPipe) => return Err(Stop::ClosedPipe),
        }
    }
    if !wrong.is_empty() {
        return Err(Stop::Faults(wrong));
    }
    Ok(first.filter(|_| !left))
}

/// What went wrong first, and then; that nobody reads our output is no reason to stop.
pub(super) fn with<T>(first: Result<(), Stop>, then: Result<T, Stop>) -> Result<T, Stop> {
    let Err(Stop::Faults(mut wrong)) = first else { return then };
    if let Err(Stop::Faults(more)) = then {
        wrong.extend(more);
    }
    Err(Stop::Faults(wrong))
}

/// Tells the name of the run that is made, makes the other runs of the file, and says which one is followed. Ends early
/// if somebody asks to end; `made` has those that are there.
pub(super) async fn rest(
    session: &mut Session,
    cluster: &Cluster,
    (manifest, file): (&Manifest, &str),
    shown: &Shown,
    (made, interrupts): (&mut Vec<DynamicObject>, &mut Interrupts),
) -> Result<(), Stop> {
    let followed = made.first().and_then(|run| run.metadata.name.clone()).unwrap_or_default();
    tell_name(session, shown.output, &followed)?;
    for run in &manifest.others {
        if interrupts.asked.is_some() {
            break;
        }
        let making = make(session, cluster, run, file, interrupts).await;
        let run = match making.map_err(|stop| already_started(stop, &followed))? {
            Making::Made(run) => *run,
            Making::Left(_) => break,
        };
        made.push(run.clone());
        let program = cluster.called_in(run.metadata.namespace.as_deref());
        let name = run.metadata.name.as_deref().unwrap_or_default();
        tell_name(session, shown.output, name)?;
        let what = if shown.detach { String::new() } else { format!("; {followed} is followed") };
        session.screen.message(&format!("run {name} started{what}: {program} logs -f {name}"))?;
    }
    Ok(())
}

pub(super) fn tell_name(session: &mut Session, output: Option<RunOutput>, name: &str) -> Result<(), Stop> {
    if output == Some(RunOutput::Name) {
        session.screen.data(&format!("pipelinerun.windlass.dev/{name}\n"))?;
    }
    Ok(())
}

/// One run of the file was refused, another had been started.
fn already_started(stop: Stop, name: &str) -> Stop {
    let Stop::Faults(mut faults) = stop else { return stop };
    for fault in &mut faults {
        fault.notes.retain(|note| note != "nothing was started");
        fault.notes.push(format!("run {name} was started before it"));
    }
    Stop::Faults(faults)
}
