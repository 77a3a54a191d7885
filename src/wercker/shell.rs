//! What can be told of a shell script without running it: which variables and commands it names.
//!
//! `convert` asks, to say what a pipeline needs from outside and to keep what steps of Wercker shared.
//!
//! **Invariant:** a guess that errs on the side of naming too much: its answers lead to comments, to variables that may
//! be missing and to an `export`, never to code that is changed.

use std::collections::BTreeSet;

/// Names that a shell has by itself, or that every box has.
const OF_SHELLS: [&str; 31] = [
    "HOME",
    "PATH",
    "PWD",
    "OLDPWD",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "LANG",
    "HOSTNAME",
    "IFS",
    "PS1",
    "PS4",
    "RANDOM",
    "SECONDS",
    "LINENO",
    "PPID",
    "UID",
    "EUID",
    "BASH",
    "BASH_SOURCE",
    "BASH_VERSION",
    "FUNCNAME",
    "OPTARG",
    "OPTIND",
    "REPLY",
    "PIPESTATUS",
    "TMPDIR",
    "CI",
    "BUILD",
    "DEPLOY",
];

/// A name and what stands before and after it.
fn names(code: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let bytes = code.as_bytes();
    let is = |at: usize| bytes.get(at).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() && !is(at) {
            at += 1;
        }
        let from = at;
        while is(at) {
            at += 1;
        }
        let (before, after) = (code.get(..from)?, code.get(at..)?);
        code.get(from..at).filter(|name| !name.is_empty()).map(|name| (before, name, after))
    })
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// Variables that are read: `$NAME`, `${NAME…`.
pub(super) fn used(code: &str) -> BTreeSet<&str> {
    let read = |before: &str| {
        let plain =
            before.strip_suffix("${").or_else(|| before.strip_suffix("${#")).or_else(|| before.strip_suffix('$'));
        plain.is_some_and(|before| !before.ends_with('\\'))
    };
    names(code).filter(|(before, name, _)| is_name(name) && read(before)).map(|(_, name, _)| name).collect()
}

/// Variables that are set: `NAME=`, `for NAME`, `read NAME`, `export NAME`.
pub(super) fn assigned(code: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for (before, name, after) in names(code).filter(|(_, name, _)| is_name(name)) {
        let line = before.rsplit('\n').next().unwrap_or_default();
        let word = line.trim_end();
        let begins = line.is_empty() || line.ends_with([' ', '\t', ';', '&', '|', '(', '`', '{']);
        let sets = begins && (after.starts_with('=') || after.starts_with("+=")) && !after.starts_with("==");
        let taken =
            begins && ["for", "read", "read -r", "select", "getopts"].iter().any(|verb| ends_with_word(word, verb));
        if sets || taken {
            found.insert(name);
        }
        // `${NAME:=value}`
        if line.ends_with("${") && (after.starts_with(":=") || after.starts_with('=')) {
            found.insert(name);
        }
    }
    found
}

fn ends_with_word(text: &str, word: &str) -> bool {
    text.strip_suffix(word).is_some_and(|before| before.is_empty() || before.ends_with([' ', '\t', ';', '&', '|', '(']))
}

/// Variables that are exported: `export NAME`, `export A=1 B=2`, `declare -x NAME`.
pub(super) fn exported(code: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for part in code.split(['\n', ';', '&', '|', '(', ')']) {
        let mut words = part.split_whitespace();
        let verb = words.next().unwrap_or_default();
        let exports = verb == "export" || (matches!(verb, "declare" | "typeset") && part.contains("-x"));
        if exports {
            found.extend(words.filter_map(|word| word.split('=').next()).filter(|name| is_name(name)));
        }
    }
    found
}

/// Whether everything that is set is exported from here on.
pub(super) fn exports_all(code: &str) -> bool {
    code.contains("set -a") || code.contains("set -o allexport")
}

/// Functions that are defined.
pub(super) fn functions(code: &str) -> BTreeSet<&str> {
    let defined = |before: &str, after: &str| {
        let line = before.rsplit('\n').next().unwrap_or_default();
        after.trim_start().starts_with("()")
            && line.trim_end().split([';', '}']).next_back().is_some_and(|l| matches!(l.trim(), "" | "function"))
            || ends_with_word(line.trim_end(), "function")
    };
    names(code)
        .filter(|(before, name, after)| is_name(name) && defined(before, after))
        .map(|(_, name, _)| name)
        .collect()
}

/// Whether a command is called: a word where a command can begin.
pub(super) fn calls(code: &str, command: &str) -> bool {
    let begins = |before: &str| {
        let line = before.rsplit('\n').next().unwrap_or_default();
        let word = line.trim_end();
        let verbs = ["then", "else", "do", "if", "elif", "while", "until", "!"];
        word.is_empty()
            || word.ends_with([';', '&', '|', '(', '{', '`'])
            || verbs.iter().any(|verb| ends_with_word(word, verb))
    };
    names(code).any(|(before, name, after)| {
        name == command
            && begins(before)
            && (after.is_empty() || after.starts_with([' ', '\t', '\n', ';', ')', '&', '|']))
    })
}

/// Whether a name is one that steps have without being given it.
pub(super) fn is_known(name: &str) -> bool {
    OF_SHELLS.contains(&name) || name == "WERCKER" || name.starts_with("WERCKER_") || name.starts_with("WINDLASS")
}

/// A text in double quotes, in which a shell expands variables and nothing else.
pub(super) fn double_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '`') {
            out.push('\\');
        }
        out.push(c);
    }
    // A command substitution was none in Wercker's properties either, but its shell carried it out.
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn list<'a>(names: &BTreeSet<&'a str>) -> Vec<&'a str> {
        names.iter().copied().collect()
    }

    #[rstest]
    #[case("echo $A ${B} \"$C\" ${#D} ${E:-x} \\$F $1 $$ $(G)", &["A", "B", "C", "D", "E"])]
    #[case("a.$A_b-", &["A_b"])]
    fn reads(#[case] code: &str, #[case] expected: &[&str]) {
        assert_eq!(list(&used(code)), expected);
    }

    #[rstest]
    #[case("A=1 B=2 make; C=3 && export D=4\n  E+=x", &["A", "B", "C", "D", "E"])]
    #[case("for f in *; do :; done; while read -r line; do :; done", &["f", "line"])]
    #[case("[ $A == x ]; test A=b; x --A=b; : ${G:=1}", &["A", "G"])]
    #[case("if [ \"$A\" = x ]; then echo; fi", &[])]
    fn sets(#[case] code: &str, #[case] expected: &[&str]) {
        assert_eq!(list(&assigned(code)), expected);
    }

    #[rstest]
    #[case("export A B=2; declare -x C; export\nx && export D=$(x)", &["A", "B", "C", "D"])]
    fn exports(#[case] code: &str, #[case] expected: &[&str]) {
        assert_eq!(list(&exported(code)), expected);
    }

    #[rstest]
    #[case("a() { :; }\nfunction b { :; }\nfunction c () { :; }\n echo d(", &["a", "b", "c"])]
    fn defines(#[case] code: &str, #[case] expected: &[&str]) {
        assert_eq!(list(&functions(code)), expected);
    }

    #[rstest]
    #[case("fail \"no\"", true)]
    #[case("x || fail no", true)]
    #[case("if ! x; then fail; fi", true)]
    #[case("echo fail", false)]
    #[case("fail-fast", false)]
    #[case("failed", false)]
    fn calls_commands(#[case] code: &str, #[case] expected: bool) {
        assert_eq!(calls(code, "fail"), expected);
    }

    proptest! {
        #[test]
        fn any_text_has_answers(code in "[a-cA=$ {}()\"'\\\\;|é\\n:+-]{0,60}") {
            for name in used(&code).into_iter().chain(assigned(&code)).chain(functions(&code)) {
                prop_assert!(code.contains(name));
            }
        }
    }
}
