//! The variables that a run of Wercker's command line began with: a file of them, and `X_NAME` and `XXX_NAME` of the
//! machine.
//!
//! `client` gathers them for local runs; `convert` expands texts of boxes and services with them.
//!
//! **Invariant:** pure. What was hidden stays apart from what may be seen.

use crate::api::env::can_be_set;
use std::collections::BTreeMap;

/// Name of the file, if no other is given.
pub const FILE: &str = "ENVIRONMENT";
/// Prefix of variables that are passed on.
const SEEN: &str = "X_";
/// Prefix of variables that are passed on and never shown.
const HIDDEN: &str = "XXX_";
/// What is passed on as it is called.
const AS_CALLED: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "WERCKER_STARTED_BY",
    "WERCKER_MAIN_PIPELINE_STARTED",
];

/// Variables by name. Without `Debug`, as some are secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// Those that may be seen.
    pub seen: BTreeMap<String, String>,
    /// Those that are masked.
    pub hidden: BTreeMap<String, String>,
}

impl Environment {
    /// The variables of a run: `machine` is the caller's environment, `file` the lines of a file. What the machine has
    /// and is not empty wins. A name of the file needs no prefix, though Wercker wanted one.
    pub fn new(machine: impl IntoIterator<Item = (String, String)>, file: Vec<(String, String)>) -> Self {
        let mut all = Self::default();
        let mut file = file;
        // What hides a name wins over what shows it, in whatever order they stand.
        file.sort_by_key(|(name, _)| name.starts_with(HIDDEN));
        for (name, value) in file {
            all.put(&name, value, true);
        }
        let mut machine: Vec<(String, String)> = machine.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        // `X_http_proxy` wins over `http_proxy`.
        machine.sort_by_key(|(name, _)| (!AS_CALLED.contains(&name.as_str()), name.starts_with(HIDDEN)));
        for (name, value) in machine {
            let as_called = AS_CALLED.contains(&name.as_str());
            all.put(&name, value, as_called);
        }
        all
    }

    /// Sets a variable, or hides it. One that is hidden stays so, whatever value it gets.
    fn put(&mut self, name: &str, value: String, without_prefix: bool) {
        let (name, hidden) = match (name.strip_prefix(HIDDEN), name.strip_prefix(SEEN)) {
            (Some(name), _) => (name, true),
            (None, Some(name)) => (name, false),
            (None, None) if without_prefix => (name, false),
            (None, None) => return,
        };
        if !can_be_set(name) {
            return;
        }
        if hidden {
            self.seen.remove(name);
            self.hidden.insert(name.to_owned(), value);
        } else if let Some(hidden) = self.hidden.get_mut(name) {
            *hidden = value;
        } else {
            self.seen.insert(name.to_owned(), value);
        }
    }

    /// The value of a variable, hidden or not.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.hidden.get(name).or_else(|| self.seen.get(name)).map(String::as_str)
    }
}

/// The lines of a file: `NAME=value`, with or without `export`; `#` begins a comment, and one pair of quotes around a
/// value goes. Lines without `=` count for nothing, as in Wercker.
#[must_use]
pub fn lines(text: &str) -> Vec<(String, String)> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(line).collect()
}

/// Lines that set nothing, by their numbers, with why: most are typos. No text of the file is told.
#[must_use]
pub fn idle_lines(text: &str) -> Vec<(usize, &'static str)> {
    let why = |text: &str| {
        let Some((name, _)) = line(text) else { return Some("expected NAME=VALUE") };
        let name = name.strip_prefix(HIDDEN).or_else(|| name.strip_prefix(SEEN)).unwrap_or(&name);
        (!can_be_set(name)).then_some("its name is none for a variable")
    };
    let numbered = text.lines().enumerate().filter(|(_, text)| !text.starts_with('#') && !text.trim().is_empty());
    numbered.filter_map(|(at, text)| Some((at + 1, why(text)?))).collect()
}

fn line(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once('=')?;
    let name = name.trim();
    let name = name.strip_prefix("export ").unwrap_or(name).trim();
    let value = value.trim();
    let quoted = ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .map(|inner| inner.replace("\\\"", "\"").replace("\\n", "\n"));
    (!name.is_empty()).then(|| (name.to_owned(), quoted.unwrap_or_else(|| value.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[rstest]
    #[case("A=1", Some(("A", "1")))]
    #[case("export A = x=y ", Some(("A", "x=y")))]
    #[case("A=\"one \\\"two\\\"\\nthree\"", Some(("A", "one \"two\"\nthree")))]
    #[case("A='it''s'", Some(("A", "it''s")))]
    #[case("A=\"open", Some(("A", "\"open")))]
    #[case("A=\"", Some(("A", "\"")))]
    #[case("A=\\n", Some(("A", "\\n")))]
    #[case("#A=1", None)]
    #[case("A", None)]
    #[case("=1", None)]
    fn a_line_is_read_as_wercker_did(#[case] text: &str, #[case] expected: Option<(&str, &str)>) {
        let expected: Vec<_> = expected.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        assert_eq!(lines(text), expected);
    }

    #[test]
    fn lines_that_set_nothing_are_told_by_number() {
        let text = "# ok\n\nA=1\nBAD LINE\n=x\nTOKN\nX_ = 1\nX_1BAD=3\nexport B=2\nXXX_C=3\n";
        let (value, name) = ("expected NAME=VALUE", "its name is none for a variable");
        assert_eq!(idle_lines(text), [(4, value), (5, value), (6, value), (7, name), (8, name)]);
    }

    #[test]
    fn what_has_a_prefix_enters_the_run() {
        let file = pairs(&[("X_A", "file"), ("B", "file"), ("XXX_TOKEN", "file"), ("C", "seen"), ("no name", "x")]);
        let machine = pairs(&[
            ("X_A", ""),
            ("X_B", "machine"),
            ("HOME", "/root"),
            ("XXX_C", "hidden"),
            ("X_https_proxy", "mine"),
            ("https_proxy", "theirs"),
            ("http_proxy", "theirs"),
            ("WERCKER_STARTED_BY", "ann"),
        ]);
        let all = Environment::new(machine, file);
        let seen = [
            ("A", "file"),
            ("B", "machine"),
            ("WERCKER_STARTED_BY", "ann"),
            ("http_proxy", "theirs"),
            ("https_proxy", "mine"),
        ];
        assert!(all.seen == pairs(&seen).into_iter().collect(), "{:?}", all.seen.keys());
        assert!(all.hidden == pairs(&[("TOKEN", "file"), ("C", "hidden")]).into_iter().collect());
        assert_eq!((all.get("C"), all.get("HOME")), (Some("hidden"), None));
    }

    #[rstest]
    #[case::hidden_by_the_file(&[("XXX_A", "file")], &[("X_A", "machine")], "machine")]
    #[case::hidden_by_the_machine(&[("A", "file")], &[("XXX_A", "machine")], "machine")]
    #[case::hidden_wins_among_equals(&[], &[("XXX_A", "hidden"), ("X_A", "seen")], "hidden")]
    #[case::in_either_order(&[("X_A", "seen"), ("XXX_A", "hidden")], &[], "hidden")]
    #[case::the_later_line(&[("XXX_A", "one"), ("XXX_A", "two")], &[], "two")]
    fn what_was_hidden_once_stays_hidden_and_the_machine_wins(
        #[case] file: &[(&str, &str)],
        #[case] machine: &[(&str, &str)],
        #[case] value: &str,
    ) {
        let all = Environment::new(pairs(machine), pairs(file));
        assert!(all.seen.is_empty() && all.hidden == pairs(&[("A", value)]).into_iter().collect());
    }
}
