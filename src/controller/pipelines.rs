//! Judges Pipelines as such: `Accepted` says whether one can be run, before anybody runs it. And tells them
//! of their newest run.
//!
//! **Invariant:** writes the status of Pipelines only, and only when it differs.

use super::{RECONCILE_MAX, resolve};
use crate::api::{
    self, Pipeline, PipelineRun,
    condition::kind,
    manager,
    pipeline::{LastRun, PipelineStatus},
    run::Param,
};
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
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// Writers of one Pipeline's status at one time, at most.
const TRIES: usize = 10;

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

/// Tells a run's Pipeline how it is, if no newer run did.
///
/// # Errors
/// The Pipeline could not be read or written.
pub async fn tell(client: &Client, run: &PipelineRun) -> kube::Result<()> {
    let Some(reference) = &run.spec.pipeline_ref else { return Ok(()) };
    let api: Api<DeserializeGuard<Pipeline>> = Api::namespaced(client.clone(), &run.namespace().unwrap_or_default());
    for _ in 0..TRIES {
        let Some(pipeline) = api.get_opt(&reference.name).await?.and_then(|guard| guard.0.ok()) else { return Ok(()) };
        let Some(status) = news(pipeline.status.as_ref(), run) else { return Ok(()) };
        // Another run may be faster: the version guards what was read.
        let metadata = json!({"uid": pipeline.uid(), "resourceVersion": pipeline.resource_version()});
        let body = json!({"metadata": metadata, "status": status});
        let params = PatchParams { field_manager: Some(manager::CONTROLLER.into()), ..PatchParams::default() };
        match api.patch_status(&reference.name, &params, &Patch::Merge(&body)).await {
            Err(kube::Error::Api(status)) if status.is_conflict() => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            other => return other.map(|_| ()),
        }
    }
    // Each of the others was about a run of the same Pipeline.
    Ok(())
}

/// What is new about the newest run; nothing, if this is an older one.
fn news(old: Option<&PipelineStatus>, run: &PipelineRun) -> Option<Value> {
    let status = run.status.as_ref()?;
    let number = status.build_number?;
    let known = old.and_then(|old| old.last_build_number);
    let last =
        LastRun { name: run.name_any(), phase: status.phase.clone()?, completion_time: status.completion_time.clone() };
    let is_newest = known.is_none_or(|known| known <= number);
    let is_new = known != Some(number) || old.and_then(|old| old.last_run.as_ref()) != Some(&last);
    // Written out: a merge takes a field away only by null.
    let LastRun { name, phase, completion_time } = last;
    let last = json!({"name": name, "phase": phase, "completionTime": completion_time});
    (is_newest && is_new).then(|| json!({"lastBuildNumber": number, "lastRun": last}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn run(number: i64, phase: &str) -> PipelineRun {
        serde_json::from_value(json!({
            "apiVersion": "windlass.dev/v1alpha1", "kind": "PipelineRun", "metadata": {"name": "r", "namespace": "n"},
            "spec": {"pipelineRef": {"name": "p"}}, "status": {"buildNumber": number, "phase": phase},
        }))
        .unwrap()
    }

    #[rstest]
    #[case::the_first(json!({}), true)]
    #[case::a_newer(json!({"lastBuildNumber": 6, "lastRun": {"name": "q", "phase": "Failed"}}), true)]
    #[case::another_phase(json!({"lastBuildNumber": 7, "lastRun": {"name": "r", "phase": "Starting"}}), true)]
    #[case::the_same(json!({"lastBuildNumber": 7, "lastRun": {"name": "r", "phase": "Running"}}), false)]
    #[case::an_older(json!({"lastBuildNumber": 8, "lastRun": {"name": "s", "phase": "Starting"}}), false)]
    fn a_pipeline_shows_its_newest_run(#[case] old: Value, #[case] told: bool) {
        let old: PipelineStatus = serde_json::from_value(old).unwrap();
        let last = json!({"name": "r", "phase": "Running", "completionTime": null});
        let expected = told.then(|| json!({"lastBuildNumber": 7, "lastRun": last}));
        assert_eq!(news(Some(&old), &run(7, "Running")), expected);
    }

    #[test]
    fn a_run_without_a_number_is_not_told() {
        assert_eq!(news(None, &PipelineRun::default()), None);
    }
}
