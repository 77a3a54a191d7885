//! How far a pull is, in one line for people.
//!
//! **Invariant:** pure: the time is an argument. The line is cut to the terminal by who shows it.

use crate::progress::{bar, mega};
use std::time::Duration;

/// What is fetched.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    /// `hello-7 stored container`.
    pub title: String,
    /// Bytes in all.
    pub total: u64,
    /// Bytes that were there before.
    pub resumed: u64,
    /// Bytes that are there now.
    pub done: u64,
}

impl Meter {
    /// The line, `elapsed` after the beginning; with a bar or without.
    #[must_use]
    pub(super) fn line(&self, elapsed: Duration, with_bar: bool) -> String {
        let percent = self.done.saturating_mul(100).checked_div(self.total).unwrap_or(100);
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = self.done.saturating_sub(self.resumed).saturating_mul(1000) / millis;
        let left = self.total.saturating_sub(self.done);
        let eta = left.checked_div(rate).map(|seconds| format!("  eta {seconds}s")).unwrap_or_default();
        let resumed = match self.resumed {
            0 => String::new(),
            bytes => format!("   (resumed at {} MB)", mega(bytes)),
        };
        let bar = if with_bar { format!("  {}", bar(percent)) } else { String::new() };
        let (done, total) = (mega(self.done), mega(self.total));
        format!("{}{bar}  {percent:>3}%  {done}/{total} MB  {} MB/s{eta}{resumed}", self.title, mega(rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(
        109_800_000,
        20_000_000,
        true,
        "hello-7 stored container  [==============>             ]   51%  109.8/214.3 MB  29.9 MB/s  eta 3s   (resumed at 20.0 MB)"
    )]
    #[case(0, 0, true, "hello-7 stored container  [>                           ]    0%  0.0/214.3 MB  0.0 MB/s")]
    #[case(214_300_000, 0, false, "hello-7 stored container  100%  214.3/214.3 MB  71.4 MB/s  eta 0s")]
    fn lines(#[case] done: u64, #[case] resumed: u64, #[case] bar: bool, #[case] expected: &str) {
        let meter = Meter { title: "hello-7 stored container".into(), total: 214_300_000, resumed, done };
        assert_eq!(meter.line(Duration::from_secs(3), bar), expected);
    }

    #[test]
    fn nothing_to_fetch() {
        let meter = Meter { title: "x".into(), total: 0, resumed: 0, done: 0 };
        assert!(meter.line(Duration::ZERO, true).contains("100%"));
    }
}
