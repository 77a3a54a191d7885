//! Rules and merge strategies that several fields share, and the words users read when a rule fails.
//!
//! The attributes `x_kube(…)` of the neighbouring files call them; rules that stand once are written at
//! their field. The API server evaluates them (CEL), nobody here does.
//!
//! **Invariant:** every string, list and map under a rule has a limit in the schema, or the API server
//! refuses the definitions for the cost of their rules.

use kube::core::{ListMerge, Reason, Rule};

/// A list whose entries have an owner each, told apart by their name.
pub(super) fn by_name() -> ListMerge {
    by("name")
}

/// A list whose entries have an owner each, told apart by `key`.
pub(super) fn by(key: &str) -> ListMerge {
    ListMerge::Map(vec![key.into()])
}

/// A union: one member is there, the others are not.
pub(super) fn exactly_one(members: &[&str]) -> Rule {
    let has: Vec<String> = members.iter().map(|m| format!("has(self.{m})")).collect();
    let names = match members {
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
        [] => String::new(),
    };
    Rule::new(format!("[{}].filter(x, x).size() == 1", has.join(", ")))
        .message(format!("set exactly one of {names}").as_str())
}

/// A duration between two others. The pattern bounds the digits first: `duration()` of anything else
/// fails in CEL's own words.
pub(super) fn duration(from: &str, to: &str) -> Rule {
    Rule::new(format!(
        "self.matches('^([0-9]{{1,5}}h)?([0-9]{{1,5}}m)?([0-9]{{1,6}}s)?$') \
         && duration(self) >= duration('{from}') && duration(self) <= duration('{to}')"
    ))
    .message(format!("must be a duration such as 90s, 5m or 1h30m, from {from} to {to}").as_str())
}

/// A name of a step, service, cache or artifact.
pub(super) fn name() -> Rule {
    Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("must be lower-case letters, digits and '-', and begin and end with a letter or digit")
}

/// A name of an object that other names are made from.
pub(super) fn no_dot() -> Rule {
    Rule::new("!self.metadata.name.contains('.')")
        .message("the name may not hold a dot; it becomes a host name and a label")
}

/// An image reference. What is between the slashes is the resolver's to judge.
pub(super) fn image() -> Rule {
    Rule::new(r"!self.matches('\\s') && !self.matches('^[a-z]+://')").message(
        "must be an image reference such as debian:12 or registry.example.com/team/app@sha256:..., without https://",
    )
}

/// A user, and perhaps a group, by number.
pub(super) fn user() -> Rule {
    Rule::new("self.matches('^[0-9]{1,10}(:[0-9]{1,10})?$')")
        .message("must be numbers, UID or UID:GID; names cannot be looked up before the image runs")
}

/// What git can fetch. A leading `-` would be an option of git.
pub(super) fn revision() -> Rule {
    Rule::new(r"!self.startsWith('-') && !self.matches('[\\s~^:?*\\[\\\\]') && !self.contains('..')")
        .message("must be a branch, tag, commit or full ref such as refs/pull/7/head")
}

/// A secret property of a push step, given by a variable; `example` is shown.
pub(super) fn one_variable(example: &str) -> Rule {
    Rule::new(r"self.matches('^\\$(\\{[A-Za-z_][A-Za-z0-9_]*\\}|[A-Za-z_][A-Za-z0-9_]*)$')").message(
        format!(
            "must be one variable such as ${example} whose value comes from a Secret; \
             a literal here could be read by everyone who can read this object"
        )
        .as_str(),
    )
}

/// The budget of all values in `env` of a pipeline or run.
pub(super) fn env_budget() -> Rule {
    Rule::new("!has(self.env) || self.env.map(e, has(e.value) ? size(e.value) : 0).sum() <= 65536")
        .message("all values in env together may hold at most 65536 characters; use a ConfigMap")
        .field_path(".env")
}

/// Only one way to log in to a registry; `path` is the property the message points at.
pub(super) fn one_login(rule: &str, path: &str) -> Rule {
    Rule::new(rule)
        .message("log in one way: credentials, or username and password, or the aws properties")
        .field_path(path)
}

const RUN_IS_FIXED: &str = "a run cannot be changed once created; make a new PipelineRun";

/// A field of a run's spec that keeps its value.
pub(super) fn fixed() -> Rule {
    Rule::new("self == oldSelf").message(RUN_IS_FIXED).reason(Reason::FieldValueForbidden)
}

/// Fields of a run's spec that neither appear nor go: [`fixed`] is not asked then.
pub(super) fn fixed_presence(fields: &[&str]) -> Rule {
    let same: Vec<String> = fields.iter().map(|f| format!("has(self.{f}) == has(oldSelf.{f})")).collect();
    Rule::new(same.join(" && ")).message(RUN_IS_FIXED).reason(Reason::FieldValueForbidden)
}

/// A field of the status that keeps its value, whoever writes.
pub(super) fn written_once() -> Rule {
    Rule::new("self == oldSelf").message("is written once").reason(Reason::FieldValueForbidden)
}
