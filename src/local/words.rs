//! Messages of the cluster's code in words that fit a machine without a cluster.
//!
//! `node` puts them into the run.
//!
//! **Invariant:** pure; what needs no other words stays as it is.

use super::NAMESPACE;
use crate::{
    api::{condition::reason, push::WITHOUT_TLS},
    controller::{judge::OUTPUT_OF_SERVICE, resolve::GIVE_PARAM},
    registry::trust::{ADD_CA, LIST_REGISTRY, UNLESS_PAIRED},
};

/// What is done in a cluster, as its code says it, and what is done here.
const THERE_AND_HERE: [(&str, &str); 5] = [
    (GIVE_PARAM, "give it with -p NAME=VALUE"),
    (ADD_CA, "if it is yours, say so: --registry-ca HOST=FILE"),
    (WITHOUT_TLS, "name it in the engine's insecure-registries"),
    (UNLESS_PAIRED, ""),
    (LIST_REGISTRY, "name its authority: --registry-ca HOST=FILE"),
];

/// What the run says without where the output of a service is, which nobody keeps: in words that fit a machine without a cluster.
pub(super) fn of_run(message: &str) -> String {
    message.split(OUTPUT_OF_SERVICE).next().unwrap_or_default().to_owned()
}

/// What a step or a refusal says, in words that fit a machine without a cluster.
pub(super) fn of_step(message: &str) -> String {
    THERE_AND_HERE.iter().fold(message.to_owned(), |message, (there, here)| message.replace(there, here))
}

/// A failure in words that fit a machine without a cluster.
pub(super) fn locally(why: &str, message: &str) -> String {
    let message = message.replace(&format!(" in namespace {NAMESPACE}"), "");
    let kind = match why {
        reason::SECRET_NOT_FOUND | reason::SECRET_KEY_NOT_FOUND => "secret",
        reason::CONFIG_MAP_NOT_FOUND | reason::CONFIG_MAP_KEY_NOT_FOUND => "config-map",
        _ => return message,
    };
    format!("{message}; give it with --{kind} NAME=FILE")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{PipelineRunSpec, PipelineSpec, push::DockerPush},
        controller::resolve::resolve,
        registry::Repository,
        steps::docker_push,
    };
    use rstest::rstest;
    use std::collections::BTreeMap;

    /// What the code of the cluster says of something that a laptop does otherwise: each message from where it is made.
    fn said_there() -> [String; 3] {
        let spec = |steps: &str| {
            let text = format!("{{box: {{image: debian}}, params: [{{name: p}}], steps: [{steps}]}}");
            serde_yaml::from_str::<PipelineSpec>(&text).unwrap()
        };
        let no_value = resolve(&PipelineRunSpec::default(), &spec("{name: a, script: 'true'}")).unwrap_err();
        let push = DockerPush {
            repository: "r.example.com/app".into(),
            registry: Some("http://r.example.com".into()),
            ..DockerPush::default()
        };
        let no_tls = docker_push::plan(&push, &BTreeMap::new(), 1).unwrap_err();
        let no_host = Repository::parse("r.example.com/app", Some("http://r.example.com")).unwrap_err();
        [no_value.message, no_tls.message, no_host.to_string()]
    }

    #[test]
    fn nobody_administers_a_laptop() {
        for (there, here) in said_there().iter().zip([
            "params: p has no value and no default; give it with -p NAME=VALUE",
            "registry: must be https; name it in the engine's insecure-registries",
            "registry: must be https; name it in the engine's insecure-registries",
        ]) {
            assert_eq!(of_step(there), here);
        }
        for (there, here) in THERE_AND_HERE {
            assert_eq!(of_step(&format!("r:1 is away;{there}")), format!("r:1 is away;{here}"));
            assert!(!here.contains("administrator") && !here.contains("spec."), "{here}");
        }
        assert_eq!(of_step("exit code 2"), "exit code 2");
    }

    #[test]
    fn no_hint_leads_to_the_cluster() {
        let told = format!("service web ended with exit code 3: bye{OUTPUT_OF_SERVICE}hello-7 --service web");
        assert_eq!(of_run(&told), "service web ended with exit code 3: bye");
    }

    #[rstest]
    #[case(
        reason::SECRET_NOT_FOUND,
        "Secret keys does not exist in namespace local; env KEY needs it",
        "Secret keys does not exist; env KEY needs it; give it with --secret NAME=FILE"
    )]
    #[case(reason::SOURCE_FAILED, "cannot read x", "cannot read x")]
    fn failures_fit_a_machine_without_a_cluster(#[case] why: &str, #[case] message: &str, #[case] expected: &str) {
        assert_eq!(locally(why, message), expected);
    }
}
