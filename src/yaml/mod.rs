//! YAML with positions: the tree of a document and what can be said about a place in it.
//!
//! `wercker` reads pipelines of Wercker from it, `client::check` files of our own kinds, so that an error can show the
//! line it is about. What is applied to a cluster is read by `client::manifest`, which needs no positions.
//!
//! **Invariant:** pure, and bounded in size, depth and count, aliases included; hostile text is an error, never a panic.

mod diagnostic;
mod parse;

pub use diagnostic::{Diagnostic, Findings, MOST_FINDINGS, Severity, clean, excerpt, nearest, reason, sounds_secret};
pub use parse::{MOST_BYTES, MOST_DEPTH, MOST_NODES, documents};

use serde_json::Value as Json;

/// A place in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// From 1.
    pub line: usize,
    /// Characters, from 1.
    pub column: usize,
    /// Characters of the first line; at least 1 when shown.
    pub width: usize,
}

/// A part of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub at: Span,
    /// What it is.
    pub value: Value,
}

/// What a part of a document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text as written: `1.10` stays `1.10`.
    Scalar {
        /// Without its quotes.
        text: String,
        /// Neither quoted nor a block: `yes` may be a truth value, and nothing may be null.
        plain: bool,
    },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file. No key stands twice.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where it stands.
    pub key_at: Span,
    /// The value.
    pub value: Node,
}

impl Node {
    /// Whether nothing was written: empty, `~` or `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The text of a scalar that is not null.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// The items of a list.
    #[must_use]
    pub fn list(&self) -> Option<&[Node]> {
        if let Value::List(items) = &self.value { Some(items) } else { None }
    }

    /// The entries of a map.
    #[must_use]
    pub fn map(&self) -> Option<&[Entry]> {
        if let Value::Map(entries) = &self.value { Some(entries) } else { None }
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.map()?.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// What it is, in a word for people.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { .. } => "text",
        }
    }

    /// The same as JSON, scalars read as kubectl reads them (YAML 1.2 core, with the truth values of 1.1).
    #[must_use]
    pub fn json(&self) -> Json {
        match &self.value {
            Value::List(items) => items.iter().map(Node::json).collect(),
            Value::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), entry.value.json())).collect(),
            Value::Scalar { text, plain: false } => Json::String(text.clone()),
            Value::Scalar { .. } if self.is_null() => Json::Null,
            Value::Scalar { text, plain: true } => plain(text),
        }
    }
}

/// A truth value, as YAML 1.1 writes them: both Wercker and kubectl read it so.
#[must_use]
pub fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// A scalar without quotes.
fn plain(text: &str) -> Json {
    if let Some(truth) = truth(text) {
        return Json::Bool(truth);
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if number && let Ok(whole) = text.parse::<i64>() {
        return Json::from(whole);
    }
    let float = number.then(|| text.parse::<f64>().ok()).flatten().and_then(serde_json::Number::from_f64);
    float.map_or_else(|| Json::String(text.to_owned()), Json::Number)
}

#[cfg(test)]
mod tests;
