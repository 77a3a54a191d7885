//! Reads the world for `plan`: the run, its Pipeline, its pod and its agent's lease, each afresh, so that
//! a stale cache can never move a run backwards.
//!
//! **Invariant:** reads only.

use super::{
    Context, judge,
    plan::{NoPod, Observed},
};
use crate::api::{Pipeline, PipelineRun, run::pod_name, status::PipelineRunStatus};
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Pod},
    jiff::Timestamp,
};
use kube::{
    Api, Resource, ResourceExt,
    api::GetParams,
    core::{DeserializeGuard, Request},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// A read that did not succeed: the world's fault, tried again with backoff.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {what}")]
pub struct Error {
    what: &'static str,
    #[source]
    source: kube::Error,
}

fn failed(what: &'static str) -> impl FnOnce(kube::Error) -> Error {
    move |source| Error { what, source }
}

/// A run as the API server holds it.
pub enum Found {
    /// As this version understands it, with all that belongs to it.
    Run(Box<Observed>),
    /// It is gone.
    Gone,
}

/// Reads the world of one run.
///
/// # Errors
/// The read that failed.
pub async fn observe(ctx: &Context, namespace: &str, name: &str, refused: Option<NoPod>) -> Result<Found, Error> {
    let Some(text) = run_text(ctx, namespace, name).await.map_err(failed("the run"))? else { return Ok(Found::Gone) };
    let (run, unreadable) = read(&text);
    let status = run.status.clone().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), namespace);
    let pod = pods.get_opt(&pod_name(name, status.attempt.unwrap_or(1))).await.map_err(failed("the pod"))?;
    let pipeline = match &run.spec.pipeline_ref {
        Some(wanted) if status.pipeline_spec.is_none() => pipeline(ctx, namespace, &wanted.name).await?,
        _ => None,
    };
    // The pod knows its node before the status does.
    let node = pod.as_ref().and_then(|p| p.spec.as_ref()?.node_name.clone()).or(status.node_name);
    let agent_seen = match &node {
        Some(node) if status.completion_time.is_none() && judge::asks_for_agent(&run, pod.as_ref()) => {
            agent_seen(ctx, node).await?
        }
        _ => None,
    };
    Ok(Found::Run(Box::new(Observed {
        now: (ctx.now)(),
        written: ctx.written(run.uid().as_deref().unwrap_or_default()),
        run,
        unreadable,
        pipeline,
        pod,
        refused,
        agent_seen,
        settings: ctx.settings.clone(),
    })))
}

/// A run as the API server wrote it, so that one that cannot be read is known as far as it can be.
async fn run_text(ctx: &Context, namespace: &str, name: &str) -> Result<Option<String>, kube::Error> {
    let request = Request::new(PipelineRun::url_path(&(), Some(namespace)))
        .get(name, &GetParams::default())
        .map_err(kube::Error::BuildRequest)?;
    match ctx.client.request_text(request).await {
        Ok(text) => Ok(Some(text)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The run; and if this version cannot read it, why: then the run is what can be read of it.
fn read(text: &str) -> (PipelineRun, Option<String>) {
    let why = match serde_json::from_str(text) {
        Ok(run) => return (run, None),
        // The place is one in JSON that nobody has seen.
        Err(error) => error.to_string().split(" at line ").next().unwrap_or_default().to_owned(),
    };
    let mut object: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
    let metadata = object.remove("metadata").and_then(|m| serde_json::from_value(m).ok()).unwrap_or_default();
    let status = fields::<PipelineRunStatus>(object.remove("status"));
    (PipelineRun { metadata, status, ..PipelineRun::default() }, Some(why))
}

/// The fields that can be read, each by itself.
fn fields<T: DeserializeOwned>(object: Option<Value>) -> Option<T> {
    let Some(Value::Object(members)) = object else { return None };
    let readable = |(name, value): &(String, Value)| {
        let alone = Map::from_iter([(name.clone(), value.clone())]);
        serde_json::from_value::<T>(Value::Object(alone)).is_ok()
    };
    serde_json::from_value(Value::Object(members.into_iter().filter(readable).collect())).ok()
}

/// A Pipeline that this version cannot read counts as missing; its own conditions say why.
async fn pipeline(ctx: &Context, namespace: &str, name: &str) -> Result<Option<Pipeline>, Error> {
    let pipelines: Api<DeserializeGuard<Pipeline>> = Api::namespaced(ctx.client.clone(), namespace);
    let found = pipelines.get_opt(name).await.map_err(failed("the Pipeline"))?;
    Ok(found.and_then(|guard| guard.0.ok()))
}

/// When the agent of a node was seen to renew its lease.
async fn agent_seen(ctx: &Context, node: &str) -> Result<Option<Timestamp>, Error> {
    let leases: Api<Lease> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let lease = leases.get_opt(&format!("windlass-agent-{node}")).await.map_err(failed("the agent's lease"))?;
    Ok(ctx.agent_seen(node, lease.and_then(|l| l.spec?.renew_time).map(|t| t.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_run_that_cannot_be_read_all_that_can_be_is_known() {
        let text = r#"{"apiVersion": "windlass.dev/v1alpha1", "kind": "PipelineRun",
            "metadata": {"name": "r", "uid": "u", "finalizers": ["windlass.dev/cleanup"], "deletionTimestamp": "2026-11-21T12:00:00Z"},
            "spec": {"pipelineSpec": {"box": {"image": "a"}, "steps": "one"}},
            "status": {"podName": "r-1", "podUID": "p", "attempt": 1, "steps": {"of": "another version"}}}"#;
        let (run, why) = read(text);
        assert!(why.is_some_and(|why| why.contains("invalid type") && !why.contains("column")));
        assert_eq!(run.spec, PipelineRun::default().spec);
        assert!(run.metadata.deletion_timestamp.is_some() && run.finalizers().len() == 1);
        let status = run.status.unwrap();
        assert_eq!(
            (status.pod_name.as_deref(), status.pod_uid.as_deref(), status.attempt),
            (Some("r-1"), Some("p"), Some(1))
        );
        assert!(status.steps.is_empty());
        let (run, why) = read(&text.replace("\"one\"", "[]").replace(r#"{"of": "another version"}"#, "[]"));
        assert_eq!((why, run.name_any().as_str()), (None, "r"));
    }
}
