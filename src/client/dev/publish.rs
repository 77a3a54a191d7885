//! Ports of the box on this machine: `--publish 8080:5000`.
//!
//! **Invariant:** listens on loopback only; each connection goes its own way through the API server, by the caller's own
//! right to `pods/portforward`. Connections are bounded.

use crate::client::{
    args::Publish,
    connect::Cluster,
    event::Event,
    exit::Exit,
    fault::{Fault, Stop, one_line, reason},
    view::RunView,
};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use std::{net::Ipv4Addr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
};

/// After a connection that could not be taken.
const PAUSE: Duration = Duration::from_millis(100);
/// Most connections at a time.
const CONNECTIONS: usize = 256;

/// A port that is taken here, before anything is started.
#[derive(Debug)]
pub(in crate::client) struct Taken {
    pub ports: Publish,
    listener: TcpListener,
}

/// Takes the ports.
///
/// # Errors
/// `Usage`, if one is taken already.
pub(in crate::client) async fn take(wanted: &[Publish]) -> Result<Vec<Taken>, Stop> {
    let mut taken = Vec::new();
    for ports in wanted {
        let Publish { local, remote } = *ports;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, local)).await.map_err(|error| {
            let other = if local < u16::MAX { local + 1 } else { 8080 };
            Fault::new(
                reason::USAGE,
                Exit::Usage,
                format!("--publish {local}:{remote}: port {local} of this machine: {error}"),
            )
            .note("nothing was started")
            .hint(format!("take another: --publish {other}:{remote}"))
        })?;
        taken.push(Taken { ports: *ports, listener });
    }
    Ok(taken)
}

/// Serves a port until the process ends.
pub(super) async fn serve(taken: Taken, cluster: Cluster, run: watch::Receiver<RunView>, say: mpsc::Sender<Event>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut told = false;
    let (failed, mut failures) = mpsc::channel::<String>(1);
    loop {
        tokio::select! {
            accepted = taken.listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // Out of descriptors, say: some will be free again.
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                let view = run.borrow().clone();
                // Too many at once, or nobody there yet: closed, as by a port where nobody listens.
                let pod = view.status.pod_name.clone().filter(|_| ["Running", "Waiting"].contains(&view.phase()));
                let (Ok(place), Some(pod)) = (Arc::clone(&places).try_acquire_owned(), pod) else { continue };
                let pods = Api::namespaced(cluster.client.clone(), &view.namespace);
                let (remote, failed) = (taken.ports.remote, failed.clone());
                tokio::spawn(async move {
                    if let Err(why) = connect(stream, &pods, &pod, remote).await {
                        let _ = failed.try_send(why);
                    }
                    drop(place);
                });
            }
            Some(why) = failures.recv(), if !told => {
                // Once: a browser comes again and again while a server starts.
                told = true;
                let message = format!("port {} of the box: {}", taken.ports.remote, one_line(&why));
                let _ = say.send(Event::Notice { message }).await;
            }
        }
    }
}

/// Brings one connection into the box.
async fn connect(mut stream: TcpStream, pods: &Api<Pod>, pod: &str, port: u16) -> Result<(), String> {
    let mut forward = pods.portforward(pod, &[port]).await.map_err(|error| match error {
        kube::Error::Api(status) => status.message,
        other => other.to_string(),
    })?;
    let refused = forward.take_error(port);
    let Some(mut there) = forward.take_stream(port) else { return Ok(()) };
    // Either side may close at any time.
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut there).await;
    drop(there);
    let _ = forward.join().await;
    match refused {
        Some(refused) => refused.await.map_or(Ok(()), Err),
        None => Ok(()),
    }
}
