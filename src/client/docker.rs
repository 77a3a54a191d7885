//! The Docker of this machine, for people: where it is, and a process in one of its containers on our terminal or pipes.
//!
//! `pull`, `open`, `shell` and `here` use it. **Invariant:** the terminal is as it was before anything else is printed.

use super::{
    exit::Exit,
    fault::{Fault, Stop, reason},
    signals::{Ends, handler},
    tty::{self, Keys, Raw},
};
use crate::engine::{
    EngineError,
    docker::{
        DockerEngine,
        streams::{Process, Streams},
    },
};
use futures::StreamExt as _;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    signal::unix::SignalKind,
};

/// The engine's socket, if nothing says otherwise.
const SOCKET: &str = "/var/run/docker.sock";
/// How long a Ctrl-P waits for its Ctrl-Q.
pub(super) const KEYS_APART: Duration = Duration::from_millis(500);

/// The engine that `DOCKER_HOST` names, else that of this machine.
pub(super) fn host() -> String {
    let host = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    host.unwrap_or_else(|| SOCKET.to_owned())
}

/// A client for it; nothing is sent yet.
///
/// # Errors
/// `EngineFailed` for an address that cannot be used.
pub(super) fn connect() -> Result<DockerEngine, Stop> {
    DockerEngine::of_local_runs(&host()).map_err(engine)
}

/// What the engine said, for people.
pub(super) fn engine(error: EngineError) -> Stop {
    let fault = Fault::new(reason::ENGINE_FAILED, Exit::World, error.to_string());
    match error {
        EngineError::Unreachable { .. } => fault.hint("is Docker running here? DOCKER_HOST names another one").into(),
        _ => fault.into(),
    }
}

/// How a process and we parted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parted {
    /// It ended with this code; -1 if nobody knows.
    Ended(i64),
    /// By Ctrl-P Ctrl-Q.
    Detached,
    /// By a signal to us.
    Signal(Exit),
}

/// How a process is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manner {
    /// On our terminal.
    pub(super) terminal: bool,
    /// Whether Ctrl-P Ctrl-Q leaves it.
    pub(super) detaches: bool,
}

/// Passes what is typed and printed, until the process ends or somebody wants to leave.
///
/// # Errors
/// Of our own terminal, or of the engine that cannot say how it ended.
pub(super) async fn pass(
    docker: &DockerEngine,
    process: &Process,
    Streams { mut output, mut input }: Streams,
    Manner { terminal, detaches }: Manner,
    ends: &mut Ends,
) -> Result<Parted, Stop> {
    let mut resized = handler(SignalKind::window_change())?;
    let raw = if terminal { Some(Raw::enter()?) } else { None };
    let (mut stdin, mut stdout, mut stderr) = (tokio::io::stdin(), tokio::io::stdout(), tokio::io::stderr());
    // What a person types is not for a program whose output goes elsewhere.
    let (mut listens, mut send_size) = (terminal || !tty::is_stdin(), terminal);
    let (mut typed, mut keys) = (vec![0; 4096], Keys::default());
    let parted = loop {
        if std::mem::take(&mut send_size)
            && let Some(size) = tty::size()
        {
            docker.resize(process, size).await;
        }
        tokio::select! {
            piece = output.next() => match piece {
                Some(Ok((true, bytes))) => stderr.write_all(&bytes).await?,
                Some(Ok((false, bytes))) => {
                    stdout.write_all(&bytes).await?;
                    stdout.flush().await?;
                }
                // How it ended is asked below.
                Some(Err(_)) | None => break None,
            },
            count = stdin.read(&mut typed), if listens => {
                let count = count?;
                let bytes = typed.get(..count).unwrap_or_default();
                let (bytes, detach) = if detaches {
                    let taken = keys.take(bytes);
                    (taken.bytes, taken.detach || count == 0)
                } else {
                    (bytes.to_vec(), false)
                };
                listens = count > 0;
                // A process that has ended, or closed its stdin, takes nothing.
                let _ = if listens { input.write_all(&bytes).await } else { input.shutdown().await };
                if detach {
                    break Some(Parted::Detached);
                }
            }
            () = tokio::time::sleep(KEYS_APART), if keys.is_held() => {
                let _ = input.write_all(&keys.release()).await;
            }
            _ = resized.recv() => send_size = terminal,
            exit = ends.next() => break Some(Parted::Signal(exit)),
        }
    };
    drop(raw);
    if let Some(parted) = parted {
        return Ok(parted);
    }
    // One that closed its output may go on.
    tokio::select! {
        code = docker.exit_code(process) => code.map(Parted::Ended).map_err(engine),
        exit = ends.next() => Ok(Parted::Signal(exit)),
    }
}
