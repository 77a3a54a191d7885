//! Makes a run, follows it, prints what `-o` asks for.
//!
//! `run` and `retry` use it. **Invariant:** a run is created at most once per call; a creation whose answer
//! was lost is said so, never repeated.

mod making;

use super::{
    Session,
    args::{ExitCodeOf, OnInterrupt, RunOutput, Show},
    connect::Cluster,
    dev::{self, Dev},
    exit::Exit,
    fault::{Fault, Stop, reason},
    follow::{self, Interrupt, Options},
    manifest::Manifest,
    refusal::Ask,
    screen::Screen,
    signals::Signals,
    style::Mode,
    view::RunView,
};
use crate::api::manager;
use kube::api::{DynamicObject, PostParams};
use making::{Interrupts, Making, give_up, make, objects, rest, with};
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
    /// What is kept up to date meanwhile.
    pub(super) dev: Option<Dev>,
}

/// stdout holds either events or what `-o` asks for.
pub(super) fn not_both(session: &Session, output: Option<RunOutput>) -> Result<(), Stop> {
    if session.look.mode == Mode::Json && output.is_some() {
        return Err(Fault::usage("--json and -o both write to stdout; choose one").into());
    }
    Ok(())
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
    let mut options = Options {
        made: Some(took),
        interrupt: Some(match shown.on_interrupt {
            OnInterrupt::Cancel => Interrupt::Cancel,
            OnInterrupt::Detach => Interrupt::Detach,
        }),
        timeout: shown.timeout,
        exit_code: shown.exit_code,
        ..Options::watching()
    };
    if let Some(dev) = shown.dev {
        (setting.interrupt, setting.finishes) = ("Ctrl-C cancels", true);
        options.interrupt = Some(Interrupt::Finish);
        options.aside = Some(dev::beside(dev, &cluster, &created));
    }
    // With -o stdout is for what was asked; step output is shown beside it.
    let mut screen = Screen::new(&session.look, shown.output.is_some(), false);
    let followed = follow::follow(&cluster, &created, &mut screen, setting, options, &mut interrupts.signals).await?;
    at_the_end(session, &cluster, &followed.view, shown.output).await?;
    Ok(followed.exit)
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
