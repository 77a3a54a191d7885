//! Step output made safe for a terminal: colours stay, every other escape goes, `\r` bars are folded.
//!
//! `screen` uses it when stdout is a terminal and `--raw` is not given. **Invariant:** what comes out
//! holds no control byte but line end, tab and the escape of an SGR sequence.

/// Longest SGR sequence that is kept; a longer one is dropped.
const LONGEST_SGR: usize = 64;
/// A line longer than this is given out in parts.
const LONGEST_LINE: usize = 64 * 1024;

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// In ESC [ …: parameters so far.
    Csi(Vec<u8>),
    /// In a string such as ESC ] … that BEL or ESC \ ends; whether ESC was just seen.
    Str(bool),
    /// After 0xC2, which begins the C1 controls in UTF-8.
    C2,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Filter {
    state: State,
    line: Vec<u8>,
    /// A `\r` came, and it is not known yet whether a line end follows.
    carriage: bool,
    folded: bool,
}

impl Filter {
    /// Gives whole lines; the rest of the last one is kept.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for byte in bytes {
            self.byte(*byte, &mut out);
        }
        out
    }

    /// Gives what is kept, for when nothing came for a while. A bar becomes a line of its own.
    pub(super) fn flush(&mut self) -> Vec<u8> {
        let mut out = std::mem::take(&mut self.line);
        if !out.is_empty() && (self.carriage || self.folded) {
            out.push(b'\n');
            self.carriage = false;
            self.folded = false;
        }
        out
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        match (&mut self.state, byte) {
            (State::Str(after_escape), _) => {
                let ends = byte == 0x07 || (*after_escape && byte == b'\\');
                self.state = if ends { State::Text } else { State::Str(byte == 0x1b) };
            }
            (State::Csi(held), 0x20..=0x3f) => {
                if held.len() < LONGEST_SGR {
                    held.push(byte);
                }
            }
            (State::Csi(held), b'm') => {
                let plain =
                    held.len() < LONGEST_SGR && held.iter().all(|b| b.is_ascii_digit() || matches!(b, b';' | b':'));
                let held = std::mem::take(held);
                self.state = State::Text;
                if plain {
                    self.push(b"\x1b[");
                    self.push(&held);
                    self.push(b"m");
                }
            }
            (State::Csi(_), 0x40..=0x7e) => self.state = State::Text,
            (State::Escape, b'[') => self.state = State::Csi(Vec::new()),
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => self.state = State::Str(false),
            (State::Escape, 0x20..=0x2f) => {}
            (State::Escape, 0x30..=0x7e) => self.state = State::Text,
            (State::C2, 0x80..=0x9f) => self.state = State::Text,
            (State::C2, _) => {
                self.state = State::Text;
                self.push(&[0xc2]);
                self.byte(byte, out);
            }
            (State::Text | State::Escape | State::Csi(_), _) => self.text(byte, out),
        }
    }

    fn text(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.state = State::Text;
        match byte {
            b'\n' => {
                self.carriage = false;
                self.folded = false;
                self.line.push(b'\n');
                out.append(&mut self.line);
            }
            b'\r' => self.carriage = true,
            0x1b => self.state = State::Escape,
            0xc2 => self.state = State::C2,
            0..=0x08 | 0x0b..=0x1f | 0x7f => {}
            _ => self.push(&[byte]),
        }
        if self.line.len() > LONGEST_LINE {
            out.append(&mut self.line);
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.carriage {
            self.carriage = false;
            self.folded = true;
            self.line.clear();
        }
        self.line.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filtered(text: &str) -> String {
        let mut filter = Filter::default();
        let mut out = filter.feed(text.as_bytes());
        out.extend(filter.flush());
        String::from_utf8(out).expect("utf-8")
    }

    #[test]
    fn colours_stay_and_the_rest_goes() {
        for (given, shown) in [
            ("plain ü\n", "plain ü\n"),
            ("\x1b[1;31mred\x1b[0m\n", "\x1b[1;31mred\x1b[0m\n"),
            ("\x1b[2J\x1b[Hclear\n", "clear\n"),
            ("\x1b]0;title\x07x\n", "x\n"),
            ("\x1b]8;;http://x\x1b\\link\n", "link\n"),
            ("\x1bP1$r\x1b\\dcs\n", "dcs\n"),
            ("\x1b[?25lhide\n", "hide\n"),
            ("\x1b[>4;2mmodify\n", "modify\n"),
            ("a\x07b\x08c\td\n", "abc\td\n"),
            ("\u{9b}2Jc1 \u{a9}\n", "2Jc1 ©\n"),
            ("\x1b(Bcharset\n", "charset\n"),
        ] {
            assert_eq!(filtered(given), shown, "{given:?}");
        }
    }

    #[test]
    fn a_bar_is_folded_to_its_last_state() {
        assert_eq!(filtered("10%\r50%\r100%\n"), "100%\n");
        assert_eq!(filtered("dos\r\nline\r\n"), "dos\nline\n");
        let mut filter = Filter::default();
        assert_eq!(filter.feed(b"10%\r50%"), b"");
        assert_eq!(filter.flush(), b"50%\n");
        assert_eq!(filter.feed(b"prompt: "), b"");
        assert_eq!(filter.flush(), b"prompt: ");
    }

    proptest! {
        #[test]
        fn nothing_else_comes_out(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..300) {
            let mut filter = Filter::default();
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            let mut out = filter.feed(a);
            out.extend(filter.feed(b));
            out.extend(filter.flush());
            for (i, byte) in out.iter().enumerate() {
                let escape = *byte == 0x1b && out.get(i + 1) == Some(&b'[');
                prop_assert!(escape || matches!(byte, b'\n' | b'\t') || (*byte >= 0x20 && *byte != 0x7f));
            }
        }
    }
}
