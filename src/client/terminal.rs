//! Our terminal, handed to a process in a box: in a pod of the cluster, or in a container of this machine.
//!
//! `shell` and `docker` use it. **Invariant:** the terminal is as it was before, and
//! reads nothing more, once this returns; what is typed then is for whoever reads next.

use super::{
    exit::Exit,
    fault::Stop,
    signals::{Ends, handler},
    tty::{self, Keys, Raw, Typed},
};
use std::{fs, io, os::unix::fs::OpenOptionsExt as _, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::unix::pipe,
    signal::unix::SignalKind,
};

/// How long a Ctrl-P waits for its Ctrl-Q.
const KEYS_APART: Duration = Duration::from_millis(500);

/// Why the terminal was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returned {
    /// The process said its last.
    Ended,
    /// Ctrl-P Ctrl-Q was typed.
    Detached,
    /// A signal to us.
    Signal(Exit),
}

/// Hands our terminal to a process, until it ends or somebody leaves it: by a signal, or, if it `detaches`, by Ctrl-P
/// Ctrl-Q. `resize` hears rows and columns.
///
/// # Errors
/// When stdin is no terminal, or cannot be read.
pub(super) async fn hand_over(
    mut typed: impl AsyncWrite + Unpin,
    mut printed: impl AsyncRead + Unpin,
    mut resize: impl AsyncFnMut(u16, u16),
    detaches: bool,
    ends: &mut Ends,
) -> Result<Returned, Stop> {
    let mut resized = handler(SignalKind::window_change())?;
    let mut keyboard = keyboard()?;
    let mut stdout = tokio::io::stdout();
    let (mut keys, mut from_us, mut from_box) = (Keys::default(), vec![0; 4096], vec![0; 16 * 1024]);
    let raw = Raw::enter()?;
    let mut send_size = true;
    let returned = loop {
        if std::mem::take(&mut send_size)
            && let Some((rows, columns)) = tty::size()
        {
            resize(rows, columns).await;
        }
        tokio::select! {
            count = printed.read(&mut from_box) => match count {
                Ok(count) if count > 0 => {
                    stdout.write_all(from_box.get(..count).unwrap_or_default()).await?;
                    stdout.flush().await?;
                }
                Ok(_) | Err(_) => break Returned::Ended,
            },
            count = keyboard.read(&mut from_us) => {
                let count = count?;
                let bytes = from_us.get(..count).unwrap_or_default();
                let taken = if detaches { keys.take(bytes) } else { Typed { bytes: bytes.to_vec(), detach: false } };
                // A process that is gone ends what is printed, which is told above.
                let _ = typed.write_all(&taken.bytes).await;
                let _ = typed.flush().await;
                if taken.detach || count == 0 {
                    break Returned::Detached;
                }
            }
            () = tokio::time::sleep(KEYS_APART), if keys.is_held() => {
                let _ = typed.write_all(&keys.release()).await;
                let _ = typed.flush().await;
            }
            _ = resized.recv() => send_size = true,
            exit = ends.next() => break Returned::Signal(exit),
        }
    };
    drop(raw);
    Ok(returned)
}

/// The terminal of stdin, opened anew, so that it can be read without waiting and without a thread: one that waits in a
/// read would take the first of what is typed later. Tokio's reader of pipes reads any file that can be polled.
fn keyboard() -> io::Result<pipe::Receiver> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    let open = |path: &str| fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
    // After `su` the terminal's own name may be closed to us; the second is open to whoever sits at it.
    pipe::Receiver::from_file_unchecked(open("/proc/self/fd/0").or_else(|_| open("/dev/tty"))?)
}
