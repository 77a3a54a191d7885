//! Why a push failed, as a reason of the step and a message for people.
//!
//! Made wherever a registry is spoken to; the agent copies it into the step's status.
//!
//! **Invariant:** the other side's words are bounded, without control characters, and never hold a credential.

use crate::api::condition::reason;
use std::{fmt::Write, time::Duration};

/// Longest quote of a registry's words, in characters.
const WORDS: usize = 300;

/// A push that failed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct PushError {
    /// One of `api::condition::reason`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// Whether the same push may succeed later: the caller may open a new door and push again.
    pub transient: bool,
    /// How long the registry asks to wait.
    pub retry_after: Option<Duration>,
    /// Whether not even a connection came about.
    pub(super) unconnected: bool,
    /// Whether only the push as a whole may succeed later, and the call that failed will not.
    pub(super) anew: bool,
}

impl PushError {
    /// A failure that the same push will meet again.
    #[must_use]
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), transient: false, retry_after: None, unconnected: false, anew: false }
    }

    /// A failure that may pass.
    #[must_use]
    pub fn transient(reason: &'static str, message: impl Into<String>) -> Self {
        Self { transient: true, ..Self::new(reason, message) }
    }

    /// The push relied on something that is gone: it may succeed if it begins anew.
    pub(super) fn anew(self) -> Self {
        Self { transient: true, anew: true, ..self }
    }

    /// Whether the other side said a final no to a request.
    pub(super) fn is_refusal(&self) -> bool {
        let refused = [reason::REGISTRY_UNAUTHORIZED, reason::REGISTRY_FORBIDDEN, reason::REGISTRY_REFUSED];
        !self.transient && refused.contains(&self.reason)
    }

    /// `secretsInImage: Deny` forbids the push; `what` says whose value is where.
    #[must_use]
    pub fn secret_in_image(what: &str, is_artifact: bool) -> Self {
        let or = if is_artifact { "" } else { ", or set secretsInImage to Allow" };
        Self::new(reason::SECRET_IN_LAYER, format!("{what}; take it out{or}"))
    }

    /// What `secretsInImage: Deny` wants searched cannot be searched; `what` says what and why.
    #[must_use]
    pub fn not_searched(what: &str, is_artifact: bool) -> Self {
        let or = if is_artifact { "" } else { "; to push all the same, set secretsInImage to Warn or Allow" };
        let text = format!("{what}{or}");
        Self::new(reason::SECRETS_NOT_SEARCHED, text)
    }

    /// The caller asked to stop.
    #[must_use]
    pub fn stopped() -> Self {
        Self::new(reason::CANCELLED, "stopped before the push was done")
    }
}

/// Whether a registry's error has this code.
pub(super) fn has_code(body: &[u8], code: &str) -> bool {
    let json = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
    let errors = json.get("errors").and_then(|errors| errors.as_array());
    errors.is_some_and(|errors| errors.iter().any(|error| error.get("code").is_some_and(|found| found == code)))
}

/// What a registry says of an error: `CODE: message` of its JSON, or the text itself. `secrets` are taken out before
/// anything is cut off, as some registries quote the request.
pub(super) fn words(body: &[u8], secrets: &[&str]) -> String {
    let said = serde_json::from_slice::<serde_json::Value>(body).ok().and_then(|json| from_json(&json));
    let mut said = said.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        let quoted = serde_json::Value::from(*secret).to_string();
        said = said.replace(secret, "***").replace(quoted.trim_matches('"'), "***");
    }
    plain(&said)
}

/// Text of another party: one line, bounded, no control characters.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.extend(word.chars().filter(|c| !is_deceptive(*c)).take(WORDS));
        if out.chars().count() > WORDS {
            return out.chars().take(WORDS).chain(['…']).collect();
        }
    }
    out
}

/// Characters that change the direction of text, or show nothing.
fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn from_json(json: &serde_json::Value) -> Option<String> {
    let text = |value: &serde_json::Value, key: &str| value.get(key).and_then(|v| v.as_str()).map(str::to_owned);
    let Some(errors) = json.get("errors").and_then(|errors| errors.as_array()) else {
        return text(json, "message").or_else(|| text(json, "details")).or_else(|| text(json, "error"));
    };
    let mut said = String::new();
    for error in errors.iter().take(3) {
        let separator = if said.is_empty() { "" } else { "; " };
        let code = text(error, "code").unwrap_or_default();
        let message = text(error, "message").unwrap_or_default();
        let between = if code.is_empty() || message.is_empty() { "" } else { ": " };
        let _ = write!(said, "{separator}{code}{between}{message}");
    }
    (!said.is_empty()).then_some(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_registry() {
        let json =
            br#"{"errors":[{"code":"DENIED","message":"requested access\nto the resource is denied","detail":1}]}"#;
        assert_eq!(words(json, &[]), "DENIED: requested access to the resource is denied");
        assert_eq!(words(br#"{"details":"incorrect username or password"}"#, &[]), "incorrect username or password");
        assert_eq!(words(b"<h1>502</h1>\x1b[31m\r\n\0bad", &[]), "<h1>502</h1> [31m bad");
        assert_eq!(words("a\u{202e}b".as_bytes(), &[]), "ab");
        assert_eq!(words(b"", &[]), "");
    }

    /// Also one that is longer than what is shown, and one with line breaks.
    #[test]
    fn words_without_secrets() {
        let long = "k".repeat(1000);
        assert_eq!(words(format!("bad token {long}").as_bytes(), &[&long]), "bad token ***");
        let lines = "{\n  \"key\": 1\n}";
        let json = serde_json::json!({"message": format!("no {lines} here")}).to_string();
        assert_eq!(words(json.as_bytes(), &[lines]), "no *** here");
        let inside = format!("<p>{}</p>", serde_json::json!({"password": lines}));
        assert_eq!(words(inside.as_bytes(), &[lines, ""]), "<p>{\"password\":\"***\"}</p>");
    }

    #[test]
    fn words_are_bounded() {
        assert_eq!(words(&[b'x'; 5000], &[]).chars().count(), 300);
        let many = "word ".repeat(500);
        assert_eq!(words(many.as_bytes(), &[]).chars().count(), 301);
    }
}
