//! The terminal we run on, when every byte is handed over: raw mode, the keys that detach, its size.
//!
//! `terminal` uses it. **Invariant:** the terminal is as it was once the guard is dropped, and after a
//! panic: the hook calls [`restore`].

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;
use std::sync::{Mutex, PoisonError};

/// How the terminal was, while it is raw; for the panic hook, which has no guard.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

const CTRL_P: u8 = 0x10;
const CTRL_Q: u8 = 0x11;

/// Whether we sit at a terminal with both our ends.
#[must_use]
pub(super) fn is_there() -> bool {
    isatty(io::stdin()) && isatty(io::stdout())
}

/// Whether stdin is a terminal, so that nothing is to be read from it unasked.
#[must_use]
pub(super) fn is_stdin() -> bool {
    isatty(io::stdin())
}

/// Rows and columns of the window.
#[must_use]
pub(super) fn size() -> Option<(u16, u16)> {
    tcgetwinsize(io::stdout()).ok().map(|size| (size.ws_row, size.ws_col))
}

/// The terminal in raw mode.
#[derive(Debug)]
pub(super) struct Raw;

impl Raw {
    /// Hands every byte over from now on.
    ///
    /// # Errors
    /// When stdin is no terminal.
    pub(super) fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Makes the terminal what it was before it was raw, if it is.
pub(super) fn restore() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}

/// Looks for Ctrl-P Ctrl-Q in what is typed.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// A Ctrl-P was typed that was not handed over yet.
    held: bool,
}

/// What to do with what was typed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Typed {
    /// To be handed over.
    pub bytes: Vec<u8>,
    /// Whether the person wants to leave; the rest was not looked at.
    pub detach: bool,
}

impl Keys {
    /// Takes what was typed.
    pub(super) fn take(&mut self, typed: &[u8]) -> Typed {
        let mut bytes = Vec::with_capacity(typed.len() + 1);
        for byte in typed {
            match (self.held, *byte) {
                (true, CTRL_Q) => return Typed { bytes, detach: true },
                (true, CTRL_P) => bytes.push(CTRL_P),
                (true, other) => {
                    self.held = false;
                    bytes.extend([CTRL_P, other]);
                }
                (false, CTRL_P) => self.held = true,
                (false, other) => bytes.push(other),
            }
        }
        Typed { bytes, detach: false }
    }

    /// Whether a Ctrl-P waits for what comes next.
    #[must_use]
    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Nothing came for a while: the Ctrl-P was meant for the program inside.
    pub(super) fn release(&mut self) -> Vec<u8> {
        if std::mem::take(&mut self.held) { vec![CTRL_P] } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(&["ls\n"], "ls\n", false, false)]
    #[case(&["\x10\x11"], "", true, false)]
    #[case(&["a\x10", "\x11b"], "a", true, false)]
    #[case(&["\x10a\x11"], "\x10a\x11", false, false)]
    #[case(&["\x10\x10\x11"], "\x10", true, false)]
    #[case(&["\x11\x10"], "\x11", false, true)]
    fn ctrl_p_ctrl_q_detaches(#[case] typed: &[&str], #[case] passed: &str, #[case] detach: bool, #[case] held: bool) {
        let mut keys = Keys::default();
        let taken: Vec<Typed> = typed.iter().map(|text| keys.take(text.as_bytes())).collect();
        assert_eq!(taken.iter().flat_map(|t| t.bytes.clone()).collect::<Vec<_>>(), passed.as_bytes());
        assert_eq!(taken.last().unwrap().detach, detach);
        assert!(detach || keys.is_held() == held);
        assert!(detach || keys.release().is_empty() != held);
    }
}
