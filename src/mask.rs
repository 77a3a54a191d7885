//! Replaces secret values in a stream of bytes. Called by the runner's `output` for everything a step prints, and by
//! `local` for what the engine says of steps that it carries out.
//!
//! A value is looked for as it is, line by line, JSON-escaped, and in base64 at each of the three
//! alignments (so that `user:password` in base64 is found too) and as `base64` wraps it.
//!
//! **Invariant:** pure and bounded: it holds back at most the longest pattern, and only bytes that
//! may be the beginning of one.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

/// What stands in place of a secret.
const STARS: &[u8] = b"***";
/// Shorter values are not masked: they would hide innocent text.
const SHORTEST: usize = 4;
/// Longer patterns are looked for in pieces, so that little is held back.
const LONGEST: usize = 1024;
/// Characters per line of the `base64` command.
const BASE64_COLUMNS: usize = 76;

/// Finds patterns in a stream; the rest passes through.
pub(crate) struct Mask {
    /// Sorted, distinct, each of [`SHORTEST`] to [`LONGEST`] bytes.
    patterns: Vec<Vec<u8>>,
    /// One bit for each first pair of bytes of a pattern.
    pairs: Vec<u64>,
    /// What may be the beginning of a pattern.
    held: Vec<u8>,
}

/// What stands at the beginning of some bytes.
enum Found {
    /// No pattern.
    Nothing,
    /// A pattern of this length.
    Pattern(usize),
    /// Perhaps the beginning of a pattern: more bytes will tell.
    Perhaps,
}

impl Mask {
    /// A mask for these secret values.
    pub(crate) fn new<'a>(secrets: impl Iterator<Item = &'a str>) -> Self {
        let mut patterns: Vec<Vec<u8>> = secrets
            .filter(|value| value.len() >= SHORTEST)
            .flat_map(forms)
            .filter(|form| form.len() >= SHORTEST)
            .flat_map(|form| pieces(&form))
            .collect();
        patterns.sort_unstable();
        patterns.dedup();
        let mut pairs = vec![0; 1024];
        for pattern in &patterns {
            let (word, bit) = pair_bit(pattern);
            if let Some(slot) = pairs.get_mut(word) {
                *slot |= bit;
            }
        }
        Self { patterns, pairs, held: Vec::new() }
    }

    /// Whether bytes are held back.
    pub(crate) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes bytes and appends what may leave to `out`.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.patterns.is_empty() {
            out.extend_from_slice(bytes);
            return;
        }
        let mut buffer = std::mem::take(&mut self.held);
        buffer.extend_from_slice(bytes);
        let used = self.replace(&buffer, false, out);
        buffer.drain(..used);
        self.held = buffer;
    }

    /// Appends what is held back to `out`: no more bytes come for now.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) {
        let buffer = std::mem::take(&mut self.held);
        self.replace(&buffer, true, out);
    }

    /// A text that is whole, masked.
    pub(crate) fn text(&self, text: &str) -> String {
        let mut out = Vec::with_capacity(text.len());
        self.replace(text.as_bytes(), true, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Copies `bytes` with patterns replaced; says how many were dealt with.
    fn replace(&self, bytes: &[u8], at_end: bool, out: &mut Vec<u8>) -> usize {
        let mut plain_from = 0;
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.look(rest, at_end) {
                Found::Nothing => at += 1,
                Found::Pattern(length) => {
                    out.extend_from_slice(bytes.get(plain_from..at).unwrap_or_default());
                    out.extend_from_slice(STARS);
                    at += length;
                    plain_from = at;
                }
                Found::Perhaps => break,
            }
        }
        out.extend_from_slice(bytes.get(plain_from..at).unwrap_or_default());
        at
    }

    /// What stands at the beginning of `rest`. The longest pattern wins.
    fn look(&self, rest: &[u8], at_end: bool) -> Found {
        if rest.len() > 1 {
            let (word, bit) = pair_bit(rest);
            if self.pairs.get(word).is_none_or(|slot| slot & bit == 0) {
                return Found::Nothing;
            }
        }
        let key = rest.get(..SHORTEST.min(rest.len())).unwrap_or_default();
        let first = self.patterns.partition_point(|pattern| pattern.as_slice() < key);
        let mut longest = 0;
        for pattern in self.patterns.iter().skip(first).take_while(|pattern| pattern.starts_with(key)) {
            if rest.starts_with(pattern) {
                longest = longest.max(pattern.len());
            } else if !at_end && pattern.starts_with(rest) {
                return Found::Perhaps;
            }
        }
        if longest > 0 { Found::Pattern(longest) } else { Found::Nothing }
    }
}

/// Where the first two bytes are in the table of pairs.
fn pair_bit(bytes: &[u8]) -> (usize, u64) {
    let pair = match bytes {
        [a, b, ..] => u16::from_be_bytes([*a, *b]),
        _ => 0,
    };
    (usize::from(pair >> 6), 1 << (pair & 63))
}

/// The forms in which a value may be printed.
fn forms(value: &str) -> Vec<Vec<u8>> {
    let mut forms: Vec<Vec<u8>> = vec![value.into()];
    forms.extend(value.lines().map(|line| line.trim().into()));
    if let Ok(escaped) = serde_json::to_string(value) {
        forms.push(escaped.trim_matches('"').into());
    }
    for offset in 0..3 {
        let text = base64_inside(value.as_bytes(), offset);
        if text.contains(['+', '/']) {
            forms.push(text.replace('+', "-").replace('/', "_").into());
        }
        forms.push(text.into());
    }
    let whole = STANDARD_NO_PAD.encode(value);
    if whole.len() > BASE64_COLUMNS {
        forms.extend(whole.as_bytes().chunks(BASE64_COLUMNS).map(<[u8]>::to_vec));
    }
    forms.push(whole.into());
    forms
}

/// The characters of base64 that depend on nothing but `value`, if `offset` bytes stand before it.
fn base64_inside(value: &[u8], offset: usize) -> String {
    let mut padded = vec![0; offset];
    padded.extend_from_slice(value);
    let text = STANDARD_NO_PAD.encode(&padded);
    let (from, to) = ((offset * 8).div_ceil(6), padded.len() * 8 / 6);
    text.get(from..to).unwrap_or_default().to_owned()
}

/// A pattern in pieces of even length, none longer than [`LONGEST`].
fn pieces(form: &[u8]) -> Vec<Vec<u8>> {
    let count = form.len().div_ceil(LONGEST).max(1);
    form.chunks(form.len().div_ceil(count).max(1)).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Masks `text`, cut into pieces of `size`.
    fn masked(secrets: &[&str], text: &[u8], size: usize) -> String {
        let mut mask = Mask::new(secrets.iter().copied());
        let mut out = Vec::new();
        for piece in text.chunks(size) {
            mask.push(piece, &mut out);
            assert!(mask.held.len() <= LONGEST + size);
        }
        mask.flush(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn hides_values_wherever_the_stream_is_cut() {
        let secrets = ["hunter2", "hunter2-long", "line one\nline two\r\nab"];
        let text = "a hunter2 b hunter2-long c hunter hunthunter2 line one\nline two\nab line twohunter2";
        let want = "a *** b *** c hunter hunt*** ***\n***\nab ******";
        for size in 1..=text.len() {
            assert_eq!(masked(&secrets, text.as_bytes(), size), want, "pieces of {size}");
        }
    }

    #[test]
    fn hides_base64_at_each_alignment() {
        let secret = "correct horse battery";
        for before in ["", "u", "us", "user:"] {
            for after in ["", "\n", "!!"] {
                let text = STANDARD_NO_PAD.encode(format!("{before}{secret}{after}"));
                let out = masked(&[secret], text.as_bytes(), 7);
                assert!(out.contains("***"), "{out}");
                assert!(out.len() <= text.len() - 24, "{text} became {out}");
            }
        }
    }

    #[test]
    fn hides_wrapped_base64_and_json() {
        let secret: String = ('!'..'~').cycle().take(500).collect();
        let text = STANDARD_NO_PAD.encode(&secret);
        let wrapped: Vec<&str> = text.as_bytes().chunks(76).map(|c| std::str::from_utf8(c).unwrap()).collect();
        assert_eq!(masked(&[&secret], wrapped.join("\n").as_bytes(), 11).replace("***\n", ""), "***");
        assert_eq!(masked(&["say \"hi\"\nto\tme"], br#"{"k":"say \"hi\"\nto\tme"}"#, 3), r#"{"k":"***"}"#);
    }

    #[test]
    fn leaves_short_values_and_other_text() {
        assert_eq!(masked(&["abc", ""], b"abc abc", 2), "abc abc");
        assert_eq!(masked(&[], b"plain", 2), "plain");
        assert_eq!(masked(&["abcd"], b"abc", 1), "abc");
    }

    #[test]
    fn long_values_are_bounded() {
        let secret: String = (0..5000).map(|n| char::from(b'a' + (n * n % 26) as u8)).collect();
        let out = masked(&[&secret], format!("x{secret}y").as_bytes(), 100);
        assert_eq!(out.replace('*', ""), "xy");
    }

    #[test]
    fn holds_nothing_back_but_beginnings() {
        let mut mask = Mask::new(["secret"].into_iter());
        let mut out = Vec::new();
        mask.push(b"prompt: ", &mut out);
        assert!(!mask.holds());
        mask.push(b"sec", &mut out);
        assert!(mask.holds());
        mask.push(b"ond", &mut out);
        assert_eq!(out, b"prompt: second");
    }
}
