//! The signals that a person at a terminal sends.
//!
//! `start`, `follow` and `shell` listen to them. **Invariant:** from [`Signals::catch`] on none of them ends the process by
//! itself; who catches them answers each.

use super::{
    exit::Exit,
    fault::{Fault, Stop, reason},
};
use futures::FutureExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C, TERM and Ctrl-Z.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    suspend: Signal,
}

/// What somebody wants of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// To end, with this exit code.
    End(Exit),
    /// To stop until SIGCONT.
    Suspend,
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub(super) fn catch() -> Result<Self, Stop> {
        Ok(Self {
            interrupt: handler(SignalKind::interrupt())?,
            terminate: handler(SignalKind::terminate())?,
            suspend: handler(SignalKind::from_raw(nix::libc::SIGTSTP))?,
        })
    }

    /// The next signal.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::End(Exit::Interrupted),
            _ = self.terminate.recv() => Asked::End(Exit::Terminated),
            _ = self.suspend.recv() => Asked::Suspend,
        }
    }

    /// The next Ctrl-C or TERM; who presses Ctrl-Z meanwhile gets his shell.
    pub(super) async fn asked_to_end(&mut self) -> Exit {
        loop {
            match self.next().await {
                Asked::End(exit) => return exit,
                Asked::Suspend => suspend(),
            }
        }
    }
}

/// What ends a sequence of runs between two of them.
#[derive(Debug)]
pub(super) struct Between {
    /// What each run listens to meanwhile: what it did not answer is answered here.
    pub signals: Signals,
    hangup: Signal,
}

impl Between {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub(super) fn catch() -> Result<Self, Stop> {
        Ok(Self { signals: Signals::catch()?, hangup: handler(SignalKind::hangup())? })
    }

    /// Whether the next one may not begin: somebody asked us to end, or the terminal was closed at any time.
    pub(super) fn ends(&mut self) -> Option<Exit> {
        let closed = self.hangup.recv().now_or_never().flatten().map(|()| Exit::Terminated);
        closed.or_else(|| self.signals.asked_to_end().now_or_never())
    }
}

/// The signals that end us while somebody else has the terminal: Ctrl-C, TERM, and a terminal that is closed.
#[derive(Debug)]
pub(super) struct Ends {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Ends {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub(super) fn catch() -> Result<Self, Stop> {
        Ok(Self {
            interrupt: handler(SignalKind::interrupt())?,
            terminate: handler(SignalKind::terminate())?,
            hangup: handler(SignalKind::hangup())?,
        })
    }

    /// The next one, as an exit code.
    pub(super) async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
            _ = self.hangup.recv() => Exit::Terminated,
        }
    }
}

/// Stops the process as Ctrl-Z does; the handler replaced what the signal does by itself.
pub(super) fn suspend() {
    // It cannot fail: the signal exists.
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
}

/// Takes one signal instead of what it does by itself.
///
/// # Errors
/// When the system does not allow it.
pub(super) fn handler(kind: SignalKind) -> Result<Signal, Stop> {
    signal(kind)
        .map_err(|e| Fault::new(reason::OUTPUT_FAILED, Exit::World, format!("cannot handle signals: {e}")).into())
}
