//! Pauses between tries: longer each time, as long as the registry asks, and not for ever.
//!
//! **Invariant:** only what may pass is tried again, and the tries of one call end within the limits of [`Patience`].

use super::{client::Patience, error::PushError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Longest `Retry-After` that is waited for.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// Pauses between the tries of one call.
pub(super) struct Retries<'a> {
    patience: Patience,
    stop: &'a CancellationToken,
    begun: Instant,
    pause: Duration,
}

impl<'a> Retries<'a> {
    pub(super) fn new(patience: Patience, stop: &'a CancellationToken) -> Self {
        Self { patience, stop, begun: Instant::now(), pause: patience.first_pause }
    }

    /// Waits for the next try, or gives the error back if there is none.
    pub(super) async fn pause(&mut self, error: PushError) -> Result<(), PushError> {
        let patience = self.patience;
        let limit = if error.unconnected { patience.unreachable_for } else { patience.retry_for };
        // Between half of the pause and all of it, so that pushes that failed together do not return together.
        let own = self.pause.mul_f64(rand::random_range(0.5..=1.0));
        let asked = error.retry_after.unwrap_or_default();
        let pause = own.max(asked);
        if !error.transient || error.anew || asked > MAX_PAUSE || self.begun.elapsed() + pause > limit {
            return Err(error);
        }
        tracing::debug!(%error, ?pause, "trying again");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.stop.cancelled() => return Err(PushError::stopped()),
        }
        self.pause = (self.pause * 2).min(patience.first_pause * 30);
        Ok(())
    }
}

/// Reads `Retry-After`: seconds, or a date.
pub(super) fn pause_of(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    Some(at.duration_since(jiff::Timestamp::now()).try_into().unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after() {
        assert_eq!(pause_of("7"), Some(Duration::from_secs(7)));
        assert_eq!(pause_of("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let future = pause_of("Fri, 01 Jan 2100 00:00:00 GMT").unwrap();
        assert!(future > Duration::from_secs(3600), "{future:?}");
        for bad in ["", "soon", "-1"] {
            assert_eq!(pause_of(bad), None, "{bad}");
        }
    }
}
