//! Signals as something to poll for. Called by the loops of the supervisor and of terminals.
//!
//! **Invariant:** what is read here reaches nobody by itself.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};

/// Those that say that a child ended, or that it is time to go.
pub(super) const OF_A_LOOP: [Signal; 5] =
    [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// Signals that are read instead of delivered.
pub(super) struct Signals(SignalFd);

impl Signals {
    /// Blocks these for this process.
    pub(super) fn block(signals: &[Signal]) -> nix::Result<Self> {
        let mut mask = SigSet::empty();
        for signal in signals {
            mask.add(*signal);
        }
        mask.thread_block()?;
        SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self)
    }

    /// The next that came, if one did.
    pub(super) fn read(&self) -> Option<Signal> {
        let info = self.0.read_signal().ok().flatten()?;
        Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
