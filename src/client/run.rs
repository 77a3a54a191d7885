//! `run`: starts a run from a file or a Pipeline.
//!
//! **Invariant:** a file is judged before the cluster is asked; what was written is sent as written.

use super::{
    Session,
    apply::{apply, title},
    args::{DryRun, RunArgs, RunOutput},
    connect::Cluster,
    exit::Exit,
    fault::{Fault, Stop, nearest, reason},
    manifest::{self, Manifest},
    project,
    start::{Shown, as_value, create, internal, not_both, start},
};
use kube::api::ListParams;
use serde_json::Value;
use std::{path::Path, time::Duration};

/// Names that one may have meant.
const MOST_NAMES: u32 = 500;
/// How long the name of a Pipeline may be asked about.
const NAME_PATIENCE: Duration = Duration::from_secs(3);

/// `run`.
///
/// # Errors
/// Input that cannot be run, or whatever the cluster answered.
pub(super) async fn run(session: &mut Session, args: &RunArgs) -> Result<Exit, Stop> {
    let of_docker = [(args.here.source.is_some(), "--source"), (!args.here.publish.is_empty(), "--publish")];
    refuse(args.here.given().into_iter().chain(of_docker))?;
    let read = read(args, &session.program, "run")?;
    not_both(session, args.manner.output)?;
    let cluster = session.cluster().await?;
    let Asked { file, manifest } = assemble(read, &cluster, args)?;
    if args.from.is_some() && args.dry_run != Some(DryRun::Client) {
        let name = manifest.run.pointer("/spec/pipelineRef/name").and_then(Value::as_str).unwrap_or_default();
        // For people's sake alone: who gets no answer, or no right to it, hears of it from the run.
        tokio::time::timeout(NAME_PATIENCE, is_there(&cluster, name)).await.unwrap_or(Ok(()))?;
    }
    if let Some(dry_run) = args.dry_run {
        return preview(session, &cluster, &manifest, &file, dry_run, args.manner.output).await;
    }
    if args.what.file.is_some() {
        session.kubectl(&format!("-n {} create -f {}", cluster.namespace, manifest::as_argument(&file)))?;
    }
    let shown = Shown {
        detach: args.detach,
        timeout: args.timeout,
        output: args.manner.output,
        on_interrupt: args.on_interrupt,
        exit_code: args.manner.exit_code,
        show: args.manner.show,
        tail: args.manner.tail,
        dev: None,
    };
    start(session, cluster, &manifest, &file, shown).await
}

/// What is to be run, and the name by which people know it.
pub(super) struct Asked {
    pub file: String,
    pub manifest: Manifest,
}

/// A file's name and documents, or a Pipeline's name.
pub(super) type Read = (String, Option<Vec<Value>>);

/// Reads what `verb` is to run, before the cluster is asked: a mistake in the file is told at once.
///
/// # Errors
/// When there is nothing to run, or the file cannot be read.
pub(super) fn read(args: &RunArgs, program: &str, verb: &str) -> Result<Read, Stop> {
    match (&args.what.file, &args.from, &args.pipeline) {
        (Some(_), _, Some(name)) => {
            let fault =
                Fault::usage(format!("{name:?}: which pipeline of a file runs in a cluster is the file's to say"));
            Err(fault.hint(format!("on Docker: {program} run -f FILE --local {name}")).into())
        }
        (Some(path), _, None) => {
            let file = if path.as_os_str() == "-" { "stdin".to_owned() } else { path.display().to_string() };
            let documents = manifest::parse(&file, &manifest::read(path)?)?;
            Ok((file, Some(documents)))
        }
        (None, Some(from), _) => Ok((from.clone(), None)),
        (None, None, Some(name)) => {
            let fault = Fault::usage(format!("{name:?}: a cluster is never guessed from a pipeline's name"));
            // `windlass run hello.yaml` means the file.
            let path = Path::new(name);
            let is_file = path.extension().is_some() || path.is_file() || name.contains('/');
            let how =
                if is_file { format!("-f {}", manifest::as_argument(name)) } else { format!("--from pipeline/{name}") };
            Err(fault.hint(format!("{program} {verb} {how}")).into())
        }
        (None, None, None) => {
            let fault = Fault::usage("nothing to run: give a file with -f, or a Pipeline with --from");
            let hint = match project::find() {
                Some(file) if verb == "run" => {
                    format!("{program} run PIPELINE   on Docker, with a pipeline of {}", file.display())
                }
                Some(_) | None => format!("{program} {verb} -f FILE"),
            };
            Err(fault.hint(hint).into())
        }
    }
}

/// Flags that only a run on Docker could carry out.
///
/// # Errors
/// `Usage` with the first that was given.
pub(super) fn refuse(of_docker: impl IntoIterator<Item = (bool, &'static str)>) -> Result<(), Stop> {
    match of_docker.into_iter().find(|(given, _)| *given) {
        Some((_, flag)) => {
            let fault = Fault::usage(format!("{flag} is for a run on Docker; this one is in a cluster"));
            Err(fault.note("nothing was started").into())
        }
        None => Ok(()),
    }
}

/// Completes what was read.
///
/// # Errors
/// When it is not clear what to run, or the namespaces differ.
pub(super) fn assemble((file, documents): Read, cluster: &Cluster, args: &RunArgs) -> Result<Asked, Stop> {
    let place = (cluster.namespace.as_str(), cluster.namespace_given);
    let manifest = match documents {
        Some(documents) => manifest::assemble(&file, documents, place, args)?,
        None => from_pipeline(&file, cluster, args)?,
    };
    Ok(Asked { file, manifest })
}

fn from_pipeline(from: &str, cluster: &Cluster, args: &RunArgs) -> Result<Manifest, Stop> {
    let Some(name) = from.strip_prefix("pipeline/").filter(|name| !name.is_empty()) else {
        let fault = Fault::usage(format!("--from {from}: expected pipeline/NAME"));
        return Err(fault.hint(format!("{} run --from pipeline/{from}", cluster.program)).into());
    };
    let mut run = manifest::run_of(name, &cluster.namespace);
    manifest::complete(from, &mut run, args)?;
    Ok(Manifest::of(run))
}

/// Sees that a Pipeline is there: a run that is applied waits for it to be made, and a person has mistyped its name.
/// What the cluster does not tell is taken to be there.
///
/// # Errors
/// `NotFound`, with the name that was probably meant.
async fn is_there(cluster: &Cluster, name: &str) -> Result<(), Stop> {
    let pipelines = cluster.pipelines(&cluster.namespace);
    if !matches!(pipelines.get_metadata_opt(name).await, Ok(None)) {
        return Ok(());
    }
    let Ok(there) = pipelines.list_metadata(&ListParams::default().limit(MOST_NAMES)).await else { return Ok(()) };
    let message = format!("no pipeline {name:?} in namespace {}", cluster.namespace);
    let fault = Fault::new(reason::NOT_FOUND, Exit::NotFound, message).note("nothing was started");
    let names = there.items.iter().filter_map(|pipeline| pipeline.metadata.name.as_deref());
    Err(match nearest(name, names) {
        Some(near) => fault.hint(format!("did you mean {near:?}?")),
        None => fault.hint(format!("kubectl -n {} get pipelines", cluster.namespace)),
    }
    .into())
}

async fn preview(
    session: &mut Session,
    cluster: &Cluster,
    manifest: &Manifest,
    file: &str,
    dry_run: DryRun,
    output: Option<RunOutput>,
) -> Result<Exit, Stop> {
    let mut objects: Vec<Value> = manifest.objects.iter().chain(manifest.runs()).cloned().collect();
    if dry_run == DryRun::Server {
        objects.clear();
        for object in &manifest.objects {
            objects.push(as_value(&apply(cluster, object, file, true).await?)?);
        }
        for run in manifest.runs() {
            objects.push(as_value(&create(cluster, run, file, true).await?)?);
        }
    }
    for object in objects.iter().map(manifest::shown) {
        match output {
            Some(RunOutput::Json) => session.screen.data(&format!("{object:#}\n"))?,
            Some(RunOutput::Name) => session.screen.data(&format!("{}\n", title(&object)))?,
            Some(RunOutput::Digest) | None => {
                let yaml = serde_yaml::to_string(&object).map_err(|e| internal(&e))?;
                session.screen.data(&format!("---\n{yaml}"))?;
            }
        }
    }
    session.screen.message("dry run: nothing was started")?;
    Ok(Exit::Success)
}
