//! Times and durations as text.

#[cfg(test)]
mod fuzz;

use std::time::Duration;

use pac_concurrency::Timestamp;

/// The first and last moment that a trace may contain; others are typing errors.
const FIRST: &str = "1970-01-01T00:00:00Z";
const LAST: &str = "2999-12-31T23:59:59.999Z";

/// Parses an RFC 3339 date and time with any offset; truncates to milliseconds.
pub(crate) fn parse_rfc3339(text: &str) -> Result<Timestamp, String> {
    let refused = |why: &str| {
        let shown: String = text.chars().take(60).collect();
        Err(format!(
            "must be an RFC 3339 date and time such as \"2026-06-01T14:47:16.250Z\", not \
             {shown:?}{why}"
        ))
    };
    let Some(plain) = with_milliseconds(text) else {
        return refused("");
    };
    match plain.parse::<jiff::Timestamp>() {
        Ok(time) if in_range(time) => Ok(Timestamp::from_unix_millis(time.as_millisecond())),
        Ok(_) => refused(" (years 1970 to 2999)"),
        Err(error) => refused(&format!(" ({error})")),
    }
}

/// The time of this machine, which may differ from the store's.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_unix_millis(jiff::Timestamp::now().as_millisecond())
}

/// RFC 3339 in UTC with exactly three decimals of a second.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    time.to_string()
}

/// The longest duration of an argument: a leap year. Nothing that a command waits for takes so
/// long; a longer one is a typing error.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Parses a duration given as an argument: `30s`, `500ms`, `1h30m`; at most a year.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    // jiff's grammar also allows calendar units and signs.
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
    text.parse::<jiff::SignedDuration>()
        .ok()
        .filter(|_| plain && !text.starts_with(['P', 'p']))
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| (Duration::from_millis(1)..=LONGEST).contains(duration))
        .ok_or("must be a duration from 1ms to 8784h (a year), such as 30s, 500ms or 1h30m")
}

/// Converts to jiff's type. Times beyond its range become its limits.
pub(crate) fn to_jiff(time: Timestamp) -> jiff::Timestamp {
    let millis = time.as_unix_millis();
    jiff::Timestamp::from_millisecond(millis).unwrap_or(if millis < 0 {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    })
}

/// Formats a duration for people, in its two largest units: `850ms`, `12.3s`, `1m 23s`, `2h 5m`,
/// `3d 4h`.
/// `3d 4h`.
pub(crate) fn humanise(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let millis = duration.subsec_millis();
    match (seconds, millis) {
        (0, 0) => "0s".to_owned(),
        (0, _) => format!("{millis}ms"),
        (..60, _) => format!("{seconds}.{}s", millis / 100),
        (..3_600, _) => format!("{}m {}s", seconds / 60, seconds % 60),
        (..86_400, _) => format!("{}h {}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// `text` truncated to three decimals, if it has the shape of RFC 3339. jiff checks the calendar
/// afterwards; its parser accepts more shapes than the RFC.
fn with_milliseconds(text: &str) -> Option<String> {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00";
    let (head, tail) = text.split_at_checked(SHAPE.len())?;
    let shaped = head.bytes().zip(SHAPE).all(|(byte, shape)| match shape {
        b'0' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't' | b' '),
        separator => byte == *separator,
    });
    let (decimals, offset) = match tail.strip_prefix('.') {
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            let (decimals, offset) = rest.split_at(end);
            (Some(decimals).filter(|d| !d.is_empty())?, offset)
        }
        None => ("0", tail),
    };
    let decimals = decimals.get(..3).unwrap_or(decimals);
    (shaped && is_offset(offset)).then(|| format!("{head}.{decimals}{offset}"))
}

fn is_offset(text: &str) -> bool {
    match text.as_bytes() {
        b"Z" | b"z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()),
        _ => false,
    }
}

fn in_range(time: jiff::Timestamp) -> bool {
    let bound = |text: &str| text.parse::<jiff::Timestamp>();
    matches!((bound(FIRST), bound(LAST)), (Ok(first), Ok(last)) if (first..=last).contains(&time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        rfc3339(parse_rfc3339(text).unwrap())
    }

    #[test]
    fn any_offset_is_taken_and_utc_given_back() {
        for (text, utc) in [
            ("2026-06-01T14:47:16Z", "2026-06-01T14:47:16.000Z"),
            ("2026-06-01t14:47:16.25z", "2026-06-01T14:47:16.250Z"),
            (
                "2026-06-01 14:47:16.1239999999999+02:00",
                "2026-06-01T12:47:16.123Z",
            ),
            ("2026-06-01T00:00:00-05:30", "2026-06-01T05:30:00.000Z"),
            ("2026-06-01T14:47:16-00:00", "2026-06-01T14:47:16.000Z"),
            ("2024-02-29T23:59:59.999Z", "2024-02-29T23:59:59.999Z"),
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(parsed(text), utc);
        }
    }

    #[test]
    fn what_is_not_rfc_3339_is_refused() {
        for text in [
            "",
            "now",
            "2026-06-01",
            "2026-06-01T14:47",
            "2026-06-01T14:47:16",
            "20260601T144716Z",
            "2026-06-01T14:47:16.Z",
            "2026-06-01T14:47:16,5Z",
            "2026-06-01T14:47:16+02",
            "2026-06-01T14:47:16+02:00[Europe/Berlin]",
            "2026-02-30T14:47:16Z",
            "2026-06-01T25:00:00Z",
            "2026-06-01T14:47:16+99:99",
            "0226-06-01T14:47:16Z",
            "9999-06-01T14:47:16Z",
            "2026-06-01T14:47:1é6Z",
            "-026-06-01T14:47:16Z",
            "1780325236",
        ] {
            let message = parse_rfc3339(text).unwrap_err();
            assert!(message.contains("RFC 3339"), "{text}: {message}");
        }
    }

    #[test]
    fn durations_of_arguments_have_units() {
        for (text, millis) in [
            ("30s", 30_000),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            "30",
            "0s",
            "1ns",
            "-5s",
            "5s ago",
            "PT5S",
            "1 day",
            "soon",
            "8785h",
            "99999999999999999999h",
        ] {
            let refused = parse_duration(text).unwrap_err();
            assert!(refused.contains("from 1ms to 8784h"), "{text}: {refused}");
        }
    }

    #[test]
    fn no_time_is_beyond_printing() {
        for millis in [i64::MIN, i64::MAX] {
            assert!(rfc3339(Timestamp::from_unix_millis(millis)).ends_with('Z'));
        }
    }

    #[test]
    fn durations_are_shown_in_their_two_largest_units() {
        for (millis, text) in [
            (0, "0s"),
            (850, "850ms"),
            (12_345, "12.3s"),
            (59_999, "59.9s"),
            (60_000, "1m 0s"),
            (83_000, "1m 23s"),
            (7_500_000, "2h 5m"),
            (273_600_000, "3d 4h"),
        ] {
            assert_eq!(humanise(Duration::from_millis(millis)), text);
        }
    }
}
