//! What the administrator allows: registries without TLS, certificate authorities, login hosts.
//!
//! Read from the agent's configuration at its start, and again when its files change.
//!
//! **Invariant:** everything is keyed by an exact host, with its port if it has one. A name says nothing of others, nor
//! does a port of the same name, but for one thing: a login may go to the same name on another port of TLS.

use super::reference::{HUB, HUB_API, canonical_host};
use rustls::{ClientConfig, RootCertStore};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// What can be done about a certificate that is not trusted. `local` has other words for these.
pub const ADD_CA: &str = "the administrator can add the CA of the registry";
/// What can be done about a registry on loopback.
pub const LIST_REGISTRY: &str = "the administrator can list the registry";

/// What can be done about a registry whose logins are another host's.
pub const UNLESS_PAIRED: &str = " unless the administrator lists the two as a pair";

/// Login hosts of registries that have one under another name, and the registry's API host.
const KNOWN_TOKEN_HOSTS: [(&str, &str); 3] = [
    ("registry-1.docker.io", "auth.docker.io"),
    ("registry.gitlab.com", "gitlab.com"),
    ("registry.digitalocean.com", "api.digitalocean.com"),
];

/// What the administrator allows beyond the public default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Registries without TLS, as `host` or `host:port`. They may be on loopback.
    pub insecure_hosts: Vec<String>,
    /// Certificate authorities in PEM, each for one host. Such a host may be on loopback.
    pub ca_pem: Vec<(String, String)>,
    /// Pairs of a registry's host and the host where its tokens come from.
    pub token_hosts: Vec<(String, String)>,
    /// Hosts that are reached at this address and port instead of what their name resolves to. Such a host may be on
    /// loopback.
    pub addresses: Vec<(String, SocketAddr)>,
    /// Hosts that may be on loopback, and of which nothing else is said.
    pub on_loopback: Vec<String>,
}

/// Why the administrator's settings are refused.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A CA that cannot be read.
    #[error("CA of registry {host}: {problem}")]
    Ca {
        /// The registry.
        host: String,
        /// What is wrong.
        problem: String,
    },
    /// An address that cannot be meant.
    #[error("address of registry {host}: {problem}")]
    Address {
        /// The registry.
        host: String,
        /// What is wrong.
        problem: String,
    },
    /// TLS cannot be set up at all.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl Trust {
    /// Whether this host is spoken to without TLS.
    #[must_use]
    pub fn is_insecure(&self, host: &str) -> bool {
        let host = canonical_host(host);
        self.insecure_hosts.iter().any(|listed| canonical_host(listed) == host)
    }

    /// Whether a login for `registry` may go to `realm`, both as `host[:port]`. The same name on another port of
    /// a TLS server is the same owner: self-hosted GitLab is made so.
    pub(super) fn may_log_in(&self, registry: &str, realm: &str, realm_is_tls: bool) -> bool {
        let (registry, realm) = (bare(registry), bare(realm));
        registry == realm
            || (realm_is_tls && !self.is_insecure(&registry) && name_of(&registry) == name_of(&realm))
            || KNOWN_TOKEN_HOSTS.contains(&(registry.as_str(), realm.as_str()))
            || self.token_hosts.iter().any(|(from, to)| endpoint(from) == registry && bare(to) == realm)
    }

    /// The hosts of the list, each by the name under which it is connected to: see [`endpoint`].
    pub(super) fn listed(&self) -> Result<BTreeMap<String, Listed>, TrustError> {
        let mut listed: BTreeMap<String, Listed> = BTreeMap::new();
        for host in self.insecure_hosts.iter().chain(&self.on_loopback) {
            listed.entry(endpoint(host)).or_default();
        }
        for (host, pem) in &self.ca_pem {
            listed.entry(endpoint(host)).or_default().ca.push(pem.clone());
        }
        for (host, address) in &self.addresses {
            let refuse = |problem: String| TrustError::Address { host: host.clone(), problem };
            let name = endpoint(host);
            if name_of(&name).parse::<IpAddr>().is_ok() {
                let problem = "the host is an address itself: name the registry by its name, or leave the address out";
                return Err(refuse(problem.into()));
            }
            let known = listed.entry(name).or_default().address.replace(*address);
            if let Some(known) = known.filter(|known| known != address) {
                return Err(refuse(format!("it has two, {known} and {address}: leave one out")));
            }
        }
        Ok(listed)
    }
}

/// What the administrator says of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    ca: Vec<String>,
    /// Where it is reached, instead of what its name resolves to.
    pub(super) address: Option<SocketAddr>,
}

impl Listed {
    /// TLS that trusts this host's own certificate authorities besides the public ones.
    pub(super) fn tls(&self, host: &str) -> Result<ClientConfig, TrustError> {
        let refuse = |problem: String| TrustError::Ca { host: host.to_owned(), problem };
        let mut roots = public_roots();
        for pem in &self.ca {
            let mut count = 0;
            for certificate in rustls_pemfile::certs(&mut pem.as_bytes()) {
                let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
                roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
                count += 1;
            }
            if count == 0 {
                return Err(refuse("it holds no certificate in PEM".into()));
            }
        }
        tls(roots)
    }
}

/// TLS that trusts the public certificate authorities.
pub(super) fn public_tls() -> Result<ClientConfig, TrustError> {
    tls(public_roots())
}

fn public_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

fn tls(roots: RootCertStore) -> Result<ClientConfig, TrustError> {
    // Named here, so that it does not matter which provider a process has installed.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// `host[:port]` in lower case, without the port that https has anyway.
pub(super) fn bare(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    host.strip_suffix(":443").map_or_else(|| host.clone(), str::to_owned)
}

/// The `host[:port]` under which a listed host is connected to: Docker Hub's API has a name of its own.
pub(super) fn endpoint(host: &str) -> String {
    if canonical_host(host) == HUB { HUB_API.to_owned() } else { bare(host) }
}

/// The name in `host[:port]`; of `[::1]:5000` what is in the brackets.
pub(super) fn name_of(host: &str) -> &str {
    if let Some((inner, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return inner;
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn trust() -> Trust {
        Trust {
            insecure_hosts: vec!["127.0.0.1:5000".into(), "plain.example.com".into()],
            token_hosts: vec![("registry.example.com".into(), "login.example.com".into())],
            ..Trust::default()
        }
    }

    #[rstest]
    #[case("registry-1.docker.io", "auth.docker.io", true)]
    #[case("registry.gitlab.com", "gitlab.com", true)]
    #[case("quay.io", "quay.io", true)]
    #[case("quay.io", "quay.io:443", true)]
    #[case("gitlab.example.com:5050", "gitlab.example.com", true)]
    #[case("registry.example.com", "login.example.com", true)]
    #[case("registry.example.com", "auth.docker.io", false)]
    #[case("registry.example.com", "registry.example.com.evil.io", false)]
    #[case("registry.example.com", "evil.io", false)]
    #[case("other.example.com", "login.example.com", false)]
    #[case("plain.example.com", "plain.example.com:8443", false)]
    fn logins_stay_with_the_registry(#[case] registry: &str, #[case] realm: &str, #[case] allowed: bool) {
        assert_eq!(trust().may_log_in(registry, realm, true), allowed);
    }

    #[test]
    fn without_tls_a_port_is_another_owner() {
        assert!(trust().may_log_in("127.0.0.1:5000", "127.0.0.1:5000", false));
        assert!(!trust().may_log_in("127.0.0.1:5000", "127.0.0.1:6000", false));
        assert!(!trust().may_log_in("127.0.0.1:5000", "127.0.0.1:6000", true));
        assert!(!trust().may_log_in("a.io:5000", "a.io:80", false));
    }

    #[test]
    fn insecure_is_exact() {
        assert!(trust().is_insecure("127.0.0.1:5000"));
        assert!(!trust().is_insecure("127.0.0.1"));
        assert!(!trust().is_insecure("127.0.0.1:5001"));
        assert!(!trust().is_insecure("plain.example.com.evil.io"));
    }

    #[test]
    fn a_ca_must_be_a_certificate() {
        for pem in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let trust = Trust { ca_pem: vec![("a.io".into(), pem.into())], ..Trust::default() };
            assert!(trust.listed().unwrap()["a.io"].tls("a.io").is_err(), "{pem}");
        }
    }

    fn addressed(addresses: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
        let addresses = addresses.iter().map(|(host, address)| ((*host).into(), address.parse().unwrap())).collect();
        let listed = Trust { addresses, ..Trust::default() }.listed().map_err(|error| error.to_string())?;
        Ok(listed.into_iter().filter_map(|(host, of)| Some((host, of.address?.to_string()))).collect())
    }

    #[test]
    fn an_address_is_for_one_host_with_its_port() {
        let addresses = addressed(&[
            ("A.io:5000", "10.0.0.1:5000"),
            ("a.io:6000", "10.0.0.2:6000"),
            ("a.io:443", "10.0.0.3:443"),
            ("a.io", "10.0.0.3:443"),
            ("docker.io", "10.0.0.4:443"),
        ]);
        let expected = [
            ("a.io", "10.0.0.3:443"),
            ("a.io:5000", "10.0.0.1:5000"),
            ("a.io:6000", "10.0.0.2:6000"),
            ("registry-1.docker.io", "10.0.0.4:443"),
        ];
        assert_eq!(addresses.unwrap(), expected.map(|(host, address)| (host.to_owned(), address.to_owned())));
    }

    #[rstest]
    #[case(
        &[("a.io:443", "10.0.0.1:1"), ("A.io", "10.0.0.2:1")],
        "address of registry A.io: it has two, 10.0.0.1:1 and 10.0.0.2:1: leave one out"
    )]
    #[case(&[("index.docker.io", "10.0.0.1:1"), ("docker.io", "10.0.0.2:1")], "address of registry docker.io: it has two")]
    #[case(&[("10.1.2.3:5000", "10.0.0.1:1")], "address of registry 10.1.2.3:5000: the host is an address itself")]
    #[case(&[("[fd00::1]:5000", "10.0.0.1:1")], "address of registry [fd00::1]:5000: the host is an address itself")]
    fn addresses_that_cannot_be_meant(#[case] addresses: &[(&str, &str)], #[case] says: &str) {
        let error = addressed(addresses).unwrap_err();
        assert!(error.starts_with(says), "{error}");
    }

    #[test]
    fn names() {
        assert_eq!(name_of("[::1]:5000"), "::1");
        assert_eq!(name_of("a.io:1"), "a.io");
        assert_eq!(name_of("a.io"), "a.io");
    }
}
