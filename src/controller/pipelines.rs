//! Judges Pipelines as such: `Accepted` says whether one can be run, before anybody runs it.
//!
//! **Invariant:** writes the status of Pipelines only, and only when it differs.

use super::{RECONCILE_MAX, resolve};
use crate::api::{self, Pipeline, condition::kind, manager, run::Param};
use futures::{StreamExt, future::ready};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
    runtime::{
        Controller,
        controller::{Action, Config},
        watcher,
    },
};
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// Pipelines judged at one time.
const CONCURRENCY: u16 = 4;
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

struct Context {
    client: Client,
    now: fn() -> Timestamp,
}

/// The world's fault; tried again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("failed to judge the Pipeline")]
    Api(#[from] kube::Error),
    #[error("failed to judge the Pipeline within {}s", RECONCILE_MAX.as_secs())]
    TooSlow(#[from] tokio::time::error::Elapsed),
}

/// Watches Pipelines until told to stop.
pub async fn run(client: Client, now: fn() -> Timestamp, mut stopped: tokio::sync::watch::Receiver<bool>) {
    let api: Api<DeserializeGuard<Pipeline>> = Api::all(client.clone());
    let stop = async move {
        let _closed = stopped.wait_for(|stop| *stop).await;
    };
    Controller::new(api, watcher::Config::default())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(stop)
        .run(reconcile, on_error, Arc::new(Context { client, now }))
        .for_each(|_| ready(()))
        .await;
}

async fn reconcile(object: Arc<DeserializeGuard<Pipeline>>, ctx: Arc<Context>) -> Result<Action, Error> {
    tokio::time::timeout(RECONCILE_MAX, judge(&object, &ctx)).await??;
    Ok(Action::await_change())
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn on_error(object: Arc<DeserializeGuard<Pipeline>>, error: &Error, _: Arc<Context>) -> Action {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(pipeline.name = object.name_any(), %error, cause, "Pipeline not judged");
    Action::requeue(RETRY)
}

async fn judge(object: &DeserializeGuard<Pipeline>, ctx: &Context) -> kube::Result<()> {
    let namespace = object.namespace().unwrap_or_default();
    let found: Api<DeserializeGuard<Pipeline>> = Api::namespaced(ctx.client.clone(), &namespace);
    let Some(DeserializeGuard(Ok(pipeline))) = found.get_opt(&object.name_any()).await? else { return Ok(()) };
    let conditions = conditions(&pipeline, (ctx.now)());
    let old = pipeline.status.as_ref();
    if old.is_some_and(|s| s.conditions == conditions && s.observed_generation == pipeline.metadata.generation) {
        return Ok(());
    }
    let api: Api<Pipeline> = Api::namespaced(ctx.client.clone(), &namespace);
    let body = json!({
        "apiVersion": format!("{}/{}", api::GROUP, api::VERSION),
        "kind": "Pipeline",
        "metadata": {"name": pipeline.name_any(), "uid": pipeline.uid()},
        "status": {"observedGeneration": pipeline.metadata.generation, "conditions": conditions},
    });
    api.patch_status(&pipeline.name_any(), &PatchParams::apply(manager::CONTROLLER).force(), &Patch::Apply(&body))
        .await
        .map(|_| ())
}

/// `Accepted` and `Ready`. Parameters without a default stand for themselves, as no run gives them here.
fn conditions(pipeline: &Pipeline, now: Timestamp) -> Vec<Condition> {
    let mut spec = pipeline.spec.clone();
    let mut run = api::PipelineRunSpec::default();
    for param in &mut spec.params {
        let value = param.default.clone().or_else(|| param.enum_.as_ref()?.first().cloned());
        run.params.push(Param { name: param.name.clone(), value: value.unwrap_or_else(|| "$PARAM".into()) });
    }
    let (status, reason, message) = match resolve::resolve(&run, &spec) {
        Ok(_) => ("True", kind::ACCEPTED, format!("{} steps", pipeline.spec.steps.len())),
        Err(refusal) => ("False", refusal.reason, refusal.message),
    };
    let old = pipeline.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let of = |type_: &str| {
        let same = old.iter().find(|c| c.type_ == type_ && c.status == status);
        Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message: message.clone(),
            observed_generation: pipeline.metadata.generation,
            last_transition_time: same.map_or(Time(now), |c| c.last_transition_time.clone()),
        }
    };
    vec![of(kind::ACCEPTED), of(kind::READY)]
}
