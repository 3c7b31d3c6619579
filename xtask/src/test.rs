//! `cargo xtask test`: the tests of the workspace, and a word on what was
//! left out.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::path::Path;

use anyhow::{Result, bail, ensure};

use crate::drivers::{self, DRIVERS};
use crate::run::CommandLine;
use crate::servers::Servers;
use crate::tools;

/// Why a driver that [`DRIVERS`] names is not tested.
const ABSENT: &str = "not part of the workspace yet";

/// What may be skipped where `CI` is set. The list is exact: a skip that is
/// not in it fails, and so does an entry that skips nothing any more.
const EXPECTED_SKIPS: [(&str, &str); 5] = [
    (
        "server::leases_and_crashes::s41_a_wrong_clock_changes_nothing",
        NO_CLOCK,
    ),
    (
        "postgres::leases_and_crashes::s41_a_wrong_clock_changes_nothing",
        NO_CLOCK,
    ),
    (
        "newest_postgres::leases_and_crashes::s41_a_wrong_clock_changes_nothing",
        NO_CLOCK,
    ),
    (
        "etcd::leases_and_crashes::s41_a_wrong_clock_changes_nothing",
        NO_TIME_OF_DAY,
    ),
    (
        "newest_etcd::leases_and_crashes::s41_a_wrong_clock_changes_nothing",
        NO_TIME_OF_DAY,
    ),
];

const NO_TIME_OF_DAY: &str = "etcd has no time of day that anybody could set";
const NO_CLOCK: &str = "nobody can set the clock of a server";

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

/// Runs the tests, documentation tests included, with the servers that the
/// drivers need.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let present = drivers::present(root);
    let mut tally = Tally::default();
    let command = command(options, &present)?;
    if tested(options, &present).contains(&"etcd") {
        tools::ensure(root, &tools::PROTOC)?;
    }
    let servers = Servers::start(root, &tested(options, &present))?;
    let command = with_servers(command, options, &servers);
    let success = command.run_watched(root, |line| tally.read(line))?;

    let mut skips = skips(&present, &tally);
    skips.extend_from_slice(servers.skips());
    drop(servers);
    println!("\n{}", report(&skips, options));
    for (driver, cases) in &tally.conformance {
        println!("conformance of {driver}: {cases}");
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);

    ensure!(success, "tests failed");
    if options.args.is_empty() {
        ensure!(tally.passed > 0, "no test ran at all");
        tally.check_conformance(&tested(options, &present))?;
    }
    if is_ci(env::var("CI").ok().as_deref()) {
        check_expected(&skips, &EXPECTED_SKIPS)?;
    }
    Ok(())
}

/// Something that was not tested, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skip {
    pub(crate) what: String,
    pub(crate) why: String,
}

/// The sums of the result lines of all test binaries, and what single lines tell.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Those ignored for a reason that they name.
    named: Vec<Skip>,
    /// By driver.
    conformance: BTreeMap<String, Cases>,
}

/// What came of the cases of the conformance suite.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Cases {
    passed: u64,
    failed: u64,
    left_out: u64,
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
    /// Adds a line like `test result: ok. 3 passed; 0 failed; 1 ignored; …`, or like
    /// `test memory::limits::s19_it_holds ... ok`; any other counts nothing.
    fn read(&mut self, line: &str) {
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

    /// A driver whose cases did not run is not tested, whatever else of it is.
    fn check_conformance(&self, drivers: &[&str]) -> Result<()> {
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

fn command(options: &Options, present: &[&str]) -> Result<CommandLine> {
    // All failures of a run are worth more than the first.
    let mut command = CommandLine::new("cargo test --locked --no-fail-fast");
    if options.drivers.is_empty() {
        // Off by default, as it needs protoc; the binary is tested with every store.
        command = command.arg("--workspace").arg("--features=pac-cli/etcd");
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
    Ok(command)
}

/// The driver whose case it is that a test is named after: `memory::limits::s19_it_holds`.
fn driver_of_case(test: &str) -> Option<&str> {
    let mut parts = test.split("::");
    let (driver, _group, case) = (parts.next()?, parts.next()?, parts.next()?);
    let number = case.strip_prefix('s')?.split('_').next()?;
    let is_case = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    (is_case && parts.next().is_none()).then_some(driver)
}

/// The drivers that this run tests.
fn tested<'a>(options: &'a Options, present: &[&'a str]) -> Vec<&'a str> {
    if options.drivers.is_empty() {
        present.to_vec()
    } else {
        options.drivers.iter().map(String::as_str).collect()
    }
}

fn with_servers(mut command: CommandLine, options: &Options, servers: &Servers) -> CommandLine {
    for (name, value) in servers.env() {
        command = command.env(name, value);
    }
    let skipped = servers
        .unrunnable()
        .iter()
        .flat_map(|part| ["--skip", part]);
    let args = options.args.iter().map(String::as_str).chain(skipped);
    for (at, arg) in args.enumerate() {
        command = if at == 0 { command.arg("--") } else { command }.arg(arg);
    }
    command
}

fn skips(present: &[&str], tally: &Tally) -> Vec<Skip> {
    let absent = DRIVERS.iter().filter(|driver| !present.contains(driver));
    let mut skips: Vec<Skip> = absent
        .map(|driver| Skip {
            what: format!("driver {driver}"),
            why: ABSENT.to_owned(),
        })
        .collect();
    skips.extend(tally.named.iter().cloned());
    let nameless = tally.ignored.saturating_sub(tally.named.len() as u64);
    if nameless > 0 {
        skips.push(Skip {
            what: format!("{nameless} tests"),
            why: "marked to be ignored".to_owned(),
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
            expected.contains(&(what.as_str(), why.as_str())),
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
            "cargo test --locked --no-fail-fast --workspace --features=pac-cli/etcd"
        );
    }

    #[test]
    fn a_driver_limits_the_run_and_arguments_are_handed_on() {
        let mut options = of_drivers(&["memory"]);
        options.args = vec!["scenario_07".to_owned(), "--nocapture".to_owned()];
        let command = command(&options, &["memory"]).unwrap();
        let command = with_servers(command, &options, &Servers::default()).to_string();
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
    fn a_case_that_is_left_out_is_a_skip_with_its_reason() {
        let mut tally = Tally::default();
        tally.read("test etcd::leases_and_crashes::s41_a_clock ... ignored, no clock to set");
        tally.read("test result: ok. 9 passed; 0 failed; 1 ignored; 0 measured");
        let skips = skips(&DRIVERS, &tally);
        let left_out = ("etcd::leases_and_crashes::s41_a_clock", "no clock to set");
        check_expected(&skips, &[left_out]).unwrap();
        assert!(check_expected(&skips, &[]).is_err());
    }

    #[test]
    fn the_drivers_that_are_tested_have_to_run_their_cases() {
        let present = ["memory", "etcd"];
        assert_eq!(tested(&Options::default(), &present), present);
        assert_eq!(tested(&of_drivers(&["etcd"]), &present), ["etcd"]);
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

        let ignored = Tally {
            ignored: 2,
            ..Tally::default()
        };
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
