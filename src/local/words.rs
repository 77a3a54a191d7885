//! Messages of the cluster's code in words that fit a machine without a cluster.
//!
//! `node` puts them into the run.
//!
//! **Invariant:** pure; what needs no other words stays as it is.

use super::NAMESPACE;
use crate::api::condition::reason;

/// What is done in a cluster, and what is done here.
const THERE_AND_HERE: [(&str, &str); 4] = [
    ("give it in spec.params", "give it with -p NAME=VALUE"),
    ("the administrator can add the CA of the registry", "if it is yours, say so: --registry-ca HOST=FILE"),
    ("registries without TLS are listed by the administrator", "name it in the engine's insecure-registries"),
    ("the administrator can list the registry", "name its authority: --registry-ca HOST=FILE"),
];

/// Where the output of a service is read in a cluster. Here the message has its end, and no more is kept.
const OUTPUT_OF_SERVICE: &str = "; its output: windlass logs ";

/// What the run says, in words that fit a machine without a cluster.
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
    use rstest::rstest;

    #[test]
    fn nobody_administers_a_laptop() {
        let told = "r:1 has a certificate that is not trusted: UnknownIssuer; the administrator can add the CA of the registry";
        let here =
            "r:1 has a certificate that is not trusted: UnknownIssuer; if it is yours, say so: --registry-ca HOST=FILE";
        assert_eq!(of_step(told), here);
        assert_eq!(of_step("exit code 2"), "exit code 2");
        assert_eq!(
            of_step("params: p has no value; give it in spec.params"),
            "params: p has no value; give it with -p NAME=VALUE"
        );
    }

    #[test]
    fn no_hint_leads_to_the_cluster() {
        let told = "service web ended with exit code 3: bye; its output: windlass logs hello-7 --service web";
        assert_eq!(of_run(told), "service web ended with exit code 3: bye");
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
