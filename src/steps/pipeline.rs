//! What the schema cannot say of a whole pipeline.
//!
//! The controller refuses a run by [`check`] when it resolves it, after parameters are replaced; `windlass check` tells
//! [`faults`] of a file without a cluster.
//!
//! **Invariant:** as that of the folder. A field that this version cannot carry out is refused, never ignored.

use super::{StepError, docker_push, logins, shell, store_container, watch};
use crate::api::{PipelineSpec, Step, StepKind, condition::reason, duration, pipeline::Source};
use std::collections::{BTreeMap, BTreeSet};

/// Refuses a pipeline.
///
/// # Errors
/// The first of [`faults`].
pub fn check(spec: &PipelineSpec) -> Result<(), StepError> {
    faults(spec).into_iter().next().map_or(Ok(()), Err)
}

/// What is wrong with a pipeline: each with its path first, one for each of images, services, durations, fields that
/// are not carried out yet, and steps.
#[must_use]
pub fn faults(spec: &PipelineSpec) -> Vec<StepError> {
    let whole = [check_images(spec), check_services(spec), check_durations(spec), check_not_yet(spec)];
    let steps = paths(spec).map(|(path, step)| check_step(&path, spec, step));
    let names = store_container::check_names(paths(spec));
    whole.into_iter().chain(steps).chain([names]).filter_map(Result::err).collect()
}

/// All steps with their paths: `steps[0]`, `afterSteps[1]`.
pub fn paths(spec: &PipelineSpec) -> impl Iterator<Item = (String, &Step)> {
    let of = |list: &'static str| move |(i, step)| (format!("{list}[{i}]"), step);
    let steps = spec.steps.iter().enumerate().map(of("steps"));
    steps.chain(spec.after_steps.iter().enumerate().map(of("afterSteps")))
}

fn check_step(path: &str, spec: &PipelineSpec, step: &Step) -> Result<(), StepError> {
    match step.kind() {
        None => Err(StepError::new(
            reason::INVALID_PIPELINE,
            format!(
                "{path}: set exactly one of script, dockerPush, dockerScratchPush, storeContainer, watch and shell"
            ),
        )),
        // Here nothing but what the command line made gets so far; `local` judges it.
        Some(StepKind::Script(_) | StepKind::Here(_)) => Ok(()),
        Some(StepKind::Shell(step)) => shell::words(&format!("{path}.shell"), step).map(|_| ()),
        Some(StepKind::DockerPush(push)) => {
            let path = format!("{path}.dockerPush");
            docker_push::check(&path, push).and_then(|()| logins::check(&path, spec, step, push))
        }
        Some(StepKind::DockerScratchPush(scratch)) => {
            let path = format!("{path}.dockerScratchPush");
            docker_push::scratch::check(&path, scratch).and_then(|()| logins::check(&path, spec, step, &scratch.push))
        }
        Some(StepKind::Watch(step)) => watch::check(&format!("{path}.watch"), step),
        Some(StepKind::StoreContainer(step)) => store_container::check(&format!("{path}.storeContainer"), step),
    }
}

/// Fields whose work is not there yet.
fn check_not_yet(spec: &PipelineSpec) -> Result<(), StepError> {
    let refuse = |path: String| {
        StepError::new(
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
    paths(spec).find(|(_, step)| step.when.is_some()).map_or(Ok(()), |(path, _)| Err(refuse(format!("{path}.when"))))
}

fn check_images(spec: &PipelineSpec) -> Result<(), StepError> {
    let images = std::iter::once(("box.image".to_owned(), &spec.box_.image))
        .chain(spec.services.iter().enumerate().map(|(i, s)| (format!("services[{i}].image"), &s.image)));
    for (path, image) in images {
        image_name(image)
            .map_err(|why| StepError::new(reason::INVALID_IMAGE_NAME, format!("{path} {image:?}: {why}")))?;
    }
    Ok(())
}

/// The grammar of an image reference (OCI distribution specification, "Pulling manifests").
///
/// # Errors
/// What is wrong with it.
pub fn image_name(image: &str) -> Result<(), &'static str> {
    if is_plain_image(image) {
        return Ok(());
    }
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

/// Whether it is plainly a reference: lower-case parts, a port of the first perhaps, a tag perhaps. The whole grammar is a
/// regular expression, and a local run would notice how long it takes to build.
fn is_plain_image(image: &str) -> bool {
    let (name, tag) = match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        Some(_) | None => (image, "latest"),
    };
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_part = |part: &str| {
        let ends = part.bytes().next().is_some_and(is_plain) && part.bytes().next_back().is_some_and(is_plain);
        let apart = part.as_bytes().windows(2).all(|two| two.iter().any(|b| is_plain(*b)));
        ends && apart && part.bytes().all(|b| is_plain(b) || b"._-".contains(&b))
    };
    let (host, path) = name.split_once('/').unwrap_or(("", name));
    let host = match host.split_once(':') {
        Some((host, port)) if host.contains('_') || port.parse::<u16>().is_err() => return false,
        Some((host, _)) => host,
        None => host,
    };
    let is_tag = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let tagged = (1..=128).contains(&tag.len()) && !tag.starts_with(['.', '-']) && tag.bytes().all(is_tag);
    // 64 digits could be an ID.
    name.len() < 64 && tagged && (!name.contains('/') || is_part(host)) && path.split('/').all(is_part)
}

fn check_services(spec: &PipelineSpec) -> Result<(), StepError> {
    let mut taken: BTreeMap<u16, &str> = BTreeMap::new();
    for (i, service) in spec.services.iter().enumerate() {
        let own: BTreeSet<u16> = service.ports.iter().copied().collect();
        for port in own {
            if let Some(other) = taken.insert(port, &service.name) {
                return Err(StepError::new(
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

fn check_durations(spec: &PipelineSpec) -> Result<(), StepError> {
    let own =
        [("timeout", &spec.timeout), ("stepTimeout", &spec.step_timeout), ("noOutputTimeout", &spec.no_output_timeout)]
            .map(|(path, text)| (path.to_owned(), text));
    let steps = paths(spec).filter_map(|(path, step)| Some((format!("{path}.timeout"), step.timeout.as_ref()?)));
    let services = spec
        .services
        .iter()
        .enumerate()
        .filter_map(|(i, s)| Some((format!("services[{i}].readiness.within"), &s.readiness.as_ref()?.within)));
    for (path, text) in own.into_iter().chain(steps).chain(services) {
        duration::parse(text).map_err(|why| StepError::new(reason::INVALID_PIPELINE, format!("{path}: {why}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::distribution::Reference;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("debian", true)]
    #[case("debian:12", true)]
    #[case("busybox:local", true)]
    #[case("registry.example.com/team/app:1.0-rc_1", true)]
    #[case("127.0.0.1:5000/a", true)]
    #[case("debian@sha256:0", false)]
    #[case("Debian", false)]
    #[case("a//b", false)]
    #[case("a_b:5000/c", false)]
    #[case("a:", false)]
    fn plain_images(#[case] image: &str, #[case] plain: bool) {
        assert_eq!(is_plain_image(image), plain);
    }

    proptest! {
        #[test]
        fn what_is_plain_is_a_reference(image in "[a-zA-Z0-9._:/-]{1,12}(/[a-z0-9._-]{1,6}){0,2}(:[A-Za-z0-9._-]{1,6})?") {
            prop_assert!(!is_plain_image(&image) || Reference::try_from(image.as_str()).is_ok(), "{image}");
        }
    }
}
