//! What the machine does in a run of a `wercker.yml`: its steps are exchanged for what stands in for them in the YAML, and
//! the flags add some.
//!
//! **Invariant:** pure; a step is exchanged by its name, which the conversion gave.

use super::ports;
use crate::{
    api::{
        PipelineRun, PipelineSpec, Step,
        here::{DockerRun, HereStep},
        push::DockerPush,
    },
    client::{
        args::WerckerArgs,
        fault::{Fault, Stop},
        follow::MustPass,
    },
    registry::{
        Repository,
        reference::{RefError, parse_tag},
    },
    wercker::convert::MadeHere,
};

/// Names of steps that flags add.
const KEEP: &str = "artifacts";
const COMMIT: &str = "commit";

/// Puts in what the machine does.
pub(super) fn exchange(spec: &mut PipelineSpec, made: &MadeHere, args: &WerckerArgs, keep: bool) -> Result<(), Stop> {
    for step in spec.steps.iter_mut().chain(&mut spec.after_steps) {
        if let Some(work) = made.work.get(&step.name) {
            (step.script, step.here) = (None, Some(work.clone()));
            if let Some(HereStep::DockerRun(run)) = &mut step.here {
                run.ports = ports(run, args.expose_ports)?;
            }
        }
        let push =
            step.docker_push.iter_mut().chain(step.docker_scratch_push.as_mut().map(|scratch| &mut scratch.push));
        for push in push {
            push.image_name = made.built.get(&step.name).cloned();
        }
        if args.docker_local {
            stays(step)?;
        }
    }
    if keep {
        spec.steps.push(step(spec, KEEP, HereStep::Keep));
    }
    if let Some(name) = &args.commit {
        let refused = |error: RefError| {
            let why = match error {
                RefError::Invalid { message, .. } => message,
                RefError::Mismatch { .. } => error.to_string(),
            };
            Fault::usage(format!("--commit {name} --tag {}: {why}", args.tag)).note("nothing was started")
        };
        Repository::parse(name, None).map_err(refused)?;
        let push = DockerPush {
            repository: name.clone(),
            tags: Some(vec![parse_tag(&args.tag).map_err(refused)?]),
            message: args.message.clone(),
            ..DockerPush::default()
        };
        // An after-step that fails is the last one.
        spec.after_steps.insert(0, step(spec, COMMIT, HereStep::Commit(Box::new(push))));
    }
    Ok(())
}

/// The step of `--commit`: it is an after-step, so a run passes without its image.
pub(in crate::client) fn must_pass(args: &WerckerArgs, run: &PipelineRun) -> Option<MustPass> {
    let name = args.commit.as_ref()?;
    let first = run.spec.pipeline_spec.as_ref()?.after_steps.first()?;
    Some(MustPass { step: first.name.clone(), missed: format!("--commit {name}: no image was made") })
}

/// The ports of a container, if they are to be opened.
fn ports(run: &DockerRun, open: bool) -> Result<Vec<String>, Stop> {
    if !open {
        return Ok(Vec::new());
    }
    let one = |text: &String| -> Result<String, Stop> {
        let port = ports::one(text).map_err(|why| Fault::usage(format!("docker-run {}: {why}", run.name)))?;
        Ok(port.to_string())
    };
    run.ports.iter().map(one).collect()
}

/// Lets a push make an image of this machine only.
fn stays(step: &mut Step) -> Result<(), Stop> {
    if step.docker_scratch_push.is_some() {
        let said = format!(
            "step {}: an image from scratch goes to a registry, and --docker-local keeps images here",
            step.name
        );
        return Err(Fault::usage(said).note("nothing was started").hint("leave --docker-local out").into());
    }
    if let Some(push) = step.docker_push.take() {
        step.here = Some(HereStep::Commit(Box::new(push)));
    }
    Ok(())
}

/// A step of a name that no other has.
fn step(spec: &PipelineSpec, name: &str, here: HereStep) -> Step {
    let taken = |name: &str| spec.all_steps().any(|(_, step)| step.name == name);
    let names = std::iter::once(name.to_owned()).chain((2..).map(|number| format!("{name}-{number}")));
    let name = names.into_iter().find(|name| !taken(name)).unwrap_or_else(|| name.to_owned());
    Step { name, here: Some(here), ..Step::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::exit::Exit;
    use rstest::rstest;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn spec() -> PipelineSpec {
        serde_json::from_value(json!({"box": {"image": "debian"}, "steps": [
            {"name": "image", "script": ":"},
            {"name": "commit", "dockerPush": {"repository": "team/app"}},
        ]}))
        .unwrap()
    }

    #[test]
    fn steps_are_exchanged_by_their_names() {
        let work = BTreeMap::from([("image".to_owned(), HereStep::DockerKill("x".into()))]);
        let built = BTreeMap::from([("commit".to_owned(), "app".to_owned())]);
        let made = MadeHere { work, built, ..MadeHere::default() };
        let args = WerckerArgs { commit: Some("mine".into()), tag: "t".into(), ..WerckerArgs::default() };
        let mut spec = spec();
        exchange(&mut spec, &made, &args, true).ok().unwrap();
        assert_eq!(spec.steps[0].here, Some(HereStep::DockerKill("x".into())));
        assert_eq!((spec.steps[0].script.as_ref(), spec.steps[0].kind().unwrap().name()), (None, "here"));
        assert_eq!(spec.steps[1].docker_push.as_ref().unwrap().image_name.as_deref(), Some("app"));
        assert_eq!((spec.steps[2].name.as_str(), spec.steps[2].here.as_ref()), ("artifacts", Some(&HereStep::Keep)));
        assert_eq!(spec.after_steps[0].name, "commit-2");
    }

    #[rstest]
    #[case("Bad Name!", "latest", "repository names are lower-case")]
    #[case("team/app:1", "latest", "must not hold a tag")]
    #[case("team/app", "a b", "is not a tag")]
    fn an_image_that_cannot_be_named_is_refused_first(#[case] name: &str, #[case] tag: &str, #[case] why: &str) {
        let args = WerckerArgs { commit: Some(name.into()), tag: tag.into(), ..WerckerArgs::default() };
        let stop = exchange(&mut spec(), &MadeHere::default(), &args, false).err().unwrap();
        assert!(stop.message().contains(why) && stop.exit() == Exit::Usage, "{}", stop.message());
    }

    #[test]
    fn a_commit_comes_before_what_may_fail_after_the_run_and_is_missed() {
        let args = WerckerArgs { commit: Some("mine".into()), tag: "t".into(), ..WerckerArgs::default() };
        let mut spec = spec();
        spec.after_steps.push(Step { name: "tell".into(), script: Some("exit 1".into()), ..Step::default() });
        exchange(&mut spec, &MadeHere::default(), &args, false).ok().unwrap();
        let names: Vec<&str> = spec.after_steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["commit-2", "tell"]);
        let mut run = PipelineRun::new("r", crate::api::PipelineRunSpec::default());
        run.spec.pipeline_spec = Some(spec);
        let missed = "--commit mine: no image was made".to_owned();
        assert_eq!(must_pass(&args, &run), Some(MustPass { step: "commit-2".into(), missed }));
        assert_eq!(must_pass(&WerckerArgs::default(), &run), None);
    }

    #[test]
    fn pushes_stay_if_they_are_to() {
        let args = WerckerArgs { docker_local: true, ..WerckerArgs::default() };
        let mut spec = spec();
        exchange(&mut spec, &MadeHere::default(), &args, false).ok().unwrap();
        assert!(spec.steps[1].docker_push.is_none());
        assert!(matches!(&spec.steps[1].here, Some(HereStep::Commit(push)) if push.repository == "team/app"));
    }
}
