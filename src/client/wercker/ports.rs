//! Ports of boxes and services of a `wercker.yml` on this machine: `N`, `H:C`, `IP:H:C`, `IP::C`.
//!
//! **Invariant:** pure. Without an address only loopback is opened: Wercker opened a port to the whole network.

use crate::{
    engine::docker::containers::Publish,
    wercker::{convert::MadeHere, document::Text},
    yaml::{Diagnostic, reason},
};

/// The ports, if they are to be opened; and what is none.
pub(super) fn of(made: &MadeHere, open: bool) -> (Vec<Publish>, Vec<Diagnostic>) {
    let (mut ports, mut wrong) = (Vec::new(), Vec::new());
    if !open {
        return (ports, wrong);
    }
    let services = made.of_services.values().flat_map(|beside| &beside.ports);
    for text in made.of_box.ports.iter().chain(services) {
        for port in text.value.split([' ', ',']).filter(|port| !port.is_empty()) {
            match one(port) {
                Ok(port) if ports.contains(&port) => {}
                Ok(port) => ports.push(port),
                Err(why) => wrong.push(refused(text, &why)),
            }
        }
    }
    (ports, wrong)
}

fn refused(text: &Text, why: &str) -> Diagnostic {
    Diagnostic::error(reason::WRONG_TYPE, format!("ports: {why}")).at(text.at, "")
}

/// One port.
pub(super) fn one(port: &str) -> Result<Publish, String> {
    match port.split_once("::") {
        // Any port of this machine; the same one is as good.
        Some((address, there)) if !address.contains(['[', ':']) => {
            format!("{address}:{}:{there}", there.split('/').next().unwrap_or_default()).parse()
        }
        Some(_) | None => port.parse(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::docker::containers::Protocol;
    use rstest::rstest;

    #[rstest]
    #[case("5000", Some(("127.0.0.1", 5000, 5000, Protocol::Tcp)))]
    #[case("80:8080", Some(("127.0.0.1", 80, 8080, Protocol::Tcp)))]
    #[case("0.0.0.0:80:8080/tcp", Some(("0.0.0.0", 80, 8080, Protocol::Tcp)))]
    #[case("127.0.0.1::53/udp", Some(("127.0.0.1", 53, 53, Protocol::Udp)))]
    #[case("a", None)]
    #[case("1:2:3:4", None)]
    fn ports_are_read(#[case] text: &str, #[case] expected: Option<(&str, u16, u16, Protocol)>) {
        let expected =
            expected.map(|(ip, host, port, protocol)| Publish { ip: ip.parse().unwrap(), host, port, protocol });
        assert_eq!(one(text).ok(), expected);
    }
}
