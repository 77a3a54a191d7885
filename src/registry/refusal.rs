//! What an answer that is no success means, but for those about logins.
//!
//! [`super::session`] asks for answers of registries, [`super::auth`] for those of login hosts.
//!
//! **Invariant:** pure. Only what the other side says of itself may pass: it is busy, too slow, or broken. All else is final,
//! whether it has a name or not.

use super::{
    client::Answer,
    error::{PushError, has_code, plain},
    retry::pause_of,
};
use crate::api::condition::reason;
use http::{StatusCode, header};
use url::Url;

/// An error answer; `said` are the other side's words, without credentials.
pub(super) fn refusal(who: &str, answer: &Answer, said: &str) -> PushError {
    let status = answer.status;
    let mut text = format!("{who} answered {}", status.as_u16());
    if status.is_redirection() {
        // Its words are the address again, which may be signed.
        let to = answer.header(header::LOCATION).and_then(|location| Url::parse(location).ok());
        let to = to.as_ref().and_then(Url::host_str).map(|host| format!(" to {}", plain(host))).unwrap_or_default();
        text.push_str(&format!(", a redirect{to}, which is not followed; name the registry by its own address"));
    } else if !said.is_empty() {
        text.push_str(&format!(": \"{said}\""));
    } else if let Some(name) = status.canonical_reason() {
        text.push_str(&format!(" ({name})"));
    }
    if may_pass(status) {
        let retry_after = answer.header(header::RETRY_AFTER).and_then(pause_of);
        return PushError { retry_after, ..PushError::transient(reason::REGISTRY_REFUSED, text) };
    }
    let error = PushError::new(reason::REGISTRY_REFUSED, text);
    // A blob that was there when it was looked for was swept away since.
    let is_swept = status.is_client_error() && has_code(&answer.body, "MANIFEST_BLOB_UNKNOWN");
    if is_swept { error.anew() } else { error }
}

/// Whether the same request may succeed later.
fn may_pass(status: StatusCode) -> bool {
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => false,
        status => status.is_server_error(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::HeaderMap;
    use rstest::rstest;
    use std::time::Duration;

    fn answer(status: u16, headers: &[(&'static str, &'static str)]) -> Answer {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::from_iter(headers),
            body: Bytes::new(),
        }
    }

    #[test]
    fn what_may_pass() {
        for status in 300..700 {
            let error = refusal("r.io/a", &answer(status, &[]), "");
            let passes = matches!(status, 408 | 429 | 500 | 502 | 503 | 504 | 506..600);
            let passes = passes && status != 505;
            assert_eq!((error.transient, error.reason), (passes, reason::REGISTRY_REFUSED), "{status}");
        }
    }

    #[rstest]
    #[case(422, &[], "UNPROCESSABLE: no such field", "r.io/a answered 422: \"UNPROCESSABLE: no such field\"")]
    #[case(413, &[], "", "r.io/a answered 413 (Payload Too Large)")]
    #[case(499, &[], "", "r.io/a answered 499")]
    #[case(
        307, &[("location", "https://store.example.com/blob?signature=s3cret")], "<a href=s3cret>",
        "r.io/a answered 307, a redirect to store.example.com, which is not followed; name the registry by its own address"
    )]
    #[case(
        301, &[("location", "/v3/")], "",
        "r.io/a answered 301, a redirect, which is not followed; name the registry by its own address"
    )]
    fn messages(
        #[case] status: u16,
        #[case] headers: &[(&'static str, &'static str)],
        #[case] said: &str,
        #[case] expected: &str,
    ) {
        assert_eq!(refusal("r.io/a", &answer(status, headers), said).message, expected);
    }

    #[test]
    fn only_who_is_asked_to_return_is_told_when() {
        let headers = [("retry-after", "7")];
        assert_eq!(refusal("r.io/a", &answer(429, &headers), "").retry_after, Some(Duration::from_secs(7)));
        assert_eq!(refusal("r.io/a", &answer(422, &headers), "").retry_after, None);
    }
}
