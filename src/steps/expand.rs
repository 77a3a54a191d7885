//! `$VAR` and `${VAR}` in the properties of internal steps.
//!
//! Called by [`super::docker_push`] for every property, and by [`super::logins`] for the variables that log in.
//!
//! The rules: `$NAME` and `${NAME}` are replaced, `$$` is a dollar, and a dollar before anything else
//! (`$1`, `$(`, at the end) stays as it is, as no shell reads these strings. `${` that is not closed or
//! holds more than a name is an error: `${VERSION:-1}` would otherwise be pushed as written.
//!
//! **Invariant:** one pass: what a variable holds is never expanded again.

use std::collections::BTreeMap;

/// Longest string that an expansion may give, in bytes: a short text that repeats a long variable must
/// not fill the memory.
pub const MAX_EXPANDED_BYTES: usize = 65_536;

/// Why a text cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpandError {
    /// The variable is not set.
    Undefined(String),
    /// `${` at this position (characters, from 1) is not `${NAME}`.
    Malformed(usize),
    /// The result is longer than [`MAX_EXPANDED_BYTES`].
    TooLong,
}

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Variable(&'a str),
    Malformed(usize),
}

/// Whether a text names at least one variable. `$$` names none.
#[must_use]
pub fn has_variables(text: &str) -> bool {
    variables(text).next().is_some()
}

/// The names of a text's variables.
pub fn variables(text: &str) -> impl Iterator<Item = &str> {
    pieces(text).into_iter().filter_map(|piece| match piece {
        Piece::Variable(name) => Some(name),
        Piece::Text(_) | Piece::Malformed(_) => None,
    })
}

/// What stands in a text beside its variables.
pub fn literals(text: &str) -> impl Iterator<Item = &str> {
    pieces(text).into_iter().filter_map(|piece| match piece {
        Piece::Text(text) => Some(text),
        Piece::Variable(_) | Piece::Malformed(_) => None,
    })
}

/// The variable's name, if the text is one variable and nothing else: `$PASSWORD`, `${PASSWORD}`.
#[must_use]
pub fn sole_variable(text: &str) -> Option<&str> {
    match pieces(text.trim()).as_slice() {
        [Piece::Variable(name)] => Some(name),
        _ => None,
    }
}

/// Replaces the variables of a text.
///
/// # Errors
/// [`ExpandError`] for a variable that `env` lacks, a malformed `${`, or a result that is too long.
pub fn expand(text: &str, env: &BTreeMap<String, String>) -> Result<String, ExpandError> {
    let mut out = String::with_capacity(text.len());
    for piece in pieces(text) {
        let part = match piece {
            Piece::Text(part) => part,
            Piece::Variable(name) => env.get(name).ok_or_else(|| ExpandError::Undefined(name.to_owned()))?,
            Piece::Malformed(position) => return Err(ExpandError::Malformed(position)),
        };
        if out.len() + part.len() > MAX_EXPANDED_BYTES {
            return Err(ExpandError::TooLong);
        }
        out.push_str(part);
    }
    Ok(out)
}

/// Splits a text at its variables; `$$` has become one dollar.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, dollar) = rest.split_at(at);
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        let after = dollar.strip_prefix('$').unwrap_or_default();
        if let Some(tail) = after.strip_prefix('$') {
            pieces.push(Piece::Text("$"));
            rest = tail;
        } else if let Some(braced) = after.strip_prefix('{') {
            let name = braced.get(..name_length(braced)).unwrap_or_default();
            match braced.get(name.len()..).and_then(|tail| tail.strip_prefix('}')) {
                Some(tail) if !name.is_empty() => {
                    pieces.push(Piece::Variable(name));
                    rest = tail;
                }
                _ => {
                    let position = text.len() - dollar.len();
                    pieces.push(Piece::Malformed(characters_before(text, position) + 1));
                    rest = after;
                }
            }
        } else {
            let (name, tail) = after.split_at(name_length(after));
            pieces.push(if name.is_empty() { Piece::Text("$") } else { Piece::Variable(name) });
            rest = tail;
        }
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

/// Length in bytes of the variable name that a text begins with.
fn name_length(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len())
}

/// How many characters stand before a byte offset.
pub(super) fn characters_before(text: &str, offset: usize) -> usize {
    text.get(..offset).map_or(0, |before| before.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[rstest]
    #[case("plain", "plain")]
    #[case("$A", "1")]
    #[case("${A}", "1")]
    #[case("v$A.$B", "v1.2$A")]
    #[case("${A}B", "1B")]
    #[case("$A-$B_", "1-under")]
    #[case("$$A", "$A")]
    #[case("$$$A", "$1")]
    #[case("$$$$", "$$")]
    #[case("a$", "a$")]
    #[case("$1 $( $? $-", "$1 $( $? $-")]
    #[case("é$Aé", "é1é")]
    #[case("$EMPTY", "")]
    #[case("", "")]
    fn expands(#[case] text: &str, #[case] expected: &str) {
        let env = env(&[("A", "1"), ("B", "2$A"), ("B_", "under"), ("EMPTY", "")]);
        assert_eq!(expand(text, &env).unwrap(), expected);
    }

    #[rstest]
    #[case("$NOPE", ExpandError::Undefined("NOPE".into()))]
    #[case("a${NOPE}", ExpandError::Undefined("NOPE".into()))]
    #[case("é${A:-x}", ExpandError::Malformed(2))]
    #[case("ab${", ExpandError::Malformed(3))]
    #[case("${}", ExpandError::Malformed(1))]
    #[case("${A", ExpandError::Malformed(1))]
    #[case("${1}", ExpandError::Malformed(1))]
    fn refuses(#[case] text: &str, #[case] expected: ExpandError) {
        assert_eq!(expand(text, &env(&[("A", "1")])), Err(expected));
    }

    #[rstest]
    #[case("$A", true)]
    #[case("x${A}", true)]
    #[case("$$A", false)]
    #[case("$", false)]
    #[case("${A:-x}", false)]
    #[case("$1", false)]
    fn tells_variables(#[case] text: &str, #[case] expected: bool) {
        assert_eq!(has_variables(text), expected);
    }

    #[rstest]
    #[case("$PASSWORD", Some("PASSWORD"))]
    #[case(" ${PASSWORD} ", Some("PASSWORD"))]
    #[case("$A$B", None)]
    #[case("x$A", None)]
    #[case("$$A", None)]
    #[case("", None)]
    fn finds_the_sole_variable(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(sole_variable(text), expected);
    }

    #[test]
    fn bounds_the_result() {
        let env = env(&[("A", &"x".repeat(MAX_EXPANDED_BYTES / 2))]);
        assert_eq!(expand("$A$A", &env).unwrap().len(), MAX_EXPANDED_BYTES);
        assert_eq!(expand("$A$A.", &env), Err(ExpandError::TooLong));
    }

    proptest! {
        #[test]
        fn doubled_dollars_survive(text in ".{0,40}") {
            prop_assert_eq!(expand(&text.replace('$', "$$"), &BTreeMap::new()).unwrap(), text.clone());
            prop_assert!(!has_variables(&text.replace('$', "$$")));
        }

        #[test]
        fn values_are_never_expanded_again(value in ".{0,40}", before in "[a-z ]{0,5}", after in "[ .:-]{0,5}") {
            let env = env(&[("V", &value), ("A", "wrong")]);
            prop_assert_eq!(expand(&format!("{before}${{V}}{after}"), &env).unwrap(), format!("{before}{value}{after}"));
        }

        #[test]
        fn never_panics_and_agrees_with_has_variables(text in "[$ {}A-Cé1:-]{0,20}") {
            match expand(&text, &BTreeMap::new()) {
                Err(ExpandError::Undefined(name)) => prop_assert!(has_variables(&text) && text.contains(&name)),
                Err(ExpandError::Malformed(position)) => prop_assert_eq!(text.chars().nth(position - 1), Some('$')),
                Err(ExpandError::TooLong) => prop_assert!(false),
                Ok(_) => prop_assert!(!has_variables(&text)),
            }
        }
    }
}
