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

            /// The number after this. Saturates: 2⁶⁴ steps are out of reach.
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

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl From<SystemTime> for Timestamp {
    /// Rounds down to whole milliseconds; a time before 1970 becomes 1970.
    fn from(time: SystemTime) -> Self {
        Self(millis(time.duration_since(UNIX_EPOCH).unwrap_or_default()))
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
}
