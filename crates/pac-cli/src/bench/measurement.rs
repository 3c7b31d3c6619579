//! The results of measurements, and how they are printed.

use std::io::{self, Write};

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use pac_concurrency::DriverKind;
use serde::Serialize;

use super::statistics::{median, spread};

/// One line of the output. Fields that do not apply are null.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Measurement {
    pub(super) driver: String,
    /// The store's product and version.
    pub(super) server: Option<String>,
    pub(super) name: &'static str,
    /// The measured value, in `unit`.
    pub(super) value: f64,
    pub(super) unit: &'static str,
    /// The value it is compared with, in the same unit.
    pub(super) raw: Option<f64>,
    /// `value` as a multiple of `raw`.
    pub(super) ratio: Option<f64>,
    /// The target: for `ratio` if there is one, else for `value`.
    pub(super) goal: Option<f64>,
    pub(super) reached: Option<bool>,
    /// The time of a single operation.
    pub(super) p50_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
    pub(super) rounds: Option<usize>,
    /// The interquartile range over all rounds, as a fraction of the median.
    pub(super) spread: Option<f64>,
    /// How often a limit was exceeded.
    pub(super) violations: Option<usize>,
}

/// The condition under which a goal is reached.
#[derive(Debug, Clone, Copy)]
pub(super) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Measurement {
    pub(super) fn new(name: &'static str, value: f64, unit: &'static str) -> Self {
        Self {
            name,
            value,
            unit,
            ..Self::default()
        }
    }

    /// A measurement from the values of many rounds.
    pub(super) fn of_rounds(name: &'static str, values: &[f64], unit: &'static str) -> Self {
        Self {
            rounds: Some(values.len()),
            spread: Some(spread(values)),
            ..Self::new(name, median(values), unit)
        }
    }

    /// Compares with the value of rounds that alternated with these.
    pub(super) fn against(mut self, raw: f64) -> Self {
        self.raw = Some(raw);
        self.ratio = (raw > 0.0).then(|| self.value / raw);
        self
    }

    pub(super) fn goal(mut self, goal: Goal) -> Self {
        let measured = self.ratio.unwrap_or(self.value);
        let (figure, reached) = match goal {
            Goal::AtLeast(least) => (least, measured >= least),
            Goal::AtMost(most) => (most, measured <= most),
        };
        self.goal = Some(figure);
        self.reached = Some(reached && self.violations.unwrap_or_default() == 0);
        self
    }

    pub(super) fn latencies(mut self, p50_us: f64, p99_us: f64) -> Self {
        self.p50_us = Some(p50_us);
        self.p99_us = Some(p99_us);
        self
    }

    pub(super) fn at(mut self, driver: DriverKind, server: Option<String>) -> Self {
        self.driver = driver.to_string();
        self.server = server;
        self
    }

    pub(super) fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }
}

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

impl Measurements {
    pub(super) fn push(&mut self, measurement: Measurement) {
        self.0.push(measurement);
    }

    pub(super) fn a_limit_was_exceeded(&self) -> bool {
        self.0
            .iter()
            .any(|measured| measured.violations.is_some_and(|violations| violations > 0))
    }

    pub(super) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY).set_header(HEADER);
        for measured in &self.0 {
            let number = |value: Option<f64>| value.map(figure).unwrap_or_default();
            let reached = match (measured.reached, measured.violations.unwrap_or_default()) {
                (_, violations @ 1..) => format!("limit exceeded {violations} times"),
                (Some(true), _) => "yes".to_owned(),
                (Some(false), _) => "no".to_owned(),
                (None, _) => String::new(),
            };
            table.add_row([
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
            ]);
        }
        for column in [1, 3, 4, 5, 7, 8, 9] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let server = self.0.first().and_then(|first| first.server.clone());
        let driver = self.0.first().map(|first| first.driver.clone());
        let what = server.or(driver).unwrap_or_default();
        format!("{what}\n{table}\n")
    }
}

/// Formats a value with three significant digits.
fn figure(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(measurement: &Measurement) -> serde_json::Value {
        let mut line = Vec::new();
        measurement.json(&mut line).unwrap();
        serde_json::from_slice(&line).unwrap()
    }

    #[test]
    fn every_field_is_there_and_null_where_it_does_not_apply() {
        let measured = Measurement::new("footprint", 312.0, "bytes")
            .goal(Goal::AtMost(400.0))
            .at(DriverKind::Memory, None);
        let fields = [
            "driver",
            "server",
            "name",
            "value",
            "unit",
            "raw",
            "ratio",
            "goal",
            "reached",
            "p50_us",
            "p99_us",
            "rounds",
            "spread",
            "violations",
        ];
        let line = json(&measured);
        let keys: Vec<_> = line.as_object().unwrap().keys().collect();
        assert_eq!(keys.len(), fields.len());
        assert!(fields.iter().all(|field| line.get(field).is_some()));
        assert!(line["raw"].is_null() && line["p50_us"].is_null());
        assert_eq!(line["reached"], true);
    }

    #[test]
    fn a_goal_is_measured_by_the_ratio_and_missed_by_any_violation() {
        let rates = [90.0, 100.0, 110.0];
        let measured = Measurement::of_rounds("contended", &rates, "cycles/s").against(120.0);
        assert_eq!(
            measured.clone().goal(Goal::AtLeast(0.8)).reached,
            Some(true)
        );
        assert_eq!(
            measured.clone().goal(Goal::AtLeast(0.9)).reached,
            Some(false)
        );
        let exceeded = Measurement {
            violations: Some(1),
            ..measured
        };
        assert_eq!(exceeded.goal(Goal::AtLeast(0.8)).reached, Some(false));
    }
}
