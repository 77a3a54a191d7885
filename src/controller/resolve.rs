//! Resolving a run: its Pipeline, parameters and overrides become the one pipeline that runs, which is
//! then frozen in the status. Called by `plan` on a run's first visit, and for Pipelines to judge them.
//!
//! **Invariant:** pure and total. A fault is a [`Refusal`] with a reason, a path and what to do; it is
//! found before a pod exists. A field that this version cannot carry out is refused, never ignored.

use crate::{
    api::{
        PipelineSpec,
        condition::reason,
        pipeline::EnvVar,
        run::{Param, PipelineRunSpec},
    },
    steps,
};

/// What can be done about a parameter without a value. `local` has other words for it.
pub const GIVE_PARAM: &str = "give it in spec.params";

/// Why a run cannot start: the reason of its condition, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One of `condition::reason`.
    pub reason: &'static str,
    /// Path first, then the fault and the mend.
    pub message: String,
}

impl Refusal {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// A pipeline ready to be frozen.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The pipeline, with parameters replaced and the run's overrides applied.
    pub spec: PipelineSpec,
    /// Parameters as used.
    pub params: Vec<Param>,
}

/// Resolves a run with its pipeline (its own, or the one it refers to).
///
/// # Errors
/// The first fault found.
pub fn resolve(run: &PipelineRunSpec, pipeline: &PipelineSpec) -> Result<Resolved, Refusal> {
    if run.priority != 0 {
        return Err(Refusal::new(
            reason::INVALID_PIPELINE,
            "spec.priority: runs do not wait for each other in this version of Windlass; leave it out",
        ));
    }
    let params = params(run, pipeline)?;
    let mut spec = steps::params::replace(pipeline, &params).map_err(refused)?;
    override_env(&mut spec.env, &run.env);
    if let Some(source) = &run.source {
        spec.source = Some(source.clone());
    }
    if let Some(revision) = &run.revision {
        let git = spec.source.as_mut().and_then(|s| s.git.as_mut()).ok_or_else(|| {
            Refusal::new(
                reason::INVALID_PIPELINE,
                "spec.revision: the pipeline has no source.git that it could apply to; leave revision out",
            )
        })?;
        git.revision = Some(revision.clone());
    }
    if let Some(timeout) = &run.timeout {
        spec.timeout.clone_from(timeout);
    }
    steps::pipeline::check(&spec).map_err(refused)?;
    check_breakpoint(run, &spec)?;
    Ok(Resolved { spec, params })
}

fn refused(error: steps::StepError) -> Refusal {
    Refusal::new(error.reason, error.message)
}

/// Values of all parameters: the run's, else the defaults.
fn params(run: &PipelineRunSpec, pipeline: &PipelineSpec) -> Result<Vec<Param>, Refusal> {
    let known: Vec<&str> = pipeline.params.iter().map(|p| p.name.as_str()).collect();
    if let Some(unknown) = run.params.iter().find(|p| !known.contains(&p.name.as_str())) {
        let allowed = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Refusal::new(
            reason::INVALID_PARAM,
            format!("params: the pipeline has no parameter {}; it has: {allowed}", unknown.name),
        ));
    }
    let value_of = |spec: &crate::api::pipeline::ParamSpec| {
        let given = run.params.iter().find(|p| p.name == spec.name).map(|p| p.value.clone());
        let value = given.or_else(|| spec.default.clone()).ok_or_else(|| {
            Refusal::new(
                reason::INVALID_PARAM,
                format!("params: {} has no value and no default; {GIVE_PARAM}", spec.name),
            )
        })?;
        match &spec.enum_ {
            Some(allowed) if !allowed.contains(&value) => Err(Refusal::new(
                reason::INVALID_PARAM,
                format!("params: {} is {value:?}; allowed are: {}", spec.name, allowed.join(", ")),
            )),
            _ => Ok(Param { name: spec.name.clone(), value }),
        }
    };
    pipeline.params.iter().map(value_of).collect()
}

/// The run's variables win over the pipeline's of the same name.
fn override_env(env: &mut Vec<EnvVar>, over: &[EnvVar]) {
    env.retain(|e| !over.iter().any(|o| o.name == e.name));
    env.extend_from_slice(over);
}

/// A run that stores needs a store, which is the installation's.
///
/// # Errors
/// `StoreFailed`, with the first step that stores.
pub fn check_store(spec: &PipelineSpec, has_store: bool) -> Result<(), Refusal> {
    match steps::pipeline::paths(spec).find(|(_, step)| step.store_container.is_some()) {
        Some((path, _)) if !has_store => Err(Refusal::new(
            reason::STORE_FAILED,
            format!(
                "{path}.storeContainer: no artifact store is set; the administrator sets artifacts.store in the chart's values"
            ),
        )),
        Some(_) | None => Ok(()),
    }
}

/// Breakpoints are before steps that there are.
fn check_breakpoint(run: &PipelineRunSpec, spec: &PipelineSpec) -> Result<(), Refusal> {
    let Some(breakpoint) = &run.breakpoint else { return Ok(()) };
    let steps: Vec<&str> = spec.steps.iter().map(|s| s.name.as_str()).collect();
    match breakpoint.before.iter().find(|name| !steps.contains(&name.as_str())) {
        Some(unknown) => Err(Refusal::new(
            reason::INVALID_PIPELINE,
            format!("spec.breakpoint.before: the pipeline has no step {unknown}; it has: {}", steps.join(", ")),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
