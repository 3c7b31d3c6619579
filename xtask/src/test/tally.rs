//! Counts the results that test binaries print.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, ensure};

use crate::skip::Skip;

/// The sums of the result lines of all test binaries, and the results of single tests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) ignored: u64,
    /// The names of the failed tests.
    pub(super) failures: Vec<String>,
    /// The ignored tests that give a reason.
    pub(super) named: Vec<Skip>,
    /// The conformance cases, by driver.
    pub(super) conformance: BTreeMap<String, Cases>,
}

/// The results of the conformance cases.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cases {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) left_out: u64,
}

impl fmt::Display for Cases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            left_out,
        } = self;
        write!(
            f,
            "{passed} cases passed, {failed} failed, {left_out} left out"
        )
    }
}

impl Tally {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …` or `test
    /// memory::limits::s19_it_holds ... ok`; ignores any other.
    pub(super) fn read(&mut self, line: &str) {
        let Some(line) = line.strip_prefix("test ") else {
            return;
        };
        match line.strip_prefix("result: ") {
            Some(result) => self.add(result),
            None => {
                if let Some((name, result)) = line.split_once(" ... ") {
                    self.note(name, result);
                }
            }
        }
    }

    fn note(&mut self, name: &str, result: &str) {
        if result == "FAILED" {
            self.failures.push(name.to_owned());
        }
        let why = result.strip_prefix("ignored, ");
        if let Some(why) = why {
            self.named.push(Skip {
                what: name.to_owned(),
                why: why.to_owned(),
            });
        }
        if let Some(driver) = driver_of_case(name) {
            let cases = self.conformance.entry(driver.to_owned()).or_default();
            match result {
                "ok" => cases.passed += 1,
                "FAILED" => cases.failed += 1,
                _ => cases.left_out += 1,
            }
        }
    }

    /// Fails if a driver's conformance cases did not run, even if other tests of it did.
    pub(super) fn check_conformance(&self, drivers: &[&str]) -> Result<()> {
        for driver in drivers {
            let passed = self
                .conformance
                .get(*driver)
                .map_or(0, |cases| cases.passed);
            ensure!(
                passed > 0,
                "no case of the conformance suite ran for driver {driver}; \
                 its test file names the opener `{driver}`"
            );
        }
        Ok(())
    }

    fn add(&mut self, result: &str) {
        let Some((_, counts)) = result.split_once(". ") else {
            return;
        };
        for count in counts.split("; ") {
            match count.split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                Some((number, "ignored")) => self.ignored += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

/// The driver that a conformance test belongs to: `memory` for `memory::limits::s19_it_holds`.
fn driver_of_case(test: &str) -> Option<&str> {
    let mut parts = test.split("::");
    let (driver, _group, case) = (parts.next()?, parts.next()?, parts.next()?);
    let number = case.strip_prefix('s')?.split('_').next()?;
    let is_case = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    (is_case && parts.next().is_none()).then_some(driver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_summed() {
        let mut tally = Tally::default();
        tally.read("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out");
        tally.read("test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured");
        tally.read("test a_test ... ok");
        assert_eq!(
            tally,
            Tally {
                passed: 7,
                failed: 2,
                ignored: 1,
                ..Tally::default()
            }
        );
    }

    #[test]
    fn cases_are_counted_for_each_driver() {
        let mut tally = Tally::default();
        for line in [
            "test memory::limits::s19_raising_starts_exactly_as_many ... ok",
            "test memory::leases_and_crashes::s33_s34_s35_a_crash_frees ... ok",
            "test etcd::limits::s19_raising_starts_exactly_as_many ... FAILED",
            "test etcd::leases_and_crashes::s41_a_wrong_clock ... ignored, no clock to set",
            "test postgres::store::rows_are_read_back ... ok",
            "test sessions::tests::spans_add_up ... ok",
            "test src/lib.rs - s19_x (line 8) ... ok",
        ] {
            tally.read(line);
        }
        let memory = tally.conformance["memory"];
        assert_eq!(memory.to_string(), "2 cases passed, 0 failed, 0 left out");
        let etcd = tally.conformance["etcd"];
        assert_eq!(etcd.to_string(), "0 cases passed, 1 failed, 1 left out");
        assert_eq!(tally.conformance.len(), 2);
        tally.check_conformance(&["memory"]).unwrap();
        let error = tally.check_conformance(&["memory", "postgres"]);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("ran for driver postgres"), "{error}");
    }

    #[test]
    fn failures_are_known_by_name() {
        let mut tally = Tally::default();
        for line in [
            "test etcd::limits::s19_it_holds ... FAILED",
            "test another ... ok",
            "test a_third ... FAILED",
        ] {
            tally.read(line);
        }
        assert_eq!(tally.failures, ["etcd::limits::s19_it_holds", "a_third"]);
    }
}
