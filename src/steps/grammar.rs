//! The formats of push properties: one parser for each.
//!
//! Called by [`super::docker_push`], which adds the property's path and hides what variables held.
//!
//! **Invariant:** a parser takes every text, returns a value or a [`Flaw`], and never guesses: what it
//! does not understand is said, with its place.

use super::expand::characters_before;
use std::{borrow::Cow, collections::BTreeMap};

/// Most ports that one image may expose; a range counts as many.
pub const MAX_PORTS: usize = 1000;

/// What is wrong in a text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The part that is wrong.
    pub item: String,
    /// Where it begins: characters, from 1.
    pub position: usize,
    /// What is wrong or was expected. It never repeats the text.
    pub problem: Cow<'static, str>,
}

impl Flaw {
    fn new(item: &str, position: usize, problem: impl Into<Cow<'static, str>>) -> Self {
        Self { item: item.to_owned(), position, problem: problem.into() }
    }
}

/// A part of a text and where it begins (characters, from 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The part, without its quotes.
    pub text: String,
    /// Where it begins.
    pub position: usize,
}

/// The entries of a text that is split at white space and commas; empty entries do not count.
pub fn entries(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut next = 1;
    text.split(|c: char| c.is_whitespace() || c == ',').filter_map(move |entry| {
        let position = next;
        next += entry.chars().count() + 1;
        (!entry.is_empty()).then_some((position, entry))
    })
}

/// Image tags, split at white space and commas.
#[must_use]
pub fn tags(text: &str) -> Vec<Result<String, Flaw>> {
    let valid = |tag: &str| {
        tag.len() <= 128
            && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && tag.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
    };
    let problem = "expected a tag: at most 128 letters, digits, '_', '.' and '-', not beginning with '.' or '-'";
    entries(text)
        .map(|(position, tag)| if valid(tag) { Ok(tag.to_owned()) } else { Err(Flaw::new(tag, position, problem)) })
        .collect()
}

/// Ports and ranges, split at white space and commas, as `5000/tcp`; a range gives all its ports.
#[must_use]
pub fn ports(text: &str) -> Vec<Result<Vec<String>, Flaw>> {
    entries(text).map(|(position, entry)| port(entry).map_err(|problem| Flaw::new(entry, position, problem))).collect()
}

fn port(entry: &str) -> Result<Vec<String>, &'static str> {
    let (numbers, protocol) = entry.split_once('/').unwrap_or((entry, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => "tcp",
        "udp" => "udp",
        _ => return Err("expected tcp or udp"),
    };
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let number = |text: &str| text.parse::<u16>().ok().filter(|n| *n > 0 && text.bytes().all(|b| b.is_ascii_digit()));
    let (Some(first), Some(last)) = (number(first), number(last)) else {
        return Err("expected a port from 1 to 65535, or a range such as 8000-8010");
    };
    if first > last {
        return Err("expected the lower port of a range first");
    }
    if usize::from(last - first) >= MAX_PORTS {
        return Err("expected at most 1000 ports");
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// A directory of an image: absolute and clean. `//` and `/./` are folded before anything is judged.
///
/// # Errors
/// A [`Flaw`] for a relative path, one with `..`, or one that a runtime could follow into the kernel's
/// file systems: `/proc/self/fd/7` as working directory has led out of containers.
pub fn directory(text: &str) -> Result<String, Flaw> {
    let flaw = |problem: &'static str| Flaw::new(text, 1, problem);
    let path = text.trim();
    if !path.starts_with('/') {
        return Err(flaw("expected an absolute directory such as /data"));
    }
    if path.len() > 4096 || path.chars().any(char::is_control) {
        return Err(flaw("expected a path of at most 4096 characters, none of them a control character"));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(flaw("expected a directory without .."));
    }
    if matches!(parts.first(), Some(&("proc" | "sys" | "dev"))) {
        return Err(flaw("expected a directory outside /proc, /sys and /dev"));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// A volume: a directory that is not `/`.
///
/// # Errors
/// A [`Flaw`] as for [`directory`], and for `host:container`, which no image can declare.
pub fn volume(text: &str) -> Result<String, Flaw> {
    let path = directory(text)?;
    if path == "/" || path.contains(':') {
        return Err(Flaw::new(text, 1, "expected a directory of the image such as /data"));
    }
    Ok(path)
}

/// Splits a text as a POSIX shell does: quotes and backslashes, nothing else. With `commas`, a comma
/// outside quotes separates too. Unlike a shell, `#` begins no comment: a property is one line, and
/// what stands in it is meant.
///
/// # Errors
/// A [`Flaw`] for a quote that is not closed (its position is that of the quote) or a `\` at the end.
pub fn words(text: &str, commas: bool) -> Result<Vec<Word>, Flaw> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut chars = (1..).zip(text.chars());
    while let Some((position, c)) = chars.next() {
        if c.is_ascii_whitespace() || (commas && c == ',') {
            words.extend(word.take());
            continue;
        }
        let text = &mut word.get_or_insert_with(|| Word { text: String::new(), position }).text;
        match c {
            '\\' => match chars.next() {
                Some((_, '\n')) => {}
                Some((_, escaped)) => text.push(escaped),
                None => return Err(Flaw::new("\\", position, "expected a character after the backslash")),
            },
            '\'' | '"' => quoted(c, position, &mut chars, text)?,
            _ => text.push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Reads up to the closing quote.
fn quoted(
    quote: char,
    opened: usize,
    chars: &mut impl Iterator<Item = (usize, char)>,
    text: &mut String,
) -> Result<(), Flaw> {
    let unclosed = || Flaw::new(if quote == '"' { "\"" } else { "'" }, opened, "missing closing quote");
    loop {
        match chars.next().ok_or_else(unclosed)?.1 {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => match chars.next().ok_or_else(unclosed)?.1 {
                '\n' => {}
                c @ ('$' | '`' | '"' | '\\') => text.push(c),
                c => text.extend(['\\', c]),
            },
            c => text.push(c),
        }
    }
}

/// The `NAME=value` entries of a string: separated by spaces or commas, quoted where a value holds
/// either, or a JSON list of strings.
///
/// # Errors
/// A [`Flaw`] for an unclosed quote or a list that is not JSON.
pub fn pair_entries(text: &str) -> Result<Vec<Word>, Flaw> {
    let start = text.trim_start();
    if !start.starts_with('[') {
        return words(text, true);
    }
    let position = characters_before(text, text.len() - start.len()) + 1;
    let list: Vec<String> = serde_json::from_str(start)
        .map_err(|_| Flaw::new(start, position, r#"expected a JSON list of strings such as ["A=1", "B=2"]"#))?;
    Ok(list.into_iter().map(|text| Word { text, position }).collect())
}

/// Whether a text can be the name of a variable in an image. Wider than a shell's: images have names
/// with dots and dashes.
#[must_use]
pub fn is_env_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 256
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// Whether a text can be the key of a label.
#[must_use]
pub fn is_label_key(key: &str) -> bool {
    !key.is_empty()
        && key.len() <= 256
        && !key.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '=' | '"'))
}

/// Prefixes of labels that container runtimes act on; an image must not carry them in.
pub const RUNTIME_LABELS: [&str; 4] = ["containerd.io/", "io.kubernetes.", "io.cri-containerd.", "annotation."];

/// Why a label may not be set by a step, as the prefix that forbids it.
#[must_use]
pub fn forbidden_label(key: &str) -> Option<&'static str> {
    RUNTIME_LABELS.into_iter().chain(["com.docker."]).find(|prefix| key.starts_with(prefix))
}

/// The user of an image: `user` or `user:group`, each a name or a number.
///
/// # Errors
/// A [`Flaw`]; numbers above 2147483647 have been read as 0, that is root, by runtimes.
pub fn user(text: &str) -> Result<String, Flaw> {
    let user = text.trim();
    let (name, group) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
    for part in [Some(name), group].into_iter().flatten() {
        let valid = (1..=256).contains(&part.len())
            && !part.starts_with('-')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if !valid {
            return Err(Flaw::new(text, 1, "expected a user such as 1000, 1000:1000 or app"));
        }
        if part.bytes().all(|b| b.is_ascii_digit()) && part.parse::<i32>().is_err() {
            return Err(Flaw::new(text, 1, "expected a number up to 2147483647"));
        }
    }
    Ok(user.to_owned())
}

/// A signal: a name with or without `SIG`, or a number from 1 to 64. Names come back in full.
///
/// # Errors
/// A [`Flaw`] for anything else.
pub fn stop_signal(text: &str) -> Result<String, Flaw> {
    let flaw = || Flaw::new(text, 1, "must be a signal such as SIGTERM, or a number from 1 to 64");
    let upper = text.trim().to_ascii_uppercase();
    if !upper.is_empty() && upper.bytes().all(|b| b.is_ascii_digit()) {
        let number: u8 = upper.parse().map_err(|_| flaw())?;
        return if (1..=64).contains(&number) { Ok(number.to_string()) } else { Err(flaw()) };
    }
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |rest: &str, sign: char, most: u8| {
        rest.is_empty() || rest.strip_prefix(sign).is_some_and(|n| (1..=most).any(|known| n == known.to_string()))
    };
    let known = SIGNALS.contains(&name)
        || name.strip_prefix("RTMIN").is_some_and(|rest| real_time(rest, '+', 15))
        || name.strip_prefix("RTMAX").is_some_and(|rest| real_time(rest, '-', 14));
    if known { Ok(format!("SIG{name}")) } else { Err(flaw()) }
}

/// The names of Linux signals, without `SIG`.
const SIGNALS: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
    "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// Pairs in the order they were first named; a later value of the same name wins.
#[must_use]
pub fn last_wins(pairs: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut out: Vec<(String, String)> = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        match seen.get(&name).and_then(|index| out.get_mut(*index)) {
            Some(earlier) => earlier.1 = value,
            None => {
                seen.insert(name.clone(), out.len());
                out.push((name, value));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
