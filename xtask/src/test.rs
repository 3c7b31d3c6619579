//! `cargo xtask test`: the tests of the workspace, and a word on what was
//! left out.

use std::env;
use std::path::Path;

use anyhow::{Result, bail, ensure};

use crate::drivers::{self, DRIVERS};
use crate::run::CommandLine;

/// Why a driver that [`DRIVERS`] names is not tested.
const ABSENT: &str = "not part of the workspace yet";

/// What may be skipped where `CI` is set. The list is exact: a skip that is
/// not in it fails, and so does an entry that skips nothing any more.
const EXPECTED_SKIPS: [(&str, &str); 2] = [("driver etcd", ABSENT), ("driver postgres", ABSENT)];

/// What to test; everything by default.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Test this driver alone, with the core and the tests across crates
    /// (can be given more than once)
    #[arg(long = "driver", value_name = "NAME")]
    drivers: Vec<String>,
    /// Arguments for the test binaries, as in `cargo test -- ARGS`
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// Runs the tests, documentation tests included.
///
/// The drivers of today need no server and no tool but cargo, so there is
/// nothing to install first.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let present = drivers::present(root);
    let mut tally = Tally::default();
    let success = command(options, &present)?.run_watched(root, |line| tally.read(line))?;

    let skips = skips(&present, &tally);
    println!("\n{}", report(&skips, options));
    println!("{} passed, {} failed", tally.passed, tally.failed);

    ensure!(success, "tests failed");
    ensure!(
        tally.passed > 0 || !options.args.is_empty(),
        "no test ran at all"
    );
    if is_ci(env::var("CI").ok().as_deref()) {
        check_expected(&skips, &EXPECTED_SKIPS)?;
    }
    Ok(())
}

/// Something that was not tested, and why.
#[derive(Debug, PartialEq, Eq)]
struct Skip {
    what: String,
    why: &'static str,
}

/// The sums of the result lines of all test binaries.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Tally {
    /// Adds a line like `test result: ok. 3 passed; 0 failed; 1 ignored; …`;
    /// any other counts nothing.
    fn read(&mut self, line: &str) {
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|result| result.split_once(". "))
        else {
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

fn command(options: &Options, present: &[&str]) -> Result<CommandLine> {
    // All failures of a run are worth more than the first.
    let mut command = CommandLine::new("cargo test --locked --no-fail-fast");
    if options.drivers.is_empty() {
        command = command.arg("--workspace");
    } else {
        command = command.arg("--package=pac-core").arg("--package=pac-tests");
    }
    for driver in &options.drivers {
        if !present.contains(&driver.as_str()) {
            bail!(
                "no driver `{driver}` to test; there is: {}",
                present.join(", ")
            );
        }
        command = command.arg(format!("--package={}", drivers::crate_name(driver)));
    }
    if !options.args.is_empty() {
        command = command.arg("--");
    }
    for arg in &options.args {
        command = command.arg(arg);
    }
    Ok(command)
}

fn skips(present: &[&str], tally: &Tally) -> Vec<Skip> {
    let absent = DRIVERS.iter().filter(|driver| !present.contains(driver));
    let mut skips: Vec<Skip> = absent
        .map(|driver| Skip {
            what: format!("driver {driver}"),
            why: ABSENT,
        })
        .collect();
    if tally.ignored > 0 {
        skips.push(Skip {
            what: format!("{} tests", tally.ignored),
            why: "marked to be ignored",
        });
    }
    skips
}

/// What a person must not overlook.
fn report(skips: &[Skip], options: &Options) -> String {
    let mut lines: Vec<String> = skips
        .iter()
        .map(|skip| format!("SKIPPED {}: {}", skip.what, skip.why))
        .collect();
    if !options.drivers.is_empty() {
        lines.push(format!(
            "SKIPPED all but pac-core, pac-tests and driver {}: --driver says so",
            options.drivers.join(", ")
        ));
    }
    if !options.args.is_empty() {
        lines.push("SKIPPED what the arguments after -- leave out".to_owned());
    }
    if lines.is_empty() {
        lines.push("nothing skipped".to_owned());
    }
    lines.join("\n")
}

fn check_expected(skips: &[Skip], expected: &[(&str, &str)]) -> Result<()> {
    for Skip { what, why } in skips {
        ensure!(
            expected.contains(&(what.as_str(), *why)),
            "{what} skipped ({why}), which CI does not expect; \
             run it, or add it to EXPECTED_SKIPS in xtask/src/test.rs"
        );
    }
    for (what, why) in expected {
        ensure!(
            skips
                .iter()
                .any(|skip| skip.what == *what && skip.why == *why),
            "{what} is not skipped any more; take it out of EXPECTED_SKIPS in xtask/src/test.rs"
        );
    }
    Ok(())
}

fn is_ci(variable: Option<&str>) -> bool {
    !matches!(variable, None | Some("" | "0" | "false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_drivers(drivers: &[&str]) -> Options {
        Options {
            drivers: drivers.iter().map(|&driver| driver.to_owned()).collect(),
            args: Vec::new(),
        }
    }

    #[test]
    fn everything_is_tested_by_default() {
        let command = command(&Options::default(), &["memory"]).unwrap();
        assert_eq!(
            command.to_string(),
            "cargo test --locked --no-fail-fast --workspace"
        );
    }

    #[test]
    fn a_driver_limits_the_run_and_arguments_are_handed_on() {
        let mut options = of_drivers(&["memory"]);
        options.args = vec!["scenario_07".to_owned(), "--nocapture".to_owned()];
        let command = command(&options, &["memory"]).unwrap().to_string();
        let packages = "--package=pac-core --package=pac-tests --package=pac-memory";
        assert!(command.contains(packages), "{command}");
        assert!(
            command.ends_with(" -- scenario_07 --nocapture"),
            "{command}"
        );
    }

    #[test]
    fn a_driver_that_does_not_exist_is_an_error_that_lists_those_that_do() {
        let error = command(&of_drivers(&["etcd"]), &["memory", "postgres"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no driver `etcd` to test; there is: memory, postgres"
        );
    }

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
                ignored: 1
            }
        );
    }

    #[test]
    fn a_skip_that_is_not_expected_fails() {
        let none = Tally::default();
        let today = skips(&["memory"], &none);
        check_expected(
            &today,
            &[("driver etcd", ABSENT), ("driver postgres", ABSENT)],
        )
        .unwrap();
        let error = check_expected(&today, &[]).unwrap_err().to_string();
        assert!(error.starts_with("driver etcd skipped"), "{error}");

        let ignored = Tally { ignored: 2, ..none };
        let error = check_expected(&skips(&DRIVERS, &ignored), &[])
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("2 tests skipped"), "{error}");
    }

    #[test]
    fn an_expected_skip_that_did_not_happen_fails() {
        let nothing = skips(&DRIVERS, &Tally::default());
        check_expected(&nothing, &[]).unwrap();
        let stale = [("driver etcd", ABSENT)];
        let error = check_expected(&nothing, &stale).unwrap_err().to_string();
        assert!(error.starts_with("driver etcd is not skipped"), "{error}");
    }

    #[test]
    fn ci_is_where_the_variable_says_so() {
        assert!(is_ci(Some("true")) && is_ci(Some("1")));
        assert!(!is_ci(None) && !is_ci(Some("")) && !is_ci(Some("false")));
    }

    #[test]
    fn what_is_skipped_is_said() {
        let skips = skips(&["memory"], &Tally::default());
        let report = report(&skips, &of_drivers(&["memory"]));
        assert!(report.contains("SKIPPED driver etcd: not part"), "{report}");
        assert!(report.contains("--driver says so"), "{report}");
        assert_eq!(super::report(&[], &Options::default()), "nothing skipped");
    }
}
