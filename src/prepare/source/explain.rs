//! What git's errors mean: a reason and a message that says what to do.
//!
//! Called by `git` and `checkout` with what git printed.
//!
//! **Invariant:** pure. Lines of the server (`remote:`) decide nothing and are only shown as a last resort.

use super::address::{Address, Transport};
use crate::{
    api::condition::reason,
    prepare::failure::{failure, shorten},
    wire::Failure,
};

/// What the caller knows.
pub(super) struct Context<'a> {
    pub(super) address: &'a Address<'a>,
    pub(super) secret: Option<&'a str>,
}

/// What went wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// The ref or commit that was asked for does not exist.
    Missing,
    /// The server gives only what its refs name.
    Unadvertised,
    /// The network's fault: worth another try.
    Passing(Failure),
    /// Nothing will help but a change.
    Lasting(Failure),
}

impl Problem {
    /// The failure, or this one when the server only said no.
    pub(super) fn or(self, missing: impl FnOnce() -> Failure) -> Failure {
        match self {
            Self::Passing(failure) | Self::Lasting(failure) => failure,
            Self::Missing | Self::Unadvertised => missing(),
        }
    }
}

/// The meaning of what git printed.
pub(super) fn problem(stderr: &str, context: &Context<'_>) -> Problem {
    let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let own: String = lines.iter().filter(|l| !l.starts_with("remote:")).flat_map(|l| [*l, "\n"]).collect();
    let own = own.as_str();
    if has(own, &["couldn't find remote ref", "not our ref"]) {
        return Problem::Missing;
    }
    if has(own, &["does not allow request for unadvertised object"])
        || (has(own, &["want "]) && has(own, &["not valid"]))
    {
        return Problem::Unadvertised;
    }
    if let Some(message) = login(own, context) {
        return Problem::Lasting(failure(reason::SOURCE_AUTH_FAILED, message));
    }
    let words = shorten(last_words(&lines));
    if let Some(message) = network(own, context, &words) {
        return Problem::Passing(failure(reason::SOURCE_FAILED, message));
    }
    let url = context.address.url;
    let message = if has(own, &["certificate", "ssl peer"]) {
        format!("git: the certificate of {} is not trusted: {words}", context.address.host)
    } else if has(own, &["no space left on device", "disk quota exceeded"]) {
        "git: the disk of the node has no space left".into()
    } else if has(own, &["' not found", "repository not found", "not appear to be a git repository", "error: 404"]) {
        format!("git: {url} does not exist, or is only shown to those who may read it")
    } else if has(own, &["not allowed"]) && has(own, &["transport '"]) {
        format!("git: only https, ssh and file addresses are fetched: {words}")
    } else {
        format!("git: {words}")
    };
    Problem::Lasting(failure(reason::SOURCE_FAILED, message))
}

fn has(text: &str, any: &[&str]) -> bool {
    let text = text.to_ascii_lowercase();
    any.iter().any(|part| text.contains(part))
}

/// Problems of who may read.
fn login(text: &str, context: &Context<'_>) -> Option<String> {
    let (url, host) = (context.address.url, context.address.host);
    let secret = context.secret.filter(|_| context.address.transport != Transport::File);
    if let Some(asking) =
        quoted_after(text, "could not read Username for ").or(quoted_after(text, "could not read Password for "))
    {
        return Some(match secret {
            Some(secret) if !same_origin(asking, context) => {
                format!("{asking} asks for a login; Secret {secret} is only for {}", context.address.origin)
            }
            Some(secret) => format!("{url} refused username and password of Secret {secret}"),
            None if !same_origin(asking, context) => format!("{asking} asks for a login, {url} leads there"),
            None => format!("{url} asks for a login; name a Secret in source.git.secretName"),
        });
    }
    if has(text, &["authentication failed", "error: 401", "error: 403"]) {
        return Some(match secret {
            Some(secret) => format!("{url} refused username and password of Secret {secret}"),
            None => format!("{url} refused access; name a Secret in source.git.secretName"),
        });
    }
    if has(text, &["host key verification failed", "host key is known for", "host identification has changed"]) {
        return Some(match secret {
            Some(secret) => format!("the host key of {host} is not in known_hosts of Secret {secret}, or has changed"),
            None => needs_key(url),
        });
    }
    if has(text, &["permission denied ("]) {
        return Some(match secret {
            Some(secret) if has(text, &["load key", "error in libcrypto", "invalid format"]) => {
                format!("ssh-privatekey of Secret {secret} cannot be used; it must be a private key without passphrase")
            }
            Some(secret) => format!("{url} refused the key of Secret {secret}"),
            None => needs_key(url),
        });
    }
    None
}

fn needs_key(url: &str) -> String {
    format!("{url} asks for a key; name a Secret with ssh-privatekey and known_hosts in source.git.secretName")
}

fn same_origin(asking: &str, context: &Context<'_>) -> bool {
    asking.trim_end_matches('/').eq_ignore_ascii_case(&context.address.origin)
}

/// The quoted word that follows.
fn quoted_after<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    text.split_once(before)?.1.strip_prefix('\'')?.split_once('\'').map(|(word, _)| word)
}

/// Problems of the way to the server.
fn network(text: &str, context: &Context<'_>, words: &str) -> Option<String> {
    let url = context.address.url;
    for before in ["Could not resolve host: ", "Could not resolve hostname ", "Could not resolve proxy: "] {
        let Some((_, rest)) = text.split_once(before) else { continue };
        let host = rest.split([':', ' ', '\n', ')']).next().unwrap_or_default();
        let field = if host == context.address.host { " (source.git.url)" } else { "" };
        return Some(format!("cannot resolve {host}{field} from the cluster"));
    }
    if has(
        text,
        &["failed to connect", "couldn't connect", "connection refused", "no route to host", "network is unreachable"],
    ) {
        return Some(format!("git: cannot connect to {url}: {words}"));
    }
    let broken = [
        "timed out",
        "operation too slow",
        "early eof",
        "unexpected disconnect",
        "connection reset",
        "connection closed",
        "empty reply from server",
        "rpc failed",
        "gnutls recv error",
        "returned error: 5",
        "error: 429",
        "hung up unexpectedly",
    ];
    has(text, &broken).then(|| format!("git: {url} broke off: {words}"))
}

/// The line that says most: git's last fatal one.
fn last_words<'a>(lines: &[&'a str]) -> &'a str {
    let pick = |prefix: &str| lines.iter().rev().find_map(|line| line.strip_prefix(prefix));
    let line = pick("fatal: ").or_else(|| pick("error: ")).or_else(|| lines.last().copied());
    line.unwrap_or("it failed without a word")
}

#[cfg(test)]
mod tests;
