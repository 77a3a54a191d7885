//! Judges Pipelines as such: `Accepted` says whether one can be run, before anybody runs it; and shows the
//! newest run of each.
//!
//! **Invariant:** writes the status of Pipelines only, and only when it differs.

use super::{RECONCILE_MAX, head::Head};
use crate::api::{
    self, Pipeline, PipelineRun,
    condition::kind,
    manager,
    pipeline::{LastRun, PipelineStatus},
};
use crate::steps;
use futures::{StreamExt, future::ready};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    core::DeserializeGuard,
    runtime::{
        Controller,
        controller::{Action, Config},
        reflector::ObjectRef,
        watcher,
    },
};
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// Pipelines judged at one time.
const CONCURRENCY: u16 = 4;
/// Changes of runs within this time are looked at together.
const DEBOUNCE: Duration = Duration::from_secs(1);
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
    let runs: Api<Head> = Api::all(client.clone());
    let of_run = |run: Head| Some(ObjectRef::new(run.pipeline()?).within(&run.namespace()?));
    Controller::new(api, watcher::Config::default())
        .watches(runs, watcher::Config::default(), of_run)
        .with_config(Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
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
    let runs: Api<DeserializeGuard<PipelineRun>> = Api::namespaced(ctx.client.clone(), &namespace);
    let own = ListParams::default().fields(&format!("spec.pipelineRef.name={}", pipeline.name_any()));
    let runs = runs.list(&own).await?.items.into_iter().filter_map(|guard| guard.0.ok());
    let old = pipeline.status.clone().unwrap_or_default();
    let (last_build_number, last_run) = newest(&old, runs);
    let status = PipelineStatus {
        observed_generation: pipeline.metadata.generation,
        conditions: conditions(&pipeline, (ctx.now)()),
        last_build_number,
        last_run,
    };
    if status == old {
        return Ok(());
    }
    let api: Api<Pipeline> = Api::namespaced(ctx.client.clone(), &namespace);
    let body = json!({
        "apiVersion": format!("{}/{}", api::GROUP, api::VERSION),
        "kind": "Pipeline",
        "metadata": {"name": pipeline.name_any(), "uid": pipeline.uid()},
        "status": status,
    });
    api.patch_status(&pipeline.name_any(), &PatchParams::apply(manager::CONTROLLER).force(), &Patch::Apply(&body))
        .await
        .map(|_| ())
}

/// The highest build number and its run. Runs that were deleted meanwhile still count.
fn newest(old: &PipelineStatus, runs: impl Iterator<Item = PipelineRun>) -> (Option<i64>, Option<LastRun>) {
    let number_of = |run: &PipelineRun| run.status.as_ref().and_then(|s| s.build_number);
    let newest = runs.filter(|run| number_of(run).is_some()).max_by_key(number_of);
    let Some(run) = newest.filter(|run| number_of(run) >= old.last_build_number) else {
        return (old.last_build_number, old.last_run.clone());
    };
    let status = run.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_else(|| "Pending".into());
    (status.build_number, Some(LastRun { name: run.name_any(), phase, completion_time: status.completion_time }))
}

/// `Accepted` and `Ready`. Parameters without a default stand for themselves, as no run gives them here.
fn conditions(pipeline: &Pipeline, now: Timestamp) -> Vec<Condition> {
    let judged = steps::params::with_stand_ins(&pipeline.spec).and_then(|spec| steps::pipeline::check(&spec));
    let (status, reason, message) = match judged {
        Ok(()) => ("True", kind::ACCEPTED, format!("{} steps", pipeline.spec.steps.len())),
        Err(error) => ("False", error.reason, error.message),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, number: Option<i64>, phase: &str) -> PipelineRun {
        let mut run = PipelineRun::default();
        run.metadata.name = Some(name.into());
        let status = run.status.get_or_insert_default();
        status.build_number = number;
        status.phase = Some(phase.into());
        run
    }

    fn shown(old: Option<(i64, &str)>, runs: &[(&str, Option<i64>, &str)]) -> Option<(i64, String, String)> {
        let last_run =
            old.map(|(_, name)| LastRun { name: name.into(), phase: "Failed".into(), completion_time: None });
        let old = PipelineStatus { last_build_number: old.map(|o| o.0), last_run, ..PipelineStatus::default() };
        let (number, last) = newest(&old, runs.iter().map(|(name, number, phase)| run(name, *number, phase)));
        last.map(|last| (number.unwrap(), last.name, last.phase))
    }

    #[test]
    fn the_newest_run_is_shown_and_a_deleted_one_is_not_forgotten() {
        let is = |number, name: &str, phase: &str| Some((number, name.to_owned(), phase.to_owned()));
        assert_eq!(shown(None, &[]), None);
        assert_eq!(shown(None, &[("waits", None, "Pending")]), None);
        assert_eq!(shown(None, &[("b", Some(2), "Running"), ("a", Some(1), "Failed")]), is(2, "b", "Running"));
        assert_eq!(shown(Some((2, "b")), &[("b", Some(2), "Succeeded")]), is(2, "b", "Succeeded"));
        assert_eq!(shown(Some((3, "gone")), &[("b", Some(2), "Succeeded")]), is(3, "gone", "Failed"));
    }
}
