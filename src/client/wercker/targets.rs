//! Which deploy target is meant: `--deploy-target`.
//!
//! **Invariant:** a name that nothing has is an error. Wercker ran `steps` then, so that a misspelled one went elsewhere.

use super::{Turn, Yml};
use crate::{
    client::fault::{Fault, Stop, nearest},
    wercker::document::{Pipeline, Workflow},
};

impl Yml {
    /// Which target of a pipeline, whose name another may have if this one has no targets.
    pub(super) fn target<'a>(&self, pipeline: &'a Pipeline, wanted: Option<&str>) -> Result<Turn<'a>, Stop> {
        let name = &pipeline.name.value;
        let target = wanted.and_then(|wanted| pipeline.targets.iter().find(|(target, _)| target.value == wanted));
        if wanted.is_none() && pipeline.steps.is_empty() {
            let targets = names(&[pipeline]);
            let said = format!("pipeline {name} has targets and no steps of its own: {}", targets.join(", "));
            let hint = format!("--deploy-target {}", targets.first().copied().unwrap_or_default());
            return Err(Fault::usage(said).note("nothing was started").hint(hint).into());
        }
        if !pipeline.targets.is_empty() {
            any(&format!("pipeline {name}"), &[pipeline], wanted)?;
        }
        let target_name = wanted.map(str::to_owned);
        Ok(Turn { pipeline, target, target_name, source: None, keep_in: None, apart: Vec::new() })
    }

    /// Whether a pipeline of the workflow has the target.
    pub(super) fn has_target(&self, workflow: &Workflow, wanted: Option<&str>) -> Result<(), Stop> {
        let nodes = workflow.nodes.iter();
        let pipelines: Vec<&Pipeline> = nodes.filter_map(|node| self.document.pipeline(&node.pipeline.value)).collect();
        any(&format!("workflow {}", workflow.name.value), &pipelines, wanted)
    }
}

/// Whether one of the pipelines has the target; `what` they are, for people.
pub(super) fn any(what: &str, pipelines: &[&Pipeline], wanted: Option<&str>) -> Result<(), Stop> {
    let (Some(wanted), targets) = (wanted, names(pipelines)) else { return Ok(()) };
    if targets.contains(&wanted) {
        return Ok(());
    }
    if targets.is_empty() {
        let fault = Fault::usage(format!("{what} has no targets, so none is {wanted:?}")).note("nothing was started");
        let hint = "leave --deploy-target out; a step that reads the name gets it by -e WERCKER_DEPLOYTARGET_NAME=";
        return Err(fault.hint(format!("{hint}{wanted}")).into());
    }
    let said = format!("{what} has no target {wanted:?} (it has {})", targets.join(", "));
    let fault = Fault::usage(said).note("nothing was started");
    Err(match nearest(wanted, targets) {
        Some(near) => fault.hint(format!("--deploy-target {near}")),
        None => fault,
    }
    .into())
}

/// The targets of pipelines, each once.
fn names<'a>(pipelines: &[&'a Pipeline]) -> Vec<&'a str> {
    let mut names = Vec::new();
    for (target, _) in pipelines.iter().flat_map(|pipeline| &pipeline.targets) {
        if !names.contains(&target.value.as_str()) {
            names.push(target.value.as_str());
        }
    }
    names
}
