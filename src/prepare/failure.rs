//! Failures of the user's doing, or of the world's, as the run's condition shows them.
//!
//! Every file of this role returns [`Failure`]; `mod.rs` reports it once.
//!
//! **Invariant:** a message never holds a value of a Secret, and no control character.

use crate::wire::Failure;

/// Kubernetes keeps this much of a termination message.
pub(crate) const TERMINATION_BYTES: usize = 4096;
/// Most characters of another program's words that go into a message.
const WORDS_CHARS: usize = 500;

/// A failure with a reason of `api::condition::reason`.
pub(crate) fn failure(reason: &str, message: impl Into<String>) -> Failure {
    Failure { reason: reason.into(), message: clean(&message.into()) }
}

/// Replaces control characters, so that no terminal is steered by foreign text.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The beginning of another program's words.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(WORDS_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.into(),
    }
}

/// The failure as JSON of at most [`TERMINATION_BYTES`]; a longer message ends with `…`.
pub(crate) fn termination_message(failure: &Failure) -> String {
    let whole = json(failure);
    if whole.len() <= TERMINATION_BYTES {
        return whole;
    }
    let frame = json(&Failure { reason: failure.reason.clone(), message: "…".into() });
    let mut left = TERMINATION_BYTES.saturating_sub(frame.len());
    let fitting = failure.message.chars().take_while(|c| {
        // Quotes of its own stand around what is measured.
        let size = json(c).len().saturating_sub(2);
        let fits = size <= left;
        left = left.saturating_sub(size);
        fits
    });
    let message = fitting.chain(['…']).collect();
    json(&Failure { reason: failure.reason.clone(), message })
}

fn json(value: &impl serde::Serialize) -> String {
    // Text always serializes.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_fit_and_stay_json() {
        for message in ["short", &"é".repeat(5000), &"\"".repeat(5000), &"\\\"é…".repeat(3000), ""] {
            let text = termination_message(&failure("SourceFailed", message));
            assert!(text.len() <= TERMINATION_BYTES, "{}", text.len());
            let back: Failure = serde_json::from_str(&text).unwrap();
            assert_eq!(back.reason, "SourceFailed");
            let whole = message.len() < 100;
            assert_eq!(back.message == message, whole);
            assert!(whole || back.message.ends_with('…'));
            assert!(whole || text.len() > TERMINATION_BYTES - 16, "cut too much: {}", text.len());
        }
    }

    #[test]
    fn control_characters_do_not_pass() {
        assert_eq!(failure("X", "a\u{1b}[31m\nb\u{9b}").message, "a [31m b ");
    }
}
