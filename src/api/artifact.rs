//! Where a stored container is: the words of `status.artifacts[].location`.
//!
//! The agent writes them, the artifact server serves what they name, `windlass pull` follows them.
//!
//! **Invariant:** pure. A [`Place`] is three plain segments: nothing in it can lead out of the store, or out of a URL. Its
//! last segment cannot be guessed, and knowing it is what lets a person read: so a location stands in the run's status and
//! nowhere else, not in events and not in logs.

use std::fmt;

/// Name of the artifact server's Service, in the namespace that Windlass is installed in.
pub const SERVICE: &str = "windlass-artifacts";
/// Audience of the tokens by which agents prove themselves to the artifact server.
pub const AUDIENCE: &str = "windlass-artifacts";
/// The tag under which an agent puts a manifest; a place holds one.
pub const TAG: &str = "stored";
/// Group of runs that refer to no Pipeline; no Pipeline can have this name.
const INLINE: &str = "inline__runs";
/// Longest segment: a Pipeline's name, or two UIDs.
const MAX_SEGMENT: usize = 255;

/// Where one stored container is within the artifact store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Namespace of the run.
    pub namespace: String,
    /// The run's Pipeline; retention counts by namespace and group.
    pub group: String,
    /// UID of the run and a random number.
    pub id: String,
}

impl Place {
    /// The place of a container of this run; `random` must not be guessable.
    #[must_use]
    pub fn of_run(namespace: &str, pipeline: Option<&str>, uid: &str, random: u128) -> Self {
        Self {
            namespace: namespace.to_owned(),
            group: pipeline.unwrap_or(INLINE).to_owned(),
            id: format!("{uid}-{random:032x}"),
        }
    }

    /// Reads `namespace/group/id`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut segments = text.split('/');
        let mut segment = || segments.next().filter(|text| is_segment(text)).map(str::to_owned);
        let place = Self { namespace: segment()?, group: segment()?, id: segment()? };
        segments.next().is_none().then_some(place)
    }
}

/// Letters, digits and single separators between them, as both Kubernetes and registries have it.
fn is_segment(text: &str) -> bool {
    let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    text.len() <= MAX_SEGMENT
        && bytes.first().is_some_and(is_alphanumeric)
        && bytes.last().is_some_and(is_alphanumeric)
        && bytes.iter().all(|byte| is_alphanumeric(byte) || matches!(byte, b'-' | b'.' | b'_'))
        && !text.contains("..")
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.group, self.id)
    }
}

/// Where a stored container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// With the artifact server.
    Server {
        /// Namespace of the server.
        namespace: String,
        /// Where it keeps it.
        place: Place,
    },
    /// In an OCI registry.
    Registry {
        /// With its host.
        repository: String,
        /// Digest of the manifest.
        digest: String,
    },
}

impl Location {
    /// Reads what [`fmt::Display`] wrote; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((repository, digest)) = text.split_once('@') {
            return Some(Self::Registry { repository: repository.to_owned(), digest: digest.to_owned() });
        }
        let (host, place) = text.split_once('/')?;
        let namespace = host.strip_prefix(SERVICE)?.strip_prefix('.')?.strip_suffix(".svc")?;
        let is_name = is_segment(namespace) && !namespace.contains(['.', '_']);
        Some(Self::Server { namespace: is_name.then(|| namespace.to_owned())?, place: Place::parse(place)? })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server { namespace, place } => write!(f, "{}/{place}", server_host(namespace)),
            Self::Registry { repository, digest } => write!(f, "{repository}@{digest}"),
        }
    }
}

/// Name of the artifact server in the cluster's DNS, and in its certificate.
#[must_use]
pub fn server_host(namespace: &str) -> String {
    format!("{SERVICE}.{namespace}.svc")
}

/// A text without the segments that let a person read what is stored.
#[must_use]
pub fn without_places(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let is_id = |word: &str| {
        word.rsplit_once('-').is_some_and(|(_, end)| end.len() >= 32 && end.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        out.push_str(if is_id(word) { "…" } else { word });
        let other = after.find(is_word).unwrap_or(after.len());
        let (between, next) = after.split_at(other);
        out.push_str(between);
        rest = next;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("windlass-artifacts.windlass-system.svc/team/hello/11-00ff")]
    #[case("windlass-artifacts.w.svc/team/inline__runs/11-00ff")]
    #[case("registry.example.com:5000/kept/team@sha256:00")]
    fn what_is_written_is_read(#[case] text: &str) {
        assert_eq!(Location::parse(text).unwrap().to_string(), text);
    }

    #[rstest]
    #[case("")]
    #[case("windlass-artifacts.windlass-system.svc")]
    #[case("windlass-artifacts.windlass-system.svc/team/hello")]
    #[case("windlass-artifacts.windlass-system.svc/team/hello/id/more")]
    #[case("windlass-artifacts.windlass-system.svc/team/../id")]
    #[case("windlass-artifacts.windlass-system.svc/team/a..b/id")]
    #[case("windlass-artifacts.windlass-system.svc/team/hello/i%2fd")]
    #[case("windlass-artifacts.windlass-system.svc/team/hello/id?x=1")]
    #[case("windlass-artifacts.windlass-system.svc/team/hello/Id")]
    #[case("windlass-artifacts.windlass-system.svc/team/.hello/id")]
    #[case("windlass-artifacts.windlass-system.svc/team//id")]
    #[case("windlass-artifacts.a.b.svc/team/hello/id")]
    #[case("windlass-artifacts../x.svc/team/hello/id")]
    #[case("other.windlass-system.svc/team/hello/id")]
    #[case("windlass-artifacts.windlass-system.svc.evil.io/team/hello/id")]
    fn what_could_lead_elsewhere_is_refused(#[case] text: &str) {
        assert_eq!(Location::parse(text), None);
    }

    #[test]
    fn runs_of_a_pipeline_share_a_group_and_no_id() {
        let of = |pipeline, random| Place::of_run("team", pipeline, "11-22", random);
        assert_eq!(of(Some("hello"), 255).to_string(), "team/hello/11-22-000000000000000000000000000000ff");
        assert_eq!(of(None, 1).group, of(None, 2).group);
        assert_ne!(of(None, 1).id, of(None, 2).id);
        assert_eq!(Place::parse(&of(None, 1).to_string()), Some(of(None, 1)));
    }

    #[test]
    fn what_lets_people_read_is_taken_out() {
        let id = format!("11111111-2222-3333-4444-555555555555-{:032x}", 0xfeed_u128);
        let text = format!("error performing GET http://s3/b/runs/team/app/{id}/manifest.json: 503, retry-after 7");
        let told = without_places(&text);
        assert_eq!(told, "error performing GET http://s3/b/runs/team/app/…/manifest.json: 503, retry-after 7");
        let other = format!("blobs/sha256:{} of 11111111-2222-3333-4444-555555555555", "0f".repeat(32));
        assert_eq!(without_places(&other), other);
    }
}
