//! `retry`: starts a run again from its frozen pipeline; one that was never resolved, from its spec.
//! With `--step` it repeats one step of a run that waits.
//!
//! **Invariant:** the new run runs what the old one ran, even if the Pipeline has changed or is gone.

use super::{
    Session,
    args::{AskArgs, ExitCodeOf, RetryArgs, Show},
    ask,
    exit::Exit,
    fault::Stop,
    manifest::{self, Manifest},
    start::{Shown, not_both, start},
};
use crate::api::meta;
use kube::api::DynamicObject;
use serde_json::{Map, Value, json};

/// `retry`.
///
/// # Errors
/// Whatever the cluster answered.
pub(super) async fn retry(session: &mut Session, args: &RetryArgs) -> Result<Exit, Stop> {
    if let Some(step) = &args.step {
        let args = AskArgs { run: args.run.clone(), step: Some(step.clone()) };
        return ask::ask(session, "retry", &args).await;
    }
    not_both(session, args.output)?;
    let cluster = session.cluster().await?;
    let old = cluster.find_run(Some(&args.run)).await?;
    let mut run = again(&old);
    manifest::break_at(&args.run, &mut run, &args.breakpoint)?;
    let manifest = Manifest::of(run);
    let shown = Shown {
        detach: args.detach,
        timeout: args.timeout,
        output: args.output,
        on_interrupt: args.on_interrupt,
        exit_code: ExitCodeOf::Windlass,
        show: Show::All,
        tail: 20,
        dev: None,
    };
    start(session, cluster, &manifest, "", shown).await
}

/// A new run of what an old one ran.
fn again(old: &DynamicObject) -> Value {
    let name = old.metadata.name.clone().unwrap_or_default();
    let spec = resolved(old).unwrap_or_else(|| unresolved(old));
    let pipeline = old.data.pointer("/spec/pipelineRef/name").and_then(Value::as_str);
    let label = old.metadata.labels.as_ref().and_then(|l| l.get(meta::PIPELINE)).map(String::as_str);
    let labels = pipeline.or(label).map_or_else(|| json!({}), |p| json!({meta::PIPELINE: p}));
    let base = match &old.metadata.generate_name {
        Some(generate) => generate.trim_end_matches('-').to_owned(),
        None => name,
    };
    let base = base.strip_suffix("-retry").unwrap_or(&base);
    json!({
        "apiVersion": "windlass.dev/v1alpha1",
        "kind": "PipelineRun",
        "metadata": {
            "generateName": manifest::generate_name(&format!("{}-retry", base.chars().take(46).collect::<String>())),
            "namespace": old.metadata.namespace,
            "labels": labels,
        },
        "spec": spec,
    })
}

/// What a new run does not take from the spec of the old one: the pipeline and the parameters come from its status,
/// and a cancel was for that run only.
const NOT_TAKEN: [&str; 4] = ["pipelineRef", "pipelineSpec", "params", "cancel"];

/// The frozen pipeline, in which parameters are already replaced, with the old run's other settings.
fn resolved(old: &DynamicObject) -> Option<Value> {
    let frozen = old.data.pointer("/status/pipelineSpec")?;
    let mut spec: Map<String, Value> = old.data.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
    spec.retain(|key, _| !NOT_TAKEN.contains(&key.as_str()));
    spec.insert("pipelineSpec".into(), frozen.clone());
    // Parameters were replaced when the run was resolved; their values satisfy those without a default.
    if frozen.get("params").is_some_and(|p| p.as_array().is_some_and(|p| !p.is_empty()))
        && let Some(params) = old.data.pointer("/status/params")
    {
        spec.insert("params".into(), params.clone());
    }
    Some(Value::Object(spec))
}

/// All that was asked for, but for the cancel.
fn unresolved(old: &DynamicObject) -> Value {
    let mut spec = old.data.get("spec").cloned().unwrap_or_default();
    if let Some(members) = spec.as_object_mut() {
        members.remove("cancel");
    }
    spec
}

#[cfg(test)]
mod tests;
