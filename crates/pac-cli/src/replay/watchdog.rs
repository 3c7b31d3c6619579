//! Follows the runs of a repository independently of the manager: counts the slots that they take,
//! compares that with the limit, and knows when none may start.

use std::collections::{BTreeMap, BTreeSet};

use pac_concurrency::{Group, Limit, Timestamp, Weight};

use super::record::{RepositoryRecord, Rule, Violation};

/// The independent watch over one repository. Runs are known by their number in the order of arrival.
/// For a correct count, call [`ended`](Self::ended) before slots are given back and
/// [`started`](Self::started) after they were granted.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    announced: Vec<(Timestamp, Limit)>,
    pauses: Vec<(Timestamp, bool)>,
    live: BTreeMap<usize, Live>,
    superseded: BTreeSet<usize>,
    /// The slots taken.
    taken: u32,
    peak_running: u32,
    starts: u64,
    exceeded: Vec<Violation>,
}

/// A run that waits or runs.
#[derive(Debug)]
struct Live {
    weight: Weight,
    group: Option<Group>,
    running: bool,
}

/// The runs of a group that a newer one supersedes.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    pub(crate) waiting: Vec<usize>,
    pub(crate) running: Vec<usize>,
}

impl Watchdog {
    /// Records that `limit` is in force from `at` on. Call it in the order of time.
    pub(crate) fn announce(&mut self, at: Timestamp, limit: Limit) {
        self.announced.push((at, limit));
    }

    /// Records that nothing may start from `at` on, or again. Call it in the order of time.
    pub(crate) fn paused(&mut self, at: Timestamp, paused: bool) {
        self.pauses.push((at, paused));
    }

    /// Whether nothing may start now.
    pub(crate) fn is_paused(&self) -> bool {
        self.pauses.last().is_some_and(|(_, paused)| *paused)
    }

    /// Records a run that comes.
    pub(crate) fn arrived(&mut self, run: usize, weight: Weight, group: Option<Group>) {
        let running = false;
        self.live.insert(
            run,
            Live {
                weight,
                group,
                running,
            },
        );
    }

    /// Records that a newer run of the group supersedes those that are there, and says which. Those that
    /// wait must not start any more.
    pub(crate) fn supersede(&mut self, group: &Group) -> Earlier {
        let of_group = |live: &&Live| live.group.as_ref() == Some(group);
        let of_group = self.live.iter().filter(|(_, live)| of_group(live));
        let mut earlier = Earlier::default();
        for (run, live) in of_group {
            match live.running {
                true => earlier.running.push(*run),
                false => earlier.waiting.push(*run),
            }
        }
        self.superseded.extend(&earlier.waiting);
        earlier
    }

    /// Whether a newer run has taken the place of this one.
    pub(crate) fn is_superseded(&self, run: usize) -> bool {
        self.superseded.contains(&run)
    }

    /// Whether a run can never start as things are: nothing may, or there are too few slots for it.
    pub(crate) fn is_held_up(&self, run: usize) -> bool {
        let limit = self.announced.last().map(|(_, limit)| *limit);
        let weight = self.live.get(&run).map_or(0, |live| live.weight.get());
        let fits = limit.is_none_or(|limit| limit.admits_all(0, weight.into()));
        self.is_paused() || !fits
    }

    /// Records a start: its slots were granted at `granted_at`, and its owner saw that at
    /// `observed_at`.
    ///
    /// The start is compared with the most permissive state of things at any time between the
    /// two, so that a start granted before the limit was lowered causes no false alarm.
    pub(crate) fn started(&mut self, run: usize, granted_at: Timestamp, observed_at: Timestamp) {
        let weight = self.live.get_mut(&run).map_or(Weight::ONE, |live| {
            live.running = true;
            live.weight
        });
        self.taken = self.taken.saturating_add(weight.get().into());
        self.peak_running = self.peak_running.max(self.taken);
        self.starts += 1;
        let limit = self.most_permissive(granted_at, observed_at).get();
        let too_many = limit.filter(|limit| self.taken > *limit).map(Rule::Limit);
        let paused = self.was_paused(granted_at, observed_at);
        let broken = [
            too_many,
            paused.then_some(Rule::Pause),
            self.is_superseded(run).then_some(Rule::Superseded),
        ];
        let broken = broken.into_iter().flatten().map(|rule| Violation {
            at: granted_at,
            running: self.taken,
            rule,
        });
        self.exceeded.extend(broken);
    }

    /// Records that a run ended, waiting or running.
    pub(crate) fn ended(&mut self, run: usize) {
        if let Some(live) = self.live.remove(&run)
            && live.running
        {
            self.taken = self.taken.saturating_sub(live.weight.get().into());
        }
    }

    /// Adds the counts to the repository's record.
    pub(crate) fn report(self, record: &mut RepositoryRecord) {
        record.limit_changes = self.announced;
        record.peak_running = self.peak_running;
        record.starts_checked = self.starts;
        record.exceeded = self.exceeded;
    }

    fn most_permissive(&self, from: Timestamp, to: Timestamp) -> Limit {
        let in_force = between(&self.announced, from, to);
        in_force
            .max_by_key(|limit| limit.get().unwrap_or(u32::MAX))
            .unwrap_or(Limit::UNLIMITED)
    }

    /// Whether nothing might start at any time between the two.
    fn was_paused(&self, from: Timestamp, to: Timestamp) -> bool {
        let before = self.pauses.iter().any(|(at, _)| *at < from);
        before && between(&self.pauses, from, to).all(|paused| paused)
    }
}

/// What held at any time between the two. What was so before `from` counts too, even if it changed in
/// the same millisecond: the order of the two is unknown.
fn between<T: Copy>(
    changes: &[(Timestamp, T)],
    from: Timestamp,
    to: Timestamp,
) -> impl Iterator<Item = T> {
    let to = to.max(from);
    let before = changes.partition_point(|(at, _)| *at < from);
    let changes = changes.iter().skip(before.saturating_sub(1));
    changes
        .take_while(move |(at, _)| *at <= to)
        .map(|(_, state)| *state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_millis(millis)
    }

    fn start(watchdog: &mut Watchdog, millis: i64) {
        start_late(watchdog, millis, millis);
    }

    /// A run that is granted its slot at one time, which is seen at another.
    fn start_late(watchdog: &mut Watchdog, granted: i64, seen: i64) {
        start_of(watchdog, Weight::ONE, None, granted, seen);
    }

    fn start_of(
        watchdog: &mut Watchdog,
        weight: Weight,
        group: Option<Group>,
        granted: i64,
        seen: i64,
    ) {
        let run = usize::try_from(watchdog.starts).unwrap();
        watchdog.arrived(run, weight, group);
        watchdog.started(run, at(granted), at(seen));
    }

    fn end(watchdog: &mut Watchdog) {
        let first = *watchdog.live.keys().next().unwrap();
        watchdog.ended(first);
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
            rule: Rule::Limit(2),
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
            end(&mut watchdog);
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
        end(&mut watchdog);
        end(&mut watchdog);
        assert_eq!(watchdog.exceeded, []);
        start(&mut watchdog, 20);
        assert_eq!(watchdog.exceeded.len(), 1);
        assert_eq!(watchdog.exceeded[0].rule, Rule::Limit(1));
    }

    #[test]
    fn a_start_granted_before_a_lowering_and_seen_after_it_is_no_false_alarm() {
        let mut watchdog = Watchdog::default();
        watchdog.announce(at(0), Limit::new(2));
        watchdog.announce(at(10), Limit::new(1));
        start(&mut watchdog, 5);
        start_late(&mut watchdog, 9, 30);
        assert_eq!(watchdog.exceeded, []);
        // Granted in the same millisecond in which the limit was lowered: possibly before that.
        end(&mut watchdog);
        start_late(&mut watchdog, 10, 30);
        assert_eq!(watchdog.exceeded, []);
        end(&mut watchdog);
        start_late(&mut watchdog, 11, 30);
        assert_eq!(watchdog.exceeded.len(), 1);
    }

    #[test]
    fn a_raise_seen_between_grant_and_observation_counts() {
        let mut watchdog = Watchdog::default();
        watchdog.announce(at(0), Limit::new(1));
        watchdog.announce(at(10), Limit::UNLIMITED);
        start(&mut watchdog, 1);
        start_late(&mut watchdog, 5, 10);
        assert_eq!(watchdog.exceeded, []);
        start_late(&mut watchdog, 5, 9);
        assert_eq!(watchdog.exceeded.len(), 1);
    }

    #[test]
    fn without_an_announcement_there_is_no_limit() {
        let mut watchdog = Watchdog::default();
        (0..100).for_each(|millis| start(&mut watchdog, millis));
        assert_eq!((watchdog.exceeded.len(), watchdog.peak_running), (0, 100));
    }

    #[test]
    fn slots_are_counted_and_not_runs() {
        let mut watchdog = Watchdog::default();
        watchdog.announce(at(0), Limit::new(3));
        let two = Weight::new(2).unwrap();
        start_of(&mut watchdog, two, None, 1, 1);
        start(&mut watchdog, 2);
        assert_eq!((watchdog.exceeded.len(), watchdog.peak_running), (0, 3));
        watchdog.ended(1);
        start_of(&mut watchdog, two, None, 3, 3);
        assert_eq!(watchdog.exceeded[0].rule, Rule::Limit(3));
    }

    #[test]
    fn a_start_during_a_pause_is_caught() {
        let mut watchdog = Watchdog::default();
        watchdog.paused(at(10), true);
        // Possibly before the pause.
        start_late(&mut watchdog, 10, 20);
        watchdog.paused(at(30), false);
        start_late(&mut watchdog, 25, 30);
        assert_eq!(watchdog.exceeded, []);
        watchdog.paused(at(40), true);
        start_late(&mut watchdog, 41, 50);
        assert_eq!(watchdog.exceeded[0].rule, Rule::Pause);
    }

    #[test]
    fn a_superseded_run_that_starts_is_caught() {
        let mut watchdog = Watchdog::default();
        let group: Group = "pr-7".parse().unwrap();
        for (run, group) in [(0, Some(&group)), (1, None), (2, Some(&group))] {
            watchdog.arrived(run, Weight::ONE, group.cloned());
        }
        watchdog.started(0, at(1), at(1));
        let earlier = watchdog.supersede(&group);
        assert_eq!((earlier.running, earlier.waiting), (vec![0], vec![2]));
        watchdog.started(1, at(2), at(2));
        assert_eq!(watchdog.exceeded, []);
        watchdog.started(2, at(3), at(3));
        assert_eq!(watchdog.exceeded[0].rule, Rule::Superseded);
    }
}
