//! Messages of the cluster's code in words that fit a machine without a cluster.
//!
//! `node` puts them into the run.
//!
//! **Invariant:** pure; what needs no other words stays as it is.

use super::NAMESPACE;
use crate::api::condition::reason;

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
        reason::SECRET_NOT_FOUND,
        "Secret keys does not exist in namespace local; env KEY needs it",
        "Secret keys does not exist; env KEY needs it; give it with --secret NAME=FILE"
    )]
    #[case(reason::SOURCE_FAILED, "cannot read x", "cannot read x")]
    fn failures_fit_a_machine_without_a_cluster(#[case] why: &str, #[case] message: &str, #[case] expected: &str) {
        assert_eq!(locally(why, message), expected);
    }
}
