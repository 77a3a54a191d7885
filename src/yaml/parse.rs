//! Text into trees.
//!
//! The events of the parser become nodes; aliases are copied in, merge keys (`<<`) are merged.
//!
//! **Invariant:** work and memory are bounded by [`MOST_BYTES`], [`MOST_NODES`] and [`MOST_DEPTH`]: an alias that would
//! copy more than is left of them is an error.

use super::{
    Entry, Node, Span, Value,
    diagnostic::{Diagnostic, MOST_FINDINGS, reason},
};
use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span as Range};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Longest text in bytes; copies of aliases count as well.
pub const MOST_BYTES: usize = 1 << 20;
/// Deepest nesting.
pub const MOST_DEPTH: usize = 64;
/// Most nodes, copies of aliases included.
pub const MOST_NODES: usize = 100_000;

/// Reads the documents of a text. Empty ones are left out.
///
/// # Errors
/// The first place where the text is no YAML, or goes beyond a limit, and every key that stands twice.
pub fn documents(text: &str) -> Result<Vec<Node>, Vec<Diagnostic>> {
    if text.len() > MOST_BYTES {
        let message = format!("longer than {} KiB", MOST_BYTES >> 10);
        return Err(vec![Diagnostic::error(reason::YAML_SYNTAX, message)]);
    }
    let mut builder = Builder { lines: text.lines().collect(), ..Builder::default() };
    let mut found = Vec::new();
    let options = granit_parser::options! { emit_comments: false };
    for event in Parser::new_from_str_with_options(text, options) {
        let stop = match event {
            Ok((event, range)) => builder.take(event, range, &mut found),
            Err(error) => Err(builder.syntax(&error)),
        };
        if let Err(fault) = stop {
            builder.faults.push(*fault);
            break;
        }
    }
    if builder.faults.is_empty() { Ok(found) } else { Err(builder.faults) }
}

/// A collection that is being read.
enum Open {
    List {
        at: Span,
        anchor: usize,
        items: Vec<Node>,
    },
    Map {
        at: Span,
        anchor: usize,
        entries: Vec<Entry>,
        key: Option<(String, Span)>,
        merged: Vec<Node>,
        seen: HashMap<String, usize>,
    },
}

#[derive(Default)]
struct Builder<'a> {
    lines: Vec<&'a str>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    bytes: usize,
    faults: Vec<Diagnostic>,
}

type Step = Result<(), Box<Diagnostic>>;

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, range: Range, found: &mut Vec<Node>) -> Step {
        let at = self.span(range);
        match event {
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let node = Node { at, value: Value::Scalar { text: text.into_owned(), plain } };
                self.charge(&node)?;
                self.put(node, anchor, found)?;
            }
            Event::Alias(anchor) => {
                let copied = self.anchors.get(&anchor).cloned();
                let node = copied.ok_or_else(|| limit(at, "an alias inside the value it stands for"))?;
                self.charge(&node)?;
                self.put(node, 0, found)?;
            }
            Event::SequenceStart(_, anchor, _) => {
                self.nest(at)?;
                self.open.push(Open::List { at, anchor, items: Vec::new() });
            }
            Event::MappingStart(_, anchor, _) => {
                self.nest(at)?;
                let (entries, merged, seen) = (Vec::new(), Vec::new(), HashMap::new());
                self.open.push(Open::Map { at, anchor, entries, key: None, merged, seen });
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List { at, anchor, items }) => {
                    self.put(Node { at, value: Value::List(items) }, anchor, found)?;
                }
                Some(Open::Map { at, anchor, entries, merged, .. }) => {
                    let entries = merge(entries, merged);
                    self.put(Node { at, value: Value::Map(entries) }, anchor, found)?;
                }
                None => {}
            },
            _ => {}
        }
        Ok(())
    }

    /// One node more, and one level deeper.
    fn nest(&mut self, at: Span) -> Step {
        if self.open.len() >= MOST_DEPTH {
            return Err(limit(at, &format!("nested deeper than {MOST_DEPTH} levels")));
        }
        self.nodes += 1;
        self.within(at)
    }

    /// Counts a node and all below it.
    fn charge(&mut self, node: &Node) -> Step {
        let deep = depth(node) + self.open.len();
        if deep > MOST_DEPTH {
            return Err(limit(node.at, &format!("nested deeper than {MOST_DEPTH} levels")));
        }
        let (nodes, bytes) = size(node);
        self.nodes += nodes;
        self.bytes += bytes;
        self.within(node.at)
    }

    fn within(&self, at: Span) -> Step {
        if self.nodes > MOST_NODES {
            return Err(limit(at, &format!("more than {MOST_NODES} values, those that aliases repeat included")));
        }
        if self.bytes > MOST_BYTES {
            return Err(limit(at, &format!("more than {} KiB with what aliases repeat", MOST_BYTES >> 10)));
        }
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn put(&mut self, node: Node, anchor: usize, found: &mut Vec<Node>) -> Step {
        if anchor != 0 {
            self.charge(&node)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None if node.is_null() => {}
            None => found.push(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, merged, seen, .. }) => match key.take() {
                None => match node.value {
                    Value::Scalar { text, .. } => *key = Some((text, node.at)),
                    Value::List(_) | Value::Map(_) => {
                        let fault = Diagnostic::error(reason::YAML_SYNTAX, format!("{} is no key", node.kind()));
                        return Err(Box::new(fault.at(node.at, "a key is a word")));
                    }
                },
                Some((name, _)) if name == "<<" => merged.push(node),
                Some((name, at)) => match seen.get(&name) {
                    Some(first) if self.faults.len() < MOST_FINDINGS => {
                        let fault = Diagnostic::error(reason::DUPLICATE_KEY, format!("key {name} stands twice"));
                        self.faults.push(fault.at(at, format!("the first is on line {first}")));
                    }
                    Some(_) => {}
                    None => {
                        seen.insert(name.clone(), at.line);
                        entries.push(Entry { key: name, key_at: at, value: node });
                    }
                },
            },
        }
        Ok(())
    }

    fn span(&self, range: Range) -> Span {
        let (start, end) = (range.start, range.end);
        // Few nodes of a line end on another: the characters of a long line are not counted for each of its nodes.
        let rest = || self.lines.get(start.line().saturating_sub(1)).map_or(0, |line| line.chars().count());
        let end = if end.line() == start.line() { end.col() } else { rest() };
        Span { line: start.line(), column: start.col() + 1, width: end.saturating_sub(start.col()) }
    }

    /// Where the quote begins that is still open at a place: in the nearest line above with an odd number of them.
    fn opening_quote(&self, at: Span) -> Option<Span> {
        let above = self.lines.iter().enumerate().take(at.line).rev();
        above.take(200).find_map(|(index, line)| {
            let quotes: Vec<(usize, char)> =
                line.chars().enumerate().filter(|(_, c)| matches!(c, '"' | '\'')).collect();
            let (column, quote) = *quotes.first()?;
            let same = quotes.iter().filter(|(_, other)| *other == quote).count();
            (same % 2 == 1).then_some(Span { line: index + 1, column: column + 1, width: 1 })
        })
    }

    /// Where the bracket stands that is still open at a place: in the nearest line above that opens more than it closes.
    fn open_bracket(&self, at: Span) -> Option<Span> {
        let above = self.lines.iter().enumerate().take(at.line.saturating_sub(1)).rev();
        above.take(20).find_map(|(index, line)| {
            let count = |signs: [char; 2]| line.chars().filter(|c| signs.contains(c)).count();
            let column = line.chars().position(|c| matches!(c, '[' | '{'))?;
            let quoted = line.contains(['"', '\'', '$']);
            (!quoted && count(['[', '{']) > count([']', '}'])).then_some(Span {
                line: index + 1,
                column: column + 1,
                width: 1,
            })
        })
    }

    /// What the parser found, in words for people.
    fn syntax(&self, error: &ScanError) -> Box<Diagnostic> {
        let mark = error.marker();
        let mut at = Span { line: mark.line(), column: mark.col() + 1, width: 1 };
        // At the end of the text there is no line to show.
        if at.line > self.lines.len() && !self.lines.is_empty() {
            at.line = self.lines.len();
            at.column = self.lines.last().map_or(1, |line| line.chars().count() + 1);
        }
        let line = self.lines.get(at.line.saturating_sub(1)).copied().unwrap_or_default();
        if let Some(tab) =
            line.find(|c: char| c != ' ').filter(|at| line.get(*at..).is_some_and(|l| l.starts_with('\t')))
        {
            at.column = tab + 1;
            let fault = Diagnostic::error(reason::YAML_SYNTAX, "a tab cannot indent a line");
            return Box::new(fault.at(at, "a tab").hint("indent with spaces"));
        }
        if matches!(error.kind(), ErrorKind::InvalidQuotedScalarIndent | ErrorKind::UnclosedQuotedScalar) {
            at = self.opening_quote(at).unwrap_or(at);
        }
        if let Some(open) = self.open_bracket(at) {
            let fault = Diagnostic::error(reason::YAML_SYNTAX, "a bracket is not closed");
            return Box::new(fault.at(open, "still open").hint("close every [ with ] and every { with }"));
        }
        let (message, label, hint) = words(error);
        let fault = Diagnostic::error(reason::YAML_SYNTAX, message).at(at, label);
        Box::new(if hint.is_empty() { fault } else { fault.hint(hint) })
    }
}

/// What is wrong, what stands at the place, what to do.
fn words(error: &ScanError) -> (String, &'static str, &'static str) {
    use ErrorKind as E;
    let list = "write - before each item, all at one indentation";
    match error.kind() {
        E::UnclosedQuotedScalar | E::DocumentIndicatorInQuotedScalar | E::InvalidQuotedScalarIndent => (
            "a quote is not closed".into(),
            "the text that begins here does not end",
            "close the quote, or double it within the text",
        ),
        E::UnclosedFlowCollection { open } => {
            (format!("{open:?} is not closed"), "still open here", "close every [ with ] and every { with }")
        }
        E::MisplacedFlowCollectionEnd | E::MismatchedFlowCollectionEnd { .. } => {
            ("a bracket closes what was not opened".into(), "this one", "close every [ with ] and every { with }")
        }
        E::ExpectedFlowMappingSeparator
        | E::ExpectedFlowSequenceSeparator
        | E::UnexpectedEofFlowSequence
        | E::UnexpectedEofFlowMapping
        | E::UnexpectedEofImplicitFlowMapping => {
            ("expected a comma or the closing bracket".into(), "here", "close every [ with ] and every { with }")
        }
        E::ExpectedBlockSequenceEntry => {
            ("expected a list item".into(), "indented as the list above, but without -", list)
        }
        E::BlockSequenceEntryNotAllowed | E::BlockEntryInFlowCollection | E::InvalidBlockEntryWhitespace => {
            ("a list item is not allowed here".into(), "this item", list)
        }
        E::ExpectedBlockMappingKey => {
            ("expected a key".into(), "indented as a key, but none", "keys of one map stand at one indentation")
        }
        E::MappingValueNotAllowed
        | E::InvalidColonPlacement
        | E::MappingKeyNotAllowed
        | E::InvalidMappingValueWhitespace => (
            "a key is not allowed here".into(),
            "this : makes a key of what is before it",
            "put a text that holds ': ' into quotes, and begin keys on lines of their own",
        ),
        E::SimpleKeyExpected | E::InvalidSimpleKey => {
            ("expected ':' after a key".into(), "here", "a key and its value are written KEY: VALUE")
        }
        E::InvalidIndentation | E::InvalidBlockScalarIndent | E::InvalidFlowScalarIndent => {
            ("the indentation fits nothing above".into(), "here", "keys of one map stand at one indentation")
        }
        E::TabNotAllowed
        | E::TabInBlockIndentation
        | E::TabInIndentation
        | E::TabAtBlockScalarStart
        | E::TabInPlainScalar => ("a tab cannot stand here".into(), "here", "indent with spaces"),
        E::UnknownAnchor => {
            ("an alias of nothing".into(), "no &anchor of this name stands above", "quote a text that begins with *")
        }
        E::UnexpectedCharacter { character } => {
            (format!("a text cannot begin with {character:?}"), "here", "put it into quotes")
        }
        E::UnknownQuotedScalarEscape | E::InvalidQuotedScalarHexEscape | E::InvalidUnicodeEscape => {
            ("no such escape in double quotes".into(), "here", "write \\\\ for a backslash, or use single quotes")
        }
        E::InvalidTrailingDoubleQuotedScalar | E::InvalidTrailingSingleQuotedScalar => (
            "text follows a closing quote".into(),
            "the value ended before this",
            "put the whole value into quotes of the other kind, or write a list",
        ),
        E::RecursionLimitExceeded => (format!("nested deeper than {MOST_DEPTH} levels"), "", ""),
        _ => (error.info().trim_end_matches('.').to_owned(), "", ""),
    }
}

fn limit(at: Span, message: &str) -> Box<Diagnostic> {
    Box::new(Diagnostic::error(reason::YAML_SYNTAX, message).at(at, ""))
}

/// A map with what `<<` brings; keys that are written win, as do earlier maps over later ones.
fn merge(mut entries: Vec<Entry>, merged: Vec<Node>) -> Vec<Entry> {
    let mut known: BTreeSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
    let maps = merged.into_iter().flat_map(|node| match node.value {
        Value::List(items) => items,
        _ => vec![node],
    });
    for node in maps {
        let Value::Map(more) = node.value else { continue };
        entries.extend(more.into_iter().filter(|entry| known.insert(entry.key.clone())));
    }
    entries
}

fn size(node: &Node) -> (usize, usize) {
    let below = |parts: &mut dyn Iterator<Item = &Node>| {
        parts.map(size).fold((1, 0), |sum: (usize, usize), part| (sum.0 + part.0, sum.1 + part.1))
    };
    match &node.value {
        Value::Scalar { text, .. } => (1, text.len()),
        Value::List(items) => below(&mut items.iter()),
        Value::Map(entries) => below(&mut entries.iter().map(|entry| &entry.value)),
    }
}

fn depth(node: &Node) -> usize {
    match &node.value {
        Value::Scalar { .. } => 0,
        Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|entry| depth(&entry.value)).max().unwrap_or(0),
    }
}
