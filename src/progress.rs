//! How far a transfer is: the words that people read, and the bar that is drawn of them.
//!
//! `agent` and `local` put the words into a run's status, which has nothing but words; `client` draws the bar.
//!
//! **Invariant:** pure; what [`share`] says, [`Share::read`] understands.

/// Characters of a bar.
const BAR: usize = 28;

/// Millions, with one digit after the point: `12.5`.
pub(crate) fn mega(bytes: u64) -> String {
    tenths(bytes / 100_000)
}

fn tenths(count: u64) -> String {
    format!("{}.{}", count / 10, count % 10)
}

/// `12.5 of 142.0 MB`.
pub(crate) fn share(done: u64, total: u64) -> String {
    format!("{} of {} MB", mega(done), mega(total))
}

/// `[==============>             ]`.
pub(crate) fn bar(percent: u64) -> String {
    let filled = usize::try_from(percent).unwrap_or(100).min(100) * BAR / 100;
    let head = if filled < BAR { ">" } else { "" };
    format!("[{:<BAR$}]", format!("{}{head}", "=".repeat(filled)))
}

/// What words say of a transfer; all in tenths of a megabyte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    done: u64,
    total: u64,
    /// In a second.
    rate: Option<u64>,
}

impl Share {
    /// Finds `12.5 of 142.0 MB` in a text, and `6.2 MB/s` if it is there.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let (done, total) = words.windows(4).find_map(|four| match four {
            [done, "of", total, "MB"] => Some((number(done)?, number(total)?)),
            _ => None,
        })?;
        let rate = words.windows(2).find_map(|two| match two {
            [rate, "MB/s"] => number(rate),
            _ => None,
        });
        (total > 0 && done <= total).then_some(Self { done, total, rate })
    }

    /// `[=====>     ]  43%  61.2/142.0 MB  28.4 MB/s  eta 3s`.
    pub(crate) fn line(&self) -> String {
        let Self { done, total, rate } = *self;
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
        let speed = rate.map(|rate| format!("  {} MB/s", tenths(rate))).unwrap_or_default();
        let eta = rate.and_then(|rate| (total - done).checked_div(rate));
        let eta = eta.map(|seconds| format!("  eta {seconds}s")).unwrap_or_default();
        format!("{}  {percent:>3}%  {}/{} MB{speed}{eta}", bar(percent), tenths(done), tenths(total))
    }
}

/// A number with one digit after the point, in tenths.
fn number(text: &str) -> Option<u64> {
    let (whole, tenth) = text.split_once('.')?;
    let whole: u64 = whole.parse().ok()?;
    let tenth: u64 = tenth.parse().ok().filter(|_| tenth.len() == 1)?;
    whole.checked_mul(10)?.checked_add(tenth)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case::a_push(
        "pushing: 3 of 8 layers, 61.2 of 142.0 MB sent, 28.4 MB/s",
        Some("[============>               ]   43%  61.2/142.0 MB  28.4 MB/s  eta 2s")
    )]
    #[case::a_pull(
        "pulling debian:12: 0 of 1 layers, 0.0 of 48.5 MB",
        Some("[>                           ]    0%  0.0/48.5 MB")
    )]
    #[case::it_stands_still(
        "pushing: 3 of 8 layers, 61.2 of 142.0 MB sent, 0.0 MB/s",
        Some("[============>               ]   43%  61.2/142.0 MB  0.0 MB/s")
    )]
    #[case::how_much_comes_is_not_known("pushing: 3 of 8 layers, 12.5 MB sent, 6.2 MB/s", None)]
    #[case::nothing("0.0 of 0.0 MB", None)]
    #[case::more_than_all("2.0 of 1.0 MB", None)]
    #[case::another_text("committing the box", None)]
    fn lines(#[case] words: &str, #[case] expected: Option<&str>) {
        assert_eq!(Share::read(words).map(|share| share.line()).as_deref(), expected);
    }

    proptest! {
        #[test]
        fn what_is_said_is_understood(total in 100_000..u64::MAX / 20, part in 0..=100_u64) {
            let done = total / 100 * part;
            let found = Share::read(&format!("a: {}, 1 of 2 layers", share(done, total)));
            prop_assert_eq!(found, Some(Share { done: done / 100_000, total: total / 100_000, rate: None }));
        }
    }
}
