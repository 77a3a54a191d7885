//! `run` and `retry`: start a run and follow it.
//!
//! **Invariant:** a run is created at most once per call; a creation whose answer was lost is said so,
//! never repeated.

use super::{
    Session,
    args::{DryRun, ExitCodeOf, OnInterrupt, RetryArgs, RunArgs, RunOutput, Show},
    connect::Cluster,
    exit::Exit,
    fault::{Fault, Stop, reason},
    follow::{self, Options},
    manifest::{self, Manifest},
    refusal::Ask,
    screen::Screen,
    style::Mode,
    view::RunView,
};
use crate::api::{manager, meta};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::time::Duration;

/// How a started run is shown.
struct Shown {
    detach: bool,
    timeout: Option<Duration>,
    output: Option<RunOutput>,
    on_interrupt: OnInterrupt,
    exit_code: ExitCodeOf,
    show: Show,
    tail: usize,
}

/// `run`.
///
/// # Errors
/// Input that cannot be run, or whatever the cluster answered.
pub(super) async fn run(session: &mut Session, args: &RunArgs) -> Result<Exit, Stop> {
    let program = session.program.clone();
    // Before the cluster is asked: a mistake in the file is told at once.
    let (file, documents) = match (&args.file, &args.from, &args.pipeline) {
        (Some(path), _, _) => {
            let file = if path.as_os_str() == "-" { "stdin".to_owned() } else { path.display().to_string() };
            let documents = manifest::parse(&file, &manifest::read(path)?)?;
            (file, Some(documents))
        }
        (None, Some(from), _) => (from.clone(), None),
        (None, None, Some(name)) => {
            let fault = Fault::usage(format!("{name:?}: a cluster is never guessed from a pipeline's name"));
            return Err(fault.hint(format!("{program} run --from pipeline/{name}")).into());
        }
        (None, None, None) => {
            let fault = Fault::usage("nothing to run: give a file with -f, or a Pipeline with --from");
            return Err(fault.hint(format!("{program} run -f FILE")).into());
        }
    };
    not_both(session, args.output)?;
    let cluster = session.cluster().await?;
    let place = (cluster.namespace.as_str(), cluster.namespace_given);
    let manifest = match documents {
        Some(documents) => manifest::assemble(&file, documents, place, args)?,
        None => from_pipeline(&file, &cluster, args)?,
    };
    if let Some(dry_run) = args.dry_run {
        return preview(session, &cluster, &manifest, &file, dry_run, args.output).await;
    }
    let shown = Shown {
        detach: args.detach,
        timeout: args.timeout,
        output: args.output,
        on_interrupt: args.on_interrupt,
        exit_code: args.exit_code,
        show: args.show,
        tail: args.tail,
    };
    start(session, cluster, &manifest, &file, shown).await
}

/// `retry`.
///
/// # Errors
/// When the run was never resolved, or whatever the cluster answered.
pub(super) async fn retry(session: &mut Session, args: &RetryArgs) -> Result<Exit, Stop> {
    not_both(session, args.output)?;
    let cluster = session.cluster().await?;
    let old = cluster.find_run(Some(&args.run)).await?;
    let manifest = Manifest { pipelines: Vec::new(), run: again(&old)? };
    let shown = Shown {
        detach: args.detach,
        timeout: args.timeout,
        output: args.output,
        on_interrupt: args.on_interrupt,
        exit_code: ExitCodeOf::Windlass,
        show: Show::All,
        tail: 20,
    };
    start(session, cluster, &manifest, "", shown).await
}

/// stdout holds either events or what `-o` asks for.
fn not_both(session: &Session, output: Option<RunOutput>) -> Result<(), Stop> {
    if session.look.mode == Mode::Json && output.is_some() {
        return Err(Fault::usage("--json and -o both write to stdout; choose one").into());
    }
    Ok(())
}

fn from_pipeline(from: &str, cluster: &Cluster, args: &RunArgs) -> Result<Manifest, Stop> {
    let Some(name) = from.strip_prefix("pipeline/").filter(|name| !name.is_empty()) else {
        let fault = Fault::usage(format!("--from {from}: expected pipeline/NAME"));
        return Err(fault.hint(format!("{} run --from pipeline/{from}", cluster.program)).into());
    };
    let mut run = manifest::run_of(name, &cluster.namespace);
    manifest::complete(from, &mut run, args)?;
    Ok(Manifest { pipelines: Vec::new(), run })
}

/// A new run of what an old one ran: the frozen pipeline, in which parameters are already replaced, with
/// the old run's other settings.
fn again(old: &DynamicObject) -> Result<Value, Stop> {
    let name = old.metadata.name.clone().unwrap_or_default();
    let Some(frozen) = old.data.pointer("/status/pipelineSpec") else {
        let fault = Fault::new(
            reason::NOT_FOUND,
            Exit::NotFound,
            format!("{name} was never resolved; it has nothing to run again"),
        );
        return Err(fault.into());
    };
    let mut spec = json!({"pipelineSpec": frozen});
    for key in ["env", "source", "revision", "timeout", "priority", "ttlAfterFinished", "podTTLAfterFinished"] {
        if let (Some(value), Some(spec)) = (old.data.pointer(&format!("/spec/{key}")), spec.as_object_mut()) {
            spec.insert(key.into(), value.clone());
        }
    }
    // Parameters were replaced when the run was resolved; their values satisfy those without a default.
    if frozen.get("params").is_some_and(|p| p.as_array().is_some_and(|p| !p.is_empty()))
        && let (Some(params), Some(spec)) = (old.data.pointer("/status/params"), spec.as_object_mut())
    {
        spec.insert("params".into(), params.clone());
    }
    let pipeline = old.data.pointer("/spec/pipelineRef/name").and_then(Value::as_str);
    let label = old.metadata.labels.as_ref().and_then(|l| l.get(meta::PIPELINE)).map(String::as_str);
    let labels = pipeline.or(label).map_or_else(|| json!({}), |p| json!({meta::PIPELINE: p}));
    let base = match &old.metadata.generate_name {
        Some(generate) => generate.trim_end_matches('-').to_owned(),
        None => name,
    };
    let base = base.strip_suffix("-retry").unwrap_or(&base);
    Ok(json!({
        "apiVersion": "windlass.dev/v1alpha1",
        "kind": "PipelineRun",
        "metadata": {
            "generateName": manifest::generate_name(&format!("{}-retry", base.chars().take(46).collect::<String>())),
            "namespace": old.metadata.namespace,
            "labels": labels,
        },
        "spec": spec,
    }))
}

async fn start(
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

async fn preview(
    session: &mut Session,
    cluster: &Cluster,
    manifest: &Manifest,
    file: &str,
    dry_run: DryRun,
    output: Option<RunOutput>,
) -> Result<Exit, Stop> {
    let mut objects = manifest.pipelines.clone();
    objects.push(manifest.run.clone());
    if dry_run == DryRun::Server {
        let mut cluster = cluster.clone();
        if let Some(namespace) = manifest.run.pointer("/metadata/namespace").and_then(Value::as_str) {
            namespace.clone_into(&mut cluster.namespace);
        }
        objects.clear();
        for pipeline in &manifest.pipelines {
            objects.push(as_value(&apply(&cluster, pipeline, file, true).await?)?);
        }
        objects.push(as_value(&create(&cluster, &manifest.run, file, true).await?)?);
    }
    for object in &objects {
        let name = object.pointer("/metadata/name").or_else(|| object.pointer("/metadata/generateName"));
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default().to_lowercase();
        match output {
            Some(RunOutput::Json) => session.screen.data(&format!("{object:#}\n"))?,
            Some(RunOutput::Name) => {
                let name = name.and_then(Value::as_str).unwrap_or_default();
                session.screen.data(&format!("{kind}.windlass.dev/{name}\n"))?;
            }
            Some(RunOutput::Digest) | None => {
                let yaml = serde_yaml::to_string(object).map_err(|e| internal(&e))?;
                session.screen.data(&format!("---\n{yaml}"))?;
            }
        }
    }
    session.screen.message("dry run: nothing was started")?;
    Ok(Exit::Success)
}

async fn apply(cluster: &Cluster, pipeline: &Value, file: &str, dry_run: bool) -> Result<DynamicObject, Stop> {
    let name = pipeline.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    if name.is_empty() {
        return Err(Fault::usage(format!("{file}: a Pipeline has no metadata.name")).into());
    }
    let mut params = PatchParams::apply(manager::CLI).validation_strict();
    params.dry_run = dry_run;
    let ask = Ask::object("patch", "pipelines", pipeline, file);
    cluster.ask(ask, cluster.pipelines().patch(name, &params, &Patch::Apply(pipeline))).await
}

async fn create(cluster: &Cluster, run: &Value, file: &str, dry_run: bool) -> Result<DynamicObject, Stop> {
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

fn internal(error: &dyn std::error::Error) -> Stop {
    Fault::new(reason::CLUSTER_ERROR, Exit::World, error.to_string()).into()
}

#[cfg(test)]
mod tests;
