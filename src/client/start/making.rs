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
    /// It is made. Who asked us to end meanwhile is not answered yet.
    Made(Box<DynamicObject>, Option<Exit>),
    /// Somebody asked twice, and did not wait for it.
    Left(Exit),
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
    (signals, on_interrupt): (&mut Signals, OnInterrupt),
) -> Result<Making, Stop> {
    let mut making = std::pin::pin!(create(cluster, run, file, false));
    let mut asked = None;
    loop {
        tokio::select! {
            made = &mut making => return Ok(Making::Made(Box::new(made?), asked)),
            exit = signals.asked_to_end() => {
                if asked.is_some() {
                    let program = cluster.called_in(run.pointer("/metadata/namespace").and_then(Value::as_str));
                    let message = format!("left; the run may have been made all the same: {program} list");
                    session.screen.message(&message)?;
                    return Ok(Making::Left(exit));
                }
                asked = Some(exit);
                session.screen.message(match on_interrupt {
                    OnInterrupt::Cancel => "the run is cancelled once it is made (Ctrl-C again to leave now)",
                    OnInterrupt::Detach => "leaving once the run is made (Ctrl-C again to leave now)",
                })?;
            }
        }
    }
}

/// Answers who asked us to end while runs were made: they are cancelled, and the first of them is returned, or left
/// alone.
pub(super) async fn give_up(
    session: &mut Session,
    cluster: &Cluster,
    made: &[DynamicObject],
    on_interrupt: OnInterrupt,
    signals: &mut Signals,
) -> Result<Option<DynamicObject>, Stop> {
    let mut first = None;
    for run in made {
        let mut cluster = cluster.clone();
        cluster.go_to(run.metadata.namespace.as_deref().unwrap_or(&cluster.namespace.clone()));
        let (name, program) = (run.metadata.name.as_deref().unwrap_or_default(), &cluster.program);
        if on_interrupt == OnInterrupt::Detach {
            session.screen.message(&format!("left; {name} goes on: {program} logs -f {name}"))?;
            continue;
        }
        tokio::select! {
            cancelled = cancel::request(&cluster, name, false) => {
                let cancelled = cancelled?;
                first.get_or_insert(cancelled);
            }
            _ = signals.asked_to_end() => {
                session.screen.message(&format!("left; {name} may not have heard it: {program} cancel {name}"))?;
                return Ok(None);
            }
        }
        session.screen.message(&format!("run {name} is being cancelled: {program} status {name}"))?;
    }
    Ok(first)
}

/// Makes the other runs of the file, and says which one is followed. The answer is how to end, if somebody asks for
/// it meanwhile; `made` has those that are there.
pub(super) async fn more(
    session: &mut Session,
    cluster: &Cluster,
    (manifest, file): (&Manifest, &str),
    shown: &Shown,
    (made, signals): (&mut Vec<DynamicObject>, &mut Signals),
) -> Result<Option<Exit>, Stop> {
    let followed = made.first().and_then(|run| run.metadata.name.clone()).unwrap_or_default();
    for run in &manifest.others {
        let making = make(session, cluster, run, file, (&mut *signals, shown.on_interrupt)).await;
        let (run, asked) = match making.map_err(|stop| already_started(stop, &followed))? {
            Making::Made(run, asked) => (*run, asked),
            Making::Left(exit) => return Ok(Some(exit)),
        };
        let program = cluster.called_in(run.metadata.namespace.as_deref());
        let name = run.metadata.name.as_deref().unwrap_or_default();
        if shown.output == Some(RunOutput::Name) {
            session.screen.data(&format!("pipelinerun.windlass.dev/{name}\n"))?;
        }
        let what = if shown.detach { String::new() } else { format!("; {followed} is followed") };
        session.screen.message(&format!("run {name} started{what}: {program} logs -f {name}"))?;
        made.push(run);
        if asked.is_some() {
            return Ok(asked);
        }
    }
    Ok(None)
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
