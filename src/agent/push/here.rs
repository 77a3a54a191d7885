//! Steps that only a run on one machine has: what `local` needs to carry them out.
//!
//! `attempts` asks for the [`HereWork`] of a step, and hands it to the transport, which in an agent of a cluster refuses.
//!
//! **Invariant:** as of [`super`]: properties come from the frozen spec, of the box only environment and packed files.

use super::{Files, Job, packed, request};
use crate::{
    agent::files::Volumes,
    api::here::HereStep,
    registry::PushError,
    steps::docker_push::scratch::Shape,
    wire::{PackFault, Packed, Request},
};
use std::collections::BTreeMap;

/// What only a run on one machine does.
#[derive(Clone)]
pub struct HereWork {
    /// What it asks for.
    pub what: HereStep,
    /// The environment of the step.
    pub env: BTreeMap<String, String>,
    /// What the runner packed for it, if that was asked for.
    pub files: Option<Files>,
}

/// A fault of the files, with what they are for: the rules are those of images.
fn of_files(what: &HereStep, fault: &str) -> String {
    match what {
        HereStep::Keep => format!("the files to keep: {fault}"),
        _ => format!("the context of the build: {fault}"),
    }
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
    let Some(what) = step.and_then(|step| step.here.as_ref()) else { return Ok(None) };
    let request = request(volumes, job.step)?;
    let files = match what.packs() {
        // That there is nothing to keep is no failure.
        Some(_) if *what == HereStep::Keep && is_empty(&request) => None,
        Some(_) => {
            packed(&request).map_err(|error| PushError::new(error.reason, of_files(what, &error.message)))?;
            Some(Files { volumes: volumes.clone(), step: job.step, shape: Shape::default() })
        }
        None => None,
    };
    Ok(Some(HereWork {
        what: what.clone(),
        env: if what.disable_sync() { request.run_env } else { request.env },
        files,
    }))
}
