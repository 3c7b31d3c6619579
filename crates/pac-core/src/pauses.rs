//! Pauses between attempts at something that fails for a while, the same way for drivers and
//! managers.

use std::fmt;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

/// Pauses that double from one to the next, up to the longest. To each a part of itself is added by
/// chance, so that processes which have lost the same server, or against one another, do not all
/// come back at the same moment.
pub struct Pauses {
    growth: ExponentialBuilder,
    pauses: ExponentialBackoff,
    longest: Duration,
}

impl Pauses {
    /// Pauses of `first`, then of twice that, and so on up to `longest`; each longer by less than
    /// itself, so that none is as long as twice `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        let growth = ExponentialBuilder::new()
            .with_min_delay(first.min(longest))
            .with_max_delay(longest)
            .with_jitter()
            .without_max_times();
        Self {
            growth,
            pauses: growth.build(),
            longest,
        }
    }

    /// The next pause.
    pub fn grow(&mut self) -> Duration {
        self.pauses.next().unwrap_or(self.longest)
    }

    /// An attempt succeeded: the next pause is the first one again.
    pub fn reset(&mut self) {
        self.pauses = self.growth.build();
    }
}

impl fmt::Debug for Pauses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Pauses");
        shown.field("longest", &self.longest);
        shown.finish_non_exhaustive()
    }
}

/// Lets something be done at most once in a while, such as a line in the log that would come with
/// each request otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Seldom {
    between: Duration,
    last: Option<Instant>,
}

impl Seldom {
    /// Of which one is followed by the next after so long at the earliest.
    #[must_use]
    pub const fn every(between: Duration) -> Self {
        Self {
            between,
            last: None,
        }
    }

    /// Whether it was not done lately. Then it counts as done now.
    pub fn is_due(&mut self) -> bool {
        let is_due = self.last.is_none_or(|last| last.elapsed() >= self.between);
        if is_due {
            self.last = Some(Instant::now());
        }
        is_due
    }
}

/// An interval that is up to a fifth longer or shorter by chance, so that processes which were
/// started together do not all come at the same moment.
#[must_use]
pub fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.8 + 0.4 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_seldom_is_due_at_first_and_then_once_in_a_while() {
        let mut seldom = Seldom::every(Duration::from_secs(60));
        assert!(seldom.is_due());
        for _ in 0..59 {
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(!seldom.is_due());
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(seldom.is_due() && !seldom.is_due());
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew() {
        let milliseconds = Duration::from_millis;
        let mut pauses = Pauses::new(milliseconds(50), milliseconds(300));
        for round in 0..2 {
            for plain in [50, 100, 200, 300, 300, 300] {
                let pause = pauses.grow();
                let drawn = milliseconds(plain)..milliseconds(plain * 2);
                assert!(drawn.contains(&pause), "{pause:?} in round {round}");
            }
            pauses.reset();
        }
    }

    #[test]
    fn intervals_differ_by_chance() {
        let second = Duration::from_secs(1);
        let drawn: Vec<_> = (0..20).map(|_| jittered(second)).collect();
        assert!(drawn.iter().any(|interval| *interval != drawn[0]));
        let mut longest = Pauses::new(second * 9, second);
        assert!(longest.grow() < second * 2);
    }
}
