//! How Docker on this machine speaks to registries: those of the machine itself need no TLS, and certificate authorities
//! lie in a directory for each host.
//!
//! Local runs ask before the first push, `windlass pull` before it reads.
//!
//! **Invariant:** only the host that is named is looked at, and only one of this machine is connected to.

use super::trust::Trust;
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, TcpStream, ToSocketAddrs as _},
    path::Path,
    time::Duration,
};

/// Largest certificate file.
const MAX_BYTES: u64 = 1024 * 1024;
/// Where Docker keeps certificate authorities of registries, one directory each.
const CERTS_DIR: &str = "/etc/docker/certs.d";
/// Longest wait for a registry of this machine to say how it is spoken to.
const PROBE_MAX: Duration = Duration::from_millis(500);

/// Trusts a host as Docker does.
pub async fn as_docker(trust: &mut Trust, host: &str) {
    if trust.is_insecure(host) || trust.ca_pem.iter().any(|(known, _)| known == host) {
        return;
    }
    let own = authorities(&Path::new(CERTS_DIR).join(host));
    if !own.is_empty() {
        trust.ca_pem.push((host.to_owned(), own));
    } else if is_loopback(host) {
        let probed = host.to_owned();
        let plain = tokio::task::spawn_blocking(move || speaks_plainly(&probed)).await;
        // One with TLS is told as what it is: unknown to us, or away.
        let list = if plain.unwrap_or_default() { &mut trust.insecure_hosts } else { &mut trust.on_loopback };
        list.push(host.to_owned());
    }
}

fn authorities(directory: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten().take(100) {
        if entry.path().extension().is_some_and(|end| end == "crt")
            && let Ok(file) = fs::File::open(entry.path())
        {
            // What is no text is no certificate in PEM.
            let _ = file.take(MAX_BYTES).read_to_string(&mut text);
            text.push('\n');
        }
    }
    text
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a registry answers HTTP without TLS. Servers with TLS answer nothing, or 400.
fn speaks_plainly(host: &str) -> bool {
    let address = if host.rsplit_once(':').is_some() { host.to_owned() } else { format!("{host}:80") };
    let connect = || -> std::io::Result<String> {
        let address = address.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
        let mut stream = TcpStream::connect_timeout(&address, PROBE_MAX)?;
        stream.set_read_timeout(Some(PROBE_MAX))?;
        stream.set_write_timeout(Some(PROBE_MAX))?;
        stream.write_all(format!("GET /v2/ HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes())?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(String::from_utf8_lossy(&head).into_owned())
    };
    connect().is_ok_and(|head| head.starts_with("HTTP/1.") && !head.ends_with(" 400"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever listens there says nothing, as a server with TLS does.
    #[tokio::test]
    async fn a_registry_of_this_machine_may_have_tls() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = server.local_addr().unwrap().to_string();
        let mut trust = Trust::default();
        as_docker(&mut trust, &host).await;
        assert_eq!(
            (trust.on_loopback.as_slice(), trust.insecure_hosts.as_slice()),
            ([host.clone()].as_slice(), [].as_slice())
        );
        assert!(trust.listed().unwrap().contains_key(&host));
    }

    #[test]
    fn hosts_of_this_machine() {
        for (host, loopback) in [
            ("127.0.0.1:5000", true),
            ("localhost:5000", true),
            ("[::1]:5000", true),
            ("10.0.0.1:5000", false),
            ("docker.io", false),
        ] {
            assert_eq!(is_loopback(host), loopback, "{host}");
        }
    }
}
