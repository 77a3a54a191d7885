//! Judges Pipelines as such: `Accepted` says whether one can be run, before anybody runs it.
//!
//! **Invariant:** writes the status of Pipelines only, and only when it differs.

use super::resolve;
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
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

/// Watches Pipelines until told to stop.
pub async fn run(client: Client, now: fn() -> Timestamp, mut stopped: tokio::sync::watch::Receiver<bool>) {
    let api: Api<DeserializeGuard<Pipeline>> = Api::all(client.clone());
    let changes = watcher(api, watcher::Config::default()).default_backoff().applied_objects();
    let work = changes.filter_map(|object| ready(object.ok().and_then(|guard| guard.0.ok()))).for_each(|pipeline| {
        let client = client.clone();
        async move {
            if let Err(error) = judge(&client, &pipeline, now()).await {
                tracing::warn!(pipeline.name = pipeline.name_any(), %error, "Pipeline not judged");
            }
        }
    });
    tokio::select! {
        () = work => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

async fn judge(client: &Client, pipeline: &Pipeline, now: Timestamp) -> kube::Result<()> {
    let conditions = conditions(pipeline, now);
    let old = pipeline.status.as_ref();
    if old.is_some_and(|s| s.conditions == conditions && s.observed_generation == pipeline.metadata.generation) {
        return Ok(());
    }
    let api: Api<Pipeline> = Api::namespaced(client.clone(), &pipeline.namespace().unwrap_or_default());
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
