//! The simulation's clock: tokio's paused time, counted from a fixed date.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::cell::Cell;
use tokio::time::Instant;

thread_local! {
    // A plan has its thread for itself, as it runs on a runtime of one thread.
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Starts the clock of a plan.
pub(super) fn start() {
    BEGAN.set(Some(Instant::now()));
}

/// Time since [`start`].
pub(super) fn elapsed() -> SignedDuration {
    let began = BEGAN.get().expect("the clock was started");
    began.elapsed().try_into().unwrap()
}

/// The date and time, for `controller::Context`.
pub(super) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + elapsed()
}
