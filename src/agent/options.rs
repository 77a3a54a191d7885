//! The agent's command line.
//!
//! `cli` parses it; `mod` reads the settings.
//!
//! **Invariant:** files named here are the administrator's own.

use super::shelf::Shelf;
use crate::registry::Trust;
use anyhow::Context as _;
use std::{
    ffi::OsStr,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Largest file of certificates.
const MAX_CA_BYTES: u64 = 1024 * 1024;

/// Settings of the agent.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The node whose runs are followed
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// Namespace of the agent, for its Lease
    #[arg(long = "own-namespace", env = "POD_NAMESPACE", default_value = "windlass-system")]
    pub own_namespace: String,
    /// Name of this pod, for its Lease
    #[arg(long, env = "POD_NAME", default_value = "windlass-agent")]
    pub identity: String,
    /// The kubelet's folder
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub kubelet_dir: PathBuf,
    /// The engine's socket
    #[arg(long, env = "DOCKER_HOST", default_value = "unix:///var/run/docker.sock")]
    pub docker_host: String,
    /// A registry without TLS, as host or host:port (repeat for more)
    #[arg(long = "insecure-registry", value_name = "HOST")]
    pub insecure_registries: Vec<String>,
    /// The CA of a registry, as HOST=FILE, or a directory with files named HOST.pem (repeat for more)
    #[arg(long = "registry-ca", value_name = "HOST=FILE")]
    pub registry_cas: Vec<String>,
    /// A host that may be given a registry's login to hand out tokens, as REGISTRY=HOST (repeat for more)
    #[arg(long = "token-host", value_name = "REGISTRY=HOST")]
    pub token_hosts: Vec<String>,
    /// Where a host with its port is reached, instead of what its name resolves to, as HOST=IP:PORT (repeat for more)
    #[arg(long = "registry-address", value_name = "HOST=IP:PORT", value_parser = address)]
    pub registry_addresses: Vec<(String, SocketAddr)>,
    /// Stored containers go to the artifact server; the file holds the agent's token for it
    #[arg(long, value_name = "FILE", conflicts_with = "artifacts_registry")]
    pub artifacts_token: Option<PathBuf>,
    /// Stored containers go into repositories below this one
    #[arg(long, value_name = "HOST/PATH")]
    pub artifacts_registry: Option<String>,
    /// The login for them, as .docker/config.json
    #[arg(long, value_name = "FILE", requires = "artifacts_registry")]
    pub artifacts_login: Option<PathBuf>,
    /// Where health is served; loopback, as the agent is on the node's network
    #[arg(long, default_value = "127.0.0.1:8081", value_parser = loopback)]
    pub listen_health: SocketAddr,
}

impl Options {
    /// The path of the engine's socket.
    pub(super) fn socket(&self) -> anyhow::Result<&str> {
        let path = self.docker_host.strip_prefix("unix://").unwrap_or(&self.docker_host);
        anyhow::ensure!(path.starts_with('/'), "--docker-host {}: expected unix:///path", self.docker_host);
        Ok(path)
    }

    /// Where stored containers go.
    pub(super) fn shelf(&self) -> Shelf {
        match (&self.artifacts_token, &self.artifacts_registry) {
            (Some(token), _) => Shelf::Server { namespace: self.own_namespace.clone(), token: token.clone() },
            (None, Some(prefix)) => Shelf::Registry { prefix: prefix.clone(), login: self.artifacts_login.clone() },
            (None, None) => Shelf::None,
        }
    }

    /// What the administrator allows of registries.
    pub(super) fn trust(&self) -> anyhow::Result<Trust> {
        let mut trust = Trust {
            insecure_hosts: self.insecure_registries.clone(),
            addresses: self.registry_addresses.clone(),
            ..Trust::default()
        };
        for setting in &self.registry_cas {
            match setting.split_once('=') {
                Some((host, file)) => trust.ca_pem.push((host.to_owned(), read(Path::new(file))?)),
                None => trust.ca_pem.extend(directory(Path::new(setting))?),
            }
        }
        for setting in &self.token_hosts {
            let pair = setting.split_once('=').filter(|(registry, host)| !registry.is_empty() && !host.is_empty());
            let (registry, host) = pair.with_context(|| format!("--token-host {setting}: expected REGISTRY=HOST"))?;
            trust.token_hosts.push((registry.to_owned(), host.to_owned()));
        }
        Ok(trust)
    }
}

/// The certificates of a directory, keyed by the file's name without `.pem`. A colon cannot stand in the key of a
/// ConfigMap, so `registry.example.com_5000.pem` is for port 5000.
fn directory(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let entries = fs::read_dir(path).with_context(|| format!("read the directory {}", path.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let file = entry.with_context(|| format!("read the directory {}", path.display()))?.path();
        let name = file.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_suffix(".pem"));
        let Some(name) = name.filter(|name| !name.starts_with('.')) else { continue };
        found.push((host(name), read(&file)?));
    }
    found.sort();
    Ok(found)
}

/// `registry.example.com_5000` is `registry.example.com:5000`: no host name has an underscore before a number.
fn host(name: &str) -> String {
    match name.rsplit_once('_') {
        Some((host, port)) if port.parse::<u16>().is_ok() => format!("{host}:{port}"),
        Some(_) | None => name.to_owned(),
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    let length = fs::metadata(file).with_context(|| format!("read {}", file.display()))?.len();
    anyhow::ensure!(length <= MAX_CA_BYTES, "read {}: larger than {MAX_CA_BYTES} bytes", file.display());
    fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

fn address(text: &str) -> Result<(String, SocketAddr), String> {
    let pair = text.split_once('=').filter(|(host, _)| !host.is_empty());
    let pair = pair.and_then(|(host, address)| Some((host.to_owned(), address.parse().ok()?)));
    let pair = pair.filter(|(_, address): &(_, SocketAddr)| address.port() != 0);
    pair.ok_or_else(|| "expected HOST=IP:PORT".into())
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "expected IP:PORT".to_owned())?;
    if address.ip().is_loopback() { Ok(address) } else { Err("expected an address of loopback".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, FromArgMatches as _, Parser, builder::Resettable};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        let fixed = ["agent", "--node-name", "n1"];
        // What stands in the environment of the tests is for others.
        let command = Cli::command().mut_args(|arg| arg.env(Resettable::Reset));
        let matches = command.try_get_matches_from(fixed.iter().chain(arguments))?;
        Cli::from_arg_matches(&matches).map(|cli| cli.options)
    }

    #[test]
    fn certificates_by_host() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("a.io.pem", "A"), ("b.io_5000.pem", "B"), ("readme", "x")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let single = dir.path().join("readme");
        let single = format!("c.io:5000={}", single.display());
        let options = parse(&["--registry-ca", dir.path().to_str().unwrap(), "--registry-ca", &single]).unwrap();
        let found = options.trust().unwrap().ca_pem;
        let expected = [("a.io", "A"), ("b.io:5000", "B"), ("c.io:5000", "x")];
        assert_eq!(found, expected.map(|(host, pem)| (host.to_owned(), pem.to_owned())));
    }

    #[test]
    fn a_missing_certificate_is_told() {
        let options = parse(&["--registry-ca", "a.io=/nowhere/ca.pem"]).unwrap();
        assert!(options.trust().unwrap_err().to_string().contains("/nowhere/ca.pem"));
    }

    #[test]
    fn login_hosts_come_in_pairs() {
        let options = parse(&["--token-host", "a.io=login.a.io"]).unwrap();
        assert_eq!(options.trust().unwrap().token_hosts, [("a.io".to_owned(), "login.a.io".to_owned())]);
        assert!(parse(&["--token-host", "a.io="]).unwrap().trust().is_err());
    }

    #[test]
    fn addresses_of_hosts() {
        let options = parse(&["--registry-address", "registry.corp=10.0.0.7:5000"]).unwrap();
        let expected = ("registry.corp".to_owned(), "10.0.0.7:5000".parse().unwrap());
        assert_eq!(options.trust().unwrap().addresses, [expected]);
        for wrong in [
            "registry.corp",
            "=10.0.0.7:5000",
            "registry.corp=10.0.0.7",
            "registry.corp=10.0.0.7:0",
            "registry.corp=o.corp:5000",
        ] {
            assert!(parse(&["--registry-address", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn health_stays_on_loopback() {
        assert!(parse(&["--listen-health", "0.0.0.0:8081"]).is_err());
        assert!(parse(&["--listen-health", "127.0.0.1:9000"]).is_ok());
    }

    #[test]
    fn the_socket() {
        assert_eq!(parse(&[]).unwrap().socket().unwrap(), "/var/run/docker.sock");
        assert!(parse(&["--docker-host", "tcp://10.0.0.1:2375"]).unwrap().socket().is_err());
    }
}
