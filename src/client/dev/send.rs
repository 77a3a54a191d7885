//! A delta on its way into the box: one exec of the runner's `receive`, with an archive as its stdin.
//!
//! **Invariant:** memory is bounded by [`PIECES`] pieces of [`PIECE_BYTES`]; a connection that takes nothing for
//! [`STALLED`] is lost. What the box has is known only after it said that it is done.

use super::local::{Delta, Local, Looks};
use crate::client::{
    connect::Cluster,
    exit::Exit,
    fault::{Fault, Stop, reason},
    in_box::{self, Ended, InBox},
    view::RunView,
};
use kube::api::AttachParams;
use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{io::AsyncWriteExt as _, sync::mpsc};

/// Bytes that go at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that wait.
const PIECES: usize = 8;
/// How long a piece, or the last word, may take.
const STALLED: Duration = Duration::from_secs(60);
/// The runner's code when the run does not take it now.
const REFUSED: i32 = 1;
/// And when it took it, and could not carry it out.
const FAILED: i32 = 74;
/// And when it does not know the verb.
const UNKNOWN: i32 = 70;

/// How far sending is.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub files: AtomicU64,
    pub bytes: AtomicU64,
}

/// Why a delta did not arrive.
#[derive(Debug)]
pub(super) enum Failure {
    /// The run does not take it now; its words.
    NotNow(String),
    /// The connection is gone, or never was.
    Lost(String),
    /// The box could not do it; its words.
    InBox(String),
    /// It will never be.
    Stop(Stop),
}

/// Sends a delta; the answer is what the box has then.
///
/// # Errors
/// Why it did not arrive, or not whole.
pub(super) async fn send(
    cluster: &Cluster,
    view: &RunView,
    local: &Local,
    (delta, sent): (Arc<Delta>, Looks),
    progress: &Arc<Sent>,
) -> Result<Looks, Failure> {
    let there = InBox::of(cluster, view.clone()).map_err(|_| Failure::NotNow("the box does not run".into()))?;
    let params = AttachParams::default().stdin(true);
    let mut process = match there.start(&["receive"], params).await {
        Ok(process) => process,
        Err(stop) if stop.exit() == Exit::World => return Err(Failure::Lost(stop.message().to_owned())),
        Err(stop) if stop.exit() == Exit::NotFound => return Err(Failure::NotNow(stop.message().to_owned())),
        Err(stop) => return Err(Failure::Stop(stop)),
    };
    let status = process.take_status();
    let (out, err) = (process.stdout(), process.stderr());
    let Some(mut stdin) = process.stdin() else { return Err(Failure::Lost("the connection has no stdin".into())) };
    let (pieces, mut packed) = mpsc::channel(PIECES);
    let (local, progress) = (local.clone(), Arc::clone(progress));
    let packing = tokio::task::spawn_blocking(move || {
        let mut sent = sent;
        let told = |files, bytes| {
            progress.files.store(files, Ordering::Relaxed);
            progress.bytes.store(bytes, Ordering::Relaxed);
        };
        local.pack(&delta, &mut sent, Pieces { pieces, piece: Vec::new() }, told).map(|()| sent)
    });
    let write = async {
        while let Some(piece) = packed.recv().await {
            let piece: Vec<u8> = piece;
            match tokio::time::timeout(STALLED, stdin.write_all(&piece)).await {
                Ok(Ok(())) => {}
                // The process has ended, or the connection: its status says which.
                Ok(Err(_)) => return true,
                Err(_) => return false,
            }
        }
        tokio::time::timeout(STALLED, stdin.flush()).await.is_ok()
    };
    let end = async { tokio::join!(in_box::said(out), in_box::said(err), in_box::ended(status)) };
    let mut end = std::pin::pin!(end);
    let answer = tokio::select! {
        answer = &mut end => Some(answer),
        moves = write => match moves {
            true => tokio::time::timeout(STALLED, end).await.ok(),
            false => None,
        },
    };
    // A packer that still wants to write is told so by this.
    drop(packed);
    let Some((_, said, ended)) = answer else { return Err(Failure::Lost("the connection takes nothing".into())) };
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    if let Some(failure) = failure(ended, said) {
        return Err(failure);
    }
    match packing.await {
        Ok(Ok(sent)) => Ok(sent),
        Ok(Err(error)) => Err(Failure::Lost(error.to_string())),
        Err(error) => Err(Failure::Lost(error.to_string())),
    }
}

/// What went wrong in the box, by how its process ended and what it said.
fn failure(ended: Ended, said: String) -> Option<Failure> {
    Some(match ended {
        Ended::Code(0) => return None,
        Ended::Code(REFUSED) => Failure::NotNow(said),
        Ended::Code(FAILED) => Failure::InBox(said),
        Ended::Code(UNKNOWN) => {
            let older =
                "the runner of this run knows no receive: Windlass in the cluster is older than this command line";
            let fault = Fault::new(reason::CLUSTER_ERROR, Exit::World, older).note(said);
            Failure::Stop(fault.hint("upgrade the installation of the cluster").into())
        }
        Ended::Code(code) => Failure::InBox(format!("{said} (exit code {code})")),
        Ended::Refused(why) => Failure::NotNow(why),
        Ended::Lost => Failure::Lost("the connection ended".into()),
    })
}

/// Hands what is written over, piece by piece.
struct Pieces {
    pieces: mpsc::Sender<Vec<u8>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.pieces.blocking_send(std::mem::take(&mut self.piece)).map_err(gone)
    }
}
