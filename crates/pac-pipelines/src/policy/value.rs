//! The values of annotations.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use pac_core::protocol::Supersedes;

/// The longest time that an annotation can say: a year.
const LONGEST: u64 = 365 * 24 * 60 * 60;

/// A number without blanks, leading zeros or a sign that says nothing.
pub(super) fn whole_number<N: FromStr + ToString>(text: &str) -> Option<N> {
    let number: N = text.parse().ok()?;
    Some(number).filter(|number| number.to_string() == text)
}

/// A time such as `90s`, `15m` or `2h`, from a second to a year.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        _ => return None,
    };
    let seconds = whole_number::<u64>(number)?.checked_mul(unit)?;
    let is_within = (1..=LONGEST).contains(&seconds);
    is_within.then(|| Duration::from_secs(seconds))
}

/// `none`, `waiting` or `all`.
pub(super) fn supersedes(text: &str) -> Option<Supersedes> {
    match text {
        "none" => Some(Supersedes::None),
        "waiting" => Some(Supersedes::Waiting),
        "all" => Some(Supersedes::All),
        _ => None,
    }
}

/// `strict`, or `backfill:K`.
pub(super) fn order(text: &str) -> Option<Option<NonZeroU32>> {
    if text == "strict" {
        return Some(None);
    }
    let most = text.strip_prefix("backfill:")?;
    NonZeroU32::new(whole_number(most)?).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        for (text, seconds) in [("1s", 1), ("90s", 90), ("15m", 900), ("8760h", LONGEST)] {
            assert_eq!(duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for bad in [
            "",
            "s",
            "5",
            "0s",
            "05m",
            "-1s",
            "1.5h",
            "1d",
            "8761h",
            "1h30m",
            "1 s",
            "5ä",
            "99999999999999999999h",
            "9999999999999999h",
        ] {
            assert_eq!(duration(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_order_is_strict_or_says_how_many_may_pass() {
        assert_eq!(order("strict"), Some(None));
        assert_eq!(order("backfill:3"), Some(NonZeroU32::new(3)));
        for bad in [
            "",
            "backfill",
            "backfill:",
            "backfill:0",
            "backfill:+1",
            "fifo",
        ] {
            assert_eq!(order(bad), None, "{bad:?}");
        }
    }
}
