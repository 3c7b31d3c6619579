//! Measurements as tables.

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};

use super::measurement::{Kept, Measurement};

/// All measurements.
#[derive(Debug, Default)]
pub(super) struct Measurements(Vec<Measurement>);

const HEADER: [&str; 10] = [
    "measurement",
    "value",
    "unit",
    "against",
    "ratio",
    "goal",
    "reached",
    "p50 µs",
    "p99 µs",
    "spread",
];

const PEERS_HEADER: [&str; 9] = [
    "limit",
    "kept by",
    "cycles/s",
    "against the fastest other",
    "ratio",
    "overtaken by",
    "to wake p50 µs",
    "p99 µs",
    "next after kill -9",
];

impl Measurements {
    pub(super) fn push(&mut self, measurement: Measurement) {
        self.0.push(measurement);
    }

    pub(super) fn a_limit_was_exceeded(&self) -> bool {
        self.0.iter().any(Measurement::exceeds_a_limit)
    }

    pub(super) fn table(&self) -> String {
        let mut table = with_header(HEADER.to_vec(), &[1, 3, 4, 5, 7, 8, 9]);
        let mut peers = with_header(PEERS_HEADER.to_vec(), &[0, 2, 3, 4, 5, 6, 7, 8]);
        for measured in &self.0 {
            match &measured.peer {
                Some(kept) => peers.add_row(peers_row(measured, kept)),
                None => table.add_row(row(measured)),
            };
        }
        let server = self.0.first().and_then(|first| first.server.clone());
        let driver = self.0.first().map(|first| first.driver.clone());
        let mut text = format!("{}\n", server.or(driver).unwrap_or_default());
        for table in [table, peers] {
            if table.row_count() > 0 {
                text.push_str(&format!("{table}\n"));
            }
        }
        text
    }
}

fn with_header(header: Vec<&str>, figures: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(header);
    for column in figures {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn row(measured: &Measurement) -> Vec<String> {
    let reached = match (measured.reached, measured.violations.unwrap_or_default()) {
        (_, violations @ 1..) => format!("limit exceeded {violations} times"),
        (Some(true), _) => "yes".to_owned(),
        (Some(false), _) => "no".to_owned(),
        (None, _) => String::new(),
    };
    vec![
        measured.name.to_owned(),
        figure(measured.value),
        measured.unit.to_owned(),
        number(measured.raw),
        number(measured.ratio),
        number(measured.goal),
        reached,
        number(measured.p50_us),
        number(measured.p99_us),
        number(measured.spread),
    ]
}

fn peers_row(measured: &Measurement, kept: &Kept) -> Vec<String> {
    let by = match measured.violations.unwrap_or_default() {
        0 => kept.by.to_owned(),
        violations => format!("{}, limit exceeded {violations} times", kept.by),
    };
    let next = match (kept.after_kill_s, kept.leaked) {
        (Some(seconds), _) => format!("{seconds:.2} s"),
        (None, Some(true)) => "never".to_owned(),
        (None, _) => String::new(),
    };
    vec![
        kept.limit.to_string(),
        by,
        figure(measured.value),
        number(measured.raw),
        number(measured.ratio),
        kept.overtaken.to_string(),
        number(measured.p50_us),
        number(measured.p99_us),
        next,
    ]
}

fn number(value: Option<f64>) -> String {
    value.map(figure).unwrap_or_default()
}

/// Formats a value with three significant digits.
fn figure(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
