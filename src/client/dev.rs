//! `dev`: a run whose source is a directory of this machine, kept up to date while it goes on.
//!
//! ```text
//! start: a run with source none and a breakpoint before its first step ──> follow (shows it, answers Ctrl-C)
//!   └─> keep: watch, look (local) ─> delta ─> send ─exec─> runner receive;  after the first: continue
//!   └─> publish: 127.0.0.1:PORT ─> port of the box
//! ```
//!
//! **Invariant:** the first step begins only once the box has everything. What the box has is known from its own word; a
//! connection that is lost is made again until the run is over. Acts with the caller's own rights: exec, port-forward.

mod keep;
mod local;
pub(super) mod publish;
mod send;

use super::{
    Session,
    args::{DevArgs, ExitCodeOf, OnInterrupt, RunArgs, Show},
    connect::Cluster,
    exit::Exit,
    fault::{Fault, Stop, reason},
    follow::Aside,
    manifest::{self, Manifest},
    refusal::Ask,
    run::{self, Asked},
    start::{Shown, start},
    view::RunView,
};
use kube::api::DynamicObject;
use local::Local;
use serde_json::{Value, json};
use std::path::Path;
use tokio::sync::{mpsc, watch};

/// What is to be kept up to date, and published.
#[derive(Debug)]
pub(super) struct Dev {
    local: Local,
    taken: Vec<publish::Taken>,
    /// The step that begins once the box has the source.
    first: String,
}

/// `dev`.
///
/// # Errors
/// Input that cannot be run, or whatever the cluster answered.
pub(super) async fn dev(session: &mut Session, args: &DevArgs) -> Result<Exit, Stop> {
    run::refuse(args.here.given())?;
    let root = directory(args.here.source.as_deref().unwrap_or(Path::new(".")))?;
    let asked = RunArgs { what: args.what.clone(), from: args.from.clone(), ..RunArgs::default() };
    let read = run::read(&asked, &session.program, "dev")?;
    let cluster = session.cluster().await?;
    let Asked { file, mut manifest } = run::assemble(read, &cluster, &asked)?;
    if !manifest.others.is_empty() {
        return Err(Fault::usage(format!("{file} holds more than one PipelineRun; dev follows one")).into());
    }
    let pipeline = pipeline(&cluster, &manifest, &file).await?;
    let first = first_step(&file, &pipeline)?;
    prepare(&file, &mut manifest.run, &first)?;
    let taken = publish::take(&args.here.publish).await?;
    let shown = Shown {
        detach: false,
        timeout: None,
        output: None,
        on_interrupt: OnInterrupt::Cancel,
        exit_code: ExitCodeOf::Windlass,
        show: Show::All,
        tail: 20,
        dev: Some(Dev { local: Local { root, ignore: args.ignore.clone() }, taken, first }),
    };
    start(session, cluster, &manifest, &file, shown).await
}

/// What goes on beside following `run`, from here on.
#[must_use]
pub(super) fn beside(dev: Dev, cluster: &Cluster, run: &DynamicObject) -> Aside {
    let (say, heard) = mpsc::channel(64);
    let (run, states) = watch::channel(RunView::read(run));
    let lets_begin = dev.first.clone();
    let failed = keep::start(dev, cluster, states, say);
    Aside { run, said: heard, failed, lets_begin }
}

fn directory(path: &Path) -> Result<std::path::PathBuf, Stop> {
    let unreadable =
        |why: String| Fault::new(reason::UNREADABLE_FILE, Exit::Usage, format!("--source {}: {why}", path.display()));
    let whole = path.canonicalize().map_err(|error| unreadable(error.to_string()))?;
    if !whole.is_dir() {
        return Err(unreadable("is not a directory".into()).into());
    }
    Ok(whole)
}

/// What the run runs: as its file says, or as the cluster has it.
async fn pipeline(cluster: &Cluster, manifest: &Manifest, file: &str) -> Result<Value, Stop> {
    if let Some(spec) = manifest.run.pointer("/spec/pipelineSpec") {
        return Ok(spec.clone());
    }
    let Some(name) = manifest.run.pointer("/spec/pipelineRef/name").and_then(Value::as_str) else {
        let fault = Fault::usage(format!("{file}: the PipelineRun has neither pipelineSpec nor pipelineRef"));
        return Err(fault.into());
    };
    let is_it = |object: &&Value| {
        object.get("kind").and_then(Value::as_str) == Some("Pipeline") && manifest::name_of(object) == name
    };
    if let Some(object) = manifest.objects.iter().find(is_it) {
        return Ok(object.get("spec").cloned().unwrap_or_default());
    }
    let namespace = manifest.run.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or(&cluster.namespace);
    let ask = Ask { verb: "get", resource: "pipelines", name: Some(name), sent: None };
    let object = cluster.ask(ask, cluster.pipelines(namespace).get(name)).await?;
    Ok(object.data.get("spec").cloned().unwrap_or_default())
}

fn first_step(file: &str, pipeline: &Value) -> Result<String, Stop> {
    let first = pipeline.pointer("/steps/0/name").and_then(Value::as_str);
    first.map(str::to_owned).ok_or_else(|| Fault::usage(format!("{file}: the pipeline has no step")).into())
}

/// The source comes from here: the run fetches none, and waits for it before its first step.
fn prepare(file: &str, run: &mut Value, first: &str) -> Result<(), Stop> {
    let Some(spec) = run.get_mut("spec").and_then(Value::as_object_mut) else {
        return Err(Fault::usage(format!("{file}: the PipelineRun has no spec")).into());
    };
    spec.insert("source".into(), json!({"none": {}}));
    spec.remove("revision");
    manifest::break_at(file, run, &[super::args::BreakAt::Before(first.to_owned())])
}

#[cfg(test)]
mod tests;
