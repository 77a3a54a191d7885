//! The one writer: stdout for data, stderr for messages, a footer below both.
//!
//! Every verb writes through it. **Invariant:** messages are whole lines; the footer is gone from the
//! terminal when the process ends, by whatever way.

use super::{
    ansi::Filter,
    render::Text,
    style::{Look, Mode},
};
use std::{
    io::{Result, Write},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Rows of footer on the terminal now; for the panic hook, which has no `Screen`.
static PAINTED: AtomicUsize = AtomicUsize::new(0);

/// See the module.
#[derive(Debug)]
pub(super) struct Screen {
    look: Look,
    /// Step output goes to stderr, as stdout is for `-o`.
    aside: bool,
    filter: Option<Filter>,
    /// The last data byte was not a line end.
    mid_line: bool,
    footer: Vec<String>,
}

impl Screen {
    /// A writer. `raw` keeps all escapes of step output.
    #[must_use]
    pub(super) fn new(look: &Look, aside: bool, raw: bool) -> Self {
        let filter = (look.strip && !raw && look.mode != Mode::Json).then(Filter::default);
        Self { look: look.clone(), aside, filter, mid_line: false, footer: Vec::new() }
    }

    /// How things look.
    #[must_use]
    pub(super) fn look(&self) -> &Look {
        &self.look
    }

    /// Writes texts above the footer, and the footer anew if it changed.
    ///
    /// # Errors
    /// When stdout or stderr cannot be written.
    pub(super) fn show(&mut self, texts: &[Text], footer: Vec<String>) -> Result<()> {
        if self.look.quiet > 1 {
            return Ok(());
        }
        if texts.is_empty() && footer == self.footer {
            return Ok(());
        }
        let mut frame = self.erased();
        // Output comes line by line; it is written as one.
        let mut data = Vec::new();
        for text in texts {
            match text {
                Text::Data(bytes) => match &mut self.filter {
                    Some(filter) => data.extend(filter.feed(bytes)),
                    None => data.extend_from_slice(bytes),
                },
                Text::Message(line) => {
                    self.write_between(&mut frame, &mut data)?;
                    self.end_line(&mut frame)?;
                    frame.push_str(line);
                }
            }
        }
        self.write_between(&mut frame, &mut data)?;
        if !footer.is_empty() {
            self.end_line(&mut frame)?;
            frame.push_str(&footer.join("\n"));
            PAINTED.store(footer.len(), Ordering::Relaxed);
        }
        self.footer = footer;
        err(&frame)
    }

    /// Gives out what the filter keeps of a line. To be called about once a second.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(super) fn flush_line(&mut self) -> Result<()> {
        let held = self.filter.as_mut().map(Filter::flush).unwrap_or_default();
        if held.is_empty() {
            return Ok(());
        }
        err(&self.erased())?;
        self.footer.clear();
        self.write_data(&held)
    }

    /// Writes data that is not step output: tables, names, objects.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(super) fn data(&mut self, text: &str) -> Result<()> {
        if self.look.quiet > 1 {
            return Ok(());
        }
        self.clear()?;
        out(text.as_bytes())
    }

    /// Writes a message that is not an error.
    ///
    /// # Errors
    /// When stderr cannot be written.
    pub(super) fn message(&mut self, line: &str) -> Result<()> {
        if self.look.quiet > 0 || self.look.mode == Mode::None {
            return Ok(());
        }
        self.show(&[Text::Message(format!("{line}\n"))], self.footer.clone())
    }

    /// Takes the footer off.
    ///
    /// # Errors
    /// When stderr cannot be written.
    pub(super) fn clear(&mut self) -> Result<()> {
        let held = self.filter.as_mut().map(Filter::flush).unwrap_or_default();
        let erased = self.erased();
        self.footer.clear();
        err(&erased)?;
        if held.is_empty() { Ok(()) } else { self.write_data(&held) }
    }

    /// Data that came after what is in the frame.
    fn write_between(&mut self, frame: &mut String, data: &mut Vec<u8>) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        err(&std::mem::take(frame))?;
        self.write_data(&std::mem::take(data))
    }

    fn write_data(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(last) = bytes.last() else { return Ok(()) };
        self.mid_line = *last != b'\n';
        if self.aside {
            let mut stderr = std::io::stderr().lock();
            stderr.write_all(bytes)?;
            return stderr.flush();
        }
        out(bytes)
    }

    /// A message after an unfinished line of output begins on a line of its own.
    fn end_line(&mut self, frame: &mut String) -> Result<()> {
        let held = self.filter.as_mut().map(Filter::flush).unwrap_or_default();
        if !held.is_empty() {
            err(&std::mem::take(frame))?;
            self.write_data(&held)?;
        }
        if std::mem::take(&mut self.mid_line) {
            frame.push('\n');
        }
        Ok(())
    }

    /// What erases the footer; a footer that a narrower window wrapped takes more rows.
    fn erased(&self) -> String {
        if PAINTED.swap(0, Ordering::Relaxed) == 0 {
            return String::new();
        }
        let columns = super::style::columns().unwrap_or(80).max(1);
        let rows = self.footer.iter().map(|row| visible(row).div_ceil(columns).max(1)).sum::<usize>();
        erase(rows)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing is left to be done about an error here.
        let _ = self.clear();
    }
}

/// Takes the footer off without a [`Screen`]: for the panic hook.
pub(super) fn clear_after_panic() {
    let rows = PAINTED.swap(0, Ordering::Relaxed);
    if rows > 0 {
        let _ = err(&erase(rows));
    }
}

/// Writes an error; the last thing a process says.
pub(super) fn error(text: &str) {
    // Who does not read stderr does not want to know.
    let _ = err(text);
}

fn erase(rows: usize) -> String {
    let up = if rows > 1 { format!("\x1b[{}A", rows - 1) } else { String::new() };
    format!("{up}\r\x1b[J")
}

/// Columns that a row takes: without its colours.
fn visible(row: &str) -> usize {
    let mut count = 0;
    let mut escape = false;
    for c in row.chars() {
        match (escape, c) {
            (false, '\x1b') => escape = true,
            (true, 'm') => escape = false,
            (true, _) => {}
            (false, _) => count += 1,
        }
    }
    count
}

/// Writes data, all of it.
///
/// # Errors
/// When stdout cannot be written.
pub(super) fn out(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

fn err(text: &str) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let mut stderr = std::io::stderr().lock();
    stderr.write_all(text.as_bytes())?;
    stderr.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erasing_goes_up_to_the_first_row() {
        assert_eq!(erase(1), "\r\x1b[J");
        assert_eq!(erase(3), "\x1b[2A\r\x1b[J");
        assert_eq!(visible("\x1b[32m✓\x1b[39m build"), 7);
    }
}
