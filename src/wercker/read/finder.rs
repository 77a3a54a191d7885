//! What all readers share: values of a kind, and what is said when they are not.
//!
//! **Invariant:** a value of the wrong kind is told once, where it stands.

use super::super::document::Text;
use crate::yaml::{Diagnostic, Entry, Findings, Node, Span, reason, truth};

/// Collects what is found.
#[derive(Default)]
pub(super) struct Finder {
    pub(super) findings: Findings,
}

impl Finder {
    pub(super) fn error(&mut self, reason: &'static str, at: Span, message: &str, label: &str, hint: Option<String>) {
        let mut found = Diagnostic::error(reason, message).at(at, label);
        found.hint = hint;
        self.findings.push(found);
    }

    pub(super) fn warning(&mut self, reason: &'static str, at: Span, message: &str, label: &str) {
        self.findings.push(Diagnostic::warning(reason, message).at(at, label));
    }

    /// A key that does not exist.
    pub(super) fn unknown(&mut self, what: &str, entry: &Entry, near: Option<&str>) {
        let message = format!("{what}: no such key: {}", entry.key);
        let label = near.map_or_else(String::new, |near| format!("did you mean {near}?"));
        self.error(reason::UNKNOWN_KEY, entry.key_at, &message, &label, None);
    }

    fn wrong(&mut self, what: &str, node: &Node, expected: &str) {
        let message = format!("{what} is {}", node.kind());
        self.error(reason::WRONG_TYPE, node.at, &message, &format!("expected {expected}"), None);
    }

    /// Text; a number or truth value counts as it was written.
    pub(super) fn text(&mut self, what: &str, node: &Node) -> Option<Text> {
        if let Some(text) = node.text().filter(|text| !text.contains('\0')) {
            return Some(Text { value: text.to_owned(), at: node.at });
        }
        self.wrong(what, node, "text");
        None
    }

    /// `true` or `false`.
    pub(super) fn truth(&mut self, what: &str, node: &Node) -> Option<bool> {
        let found = node.text().and_then(truth);
        if found.is_none() {
            let message = format!(
                "{what}: {} is no truth value",
                node.text().map_or(node.kind().to_owned(), |t| format!("{t:?}"))
            );
            self.error(reason::WRONG_TYPE, node.at, &message, "expected true or false", None);
        }
        found
    }

    /// The entries of a map.
    pub(super) fn map<'a>(&mut self, what: &str, node: &'a Node) -> Option<&'a [Entry]> {
        if node.map().is_none() {
            self.wrong(what, node, "a map");
        }
        node.map()
    }

    /// The items of a list.
    pub(super) fn list<'a>(&mut self, what: &str, node: &'a Node) -> Option<&'a [Node]> {
        if node.list().is_none() {
            self.wrong(what, node, "a list");
        }
        node.list()
    }

    /// Texts: a list of them, or one that is split at white space and commas.
    pub(super) fn texts(&mut self, what: &str, node: &Node) -> Vec<Text> {
        if let Some(items) = node.list() {
            return items.iter().filter_map(|item| self.text(what, item)).collect();
        }
        let Some(text) = self.text(what, node) else { return Vec::new() };
        let parts = text.value.split(|c: char| c.is_whitespace() || c == ',').filter(|part| !part.is_empty());
        parts.map(|part| Text { value: part.to_owned(), at: text.at }).collect()
    }
}
