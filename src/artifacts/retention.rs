//! Which stored containers are too old, or too many.
//!
//! [`super::sweep`] asks it. **Invariant:** pure; the clock is an argument.

use super::store::Kept;
use crate::api::artifact::Place;
use std::{collections::HashMap, time::Duration};

/// How long, and how many, containers are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Older ones go; `None`: they stay.
    pub max_age: Option<Duration>,
    /// So many of a Pipeline stay, the newest; `None`: all.
    pub max_count: Option<usize>,
}

/// The containers that are not kept any more, `now_s` seconds after the epoch.
#[must_use]
pub fn expired(kept: &[Kept], now_s: i64, retention: Retention) -> Vec<Place> {
    let max_age_s = retention.max_age.map(|age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
    let mut newest_first: Vec<&Kept> = kept.iter().collect();
    newest_first.sort_by(|a, b| (b.made_s, &b.place).cmp(&(a.made_s, &a.place)));
    let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
    let mut expired = Vec::new();
    for one in newest_first {
        let count = counts.entry((&one.place.namespace, &one.place.group)).or_default();
        *count += 1;
        let is_old = max_age_s.is_some_and(|max| now_s.saturating_sub(one.made_s) > max);
        if is_old || retention.max_count.is_some_and(|max| *count > max) {
            expired.push(one.place.clone());
        }
    }
    expired
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const DAY: i64 = 24 * 3600;

    /// Of two Pipelines of one name in two namespaces, a day apart each.
    fn kept() -> Vec<Kept> {
        let one = |place: &str, made_s| Kept { place: Place::parse(place).unwrap(), made_s };
        vec![
            one("a/app/2", 2 * DAY),
            one("a/app/1", DAY),
            one("a/app/3", 3 * DAY),
            one("a/web/1", DAY),
            one("b/app/1", DAY),
        ]
    }

    #[rstest]
    #[case::all_stay(None, None, &[])]
    #[case::a_day_is_not_over(Some(3), None, &[])]
    #[case::by_age(Some(2), None, &["a/app/1", "a/web/1", "b/app/1"])]
    #[case::by_count(None, Some(2), &["a/app/1"])]
    #[case::the_newest_stays(None, Some(1), &["a/app/1", "a/app/2"])]
    #[case::both(Some(2), Some(1), &["a/app/1", "a/app/2", "a/web/1", "b/app/1"])]
    fn retention(#[case] days: Option<u64>, #[case] max_count: Option<usize>, #[case] gone: &[&str]) {
        let max_age = days.map(|days| Duration::from_secs(days * 24 * 3600));
        let mut found: Vec<String> =
            expired(&kept(), 4 * DAY, Retention { max_age, max_count }).iter().map(ToString::to_string).collect();
        found.sort();
        assert_eq!(found, gone);
    }
}
