//! The output of a replay.

use std::fmt::{Display, Write as _};
use std::io::{self, Write};
use std::time::Duration;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::record::{Replay, Rule, RunOutcome, RunRecord};
use super::summary::{self, Summary};
use crate::time::{humanise, rfc3339};

/// How many violations, and how many warnings, are printed; the rest is counted.
const MOST_SHOWN: usize = 10;

const HEADER: [&str; 9] = [
    "repository",
    "runs",
    "limit",
    "peak running",
    "waited",
    "wait mean",
    "wait p95",
    "wait max",
    "cancelled",
];

/// A row per repository, and the totals if there are several.
pub(crate) fn table(replay: &Replay) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header(HEADER);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for record in &replay.repositories {
        table.add_row(row(
            &record.repository,
            &Summary::of(&record.runs),
            &summary::limits(record),
            record.peak_running,
        ));
    }
    if replay.repositories.len() > 1 {
        let runs = || replay.repositories.iter().flat_map(|record| &record.runs);
        let at_once = summary::running(runs()).into_iter().map(|(_, count)| count);
        let peaks = replay.repositories.iter().map(|record| record.peak_running);
        let peak = at_once.chain(peaks).max().unwrap_or(0);
        table.add_row(row(&"total", &Summary::of(runs()), "", peak));
    }
    format!("{table}\n")
}

/// States whether runs started that should not have: one line if none did, else a line for each kind and
/// one per violation; then those that ended in other ways.
pub(crate) fn verdict(replay: &Replay) -> String {
    let checked: u64 = replay.repositories.iter().map(|r| r.starts_checked).sum();
    if !replay.exceeded() {
        return format!(
            "limit never exceeded ({checked} starts checked)\n{}",
            apart(replay)
        );
    }
    let violations: Vec<_> = replay
        .repositories
        .iter()
        .flat_map(|record| {
            record
                .exceeded
                .iter()
                .map(move |violation| (record, violation))
        })
        .collect();
    let over = violations.iter();
    let over = over.filter(|(_, violation)| matches!(violation.rule, Rule::Limit(_)));
    let over = over.count();
    let mut text = String::new();
    for (count, what) in [
        (over, "LIMIT EXCEEDED by"),
        (
            violations.len() - over,
            "STARTED ALTHOUGH PAUSED OR SUPERSEDED:",
        ),
    ] {
        if count > 0 {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{what} {count} of {checked} starts checked");
        }
    }
    list(&mut text, &violations, |(record, violation)| {
        format!(
            "  {} {}: {} running, {}",
            rfc3339(violation.at),
            record.repository,
            violation.running,
            violation.rule
        )
    });
    text + &apart(replay)
}

/// The runs that neither ran to their end nor were cancelled; empty if there are none.
fn apart(replay: &Replay) -> String {
    let runs = || replay.repositories.iter().flat_map(|record| &record.runs);
    let of = |outcome| runs().filter(|run| run.outcome == outcome).count();
    let mut text = String::new();
    for (count, what) in [
        (of(RunOutcome::Superseded), "superseded"),
        (of(RunOutcome::Waiting), "still waiting at the end"),
    ] {
        if count > 0 {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{what}: {count}");
        }
    }
    text
}

/// Warnings for the trace's author; empty if there are none.
pub(crate) fn warnings(replay: &Replay, trace: &str) -> String {
    let mut text = String::new();
    list(&mut text, &replay.unknown_cancels, |(line, run)| {
        format!("{trace}:{line}: warning: no effect: {run} was neither queued nor running")
    });
    text
}

/// One JSON object per line and run, in the order of starts; of runs with equal starts, in the
/// order of the trace. Runs that never started come last.
pub(crate) fn json(replay: &Replay, out: &mut dyn Write) -> io::Result<()> {
    let mut runs: Vec<&RunRecord> = replay
        .repositories
        .iter()
        .flat_map(|record| &record.runs)
        .collect();
    runs.sort_by_key(|run| (run.started_at.is_none(), run.started_at, run.line));
    for run in runs {
        serde_json::to_writer(&mut *out, &JsonRun::from(run))?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// The published form of a run: these fields in this order.
#[derive(Serialize)]
struct JsonRun<'a> {
    run: &'a str,
    repository: &'a str,
    queued_at: Option<String>,
    started_at: Option<String>,
    completed_at: Option<String>,
    wait_s: Option<f64>,
    outcome: &'static str,
}

impl<'a> From<&'a RunRecord> for JsonRun<'a> {
    fn from(run: &'a RunRecord) -> Self {
        Self {
            run: run.run.as_str(),
            repository: run.repository.as_str(),
            queued_at: run.queued_at.map(rfc3339),
            started_at: run.started_at.map(rfc3339),
            completed_at: run.completed_at.map(rfc3339),
            wait_s: run.wait().map(|wait| wait.as_millis() as f64 / 1_000.0),
            outcome: match run.outcome {
                RunOutcome::Completed => "completed",
                RunOutcome::Cancelled => "cancelled",
                RunOutcome::Superseded => "superseded",
                RunOutcome::Waiting => "waiting",
            },
        }
    }
}

fn row(name: &impl Display, summary: &Summary, limit: &str, peak: u32) -> [String; 9] {
    let wait = |figure: Option<Duration>| figure.map_or("–".to_owned(), humanise);
    [
        name.to_string(),
        summary.runs.to_string(),
        limit.to_owned(),
        peak.to_string(),
        summary.waited.to_string(),
        wait(summary.waits.map(|waits| waits.mean)),
        wait(summary.waits.map(|waits| waits.p95)),
        wait(summary.waits.map(|waits| waits.max)),
        summary.cancelled.to_string(),
    ]
}

fn list<T>(text: &mut String, items: &[T], describe: impl Fn(&T) -> String) {
    for item in items.iter().take(MOST_SHOWN) {
        text.push_str(&describe(item));
        text.push('\n');
    }
    if items.len() > MOST_SHOWN {
        // Writing to a string does not fail.
        let _ = writeln!(text, "and {} more", items.len() - MOST_SHOWN);
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Violation;
    use super::super::summary::tests::{repository, run};
    use super::*;

    fn replay() -> Replay {
        use RunOutcome::{Cancelled, Completed};
        let runs = vec![
            run(2, 0, Some(0), 60, Completed),
            run(1, 0, None, 30, Cancelled),
            run(3, 0, Some(60), 61, Cancelled),
        ];
        Replay {
            repositories: vec![repository(&[(0, 1)], runs)],
            unknown_cancels: Vec::new(),
        }
    }

    fn cells(table: &str, row: &str) -> Vec<String> {
        let line = table.lines().find(|line| line.contains(row)).unwrap();
        let cells = line.trim_matches('│').split("  ").map(str::trim);
        cells
            .filter(|cell| !cell.is_empty())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn the_table_has_a_row_per_repository_and_totals_only_of_several() {
        let mut replay = replay();
        let text = table(&replay);
        assert_eq!(
            cells(&text, "ns/r"),
            ["ns/r", "3", "1", "1", "1", "30.0s", "1m 0s", "1m 0s", "2"],
            "{text}"
        );
        assert!(!text.contains("total"));

        replay.repositories.push(replay.repositories[0].clone());
        let text = table(&replay);
        assert_eq!(
            cells(&text, "total"),
            ["total", "6", "2", "2", "30.0s", "1m 0s", "1m 0s", "4"],
            "{text}"
        );
    }

    #[test]
    fn a_repository_without_starts_has_no_waits() {
        let replay = Replay {
            repositories: vec![repository(&[], vec![])],
            unknown_cancels: Vec::new(),
        };
        assert_eq!(
            cells(&table(&replay), "ns/r"),
            ["ns/r", "0", "none", "0", "0", "–", "–", "–", "0"]
        );
    }

    #[test]
    fn json_lines_are_in_start_order_with_the_promised_fields() {
        let mut out = Vec::new();
        json(&replay(), &mut out).unwrap();
        let expected = r#"{"run":"ns/run-2","repository":"ns/r","queued_at":"2026-05-28T20:26:40.000Z","started_at":"2026-05-28T20:26:40.000Z","completed_at":"2026-05-28T20:27:40.000Z","wait_s":0.0,"outcome":"completed"}
{"run":"ns/run-3","repository":"ns/r","queued_at":"2026-05-28T20:26:40.000Z","started_at":"2026-05-28T20:27:40.000Z","completed_at":"2026-05-28T20:27:41.000Z","wait_s":60.0,"outcome":"cancelled"}
{"run":"ns/run-1","repository":"ns/r","queued_at":"2026-05-28T20:26:40.000Z","started_at":null,"completed_at":"2026-05-28T20:27:10.000Z","wait_s":null,"outcome":"cancelled"}
"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn the_verdict_counts_the_starts_or_lists_the_violations() {
        let mut replay = replay();
        assert_eq!(
            verdict(&replay),
            "limit never exceeded (2 starts checked)\n"
        );
        let at = replay.repositories[0].runs[0].queued_at.unwrap();
        replay.repositories[0].exceeded = vec![
            Violation {
                at,
                running: 2,
                rule: Rule::Limit(1)
            };
            12
        ];
        let text = verdict(&replay);
        assert!(
            text.starts_with("LIMIT EXCEEDED by 12 of 2 starts checked\n"),
            "{text}"
        );
        assert!(text.contains("  2026-05-28T20:26:40.000Z ns/r: 2 running, limit 1\n"));
        assert!(text.ends_with("\nand 2 more\n") && text.lines().count() == 12);

        // A pause that was not kept is no limit that was exceeded; how the runs ended is told all the same.
        let repository = &mut replay.repositories[0];
        repository.exceeded.truncate(1);
        repository.exceeded[0].rule = Rule::Pause;
        repository.runs[1].outcome = RunOutcome::Superseded;
        assert_eq!(
            verdict(&replay),
            "STARTED ALTHOUGH PAUSED OR SUPERSEDED: 1 of 2 starts checked\n  \
             2026-05-28T20:26:40.000Z ns/r: 2 running, the repository was paused\nsuperseded: 1\n"
        );
    }

    #[test]
    fn cancels_without_effect_are_warned_of() {
        let mut replay = replay();
        assert_eq!(warnings(&replay, "t"), "");
        replay.unknown_cancels = vec![(9, "ns/x".parse().unwrap())];
        assert_eq!(
            warnings(&replay, "t"),
            "t:9: warning: no effect: ns/x was neither queued nor running\n"
        );
    }
}
