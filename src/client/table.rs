//! Tables, ages and times for people.
//!
//! `list` and `status` use it. **Invariant:** pure; names are never cut.

use jiff::{Timestamp, tz::TimeZone};

/// Rows as columns with two spaces between; nothing is padded at the end of a line.
#[must_use]
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let mut widths = widths(rows);
    rows.iter().map(|row| line(row, &mut widths)).collect()
}

/// How wide the columns of these rows are.
#[must_use]
pub(super) fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| rows.iter().filter_map(|row| row.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
    (0..count).map(width).collect()
}

/// A row below others; a cell that is wider than its column widens it.
#[must_use]
pub(super) fn line(row: &[String], widths: &mut [usize]) -> String {
    let cell = |(cell, width): (&String, &mut usize)| {
        *width = cell.chars().count().max(*width);
        format!("{cell:<width$}", width = *width)
    };
    format!("{}\n", row.iter().zip(widths).map(cell).collect::<Vec<_>>().join("  ").trim_end())
}

/// An age as kubectl prints it: `24s`, `3m`, `3m5s` below ten minutes, `2h`, `4d`.
#[must_use]
pub(super) fn age(seconds: u64) -> String {
    let (m, h, d) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let with = |big: u64, unit: char, small: u64, small_unit: char| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => with(m, 'm', seconds % 60, 's'),
        600..10_800 => format!("{m}m"),
        10_800..28_800 => with(h, 'h', m % 60, 'm'),
        28_800..172_800 => format!("{h}h"),
        172_800..691_200 => with(d, 'd', h % 24, 'h'),
        _ => format!("{d}d"),
    }
}

/// A time of today as `14:03:07`, of another day with its date.
#[must_use]
pub(super) fn clock(time: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let (time, now) = (time.to_zoned(zone.clone()), now.to_zoned(zone.clone()));
    let form = if time.date() == now.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S %:z" };
    time.strftime(form).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_those_of_kubectl() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (185, "3m5s"),
            (600, "10m"),
            (7_200, "120m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (86_400, "24h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (900_000, "10d"),
        ] {
            assert_eq!(age(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn columns_line_up_without_trailing_space() {
        let rows = [
            vec!["NAME".into(), "AGE".into()],
            vec!["a-long-one".into(), "3m".into()],
            vec!["x".into(), String::new()],
        ];
        assert_eq!(columns(&rows), "NAME        AGE\na-long-one  3m\nx\n");
    }

    #[test]
    fn another_day_is_named() {
        let now = "2026-11-21T13:10:00Z".parse().unwrap();
        let at = |text: &str| clock(text.parse().unwrap(), now, &TimeZone::UTC);
        assert_eq!(at("2026-11-21T13:03:07Z"), "13:03:07");
        assert_eq!(at("2026-11-20T13:03:07Z"), "2026-11-20 13:03:07 +00:00");
    }
}
