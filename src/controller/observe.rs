//! Reads the world for `plan`: the run, its Pipeline, its pod and its agent's lease, each afresh, so that
//! a stale cache can never move a run backwards.
//!
//! **Invariant:** reads only.

use super::{Context, plan::Observed};
use crate::api::{Pipeline, PipelineRun, run::pod_name};
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Pod},
    jiff::Timestamp,
};
use kube::{Api, ResourceExt, core::DeserializeGuard};

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
    /// It cannot be read by this version: what is wrong.
    Invalid(String),
    /// It is gone.
    Gone,
}

/// Reads the world of one run.
///
/// # Errors
/// The read that failed.
pub async fn observe(ctx: &Context, namespace: &str, name: &str, refused: Option<String>) -> Result<Found, Error> {
    let runs: Api<DeserializeGuard<PipelineRun>> = Api::namespaced(ctx.client.clone(), namespace);
    let run = match runs.get_opt(name).await.map_err(failed("the run"))? {
        None => return Ok(Found::Gone),
        Some(DeserializeGuard(Err(invalid))) => return Ok(Found::Invalid(invalid.error)),
        Some(DeserializeGuard(Ok(run))) => run,
    };
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
        Some(node) if status.completion_time.is_none() => agent_seen(ctx, node).await?,
        _ => None,
    };
    Ok(Found::Run(Box::new(Observed {
        now: (ctx.now)(),
        written: ctx.written(run.uid().as_deref().unwrap_or_default()),
        run,
        pipeline,
        pod,
        refused,
        agent_seen,
        settings: ctx.settings.clone(),
    })))
}

/// A Pipeline that this version cannot read counts as missing; its own conditions say why.
async fn pipeline(ctx: &Context, namespace: &str, name: &str) -> Result<Option<Pipeline>, Error> {
    let pipelines: Api<DeserializeGuard<Pipeline>> = Api::namespaced(ctx.client.clone(), namespace);
    let found = pipelines.get_opt(name).await.map_err(failed("the Pipeline"))?;
    Ok(found.and_then(|guard| guard.0.ok()))
}

/// When the agent of a node renewed its lease.
async fn agent_seen(ctx: &Context, node: &str) -> Result<Option<Timestamp>, Error> {
    let leases: Api<Lease> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let lease = leases.get_opt(&format!("windlass-agent-{node}")).await.map_err(failed("the agent's lease"))?;
    Ok(lease.and_then(|l| l.spec?.renew_time).map(|t| t.0))
}
