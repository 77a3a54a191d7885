//! Carries a plan out: changes, then the status, then the events.
//!
//! **Invariant:** no decisions. Every change is safe to repeat: a pod that is there already, or gone
//! already, is as good; all writes name the object's UID, so that a successor of the same name is not hit.

use super::{
    Context, build_number,
    plan::{Change, Emit, NoPod, Plan},
    status::ControllerStatus,
};
use crate::api::{PipelineRun, manager, meta, status::apply_body};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::Request,
    runtime::events::{Event, EventType},
};
use serde_json::{Value, json};

/// A write that did not succeed: the world's fault, tried again with backoff.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A write to the API server.
    #[error("failed to {what}")]
    Write {
        /// What was to be done.
        what: &'static str,
        /// Why it was not.
        #[source]
        source: kube::Error,
    },
    /// The build number.
    #[error(transparent)]
    BuildNumber(#[from] build_number::Error),
}

fn failed(what: &'static str) -> impl FnOnce(kube::Error) -> Error {
    move |source| Error::Write { what, source }
}

/// What the next plan must know of this one.
#[derive(Debug, Default)]
pub struct Applied {
    /// The API server made no pod.
    pub refused: Option<NoPod>,
}

/// Carries a plan out.
///
/// # Errors
/// The first write that failed; the rest was not tried.
pub async fn apply(ctx: &Context, run: &PipelineRun, plan: Plan) -> Result<Applied, Error> {
    let Plan { changes, status, events, wake: _ } = plan;
    let mut applied = Applied::default();
    for change in changes {
        if let Some(words) = apply_change(ctx, run, change).await? {
            applied.refused = Some(words);
        }
    }
    if let Some(status) = status {
        apply_status(ctx, run, &status).await?;
    }
    for event in events {
        emit(ctx, run, event).await;
    }
    Ok(applied)
}

async fn apply_change(ctx: &Context, run: &PipelineRun, change: Change) -> Result<Option<NoPod>, Error> {
    let namespace = run.namespace().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), &namespace);
    let runs: Api<PipelineRun> = Api::namespaced(ctx.client.clone(), &namespace);
    match change {
        Change::AddFinalizer => {
            let finalizers: Vec<_> = run.finalizers().iter().cloned().chain([meta::FINALIZER.to_owned()]).collect();
            finalizers_write(&runs, run, finalizers).await.map_err(failed("add the finalizer"))?;
        }
        Change::RemoveFinalizer => {
            let finalizers: Vec<_> = run.finalizers().iter().filter(|f| *f != meta::FINALIZER).cloned().collect();
            absent_is_fine(finalizers_write(&runs, run, finalizers).await).map_err(failed("remove the finalizer"))?;
        }
        Change::Freeze { counter, spec, params } => {
            let number = build_number::next(&ctx.client, &ctx.namespace, &namespace, counter.as_deref()).await?;
            let status = json!({"pipelineSpec": spec, "params": params, "buildNumber": number});
            status_write(&ctx.client, run, manager::RESOLVER, status).await.map_err(failed("freeze the pipeline"))?;
        }
        Change::CreatePod(pod) => {
            return created(pods.create(&PostParams::default(), &pod).await).map_err(failed("create the pod"));
        }
        Change::DeletePod { name, uid, grace_s } => {
            let params = DeleteParams {
                grace_period_seconds: Some(grace_s),
                preconditions: Some(Preconditions { uid: Some(uid), resource_version: None }),
                ..DeleteParams::default()
            };
            absent_is_fine(pods.delete(&name, &params).await.map(|_| ())).map_err(failed("delete the pod"))?;
        }
        Change::StopPod { name, uid, time_s } => {
            let body = json!({"metadata": {"uid": uid}, "spec": {"activeDeadlineSeconds": time_s}});
            let stopped = pods.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(&body)).await;
            absent_is_fine(stopped.map(|_| ())).map_err(failed("stop the pod"))?;
        }
        Change::ClearAgentStatus => {
            status_write(&ctx.client, run, manager::AGENT, json!({}))
                .await
                .map_err(failed("clear the agent's status"))?;
        }
        Change::DeleteRun => {
            let params = DeleteParams {
                preconditions: Some(Preconditions { uid: run.uid(), resource_version: None }),
                ..DeleteParams::background()
            };
            absent_is_fine(runs.delete(&run.name_any(), &params).await.map(|_| ()))
                .map_err(failed("delete the run"))?;
        }
    }
    Ok(None)
}

async fn apply_status(ctx: &Context, run: &PipelineRun, status: &ControllerStatus) -> Result<(), Error> {
    // Steps are the agent's: what it says meanwhile must not be overwritten with what was read before.
    let version = run.resource_version().filter(|_| !status.steps.is_empty());
    let status = serde_json::to_value(status).unwrap_or_default();
    let written = status_apply(&ctx.client, run, manager::CONTROLLER, status, version.as_deref()).await;
    written.map_err(failed("write the status"))?;
    ctx.note_written(&run.uid().unwrap_or_default(), (ctx.now)());
    Ok(())
}

/// Server-side apply of the status fields that one manager owns.
pub async fn status_write(client: &Client, run: &PipelineRun, manager: &str, status: Value) -> kube::Result<()> {
    status_apply(client, run, manager, status, None).await
}

/// The same, for this version of the object only, if one is given. The answer, which is the whole run, is not read.
async fn status_apply(
    client: &Client,
    run: &PipelineRun,
    manager: &str,
    status: Value,
    version: Option<&str>,
) -> kube::Result<()> {
    let body = apply_body(&run.metadata, version, &status);
    let request = Request::new(PipelineRun::url_path(&(), run.namespace().as_deref()))
        .patch_subresource("status", &run.name_any(), &PatchParams::apply(manager).force(), &Patch::Apply(&body))
        .map_err(kube::Error::BuildRequest)?;
    client.request_text(request).await.map(|_| ())
}

/// Finalizers have other owners too: the version of the object guards the list.
async fn finalizers_write(runs: &Api<PipelineRun>, run: &PipelineRun, finalizers: Vec<String>) -> kube::Result<()> {
    let body =
        json!({"metadata": {"finalizers": finalizers, "resourceVersion": run.resource_version(), "uid": run.uid()}});
    runs.patch_metadata(&run.name_any(), &PatchParams::default(), &Patch::Merge(&body)).await.map(|_| ())
}

/// Gone already, or another of the same name: done.
fn absent_is_fine(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        other => other,
    }
}

/// There already: done. Else the API server's own words, and whether they are a rule's or tell of a fault.
fn created(result: kube::Result<Pod>) -> kube::Result<Option<NoPod>> {
    match result {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
        Err(kube::Error::Api(status)) if status.is_forbidden() || status.is_invalid() || status.code == 400 => {
            Ok(Some(NoPod::Forbidden(status.message.clone())))
        }
        Err(kube::Error::Api(status)) => Ok(Some(NoPod::Failed(status.message.clone()))),
        Err(other) => Err(other),
    }
}

/// An event that cannot be written is only logged: nothing depends on it.
async fn emit(ctx: &Context, run: &PipelineRun, event: Emit) {
    let Emit { warning, reason, note } = event;
    let event = Event {
        type_: if warning { EventType::Warning } else { EventType::Normal },
        action: reason.clone(),
        reason,
        note: Some(super::status::cut(&note, 1000)),
        secondary: None,
    };
    if let Err(error) = ctx.recorder.publish(&event, &run.object_ref(&())).await {
        tracing::warn!(run.name = run.name_any(), %error, "event not written");
    }
}
