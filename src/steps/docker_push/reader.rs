//! Reads written properties: expands them, collects what is wrong, and words the messages.
//!
//! **Invariant:** where a property names a variable, messages repeat the property as it was written and
//! never what it expanded to.

use super::super::{
    StepError,
    expand::{self, ExpandError},
    grammar::{self, Flaw, Word},
};
use crate::api::{condition::reason, text::Pairs};
use std::collections::BTreeMap;

/// Most characters of a property that a message repeats.
const MAX_SHOWN: usize = 100;
/// Most problems that one message tells; the status of a step holds 1 KiB.
const MAX_TOLD: usize = 5;

/// Expands properties and collects what is wrong in them.
pub(in crate::steps) struct Reader<'a> {
    root: &'a str,
    /// `None`: variables are not known yet.
    env: Option<&'a BTreeMap<String, String>>,
    errors: Vec<StepError>,
}

impl<'a> Reader<'a> {
    /// A reader that judges literals only; paths begin with `root`.
    pub(in crate::steps) fn literal(root: &'a str) -> Self {
        Self { root, env: None, errors: Vec::new() }
    }

    /// A reader that knows all variables.
    pub(in crate::steps) fn with_env(env: &'a BTreeMap<String, String>) -> Self {
        Self { root: "", env: Some(env), errors: Vec::new() }
    }

    /// A variable's value; `None` when it is not set or not known yet.
    pub(in crate::steps) fn variable(&self, name: &str) -> Option<&str> {
        self.env?.get(name).map(String::as_str)
    }

    /// One error that tells everything: the first one's reason, all messages.
    pub(in crate::steps) fn finish(self) -> Result<(), StepError> {
        let Some(first) = self.errors.first() else { return Ok(()) };
        let mut told: Vec<&str> = self.errors.iter().map(|error| error.message.as_str()).take(MAX_TOLD).collect();
        let left = self.errors.len().saturating_sub(MAX_TOLD);
        let more = format!("and {left} more");
        if left > 0 {
            told.push(&more);
        }
        Err(StepError::new(first.reason, told.join("; ")))
    }

    /// Records that a property is wrong.
    pub(in crate::steps) fn wrong(&mut self, path: &str, problem: &str) {
        self.refuse(reason::INVALID_PROPERTY, path, problem);
    }

    /// Records why a property is refused.
    pub(in crate::steps) fn refuse(&mut self, reason: &'static str, path: &str, problem: &str) {
        let path = if self.root.is_empty() { path.to_owned() } else { format!("{}.{path}", self.root) };
        self.errors.push(StepError::new(reason, format!("{path}: {problem}")));
    }

    /// Records why a part of a property is refused, and repeats how it was written.
    pub(in crate::steps) fn refuse_at(&mut self, reason: &'static str, place: &Place, problem: &str) {
        let at = place.position.map(|position| format!(" at position {position}")).unwrap_or_default();
        let once = if expand::has_variables(&place.written) { " once expanded" } else { "" };
        self.refuse(reason, &place.path, &format!("{}{at}{once}: {problem}", shown(&place.written)));
    }

    /// Records that a property that holds one value is wrong, and repeats it.
    pub(in crate::steps) fn wrong_value(&mut self, path: &str, written: &str, problem: &str) {
        self.refuse_at(reason::INVALID_PROPERTY, &Place::new(path.to_owned(), written), problem);
    }

    /// Takes what a parser gave, or records its flaw.
    pub(in crate::steps) fn accept<T>(&mut self, path: &str, written: &str, parsed: Result<T, Flaw>) -> Option<T> {
        let flaw = match parsed {
            Ok(value) => return Some(value),
            Err(flaw) => flaw,
        };
        if expand::has_variables(written) {
            let what = format!("{} is wrong at position {} once expanded", shown(written), flaw.position);
            self.wrong(path, &format!("{what}: {}", flaw.problem));
        } else if flaw.item.trim() == written.trim() {
            self.wrong(path, &format!("{}: {}", shown(&flaw.item), flaw.problem));
        } else {
            self.wrong(path, &format!("{} at position {}: {}", shown(&flaw.item), flaw.position, flaw.problem));
        }
        None
    }

    /// Expands a property; `None` when it cannot be judged yet or something is wrong, which is recorded.
    pub(in crate::steps) fn expand(&mut self, path: &str, written: &str) -> Option<String> {
        self.expand_or_hint(path, written, "")
    }

    /// Expands a word in which a dollar may be meant for the image: the message says how to keep it.
    pub(in crate::steps) fn expand_word(&mut self, path: &str, written: &str) -> Option<String> {
        self.expand_or_hint(path, written, ", or write $$ for a dollar that stays")
    }

    /// Expands a value. While variables are not known it is empty, so that the name beside it is judged.
    fn expand_value(&mut self, path: &str, written: &str) -> Option<String> {
        let unknown = self.env.is_none() && expand::has_variables(written);
        self.expand_word(path, written).or_else(|| unknown.then(String::new))
    }

    fn expand_or_hint(&mut self, path: &str, written: &str, hint: &str) -> Option<String> {
        let none = BTreeMap::new();
        let text = match (expand::expand(written, self.env.unwrap_or(&none)), self.env) {
            (Ok(text), _) => text,
            (Err(ExpandError::Undefined(_)), None) => return None,
            (Err(ExpandError::Undefined(name)), Some(_)) => {
                let problem = format!("${name} is not set; export it in an earlier step{hint}");
                self.refuse(reason::UNDEFINED_VARIABLE, path, &problem);
                return None;
            }
            (Err(ExpandError::Malformed(position)), _) => {
                let what = format!("{} at position {position}", shown(written));
                self.wrong(path, &format!("{what}: expected ${{NAME}}; write $$ for a dollar that stays"));
                return None;
            }
            (Err(ExpandError::TooLong), _) => {
                self.wrong(path, &format!("{} expands to more than 64 KiB", shown(written)));
                return None;
            }
        };
        if text.contains('\0') {
            self.wrong(path, &format!("{} holds a NUL character", shown(written)));
            return None;
        }
        Some(text)
    }

    /// Expands a property that must not turn out empty; one that was written empty is "not set".
    pub(in crate::steps) fn expand_non_empty(&mut self, path: &str, written: &str, expected: &str) -> Option<String> {
        let text = self.expand(path, written)?;
        if !text.trim().is_empty() {
            return Some(text);
        }
        if !written.trim().is_empty() {
            self.wrong(path, &format!("{} is empty once expanded: expected {expected}", shown(written)));
        }
        None
    }

    /// Splits a string into words. The words still hold their variables, but where the whole string is one
    /// variable: then they are those of its value, and the second part of the answer is true.
    pub(in crate::steps) fn split(
        &mut self,
        path: &str,
        written: &str,
        split: impl Fn(&str) -> Result<Vec<Word>, Flaw>,
    ) -> Option<(Vec<Word>, bool)> {
        let sole = expand::sole_variable(written).is_some();
        let text = if sole { self.expand_non_empty(path, written, "a value")? } else { written.to_owned() };
        // A flaw in what was written is told as such: nothing of it was expanded.
        let words = match split(&text) {
            Err(flaw) if !sole => {
                let what = format!("{} at position {}", shown(&flaw.item), flaw.position);
                self.wrong(path, &format!("{what}: {}", flaw.problem));
                return None;
            }
            words => self.accept(path, written, words)?,
        };
        Some((words, sole))
    }

    /// Reads `env` or `labels` in any of their notations. A pair is split at its first `=` as written, so
    /// that no value can become part of a name; only a pair without one is split once it is expanded.
    pub(in crate::steps) fn pairs(&mut self, property: &str, pairs: Option<&Pairs>) -> Vec<(Place, String, String)> {
        match pairs {
            None => Vec::new(),
            Some(Pairs::Map(map)) => map
                .iter()
                .filter_map(|(name, value)| {
                    let place = Place::new(format!("{property}.{}", clipped(name)), name);
                    let read_name = self.expand_word(&place.path, name);
                    let read_value = self.expand_value(&place.path, value);
                    Some((place, read_name?, read_value?))
                })
                .collect(),
            Some(Pairs::List(list)) => list
                .iter()
                .enumerate()
                .filter_map(|(i, item)| self.pair(Place::new(format!("{property}[{i}]"), item), item, false))
                .collect(),
            Some(Pairs::Text(text)) if text.trim().is_empty() => Vec::new(),
            Some(Pairs::Text(text)) => {
                let (words, expanded) = self.split(property, text, grammar::pair_entries).unwrap_or_default();
                words
                    .into_iter()
                    .filter_map(|word| {
                        let mut place = Place::new(property.to_owned(), if expanded { text } else { &word.text });
                        place.position = Some(word.position).filter(|_| word.text != text.trim());
                        self.pair(place, &word.text, expanded)
                    })
                    .collect()
            }
        }
    }

    /// Reads one `NAME=value`; `expanded` says that no variable is left in it.
    fn pair(&mut self, place: Place, item: &str, expanded: bool) -> Option<(Place, String, String)> {
        let pair = match item.split_once('=') {
            Some((name, value)) if expanded => (name.to_owned(), value.to_owned()),
            Some((name, value)) => (self.expand_word(&place.path, name)?, self.expand_value(&place.path, value)?),
            None => {
                let text = if expanded { item.to_owned() } else { self.expand_word(&place.path, item)? };
                let Some((name, value)) = text.split_once('=') else {
                    let problem = "expected a name, '=' and a value; quote a value that holds a space or a comma";
                    self.refuse_at(reason::INVALID_PROPERTY, &place, problem);
                    return None;
                };
                (name.to_owned(), value.to_owned())
            }
        };
        Some((place, pair.0, pair.1))
    }
}

/// Where something was written, for messages.
pub(in crate::steps) struct Place {
    path: String,
    written: String,
    /// Characters, from 1; `None` where the path says it all.
    position: Option<usize>,
}

impl Place {
    fn new(path: String, written: &str) -> Self {
        Self { path, written: written.to_owned(), position: None }
    }
}

/// The beginning of a text, on one line.
fn clipped(text: &str) -> String {
    let mut chars = text.chars();
    let mut out = String::new();
    for c in chars.by_ref().take(MAX_SHOWN) {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    if chars.next().is_some() {
        out.push('…');
    }
    out
}

/// A property as a message repeats it.
fn shown(text: &str) -> String {
    format!("\"{}\"", clipped(text))
}
