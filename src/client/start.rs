//! Makes a run, follows it, prints what `-o` asks for.
//!
//! `run` and `retry` use it. **Invariant:** a run is created at most once per call; a creation whose answer
//! was lost is said so, never repeated.

use super::{
    Session,
    apply::{apply, title},
    args::{ExitCodeOf, OnInterrupt, RunOutput, Show},
    cancel,
    connect::Cluster,
    exit::Exit,
    fault::{Fault, Stop, reason},
    follow::{self, Options},
    manifest::{Manifest, name_of},
    refusal::Ask,
    screen::Screen,
    signals::Signals,
    style::Mode,
    view::RunView,
};
use crate::api::manager;
use kube::api::{DynamicObject, PostParams};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How a started run is shown.
pub(super) struct Shown {
    pub(super) detach: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) output: Option<RunOutput>,
    pub(super) on_interrupt: OnInterrupt,
    pub(super) exit_code: ExitCodeOf,
    pub(super) show: Show,
    pub(super) tail: usize,
}

/// stdout holds either events or what `-o` asks for.
pub(super) fn not_both(session: &Session, output: Option<RunOutput>) -> Result<(), Stop> {
    if session.look.mode == Mode::Json && output.is_some() {
        return Err(Fault::usage("--json and -o both write to stdout; choose one").into());
    }
    Ok(())
}

/// What came of asking the cluster for a run.
enum Making {
    /// It is made.
    Made(Box<DynamicObject>),
    /// Somebody asked twice, and did not wait for it.
    Left(Exit),
}

/// Who may ask us to end while runs are made.
struct Interrupts {
    signals: Signals,
    on_interrupt: OnInterrupt,
    /// How to end, if somebody asked; whatever comes of the runs, that is answered.
    asked: Option<Exit>,
}

pub(super) async fn start(
    session: &mut Session,
    mut cluster: Cluster,
    manifest: &Manifest,
    file: &str,
    shown: Shown,
) -> Result<Exit, Stop> {
    // What is made is ours from here on: no signal ends us between a request and its answer.
    let mut interrupts = Interrupts { signals: Signals::catch()?, on_interrupt: shown.on_interrupt, asked: None };
    if let Some(exit) = objects(session, &cluster, manifest, file, &mut interrupts.signals).await? {
        return Ok(exit);
    }
    let began = Instant::now();
    let mut created = match make(session, &cluster, &manifest.run, file, &mut interrupts).await? {
        Making::Made(created) => *created,
        Making::Left(exit) => return Ok(exit),
    };
    let took = began.elapsed();
    if let Some(namespace) = &created.metadata.namespace {
        cluster.go_to(namespace);
        session.program.clone_from(&cluster.program);
    }
    let mut made = vec![created.clone()];
    let all = rest(session, &cluster, (manifest, file), &shown, (&mut made, &mut interrupts)).await;
    match interrupts.asked {
        None => all?,
        Some(exit) => {
            // One that was refused is told by its own error.
            let left = (manifest.others.len() + 1).saturating_sub(made.len() + usize::from(all.is_err()));
            if left > 0 {
                session.screen.message(&format!("{left} other runs of {file} are not started"))?;
            }
            match with(all, give_up(session, &cluster, &made, &mut interrupts).await)? {
                Some(cancelled) if !shown.detach => created = cancelled,
                Some(_) | None => return Ok(exit),
            }
        }
    }
    if shown.detach {
        return detached(session, &cluster, &created, shown.output);
    }
    let mut setting = session.setting();
    setting.show = shown.show;
    setting.tail = shown.tail;
    setting.interrupt = match shown.on_interrupt {
        OnInterrupt::Cancel => "Ctrl-C cancels",
        OnInterrupt::Detach => "Ctrl-C leaves",
    };
    let options = Options {
        made: Some(took),
        interrupt: Some(shown.on_interrupt),
        timeout: shown.timeout,
        exit_code: shown.exit_code,
        ..Options::watching()
    };
    // With -o stdout is for what was asked; step output is shown beside it.
    let mut screen = Screen::new(&session.look, shown.output.is_some(), false);
    let followed = follow::follow(&cluster, &created, &mut screen, setting, options, interrupts.signals).await?;
    at_the_end(session, &cluster, &followed.view, shown.output).await?;
    Ok(followed.exit)
}

/// Applies what stands beside the run; the answer is how to end, if somebody asks for it meanwhile.
async fn objects(
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
async fn make(
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
async fn give_up(
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
fn with<T>(first: Result<(), Stop>, then: Result<T, Stop>) -> Result<T, Stop> {
    let Err(Stop::Faults(mut wrong)) = first else { return then };
    if let Err(Stop::Faults(more)) = then {
        wrong.extend(more);
    }
    Err(Stop::Faults(wrong))
}

/// Tells the name of the run that is made, makes the other runs of the file, and says which one is followed. Ends early
/// if somebody asks to end; `made` has those that are there.
async fn rest(
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

fn tell_name(session: &mut Session, output: Option<RunOutput>, name: &str) -> Result<(), Stop> {
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

fn detached(
    session: &mut Session,
    cluster: &Cluster,
    created: &DynamicObject,
    output: Option<RunOutput>,
) -> Result<Exit, Stop> {
    let name = created.metadata.name.as_deref().unwrap_or_default();
    match output {
        Some(RunOutput::Json) => session.screen.data(&object_json(created)?)?,
        Some(RunOutput::Name | RunOutput::Digest) => {}
        None => {
            let place = format!("in namespace {}, cluster {}", cluster.namespace, cluster.context);
            session.screen.message(&format!("run {name} {place}"))?;
            session.screen.message(&format!("hint: {} logs -f {name}", cluster.program))?;
        }
    }
    Ok(Exit::Success)
}

async fn at_the_end(
    session: &mut Session,
    cluster: &Cluster,
    view: &RunView,
    output: Option<RunOutput>,
) -> Result<(), Stop> {
    match output {
        Some(RunOutput::Digest) => {
            for image in view.images() {
                session.screen.data(&format!("{}@{}\n", image.repository, image.digest))?;
            }
        }
        Some(RunOutput::Json) => {
            let object = cluster.ask(Ask::run("get", &view.name), cluster.runs().get(&view.name)).await?;
            session.screen.data(&object_json(&object)?)?;
        }
        Some(RunOutput::Name) | None => {}
    }
    Ok(())
}

pub(super) async fn create(cluster: &Cluster, run: &Value, file: &str, dry_run: bool) -> Result<DynamicObject, Stop> {
    let params = PostParams { dry_run, field_manager: Some(manager::CLI.into()) };
    let body = serde_json::to_vec(run).map_err(|e| internal(&e))?;
    let written = run.pointer("/metadata/namespace").and_then(Value::as_str);
    let namespace = written.unwrap_or(&cluster.namespace);
    let path = format!("/apis/windlass.dev/v1alpha1/namespaces/{namespace}/pipelineruns");
    let request = kube::core::Request::new(path).create(&params, body).map_err(|e| internal(&e))?;
    let request = strict(request)?;
    let ask = Ask::object("create", "pipelineruns", run, file);
    let client = cluster.client_that_never_repeats()?;
    cluster.ask(ask, client.request(request)).await.map_err(|stop| match stop {
        Stop::Faults(faults) if !dry_run => {
            let program = cluster.called_in(written);
            Stop::Faults(faults.into_iter().map(|fault| maybe_made(fault, &program)).collect())
        }
        other => other,
    })
}

/// Without an answer it is not known whether the run was made.
fn maybe_made(fault: Fault, program: &str) -> Fault {
    if matches!(fault.reason, reason::CLUSTER_UNREACHABLE | reason::CLUSTER_ERROR) {
        return fault.note("the run may have been made all the same").hint(format!("{program} list"));
    }
    fault
}

/// Unknown fields are refused, as kubectl does it, instead of dropped without a word.
fn strict(mut request: http::Request<Vec<u8>>) -> Result<http::Request<Vec<u8>>, Stop> {
    let uri = request.uri().to_string();
    let join = if uri.contains('?') { '&' } else { '?' };
    *request.uri_mut() = format!("{uri}{join}fieldValidation=Strict").parse().map_err(|e| internal(&e))?;
    Ok(request)
}

/// Without `managedFields`, as kubectl prints objects.
pub(super) fn as_value(object: &DynamicObject) -> Result<Value, Stop> {
    let mut value = serde_json::to_value(object).map_err(|e| internal(&e))?;
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    Ok(value)
}

/// An object as `kubectl get -o yaml` prints it.
///
/// # Errors
/// Never in practice: the object came from JSON.
pub(super) fn object_yaml(object: &DynamicObject) -> Result<String, Stop> {
    serde_yaml::to_string(&as_value(object)?).map_err(|e| internal(&e))
}

/// An object as `kubectl get -o json` prints it.
///
/// # Errors
/// Never in practice: the object came from JSON.
pub(super) fn object_json(object: &DynamicObject) -> Result<String, Stop> {
    Ok(format!("{:#}\n", as_value(object)?))
}

pub(super) fn internal(error: &dyn std::error::Error) -> Stop {
    Fault::new(reason::CLUSTER_ERROR, Exit::World, error.to_string()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_asked_to_be_refused() {
        let request = |uri: &str| http::Request::post(uri).body(Vec::new()).expect("a request");
        let uri = |r: http::Request<Vec<u8>>| r.uri().to_string();
        assert_eq!(
            strict(request("/apis/x?dryRun=All")).map(uri),
            Ok("/apis/x?dryRun=All&fieldValidation=Strict".into())
        );
        assert_eq!(strict(request("/apis/x")).map(uri), Ok("/apis/x?fieldValidation=Strict".into()));
    }
}
