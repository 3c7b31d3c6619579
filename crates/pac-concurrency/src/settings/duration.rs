//! Durations as Go writes them: the syntax of the settings.
//!
//! Follows `time.ParseDuration` of Go's standard library (`src/time/format.go`) digit for digit.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

/// Nanoseconds of the units; a spelling comes before any other that it starts with.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    // U+00B5, micro sign, and U+03BC, the Greek letter.
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 60 * 60 * 1_000_000_000),
];

/// The magnitude of the lowest `int64`: one more than that of the highest.
const LIMIT: u64 = 1 << 63;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DurationError {
    Invalid,
    /// With the rest of the text.
    MissingUnit(String),
    UnknownUnit(String),
    TooLong,
    Negative,
}

impl DurationError {
    /// The broken rule, as the end of a sentence; borrowed if it repeats nothing of the text.
    pub(super) fn rule(self) -> Cow<'static, str> {
        match self {
            Self::Invalid => "is no duration; write one such as 30s, 1h30m or 500ms".into(),
            Self::MissingUnit(rest) => {
                format!("has no unit; write one such as {rest}s, {rest}m or {rest}h").into()
            }
            Self::UnknownUnit(unit) => {
                format!("has the unknown unit {unit:?}; use h, m, s, ms, us or ns").into()
            }
            Self::TooLong => "is longer than a duration can be (about 292 years)".into(),
            Self::Negative => "is negative".into(),
        }
    }
}

/// Parses a duration that is not negative.
pub(super) fn parse(text: &str) -> Result<Duration, DurationError> {
    let nanoseconds = parse_go(text)?;
    u64::try_from(nanoseconds)
        .map(Duration::from_nanos)
        .map_err(|_| DurationError::Negative)
}

/// The shortest text for the duration: `1h30m`, `1.5s`, `500ms`.
pub(super) fn format(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        let nanoseconds = duration.subsec_nanos();
        return match nanoseconds {
            0 => "0s".to_owned(),
            n if n % 1_000_000 == 0 => format!("{}ms", n / 1_000_000),
            n if n % 1_000 == 0 => format!("{}us", n / 1_000),
            n => format!("{n}ns"),
        };
    }
    let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
    let mut text = String::new();
    for (count, unit) in [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm')] {
        if count > 0 {
            let _ = write!(text, "{count}{unit}");
        }
    }
    match (seconds % 60, nanoseconds) {
        (0, 0) => {}
        (seconds, 0) => drop(write!(text, "{seconds}s")),
        (seconds, nanoseconds) => {
            let fraction = format!("{nanoseconds:09}");
            let _ = write!(text, "{seconds}.{}s", fraction.trim_end_matches('0'));
        }
    }
    text
}

/// `time.ParseDuration`; returns nanoseconds.
fn parse_go(text: &str) -> Result<i64, DurationError> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if unsigned == "0" {
        return Ok(0);
    }
    if unsigned.is_empty() {
        return Err(DurationError::Invalid);
    }
    let mut rest = unsigned;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (nanoseconds, after) = term(rest)?;
        total = total
            .checked_add(nanoseconds)
            .filter(|total| *total <= LIMIT)
            .ok_or(DurationError::TooLong)?;
        rest = after;
    }
    match (i64::try_from(total), negative) {
        (Ok(total), false) => Ok(total),
        (Ok(total), true) => Ok(-total),
        (Err(_), true) => Ok(i64::MIN),
        (Err(_), false) => Err(DurationError::TooLong),
    }
}

/// Parses one number with its unit. Returns its nanoseconds and the rest of the text.
fn term(text: &str) -> Result<(u64, &str), DurationError> {
    let (whole, rest) = split(text, |c| c.is_ascii_digit());
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => split(rest, |c| c.is_ascii_digit()),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Invalid);
    }
    let (unit, after) = split(rest, |c| c != '.' && !c.is_ascii_digit());
    if unit.is_empty() {
        return Err(DurationError::MissingUnit(text.to_owned()));
    }
    let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(DurationError::UnknownUnit(unit.to_owned()));
    };
    let whole = match whole {
        "" => 0,
        digits => digits.parse().map_err(|_| DurationError::TooLong)?,
    };
    let nanoseconds = scale
        .checked_mul(whole)
        .and_then(|total| total.checked_add(part(fraction, *scale)))
        .filter(|total| *total <= LIMIT)
        .ok_or(DurationError::TooLong)?;
    Ok((nanoseconds, after))
}

/// Converts the digits after the point to nanoseconds; smaller fractions are cut off.
///
/// Go calculates with a float: `fraction * (scale / 10^digits)`. This code gives the same bits.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the result is below `scale`, and Go's rounding is what is asked for"
)]
fn part(digits: &str, scale: u64) -> u64 {
    let (mut fraction, mut divisor) = (0_u64, 1_f64);
    for digit in digits.bytes().map(|byte| u64::from(byte - b'0')) {
        match fraction.checked_mul(10).and_then(|f| f.checked_add(digit)) {
            Some(more) if more < LIMIT => fraction = more,
            // As in Go: further digits do not matter.
            _ => break,
        }
        divisor *= 10.0;
    }
    (fraction as f64 * (scale as f64 / divisor)) as u64
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !belongs(c)).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const MINUTE: i64 = 60 * SECOND;
    const HOUR: i64 = 60 * MINUTE;

    /// The cases of Go's `TestParseDuration`.
    #[test]
    fn what_go_parses_means_the_same() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("5s", 5 * SECOND),
            ("30s", 30 * SECOND),
            ("1478s", 1478 * SECOND),
            ("-5s", -5 * SECOND),
            ("+5s", 5 * SECOND),
            ("-0", 0),
            ("+0", 0),
            ("5.0s", 5 * SECOND),
            ("5.6s", 5 * SECOND + 600_000_000),
            ("5.s", 5 * SECOND),
            (".5s", 500_000_000),
            ("1.0s", SECOND),
            ("1.00s", SECOND),
            ("1.004s", SECOND + 4_000_000),
            ("1.0040s", SECOND + 4_000_000),
            ("100.00100s", 100 * SECOND + 1_000_000),
            ("10ns", 10),
            ("11us", 11_000),
            ("12µs", 12_000),
            ("12μs", 12_000),
            ("13ms", 13_000_000),
            ("14s", 14 * SECOND),
            ("15m", 15 * MINUTE),
            ("16h", 16 * HOUR),
            ("3h30m", 3 * HOUR + 30 * MINUTE),
            ("10.5s4m", 4 * MINUTE + 10 * SECOND + 500_000_000),
            ("-2m3.4s", -(2 * MINUTE + 3 * SECOND + 400_000_000)),
            (
                "1h2m3s4ms5us6ns",
                HOUR + 2 * MINUTE + 3 * SECOND + 4_005_006,
            ),
            (
                "39h9m14.425s",
                39 * HOUR + 9 * MINUTE + 14 * SECOND + 425_000_000,
            ),
            ("52763797000ns", 52_763_797_000),
            ("0.3333333333333333333h", 20 * MINUTE),
            ("9007199254740993ns", (1 << 53) + 1),
            ("9223372036854775807ns", i64::MAX),
            ("9223372036854775.807us", i64::MAX),
            ("9223372036s854ms775us807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("-9223372036854775.808us", i64::MIN),
            ("-9223372036s854ms775us808ns", i64::MIN),
            ("-2562047h47m16.854775808s", i64::MIN),
            ("0.100000000000000000000h", 6 * MINUTE),
            (
                "0.830103483285477580700h",
                49 * MINUTE + 48 * SECOND + 372_539_827,
            ),
        ] {
            assert_eq!(parse_go(text), Ok(nanoseconds), "{text}");
        }
    }

    /// The cases of Go's `TestParseDurationErrors`.
    #[test]
    fn what_go_refuses_is_refused_and_the_error_is_named() {
        use DurationError::{Invalid, MissingUnit, TooLong, UnknownUnit};
        let missing = |text: &str| MissingUnit(text.to_owned());
        let unknown = |unit: &str| UnknownUnit(unit.to_owned());
        for (text, error) in [
            ("", Invalid),
            ("3", missing("3")),
            ("-", Invalid),
            ("s", Invalid),
            (".", Invalid),
            ("-.", Invalid),
            (".s", Invalid),
            ("+.s", Invalid),
            ("1d", unknown("d")),
            ("1M", unknown("M")),
            ("30 s", unknown(" s")),
            (" 30s", Invalid),
            ("1h30", missing("30")),
            ("\u{85}\u{85}", Invalid),
            ("\u{fffd}\u{fffd}", Invalid),
            ("9223372036854775810ns", TooLong),
            ("9223372036854775808ns", TooLong),
            ("-9223372036854775809ns", TooLong),
            ("9223372036854776us", TooLong),
            ("3000000h", TooLong),
            ("9223372036854775.808us", TooLong),
            ("9223372036854ms775us808ns", TooLong),
        ] {
            assert_eq!(parse_go(text), Err(error), "{text}");
        }
        assert_eq!(parse("-1s"), Err(DurationError::Negative));
    }

    #[test]
    fn what_is_printed_means_the_same() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1100ns"),
            (15_000, "15us"),
            (500_000_000, "500ms"),
            (3_300_000_000, "3.3s"),
            (245_000_000_000, "4m5s"),
            (245_001_000_000, "4m5.001s"),
            (3_600_000_000_000, "1h"),
            (5_400_000_000_000, "1h30m"),
            (3_605_000_000_000, "1h5s"),
            (480_000_000_001, "8m0.000000001s"),
        ] {
            let duration = Duration::from_nanos(nanoseconds);
            assert_eq!(format(duration), text);
            assert_eq!(parse(text), Ok(duration), "{text}");
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic() {
        let pieces = [
            "9",
            "0",
            ".",
            "h",
            "ms",
            "µ",
            "-",
            "+",
            "😀",
            "18446744073709551616",
        ];
        for a in pieces {
            for b in pieces {
                for c in pieces {
                    for d in pieces {
                        let _ = parse(&format!("{a}{b}{c}{d}"));
                    }
                }
            }
        }
    }
}
