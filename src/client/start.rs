//! Makes a run, follows it, prints what `-o` asks for.
//!
//! `run` and `retry` use it. **Invariant:** a run is created at most once per call; a creation whose answer
//! was lost is said so, never repeated.

use super::{
    Session,
    args::{ExitCodeOf, OnInterrupt, RunOutput, Show},
    connect::Cluster,
    exit::Exit,
    fault::{Fault, Stop, reason},
    follow::{self, Options},
    manifest::Manifest,
    refusal::Ask,
    screen::Screen,
    style::Mode,
    view::RunView,
};
use crate::api::manager;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::Value;
use std::time::Duration;

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

pub(super) async fn start(
    session: &mut Session,
    mut cluster: Cluster,
    manifest: &Manifest,
    file: &str,
    shown: Shown,
) -> Result<Exit, Stop> {
    if let Some(namespace) = manifest.run.pointer("/metadata/namespace").and_then(Value::as_str) {
        namespace.clone_into(&mut cluster.namespace);
    }
    for pipeline in &manifest.pipelines {
        let applied = apply(&cluster, pipeline, file, false).await?;
        session.screen.message(&format!("pipeline {} applied", applied.metadata.name.unwrap_or_default()))?;
    }
    let created = create(&cluster, &manifest.run, file, false).await?;
    let name = created.metadata.name.clone().unwrap_or_default();
    let full_name = format!("pipelinerun.windlass.dev/{name}\n");
    if shown.output == Some(RunOutput::Name) {
        session.screen.data(&full_name)?;
    }
    if shown.detach {
        match shown.output {
            Some(RunOutput::Json) => session.screen.data(&object_json(&created)?)?,
            Some(RunOutput::Name | RunOutput::Digest) => {}
            None => {
                let place = format!("in namespace {}, cluster {}", cluster.namespace, cluster.context);
                session.screen.message(&format!("run {name} {place}"))?;
                session.screen.message(&format!("hint: {} logs -f {name}", cluster.program))?;
            }
        }
        return Ok(Exit::Success);
    }
    let mut setting = session.setting();
    setting.show = shown.show;
    setting.tail = shown.tail;
    setting.interrupt = match shown.on_interrupt {
        OnInterrupt::Cancel => "Ctrl-C cancels",
        OnInterrupt::Detach => "Ctrl-C leaves",
    };
    let options = Options {
        fresh: true,
        interrupt: Some(shown.on_interrupt),
        with_output: true,
        timeout: shown.timeout,
        exit_code: shown.exit_code,
    };
    // With -o stdout is for what was asked; step output is shown beside it.
    let mut screen = Screen::new(&session.look, shown.output.is_some(), false);
    let followed = follow::follow(&cluster, &created, &mut screen, setting, options).await?;
    at_the_end(session, &cluster, &followed.view, shown.output).await?;
    Ok(followed.exit)
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

pub(super) async fn apply(
    cluster: &Cluster,
    pipeline: &Value,
    file: &str,
    dry_run: bool,
) -> Result<DynamicObject, Stop> {
    let name = pipeline.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    if name.is_empty() {
        return Err(Fault::usage(format!("{file}: a Pipeline has no metadata.name")).into());
    }
    let mut params = PatchParams::apply(manager::CLI).validation_strict();
    params.dry_run = dry_run;
    let ask = Ask::object("patch", "pipelines", pipeline, file);
    cluster.ask(ask, cluster.pipelines().patch(name, &params, &Patch::Apply(pipeline))).await
}

pub(super) async fn create(cluster: &Cluster, run: &Value, file: &str, dry_run: bool) -> Result<DynamicObject, Stop> {
    let params = PostParams { dry_run, field_manager: Some(manager::CLI.into()) };
    let body = serde_json::to_vec(run).map_err(|e| internal(&e))?;
    let path = format!("/apis/windlass.dev/v1alpha1/namespaces/{}/pipelineruns", cluster.namespace);
    let request = kube::core::Request::new(path).create(&params, body).map_err(|e| internal(&e))?;
    let request = strict(request)?;
    let ask = Ask::object("create", "pipelineruns", run, file);
    let client = cluster.client_that_never_repeats()?;
    cluster.ask(ask, client.request(request)).await.map_err(|stop| match stop {
        Stop::Faults(faults) if !dry_run => Stop::Faults(faults.into_iter().map(|f| maybe_made(f, cluster)).collect()),
        other => other,
    })
}

/// Without an answer it is not known whether the run was made.
fn maybe_made(fault: Fault, cluster: &Cluster) -> Fault {
    if matches!(fault.reason, reason::CLUSTER_UNREACHABLE | reason::CLUSTER_ERROR) {
        return fault.note("the run may have been made all the same").hint(format!("{} list", cluster.program));
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
