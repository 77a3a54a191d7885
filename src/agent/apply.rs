//! Carries changes out: writes the status, emits events, puts files into `in`.
//!
//! `follow` hands it each [`Change`](super::plan::Change); what needs its own state it does itself.
//!
//! **Invariant:** no decisions. A write is server-side apply as `windlass-agent`, and names the run's UID, so that
//! it can never land on another run of the same name.

use super::{
    plan::RunEvent,
    run::{Run, Seen},
    status::AgentStatus,
};
use crate::api::{PipelineRun, manager, status::apply_body};
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Longest wait for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a last write is tried that others came before.
const LAST_TRIES: u32 = 3;
/// Longest wait for an event to be taken.
const EVENT_TIMEOUT: Duration = Duration::from_secs(15);
/// The name under which events are reported.
const REPORTER: &str = "windlass.dev/agent";

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The run is gone, or another has its name.
    #[error("write the status: the run is gone")]
    Gone,
    /// The API server is away, or does not want it now.
    #[error("write the status")]
    Failed(#[source] Box<kube::Error>),
    /// No answer in time.
    #[error("write the status: no answer within {}s", WRITE_TIMEOUT.as_secs())]
    TimedOut,
}

/// Where statuses and events go.
pub trait StatusSink: Send + Sync {
    /// Writes what the agent says of a run.
    fn write<'a>(&'a self, run: &'a Run, status: &'a AgentStatus) -> BoxFuture<'a, Result<(), WriteError>>;

    /// Writes the last word on a run that is not followed any more. `false`: it is gone, over, or at another attempt,
    /// and nothing was written.
    fn write_last<'a>(&'a self, run: &'a Run, status: &'a AgentStatus) -> BoxFuture<'a, Result<bool, WriteError>>;

    /// Emits an event. It may get lost: the status says the same.
    fn emit(&self, run: &Run, event: &RunEvent);
}

/// The API server.
#[derive(Clone)]
pub struct ApiSink {
    client: Client,
    recorder: Recorder,
}

impl ApiSink {
    /// A sink for the agent of this node.
    #[must_use]
    pub fn new(client: Client, node: &str) -> Self {
        let reporter = Reporter { controller: REPORTER.into(), instance: Some(node.to_owned()) };
        Self { recorder: Recorder::new(client.clone(), reporter), client }
    }
}

impl ApiSink {
    /// Whether a conflict means that another run has the name.
    async fn is_other(&self, error: &kube::Error, api: &Api<PipelineRun>, run: &Run) -> bool {
        if !is_conflict(error) {
            return false;
        }
        match in_time(api.get_metadata_opt(&run.name)).await {
            Ok(found) => found.is_none_or(|found| found.metadata.uid.as_ref() != Some(&run.uid)),
            Err(_) => false,
        }
    }
}

/// Waits for an answer of the API server, but not for ever.
async fn in_time<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, WriteError> {
    match tokio::time::timeout(WRITE_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(answer))) if answer.code == 404 => Err(WriteError::Gone),
        Ok(Err(error)) => Err(WriteError::Failed(Box::new(error))),
        Err(_) => Err(WriteError::TimedOut),
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(answer) if answer.code == 409)
}

/// The version of an object that is still this attempt of this run; `None` once it is over or went on.
fn version_of(object: &PipelineRun, run: &Run) -> Option<String> {
    match Run::read(object) {
        Seen::Follow { run: now, .. } if now.is_same(run) => object.resource_version(),
        Seen::Follow { .. } | Seen::Leave | Seen::Over { .. } | Seen::Unreadable(_) => None,
    }
}

impl StatusSink for ApiSink {
    fn write<'a>(&'a self, run: &'a Run, status: &'a AgentStatus) -> BoxFuture<'a, Result<(), WriteError>> {
        Box::pin(async move {
            let api: Api<PipelineRun> = Api::namespaced(self.client.clone(), &run.namespace);
            let params = PatchParams::apply(manager::AGENT).force();
            let patch = Patch::Apply(body(run, status, None));
            match in_time(api.patch_status(&run.name, &params, &patch)).await {
                // Of another UID, or written too often by others just now.
                Err(WriteError::Failed(error)) if self.is_other(&error, &api, run).await => Err(WriteError::Gone),
                answer => answer.map(drop),
            }
        })
    }

    fn write_last<'a>(&'a self, run: &'a Run, status: &'a AgentStatus) -> BoxFuture<'a, Result<bool, WriteError>> {
        Box::pin(async move {
            let api: Api<PipelineRun> = Api::namespaced(self.client.clone(), &run.namespace);
            let params = PatchParams::apply(manager::AGENT).force();
            let mut conflict = None;
            for _ in 0..LAST_TRIES {
                let version = match in_time(api.get(&run.name)).await {
                    Ok(found) => version_of(&found, run),
                    Err(WriteError::Gone) => None,
                    Err(error) => return Err(error),
                };
                let Some(version) = version else { return Ok(false) };
                let patch = Patch::Apply(body(run, status, Some(&version)));
                match in_time(api.patch_status(&run.name, &params, &patch)).await {
                    Ok(_) => return Ok(true),
                    Err(WriteError::Failed(error)) if is_conflict(&error) => conflict = Some(error),
                    Err(WriteError::Gone) => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
            conflict.map_or(Ok(false), |error| Err(WriteError::Failed(error)))
        })
    }

    fn emit(&self, run: &Run, event: &RunEvent) {
        let mut object = PipelineRun::new(&run.name, crate::api::PipelineRunSpec::default());
        object.metadata = metadata(run);
        let reference = object.object_ref(&());
        let event = Event {
            type_: EventType::Normal,
            reason: event.reason.into(),
            note: Some(event.note.clone()),
            action: event.reason.into(),
            secondary: None,
        };
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            match tokio::time::timeout(EVENT_TIMEOUT, recorder.publish(&event, &reference)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, event.reason, "an event was not taken"),
                Err(_) => tracing::warn!(event.reason, "an event was not taken in time"),
            }
        });
    }
}

/// The body of an apply: what the agent owns, all of it, and nothing else; for this version of the object only, if one
/// is given.
fn body(run: &Run, status: &AgentStatus, version: Option<&str>) -> Value {
    let AgentStatus { source_revision, steps, artifacts, report, summary_steps } = status;
    let mut fields = Map::new();
    fields.insert("steps".into(), json!(steps));
    if !artifacts.is_empty() {
        fields.insert("artifacts".into(), json!(artifacts));
    }
    if let Some(revision) = source_revision {
        fields.insert("sourceRevision".into(), json!(revision));
    }
    if let Some(report) = report {
        fields.insert("report".into(), json!(report));
    }
    if let Some(steps) = summary_steps {
        fields.insert("summary".into(), json!({"steps": steps}));
    }
    apply_body(&metadata(run), version, &Value::Object(fields))
}

fn metadata(run: &Run) -> ObjectMeta {
    ObjectMeta {
        name: Some(run.name.clone()),
        namespace: Some(run.namespace.clone()),
        uid: Some(run.uid.clone()),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests;
