//! Which registries are spoken to without TLS, or trusted by an authority of their own: as the engine has it.
//!
//! `start` asks before the first push.
//!
//! **Invariant:** only hosts that the pipeline itself names are looked at.

use crate::{
    api::{PipelineSpec, env::EnvVar, push::DockerPush},
    registry::{Trust, docker_trust::as_docker},
    steps::{docker_push, logins},
};
use std::collections::BTreeSet;

/// Trusts registries as the engine does.
pub(super) async fn as_the_engine(trust: &mut Trust, spec: &PipelineSpec) {
    for host in hosts(spec) {
        as_docker(trust, &host).await;
    }
}

/// Hosts that the pipeline pushes to, as far as it says so itself.
fn hosts(spec: &PipelineSpec) -> BTreeSet<String> {
    let literal = |list: &[EnvVar]| -> Vec<(String, String)> {
        list.iter().filter_map(|var| Some((var.name.clone(), var.value.clone()?))).collect()
    };
    let of_step = |push: &DockerPush, own: &[EnvVar]| {
        let known = [literal(&spec.box_.env), literal(&spec.env), literal(own)].concat().into_iter().collect();
        docker_push::host(push, &known)
    };
    spec.all_steps().filter_map(|(_, step)| of_step(logins::push_of(step)?, &step.env)).collect()
}
