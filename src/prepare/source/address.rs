//! The address of a git repository, as far as Windlass must understand it.
//!
//! Called by `git`, and by `credential` for the exact host that a password is for.
//!
//! **Invariant:** pure; what would run a program (`ext::`), be taken for an option or carry a password
//! is refused, although the schema refuses it as well.

/// How a repository is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// https, and http where there is no TLS.
    Http,
    /// ssh, also in the form `user@host:path`.
    Ssh,
    /// A directory.
    File,
}

/// An address in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address<'a> {
    /// As written.
    pub(super) url: &'a str,
    pub(super) transport: Transport,
    /// Scheme and authority: what credentials are for. Empty for files.
    pub(super) origin: String,
    /// Without the port; empty for files.
    pub(super) host: &'a str,
    /// As written, if it is.
    pub(super) port: Option<&'a str>,
    path: &'a str,
}

/// Reads an address.
///
/// # Errors
/// A fragment that says what is wrong with it.
pub(super) fn parse(url: &str) -> Result<Address<'_>, &'static str> {
    const FORM: &str = "must be a git address: https://host/path, ssh://git@host/path, git@host:path or file:///path";
    if url.starts_with('-') || url.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err(FORM);
    }
    if let Some(path) = url.strip_prefix("file://") {
        let address = Address { url, transport: Transport::File, origin: String::new(), host: "", port: None, path };
        return if path.starts_with('/') { Ok(address) } else { Err(FORM) };
    }
    let (transport, scheme, authority, path) = if let Some((scheme, rest)) = url.split_once("://") {
        let transport = match scheme {
            "https" | "http" => Transport::Http,
            "ssh" => Transport::Ssh,
            _ => return Err(FORM),
        };
        let (authority, path) = rest.split_once('/').ok_or(FORM)?;
        (transport, scheme, authority, path)
    } else {
        // `host:path`; with a slash before the colon it would be a file.
        let (authority, path) = url.split_once(':').ok_or(FORM)?;
        if authority.contains('/') || path.starts_with(':') {
            return Err(FORM);
        }
        (Transport::Ssh, "ssh", authority, path)
    };
    let (user, server) = authority.rsplit_once('@').map_or((None, authority), |(user, server)| (Some(user), server));
    let login = user.is_some_and(|user| transport == Transport::Http || user.contains(':'));
    if login {
        return Err("must not hold a user or password; put them into a Secret and name it in secretName");
    }
    let bad_user = user.is_some_and(|user| user.is_empty() || user.starts_with('-'));
    let host = host(server);
    if bad_user || path.trim_matches('/').is_empty() || !is_host(host) {
        return Err(FORM);
    }
    let origin = format!("{scheme}://{}", server.to_ascii_lowercase());
    let port = server.rsplit_once(':').map(|(_, port)| port).filter(|port| is_port(port));
    Ok(Address { url, transport, origin, host, port, path })
}

/// The server without its port.
fn host(server: &str) -> &str {
    if server.starts_with('[') {
        return server.split_once(']').map_or("", |(host, _)| host.trim_start_matches('['));
    }
    server.split_once(':').map_or(server, |(host, _)| host)
}

fn is_host(host: &str) -> bool {
    !host.is_empty()
        && !host.starts_with('-')
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'))
}

/// The end of an IPv6 address is none, as its bracket follows.
fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

impl Address<'_> {
    /// The last part of the path, without `.git`.
    pub(super) fn repository(&self) -> Option<String> {
        self.parts().next_back().map(|name| name.strip_suffix(".git").unwrap_or(name).to_owned())
    }

    /// What stands before it; of a file that would only name directories of a machine.
    pub(super) fn owner(&self) -> Option<String> {
        let mut parts: Vec<_> = self.parts().collect();
        parts.pop();
        (self.transport != Transport::File && !parts.is_empty()).then(|| parts.join("/"))
    }

    fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.path.split('/').filter(|part| !part.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_addresses_apart() {
        for (url, transport, origin, host, owner, repository) in [
            (
                "https://git.Example.com/team/hello.git",
                Transport::Http,
                "https://git.example.com",
                "git.Example.com",
                Some("team"),
                "hello",
            ),
            ("http://h:8080/a/b/c/", Transport::Http, "http://h:8080", "h", Some("a/b"), "c"),
            ("https://[::1]:8443/x", Transport::Http, "https://[::1]:8443", "::1", None, "x"),
            ("ssh://git@h:2222/team/x.git", Transport::Ssh, "ssh://h:2222", "h", Some("team"), "x"),
            ("git@h:team/x.git", Transport::Ssh, "ssh://h", "h", Some("team"), "x"),
            ("h:x", Transport::Ssh, "ssh://h", "h", None, "x"),
            ("file:///srv/team/x.git", Transport::File, "", "", None, "x"),
        ] {
            let address = parse(url).unwrap();
            assert_eq!((address.transport, address.origin.as_str(), address.host), (transport, origin, host), "{url}");
            assert_eq!(
                (address.owner().as_deref(), address.repository().as_deref()),
                (owner, Some(repository)),
                "{url}"
            );
        }
    }

    #[test]
    fn refuses_the_rest() {
        for url in [
            "",
            "/srv/x",
            "x",
            "./x",
            "ext::sh -c id",
            "ext::id",
            "a::b",
            "git://h/x",
            "ftp://h/x",
            "https://h",
            "https:///x",
            "https://h/",
            "-oProxyCommand=id:x",
            "ssh://-oProxyCommand=id/x",
            "ssh://-x@h/p",
            "https://u:p@h/x",
            "https://token@h/x",
            "ssh://u:p@h/x",
            "https://h/x\ny",
            "https://h /x",
            "file://h/x",
            "a/b:c",
            "https://h%0a/x",
            "https://h\\@evil/x",
            "fd::17/x",
            "https::x",
            "u@:x",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
    }
}
