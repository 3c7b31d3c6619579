//! The result of a measurement.

use std::io::{self, Write};

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
    /// The target.
    pub(super) goal: Option<f64>,
    /// What the target is for: `ratio` or `value`.
    pub(super) goal_of: Option<&'static str>,
    pub(super) reached: Option<bool>,
    /// The time of a single operation; for a peer, from a release until the next task runs.
    pub(super) p50_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
    pub(super) rounds: Option<usize>,
    /// The interquartile range over all rounds, as a fraction of the median.
    pub(super) spread: Option<f64>,
    /// How often a limit was exceeded.
    pub(super) violations: Option<usize>,
    /// How the limit was kept, where several ways are compared.
    pub(super) peer: Option<Kept>,
}

/// A limit, and one of the ways to keep it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Kept {
    /// `pac`, or what people use instead.
    pub(super) by: &'static str,
    pub(super) limit: u32,
    /// The most tasks that asked later than another one and ran before it.
    pub(super) overtaken: usize,
    /// The time from kill -9 of a process that runs until the next task runs. Null where that was
    /// not measured, or where none ran.
    pub(super) after_kill_s: Option<f64>,
    /// Whether none ran after that.
    pub(super) leaked: Option<bool>,
}

impl Kept {
    /// The name of this project's own way.
    pub(super) const OURS: &'static str = "pac";
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

    /// Sets a goal for the ratio if there is one, else for the value.
    pub(super) fn goal(self, goal: Goal) -> Self {
        match self.ratio {
            Some(ratio) => self.judged("ratio", ratio, goal),
            None => self.goal_of_value(goal),
        }
    }

    pub(super) fn goal_of_value(self, goal: Goal) -> Self {
        let value = self.value;
        self.judged("value", value, goal)
    }

    fn judged(mut self, of: &'static str, measured: f64, goal: Goal) -> Self {
        let (figure, reached) = match goal {
            Goal::AtLeast(least) => (least, measured >= least),
            Goal::AtMost(most) => (most, measured <= most),
        };
        self.goal = Some(figure);
        self.goal_of = Some(of);
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

    /// Whether this project let more runs in than the limit permits.
    pub(super) fn exceeds_a_limit(&self) -> bool {
        let ours = self.peer.is_none_or(|kept| kept.by == Kept::OURS);
        ours && self.violations.is_some_and(|violations| violations > 0)
    }

    pub(super) fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
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
            "goal_of",
            "reached",
            "p50_us",
            "p99_us",
            "rounds",
            "spread",
            "violations",
            "peer",
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

    #[test]
    fn a_goal_can_be_for_the_value_although_there_is_a_ratio() {
        let measured = Measurement::new("wal", 590.0, "bytes a commit").against(390.0);
        let reached = measured.clone().goal_of_value(Goal::AtMost(600.0));
        assert_eq!(
            (reached.goal_of, reached.reached),
            (Some("value"), Some(true))
        );
        let missed = measured.goal(Goal::AtMost(1.5));
        assert_eq!(
            (missed.goal_of, missed.reached),
            (Some("ratio"), Some(false))
        );
    }

    #[test]
    fn only_a_limit_of_our_own_that_was_exceeded_counts() {
        let by = |by| Kept {
            by,
            limit: 1,
            overtaken: 0,
            after_kill_s: None,
            leaked: None,
        };
        let exceeded = |peer| Measurement {
            violations: Some(1),
            peer,
            ..Measurement::new("peers", 1.0, "cycles/s")
        };
        assert!(exceeded(None).exceeds_a_limit());
        assert!(exceeded(Some(by(Kept::OURS))).exceeds_a_limit());
        assert!(!exceeded(Some(by("row counter"))).exceeds_a_limit());
    }
}
