//! Resolving a run: its Pipeline, parameters and overrides become the one pipeline that runs, which is
//! then frozen in the status. Called by `plan` on a run's first visit, and for Pipelines to judge them.
//!
//! **Invariant:** pure and total. A fault is a [`Refusal`] with a reason, a path and what to do; it is
//! found before a pod exists. A field that this version cannot carry out is refused, never ignored.

use crate::{
    api::{
        PipelineSpec, StepKind,
        condition::reason,
        duration,
        pipeline::{EnvVar, Source},
        run::{Param, PipelineRunSpec},
    },
    steps,
};
use std::collections::{BTreeMap, BTreeSet};

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
    let mut spec = substitute(pipeline, &params)?;
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
    check(&spec)?;
    check_breakpoint(run, &spec)?;
    Ok(Resolved { spec, params })
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
                format!("params: {} has no value and no default; give it in spec.params", spec.name),
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

/// Replaces `$(params.x)` in all strings but names.
fn substitute(pipeline: &PipelineSpec, params: &[Param]) -> Result<PipelineSpec, Refusal> {
    let values: BTreeMap<&str, &str> = params.iter().map(|p| (p.name.as_str(), p.value.as_str())).collect();
    let invalid = |message: String| Refusal::new(reason::INVALID_PIPELINE, message);
    let mut json = serde_json::to_value(pipeline).map_err(|e| invalid(e.to_string()))?;
    if let Some(fields) = json.as_object_mut() {
        for (key, value) in fields.iter_mut().filter(|(key, _)| *key != "params") {
            substitute_value(value, key, &values)?;
        }
    }
    serde_json::from_value(json).map_err(|e| invalid(format!("after parameters were replaced: {e}")))
}

fn substitute_value(value: &mut serde_json::Value, path: &str, params: &BTreeMap<&str, &str>) -> Result<(), Refusal> {
    match value {
        serde_json::Value::String(text) if text.contains("$(params.") => {
            *text = substitute_text(text, path, params)?;
        }
        serde_json::Value::Array(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                substitute_value(item, &format!("{path}[{i}]"), params)?;
            }
        }
        serde_json::Value::Object(fields) => {
            for (key, field) in fields.iter_mut().filter(|(key, _)| *key != "name") {
                substitute_value(field, &format!("{path}.{key}"), params)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn substitute_text(text: &str, path: &str, params: &BTreeMap<&str, &str>) -> Result<String, Refusal> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("$(params.") {
        out.push_str(before);
        let (name, tail) = after.split_once(')').ok_or_else(|| {
            Refusal::new(reason::INVALID_PARAM, format!("{path}: $(params. is not closed by a parenthesis"))
        })?;
        let value = params.get(name).ok_or_else(|| {
            let known = params.keys().copied().collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none".to_owned() } else { known };
            Refusal::new(
                reason::INVALID_PARAM,
                format!("{path}: $(params.{name}) is not a parameter of the pipeline; it has: {known}"),
            )
        })?;
        out.push_str(value);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

/// The run's variables win over the pipeline's of the same name.
fn override_env(env: &mut Vec<EnvVar>, over: &[EnvVar]) {
    env.retain(|e| !over.iter().any(|o| o.name == e.name));
    env.extend_from_slice(over);
}

/// What the schema cannot say of a pipeline.
///
/// # Errors
/// The first fault found, with its path.
pub fn check(spec: &PipelineSpec) -> Result<(), Refusal> {
    check_images(spec)?;
    check_services(spec)?;
    check_durations(spec)?;
    check_not_yet(spec)?;
    for (after, index, step) in indexed_steps(spec) {
        let path = format!("{}[{index}]", if after { "afterSteps" } else { "steps" });
        check_step(&path, spec, step)?;
    }
    let paths =
        indexed_steps(spec).map(|(after, i, s)| (format!("{}[{i}]", if after { "afterSteps" } else { "steps" }), s));
    steps::store_container::check_names(paths).map_err(|e| Refusal::new(e.reason, e.message))
}

/// A run that stores needs a store, which is the installation's.
///
/// # Errors
/// `StoreFailed`, with the first step that stores.
pub fn check_store(spec: &PipelineSpec, has_store: bool) -> Result<(), Refusal> {
    match indexed_steps(spec).find(|(_, _, s)| s.store_container.is_some()) {
        Some((after, i, _)) if !has_store => {
            let steps = if after { "afterSteps" } else { "steps" };
            Err(Refusal::new(
                reason::STORE_FAILED,
                format!(
                    "{steps}[{i}].storeContainer: no artifact store is set; the administrator sets artifacts.store in the chart's values"
                ),
            ))
        }
        _ => Ok(()),
    }
}

fn indexed_steps(spec: &PipelineSpec) -> impl Iterator<Item = (bool, usize, &crate::api::Step)> {
    let steps = spec.steps.iter().enumerate().map(|(i, s)| (false, i, s));
    steps.chain(spec.after_steps.iter().enumerate().map(|(i, s)| (true, i, s)))
}

fn check_step(path: &str, spec: &PipelineSpec, step: &crate::api::Step) -> Result<(), Refusal> {
    match step.kind() {
        None => Err(Refusal::new(
            reason::INVALID_PIPELINE,
            format!(
                "{path}: set exactly one of script, dockerPush, dockerScratchPush, storeContainer, watch and shell"
            ),
        )),
        Some(StepKind::Script(_)) => Ok(()),
        Some(StepKind::Shell(shell)) => crate::steps::shell::words(&format!("{path}.shell"), shell)
            .map(|_| ())
            .map_err(|e| Refusal::new(e.reason, e.message)),
        Some(StepKind::DockerPush(push)) => {
            let path = format!("{path}.dockerPush");
            steps::docker_push::check(&path, push)
                .and_then(|()| steps::logins::check(&path, spec, step, push))
                .map_err(|e| Refusal::new(e.reason, e.message))
        }
        Some(StepKind::DockerScratchPush(scratch)) => {
            let path = format!("{path}.dockerScratchPush");
            steps::docker_push::scratch::check(&path, scratch)
                .and_then(|()| steps::logins::check(&path, spec, step, &scratch.push))
                .map_err(|e| Refusal::new(e.reason, e.message))
        }
        Some(StepKind::Watch(watch)) => {
            steps::watch::check(&format!("{path}.watch"), watch).map_err(|e| Refusal::new(e.reason, e.message))
        }
        Some(StepKind::StoreContainer(store)) => {
            steps::store_container::check(&format!("{path}.storeContainer"), store)
                .map_err(|e| Refusal::new(e.reason, e.message))
        }
    }
}

/// Fields whose work is not there yet.
fn check_not_yet(spec: &PipelineSpec) -> Result<(), Refusal> {
    let refuse = |path: String| {
        Refusal::new(
            reason::INVALID_PIPELINE,
            format!("{path}: this version of Windlass cannot carry it out yet; leave it out"),
        )
    };
    for (set, path) in [
        (!spec.caches.is_empty(), "caches"),
        (!spec.artifacts.is_empty(), "artifacts"),
        (matches!(&spec.source, Some(Source { image: Some(_), .. })), "source.image"),
    ] {
        if set {
            return Err(refuse(path.to_owned()));
        }
    }
    match indexed_steps(spec).find(|(_, _, s)| s.when.is_some()) {
        Some((after, i, _)) => Err(refuse(format!("{}[{i}].when", if after { "afterSteps" } else { "steps" }))),
        None => Ok(()),
    }
}

fn check_images(spec: &PipelineSpec) -> Result<(), Refusal> {
    let images = std::iter::once(("box.image".to_owned(), &spec.box_.image))
        .chain(spec.services.iter().enumerate().map(|(i, s)| (format!("services[{i}].image"), &s.image)));
    for (path, image) in images {
        image_name(image)
            .map_err(|why| Refusal::new(reason::INVALID_IMAGE_NAME, format!("{path} {image:?}: {why}")))?;
    }
    Ok(())
}

/// The grammar of an image reference (OCI distribution specification, "Pulling manifests").
fn image_name(image: &str) -> Result<(), &'static str> {
    if image.contains(char::is_whitespace) {
        return Err("it holds a space");
    }
    match oci_spec::distribution::Reference::try_from(image) {
        Ok(_) => Ok(()),
        Err(_)
            if image.split(['@', ':']).next().is_some_and(|name| name.contains(|c: char| c.is_ascii_uppercase())) =>
        {
            Err("repository names are lower-case")
        }
        Err(_) => Err("it is not an image reference such as debian:12 or registry.example.com/team/app:1.0"),
    }
}

fn check_services(spec: &PipelineSpec) -> Result<(), Refusal> {
    let mut taken: BTreeMap<u16, &str> = BTreeMap::new();
    for (i, service) in spec.services.iter().enumerate() {
        let own: BTreeSet<u16> = service.ports.iter().copied().collect();
        for port in own {
            if let Some(other) = taken.insert(port, &service.name) {
                return Err(Refusal::new(
                    reason::INVALID_PIPELINE,
                    format!(
                        "services[{i}].ports: {port} is already taken by service {other}; all services share one network"
                    ),
                ));
            }
        }
    }
    Ok(())
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

fn check_durations(spec: &PipelineSpec) -> Result<(), Refusal> {
    let own =
        [("timeout", &spec.timeout), ("stepTimeout", &spec.step_timeout), ("noOutputTimeout", &spec.no_output_timeout)]
            .map(|(path, text)| (path.to_owned(), text));
    let steps = indexed_steps(spec).filter_map(|(after, i, s)| {
        Some((format!("{}[{i}].timeout", if after { "afterSteps" } else { "steps" }), s.timeout.as_ref()?))
    });
    let services = spec
        .services
        .iter()
        .enumerate()
        .filter_map(|(i, s)| Some((format!("services[{i}].readiness.within"), &s.readiness.as_ref()?.within)));
    for (path, text) in own.into_iter().chain(steps).chain(services) {
        duration::parse(text).map_err(|why| Refusal::new(reason::INVALID_PIPELINE, format!("{path}: {why}")))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
