//! Name resolution that keeps user-named registries away from the node's own addresses.
//!
//! The agent runs on the host's network, where loopback and link-local addresses serve the kubelet, cloud metadata
//! and more. [`super::client`] connects through this resolver, so a name is judged by the addresses it is used with.
//!
//! **Invariant:** only hosts that the administrator listed connect to loopback, link-local or unspecified addresses.

use super::trust::LIST_REGISTRY;
use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    task::{Context, Poll},
};

/// A host may not be connected to.
#[derive(Debug, thiserror::Error)]
#[error("{host} resolves to {address}, which is reserved for the node; {}", LIST_REGISTRY)]
pub(super) struct Denied {
    host: String,
    address: IpAddr,
}

/// Resolves names, without those that lead to the node itself.
#[derive(Clone, Copy)]
pub(super) struct Resolver {
    listed: bool,
}

impl Resolver {
    /// A resolver for hosts that are `listed`, which may lead to the node, or for all others.
    pub(super) fn new(listed: bool) -> Self {
        Self { listed }
    }

    /// Judges an address for a host; hosts that are addresses do not pass through name resolution.
    pub(super) fn check(self, host: &str, address: IpAddr) -> Result<(), Denied> {
        if self.listed || !is_reserved(address) {
            return Ok(());
        }
        Err(Denied { host: host.to_ascii_lowercase(), address })
    }
}

/// Addresses that mean this node, its link, or nothing that can be connected to.
fn is_reserved(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.octets().first() == Some(&0)
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast(),
    }
}

impl tower::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let this = *self;
        Box::pin(async move {
            let addresses: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            for address in &addresses {
                this.check(name.as_str(), address.ip()).map_err(io::Error::other)?;
            }
            Ok(addresses.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::Service;

    #[test]
    fn the_node_is_out_of_reach() {
        let (others, listed) = (Resolver::new(false), Resolver::new(true));
        for address in
            ["127.0.0.1", "127.9.9.9", "169.254.169.254", "0.0.0.0", "::1", "fe80::1", "::ffff:127.0.0.1", "::"]
        {
            let address: IpAddr = address.parse().unwrap();
            assert!(others.check("a.io", address).is_err(), "{address}");
            assert!(listed.check("a.io", address).is_ok(), "{address}");
        }
        for address in ["10.0.0.1", "192.0.2.1", "2001:db8::1"] {
            assert!(others.check("a.io", address.parse().unwrap()).is_ok(), "{address}");
        }
    }

    #[tokio::test]
    async fn a_name_is_judged_by_its_addresses() {
        let error = Resolver::new(false).call("localhost".parse().unwrap()).await.unwrap_err();
        assert!(error.get_ref().unwrap().is::<Denied>(), "{error}");
        assert!(Resolver::new(true).call("localhost".parse().unwrap()).await.unwrap().next().is_some());
    }
}
