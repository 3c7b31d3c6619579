//! The numbers of the protocol, each a type of its own so that one cannot be used for another.

use std::fmt;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The number of runs of a repository that may hold a slot at once.
///
/// 0 means "no limit", as an absent `spec.concurrency_limit` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Limit(Option<NonZeroU32>);

impl Limit {
    /// No limit: every run starts at once, but still counts.
    pub const UNLIMITED: Self = Self(None);

    /// At most `runs` at once; 0 is [`Limit::UNLIMITED`].
    #[must_use]
    pub const fn new(runs: u32) -> Self {
        Self(NonZeroU32::new(runs))
    }

    /// The number of runs, or `None` without a limit.
    #[must_use]
    pub fn get(self) -> Option<u32> {
        self.0.map(NonZeroU32::get)
    }

    /// Whether one more run may start while `running` do.
    #[must_use]
    pub fn admits(self, running: u32) -> bool {
        self.0.is_none_or(|limit| running < limit.get())
    }

    /// Whether `more` slots are left while `taken` are taken.
    #[must_use]
    pub fn admits_all(self, taken: u32, more: u32) -> bool {
        let left = |limit: NonZeroU32| limit.get().saturating_sub(taken) >= more;
        self.0.is_none_or(left)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(limit) => limit.fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// The urgency of a run: higher starts first; 0 is the default. Runs of equal priority start in
/// order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Priority(i32);

impl Priority {
    /// A priority; every `i32` is one.
    #[must_use]
    pub const fn new(priority: i32) -> Self {
        Self(priority)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The largest ticket, fencing token or revision that a store may hold: 2⁶², half of what its signed
/// numbers of 64 bits can. Counting a thousand million a second comes there after 146 years, so a
/// larger one was never counted: its record was damaged, or written by another program.
pub const MAX_COUNTER: u64 = 1 << 62;

/// The largest number from which repositories count on after a removal: 2⁶¹. A repository that is
/// created then has as many numbers again before it comes to [`MAX_COUNTER`], whatever was stored
/// for the one that was removed.
pub const MAX_FLOOR: u64 = 1 << 61;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u64);

        impl $name {
            /// From its number.
            #[must_use]
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The number after this. That of a state which was read exists, because a state with
            /// counters above [`MAX_COUNTER`] is refused; else it saturates at the end of 64 bits.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// A place in the order of arrival, assigned by the commit that queues the run.
    Ticket
}

counter! {
    /// Strictly increases with every grant of a repository, so that a guarded resource can
    /// refuse a holder that has been replaced (Kleppmann, "How to do distributed locking").
    FencingToken
}

counter! {
    /// The version of a repository's state. Strictly increases with every commit to it, even
    /// after the repository was removed. Comparable only within one repository.
    Revision
}

/// Tells two commits of the same revision apart, after a store went back in time: the driver makes
/// a new one with every commit. Says nothing of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Stamp(u64);

impl Stamp {
    /// From its number. 0 is the stamp of what was never committed.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Names one state of a repository: the revision alone does not, since a store that is restored
/// from an older copy counts the same revisions once more.
///
/// Has no order of its own: of two versions with different revisions, the later one may belong to
/// another history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Version {
    /// The revision of the commit that made the state.
    pub revision: Revision,
    /// The stamp of that commit.
    pub stamp: Stamp,
}

impl Version {
    /// From both parts.
    #[must_use]
    pub const fn new(revision: Revision, stamp: Stamp) -> Self {
        Self { revision, stamp }
    }

    /// Whether a store that was at `known` and is at this version now has gone back in time: this
    /// revision is a lower one, or the same one of another commit.
    #[must_use]
    pub fn is_rewound_from(self, known: Self) -> bool {
        self.revision < known.revision
            || (self.revision == known.revision && self.stamp != known.stamp)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.revision, self.stamp)
    }
}

counter! {
    /// The version of an announced limit, such as the Repository's `resourceVersion`. The
    /// announcement with the highest version is in force.
    LimitVersion
}

counter! {
    /// The number of a session, which is one process at the store. A store never gives a number
    /// out twice.
    SessionId
}

/// A point in time by the store's clock, in milliseconds since the Unix epoch.
///
/// Shows itself as RFC 3339 in UTC with milliseconds: `2026-06-01T14:47:16.250Z`. Years before 0
/// and after 9999, which RFC 3339 does not have, get the sign that ISO 8601 asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_unix_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_unix_millis(self) -> i64 {
        self.0
    }

    /// The time from `earlier` to this moment; zero when `earlier` is later, as it can be
    /// after a store's clock was set back.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let millis = self.0.saturating_sub(earlier.0);
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    /// This moment plus `duration`, in whole milliseconds; saturates.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This moment minus `duration`, in whole milliseconds; saturates.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, of_day) = (self.0.div_euclid(DAY), self.0.rem_euclid(DAY));
        let (year, month, day) = civil(days);
        match year {
            0..=9999 => write!(f, "{year:04}")?,
            _ => write!(f, "{year:+05}")?,
        }
        let (seconds, millis) = (of_day / 1_000, of_day % 1_000);
        let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(
            f,
            "-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z"
        )
    }
}

/// The milliseconds of a day: UTC as Unix counts it has no leap seconds.
const DAY: i64 = 24 * 60 * 60 * 1_000;

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar, also
/// before it was introduced: `civil_from_days` of Howard Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms", <https://howardhinnant.github.io/date_algorithms.html>. Its years begin in
/// March, so that the day that leap years have more is the last.
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_IN_400_YEARS: i64 = 146_097;
    let since_march_of_year_0 = days + 719_468;
    let era = since_march_of_year_0.div_euclid(DAYS_IN_400_YEARS);
    let day_of_era = since_march_of_year_0.rem_euclid(DAYS_IN_400_YEARS);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let is_next_year = month_from_march >= 10;
    let month = month_from_march + if is_next_year { -9 } else { 3 };
    (
        year_of_era + era * 400 + i64::from(is_next_year),
        month,
        day,
    )
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl From<SystemTime> for Timestamp {
    /// Rounds down to whole milliseconds; a time before 1970 becomes 1970.
    fn from(time: SystemTime) -> Self {
        Self(millis(time.duration_since(UNIX_EPOCH).unwrap_or_default()))
    }
}

impl From<Timestamp> for SystemTime {
    /// The same moment. One before 1601 or after 9999, which not every system can represent,
    /// becomes the first or the last millisecond of those years.
    fn from(time: Timestamp) -> Self {
        /// 1601-01-01, where the time of Windows begins, and the end of 9999.
        const RANGE: (i64, i64) = (-11_644_473_600_000, 253_402_300_799_999);
        let millis = time.0.clamp(RANGE.0, RANGE.1);
        let distance = Duration::from_millis(millis.unsigned_abs());
        let moment = if millis < 0 {
            UNIX_EPOCH.checked_sub(distance)
        } else {
            UNIX_EPOCH.checked_add(distance)
        };
        moment.unwrap_or(UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_limit_and_the_largest_limit_counts() {
        assert_eq!(Limit::new(0), Limit::UNLIMITED);
        assert!(Limit::UNLIMITED.admits(u32::MAX));
        assert!(Limit::new(1).admits(0) && !Limit::new(1).admits(1));
        assert!(Limit::new(u32::MAX).admits(u32::MAX - 1));
        assert!(!Limit::new(u32::MAX).admits(u32::MAX));
        assert_eq!(Limit::UNLIMITED.to_string(), "none");
    }

    #[test]
    fn durations_between_timestamps_never_go_below_zero() {
        let (early, late) = (
            Timestamp::from_unix_millis(5),
            Timestamp::from_unix_millis(9),
        );
        assert_eq!(late.since(early), Duration::from_millis(4));
        assert_eq!(early.since(late), Duration::ZERO);
        let last = Timestamp::from_unix_millis(i64::MAX);
        assert_eq!(last.plus(Duration::MAX), last);
        assert_eq!(late.minus(Duration::from_millis(4)), early);
    }

    #[test]
    fn a_timestamp_shows_itself_as_a_date_and_time_in_utc() {
        for (millis, shown) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            // A century without a leap day.
            (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (1_780_325_236_250, "2026-06-01T14:47:16.250Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000, "+10000-01-01T00:00:00.000Z"),
            (-62_167_219_200_000, "0000-01-01T00:00:00.000Z"),
            (-62_167_219_200_001, "-0001-12-31T23:59:59.999Z"),
            (i64::MAX, "+292278994-08-17T07:12:55.807Z"),
            (i64::MIN, "-292275055-05-16T16:47:04.192Z"),
        ] {
            assert_eq!(Timestamp::from_unix_millis(millis).to_string(), shown);
        }
    }

    #[test]
    fn days_follow_one_another_for_eight_centuries() {
        let mut before = civil(-365 * 400);
        for days in (-365 * 400 + 1)..(365 * 400) {
            let (year, month, day) = civil(days);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match before.1 {
                4 | 6 | 9 | 11 => 30,
                2 if leap => 29,
                2 => 28,
                _ => 31,
            };
            let next = match before {
                (year, 12, 31) => (year + 1, 1, 1),
                (year, month, day) if day == last => (year, month + 1, 1),
                (year, month, day) => (year, month, day + 1),
            };
            assert_eq!((year, month, day), next);
            before = next;
        }
    }

    #[test]
    fn a_timestamp_and_the_time_of_the_system_are_the_same_moment() {
        for millis in [0, 1, 1_780_325_236_250] {
            let time = Timestamp::from_unix_millis(millis);
            assert_eq!(Timestamp::from(SystemTime::from(time)), time);
        }
        let before = SystemTime::from(Timestamp::from_unix_millis(-5));
        let distance = UNIX_EPOCH.duration_since(before).unwrap();
        assert_eq!(distance, Duration::from_millis(5));
        for (millis, nearest) in [
            (i64::MIN, "1601-01-01T00:00:00.000Z"),
            (i64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            let time = SystemTime::from(Timestamp::from_unix_millis(millis));
            let millis = match time.duration_since(UNIX_EPOCH) {
                Ok(after) => super::millis(after),
                Err(before) => -super::millis(before.duration()),
            };
            assert_eq!(Timestamp::from_unix_millis(millis).to_string(), nearest);
        }
    }
}
