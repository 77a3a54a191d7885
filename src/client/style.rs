//! How text looks on this terminal: which renderer, colour, glyphs, width.
//!
//! `Terminal::detect` reads the world once; `Look::decide` is pure. Every verb and renderer asks the
//! [`Look`]. **Invariant:** colour and glyphs are decoration: every state also has a word.

use super::args::{Color, Display, Progress};
use std::io::IsTerminal;

/// What is known of the terminal and of the variables that people set for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Terminal {
    /// Whether stdout is a terminal.
    pub stdout: bool,
    /// Whether stderr is a terminal.
    pub stderr: bool,
    /// Columns, if there is a terminal.
    pub columns: Option<usize>,
    /// Whether the locale is a UTF-8 one.
    pub utf8: bool,
    /// `TERM=dumb` or no `TERM`.
    pub dumb: bool,
    /// `CI` is set.
    pub ci: bool,
    /// `NO_COLOR` is set.
    pub no_color: bool,
    /// `CLICOLOR_FORCE` or `FORCE_COLOR` is set.
    pub force_color: bool,
    /// `CLICOLOR=0`.
    pub clicolor_off: bool,
}

impl Terminal {
    /// Looks at the streams and the environment.
    #[must_use]
    pub(super) fn detect() -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let on = |name: &str| var(name).is_some_and(|v| v != "0");
        let locale = var("LC_ALL").or_else(|| var("LC_CTYPE")).or_else(|| var("LANG")).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        Self {
            stdout: std::io::stdout().is_terminal(),
            stderr: std::io::stderr().is_terminal(),
            columns: columns(),
            utf8: locale.contains("utf-8") || locale.contains("utf8"),
            dumb: var("TERM").is_none_or(|t| t == "dumb"),
            ci: on("CI"),
            no_color: var("NO_COLOR").is_some(),
            force_color: on("CLICOLOR_FORCE") || on("FORCE_COLOR"),
            clicolor_off: var("CLICOLOR").is_some_and(|v| v == "0"),
        }
    }
}

/// Columns of the terminal, now.
#[must_use]
pub(super) fn columns() -> Option<usize> {
    rustix::termios::tcgetwinsize(std::io::stderr())
        .or_else(|_| rustix::termios::tcgetwinsize(std::io::stdout()))
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0)
}

/// Which renderer shows a followed run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// A footer is repainted.
    Live,
    /// Whole lines only.
    #[default]
    Plain,
    /// Step output and errors only.
    None,
    /// One JSON object per line.
    Json,
}

/// Decisions about the looks.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    /// The renderer.
    pub mode: Mode,
    /// Colour on stdout.
    pub color_out: bool,
    /// Colour on stderr.
    pub color_err: bool,
    /// `✓ ✗ ! · ▸` instead of words.
    pub glyphs: bool,
    /// Columns to fit our own lines to; none: nothing is cut.
    pub width: Option<usize>,
    /// Step output goes to a terminal: escapes other than colours are taken out.
    pub strip: bool,
    /// 0: everything; 1: errors and data; 2: nothing.
    pub quiet: u8,
    /// More about what happens.
    pub verbose: u8,
    /// Table headers are left out.
    pub no_headers: bool,
}

/// What a sign means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// Passed.
    Ok,
    /// Failed.
    Fail,
    /// Look at this.
    Warn,
    /// Skipped, or not reached.
    Skip,
    /// Runs.
    Run,
    /// Starts again.
    Again,
}

impl Look {
    /// Decides from what is known and what was asked for.
    #[must_use]
    pub(super) fn decide(terminal: &Terminal, display: &Display) -> Self {
        let color = |tty: bool| match display.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto if terminal.no_color => false,
            Color::Auto if terminal.force_color => true,
            Color::Auto => tty && !terminal.clicolor_off && !terminal.dumb,
        };
        // Requests are said as they come; a footer between them would be torn.
        let live_here = terminal.stdout && terminal.stderr && !terminal.dumb && !terminal.ci && display.verbose < 2;
        let mode = if display.json {
            Mode::Json
        } else {
            match display.progress_asked() {
                Progress::Auto if live_here => Mode::Live,
                // Repainting what is not a terminal would leave frames in a file.
                Progress::Live if terminal.stderr && !terminal.dumb && display.verbose < 2 => Mode::Live,
                Progress::Auto | Progress::Live | Progress::Plain => Mode::Plain,
                Progress::None => Mode::None,
            }
        };
        Self {
            mode,
            color_out: color(terminal.stdout),
            color_err: color(terminal.stderr),
            glyphs: mode == Mode::Live && terminal.utf8,
            width: if terminal.stdout { terminal.columns } else { None },
            strip: terminal.stdout,
            quiet: display.quiet,
            verbose: display.verbose,
            no_headers: display.no_headers,
        }
    }

    /// The sign as a glyph or a word.
    #[must_use]
    pub(super) fn sign(&self, sign: Sign) -> &'static str {
        match (sign, self.glyphs) {
            (Sign::Ok, true) => "✓",
            (Sign::Fail, true) => "✗",
            (Sign::Warn, true) => "!",
            (Sign::Skip, true) => "·",
            (Sign::Run, true) => "▸",
            (Sign::Again, true) => "↻",
            (Sign::Ok, false) => "ok",
            (Sign::Fail, false) => "FAIL",
            (Sign::Warn, false) => "warn",
            (Sign::Skip, false) => "skip",
            (Sign::Run, false) => "run",
            (Sign::Again, false) => "again",
        }
    }

    /// The sign in its colour, for stderr.
    #[must_use]
    pub(super) fn signed(&self, sign: Sign) -> String {
        paint(self.color_err, sign, self.sign(sign))
    }
}

/// Text in the colour of a sign.
#[must_use]
pub(super) fn paint(color: bool, sign: Sign, text: &str) -> String {
    use owo_colors::OwoColorize;
    if !color {
        return text.to_owned();
    }
    match sign {
        Sign::Ok => text.green().to_string(),
        Sign::Fail => text.red().to_string(),
        Sign::Warn => text.yellow().to_string(),
        Sign::Skip => text.dimmed().to_string(),
        Sign::Run | Sign::Again => text.cyan().to_string(),
    }
}

/// The sign that a phase of a run or step has.
#[must_use]
pub(super) fn sign_of(phase: &str) -> Sign {
    match phase {
        "Succeeded" => Sign::Ok,
        "Failed" => Sign::Fail,
        "Cancelled" | "Waiting" | "Cancelling" => Sign::Warn,
        "Running" => Sign::Run,
        _ => Sign::Skip,
    }
}

/// Cuts a line in the middle to fit; the end often holds what matters as much as the beginning.
#[must_use]
pub(super) fn fit(line: &str, width: usize) -> String {
    let count = line.chars().count();
    if count <= width {
        return line.to_owned();
    }
    if width == 0 {
        return String::new();
    }
    let keep = width - 1;
    let head = keep.div_ceil(2);
    let start: String = line.chars().take(head).collect();
    let end: String = line.chars().skip(count - (keep - head)).collect();
    format!("{start}…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tty() -> Terminal {
        Terminal { stdout: true, stderr: true, columns: Some(80), utf8: true, ..Terminal::default() }
    }

    #[test]
    fn live_needs_two_terminals_and_no_ci() {
        let auto = Display::default();
        assert_eq!(Look::decide(&tty(), &auto).mode, Mode::Live);
        for terminal in [
            Terminal { stdout: false, ..tty() },
            Terminal { stderr: false, ..tty() },
            Terminal { dumb: true, ..tty() },
            Terminal { ci: true, ..tty() },
        ] {
            assert_eq!(Look::decide(&terminal, &auto).mode, Mode::Plain, "{terminal:?}");
        }
        assert_eq!(Look::decide(&tty(), &Display { plain: true, ..Display::default() }).mode, Mode::Plain);
        assert_eq!(Look::decide(&tty(), &Display { json: true, ..Display::default() }).mode, Mode::Json);
        let live = Display { progress: Some(Progress::Live), ..Display::default() };
        assert_eq!(Look::decide(&Terminal { ci: true, ..tty() }, &live).mode, Mode::Live);
        assert_eq!(Look::decide(&Terminal { dumb: true, ..tty() }, &live).mode, Mode::Plain);
    }

    #[test]
    fn colour_follows_the_order_of_precedence() {
        let auto = Display::default();
        let color = |t: &Terminal, d: &Display| Look::decide(t, d).color_out;
        assert!(color(&tty(), &auto));
        assert!(!color(&Terminal::default(), &auto));
        let forced = Terminal { force_color: true, ..Terminal::default() };
        assert!(color(&forced, &auto));
        assert!(!color(&Terminal { no_color: true, ..forced.clone() }, &auto));
        let always = Display { color: Color::Always, ..Display::default() };
        assert!(color(&Terminal { no_color: true, ..forced }, &always));
        assert!(!color(&Terminal { clicolor_off: true, ..tty() }, &auto));
        // Each stream is judged for itself.
        let look = Look::decide(&Terminal { stdout: false, ..tty() }, &auto);
        assert!(!look.color_out && look.color_err);
    }

    #[test]
    fn words_stand_in_for_glyphs() {
        assert_eq!(Look::decide(&Terminal { utf8: false, ..tty() }, &Display::default()).sign(Sign::Fail), "FAIL");
        assert_eq!(Look::decide(&tty(), &Display::default()).sign(Sign::Fail), "✗");
    }

    #[test]
    fn long_lines_are_cut_in_the_middle() {
        assert_eq!(fit("abcdefgh", 8), "abcdefgh");
        assert_eq!(fit("abcdefgh", 5), "ab…gh");
        assert_eq!(fit("abc", 0), "");
        assert_eq!(fit("äöü", 2), "ä…");
    }
}
