//! How often, how many at once and how long: the limits of a client, pauses
//! between tries, and what a server says about when to come back.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The pause before the second try is at most this; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// No pause of our own is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The limits of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Questions under way at once.
    pub max_concurrency: usize,
    /// Tries that begin in a minute, where that is limited.
    pub requests_per_minute: Option<f64>,
    /// From the beginning of a try to the last byte of its answer.
    pub timeout: Duration,
    /// For the connection alone.
    pub connect_timeout: Duration,
    /// Tries of one question.
    pub max_attempts: u32,
}

/// The pause after so many failed tries: any length up to a bound that doubles
/// ("full jitter"), so that what failed together does not come back together.
/// `share` is the draw, in 0..1.
pub fn pause(tries: u32, share: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(tries.saturating_sub(1)));
    doubled.min(LONGEST_PAUSE).mul_f64(share)
}

/// A number in 0..1. It decides pauses only, never a result.
pub(crate) fn draw() -> f64 {
    (RandomState::new().build_hasher().finish() >> 11) as f64 / (1u64 << 53) as f64
}

/// Whether a host is this machine; a proxy has no business there.
pub(crate) fn is_here(host: &str) -> bool {
    matches!(host, "localhost" | "[::1]") || host.starts_with("127.")
}

/// What the headers `retry-after-ms` and `retry-after` ask for: milliseconds,
/// seconds, or a date, which needs the time now in seconds since 1970.
pub fn retry_after(milliseconds: Option<&str>, seconds_or_date: Option<&str>, now: u64) -> Option<Duration> {
    let seconds = |text: &str, per_second: f64| {
        let number: f64 = text.trim().parse().ok()?;
        Duration::try_from_secs_f64(number.max(0.0) / per_second).ok()
    };
    let date = |text: &str| Some(Duration::from_secs(http_date(text)?.saturating_sub(now)));
    let exact = milliseconds.and_then(|text| seconds(text, 1000.0));
    exact.or_else(|| seconds_or_date.and_then(|text| seconds(text, 1.0).or_else(|| date(text))))
}

/// Seconds since 1970 of a date as HTTP writes it today: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let rest = text.trim().split_once(", ")?.1.strip_suffix(" GMT")?;
    let words: Vec<&str> = rest.split([' ', ':']).collect();
    let [day, month, year, hour, minute, second] = words.as_slice() else { return None };
    let number = |word: &str| word.parse::<u64>().ok();
    let month = MONTHS.iter().position(|known| known == month)? as u64;
    let (day, year) = (number(day)?, number(year)?);
    let (hour, minute, second) = (number(hour)?, number(minute)?, number(second)?);
    let sound = (1..=31).contains(&day) && (1970..=9999).contains(&year) && hour < 24 && minute < 60 && second < 61;
    // Days since 1970 of a date in the Gregorian calendar, with years that begin in March.
    let (year, month) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    sound.then(|| days.checked_sub(719_468).map(|days| ((days * 24 + hour) * 60 + minute) * 60 + second)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_are_drawn_from_the_whole_range() {
        assert_eq!(pause(1, 1.0), Duration::from_millis(500));
        assert_eq!(pause(4, 1.0), Duration::from_secs(4));
        assert_eq!(pause(40, 1.0), Duration::from_secs(60));
        assert_eq!(pause(3, 0.25), Duration::from_millis(500));
        assert_eq!(pause(9, 0.0), Duration::ZERO);
    }

    #[test]
    fn servers_say_when_to_come_back_in_three_ways() {
        let seconds = |text| retry_after(None, Some(text), 784_111_770);
        assert_eq!(seconds("7"), Some(Duration::from_secs(7)));
        assert_eq!(seconds("1.5"), Some(Duration::from_millis(1500)));
        // The example of RFC 9110 is 784111777 in Unix time.
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(7)));
        assert_eq!(seconds("Thu, 01 Jan 1970 00:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds("Sun, 06 Foo 1994 08:49:37 GMT"), None);
        assert_eq!(seconds("nan"), Some(Duration::ZERO));
        assert_eq!(seconds("1e300"), None);
        assert_eq!(retry_after(Some("250"), Some("9"), 0), Some(Duration::from_millis(250)));
        assert_eq!(http_date("Thu, 29 Feb 2024 12:00:00 GMT"), Some(1_709_208_000));
    }
}
