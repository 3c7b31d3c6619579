//! Counts running runs independently of the manager, and compares their number with the limit.

use pac_concurrency::{Limit, Timestamp};

use super::record::{RepositoryRecord, Violation};

/// The independent counter of one repository.
/// For a correct count, call [`ended`](Self::ended) before the slot is given back and
/// [`started`](Self::started) after it was granted.
/// [`started`](Self::started) after it was granted.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    announced: Vec<(Timestamp, Limit)>,
    running: u32,
    peak_running: u32,
    starts: u64,
    exceeded: Vec<Violation>,
}

impl Watchdog {
    /// Records that `limit` is in force from `at` on. Call it in the order of time.
    pub(crate) fn announce(&mut self, at: Timestamp, limit: Limit) {
        self.announced.push((at, limit));
    }

    /// Records a start: its slot was granted at `granted_at`, and its owner saw that at
    /// `observed_at`.
    ///
    /// The start is compared with the most permissive limit in force at any time between the
    /// two, so that a start granted before the limit was lowered causes no false alarm.
    pub(crate) fn started(&mut self, granted_at: Timestamp, observed_at: Timestamp) {
        self.running = self.running.saturating_add(1);
        self.peak_running = self.peak_running.max(self.running);
        self.starts += 1;
        if let Some(limit) = self.most_permissive(granted_at, observed_at).get()
            && self.running > limit
        {
            self.exceeded.push(Violation {
                at: granted_at,
                running: self.running,
                limit,
            });
        }
    }

    /// Records that a running run ended.
    pub(crate) fn ended(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// Adds the counts to the repository's record.
    pub(crate) fn report(self, record: &mut RepositoryRecord) {
        record.limit_changes = self.announced;
        record.peak_running = self.peak_running;
        record.starts_checked = self.starts;
        record.exceeded = self.exceeded;
    }

    fn most_permissive(&self, from: Timestamp, to: Timestamp) -> Limit {
        let to = to.max(from);
        // The limit in force before `from` counts too, even if another was announced in the same
        // millisecond: the order of the two is unknown.
        let before = self.announced.partition_point(|(at, _)| *at < from);
        self.announced
            .iter()
            .skip(before.saturating_sub(1))
            .take_while(|(at, _)| *at <= to)
            .map(|(_, limit)| *limit)
            .max_by_key(|limit| limit.get().unwrap_or(u32::MAX))
            .unwrap_or(Limit::UNLIMITED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_millis(millis)
    }

    fn start(watchdog: &mut Watchdog, millis: i64) {
        watchdog.started(at(millis), at(millis));
    }

    #[test]
    fn a_start_above_the_limit_is_caught() {
        let mut watchdog = Watchdog::default();
        watchdog.announce(at(0), Limit::new(2));
        start(&mut watchdog, 1);
        start(&mut watchdog, 2);
        assert_eq!(watchdog.exceeded, []);
        start(&mut watchdog, 3);
        let violation = Violation {
            at: at(3),
            running: 3,
            limit: 2,
        };
        assert_eq!(watchdog.exceeded, [violation]);
        assert_eq!((watchdog.peak_running, watchdog.starts), (3, 3));
    }

    #[test]
    fn an_ended_run_makes_room() {
        let mut watchdog = Watchdog::default();
        watchdog.announce(at(0), Limit::new(1));
        for millis in 1..100 {
            start(&mut watchdog, millis);
            watchdog.ended();
        }
        assert_eq!(watchdog.exceeded, []);
        assert_eq!((watchdog.peak_running, watchdog.starts), (1, 99));
    }

    #[test]
    fn lowering_evicts_nobody_but_later_starts_are_held_to_it() {
        let mut watchdog = Watchdog::default();
        watchdog.announce(at(0), Limit::new(3));
        (1..=3).for_each(|millis| start(&mut watchdog, millis));
        watchdog.announce(at(10), Limit::new(1));
        watchdog.ended();
        watchdog.ended();
        assert_eq!(watchdog.exceeded, []);
        start(&mut watchdog, 20);
        assert_eq!(watchdog.exceeded.len(), 1);
        assert_eq!(watchdog.exceeded[0].limit, 1);
    }

    #[test]
    fn a_start_granted_before_a_lowering_and_seen_after_it_is_no_false_alarm() {
        let mut watchdog = Watchdog::default();
        watchdog.announce(at(0), Limit::new(2));
        watchdog.announce(at(10), Limit::new(1));
        start(&mut watchdog, 5);
        watchdog.started(at(9), at(30));
        assert_eq!(watchdog.exceeded, []);
        // Granted in the same millisecond in which the limit was lowered: possibly before that.
        watchdog.ended();
        watchdog.started(at(10), at(30));
        assert_eq!(watchdog.exceeded, []);
        watchdog.ended();
        watchdog.started(at(11), at(30));
        assert_eq!(watchdog.exceeded.len(), 1);
    }

    #[test]
    fn a_raise_seen_between_grant_and_observation_counts() {
        let mut watchdog = Watchdog::default();
        watchdog.announce(at(0), Limit::new(1));
        watchdog.announce(at(10), Limit::UNLIMITED);
        start(&mut watchdog, 1);
        watchdog.started(at(5), at(10));
        assert_eq!(watchdog.exceeded, []);
        watchdog.started(at(5), at(9));
        assert_eq!(watchdog.exceeded.len(), 1);
    }

    #[test]
    fn without_an_announcement_there_is_no_limit() {
        let mut watchdog = Watchdog::default();
        (0..100).for_each(|millis| start(&mut watchdog, millis));
        assert_eq!((watchdog.exceeded.len(), watchdog.peak_running), (0, 100));
    }
}
