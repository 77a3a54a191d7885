//! Judges Pipelines as such: `Accepted` says whether one can be run, before anybody runs it; and shows the
//! newest run of each.
//!
//! **Invariant:** writes the status of Pipelines only, and only when it differs. What a change of a run costs does
//! not grow with the number of runs: the watch tells the newest.

use super::{PAGE, RECONCILE_MAX, head::Head, watched};
use crate::api::{
    self, Pipeline,
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
    },
};
use serde_json::json;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Pipelines judged at one time.
const CONCURRENCY: u16 = 4;
/// Changes of runs within this time are looked at together.
const DEBOUNCE: Duration = Duration::from_secs(1);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

struct Context {
    client: Client,
    now: fn() -> Timestamp,
    news: News,
}

/// A Pipeline that may be of another version.
type Guarded = DeserializeGuard<Pipeline>;
/// A run and its build number.
type Numbered = (i64, LastRun);

/// The newest run of each Pipeline, as the watch of runs told it, until the Pipeline shows it.
#[derive(Default)]
struct News(Mutex<HashMap<ObjectRef<Guarded>, Numbered>>);

impl News {
    /// Notes a run that was made, changed or deleted; says whose news it is.
    fn note(&self, run: &Head) -> Option<ObjectRef<Guarded>> {
        let pipeline = ObjectRef::new(run.pipeline()?).within(&run.namespace()?);
        if let Some(found) = run.shown() {
            let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let known = newest.get(&pipeline).map(|known| known.0);
            if Some(found.0) >= known {
                newest.insert(pipeline.clone(), found);
            }
        }
        Some(pipeline)
    }

    fn of(&self, pipeline: &ObjectRef<Guarded>) -> Option<Numbered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(pipeline).cloned()
    }

    /// The Pipeline shows this; what came meanwhile stays.
    fn shown(&self, pipeline: &ObjectRef<Guarded>, news: Option<&Numbered>) {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.get(pipeline) == news {
            newest.remove(pipeline);
        }
    }
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
    let api: Api<Guarded> = Api::all(client.clone());
    let stop = async move {
        let _closed = stopped.wait_for(|stop| *stop).await;
    };
    let runs: Api<Head> = Api::all(client.clone());
    let ctx = Arc::new(Context { client, now, news: News::default() });
    let noted = Arc::clone(&ctx);
    Controller::new(api, watched())
        .watches(runs, watched(), move |run: Head| noted.news.note(&run))
        .with_config(Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .graceful_shutdown_on(stop)
        .run(reconcile, on_error, ctx)
        .for_each(|_| ready(()))
        .await;
}

async fn reconcile(object: Arc<Guarded>, ctx: Arc<Context>) -> Result<Action, Error> {
    tokio::time::timeout(RECONCILE_MAX, judge(&object, &ctx)).await??;
    Ok(Action::await_change())
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn on_error(object: Arc<Guarded>, error: &Error, _: Arc<Context>) -> Action {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(pipeline.name = object.name_any(), %error, cause, "Pipeline not judged");
    Action::requeue(RETRY)
}

async fn judge(object: &Guarded, ctx: &Context) -> kube::Result<()> {
    let namespace = object.namespace().unwrap_or_default();
    let found: Api<Guarded> = Api::namespaced(ctx.client.clone(), &namespace);
    let Some(DeserializeGuard(Ok(pipeline))) = found.get_opt(&object.name_any()).await? else { return Ok(()) };
    let reference = ObjectRef::from_obj(object);
    let old = pipeline.status.clone().unwrap_or_default();
    let news = match ctx.news.of(&reference) {
        None if pipeline.status.is_none() => newest(ctx, &namespace, &pipeline.name_any()).await?,
        news => news,
    };
    let (last_build_number, last_run) = last(&old, news.as_ref());
    let status = PipelineStatus {
        observed_generation: pipeline.metadata.generation,
        conditions: conditions(&pipeline, (ctx.now)()),
        last_build_number,
        last_run,
    };
    if status == old {
        ctx.news.shown(&reference, news.as_ref());
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
        .await?;
    ctx.news.shown(&reference, news.as_ref());
    Ok(())
}

/// The newest run of a Pipeline that was never judged: one that was deleted and made again has runs already.
async fn newest(ctx: &Context, namespace: &str, name: &str) -> kube::Result<Option<Numbered>> {
    let runs: Api<Head> = Api::namespaced(ctx.client.clone(), namespace);
    let mut page = ListParams::default().fields(&format!("spec.pipelineRef.name={name}")).limit(PAGE);
    let mut newest = None;
    loop {
        let list = runs.list(&page).await?;
        newest = list.items.iter().filter_map(Head::shown).chain(newest).max_by_key(|(number, _)| *number);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(newest),
        }
    }
}

/// The highest build number and its run. Runs that were deleted meanwhile still count.
fn last(old: &PipelineStatus, news: Option<&Numbered>) -> (Option<i64>, Option<LastRun>) {
    match news {
        Some((number, run)) if Some(*number) >= old.last_build_number => (Some(*number), Some(run.clone())),
        _ => (old.last_build_number, old.last_run.clone()),
    }
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
    use kube::Resource;

    fn run(name: &str, number: Option<i64>, phase: &str) -> Head {
        let run = json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"pipelineRef": {"name": "p"}},
            "status": {"buildNumber": number, "phase": phase}});
        serde_json::from_value(run).unwrap()
    }

    fn pipeline() -> ObjectRef<Guarded> {
        ObjectRef::new("p").within("n")
    }

    fn shown(old: Option<(i64, &str)>, runs: &[(&str, Option<i64>, &str)]) -> Option<(i64, String, String)> {
        let last_run =
            old.map(|(_, name)| LastRun { name: name.into(), phase: "Failed".into(), completion_time: None });
        let old = PipelineStatus { last_build_number: old.map(|o| o.0), last_run, ..PipelineStatus::default() };
        let news = News::default();
        for (name, number, phase) in runs {
            assert_eq!(news.note(&run(name, *number, phase)), Some(pipeline()));
        }
        let (number, last) = last(&old, news.of(&pipeline()).as_ref());
        last.map(|last| (number.unwrap(), last.name, last.phase))
    }

    #[test]
    fn the_newest_run_is_shown_and_a_deleted_one_is_not_forgotten() {
        let is = |number, name: &str, phase: &str| Some((number, name.to_owned(), phase.to_owned()));
        assert_eq!(shown(None, &[]), None);
        assert_eq!(shown(None, &[("waits", None, "Pending")]), None);
        assert_eq!(shown(None, &[("b", Some(2), "Running"), ("a", Some(1), "Failed")]), is(2, "b", "Running"));
        assert_eq!(shown(None, &[("b", Some(2), "Running"), ("b", Some(2), "Failed")]), is(2, "b", "Failed"));
        assert_eq!(shown(Some((2, "b")), &[("b", Some(2), "Succeeded")]), is(2, "b", "Succeeded"));
        assert_eq!(shown(Some((3, "gone")), &[("b", Some(2), "Succeeded")]), is(3, "gone", "Failed"));
    }

    #[test]
    fn news_that_are_shown_are_forgotten_and_later_ones_are_not() {
        let news = News::default();
        news.note(&run("a", Some(1), "Running"));
        let first = news.of(&pipeline());
        news.note(&run("a", Some(1), "Failed"));
        news.shown(&pipeline(), first.as_ref());
        let second = news.of(&pipeline());
        assert_eq!(second.as_ref().map(|(_, run)| run.phase.as_str()), Some("Failed"));
        news.shown(&pipeline(), second.as_ref());
        assert!(news.0.lock().unwrap().is_empty());
        let mut alone = run("b", Some(1), "Running");
        alone.meta_mut().namespace = None;
        assert_eq!(news.note(&alone), None);
    }
}
