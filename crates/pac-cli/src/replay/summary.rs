//! The figures of a repository, the same for the table and the timeline.

use std::time::Duration;

use pac_concurrency::{Limit, Timestamp};

use super::record::{RepositoryRecord, RunOutcome, RunRecord};

/// The figures of some runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) runs: usize,
    /// The number of runs that started later than they were queued.
    pub(crate) waited: usize,
    pub(crate) cancelled: usize,
    /// The waits of the runs that started; `None` if none did.
    pub(crate) waits: Option<Waits>,
}

/// How long runs waited for their start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waits {
    pub(crate) mean: Duration,
    /// The shortest wait that 95 % of the runs did not exceed (nearest rank).
    pub(crate) p95: Duration,
    pub(crate) max: Duration,
}

impl Summary {
    /// The figures of `runs`.
    pub(crate) fn of<'a>(runs: impl IntoIterator<Item = &'a RunRecord>) -> Self {
        let mut summary = Self {
            runs: 0,
            waited: 0,
            cancelled: 0,
            waits: None,
        };
        let mut waits = Vec::new();
        for run in runs {
            summary.runs += 1;
            summary.cancelled += usize::from(run.outcome == RunOutcome::Cancelled);
            if let Some(wait) = run.wait() {
                summary.waited += usize::from(!wait.is_zero());
                waits.push(wait);
            }
        }
        waits.sort_unstable();
        summary.waits = Waits::of_sorted(&waits);
        summary
    }
}

impl Waits {
    fn of_sorted(waits: &[Duration]) -> Option<Self> {
        let max = *waits.last()?;
        let total: u128 = waits.iter().map(Duration::as_millis).sum();
        let mean = u64::try_from(total / waits.len() as u128).unwrap_or(u64::MAX);
        let rank = (waits.len() * 95).div_ceil(100);
        Some(Self {
            mean: Duration::from_millis(mean),
            p95: waits.get(rank - 1).copied().unwrap_or(max),
            max,
        })
    }
}

/// The limits that a repository had: `3`, `2→5`, or `2→…→5` if there were more.
pub(crate) fn limits(record: &RepositoryRecord) -> String {
    let mut limits: Vec<Limit> = record
        .limit_changes
        .iter()
        .map(|(_, limit)| *limit)
        .collect();
    limits.dedup();
    match limits.as_slice() {
        [] => Limit::UNLIMITED.to_string(),
        [only] => only.to_string(),
        [first, last] => format!("{first}→{last}"),
        [first, .., last] => format!("{first}→…→{last}"),
    }
}

/// How many of `runs` ran at once, and from when on, in order. Runs that took no time at all
/// are left out.
pub(crate) fn running<'a>(runs: impl IntoIterator<Item = &'a RunRecord>) -> Vec<(Timestamp, u32)> {
    let mut changes: Vec<(Timestamp, bool)> = runs
        .into_iter()
        .filter_map(|run| Some((run.started_at?, run.completed_at?)))
        .filter(|(start, end)| start < end)
        .flat_map(|(start, end)| [(start, true), (end, false)])
        .collect();
    // At the same moment the end comes first: a slot that is handed over counts once.
    changes.sort_unstable();

    let mut steps: Vec<(Timestamp, u32)> = Vec::new();
    let mut running = 0_u32;
    for (at, starts) in changes {
        running = if starts {
            running.saturating_add(1)
        } else {
            running.saturating_sub(1)
        };
        match steps.last_mut() {
            Some((last, count)) if *last == at => *count = running,
            _ => steps.push((at, running)),
        }
    }
    steps
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_millis(1_780_000_000_000 + second * 1_000)
    }

    /// A run of `ns/r` with these times in seconds.
    pub(crate) fn run(
        line: usize,
        queued: i64,
        started: Option<i64>,
        ended: i64,
        outcome: RunOutcome,
    ) -> RunRecord {
        RunRecord {
            line,
            repository: "ns/r".parse().unwrap(),
            run: format!("ns/run-{line}").parse().unwrap(),
            priority: Default::default(),
            queued_at: Some(at(queued)),
            started_at: started.map(at),
            completed_at: Some(at(ended)),
            outcome,
        }
    }

    /// `ns/r` with these limits since these seconds.
    pub(crate) fn repository(limits: &[(i64, u32)], runs: Vec<RunRecord>) -> RepositoryRecord {
        let limit = |(second, limit): &(i64, u32)| (at(*second), Limit::new(*limit));
        RepositoryRecord {
            repository: "ns/r".parse().unwrap(),
            limit_changes: limits.iter().map(limit).collect(),
            peak_running: running(&runs).iter().map(|(_, n)| *n).max().unwrap_or(0),
            starts_checked: runs.iter().filter(|run| run.started_at.is_some()).count() as u64,
            exceeded: Vec::new(),
            runs,
        }
    }

    #[test]
    fn waits_are_those_of_the_runs_that_started() {
        use RunOutcome::{Cancelled, Completed};
        let mut runs: Vec<_> = (0..20)
            .map(|i| run(1, 0, Some(i), 100, Completed))
            .collect();
        runs.push(run(1, 0, None, 5_000, Cancelled));
        let summary = Summary::of(&runs);
        assert_eq!(
            (summary.runs, summary.waited, summary.cancelled),
            (21, 19, 1)
        );
        let waits = summary.waits.unwrap();
        assert_eq!(waits.mean, Duration::from_millis(9_500));
        assert_eq!(waits.p95, Duration::from_secs(18));
        assert_eq!(waits.max, Duration::from_secs(19));
        assert_eq!(Summary::of([]).waits, None);
        assert_eq!(
            Summary::of(&runs[3..4]).waits.unwrap().p95,
            Duration::from_secs(3)
        );
    }

    #[test]
    fn limits_are_told_in_few_characters() {
        for (changes, text) in [
            (&[][..], "none"),
            (&[(0, 3), (5, 3)], "3"),
            (&[(0, 2), (1, 2), (5, 5)], "2→5"),
            (&[(0, 2), (1, 4), (5, 0)], "2→…→none"),
        ] {
            assert_eq!(limits(&repository(changes, vec![])), text);
        }
    }

    #[test]
    fn a_slot_that_is_handed_over_is_one_slot() {
        use RunOutcome::Completed;
        let runs = [
            run(1, 0, Some(0), 10, Completed),
            run(2, 0, Some(10), 20, Completed),
            run(3, 0, Some(12), 14, Completed),
            run(4, 0, Some(13), 13, Completed),
        ];
        let steps = [(0, 1), (10, 1), (12, 2), (14, 1), (20, 0)];
        assert_eq!(
            running(&runs),
            steps.map(|(second, count)| (at(second), count))
        );
    }
}
