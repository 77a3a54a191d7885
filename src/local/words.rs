//! Messages of the cluster's code in words that fit a machine without a cluster.
//!
//! `node` puts them into the run.
//!
//! **Invariant:** pure; what needs no other words stays as it is.

use super::{NAMESPACE, containers};
use crate::{api::condition::reason, wire};

/// The command for a verb of the runner in a container.
pub(super) fn inside(container: &str, verb: &str) -> String {
    format!("docker exec -it {container} {}/{} {verb}", wire::IN_DIR, wire::RUNNER_FILE)
}

/// How to attach to a box of this machine, where a message says how to do it in a cluster.
pub(super) fn attached_here(message: &str, run: &str) -> String {
    let inside = |verb: &str| inside(&containers::name(run), verb);
    let mut message = message.to_owned();
    for verb in ["shell", "continue"] {
        message = message.replace(&format!("windlass {verb} {run}"), &inside(verb));
    }
    // The runner knows which step failed.
    match message.split_once(&format!("windlass retry {run} --step ")) {
        Some((before, after)) => {
            let rest = after.find(',').and_then(|end| after.get(end..)).unwrap_or_default();
            format!("{before}{}{rest}", inside("retry"))
        }
        None => message,
    }
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
    use rstest::rstest;

    #[rstest]
    #[case(
        "attach with: windlass shell a-1",
        "attach with: docker exec -it windlass-a-1 /dev/windlass/in/windlass-runner shell"
    )]
    #[case(
        "it failed; then: windlass retry a-1 --step b, or windlass continue a-1",
        "it failed; then: docker exec -it windlass-a-1 /dev/windlass/in/windlass-runner retry, or docker exec -it windlass-a-1 /dev/windlass/in/windlass-runner continue"
    )]
    #[case("step 1 of 2: b", "step 1 of 2: b")]
    fn who_attaches_is_told_how_to_do_it_here(#[case] message: &str, #[case] expected: &str) {
        assert_eq!(attached_here(message, "a-1"), expected);
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
