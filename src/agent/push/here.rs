//! Steps that only a run on one machine has: what `local` needs to carry them out.
//!
//! `attempts` asks for the [`HereWork`] of a step, and hands it to the transport, which in an agent of a cluster refuses.
//!
//! **Invariant:** as of [`super`]: properties come from the frozen spec, of the box only environment and packed files.

use super::{Files, Job, created, packed, request};
use crate::{
    agent::{files::Volumes, run::Run},
    api::here::HereStep,
    registry::PushError,
    steps::docker_push::scratch::Shape,
    wire::{PackFault, Packed, Request},
};
use jiff::Timestamp;
use std::{collections::BTreeMap, sync::Arc};

/// What only a run on one machine does.
#[derive(Clone)]
pub struct HereWork {
    /// The run.
    pub run: Arc<Run>,
    /// Name of the step.
    pub step: String,
    /// What it asks for.
    pub what: HereStep,
    /// The environment of the step.
    pub env: BTreeMap<String, String>,
    /// What the runner packed for it, if that was asked for.
    pub files: Option<Files>,
    /// When it began, in RFC 3339.
    pub created: Timestamp,
}

fn is_empty(request: &Request) -> bool {
    matches!(request.packed, Some(Packed::Refused { fault: PackFault::Empty, .. }))
}

/// Reads what the step needs; `None` if it is no such step.
///
/// # Errors
/// What the box left cannot be read.
pub(super) fn work(volumes: &Volumes, job: &Job) -> Result<Option<HereWork>, PushError> {
    let step = job.run.spec.all_steps().nth(job.step).map(|(_, step)| step);
    let Some((step, what)) = step.and_then(|step| Some((step, step.here.as_ref()?))) else { return Ok(None) };
    let request = request(volumes, job.step)?;
    let files = match what.packs() {
        // That there is nothing to keep is no failure.
        Some(_) if *what == HereStep::Keep && is_empty(&request) => None,
        Some(_) => {
            packed(&request)?;
            Some(Files { volumes: volumes.clone(), step: job.step, shape: Shape::default() })
        }
        None => None,
    };
    Ok(Some(HereWork {
        run: Arc::clone(&job.run),
        step: step.name.clone(),
        what: what.clone(),
        env: if what.disable_sync() { request.run_env } else { request.env },
        files,
        created: created(job),
    }))
}
