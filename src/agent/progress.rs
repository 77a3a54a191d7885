//! How far a push is, in words for people.
//!
//! `transport` asks for them once a second while the engine pushes; `follow` puts them into the status, and
//! `windlass run` shows them.
//!
//! **Invariant:** pure: the time is an argument.

use crate::{
    progress::{mega, share},
    registry::Progress,
};
use std::time::Duration;

/// Over how long the rate is taken: short enough to show that a push has come to a halt.
const WINDOW: Duration = Duration::from_secs(5);

/// Measures the rate of a push.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    /// Time since the beginning and bytes sent, at the beginning of the window and in the middle of it.
    marks: [(Duration, u64); 2],
}

impl Gauge {
    /// `pushing: 3 of 8 layers, 12.5 MB sent, 4.1 MB/s`, or why the registry is being tried again; `elapsed` is the time since the push began.
    pub(super) fn words(&mut self, elapsed: Duration, progress: &Progress) -> String {
        if let Some(why) = &progress.away {
            return why.clone();
        }
        let done = progress.layers_there + progress.layers_sent;
        let total = done + progress.layers_left;
        let sent = match progress.bytes_total {
            Some(total) if total > progress.bytes_done => {
                format!("{} sent", share(progress.bytes_done, total))
            }
            Some(_) | None => format!("{} MB sent", mega(progress.bytes_done)),
        };
        let rate = self.rate(elapsed, progress.bytes_done);
        format!("pushing: {done} of {total} layers, {sent}, {} MB/s", mega(rate))
    }

    /// Bytes in a second.
    fn rate(&mut self, elapsed: Duration, bytes: u64) -> u64 {
        let [(since, before), (middle, _)] = self.marks;
        if elapsed.saturating_sub(middle) >= WINDOW / 2 {
            self.marks.rotate_left(1);
            self.marks[1] = (elapsed, bytes);
        }
        let millis = u64::try_from(elapsed.saturating_sub(since).as_millis()).unwrap_or(u64::MAX);
        bytes.saturating_sub(before).saturating_mul(1000).checked_div(millis).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn progress(bytes_done: u64, bytes_total: Option<u64>) -> Progress {
        Progress { layers_there: 2, layers_sent: 1, layers_left: 5, bytes_done, bytes_total, away: None }
    }

    #[rstest]
    #[case::how_much_comes_is_not_known(12_560_000, None, "pushing: 3 of 8 layers, 12.5 MB sent, 6.2 MB/s")]
    #[case::it_is_known(12_560_000, Some(142_000_000), "pushing: 3 of 8 layers, 12.5 of 142.0 MB sent, 6.2 MB/s")]
    #[case::only_a_part_is_known(12_560_000, Some(1), "pushing: 3 of 8 layers, 12.5 MB sent, 6.2 MB/s")]
    #[case::nothing_was_sent(0, None, "pushing: 3 of 8 layers, 0.0 MB sent, 0.0 MB/s")]
    fn words(#[case] done: u64, #[case] total: Option<u64>, #[case] expected: &str) {
        assert_eq!(Gauge::default().words(Duration::from_secs(2), &progress(done, total)), expected);
    }

    #[test]
    fn a_registry_that_is_away_is_what_the_push_is_at() {
        let away = "r.example cannot be reached: its name does not resolve; trying again";
        let progress = Progress { away: Some(away.into()), ..progress(0, None) };
        assert_eq!(Gauge::default().words(Duration::from_secs(2), &progress), away);
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut gauge = Gauge::default();
        // Ten seconds at 4 MB/s, then none at all.
        let rates: Vec<u64> = (0..20).map(|s| gauge.rate(Duration::from_secs(s), s.min(10) * 4_000_000)).collect();
        assert_eq!(rates[1..=10], [4_000_000; 10]);
        assert!(rates[11] < 4_000_000, "{rates:?}");
        assert_eq!(rates[16..], [0; 4], "{rates:?}");
    }
}
