//! Digests of content, `sha256:<64 hex digits>`.
//!
//! **Invariant:** a [`Digest`] is well formed; other algorithms are refused, as they could not be verified.

use sha2::{Digest as _, Sha256};
use std::fmt;

/// A sha256 digest in its textual form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// A digest as written; `None` unless it is a sha256 digest in lower case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:")?;
        let valid = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        valid.then(|| Self(text.to_owned()))
    }

    /// Reads it from a path, where the colon may be escaped.
    #[must_use]
    pub fn in_path(text: &str) -> Option<Self> {
        Self::parse(&text.replace("%3A", ":").replace("%3a", ":"))
    }

    /// Reads it from a query, as `digest=sha256:…`.
    #[must_use]
    pub fn in_query(query: Option<&str>) -> Option<Self> {
        let (_, value) = url::form_urlencoded::parse(query?.as_bytes()).find(|(key, _)| key == "digest")?;
        Self::parse(&value)
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Computes a digest piece by piece.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all pieces.
    #[must_use]
    pub fn finish(self) -> Digest {
        use fmt::Write;
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in self.0.finalize() {
            let _ = write!(text, "{byte:02x}");
        }
        Digest(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_value_and_grammar() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        assert_eq!(Digest::parse(empty), Some(Digest::of(b"")));
        for bad in ["", "sha256:", "sha256:zz", &empty.to_uppercase(), &empty[..70], "sha512:00"] {
            assert_eq!(Digest::parse(bad), None, "{bad}");
        }
    }
}
