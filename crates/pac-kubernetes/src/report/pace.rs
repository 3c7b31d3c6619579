//! What is written next about which object. Pure: the newest value wins, and each object is written
//! at most once in an interval.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use pac_core::Uid;
use tokio::time::Instant;

/// How often a write that fails is tried in a row.
const ATTEMPTS: u32 = 3;

/// How long a write waits at most that is tried until it is made: its wait is doubled with every
/// failure.
const LONGEST_WAIT: Duration = Duration::from_secs(10 * 60);

/// The values that are wanted on objects, and those that were written.
#[derive(Debug)]
pub(super) struct Pace<K, V> {
    interval: Duration,
    /// How often a write that fails is tried in a row; `None`: until it is made.
    attempts: Option<u32>,
    rows: HashMap<K, Row<V>>,
    due: BTreeSet<(Instant, K)>,
}

#[derive(Debug)]
struct Row<V> {
    uid: Uid,
    /// `None`: what was written is to go.
    wanted: Option<V>,
    /// What the object bears, as far as is known.
    written: Option<V>,
    last: Option<Instant>,
    due: Option<Instant>,
    attempts: u32,
    is_under_way: bool,
    /// When the last write ended, however it did.
    ended: Option<Instant>,
    /// After the last write, what was written was still what is wanted.
    is_confirmed: bool,
}

/// A write that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write<K, V> {
    pub(super) key: K,
    pub(super) uid: Uid,
    /// `None`: what was written is to go.
    pub(super) value: Option<V>,
}

impl<K: Clone + Ord + Hash, V: Clone + PartialEq> Pace<K, V> {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            attempts: Some(ATTEMPTS),
            rows: HashMap::new(),
            due: BTreeSet::new(),
        }
    }

    /// The same, and a write that fails is tried until it is made.
    pub(super) fn without_giving_up(mut self) -> Self {
        self.attempts = None;
        self
    }

    /// An object is to bear a value. `shown` is what it bears, asked for once.
    pub(super) fn wants(
        &mut self,
        key: &K,
        uid: &Uid,
        value: V,
        shown: impl FnOnce() -> Option<V>,
        now: Instant,
    ) {
        self.row(key, uid, shown).wanted = Some(value);
        self.plan(key, now);
    }

    /// An object is to bear nothing, at once. `shown` is what it bears.
    pub(super) fn clears(&mut self, key: &K, uid: &Uid, shown: Option<V>, now: Instant) {
        if !self.rows.contains_key(key) && shown.is_none() {
            return;
        }
        // It may have been written by another controller, or a moment ago.
        let row = self.row(key, uid, || shown);
        row.wanted = None;
        row.last = None;
        self.plan(key, now);
    }

    /// Another controller writes this value from now on. Where this one has written another value
    /// last, and that was not [confirmed](Self::confirm), it may have come after the other
    /// controller's: then this one writes the value, too.
    pub(super) fn yields(&mut self, key: &K, uid: &Uid, value: V, now: Instant) {
        let may_have_come_last = self.rows.get(key).is_some_and(|row| {
            let differs = row.written.as_ref().is_some_and(|was| *was != value);
            let has_written = row.is_under_way || row.attempts > 0 || differs;
            row.uid == *uid && has_written && !row.is_confirmed
        });
        if may_have_come_last {
            self.wants(key, uid, value, || None, now);
        } else {
            self.forget(key);
        }
    }

    /// Everything that is wanted was found to be so at this time or later. What was written before
    /// and is still wanted has not come too late.
    pub(super) fn confirm(&mut self, at: Instant) {
        for row in self.rows.values_mut() {
            let had_ended = row.ended.is_some_and(|ended| ended <= at);
            row.is_confirmed |= had_ended && !row.is_under_way && row.wanted == row.written;
        }
    }

    /// When the next write is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Takes a write that is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<Write<K, V>> {
        self.due.first().filter(|(due, _)| *due <= now)?;
        let (_, key) = self.due.pop_first()?;
        let row = self.rows.get_mut(&key)?;
        (row.due, row.last, row.is_under_way) = (None, Some(now), true);
        row.is_confirmed = false;
        Some(Write {
            value: row.wanted.clone(),
            uid: row.uid.clone(),
            key,
        })
    }

    /// What became of a write: it was made, or not.
    pub(super) fn wrote(&mut self, write: &Write<K, V>, made: bool, now: Instant) {
        let Some(row) = self.rows.get_mut(&write.key) else {
            return;
        };
        if row.uid != write.uid {
            return;
        }
        row.is_under_way = false;
        row.ended = Some(now);
        if made {
            (row.written, row.attempts) = (write.value.clone(), 0);
        } else {
            row.attempts = row.attempts.saturating_add(1);
            if self.attempts.is_some_and(|most| row.attempts >= most) {
                // Given up, until another value is wanted.
                (row.written, row.attempts) = (row.wanted.clone(), 0);
            }
        }
        self.plan(&write.key, now);
    }

    /// This object is not written any more, by this controller.
    pub(super) fn forget(&mut self, key: &K) {
        if let Some(due) = self.rows.remove(key).and_then(|row| row.due) {
            self.due.remove(&(due, key.clone()));
        }
    }

    /// The row of an object, anew if it was about another one of the same name.
    fn row(&mut self, key: &K, uid: &Uid, shown: impl FnOnce() -> Option<V>) -> &mut Row<V> {
        if self.rows.get(key).is_some_and(|row| row.uid != *uid) {
            self.forget(key);
        }
        self.rows.entry(key.clone()).or_insert_with(|| Row {
            uid: uid.clone(),
            wanted: None,
            written: shown(),
            last: None,
            due: None,
            attempts: 0,
            is_under_way: false,
            ended: None,
            is_confirmed: false,
        })
    }

    /// Has an object written if what is wanted differs from what is there; forgets one that is to
    /// bear nothing and bears nothing.
    fn plan(&mut self, key: &K, now: Instant) {
        let Some(row) = self.rows.get_mut(key) else {
            return;
        };
        if let Some(due) = row.due.take() {
            self.due.remove(&(due, key.clone()));
        }
        if row.is_under_way {
            return;
        }
        if row.wanted == row.written {
            if row.wanted.is_none() {
                self.rows.remove(key);
            }
            return;
        }
        let wait = match self.attempts {
            Some(_) => self.interval,
            None => {
                let doubled = self.interval.saturating_mul(1 << row.attempts.min(16));
                doubled.min(LONGEST_WAIT.max(self.interval))
            }
        };
        let due = row.last.map_or(now, |last| now.max(last + wait));
        row.due = Some(due);
        self.due.insert((due, key.clone()));
    }
}

#[cfg(test)]
mod tests {
    use pac_core::PipelineRunKey;

    use super::*;

    type Positions = Pace<PipelineRunKey, usize>;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn key(name: &str) -> PipelineRunKey {
        PipelineRunKey::new("ci", name).unwrap()
    }

    fn uid() -> Uid {
        "u".parse().unwrap()
    }

    fn waits(pace: &mut Positions, run: &str, position: usize) {
        pace.wants(&key(run), &uid(), position, || None, Instant::now());
    }

    fn take(pace: &mut Positions) -> Option<(String, Option<usize>)> {
        let write = pace.take(Instant::now())?;
        pace.wrote(&write, true, Instant::now());
        Some((write.key.name().to_owned(), write.value))
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_position_is_written_once_in_an_interval() {
        let mut pace = Pace::new(INTERVAL);
        waits(&mut pace, "a", 5);
        waits(&mut pace, "a", 4);
        assert_eq!(take(&mut pace), Some(("a".to_owned(), Some(4))));
        waits(&mut pace, "a", 4);
        assert_eq!(pace.next_due(), None, "nothing has changed");
        waits(&mut pace, "a", 3);
        waits(&mut pace, "a", 2);
        assert_eq!(take(&mut pace), None);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(take(&mut pace), Some(("a".to_owned(), Some(2))));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_waits_no_more_is_cleared_at_once_and_forgotten() {
        let mut pace = Pace::new(INTERVAL);
        waits(&mut pace, "a", 1);
        assert!(take(&mut pace).is_some());
        pace.clears(&key("a"), &uid(), None, Instant::now());
        assert_eq!(take(&mut pace), Some(("a".to_owned(), None)));
        assert!(pace.rows.is_empty() && pace.due.is_empty());
        // One that another controller wrote; one that bears nothing.
        pace.clears(&key("b"), &uid(), Some(7), Instant::now());
        pace.clears(&key("c"), &uid(), None, Instant::now());
        assert_eq!(take(&mut pace), Some(("b".to_owned(), None)));
        assert_eq!(take(&mut pace), None);
        // One that was never written.
        waits(&mut pace, "d", 1);
        pace.clears(&key("d"), &uid(), None, Instant::now());
        assert!(pace.rows.is_empty() && pace.due.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_already_is_not_written() {
        let mut pace = Pace::new(INTERVAL);
        pace.wants(&key("a"), &uid(), 3, || Some(3), Instant::now());
        assert_eq!(take(&mut pace), None);
        waits(&mut pace, "a", 2);
        assert_eq!(take(&mut pace), Some(("a".to_owned(), Some(2))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_fails_is_given_up_after_a_few_times() {
        let mut pace = Pace::new(INTERVAL);
        waits(&mut pace, "a", 1);
        for _ in 0..ATTEMPTS {
            let write = pace.take(Instant::now()).unwrap();
            pace.wrote(&write, false, Instant::now());
            assert_eq!(pace.take(Instant::now()), None);
            tokio::time::advance(INTERVAL).await;
        }
        assert_eq!(pace.next_due(), None);
        let mut stubborn = Pace::new(INTERVAL).without_giving_up();
        waits(&mut stubborn, "a", 1);
        for attempt in 0..5 * ATTEMPTS {
            let write = stubborn.take(Instant::now()).unwrap();
            stubborn.wrote(&write, false, Instant::now());
            // Ever more seldom, and another value changes nothing about that.
            waits(&mut stubborn, "a", 2 + usize::try_from(attempt).unwrap());
            let due = stubborn.next_due().unwrap() - Instant::now();
            assert_eq!(due, LONGEST_WAIT.min(INTERVAL * 2_u32.pow(attempt + 1)));
            tokio::time::advance(due).await;
        }
        // It starts while a write is under way.
        waits(&mut pace, "a", 2);
        let write = pace.take(Instant::now()).unwrap();
        pace.clears(&key("a"), &uid(), None, Instant::now());
        assert_eq!(pace.take(Instant::now()), None);
        pace.wrote(&write, true, Instant::now());
        assert_eq!(take(&mut pace), Some(("a".to_owned(), None)));
        assert!(pace.rows.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn each_comes_in_its_turn() {
        let mut pace = Pace::new(INTERVAL);
        for (run, position) in [("a", 1), ("b", 2), ("c", 3)] {
            waits(&mut pace, run, position);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let order: Vec<_> = std::iter::from_fn(|| take(&mut pace)).collect();
        let names: Vec<_> = order.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_yields_writes_once_more_where_its_last_write_may_have_come_late() {
        let mut pace = Pace::new(INTERVAL);
        let yields = |pace: &mut Positions, value: usize| {
            pace.yields(&key("a"), &uid(), value, Instant::now());
        };
        // It has never written, or what is wanted: the other one writes.
        waits(&mut pace, "a", 1);
        yields(&mut pace, 1);
        assert!(pace.rows.is_empty() && pace.due.is_empty());
        waits(&mut pace, "a", 1);
        assert!(take(&mut pace).is_some());
        yields(&mut pace, 1);
        assert!(pace.rows.is_empty());
        // It has written another value: this one too, and then no more.
        waits(&mut pace, "a", 1);
        assert!(take(&mut pace).is_some());
        yields(&mut pace, 2);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(take(&mut pace), Some(("a".to_owned(), Some(2))));
        yields(&mut pace, 2);
        assert!(pace.rows.is_empty());
        // It has written another value, which was found to be right after that.
        waits(&mut pace, "a", 3);
        assert!(take(&mut pace).is_some());
        pace.confirm(Instant::now() - Duration::from_millis(1));
        assert!(!pace.rows[&key("a")].is_confirmed, "it was found before");
        pace.confirm(Instant::now());
        yields(&mut pace, 4);
        assert!(pace.rows.is_empty() && pace.due.is_empty());
        // A write has failed, and may have been made.
        waits(&mut pace, "a", 3);
        let write = pace.take(Instant::now()).unwrap();
        pace.wrote(&write, false, Instant::now());
        yields(&mut pace, 4);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(take(&mut pace), Some(("a".to_owned(), Some(4))));
        pace.forget(&key("a"));
        // A write is under way.
        waits(&mut pace, "a", 3);
        let write = pace.take(Instant::now()).unwrap();
        yields(&mut pace, 4);
        pace.wrote(&write, true, Instant::now());
        tokio::time::advance(INTERVAL).await;
        assert_eq!(take(&mut pace), Some(("a".to_owned(), Some(4))));
    }
}
