//! Names of repositories and tags, in one canonical form.
//!
//! `steps` parses what a pipeline says; everything that talks to a registry takes the parsed [`Repository`].
//!
//! **Invariant:** a host is judged once, here. Aliases of Docker Hub become `docker.io`, hosts are lower-case, and a
//! `registry` that is not the host of `repository` is an error: nothing is sent to either.

use crate::api::{condition::reason, push::HTTPS_ONLY};
use oci_spec::distribution::{ParseError, Reference};
use std::fmt;

/// Canonical name of Docker Hub.
pub(crate) const HUB: &str = "docker.io";
/// Where the API of Docker Hub is served.
pub(crate) const HUB_API: &str = "registry-1.docker.io";
/// Other names of Docker Hub that people write.
const HUB_ALIASES: [&str; 4] = ["index.docker.io", HUB_API, "registry.hub.docker.com", "hub.docker.com"];
/// Longest `repository` property.
const MAX_REPOSITORY: usize = 512;

/// Why a name is refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum RefError {
    /// A property that cannot be understood.
    #[error("{property}: {message}")]
    Invalid {
        /// `repository`, `registry` or `tags`.
        property: &'static str,
        /// What is wrong, quoting the value.
        message: String,
    },
    /// `registry` and `repository` name different hosts.
    #[error("registry host \"{registry}\" differs from repository host \"{repository}\"")]
    Mismatch {
        /// Host of `registry`.
        registry: String,
        /// Host of `repository`.
        repository: String,
    },
}

impl RefError {
    /// One of `api::condition::reason`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => reason::INVALID_PROPERTY,
            Self::Mismatch { .. } => reason::REGISTRY_MISMATCH,
        }
    }

    fn repository(message: impl Into<String>) -> Self {
        Self::Invalid { property: "repository", message: message.into() }
    }

    fn registry(message: impl Into<String>) -> Self {
        Self::Invalid { property: "registry", message: message.into() }
    }
}

/// A repository: the registry's host and the path in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Repository {
    /// `docker.io`, `registry.example.com`, `127.0.0.1:5000`.
    pub host: String,
    /// `library/debian`, `team/app`.
    pub path: String,
}

impl Repository {
    /// The repository of an image reference, without its tag and digest; `None` if it is none.
    #[must_use]
    pub fn of_image(image: &str) -> Option<Self> {
        Self::parse(split_tag(image).0, None).ok()
    }

    /// Reads the properties `repository` and `registry`, with variables expanded.
    pub fn parse(repository: &str, registry: Option<&str>) -> Result<Self, RefError> {
        let repository = repository.trim();
        check_shape(repository)?;
        let registry =
            registry.map(str::trim).filter(|registry| !registry.is_empty()).map(registry_host).transpose()?;
        let (own, path) = split_host(repository);
        let own = own.map(canonical_host);
        let host = match (own, registry) {
            (Some(own), Some(registry)) if own != registry => {
                return Err(RefError::Mismatch { registry, repository: own });
            }
            (Some(host), _) | (None, Some(host)) => host,
            (None, None) => HUB.to_owned(),
        };
        let name: Reference = format!("{host}/{path}").parse().map_err(|error| explain(repository, &error))?;
        Ok(Self { host, path: name.repository().to_owned() })
    }

    /// Host and port of the registry's API.
    #[must_use]
    pub fn api_host(&self) -> &str {
        if self.host == HUB { HUB_API } else { &self.host }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

/// Reads one tag.
pub fn parse_tag(tag: &str) -> Result<String, RefError> {
    let mut bytes = tag.bytes();
    let valid = tag.len() <= 128
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if valid {
        return Ok(tag.to_owned());
    }
    let message = format!(
        "{:?} is not a tag; a tag has up to 128 letters, digits, `_`, `.` and `-`, and begins with none of the last two",
        shortened(tag)
    );
    Err(RefError::Invalid { property: "tags", message })
}

/// An image's name, and its digest or else its tag, if it has one.
pub(crate) fn split_tag(image: &str) -> (&str, Option<&str>) {
    let (named, digest) = image.split_once('@').map_or((image, None), |(named, digest)| (named, Some(digest)));
    let (name, tag) = match named.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        Some(_) | None => (named, None),
    };
    (name, digest.or(tag))
}

/// An image with the host of a `registry` that is written beside it. One that names a host has it already; a variable in
/// the host is not judged.
///
/// # Errors
/// The host is none, or the image names another one: a login for the one must not go to the other.
pub(crate) fn image_on(image: &str, registry: &str) -> Result<String, RefError> {
    let bare = registry.trim().trim_start_matches("https://").trim_start_matches("http://");
    let host = bare.split('/').next().unwrap_or_default();
    let is_known = !host.contains('$');
    let host = if is_known { canonical_host(host) } else { host.to_owned() };
    if host.is_empty() {
        return Ok(image.to_owned());
    }
    match split_host(image).0.map(canonical_host) {
        Some(own) if is_known && own != host => Err(RefError::Mismatch { registry: host, repository: own }),
        Some(_) => Ok(image.to_owned()),
        None if host == HUB => Ok(image.to_owned()),
        None if is_known && split_host(&format!("{host}/x")).0.is_none() => {
            Err(RefError::registry(format!("{:?} is not a host such as registry.example.com", shortened(registry))))
        }
        None => Ok(format!("{host}/{image}")),
    }
}

/// Docker Hub's one name for its aliases, any other host in lower case.
pub(crate) fn canonical_host(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    let bare = host.strip_suffix(":443").unwrap_or(&host);
    if HUB_ALIASES.contains(&bare) || bare == HUB { HUB.to_owned() } else { host }
}

fn check_shape(repository: &str) -> Result<(), RefError> {
    if repository.is_empty() {
        return Err(RefError::repository("is empty"));
    }
    if repository.len() > MAX_REPOSITORY {
        return Err(RefError::repository(format!("is longer than {MAX_REPOSITORY} characters")));
    }
    if repository.contains("://") {
        return Err(RefError::repository("must not begin with https://; write registry.example.com/team/app"));
    }
    let last = repository.rsplit('/').next().unwrap_or(repository);
    if repository.contains('@') || (last.contains(':') && repository != last) || is_tagged(repository) {
        return Err(RefError::repository(format!(
            "{:?} must not hold a tag or digest; put the tag into tags",
            shortened(repository)
        )));
    }
    Ok(())
}

/// `app:1.0`: without a slash, what stands before the colon is no host.
fn is_tagged(repository: &str) -> bool {
    !repository.contains('/') && repository.contains(':')
}

/// The first component is a host if it looks like one, as everywhere in the Docker world.
pub(crate) fn split_host(repository: &str) -> (Option<&str>, &str) {
    match repository.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host.eq_ignore_ascii_case("localhost") => (Some(host), path),
        _ => (None, repository),
    }
}

fn registry_host(registry: &str) -> Result<String, RefError> {
    let address = match registry.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => rest,
        Some(_) => {
            return Err(RefError::registry(HTTPS_ONLY));
        }
        None => registry,
    };
    let address = address.trim_end_matches('/');
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    match path {
        "" | "v2" => {}
        "v1" => {
            return Err(RefError::registry(
                "the registry API v1 no longer exists; end the address with /v2 or leave it out",
            ));
        }
        _ => {
            return Err(RefError::registry(format!(
                "{:?} must be a host; the path belongs into repository",
                shortened(registry)
            )));
        }
    }
    // A reference with this host shows whether the host is one.
    let trial: Result<Reference, _> = format!("{host}/x").parse();
    match trial {
        Ok(name) if split_host(&format!("{host}/x")).0.is_some() && name.repository() == "x" => {
            Ok(canonical_host(host))
        }
        // On Docker Hub `x` is `library/x`.
        Ok(name) if name.registry() == HUB && canonical_host(host) == HUB => Ok(HUB.to_owned()),
        _ => Err(RefError::registry(format!("{:?} is not a host such as registry.example.com", shortened(registry)))),
    }
}

fn explain(repository: &str, error: &ParseError) -> RefError {
    let shown = shortened(repository);
    RefError::repository(match error {
        // The library takes an upper-case letter behind a host for any odd character.
        _ if split_host(repository).1.contains(|c: char| c.is_ascii_uppercase()) => {
            format!("{shown:?}: repository names are lower-case")
        }
        ParseError::NameTooLong => format!("{shown:?} is longer than 255 characters"),
        _ => format!("{shown:?} is not a repository name such as registry.example.com/team/app"),
    })
}

fn shortened(text: &str) -> String {
    text.chars().take(140).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("debian", ("debian", None))]
    #[case("debian:12", ("debian", Some("12")))]
    #[case("127.0.0.1:5000/a/b", ("127.0.0.1:5000/a/b", None))]
    #[case("127.0.0.1:5000/a/b:1", ("127.0.0.1:5000/a/b", Some("1")))]
    #[case("a@sha256:0", ("a", Some("sha256:0")))]
    #[case("h:5000/a:1@sha256:0", ("h:5000/a", Some("sha256:0")))]
    fn a_tag_is_told_from_a_port(#[case] image: &str, #[case] expected: (&str, Option<&str>)) {
        assert_eq!(split_tag(image), expected);
    }

    #[rstest]
    #[case("team/app:1", "https://quay.io/v2", Some("quay.io/team/app:1"))]
    #[case("team/app", "localhost:5000", Some("localhost:5000/team/app"))]
    #[case("quay.io/team/app", "https://QUAY.io", Some("quay.io/team/app"))]
    #[case("team/app", "https://registry.hub.docker.com/v1/", Some("team/app"))]
    #[case("team/app", " ", Some("team/app"))]
    #[case("team/app", "https://$REGISTRY", Some("$REGISTRY/team/app"))]
    #[case("ghcr.io/team/app", "quay.io", None)]
    #[case("docker.io/team/app", "quay.io", None)]
    #[case("ghcr.io/team/app", "docker.io", None)]
    #[case("team/app", "quay", None)]
    fn an_image_is_on_the_registry_beside_it(#[case] image: &str, #[case] registry: &str, #[case] on: Option<&str>) {
        assert_eq!(image_on(image, registry).ok().as_deref(), on);
    }

    #[rstest]
    #[case("debian:12", "docker.io/library/debian")]
    #[case("registry.example.com:5000/team/app", "registry.example.com:5000/team/app")]
    #[case("registry.example.com:5000/team/app:1@sha256:00", "registry.example.com:5000/team/app")]
    fn the_repository_of_an_image(#[case] image: &str, #[case] expected: &str) {
        assert_eq!(Repository::of_image(image).unwrap().to_string(), expected);
    }

    #[rstest]
    #[case("debian", None, "docker.io/library/debian")]
    #[case("turing/bar", None, "docker.io/turing/bar")]
    #[case("docker.io/turing/bar", None, "docker.io/turing/bar")]
    #[case("index.docker.io/debian", None, "docker.io/library/debian")]
    #[case("turing/bar", Some("https://registry.hub.docker.com"), "docker.io/turing/bar")]
    #[case("registry.hub.docker.com/turing/bar", Some("docker.io"), "docker.io/turing/bar")]
    #[case("127.0.0.1:5000/a/b", None, "127.0.0.1:5000/a/b")]
    #[case("localhost/a", None, "localhost/a")]
    #[case("localhost:5000/a", Some("localhost:5000"), "localhost:5000/a")]
    #[case("Quay.IO/a/b", Some("https://quay.io/v2/"), "quay.io/a/b")]
    #[case("a/b", Some("quay.io"), "quay.io/a/b")]
    #[case("quay.io/a/b", Some(" "), "quay.io/a/b")]
    #[case(" quay.io/a/b\n", None, "quay.io/a/b")]
    fn accepts(#[case] repository: &str, #[case] registry: Option<&str>, #[case] canonical: &str) {
        assert_eq!(Repository::parse(repository, registry).unwrap().to_string(), canonical);
    }

    #[rstest]
    #[case("", None, "repository: is empty")]
    #[case("https://a.io/b", None, "must not begin with https://")]
    #[case("a/b:1.0", None, "must not hold a tag or digest")]
    #[case("a.io:5000/b:1.0", None, "must not hold a tag or digest")]
    #[case("app:1.0", None, "must not hold a tag or digest")]
    #[case("a/b@sha256:00", None, "must not hold a tag or digest")]
    #[case("a.io/Team/app", None, "lower-case")]
    #[case("a.io/../b", None, "is not a repository name")]
    #[case("a.io/b?x=1", None, "is not a repository name")]
    #[case("a.io/b c", None, "is not a repository name")]
    #[case("a.io/", None, "is not a repository name")]
    #[case("a..io/b", None, "is not a repository name")]
    #[case("user@a.io/b", None, "must not hold a tag or digest")]
    #[case("a/b", Some("http://a.io"), "registry: must be https")]
    #[case("a/b", Some("https://a.io/v1/"), "API v1 no longer exists")]
    #[case("a/b", Some("https://a.io/team"), "must be a host")]
    #[case("a/b", Some("https://u:p@a.io"), "is not a host")]
    #[case("a/b", Some("a b"), "is not a host")]
    #[case("a/b", Some("team"), "is not a host")]
    fn refuses(#[case] repository: &str, #[case] registry: Option<&str>, #[case] says: &str) {
        let error = Repository::parse(repository, registry).unwrap_err();
        assert_eq!(error.reason(), "InvalidProperty", "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }

    #[rstest]
    #[case("b.io/x", "https://a.io", "registry host \"a.io\" differs from repository host \"b.io\"")]
    #[case("docker.io/a/b", "quay.io", "registry host \"quay.io\" differs from repository host \"docker.io\"")]
    #[case(
        "quay.io.evil.io/x",
        "quay.io",
        "registry host \"quay.io\" differs from repository host \"quay.io.evil.io\""
    )]
    #[case("a.io:5000/x", "a.io", "registry host \"a.io\" differs from repository host \"a.io:5000\"")]
    fn hosts_that_differ(#[case] repository: &str, #[case] registry: &str, #[case] says: &str) {
        let error = Repository::parse(repository, Some(registry)).unwrap_err();
        assert_eq!((error.reason(), error.to_string().as_str()), ("RegistryMismatch", says));
    }

    #[test]
    fn docker_hub_is_served_elsewhere() {
        assert_eq!(Repository::parse("debian", None).unwrap().api_host(), "registry-1.docker.io");
        assert_eq!(Repository::parse("a.io/b", None).unwrap().api_host(), "a.io");
    }

    #[test]
    fn tags() {
        for good in ["1", "v1.0-rc_2", "_x", &"a".repeat(128)] {
            assert_eq!(parse_tag(good).as_deref(), Ok(good));
        }
        for bad in ["", "-x", ".x", "a b", "a/b", "a:b", "ä", "a\n", &"a".repeat(129)] {
            assert!(parse_tag(bad).is_err(), "{bad:?}");
        }
    }
}
