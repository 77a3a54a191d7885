//! The Docker of this machine, for people: where it is, and a process in one of its containers on our terminal or pipes.
//!
//! `pull`, `open`, `shell` and `here` use it. **Invariant:** the terminal is as it was before anything else is printed.

use super::{
    exit::Exit,
    fault::{Fault, Stop, reason},
    signals::Ends,
    terminal::{self, Returned},
    tty,
};
use crate::engine::{
    EngineError,
    docker::{
        DockerEngine,
        streams::{Process, Streams},
    },
};
use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::io::StreamReader;

/// The engine's socket, if nothing says otherwise.
const SOCKET: &str = "/var/run/docker.sock";

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
    streams: Streams,
    Manner { terminal, detaches }: Manner,
    ends: &mut Ends,
) -> Result<Parted, Stop> {
    if terminal {
        let printed = StreamReader::new(streams.output.map(|piece| piece.map(|(_, bytes)| bytes)));
        let resize = async |rows, columns| docker.resize(process, (rows, columns)).await;
        match terminal::hand_over(streams.input, printed, resize, detaches, ends).await? {
            Returned::Ended => {}
            Returned::Detached => return Ok(Parted::Detached),
            Returned::Signal(exit) => return Ok(Parted::Signal(exit)),
        }
    } else if let Some(exit) = pipes(streams, ends).await? {
        return Ok(Parted::Signal(exit));
    }
    // One that closed its output may go on.
    tokio::select! {
        code = docker.exit_code(process) => code.map(Parted::Ended).map_err(engine),
        exit = ends.next() => Ok(Parted::Signal(exit)),
    }
}

/// The same without a terminal; the answer is a signal to us.
async fn pipes(Streams { mut output, mut input }: Streams, ends: &mut Ends) -> Result<Option<Exit>, Stop> {
    let (mut stdin, mut stdout, mut stderr) = (tokio::io::stdin(), tokio::io::stdout(), tokio::io::stderr());
    // What a person types is not for a program whose output goes elsewhere.
    let (mut listens, mut typed) = (!tty::is_stdin(), vec![0; 4096]);
    loop {
        tokio::select! {
            piece = output.next() => match piece {
                Some(Ok((true, bytes))) => {
                    stderr.write_all(&bytes).await?;
                    // What is not flushed may end with us.
                    stderr.flush().await?;
                }
                Some(Ok((false, bytes))) => {
                    stdout.write_all(&bytes).await?;
                    stdout.flush().await?;
                }
                // How it ended is asked by who called.
                Some(Err(_)) | None => return Ok(None),
            },
            count = stdin.read(&mut typed), if listens => {
                let count = count?;
                listens = count > 0;
                let bytes = typed.get(..count).unwrap_or_default();
                // A process that has ended, or closed its stdin, takes nothing.
                let _ = if listens { input.write_all(bytes).await } else { input.shutdown().await };
            }
            exit = ends.next() => return Ok(Some(exit)),
        }
    }
}
