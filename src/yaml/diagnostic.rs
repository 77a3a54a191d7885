//! What is wrong at a place of a file, and how it is shown: the line, a caret, a hint.
//!
//! **Invariant:** no value of a key that looks like a credential is shown, and no control character of the file.

use super::Span;
use crate::mask::Mask;

/// Most findings told of one file.
pub const MOST_FINDINGS: usize = 50;
/// Longest part of a line that is shown, in characters.
const SHOWN: usize = 160;
/// Most characters of a message, of what is said beside a caret, and of a hint.
const MOST_SAID: usize = 1000;

/// Reasons that files are refused for, besides those of conditions.
pub mod reason {
    /// The text is no YAML.
    pub const YAML_SYNTAX: &str = "YamlSyntax";
    /// A key that does not exist.
    pub const UNKNOWN_KEY: &str = "UnknownKey";
    /// A key stands twice in one map.
    pub const DUPLICATE_KEY: &str = "DuplicateKey";
    /// A value of another kind than the key takes.
    pub const WRONG_TYPE: &str = "WrongType";
    /// A step that is not exactly one thing.
    pub const INVALID_STEP: &str = "InvalidStep";
    /// A step of Wercker's registry, which is gone.
    pub const STEP_GONE: &str = "StepGone";
    /// A workflow that has no order.
    pub const INVALID_WORKFLOW: &str = "InvalidWorkflow";
    /// Something that a run in a cluster cannot do.
    pub const NOT_IN_CLUSTER: &str = "NotInCluster";
    /// Something that works in another way than in Wercker.
    pub const CHANGED: &str = "Changed";

    /// All of them.
    pub const ALL: [&str; 9] = [
        YAML_SYNTAX,
        UNKNOWN_KEY,
        DUPLICATE_KEY,
        WRONG_TYPE,
        INVALID_STEP,
        STEP_GONE,
        INVALID_WORKFLOW,
        NOT_IN_CLUSTER,
        CHANGED,
    ];
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// It can, but not quite as meant.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// Of [`reason`] or of `api::condition::reason`.
    pub reason: &'static str,
    /// What, where: cause.
    pub message: String,
    /// The place, if there is one.
    pub at: Option<Span>,
    /// What is said beside the caret.
    pub label: String,
    /// A thing to do.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error without a place.
    #[must_use]
    pub fn error(reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { severity: Severity::Error, reason, message, at: None, label: String::new(), hint: None }
    }

    /// A warning without a place.
    #[must_use]
    pub fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(reason, message) }
    }

    /// With its place, and what is said beside the caret.
    #[must_use]
    pub fn at(mut self, at: Span, label: impl Into<String>) -> Self {
        self.at = Some(at);
        self.label = label.into();
        self
    }

    /// With a thing to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What is said below the head: the place, the line, the caret, the hint. Each line ends with a line break.
    #[must_use]
    pub fn details(&self, file: &str, text: &str) -> String {
        let mut out = String::new();
        if let Some(at) = self.at {
            out.push_str(&format!("  --> {file}:{}:{}\n", at.line, at.column));
            out.push_str(&excerpt(at, text, &clean(&self.label)));
        } else {
            out.push_str(&format!("  --> {file}\n"));
        }
        if let Some(hint) = &self.hint {
            out.push_str(&format!("hint: {}\n", clean(hint)));
        }
        out
    }

    /// As printed without colour.
    #[must_use]
    pub fn render(&self, file: &str, text: &str) -> String {
        let head = format!("{}[{}]: {}\n", self.severity.word(), self.reason, clean(&self.message));
        head + &self.details(file, text)
    }
}

/// The character as it is shown in a line, at its own place.
fn visible(c: char) -> char {
    if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') { ' ' } else { c }
}

/// A line of a text around a place, and below it a caret with a label. Empty if there is no such line.
#[must_use]
pub fn excerpt(at: Span, text: &str, label: &str) -> String {
    let Some(line) = text.lines().nth(at.line.saturating_sub(1)) else { return String::new() };
    let column = at.column.saturating_sub(1);
    let visible: Vec<char> = masked(line).chars().map(visible).collect();
    // A long line is shown around the place.
    let from = if column > SHOWN / 2 && visible.len() > SHOWN { column - SHOWN / 2 } else { 0 };
    let part: String = visible.iter().skip(from).take(SHOWN).collect();
    let margin = " ".repeat(at.line.to_string().len());
    let indent = " ".repeat((column - from).min(SHOWN));
    let width = at.width.clamp(1, part.chars().count().saturating_sub(column - from).max(1));
    let caret = format!("{indent}{} {label}", "^".repeat(width));
    format!("{} | {}\n{margin} | {}\n", at.line, part.trim_end(), caret.trim_end())
}

/// Words of keys and variables whose values are nobody's business, in small letters.
const SECRET_WORDS: [&str; 6] = ["pass", "secret", "token", "key", "private", "client-id"];

/// Whether a key or a variable is one whose value is nobody's business, by its name.
#[must_use]
pub fn sounds_secret(name: &str) -> bool {
    secret_word(&name.to_ascii_lowercase()).is_some()
}

/// Where such a word begins.
fn secret_word(lower: &str) -> Option<usize> {
    SECRET_WORDS.iter().filter_map(|word| lower.find(word)).min()
}

/// Where the value of a key begins that looks like a credential, and the sign before it. A variable is no key.
fn secret_value(line: &str) -> Option<(usize, char)> {
    let lower = line.to_ascii_lowercase();
    let mut from = 0;
    loop {
        let word = from + secret_word(lower.get(from..)?)?;
        let before = line.get(..word)?.trim_end_matches(is_of_name);
        if !before.ends_with('$') && !before.ends_with("${") {
            let sign = line.get(word..)?.find([':', '='])?;
            return Some((word + sign + 1, line.get(word + sign..)?.chars().next()?));
        }
        let rest = line.get(word..)?;
        from = word + rest.find(|c| !is_of_name(c))?;
    }
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Bytes from which a line is not shown from its first word on that sounds secret: nobody wrote it by hand, and to look at
/// each such word would take long.
const LONG_LINE: usize = 4096;

/// A line without the values of credentials, unless they are variables. What follows one is not shown, as nobody knows
/// where it ends.
fn masked(line: &str) -> String {
    if line.len() > LONG_LINE {
        let word = secret_word(&line.to_ascii_lowercase());
        let before = word.and_then(|word| line.get(..word));
        return before.map_or_else(|| line.to_owned(), |before| format!("{before}***"));
    }
    let mut shown = 0;
    while let Some((at, sign)) = line.get(shown..).and_then(secret_value) {
        let Some((key, value)) = line.split_at_checked(shown + at) else { break };
        match variables(value, sign) {
            Some(length) => shown += at + length,
            None => return format!("{key} ***"),
        }
    }
    line.to_owned()
}

/// Bytes of a value that is made of variables alone, or of nothing. In code, as behind `=`, it ends at a space, too.
fn variables(text: &str, sign: char) -> Option<usize> {
    let quotes = ['"', '\''];
    if text.trim().trim_matches(['"', '\'', '}']).is_empty() {
        return Some(text.len());
    }
    let mut rest = text.trim_start().trim_start_matches(quotes);
    rest.starts_with('$').then_some(())?;
    while let Some(name) = rest.strip_prefix('$') {
        let braced = name.strip_prefix('{');
        rest = braced.unwrap_or(name);
        let length = rest.find(|c| !is_of_name(c)).unwrap_or(rest.len());
        rest = rest.get(length..).filter(|_| length > 0)?;
        if braced.is_some() {
            rest = rest.strip_prefix('}')?;
        }
    }
    let rest = rest.trim_start_matches(quotes);
    let ends = rest.trim_start().is_empty()
        || rest.starts_with([',', '}', ']'])
        || rest.trim_start().starts_with('#') && rest.starts_with(' ')
        || sign == '=' && rest.starts_with(' ');
    ends.then_some(text.len() - rest.len())
}

/// Without control characters, so that a file cannot steer the terminal; on one line, also for those who take the line
/// and paragraph separators of Unicode for ends of lines; without a mark of the byte order, which nobody sees; and no
/// longer than [`MOST_SAID`]: what a file says is repeated in messages.
#[must_use]
pub fn clean(text: &str) -> String {
    let one_line = |c: char| if matches!(c, '\n' | '\t' | '\r' | '\u{2028}' | '\u{2029}') { ' ' } else { c };
    let unseen = |c: &char| c.is_control() || *c == '\u{feff}';
    let mut out: String = text.chars().map(one_line).filter(|c| !unseen(c)).take(MOST_SAID + 1).collect();
    if let Some((end, _)) = out.char_indices().nth(MOST_SAID) {
        out.truncate(end);
        out.push('…');
    }
    out
}

/// What was found in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    list: Vec<Diagnostic>,
    left_out: usize,
}

impl Findings {
    /// One more, up to [`MOST_FINDINGS`].
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.list.len() < MOST_FINDINGS { self.list.push(diagnostic) } else { self.left_out += 1 }
    }

    /// All, in the order of the file; those without a place first.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.list.sort_by_key(|found| found.at);
        self.list.dedup();
        self
    }

    /// Without values that nobody may see; what the file itself holds stays.
    #[must_use]
    pub(crate) fn masked(mut self, mask: &Mask) -> Self {
        for found in &mut self.list {
            let texts = [&mut found.message, &mut found.label].into_iter().chain(&mut found.hint);
            texts.for_each(|text| *text = mask.text(text));
        }
        self
    }

    /// Those that are kept.
    #[must_use]
    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }

    /// How many more there were.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// How many are of a severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.list.iter().filter(|found| found.severity == severity).count()
    }

    /// Whether the file cannot be used.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.left_out > 0 || self.count(Severity::Error) > 0
    }
}

impl Extend<Diagnostic> for Findings {
    fn extend<T: IntoIterator<Item = Diagnostic>>(&mut self, found: T) {
        found.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }
}

/// The candidate nearest to what was written, if it is near enough to be meant.
#[must_use]
pub fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (written.chars().count() / 3).clamp(1, 3);
    let length = written.chars().count();
    candidates
        .into_iter()
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= allowed)
        .map(|candidate| (distance(written, candidate), candidate))
        .filter(|(distance, _)| (1..=allowed).contains(distance))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edit distance, with a swap of neighbours as one edit: the usual typo.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let at = |row: &[usize], k: usize| row.get(k).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&row, j) + usize::from(ca != cb)).min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(cb) && b.get(j - 1) == Some(ca);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[test]
    fn what_a_file_says_at_length_is_not_repeated() {
        let long = Diagnostic::error(reason::WRONG_TYPE, "é".repeat(MOST_SAID + 1)).hint("x".repeat(100_000));
        let shown = long.render("a.yml", "");
        assert!(
            shown.chars().count() < 2 * MOST_SAID + 100 && shown.contains("é…\n") && shown.contains("x…\n"),
            "{shown}"
        );
        assert_eq!(clean(&"é".repeat(MOST_SAID)), "é".repeat(MOST_SAID));
    }

    #[test]
    fn nearest_finds_typos_and_nothing_else() {
        let runs = ["hello-7", "hello-8", "release-x7k2p"];
        assert_eq!(nearest("hello-9", runs), Some("hello-7"));
        assert_eq!(nearest("helol-8", runs), Some("hello-8"));
        assert_eq!(nearest("release-x7k2", runs), Some("release-x7k2p"));
        assert_eq!(nearest("deploy", runs), None);
        assert_eq!(nearest("hello-7", ["hello-7"]), None);
    }

    #[test]
    fn credentials_and_control_characters_are_not_shown() {
        let text = "a:\n  password: hunter2\n  secret: $SECRET\n\tb: \u{1b}[2J\n";
        let at = |line, column| Diagnostic::error(reason::WRONG_TYPE, "x").at(Span { line, column, width: 7 }, "here");
        assert_eq!(
            at(2, 13).render("f", text),
            "error[WrongType]: x\n  --> f:2:13\n2 |   password: ***\n  |             ^^^ here\n"
        );
        assert!(at(3, 11).render("f", text).contains("secret: $SECRET\n"));
        assert!(!at(4, 1).render("f", text).contains(['\u{1b}', '\t']));
        assert_eq!(clean("a\u{2028}b\u{2029}c\u{feff}d\r\ne"), "a b cd  e");
        let separators = at(1, 1).render("f", "\u{feff}a\u{2028}b\n");
        assert!(!separators.contains(['\u{2028}', '\u{feff}']), "{separators:?}");
    }

    #[rstest]
    #[case("cmd: login --token $TOKEN", None)]
    #[case("- run: {env: $API_KEY, cmd: sleep 1}", None)]
    #[case("- run: {env: ${API_KEY}, cmd: sleep 1}", None)]
    #[case("{Username: ci, Password: $PW, other: 1}", None)]
    #[case("password: \"$USER_PASS\"  # of the registry", None)]
    #[case("password: $A${B}", None)]
    #[case("password: \"\"", None)]
    #[case("cmd: env TOKEN=$TOKEN app", None)]
    #[case("cmd: env TOKEN=$TOKEN KEY=hunter2 app", Some("cmd: env TOKEN=$TOKEN KEY= ***"))]
    #[case("{password: $PW, secret: hunter2}", Some("{password: $PW, secret: ***"))]
    #[case("password: hunter2, name: $X", Some("password: ***"))]
    #[case("password: $PW hunter2", Some("password: ***"))]
    #[case("password: ${PW:-hunter2}", Some("password: ***"))]
    #[case("password: $PW-hunter2", Some("password: ***"))]
    #[case("password: hunter2$PW", Some("password: ***"))]
    #[case("password: $", Some("password: ***"))]
    #[case("the key of $TOKEN is: hunter2", Some("the key of $TOKEN is: ***"))]
    #[case("$TOKEN: x, token: hunter2", Some("$TOKEN: x, token: ***"))]
    fn only_what_is_written_out_is_hidden(#[case] line: &str, #[case] shown: Option<&str>) {
        assert_eq!(masked(line), shown.unwrap_or(line));
    }

    proptest! {
        #[test]
        fn any_line_is_masked_and_what_is_written_out_is_gone(before in "[a-z$:={ ,é]{0,20}", quote in "[\"' ]{0,1}") {
            let line = format!("{before} password: {quote}hunter2");
            prop_assert!(!masked(&line).contains("hunter2"), "{}", masked(&line));
        }
    }

    #[test]
    fn keys_and_variables_sound_secret_alike() {
        for name in ["PG_PASSWORD", "MYSQL_PASS", "api-token", "AWS_SECRET", "aws-access-key", "DEPLOY_PRIVATE"] {
            assert!(sounds_secret(name), "{name}");
        }
        assert!(!sounds_secret("REGION"));
        let shown = Diagnostic::error(reason::WRONG_TYPE, "x").at(Span { line: 1, column: 1, width: 3 }, "");
        assert!(shown.render("f", "aws-access-key: hunter2\n").contains("aws-access-key: ***"));
    }

    #[test]
    fn a_long_line_is_shown_around_the_place() {
        let text = format!("{}HERE{}", "x".repeat(500), "y".repeat(500));
        let shown = Diagnostic::error(reason::WRONG_TYPE, "x")
            .at(Span { line: 1, column: 501, width: 4 }, "")
            .render("f", &text);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[2].find("HERE"), lines[3].find("^^^^"));
        assert!(lines[2].len() < 170, "{shown}");
    }
}
