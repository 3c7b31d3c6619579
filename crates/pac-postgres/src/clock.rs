//! Times of the server's clock: milliseconds in a `bigint`.

use std::time::Duration;

use pac_core::Timestamp;
use pac_core::state::Moment;

/// The server replaces this number by the time of the commit.
pub(crate) const AT_COMMIT: i64 = i64::MIN;

/// A moment as a commit carries it.
pub(crate) fn written(moment: Moment) -> Option<i64> {
    let at = moment.at().map_or(AT_COMMIT, Timestamp::as_unix_millis);
    (moment != Moment::NEVER).then_some(at)
}

/// A moment as it is stored.
pub(crate) fn stored(millis: Option<i64>) -> Moment {
    millis.map_or(Moment::NEVER, |millis| {
        Moment::of(Timestamp::from_unix_millis(millis))
    })
}

/// A length of time for the server. Rounded up: no TTL is shorter than it was asked for.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_and_lengths_are_not_cut_short() {
        let at = Moment::of(Timestamp::from_unix_millis(5));
        assert_eq!(stored(written(at)), at);
        assert_eq!(stored(written(Moment::NEVER)), Moment::NEVER);
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::from_millis(15)), 15);
        assert!(millis(Duration::MAX).checked_add(i64::MAX / 2).is_some());
    }
}
