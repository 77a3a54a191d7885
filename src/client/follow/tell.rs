//! Following, towards the screen: events with their times, and the frames of a live footer.
//!
//! **Invariant:** a live footer is painted no more often than every [`FRAME`]; times never go back.

use super::Follow;
use crate::client::{
    event::{At, Event},
    fault::Stop,
    feed::Feed,
    render::Text,
    style::{self, Mode},
    view::millis_between,
};
use jiff::Timestamp;
use std::time::{Duration, Instant};

/// A live footer is repainted no more often.
const FRAME: Duration = Duration::from_millis(95);
/// Pieces of text after which a frame is not waited for.
const MOST_PENDING: usize = 4096;

impl<F: Feed> Follow<'_, F> {
    /// Tells what the tracker has to tell by now.
    pub(super) fn advance(&mut self) -> Result<(), Stop> {
        let now_ms = self.now_ms();
        let mut texts: Vec<Text> = Vec::new();
        for (ms, event) in self.tracker.advance(now_ms) {
            let mut at = self.at(ms, now_ms);
            // The first times count from the creation, until the status says when the run began.
            at.run_ms = at.run_ms.max(self.told_run_ms);
            self.told_run_ms = at.run_ms;
            texts.extend(self.renderer.event(at, &event));
        }
        self.paint(texts)
    }

    /// Tells what happens now.
    pub(super) fn tell(&mut self, events: &[Event]) -> Result<(), Stop> {
        let at = self.now();
        let texts: Vec<Text> = events.iter().flat_map(|event| self.renderer.event(at, event)).collect();
        self.paint(texts)
    }

    /// Puts texts on the screen, with the footer; a live one waits for its frame.
    pub(super) fn paint(&mut self, texts: Vec<Text>) -> Result<(), Stop> {
        self.pending.extend(texts);
        let live = self.screen.look().mode == Mode::Live;
        let recent = self.framed.is_some_and(|at| at.elapsed() < FRAME);
        if live && recent && self.pending.len() < MOST_PENDING {
            return Ok(());
        }
        self.framed = Some(Instant::now());
        let texts = std::mem::take(&mut self.pending);
        let footer = if live {
            // Two columns stay free: the terminal writes ^C where the cursor is.
            let width = style::columns().unwrap_or(80).saturating_sub(3);
            self.renderer.footer(self.now(), width)
        } else {
            Vec::new()
        };
        Ok(self.screen.show(&texts, footer)?)
    }

    /// Milliseconds since `origin`, by the clock of the cluster.
    pub(super) fn now_ms(&self) -> u64 {
        let elapsed_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        millis_between(self.origin, self.began_at).unwrap_or_default().saturating_add(elapsed_ms)
    }

    /// Now, as renderers show it.
    pub(super) fn now(&self) -> At {
        let now_ms = self.now_ms();
        self.at(now_ms, now_ms)
    }

    /// A time of the tracker, as renderers show it.
    pub(super) fn at(&self, ms: u64, now_ms: u64) -> At {
        let since_origin = jiff::SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX));
        let wall = self.origin.checked_add(since_origin).unwrap_or(self.origin);
        At { run_ms: self.tracker.run_ms(ms), now_ms: self.tracker.run_ms(now_ms), wall }
    }
}

/// The cluster's time when ours is `ours` and the cluster says that it made something, and took so long to say it.
/// The two clocks are taken to agree if they can: times of objects are whole seconds.
pub(super) fn cluster_time(ours: Timestamp, made: Option<(Timestamp, Duration)>) -> Timestamp {
    match made {
        Some((made, took)) => ours.max(made).min(made.checked_add(took + Duration::from_secs(1)).unwrap_or(made)),
        None => ours,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_wrong_is_set_by_the_answer() {
        let time = |text: &str| text.parse::<Timestamp>().expect("a time");
        let made = Some((time("2026-11-21T13:03:07Z"), Duration::from_millis(200)));
        for (ours, cluster) in [
            ("2026-11-21T13:03:07.9Z", "2026-11-21T13:03:07.9Z"),
            ("2026-11-21T13:03:02Z", "2026-11-21T13:03:07Z"),
            ("2026-11-21T14:03:02Z", "2026-11-21T13:03:08.2Z"),
        ] {
            assert_eq!(cluster_time(time(ours), made), time(cluster), "{ours}");
        }
        assert_eq!(cluster_time(time("2026-11-21T14:03:02Z"), None), time("2026-11-21T14:03:02Z"));
    }
}
