//! `.dockerignore`: which files stay out of the context of a build.
//!
//! `context` reads it of what the runner packed, and asks it for each entry on its way to the engine.
//!
//! It means what Docker's command line makes of it for the builder of the engine, whose API is called here; BuildKit has
//! its own. Patterns are those of Go's `filepath.Match` and `**`, see "dockerignore file" in Docker's reference of the
//! Dockerfile. Some of it is only in the deeds of Docker: `a**b` is `a`, perhaps directories, then `b`, but `**b` is
//! whatever ends in `b`; an exception finds nothing below a directory that is left out, unless its text begins with that
//! directory; and one that names a directory brings back what a pattern of the directory left out, not what one of a
//! file below it did. A backslash takes the meaning of a character away, also where Docker gives it another (`\d`).
//!
//! **Invariant:** pure. Any bytes give rules or an error that names the line. To judge a path takes no longer than its
//! length times that of the patterns.

use crate::archive::short;
use std::{fmt, mem};

/// Name of the file.
pub(super) const NAME: &str = ".dockerignore";
/// Largest file.
pub(super) const MAX_BYTES: u64 = 1024 * 1024;
/// Most patterns. What they say of the directories above a file is kept.
const MAX_PATTERNS: usize = 10_000;
/// Which editors put before UTF-8, and is no part of it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What is wrong with the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    line: usize,
    pattern: String,
    why: &'static str,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAME}, line {}: pattern {}: {}", self.line, short(&self.pattern), self.why)
    }
}

/// The patterns, asked path by path, each directory before what is in it.
#[derive(Default)]
pub(super) struct Ignore {
    patterns: Vec<Pattern>,
    /// The directories above the path that was asked last.
    above: Vec<Level>,
    /// One that is left out whole.
    closed: Option<Vec<u8>>,
    path: Vec<char>,
    states: States,
}

/// A directory, and which patterns it fits: what is below it fits them, too.
struct Level {
    path: Vec<u8>,
    fits: Vec<bool>,
}

struct Pattern {
    is_exception: bool,
    /// Without what does not count, such as a slash at an end.
    text: Vec<u8>,
    form: Form,
}

enum Form {
    /// The path is the text.
    Exact,
    /// The path ends so.
    Ends(Vec<u8>),
    Wild(Vec<Token>),
}

enum Token {
    One(char),
    /// `?`
    Any,
    /// `*`
    Star,
    /// `**` that something follows: nothing, or what [`Token::Deep`] takes.
    Skip,
    /// Directories, up to a slash.
    Deep,
    /// `**` at the end.
    Rest,
    /// `[a-z]`, `[^a-z]`
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Ignore {
    /// Reads the file.
    ///
    /// # Errors
    /// The first line that is broken.
    pub(super) fn read(file: &[u8]) -> Result<Self, Broken> {
        let file = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
        let mut patterns = Vec::new();
        for (index, line) in file.split(|byte| *byte == b'\n').enumerate() {
            // What begins with a space is no comment.
            if line.starts_with(b"#") {
                continue;
            }
            let broken = |why| {
                let pattern = String::from_utf8_lossy(line).trim().to_owned();
                Broken { line: index + 1, pattern, why }
            };
            let text = str::from_utf8(line).map_err(|_| broken("this is not UTF-8"))?.trim();
            if text.is_empty() {
                continue;
            }
            if patterns.len() == MAX_PATTERNS {
                return Err(broken("this is one pattern too many; 10000 are the most"));
            }
            patterns.push(pattern(text).map_err(broken)?);
        }
        Ok(Self { patterns, ..Self::default() })
    }

    /// Has a file of the context go along, whatever the patterns say. Not to be called once paths are asked.
    pub(super) fn keep(&mut self, path: &[u8]) {
        self.patterns.push(Pattern { is_exception: true, text: path.to_owned(), form: Form::Exact });
    }

    /// Whether a path of the context stays out.
    pub(super) fn leaves_out(&mut self, path: &[u8], is_directory: bool) -> bool {
        if self.closed.as_deref().is_some_and(|closed| is_below(path, closed)) {
            return true;
        }
        self.closed = None;
        while self.above.last().is_some_and(|level| !is_below(path, &level.path)) {
            self.above.pop();
        }
        self.path.clear();
        self.path.extend(path.utf8_chunks().flat_map(|chunk| {
            let broken = chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER);
            chunk.valid().chars().chain(broken)
        }));
        let parent = self.above.last().map(|level| level.fits.as_slice()).unwrap_or_default();
        let mut fits = Vec::new();
        let mut is_out = false;
        for (index, pattern) in self.patterns.iter().enumerate() {
            // A pattern that would change nothing is not asked, not even for what is below.
            let changes = pattern.is_exception == is_out;
            let fit =
                parent.get(index) == Some(&true) || changes && pattern.matches(path, &self.path, &mut self.states);
            if fit {
                is_out = !pattern.is_exception;
            }
            if is_directory {
                fits.push(fit);
            }
        }
        if is_directory {
            let names =
                |pattern: &Pattern| pattern.is_exception && (pattern.text == path || is_below(&pattern.text, path));
            if is_out && !self.patterns.iter().any(names) {
                self.closed = Some(path.to_owned());
            } else {
                self.above.push(Level { path: path.to_owned(), fits });
            }
        }
        is_out
    }
}

fn is_below(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

/// Reads a line that holds something.
fn pattern(line: &str) -> Result<Pattern, &'static str> {
    let (mark, rest) = line.strip_prefix('!').map_or(("", line), |rest| ("!", rest.trim()));
    let path = if rest.is_empty() { String::new() } else { cleaned(rest) };
    let path = path.strip_prefix('/').filter(|path| !path.is_empty()).unwrap_or(&path);
    // `/!a` is an exception as well.
    let whole = cleaned(&format!("{mark}{path}"));
    let (is_exception, text) = whole.strip_prefix('!').map_or((false, whole.as_str()), |text| (true, text));
    if text.is_empty() {
        return Err("this is an exception that names nothing");
    }
    Ok(Pattern { is_exception, text: text.as_bytes().to_owned(), form: form(text)? })
}

/// A path without `.`, `..`, doubled slashes and slashes at its end, as far as that goes: Go's `filepath.Clean`.
fn cleaned(path: &str) -> String {
    let is_rooted = path.starts_with('/');
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." if names.last().is_some_and(|last| *last != "..") => {
                names.pop();
            }
            ".." if is_rooted => {}
            name => names.push(name),
        }
    }
    match (is_rooted, names.join("/")) {
        (true, path) => format!("/{path}"),
        (false, path) if path.is_empty() => ".".into(),
        (false, path) => path,
    }
}

fn form(text: &str) -> Result<Form, &'static str> {
    let is_plain = |text: &str| !text.contains(['*', '?', '[', '\\']);
    if is_plain(text) {
        return Ok(Form::Exact);
    }
    if let Some(end) = text.strip_prefix("**").filter(|end| is_plain(end)) {
        return Ok(Form::Ends(end.as_bytes().to_owned()));
    }
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '*' if rest.next_if_eq(&'*').is_some() => {
                rest.next_if_eq(&'/');
                match rest.peek() {
                    // Twice is as good as once.
                    Some(_) if matches!(tokens.last(), Some(Token::Deep)) => {}
                    Some(_) => tokens.extend([Token::Skip, Token::Deep]),
                    None => tokens.push(Token::Rest),
                }
            }
            '*' => tokens.push(Token::Star),
            '?' => tokens.push(Token::Any),
            '[' => tokens.push(class(&mut rest)?),
            '\\' => tokens.push(Token::One(rest.next().ok_or("a \\ with nothing after it")?)),
            other => tokens.push(Token::One(other)),
        }
    }
    Ok(Form::Wild(tokens))
}

/// Reads a class behind its bracket.
fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, &'static str> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    while ranges.is_empty() || rest.next_if_eq(&']').is_none() {
        let first = bound(rest)?;
        let last = if rest.next_if_eq(&'-').is_some() { bound(rest)? } else { first };
        if last < first {
            return Err("a range in [ ] ends before it begins");
        }
        ranges.push((first, last));
    }
    Ok(Token::Class { negated, ranges })
}

/// One end of a range.
fn bound(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, &'static str> {
    const OPEN: &str = "a [ without its ]";
    match rest.next().ok_or(OPEN)? {
        ']' => Err("a [ ] that holds nothing, or a range without an end; \\] is the character"),
        '-' => Err("a range in [ ] without an end; \\- is the character"),
        '\\' => rest.next().ok_or(OPEN),
        other => Ok(other),
    }
}

impl Pattern {
    fn matches(&self, path: &[u8], chars: &[char], states: &mut States) -> bool {
        match &self.form {
            Form::Exact => path == self.text,
            Form::Ends(end) => path.ends_with(end) || end.strip_prefix(b"/") == Some(path),
            Form::Wild(tokens) => states.run(tokens, chars),
        }
    }
}

/// The places in a pattern where a path can have come to. All are followed at once, so that no path takes long.
#[derive(Default)]
struct States {
    now: Places,
    next: Places,
}

#[derive(Default)]
struct Places {
    list: Vec<usize>,
    has: Vec<bool>,
}

impl Places {
    fn clear(&mut self, tokens: &[Token]) {
        for place in self.list.drain(..) {
            if let Some(has) = self.has.get_mut(place) {
                *has = false;
            }
        }
        if self.has.len() <= tokens.len() {
            self.has.resize(tokens.len() + 1, false);
        }
    }

    /// Adds a place, and those where one is then without a character: three at most, as no `**` follows another.
    fn add(&mut self, tokens: &[Token], place: usize) {
        if self.has.get_mut(place).is_none_or(|has| mem::replace(has, true)) {
            return;
        }
        self.list.push(place);
        match tokens.get(place) {
            Some(Token::Star) => self.add(tokens, place + 1),
            Some(Token::Skip) => {
                self.add(tokens, place + 1);
                self.add(tokens, place + 2);
            }
            _ => {}
        }
    }
}

impl States {
    fn run(&mut self, tokens: &[Token], path: &[char]) -> bool {
        self.now.clear(tokens);
        self.now.add(tokens, 0);
        for char in path {
            self.next.clear(tokens);
            for place in &self.now.list {
                let token = tokens.get(*place);
                let stays = match token {
                    Some(Token::Star) => *char != '/',
                    Some(Token::Deep) => true,
                    Some(Token::Rest) => return true,
                    _ => false,
                };
                let goes = match token {
                    Some(Token::One(one)) => one == char,
                    Some(Token::Any) => *char != '/',
                    Some(Token::Deep) => *char == '/',
                    Some(Token::Class { negated, ranges }) => {
                        ranges.iter().any(|(first, last)| (first..=last).contains(&char)) != *negated
                    }
                    _ => false,
                };
                if stays {
                    self.next.add(tokens, *place);
                }
                if goes {
                    self.next.add(tokens, place + 1);
                }
            }
            if self.next.list.is_empty() {
                return false;
            }
            mem::swap(&mut self.now, &mut self.next);
        }
        self.now.list.iter().any(|place| matches!(tokens.get(*place), None | Some(Token::Rest)))
    }
}

#[cfg(test)]
mod tests;
