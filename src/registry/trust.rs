//! What the administrator allows: registries without TLS, certificate authorities, login hosts.
//!
//! Read from the agent's configuration at its start.
//!
//! **Invariant:** everything is keyed by an exact host, with its port if it has one. A name says nothing of others.

use super::reference::canonical_host;
use rustls::{ClientConfig, RootCertStore};
use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

/// Login hosts of registries that have one under another name, and the registry's API host.
const KNOWN_TOKEN_HOSTS: [(&str, &str); 3] = [
    ("registry-1.docker.io", "auth.docker.io"),
    ("registry.gitlab.com", "gitlab.com"),
    ("registry.digitalocean.com", "api.digitalocean.com"),
];

/// What the administrator allows beyond the public default.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Registries without TLS, as `host` or `host:port`. They may be on loopback.
    pub insecure_hosts: Vec<String>,
    /// Certificate authorities in PEM, each for one host. Such a host may be on loopback.
    pub ca_pem: Vec<(String, String)>,
    /// Pairs of a registry's host and the host where its tokens come from.
    pub token_hosts: Vec<(String, String)>,
    /// Hosts that are reached at an address of their own instead of what their name resolves to. The port counts
    /// for a host without one. Such a host may be on loopback.
    pub addresses: Vec<(String, SocketAddr)>,
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
            || self.token_hosts.iter().any(|(from, to)| {
                let from = if canonical_host(from) == "docker.io" { "registry-1.docker.io".into() } else { bare(from) };
                from == registry && bare(to) == realm
            })
    }

    /// Names that may resolve to loopback and link-local addresses.
    pub(super) fn listed_names(&self) -> HashSet<String> {
        let hosts = self.insecure_hosts.iter().chain(self.ca_pem.iter().map(|(host, _)| host));
        let hosts = hosts.chain(self.addresses.iter().map(|(host, _)| host));
        hosts.map(|host| name_of(&host.to_ascii_lowercase()).to_owned()).collect()
    }

    /// Addresses of names, by the administrator's word.
    pub(super) fn address_of(&self) -> HashMap<String, SocketAddr> {
        let name = |host: &str| name_of(&host.to_ascii_lowercase()).to_owned();
        self.addresses.iter().map(|(host, address)| (name(host), *address)).collect()
    }

    /// The hosts with an own CA, each with a TLS configuration that trusts it besides the public ones.
    pub(super) fn tls_by_host(&self) -> Result<Vec<(String, ClientConfig)>, TrustError> {
        self.ca_pem
            .iter()
            .map(|(host, pem)| {
                let refuse = |problem: String| TrustError::Ca { host: host.clone(), problem };
                let mut roots = public_roots();
                let mut count = 0;
                for certificate in rustls_pemfile::certs(&mut pem.as_bytes()) {
                    let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
                    roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
                    count += 1;
                }
                if count == 0 {
                    return Err(refuse("it holds no certificate in PEM".into()));
                }
                Ok((bare(host), tls(roots)?))
            })
            .collect()
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
            assert!(trust.tls_by_host().is_err(), "{pem}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(name_of("[::1]:5000"), "::1");
        assert_eq!(name_of("a.io:1"), "a.io");
        assert_eq!(name_of("a.io"), "a.io");
    }
}
