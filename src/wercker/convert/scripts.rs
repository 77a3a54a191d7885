//! Shell code of steps: what one shell for all steps gave them, given to each.
//!
//! **Invariant:** the user's code stays as it is; lines are only put before it.

use super::{
    super::{out::Map, shell},
    Converter,
};
use crate::yaml::Span;
use std::collections::BTreeSet;

/// A step that was made.
pub(super) struct Made {
    /// As it will be written.
    pub(super) out: Map,
    /// Whether it is an after-step.
    pub(super) after: bool,
    /// Where it stands in the file.
    pub(super) at: Span,
    /// What people see of it.
    pub(super) title: String,
    /// Its shell code, if it has any.
    pub(super) code: String,
    /// Other texts in which variables are expanded.
    pub(super) texts: Vec<String>,
    /// Variables with which it logs in.
    pub(super) logins: Vec<String>,
}

/// Most functions that are looked for in later steps.
const MOST_FUNCTIONS: usize = 100;

/// Functions that every script of Wercker had.
const HELPERS: [(&str, &str); 7] = [
    ("success", "success() { echo \"success: $*\"; }"),
    ("info", "info() { echo \"info: $*\"; }"),
    ("debug", "debug() { echo \"debug: $*\"; }"),
    ("warn", "warn() { echo \"warning: $*\"; }"),
    ("error", "error() { echo \"error: $*\" >&2; }"),
    ("setMessage", "setMessage() { echo \"$*\"; }"),
    ("fail", "fail() { echo \"failed: $*\" >&2; exit 1; }"),
];

/// Interpreters that are shells: a script of one can be read by that of the box, as a rule.
const SHELLS: [&str; 8] = ["sh", "bash", "ash", "dash", "ksh", "mksh", "zsh", "busybox"];

/// Why a script runs without `set -e`.
pub(super) const OF_SHEBANG: &str =
    "a script that began with #! ran without set -e, and in the shell of the box all the same";
/// As [`OF_SHEBANG`].
pub(super) const OF_FILES: &str = "the run.sh of a step ran without set -e, unless it said so itself";

/// Lines that a script needs before it, and why. `goes_on`: why a command that fails does not end it.
pub(super) fn before(code: &str, goes_on: Option<&str>) -> (String, Vec<String>) {
    let (mut lines, mut notes) = (String::new(), Vec::new());
    if let Some(why) = goes_on {
        lines.push_str("set +e\n");
        notes.push(why.to_owned());
    }
    let own = shell::functions(code);
    for (name, line) in HELPERS {
        if shell::calls(code, name) && !own.contains(name) {
            lines.push_str(line);
            lines.push('\n');
        }
    }
    if lines.contains("()") {
        notes.push("Wercker gave every script these functions".to_owned());
    }
    (lines, notes)
}

/// For each script, the variables that it sets without export and that a later step uses: Wercker had one shell.
pub(super) fn to_export(codes: &[&str], texts: &[Vec<&str>]) -> Vec<Vec<String>> {
    let used: Vec<BTreeSet<&str>> = codes
        .iter()
        .zip(texts)
        .map(|(code, texts)| {
            let own = shell::assigned(code);
            let in_texts = texts.iter().flat_map(|text| crate::steps::expand::variables(text));
            shell::used(code).into_iter().filter(|name| !own.contains(name)).chain(in_texts).collect()
        })
        .collect();
    let one = |index: usize, code: &&str| -> Vec<String> {
        if shell::exports_all(code) {
            return Vec::new();
        }
        let exported = shell::exported(code);
        let later: BTreeSet<&str> = used.iter().skip(index + 1).flatten().copied().collect();
        let set = shell::assigned(code).into_iter();
        set.filter(|name| later.contains(name) && !exported.contains(name) && !shell::is_known(name))
            .map(str::to_owned)
            .collect()
    };
    codes.iter().enumerate().map(|(index, code)| one(index, code)).collect()
}

/// What a script's first line names that is no shell.
pub(super) fn interpreter(code: &str) -> Option<&str> {
    let mut words = code.trim_start().strip_prefix("#!")?.lines().next()?.split_whitespace();
    let first = words.next()?;
    let named = match base(first) {
        // It may have flags and variables before the program.
        "env" => words.find(|word| !word.starts_with('-') && !word.contains('='))?,
        _ => first,
    };
    (!SHELLS.contains(&base(named))).then_some(named)
}

/// A program without its directory.
fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Functions that a later step calls: they do not outlive their step here.
pub(super) fn shared_functions(converter: &mut Converter<'_>, made: &[Made]) -> Vec<String> {
    let mut notes = Vec::new();
    let mut left = MOST_FUNCTIONS;
    for (index, step) in made.iter().enumerate() {
        for name in shell::functions(&step.code).into_iter().take(left) {
            left -= 1;
            let own = |later: &&Made| !shell::functions(&later.code).contains(name);
            let user = made.iter().skip(index + 1).filter(own).find(|later| shell::calls(&later.code, name));
            if let Some(user) = user {
                let said = format!(
                    "Step {} calls {name}, a function of step {}: functions end with their step here. Put it into a file of the source and read that in both.",
                    user.title, step.title
                );
                notes.push(converter.lost(user.at, &said));
            }
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("#!/bin/sh\nx", None)]
    #[case("\n #! /usr/bin/env bash\nx", None)]
    #[case("#!/usr/bin/env -S A=b perl -w\nx", Some("perl"))]
    #[case("#!/nonexistent/interp", Some("/nonexistent/interp"))]
    #[case("#!/usr/local/bin/python3\n", Some("/usr/local/bin/python3"))]
    #[case("#!/usr/bin/env", None)]
    #[case("#!", None)]
    #[case("echo '#!/usr/bin/perl'", None)]
    fn an_interpreter_is_what_the_first_line_names(#[case] code: &str, #[case] expected: Option<&str>) {
        assert_eq!(interpreter(code), expected);
    }

    #[test]
    fn what_later_steps_use_is_exported() {
        let codes = ["A=1\nB=2; export C=3\nD=4", "echo $A $C $D", "D=5; echo $D", ""];
        let texts = [vec![], vec![], vec![], vec!["$B"]];
        assert_eq!(to_export(&codes, &texts), [vec!["A", "B", "D"], vec![], vec![], vec![]]);
        assert_eq!(to_export(&["set -a\nA=1", "echo $A"], &[vec![], vec![]]), [vec![] as Vec<String>, vec![]]);
    }

    #[test]
    fn scripts_get_the_functions_they_call() {
        let (lines, notes) = before("make || fail 'no'\n", None);
        assert_eq!(lines, "fail() { echo \"failed: $*\" >&2; exit 1; }\n");
        assert_eq!(notes.len(), 1);
        assert_eq!(before("echo info\nfail() { :; }\nfail\n", None).0, "");
        assert_eq!(before("#!/bin/bash\nfalse\ntrue\n", Some(OF_SHEBANG)).0, "set +e\n");
    }
}
