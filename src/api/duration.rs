//! Durations as users write them: `90s`, `5m`, `1h30m`.
//!
//! **Invariant:** parsing is total and bounded; an absurd value is an error, never an overflow.

use std::time::Duration;

/// Parses hours, minutes and seconds in this order, each at most once: `90s`, `5m`, `1h30m`.
///
/// # Errors
/// A fragment that says what a duration looks like.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 90s, 5m or 1h30m");
    let mut rest = text;
    let mut total_s: u64 = 0;
    for (unit, seconds) in [('h', 3600), ('m', 60), ('s', 1)] {
        let Some(end) = rest.find(unit) else { continue };
        let (number, tail) = rest.split_at(end);
        if number.is_empty() || number.len() > 7 || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        total_s += number.parse::<u64>().map_err(|_| wrong())? * seconds;
        rest = tail.get(1..).unwrap_or_default();
    }
    if text.is_empty() || !rest.is_empty() {
        return Err(wrong());
    }
    Ok(Duration::from_secs(total_s))
}

/// Prints a duration for people: `0.4s`, `12.3s`, `3m05s`, `1h02m`.
#[must_use]
pub fn human(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0..60 => format!("{:.1}s", duration.as_secs_f64()),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        _ => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
    }
}

/// Reads what [`human`] printed.
#[must_use]
pub fn from_human(text: &str) -> Option<Duration> {
    let Some((whole, tenth)) = text.strip_suffix('s').and_then(|t| t.split_once('.')) else {
        return parse(text).ok();
    };
    let digits = |t: &str| !t.is_empty() && t.len() <= 7 && t.bytes().all(|b| b.is_ascii_digit());
    let seconds: u64 = whole.parse().ok().filter(|_| digits(whole))?;
    let tenths: u64 = tenth.parse().ok().filter(|_| digits(tenth) && tenth.len() == 1)?;
    Some(Duration::from_millis(seconds * 1_000 + tenths * 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_the_documents_show() {
        for (text, seconds) in [("90s", 90), ("5m", 300), ("1h30m", 5400), ("168h", 604_800), ("0s", 0), ("1h1s", 3601)]
        {
            assert_eq!(parse(text).map(|d| d.as_secs()), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["", "5", "m", "-5m", "1e9s", "1 h", "1m1h", "99999999s", "1d", "1.5h", "5mm"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prints_for_people() {
        for (ms, text) in [(400, "0.4s"), (12_300, "12.3s"), (185_000, "3m05s"), (3_720_000, "1h02m")] {
            assert_eq!(human(Duration::from_millis(ms)), text);
            assert_eq!(from_human(text), Some(Duration::from_millis(ms)));
        }
        for text in ["", "s", ".5s", "1.s", "1.25s", "-1.0s", "1.0", "soon"] {
            assert_eq!(from_human(text), None, "{text}");
        }
    }
}
