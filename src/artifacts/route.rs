//! What a request is about: the part of the OCI distribution API that agents write by and people read by.
//!
//! **Invariant:** pure. A path is taken as it stands: nothing is decoded but the colon of a digest, and all that is not
//! exactly one of these forms is [`Route::Nothing`].

use crate::{api::artifact::Place, registry::digest::Digest};
use object_store::GetRange;

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/v2/`
    Version,
    /// A blob, of the container at a place.
    Blob(Place, Digest),
    /// A new upload.
    Uploads(Place),
    /// An upload that was begun.
    Upload(Place, String),
    /// The manifest at a place, by its digest if one is named.
    Manifest(Place, Option<Digest>),
    /// Nothing that there is.
    Nothing,
}

/// Reads a path.
pub(super) fn route(path: &str) -> Route {
    if path == "/v2/" || path == "/v2" {
        return Route::Version;
    }
    below(path).unwrap_or(Route::Nothing)
}

fn below(path: &str) -> Option<Route> {
    let rest = path.strip_prefix("/v2/")?;
    let (end, _) = rest.match_indices('/').nth(2)?;
    let (place, rest) = (Place::parse(rest.get(..end)?)?, rest.get(end + 1..)?);
    if let Some(id) = rest.strip_prefix("blobs/uploads/") {
        let is_id = id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        return match id {
            "" => Some(Route::Uploads(place)),
            id => is_id.then(|| Route::Upload(place, id.to_owned())),
        };
    }
    if let Some(digest) = rest.strip_prefix("blobs/") {
        return Some(Route::Blob(place, Digest::in_path(digest)?));
    }
    let reference = rest.strip_prefix("manifests/")?;
    if reference == crate::api::artifact::TAG {
        return Some(Route::Manifest(place, None));
    }
    Some(Route::Manifest(place, Some(Digest::in_path(reference)?)))
}

/// The bytes that a `Range` header asks for; several ranges are none, and all is sent, as RFC 9110, 14.2 allows.
pub(super) fn range(value: &str) -> Option<GetRange> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    match (first, last) {
        ("", _) => None,
        (first, "") => Some(GetRange::Offset(number(first)?)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last && last < u64::MAX).then(|| GetRange::Bounded(first..last + 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn place() -> Place {
        Place::parse("team/app/11-22").unwrap()
    }

    #[test]
    fn what_there_is() {
        let digest = Digest::of(b"");
        let id = "0123456789abcdef0123456789abcdef";
        for (path, expected) in [
            ("/v2/".to_owned(), Route::Version),
            (format!("/v2/team/app/11-22/blobs/{digest}"), Route::Blob(place(), digest.clone())),
            (
                format!("/v2/team/app/11-22/blobs/{}", digest.as_str().replace(':', "%3A")),
                Route::Blob(place(), digest.clone()),
            ),
            ("/v2/team/app/11-22/blobs/uploads/".to_owned(), Route::Uploads(place())),
            (format!("/v2/team/app/11-22/blobs/uploads/{id}"), Route::Upload(place(), id.to_owned())),
            ("/v2/team/app/11-22/manifests/stored".to_owned(), Route::Manifest(place(), None)),
            (format!("/v2/team/app/11-22/manifests/{digest}"), Route::Manifest(place(), Some(digest.clone()))),
        ] {
            assert_eq!(route(&path), expected, "{path}");
        }
    }

    #[rstest]
    #[case("/")]
    #[case("/v2/_catalog")]
    #[case("/v2/team/app/11-22/tags/list")]
    #[case("/v2/team/app/11-22/manifests/latest")]
    #[case("/v2/team/app/manifests/stored")]
    #[case("/v2/team/app/11-22/x/manifests/stored")]
    #[case("/v2/team/../11-22/manifests/stored")]
    #[case("/v2/team/%2e%2e/11-22/manifests/stored")]
    #[case("/v2/../../etc/manifests/stored")]
    #[case("/v2//app/11-22/manifests/stored")]
    #[case("/v2/team/app/11-22/blobs/sha256:../../../etc/passwd")]
    #[case("/v2/team/app/11-22/blobs/uploads/../../x")]
    #[case("/v2/team/app/11-22/blobs/uploads/0123456789abcdef0123456789abcdeg")]
    #[case("/v2/team/app/11-22/blobs/uploads")]
    fn what_there_is_not(#[case] path: &str) {
        assert_eq!(route(path), Route::Nothing);
    }

    #[rstest]
    #[case("bytes=0-7", Some(GetRange::Bounded(0..8)))]
    #[case("bytes=5-", Some(GetRange::Offset(5)))]
    #[case("bytes=-5", None)]
    #[case("bytes=7-5", None)]
    #[case("bytes=0-18446744073709551615", None)]
    #[case("bytes=0-1,3-4", None)]
    #[case("bytes=+0-1", None)]
    #[case("chunks=0-1", None)]
    fn ranges(#[case] text: &str, #[case] expected: Option<GetRange>) {
        assert_eq!(range(text), expected);
    }
}
