//! What is said of a run on this machine beside what becomes of it: where it is, where its ports are, what to know.
//!
//! **Invariant:** pure, but for the directory that paths are told from.

use super::PLACE;
use crate::{
    api::step::Step,
    engine::docker::containers::{Protocol, Publish},
    local::{Request, Stayed},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

/// What is said of the run beside what becomes of it.
pub(super) struct Shown {
    /// Where it is.
    pub place: String,
    /// Whether a step of it is watched, so that Ctrl-C ends that step first.
    pub watches: bool,
    /// Ports of this machine where a watched step can be looked at.
    pub published: Vec<u16>,
    /// What people should know.
    pub notes: Vec<String>,
}

impl Shown {
    /// What is said of a request.
    pub(super) fn of(request: &Request) -> Self {
        let pipeline = request.spec.pipeline_spec.as_ref();
        let has = |kind: fn(&Step) -> bool| pipeline.is_some_and(|spec| spec.all_steps().any(|(_, step)| kind(step)));
        let mounted = request.directory.as_ref().filter(|directory| directory.mounted);
        let place = match mounted {
            Some(directory) => format!("{PLACE}, {} is mounted as the source", as_written(&directory.path)),
            None => PLACE.to_owned(),
        };
        let watches = has(|step| step.watch.is_some());
        let mut notes = Vec::new();
        if !watches {
            let told = |port: &Publish| format!("{} is port {} of the box", address(port), port.port);
            notes.extend(request.publish.iter().map(told));
        }
        if mounted.is_some() && has(|step| step.docker_push.is_some()) {
            notes.push("a mounted source is not in the image that is pushed; see --direct-mount".into());
        }
        let published = request.publish.iter().filter(|port| is_page(port)).map(|port| port.host).collect();
        Self { place, watches, published, notes }
    }
}

/// Whether a browser of this machine finds a port at `localhost`.
fn is_page(port: &Publish) -> bool {
    port.protocol == Protocol::Tcp && (port.ip == Ipv4Addr::LOCALHOST || port.ip.is_unspecified())
}

/// Where a port of the box is on this machine.
fn address(port: &Publish) -> String {
    if is_page(port) {
        return format!("http://localhost:{}", port.host);
    }
    let at = SocketAddr::new(port.ip, port.host);
    match port.protocol {
        Protocol::Tcp => at.to_string(),
        Protocol::Udp => format!("{at}/udp"),
    }
}

/// What stays of a run, and how it is removed; `None`: nothing.
pub(super) fn stays(stayed: &Stayed) -> Option<String> {
    let Stayed { containers, network } = stayed;
    let removals = [
        (!containers.is_empty()).then(|| format!("docker rm -fv {}", containers.join(" "))),
        network.as_ref().map(|network| format!("docker network rm {network}")),
    ];
    let commands: Vec<String> = removals.into_iter().flatten().collect();
    (!commands.is_empty()).then(|| format!("this stays; to remove it: {}", commands.join(" && ")))
}

/// A whole path as people write it, who are in a directory of theirs.
fn as_written(path: &Path) -> String {
    let own = std::env::current_dir().ok();
    let below = own.as_ref().and_then(|own| path.strip_prefix(own).ok());
    match below {
        Some(below) if below.as_os_str().is_empty() => ".".to_owned(),
        Some(below) => below.display().to_string(),
        None => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(&[], None, None)]
    #[case(&["a", "b"], None, Some("this stays; to remove it: docker rm -fv a b"))]
    #[case(&["a"], Some("n"), Some("this stays; to remove it: docker rm -fv a && docker network rm n"))]
    fn what_stays_is_named(#[case] containers: &[&str], #[case] network: Option<&str>, #[case] said: Option<&str>) {
        let containers = containers.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(stays(&Stayed { containers, network: network.map(str::to_owned) }).as_deref(), said);
    }

    #[rstest]
    #[case("127.0.0.1", Protocol::Tcp, "http://localhost:80")]
    #[case("0.0.0.0", Protocol::Tcp, "http://localhost:80")]
    #[case("127.0.0.2", Protocol::Tcp, "127.0.0.2:80")]
    #[case("::1", Protocol::Tcp, "[::1]:80")]
    #[case("127.0.0.1", Protocol::Udp, "127.0.0.1:80/udp")]
    fn ports_are_told_as_people_use_them(#[case] ip: &str, #[case] protocol: Protocol, #[case] told: &str) {
        assert_eq!(address(&Publish { ip: ip.parse().unwrap(), host: 80, port: 5000, protocol }), told);
    }
}
