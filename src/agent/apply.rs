//! Carries changes out: writes the status, emits events, puts files into `in`.
//!
//! `follow` hands it each [`Change`](super::plan::Change); what needs its own state it does itself.
//!
//! **Invariant:** no decisions. A write is server-side apply as `windlass-agent`, and names the run's UID, so that
//! it can never land on another run of the same name.

use super::{plan::RunEvent, run::Run, status::AgentStatus};
use crate::api::{PipelineRun, manager};
use futures::future::BoxFuture;
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Longest wait for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
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
        let kube::Error::Api(answer) = error else { return false };
        if answer.code != 409 {
            return false;
        }
        match tokio::time::timeout(WRITE_TIMEOUT, api.get_metadata_opt(&run.name)).await {
            Ok(Ok(found)) => found.is_none_or(|found| found.metadata.uid.as_ref() != Some(&run.uid)),
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

impl StatusSink for ApiSink {
    fn write<'a>(&'a self, run: &'a Run, status: &'a AgentStatus) -> BoxFuture<'a, Result<(), WriteError>> {
        Box::pin(async move {
            let api: Api<PipelineRun> = Api::namespaced(self.client.clone(), &run.namespace);
            let params = PatchParams::apply(manager::AGENT).force();
            let patch = Patch::Apply(body(run, status));
            match tokio::time::timeout(WRITE_TIMEOUT, api.patch_status(&run.name, &params, &patch)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(kube::Error::Api(answer))) if answer.code == 404 => Err(WriteError::Gone),
                // Of another UID, or written too often by others just now.
                Ok(Err(error)) => match self.is_other(&error, &api, run).await {
                    true => Err(WriteError::Gone),
                    false => Err(WriteError::Failed(Box::new(error))),
                },
                Err(_) => Err(WriteError::TimedOut),
            }
        })
    }

    fn emit(&self, run: &Run, event: &RunEvent) {
        let mut object = PipelineRun::new(&run.name, crate::api::PipelineRunSpec::default());
        object.metadata.namespace = Some(run.namespace.clone());
        object.metadata.uid = Some(run.uid.clone());
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

/// The body of an apply: what the agent owns, all of it, and nothing else.
fn body(run: &Run, status: &AgentStatus) -> Value {
    let AgentStatus { source_revision, steps, report, summary_steps } = status;
    let mut fields = Map::new();
    fields.insert("steps".into(), json!(steps));
    if let Some(revision) = source_revision {
        fields.insert("sourceRevision".into(), json!(revision));
    }
    if let Some(report) = report {
        fields.insert("report".into(), json!(report));
    }
    if let Some(steps) = summary_steps {
        fields.insert("summary".into(), json!({"steps": steps}));
    }
    json!({
        "apiVersion": PipelineRun::api_version(&()),
        "kind": PipelineRun::kind(&()),
        "metadata": {"name": run.name, "namespace": run.namespace, "uid": run.uid},
        "status": fields,
    })
}

#[cfg(test)]
mod tests;
