//! Where a push goes: `repository`, `registry` and the ECR properties.
//!
//! **Invariant:** `registry` can only complete or confirm what `repository` says; two different hosts are
//! an error, as the login of one must never reach the other.

use super::reader::Reader;
use crate::{
    api::{
        condition::reason,
        push::{DockerPush, HTTPS_ONLY},
    },
    registry::reference::{HUB, canonical_host, split_host},
};
use std::collections::BTreeMap;

/// Partitions of AWS that are not below `amazonaws.com`, by how their regions begin.
const AWS_PARTITIONS: [(&str, &str); 6] = [
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
];

/// A registry of Amazon ECR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ecr {
    /// Number of the account.
    pub account: String,
    /// Region.
    pub region: String,
    /// Host of the registry.
    pub registry: String,
    /// Host of ECR's API in the region.
    pub api: String,
}

/// The repository with its host, and the host that `registry` names. Empty when either is wrong or not
/// known yet; the reader knows which.
pub(super) fn read(reader: &mut Reader<'_>, push: &DockerPush) -> (String, Option<String>) {
    let written_registry = push.registry.as_deref().filter(|text| !text.trim().is_empty());
    let registry = written_registry.and_then(|written| {
        let text = reader.expand_non_empty("registry", written, "a host")?;
        registry_host(&text).map_err(|problem| reader.wrong("registry", problem)).ok()
    });
    let Some((host, path)) = repository(reader, push) else { return (String::new(), registry) };
    if written_registry.is_some() && registry.is_none() {
        return (String::new(), None);
    }
    let repository = match (&host, &registry) {
        (Some(host), Some(registry)) if host != registry => {
            let literal = !super::super::expand::has_variables(&push.repository)
                && !written_registry.is_some_and(super::super::expand::has_variables);
            let problem = if literal {
                format!("host \"{registry}\" differs from repository host \"{host}\"; leave registry out")
            } else {
                "its host differs from the host of repository; leave registry out".to_owned()
            };
            reader.refuse(reason::REGISTRY_MISMATCH, "registry", &problem);
            String::new()
        }
        (Some(host), _) => format!("{host}/{path}"),
        (None, Some(registry)) if registry != HUB => format!("{registry}/{path}"),
        (None, _) => path,
    };
    (repository, registry)
}

/// The host of the push, if it can be told from these variables alone: only the part of `repository` that can
/// name a host is looked at.
pub(super) fn host(env: &BTreeMap<String, String>, push: &DockerPush) -> Option<String> {
    let first = push.repository.split_once('/').map_or(push.repository.clone(), |(first, _)| format!("{first}/x"));
    let mut reader = Reader::with_env(env);
    let (repository, _) = read(&mut reader, &DockerPush { repository: first, ..push.clone() });
    reader.finish().ok()?;
    Some(split_host(&repository).0.unwrap_or(HUB).to_owned())
}

/// Host, if it names one, and path of `repository`. Upper case becomes lower case, as it always did.
fn repository(reader: &mut Reader<'_>, push: &DockerPush) -> Option<(Option<String>, String)> {
    let written = push.repository.as_str();
    if written.trim().is_empty() {
        reader.wrong("repository", "expected a repository such as registry.example.com/team/app");
        return None;
    }
    let text = reader.expand_non_empty("repository", written, "a repository")?.trim().to_ascii_lowercase();
    let (host, path) = split_host(&text);
    if let Err(problem) = valid_repository(&text, host, path) {
        reader.wrong_value("repository", written, problem);
        return None;
    }
    let host = host.map(canonical_host);
    let Some(ecr) = ecr(reader, push)? else { return Some((host, path.to_owned())) };
    match host {
        Some(host) if host != ecr.registry => {
            let problem = "its host is not that of awsRegistryId and awsRegion; leave the host out";
            reader.refuse(reason::REGISTRY_MISMATCH, "repository", problem);
            None
        }
        _ => Some((Some(ecr.registry), path.to_owned())),
    }
}

fn valid_repository(text: &str, host: Option<&str>, path: &str) -> Result<(), &'static str> {
    if text.contains("://") {
        return Err("must not begin with https://; write registry.example.com/team/app");
    }
    if text.contains('@') || path.contains(':') {
        return Err("must not hold a tag or digest; put the tag into tags");
    }
    if host.is_some_and(|host| !is_host(host)) {
        return Err("expected a host such as registry.example.com or registry.example.com:5000 before the first /");
    }
    if path.len() > 255 || !path.split('/').all(is_path_component) {
        return Err("expected a repository such as team/app: letters, digits, and single '.', '_' or '-' between them");
    }
    Ok(())
}

/// A component of a repository's path, as the distribution specification has it.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut separators = component.split(alphanumeric).filter(|separator| !separator.is_empty());
    component.starts_with(alphanumeric)
        && component.ends_with(alphanumeric)
        && separators.all(|separator| matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

/// The host of a registry's address: a host, or an https address that may end in `/v2`.
fn registry_host(text: &str) -> Result<String, &'static str> {
    let lower = text.trim().to_ascii_lowercase();
    if lower.starts_with("http://") {
        return Err(HTTPS_ONLY);
    }
    let address = lower.strip_prefix("https://").unwrap_or(&lower).trim_end_matches('/');
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    match path.trim_matches('/') {
        "" | "v2" => {}
        "v1" => return Err("the registry API v1 no longer exists; end the address with /v2 or leave it out"),
        _ => return Err("expected a host or an https address such as https://registry.example.com/v2"),
    }
    if is_host(host) { Ok(canonical_host(host)) } else { Err("expected a host such as registry.example.com") }
}

/// `name`, `name:port` or `[address]:port`.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() || !(rest.is_empty() || rest.starts_with(':')) {
                return false;
            }
            ("localhost", rest.strip_prefix(':'))
        }
        None => text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port))),
    };
    let label = |label: &str| {
        let edge = |c: char| c.is_ascii_alphanumeric();
        label.len() <= 63
            && label.starts_with(edge)
            && label.ends_with(edge)
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let port_fits =
        |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    name.len() <= 253 && name.split('.').all(label) && port.is_none_or(port_fits)
}

/// The registry of the ECR properties: `None` outside when they are wrong or not known yet, inside when
/// they are not used.
#[expect(clippy::option_option, reason = "unused and unknown are two answers")]
pub(super) fn ecr(reader: &mut Reader<'_>, push: &DockerPush) -> Option<Option<Ecr>> {
    if push.aws_secret_key.is_none() {
        return Some(None);
    }
    let (Some(id), Some(region)) = (push.aws_registry_id.as_deref(), push.aws_region.as_deref()) else {
        reader.wrong("awsSecretKey", "awsAccessKey, awsSecretKey, awsRegion and awsRegistryId go together");
        return None;
    };
    let read = |reader: &mut Reader<'_>, path: &str, written: &str, fits: fn(char) -> bool, problem: &str| {
        let text = reader.expand_non_empty(path, written, "a value")?.trim().to_owned();
        let valid = text.len() <= 63 && text.chars().all(fits);
        if !valid {
            reader.wrong_value(path, written, problem);
        }
        valid.then_some(text)
    };
    let account = read(reader, "awsRegistryId", id, |c| c.is_ascii_digit(), "expected an account number");
    let in_region = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let region = read(reader, "awsRegion", region, in_region, "expected a region such as eu-west-1");
    let (account, region) = (account?, region?);
    let domain = aws_domain(&region);
    let registry = format!("{account}.dkr.ecr.{region}.{domain}");
    Some(Some(Ecr { registry, api: format!("api.ecr.{region}.{domain}"), account, region }))
}

/// The domain of AWS in a region: each partition has its own.
fn aws_domain(region: &str) -> &'static str {
    let own = AWS_PARTITIONS.iter().find(|(prefix, _)| region.starts_with(prefix));
    own.map_or("amazonaws.com", |(_, domain)| domain)
}

/// The tag of a push without tags: `latest`; on ECR the branch, if there is one.
pub(super) fn default_tag(reader: &Reader<'_>, push: &DockerPush) -> String {
    let branch = || reader.variable("WINDLASS_GIT_BRANCH").or_else(|| reader.variable("WERCKER_GIT_BRANCH"));
    let branch = push.aws_secret_key.as_ref().and_then(|_| branch()).unwrap_or_default();
    let fit = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '-' };
    let tag: String = branch.chars().map(fit).skip_while(|c| matches!(c, '.' | '-')).take(128).collect();
    if tag.is_empty() { "latest".to_owned() } else { tag }
}
