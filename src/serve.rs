//! Health and metrics over HTTP, and the signal to stop. Used by the controller and the agent.
//!
//! **Invariant:** serves nothing that a user wrote; readiness is not liveness.

use axum::{Router, extract::State, http::StatusCode, http::header::CONTENT_TYPE, routing::get};
use nix::errno::Errno;
use prometheus_client::{encoding::text::encode, registry::Registry};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};

/// Whether the process is ready to work.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<AtomicBool>);

impl Health {
    /// It is.
    pub fn set_ready(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it is.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Listens at an address. `[::]` takes IPv4 as well; where there is no IPv6, `0.0.0.0` is listened at instead.
///
/// # Errors
/// The address cannot be listened on.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) => match instead(address, &error) {
            Some(address) => TcpListener::bind(address).await,
            None => Err(error),
        },
        listener => listener,
    }
}

/// Where to listen on a machine whose kernel does not know the family of an address that means all.
fn instead(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let no_family = [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL].map(|errno| errno as i32);
    let unknown = error.raw_os_error().is_some_and(|code| no_family.contains(&code));
    (unknown && address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED))
        .then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
}

/// Serves `/healthz`, `/readyz` and `/metrics`.
///
/// # Errors
/// The address cannot be listened on.
pub async fn start(address: SocketAddr, health: Health, registry: Arc<Mutex<Registry>>) -> io::Result<JoinHandle<()>> {
    let listener = listen(address).await?;
    tracing::info!(address = %listener.local_addr()?, "serves health and metrics");
    let ready = |State((health, _)): State<(Health, Arc<Mutex<Registry>>)>| async move {
        if health.is_ready() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
    };
    let metrics = |State((_, registry)): State<(Health, Arc<Mutex<Registry>>)>| async move {
        let mut text = String::new();
        let registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
        match encode(&mut text, &registry) {
            Ok(()) => {
                (StatusCode::OK, [(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            }
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], error.to_string()),
        }
    };
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state((health, registry));
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "health endpoint ended");
        }
    }))
}

/// Returns at SIGTERM or SIGINT.
pub async fn stop_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the signals end the process, which is what is asked for.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[tokio::test]
    async fn who_listens_at_all_addresses_is_reached_by_ipv4() {
        let listener = listen("[::]:0".parse().unwrap()).await.unwrap();
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()));
        let (here, there) = tokio::join!(listener.accept(), tokio::net::TcpStream::connect(at));
        assert!(here.is_ok() && there.is_ok());
    }

    #[rstest]
    #[case::a_kernel_without_ipv6("[::]:8080", Errno::EAFNOSUPPORT, Some("0.0.0.0:8080"))]
    #[case::ipv6_turned_off("[::]:8080", Errno::EADDRNOTAVAIL, Some("0.0.0.0:8080"))]
    #[case::the_port_is_taken("[::]:8080", Errno::EADDRINUSE, None)]
    #[case::an_address_that_was_chosen("[fd00::1]:8080", Errno::EADDRNOTAVAIL, None)]
    #[case::ipv4("0.0.0.0:8080", Errno::EAFNOSUPPORT, None)]
    fn another_address_is_taken_only_without_ipv6(
        #[case] address: SocketAddr,
        #[case] errno: Errno,
        #[case] expected: Option<&str>,
    ) {
        let error = io::Error::from_raw_os_error(errno as i32);
        assert_eq!(instead(address, &error), expected.map(|text| text.parse().unwrap()));
    }
}
