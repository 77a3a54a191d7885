//! Takes the artifact server's connections: so many in all and of one peer, none of which may stand still.
//!
//! [`super::run`] calls [`accept`]; what is asked on a connection, [`super::serve`] answers.
//!
//! **Invariant:** one peer never holds all places; every wait for a peer, to send or to take, has an end.

use super::{serve::Server, unstuck::Unstuck};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    collections::HashMap,
    convert::Infallible,
    net::IpAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Connections at one time.
const MAX_CONNECTIONS: usize = 256;
/// Those of one address: all people come by way of an API server, and addresses can be translated on the way.
const MAX_OF_PEER: usize = 128;
/// Longest that a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest that the head of a request may take, the silence before it included.
const HEAD: Duration = Duration::from_secs(30);
/// Longest that a peer may take nothing of an answer.
const STUCK: Duration = Duration::from_secs(60);
/// Largest part of a connection that is buffered.
const BUFFER: usize = 64 * 1024;

/// The places for connections.
#[derive(Clone)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A place, until it is dropped.
struct Place {
    _permit: OwnedSemaphorePermit,
    peer: IpAddr,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Places {
    pub(super) fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(MAX_CONNECTIONS)), taken: Arc::default() }
    }

    /// A place for this peer, unless it has its share.
    fn take(&self, permit: OwnedSemaphorePermit, peer: IpAddr) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = taken.entry(peer).or_default();
        if *of_peer >= MAX_OF_PEER {
            return None;
        }
        *of_peer += 1;
        Some(Place { _permit: permit, peer, taken: Arc::clone(&self.taken) })
    }

    /// Returns once no connection is left.
    pub(super) async fn free(&self) {
        // The semaphore is never closed.
        let _ = self.all.acquire_many(u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX)).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_peer) = taken.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

/// Takes connections, as long as there is room. Those that are there when `stopping` is cancelled end with their request.
pub(super) async fn accept(
    listener: TcpListener,
    server: &Arc<Server>,
    places: &Places,
    tls: watch::Receiver<TlsAcceptor>,
    stopping: &CancellationToken,
) {
    loop {
        let Ok(permit) = Arc::clone(&places.all).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, address)) => {
                let Some(place) = places.take(permit, address.ip()) else {
                    tracing::debug!(peer = %address.ip(), "a peer has as many connections as one may have");
                    continue;
                };
                let (server, tls, stopping) = (Arc::clone(server), tls.borrow().clone(), stopping.clone());
                tokio::spawn(async move {
                    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                        talk(stream, server, stopping).await;
                    }
                    drop(place);
                });
            }
            // Out of descriptors, or a connection that broke at once.
            Err(error) => {
                tracing::debug!(%error, "a connection broke");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Answers the requests of a connection until its end.
async fn talk<S>(stream: S, server: Arc<Server>, stopping: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(Unstuck::new(stream, STUCK)), service);
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::trace!(%error, "a connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::{gate::Gate, store::Store};
    use futures::future::BoxFuture;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
        time::Instant,
    };

    struct Nobody;

    impl Gate for Nobody {
        fn is_agent<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<bool, String>> {
            Box::pin(async { Ok(false) })
        }
    }

    /// The other end of a connection with room for `room` bytes, and how long it took until the server let go.
    async fn talked<F: Future<Output = DuplexStream>>(
        room: usize,
        stopping: CancellationToken,
        peer: impl FnOnce(DuplexStream) -> F,
    ) -> Duration {
        let dir = tempfile::tempdir().unwrap();
        let server = Arc::new(Server::new(Store::directory(dir.path()).unwrap(), Arc::new(Nobody)));
        let (ours, theirs) = tokio::io::duplex(room);
        let began = Instant::now();
        let talking = tokio::spawn(talk(ours, server, stopping));
        let _open = peer(theirs).await;
        talking.await.unwrap();
        began.elapsed()
    }

    const REQUEST: &[u8] = b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_let_go() {
        let silent = talked(4096, CancellationToken::new(), |peer| async { peer }).await;
        let half = talked(4096, CancellationToken::new(), |mut peer| async {
            peer.write_all(&REQUEST[..9]).await.unwrap();
            peer
        });
        let idle = talked(4096, CancellationToken::new(), |mut peer| async {
            peer.write_all(REQUEST).await.unwrap();
            peer
        });
        for took in [silent, half.await, idle.await] {
            assert!(took >= HEAD && took < HEAD * 2, "{took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_let_go() {
        let took = talked(32, CancellationToken::new(), |mut peer| async {
            peer.write_all(REQUEST).await.unwrap();
            peer
        });
        let took = took.await;
        assert!(took >= STUCK && took < STUCK * 2, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_nothing_does_not_keep_the_server_from_stopping() {
        let stopping = CancellationToken::new();
        let stop = stopping.clone();
        let took = talked(4096, stopping, |mut peer| async move {
            peer.write_all(REQUEST).await.unwrap();
            let mut head = [0; 12];
            peer.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"HTTP/1.1 200");
            stop.cancel();
            peer
        });
        assert!(took.await < HEAD);
    }

    #[tokio::test]
    async fn one_peer_leaves_room_for_others() {
        let places = Places::new();
        let take = |peer: [u8; 4]| {
            let permit = Arc::clone(&places.all).try_acquire_owned().unwrap();
            places.take(permit, peer.into())
        };
        let mut held: Vec<Place> = (0..MAX_OF_PEER).map(|_| take([10, 0, 0, 1]).unwrap()).collect();
        assert!(take([10, 0, 0, 1]).is_none());
        held.push(take([10, 0, 0, 2]).unwrap());
        held.remove(0);
        held.push(take([10, 0, 0, 1]).unwrap());
        drop(held);
        assert!(places.taken.lock().unwrap().is_empty());
        places.free().await;
    }
}
