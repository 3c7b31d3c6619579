//! Which new runs are admitted together, and in which order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pac_core::{PipelineRunKey, Timestamp};

use crate::model::{RunView, natural_order};

/// New runs of one Repository, put into batches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Batches {
    /// Each to be admitted in one step, first to start first; the batches in this order.
    pub due: Vec<Vec<Arc<RunView>>>,
    /// How long it takes until the next run that waits for its order is due without one.
    pub next_due: Option<Duration>,
}

/// Puts the new runs of one Repository into batches: the runs of one event together, in their
/// execution order.
///
/// A run whose order is not known waits for it: until `order_wait` has passed since its creation,
/// by `now`, or since it was first seen (`seen_for`), whichever comes first. Then runs count in
/// the order of their creation, by the second, and of their names.
#[must_use]
pub fn batches(
    runs: &[Arc<RunView>],
    now: Timestamp,
    order_wait: Duration,
    seen_for: impl Fn(&RunView) -> Duration,
) -> Batches {
    let mut waiting: BTreeMap<&PipelineRunKey, &Arc<RunView>> =
        runs.iter().map(|run| (&run.key, run)).collect();
    let mut due = Vec::new();
    for run in in_order_of_creation(runs) {
        if !waiting.contains_key(&run.key) {
            continue;
        }
        let Some(order) = run.order() else {
            continue;
        };
        // Also those on which the order has not been written yet, if it names them.
        let named = order.runs().iter();
        let mut batch: Vec<_> = named
            .filter_map(|key| waiting.remove(key))
            .cloned()
            .collect();
        // An order that does not name the run that bears it says nothing about that one.
        batch.extend(waiting.remove(&run.key).cloned());
        due.push(batch);
    }
    let mut next_due = None;
    let mut by_second: BTreeMap<Option<i64>, Vec<Arc<RunView>>> = BTreeMap::new();
    for run in waiting.into_values() {
        let left = left_of(run, now, order_wait, seen_for(run));
        if left.is_zero() {
            by_second
                .entry(second(run))
                .or_default()
                .push(Arc::clone(run));
        } else {
            next_due = Some(next_due.map_or(left, |next: Duration| next.min(left)));
        }
    }
    due.extend(
        by_second
            .into_values()
            .map(|runs| in_order_of_creation(&runs)),
    );
    due.sort_by(|a, b| match (a.first(), b.first()) {
        (Some(a), Some(b)) => by_creation(a, b),
        (a, b) => a.is_some().cmp(&b.is_some()),
    });
    Batches { due, next_due }
}

/// How much of a wait is left for a run: it ends when it has passed since the creation of the run, by
/// `now`, or since it was first seen (`seen_for`), whichever comes first.
pub(super) fn left_of(
    run: &RunView,
    now: Timestamp,
    wait: Duration,
    seen_for: Duration,
) -> Duration {
    let age = run
        .created
        .map_or(Duration::ZERO, |created| now.since(created));
    wait.saturating_sub(age.max(seen_for))
}

fn in_order_of_creation(runs: &[Arc<RunView>]) -> Vec<Arc<RunView>> {
    let mut runs = runs.to_vec();
    runs.sort_by(|a, b| by_creation(a, b));
    runs
}

fn by_creation(a: &RunView, b: &RunView) -> std::cmp::Ordering {
    let names = || natural_order(a.key.as_str(), b.key.as_str());
    second(a).cmp(&second(b)).then_with(names)
}

fn second(run: &RunView) -> Option<i64> {
    Some(run.created?.as_unix_millis().div_euclid(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary;

    const WAIT: Duration = Duration::from_secs(10);

    fn run(name: &str, created: i64, order: &str) -> Arc<RunView> {
        let key = PipelineRunKey::new("ci", name).unwrap();
        let mut run = RunView::new(key, name.parse().unwrap());
        run.created = Some(Timestamp::from_unix_millis(created * 1_000));
        if !order.is_empty() {
            let names: Vec<_> = order.split(',').map(|name| format!("ci/{name}")).collect();
            let order = (vocabulary::EXECUTION_ORDER.to_owned(), names.join(","));
            run.annotations.extend([order]);
        }
        Arc::new(run)
    }

    fn put(runs: &[Arc<RunView>], now: i64) -> (Vec<String>, Option<u64>) {
        let now = Timestamp::from_unix_millis(now * 1_000);
        let batches = batches(runs, now, WAIT, |_| Duration::ZERO);
        let names = |batch: &Vec<Arc<RunView>>| {
            let names: Vec<_> = batch.iter().map(|run| run.key.name()).collect();
            names.join(" ")
        };
        let left = batches.next_due.map(|left| left.as_secs());
        (batches.due.iter().map(names).collect(), left)
    }

    #[test]
    fn runs_of_one_event_are_one_batch_in_their_order() {
        let order = "pr2,pr1,pr10,gone";
        let runs = [
            run("pr10", 1, order),
            run("pr1", 2, order),
            run("pr2", 3, order),
        ];
        assert_eq!(put(&runs, 3), (vec!["pr2 pr1 pr10".to_owned()], None));
        // One that bears no order yet, and is named in another's, comes along.
        let runs = [run("b", 1, ""), run("a", 1, "a,b"), run("c", 1, "")];
        assert_eq!(put(&runs, 3), (vec!["a b".to_owned()], Some(8)));
    }

    #[test]
    fn without_an_order_creation_and_natural_names_count_after_the_wait() {
        let runs = [
            run("pr10", 1, ""),
            run("pr2", 1, ""),
            run("old", 0, ""),
            run("new", 5, ""),
        ];
        assert_eq!(put(&runs, 4), (vec![], Some(6)));
        let due = vec!["old".to_owned(), "pr2 pr10".to_owned()];
        assert_eq!(put(&runs, 11), (due, Some(4)));
    }

    #[test]
    fn a_clock_that_is_wrong_makes_no_run_wait_for_longer() {
        let runs = [run("a", 1_000, "")];
        let now = Timestamp::from_unix_millis(0);
        let fresh = batches(&runs, now, WAIT, |_| Duration::from_secs(4));
        assert_eq!(fresh.next_due, Some(Duration::from_secs(6)));
        assert_eq!(batches(&runs, now, WAIT, |_| WAIT).due.len(), 1);
    }

    #[test]
    fn batches_come_in_the_order_of_their_creation() {
        let runs = [
            run("late", 9, "late"),
            run("z", 2, "z,a"),
            run("a", 3, "z,a"),
            run("alone", 2, ""),
            run("odd", 4, "somebody-else"),
        ];
        assert_eq!(put(&runs, 20).0, ["alone", "z a", "odd", "late"]);
    }
}
