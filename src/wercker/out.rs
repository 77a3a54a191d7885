//! What is written: an ordered tree with comments, as YAML.
//!
//! `convert` and `first` build it.
//!
//! **Invariant:** whatever a text holds, the YAML gives it back, to readers of YAML 1.1 (kubectl) and 1.2 alike; a text
//! cannot become another type, nor a comment.

/// Widest comment, in characters.
const COMMENT_WIDTH: usize = 108;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Out {
    /// Text.
    Text(String),
    /// A number.
    Number(i64),
    /// A truth value.
    Truth(bool),
    /// A list; each item with the comments above it.
    List(Vec<(Vec<String>, Out)>),
    /// A map.
    Map(Map),
    /// A list on one line.
    Words(Vec<String>),
}

/// Entries in the order they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Map {
    entries: Vec<(Vec<String>, String, Out)>,
    /// Comments for the next entry.
    pending: Vec<String>,
}

impl Map {
    /// An entry.
    pub(super) fn put(&mut self, key: &str, value: Out) {
        self.entries.push((std::mem::take(&mut self.pending), key.to_owned(), value));
    }

    /// An entry of text.
    pub(super) fn text(&mut self, key: &str, value: impl Into<String>) {
        self.put(key, Out::Text(value.into()));
    }

    /// An entry of text, if there is any.
    pub(super) fn maybe(&mut self, key: &str, value: Option<String>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// An entry of a list, if it has items.
    pub(super) fn list(&mut self, key: &str, items: Vec<Map>) {
        if !items.is_empty() {
            self.put(key, Out::List(items.into_iter().map(|item| (Vec::new(), Out::Map(item))).collect()));
        }
    }

    /// The same with another text at a key.
    pub(super) fn with(mut self, key: &str, change: impl FnOnce(String) -> String) -> Self {
        let text = self.entries.iter_mut().find_map(|(_, found, value)| match value {
            Out::Text(text) if found == key => Some(text),
            _ => None,
        });
        if let Some(text) = text {
            *text = change(std::mem::take(text));
        }
        self
    }

    /// A comment above the next entry; at the end of the map if none follows.
    pub(super) fn note(&mut self, comment: impl Into<String>) {
        self.pending.push(comment.into());
    }

    /// Comments above the next entry.
    pub(super) fn notes(&mut self, comments: impl IntoIterator<Item = String>) {
        self.pending.extend(comments);
    }

    /// As a document, without `---`.
    pub(super) fn yaml(&self) -> String {
        let mut out = String::new();
        write_map(&mut out, self, 0);
        out
    }
}

/// Map of texts.
pub(super) fn map<const N: usize>(entries: [(&str, &str); N]) -> Map {
    let mut map = Map::default();
    for (key, value) in entries {
        map.text(key, value);
    }
    map
}

/// A comment, folded to lines.
pub(super) fn comment(out: &mut String, text: &str, indent: usize) {
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in crate::yaml::clean(paragraph).split(' ') {
            if !line.is_empty() && indent + line.chars().count() + word.chars().count() + 3 > COMMENT_WIDTH {
                out.push_str(&format!("{}# {line}\n", " ".repeat(indent)));
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        out.push_str(format!("{}# {line}", " ".repeat(indent)).trim_end());
        out.push('\n');
    }
}

fn write_map(out: &mut String, map: &Map, indent: usize) {
    for (comments, key, value) in &map.entries {
        comments.iter().for_each(|text| comment(out, text, indent));
        out.push_str(&format!("{}{}:", " ".repeat(indent), scalar(key)));
        write_value(out, value, indent);
    }
    map.pending.iter().for_each(|text| comment(out, text, indent));
}

/// What stands behind a key.
fn write_value(out: &mut String, value: &Out, indent: usize) {
    match value {
        Out::Map(map) if map.entries.is_empty() => out.push_str(" {}\n"),
        Out::Map(map) => {
            out.push('\n');
            write_map(out, map, indent + 2);
        }
        Out::List(items) if items.is_empty() => out.push_str(" []\n"),
        Out::List(items) => {
            out.push('\n');
            for (comments, item) in items {
                comments.iter().for_each(|text| comment(out, text, indent));
                write_item(out, item, indent);
            }
        }
        Out::Text(text) => write_text(out, text, indent),
        Out::Number(_) | Out::Truth(_) | Out::Words(_) => out.push_str(&format!(" {}\n", inline(value))),
    }
}

fn write_item(out: &mut String, item: &Out, indent: usize) {
    let margin = " ".repeat(indent);
    match item {
        Out::Map(map) if !map.entries.is_empty() => {
            let mut below = String::new();
            write_map(&mut below, map, indent + 2);
            // The first entry stands beside the dash; comments above it stand above the item.
            let first = below.lines().position(|line| !line.trim_start().starts_with('#')).unwrap_or_default();
            for (number, line) in below.lines().enumerate() {
                match line.get(indent + 2..).filter(|_| number == first) {
                    Some(rest) => out.push_str(&format!("{margin}- {rest}\n")),
                    None if number < first => out.push_str(&format!("{margin}{}\n", line.trim_start())),
                    None => out.push_str(&format!("{line}\n")),
                }
            }
        }
        Out::Text(text) => {
            out.push_str(&format!("{margin}-"));
            write_text(out, text, indent);
        }
        other => out.push_str(&format!("{margin}- {}\n", inline(other))),
    }
}

/// Text behind a key or dash: a block if it has lines.
fn write_text(out: &mut String, text: &str, indent: usize) {
    if !is_block(text) {
        out.push_str(&format!(" {}\n", scalar(text)));
        return;
    }
    let body = text.trim_end_matches('\n');
    let sign = match text.len() - body.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    };
    out.push_str(&format!(" {sign}\n"));
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        if line.is_empty() { out.push('\n') } else { out.push_str(&format!("{}{line}\n", " ".repeat(indent + 2))) }
    }
}

/// Whether a text can be a literal block and should be one.
fn is_block(text: &str) -> bool {
    let body = text.trim_end_matches('\n');
    body.contains('\n') && !body.starts_with(['\n', ' ', '\t']) && text.chars().all(|c| c == '\n' || c == '\t' || is_printable(c))
        // A line of spaces only would not come back as it was from every reader.
        && !body.lines().any(|line| !line.is_empty() && line.trim().is_empty())
}

fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn inline(value: &Out) -> String {
    match value {
        Out::Text(text) => scalar(text),
        Out::Number(number) => number.to_string(),
        Out::Truth(truth) => truth.to_string(),
        Out::Words(words) => format!("[{}]", words.iter().map(|word| flow(word)).collect::<Vec<_>>().join(", ")),
        Out::List(_) => "[]".into(),
        Out::Map(_) => "{}".into(),
    }
}

/// Words that some reader takes for something else than text.
const NOT_TEXT: [&str; 14] =
    ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "~", "nan", "inf", "", "undefined"];

/// A text on one line: bare if no reader can mistake it.
fn scalar(text: &str) -> String {
    let bare = text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '$' | '_'))
        && !text.ends_with([':', ' '])
        && !text.contains(": ")
        && !text.contains(" #")
        && text.chars().all(|c| c.is_ascii_alphanumeric() || " ._/:@$%+=,()-&|;<>*?!^~'\"\\`{}[]#".contains(c))
        && !NOT_TEXT.contains(&text.to_ascii_lowercase().as_str());
    if bare { text.to_owned() } else { quoted(text) }
}

/// The same within brackets.
fn flow(text: &str) -> String {
    if text.contains([',', '[', ']', '{', '}', '#', ':', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`', '?']) {
        quoted(text)
    } else {
        scalar(text)
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if is_printable(c) => out.push(c),
            c if u32::from(c) > 0xffff => out.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => out.push_str(&format!("\\u{:04X}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn comments_stand_where_they_belong() {
        let mut step = Map::default();
        step.note("why");
        step.text("name", "a");
        step.text("script", "x\ny\n");
        step.note("at the end");
        let mut top = Map::default();
        top.note("a long comment ".repeat(8).trim());
        top.list("steps", vec![step, map([("name", "b")])]);
        top.put("more", Out::Words(vec!["a".into(), "b, c".into(), "1".into()]));
        top.put("none", Out::Map(Map::default()));
        assert_eq!(
            top.yaml(),
            "# a long comment a long comment a long comment a long comment a long comment a long comment a long comment a\n\
             # long comment\n\
             steps:\n# why\n- name: a\n  script: |\n    x\n    y\n  # at the end\n- name: b\nmore: [a, \"b, c\", \"1\"]\nnone: {}\n"
        );
    }

    fn both(text: &str) -> (Value, Value) {
        let mut item = Map::default();
        item.text("k", text);
        let mut top = item.clone();
        top.list("l", vec![item]);
        top.put("w", Out::Words(vec![text.to_owned()]));
        let yaml = top.yaml();
        let old: Value = serde_yaml::from_str(&yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
        let new = crate::yaml::documents(&yaml).unwrap_or_else(|e| panic!("{e:?}\n{yaml}"));
        (old, new[0].json())
    }

    #[test]
    fn texts_that_look_like_something_else_stay_texts() {
        for text in
            ["", "yes", "NO", "1.10", "0x1", "~", "null", "- a", "# b", "a: b", "a #b", "2026-01-02", "=", ".5", "<<"]
        {
            let wanted = json!({"k": text, "l": [{"k": text}], "w": [text]});
            assert_eq!(both(text), (wanted.clone(), wanted), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text in "([ -~éß\\n\\t]{0,30}|[a-c \\n:#'\"-]{0,20})") {
            let wanted = json!({"k": &text, "l": [{"k": &text}], "w": [&text]});
            let (old, new) = both(&text);
            prop_assert_eq!(&old, &wanted);
            prop_assert_eq!(&new, &wanted);
        }
    }
}
