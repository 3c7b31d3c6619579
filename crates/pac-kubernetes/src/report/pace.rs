//! Which position is written next. Pure: the newest value wins, and each run is written at most
//! once in an interval.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use pac_core::{PipelineRunKey, Uid};
use tokio::time::Instant;

/// How often a write that fails is tried in a row.
const ATTEMPTS: u32 = 3;

/// The positions that are wanted and those that were written.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    runs: HashMap<PipelineRunKey, Row>,
    due: BTreeSet<(Instant, PipelineRunKey)>,
}

#[derive(Debug)]
struct Row {
    uid: Uid,
    /// `None`: it waits no more, and the annotation is to go.
    wanted: Option<usize>,
    /// What the annotation says, as far as is known.
    written: Option<usize>,
    last: Option<Instant>,
    due: Option<Instant>,
    attempts: u32,
    is_under_way: bool,
}

/// A write that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) run: PipelineRunKey,
    pub(super) uid: Uid,
    /// `None`: the annotation is to go.
    pub(super) position: Option<usize>,
}

impl Pace {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            runs: HashMap::new(),
            due: BTreeSet::new(),
        }
    }

    /// A run waits at a position. `shown` is what its annotation says, asked for once.
    pub(super) fn waits(
        &mut self,
        run: &PipelineRunKey,
        uid: &Uid,
        position: usize,
        shown: impl FnOnce() -> Option<usize>,
        now: Instant,
    ) {
        if self.runs.get(run).is_some_and(|row| row.uid != *uid) {
            self.forget(run);
        }
        let row = self.runs.entry(run.clone()).or_insert_with(|| Row {
            uid: uid.clone(),
            wanted: None,
            written: shown(),
            last: None,
            due: None,
            attempts: 0,
            is_under_way: false,
        });
        row.wanted = Some(position);
        self.plan(run, now);
    }

    /// A run waits no more. `shown` is what its annotation says.
    pub(super) fn left(
        &mut self,
        run: &PipelineRunKey,
        uid: &Uid,
        shown: Option<usize>,
        now: Instant,
    ) {
        if !self.runs.contains_key(run) && shown.is_none() {
            return;
        }
        // It may have been written by another controller, or a moment ago.
        self.waits(run, uid, 0, || shown, now);
        if let Some(row) = self.runs.get_mut(run) {
            row.wanted = None;
            row.last = None;
        }
        self.plan(run, now);
    }

    /// When the next write is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Takes a write that is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<Write> {
        self.due.first().filter(|(due, _)| *due <= now)?;
        let (_, run) = self.due.pop_first()?;
        let row = self.runs.get_mut(&run)?;
        (row.due, row.last, row.is_under_way) = (None, Some(now), true);
        Some(Write {
            position: row.wanted,
            uid: row.uid.clone(),
            run,
        })
    }

    /// What became of a write: it was made, or not.
    pub(super) fn wrote(&mut self, write: &Write, made: bool, now: Instant) {
        let Some(row) = self.runs.get_mut(&write.run) else {
            return;
        };
        if row.uid != write.uid {
            return;
        }
        row.is_under_way = false;
        if made {
            (row.written, row.attempts) = (write.position, 0);
        } else {
            row.attempts += 1;
            if row.attempts >= ATTEMPTS {
                // Given up, until it is at another position.
                (row.written, row.attempts) = (row.wanted, 0);
            }
        }
        self.plan(&write.run, now);
    }

    /// Has a run written if what is wanted differs from what is there; forgets one that waits no
    /// more and bears nothing.
    fn plan(&mut self, run: &PipelineRunKey, now: Instant) {
        let Some(row) = self.runs.get_mut(run) else {
            return;
        };
        if let Some(due) = row.due.take() {
            self.due.remove(&(due, run.clone()));
        }
        if row.is_under_way {
            return;
        }
        if row.wanted == row.written {
            if row.wanted.is_none() {
                self.runs.remove(run);
            }
            return;
        }
        let due = row.last.map_or(now, |last| now.max(last + self.interval));
        row.due = Some(due);
        self.due.insert((due, run.clone()));
    }

    /// Another controller writes it from now on.
    pub(super) fn forget(&mut self, run: &PipelineRunKey) {
        if let Some(due) = self.runs.remove(run).and_then(|row| row.due) {
            self.due.remove(&(due, run.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn key(name: &str) -> PipelineRunKey {
        PipelineRunKey::new("ci", name).unwrap()
    }

    fn uid() -> Uid {
        "u".parse().unwrap()
    }

    fn waits(pace: &mut Pace, run: &str, position: usize) {
        pace.waits(&key(run), &uid(), position, || None, Instant::now());
    }

    fn take(pace: &mut Pace) -> Option<(String, Option<usize>)> {
        let write = pace.take(Instant::now())?;
        pace.wrote(&write, true, Instant::now());
        Some((write.run.name().to_owned(), write.position))
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
        pace.left(&key("a"), &uid(), None, Instant::now());
        assert_eq!(take(&mut pace), Some(("a".to_owned(), None)));
        assert!(pace.runs.is_empty() && pace.due.is_empty());
        // One that another controller wrote; one that bears nothing.
        pace.left(&key("b"), &uid(), Some(7), Instant::now());
        pace.left(&key("c"), &uid(), None, Instant::now());
        assert_eq!(take(&mut pace), Some(("b".to_owned(), None)));
        assert_eq!(take(&mut pace), None);
        // One that was never written.
        waits(&mut pace, "d", 1);
        pace.left(&key("d"), &uid(), None, Instant::now());
        assert!(pace.runs.is_empty() && pace.due.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_already_is_not_written() {
        let mut pace = Pace::new(INTERVAL);
        pace.waits(&key("a"), &uid(), 3, || Some(3), Instant::now());
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
        // It starts while a write is under way.
        waits(&mut pace, "a", 2);
        let write = pace.take(Instant::now()).unwrap();
        pace.left(&key("a"), &uid(), None, Instant::now());
        assert_eq!(pace.take(Instant::now()), None);
        pace.wrote(&write, true, Instant::now());
        assert_eq!(take(&mut pace), Some(("a".to_owned(), None)));
        assert!(pace.runs.is_empty());
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
}
