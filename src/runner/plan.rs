//! Reads the plan. Called by the supervisor, once.
//!
//! **Invariant:** a plan that is too large, of another version, or whose names would leave their
//! directories is refused whole.

use super::Error;
use crate::wire::{Plan, VERSION};
use std::fs;
use std::io;
use std::path::Path;

/// Largest plan: the environment, the scripts, and room.
const PLAN_BYTES: u64 = 16 * 1024 * 1024;
/// Most steps and after-steps.
const STEPS: usize = 1000;

/// The values to mask.
pub(super) fn secrets(plan: &Plan) -> impl Iterator<Item = &str> {
    let all = plan.env.iter().chain(plan.steps.iter().flat_map(|step| &step.env));
    all.filter(|variable| variable.secret).map(|variable| variable.value.as_str())
}

/// Reads and checks it.
pub(super) fn read(path: &Path) -> Result<Plan, Error> {
    let failed = |error| Error::new(format!("read the plan {}", path.display()), error);
    let refused = |what: &str| failed(io::Error::other(what));
    if fs::metadata(path).map_err(failed)?.len() > PLAN_BYTES {
        return Err(refused("it is too large"));
    }
    let plan: Plan = serde_json::from_slice(&fs::read(path).map_err(failed)?).map_err(|error| failed(error.into()))?;
    let is_file_name = |name: &str| !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    if plan.version != VERSION {
        return Err(refused("it has another version"));
    }
    if plan.steps.len() > STEPS {
        return Err(refused("it has too many steps"));
    }
    if !plan.steps.iter().all(|step| is_file_name(&step.name)) {
        return Err(refused("a step's name is not a file name"));
    }
    Ok(plan)
}
