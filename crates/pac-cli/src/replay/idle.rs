//! The times of a trace in which certainly nothing happens, which a virtual clock leaves out: on
//! it, too, the background work of years takes a while.

use std::collections::HashMap;
use std::time::Duration;

use pac_concurrency::{RepositoryKey, Timestamp};

use super::trace::{Event, Trace};

/// Shorter times are not worth it.
const LEAST: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the clock goes on after the last run has ended for certain, so that nothing that
/// belongs to its end falls together with what comes next.
const AFTER: Duration = Duration::from_secs(60 * 60);

/// Times that are left out, in their order, each as seen from the beginning of the trace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Idle(Vec<Gap>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gap {
    /// From the beginning of the trace to that of the gap, without the gaps before.
    start: Duration,
    /// The lengths of this gap and those before it.
    total: Duration,
}

impl Idle {
    /// The times before a row in which no run of any repository can be running or waiting: whatever
    /// its limit, a repository needs no more time than one that runs its runs one after the other.
    pub(crate) fn of(trace: &Trace) -> Self {
        let Some(first) = trace.rows.first().map(|row| row.at) else {
            return Self::default();
        };
        // Runs may wait where none runs: how long, only the replay can tell.
        if trace.rows.iter().any(|row| row.event.may_hold_up()) {
            return Self::default();
        }
        let mut over_by: HashMap<&RepositoryKey, Timestamp> = HashMap::new();
        let mut all_over_by = first;
        let mut gaps = Vec::new();
        let mut total = Duration::ZERO;
        for row in &trace.rows {
            let start = all_over_by.plus(AFTER);
            let length = row.at.since(start);
            if length >= LEAST {
                let start = start.since(first).saturating_sub(total);
                total += length;
                gaps.push(Gap { start, total });
            }
            all_over_by = all_over_by.max(row.at);
            if let Event::Run { duration, .. } = &row.event {
                let over = over_by.entry(&row.repository).or_insert(row.at);
                *over = (*over).max(row.at).plus(*duration);
                all_over_by = all_over_by.max(*over);
            }
        }
        Self(gaps)
    }

    /// The time on the replay's clock at a time of the trace, both from the beginning.
    pub(crate) fn left_out_of(&self, in_trace: Duration) -> Duration {
        let before = self
            .0
            .partition_point(|gap| gap.start + gap.total <= in_trace);
        let gone = before.checked_sub(1).and_then(|last| self.0.get(last));
        let on_the_clock = in_trace - gone.map_or(Duration::ZERO, |gap| gap.total);
        // Within a gap the clock stands still.
        match self.0.get(before) {
            Some(gap) => on_the_clock.min(gap.start),
            None => on_the_clock,
        }
    }

    /// The time of the trace at a time on the replay's clock, both from the beginning.
    pub(crate) fn put_back_into(&self, on_the_clock: Duration) -> Duration {
        let before = self.0.partition_point(|gap| gap.start <= on_the_clock);
        let gone = before.checked_sub(1).and_then(|last| self.0.get(last));
        on_the_clock + gone.map_or(Duration::ZERO, |gap| gap.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600;
    const YEAR: u64 = 366 * 24 * HOUR;

    /// A trace of runs of these repositories, with the seconds of arrival and of running.
    fn trace(rows: &[(&str, u64, u64)]) -> Trace {
        let lines = rows.iter().enumerate().map(|(at, (repository, arrival, seconds))| {
            let moment = Timestamp::from_unix_millis(i64::try_from(arrival * 1_000).unwrap());
            format!(
                r#"{{"at":"{moment}","repository":"ns/{repository}","limit":1,"run":"ns/r{at}","duration_s":{seconds}}}"#
            )
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        Trace::read("t", text.as_bytes()).unwrap()
    }

    #[test]
    fn what_lies_between_the_last_end_and_the_next_row_is_left_out() {
        let idle = Idle::of(&trace(&[
            ("a", 0, HOUR),
            ("a", 0, HOUR),
            ("b", 10, 5 * HOUR),
            ("b", 100 * YEAR / 366, 1),
            ("a", 100 * YEAR, 1),
        ]));
        // Two hours one after the other, five beside them from the tenth second on, and one more.
        let start = Duration::from_secs(6 * HOUR + 10);
        assert_eq!(idle.0.len(), 2);
        assert_eq!(idle.0[0].start, start);
        for seconds in [0, 10, 6 * HOUR + 9] {
            let seconds = Duration::from_secs(seconds);
            assert_eq!(idle.left_out_of(seconds), seconds);
            assert_eq!(idle.put_back_into(seconds), seconds);
        }
        assert_eq!(
            idle.left_out_of(Duration::from_secs(7 * HOUR)),
            start,
            "it stands still"
        );
        for row in [100 * YEAR / 366, 100 * YEAR, 100 * YEAR + 1] {
            let row = Duration::from_secs(row);
            let clock = idle.left_out_of(row);
            assert!(clock < Duration::from_secs(10 * HOUR), "{clock:?}");
            assert_eq!(idle.put_back_into(clock), row);
        }
    }

    #[test]
    fn a_time_in_which_a_run_may_still_be_running_is_kept() {
        let busy = [("a", 0, 10 * YEAR / 366), ("a", 1, YEAR), ("b", YEAR, 1)];
        assert_eq!(Idle::of(&trace(&busy)), Idle::default());
        let short = [("a", 0, 1), ("a", 24 * HOUR, 1)];
        assert_eq!(Idle::of(&trace(&short)), Idle::default());
        assert_eq!(Idle::of(&Trace::default()), Idle::default());
    }
}
