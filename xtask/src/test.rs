//! `cargo xtask test`: runs the tests of the workspace, and reports what was skipped.

mod binaries;
mod tally;

use std::env;
use std::num::NonZero;
use std::path::Path;
use std::thread::available_parallelism;

use anyhow::{Result, bail, ensure};

use crate::drivers::{self, DRIVERS};
use crate::run::CommandLine;
use crate::servers::{GIVEN_CLUSTER, NO_CLUSTER, Servers};
use crate::skip::Skip;
use crate::tools;
use binaries::Selection;
use tally::Tally;

/// Why a driver that [`DRIVERS`] names is not tested.
const ABSENT: &str = "not part of the workspace yet";

/// Up to this many failures may be due to load on the machine, and are tried again.
const SECOND_CHANCES: usize = 5;

/// Most tests wait for clocks and servers, so one thread per core would leave two cores idle. A
/// test that measures milliseconds runs alone in its binary in any case.
const THREADS: &str = "RUST_TEST_THREADS";
const LEAST_THREADS: usize = 6;

/// The skips allowed where `CI` is set. The list is exact: a skip that is not in it is an error,
/// and so is an entry that no longer skips anything, but for that of the cluster, which may be given.
const EXPECTED_SKIPS: [(&str, &str); 11] = [
    (GIVEN_CLUSTER, NO_CLUSTER),
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
    (
        "mock::leases_and_crashes::s41_a_wrong_clock_changes_nothing",
        NO_TIME_OF_DAY,
    ),
    ("mock::state::s47_every_transition_has_its_time", REAL_TIME),
    (
        "mock::time_limits::a_run_waits_for_as_long_as_it_may",
        REAL_TIME,
    ),
    (
        "mock::time_limits::a_waiting_run_times_out_without_its_controller",
        REAL_TIME,
    ),
    (
        "mock::time_limits::a_run_is_asked_to_end_once_it_has_held_its_slot_for_long",
        REAL_TIME,
    ),
];

const NO_TIME_OF_DAY: &str = "etcd has no time of day that anybody could set";
const REAL_TIME: &str = "runs by itself, in real time";
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
    let mut servers = Servers::start(root, &tested(options, &present))?;
    servers.look_for_a_cluster();
    let env = |line| with_env(line, &servers);
    let selection = Selection {
        args: &options.args,
        unrunnable: servers.unrunnable(),
    };
    let mut success = binaries::run(root, &command, env, &selection, &mut tally)?;
    if !success && (1..=SECOND_CHANCES).contains(&tally.failures.len()) {
        success = passes_alone(root, with_env(command, &servers), &mut tally)?;
    }

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
        check_expected(&skips, &expected(&skips))?;
    }
    Ok(())
}

/// Runs the failed tests again, alone, and reports that: tests against servers measure time,
/// which other load on the machine may affect.
fn passes_alone(root: &Path, command: CommandLine, tally: &mut Tally) -> Result<bool> {
    let failures = std::mem::take(&mut tally.failures);
    println!("\nTRIED AGAIN, alone: {}", failures.join(", "));
    let mut again = Tally::default();
    let command = failures.iter().fold(
        command.arg("--").arg("--exact").arg("--test-threads=1"),
        CommandLine::arg,
    );
    let success = command.run_watched(root, |line| again.read(line))?;
    // Every failed test must have run again. A failure without a test, such as a crash or a
    // failed build, cannot be repeated.
    let all = again.passed >= failures.len() as u64 && failures.len() as u64 == tally.failed;
    if success && all {
        println!(
            "\nPASSED ALONE, after failing beside others: {}",
            failures.join(", ")
        );
        tally.passed += tally.failed;
        tally.failed = 0;
        for (driver, cases) in again.conformance {
            let first = tally.conformance.entry(driver).or_default();
            first.passed += cases.passed;
            first.failed -= cases.passed.min(first.failed);
        }
    }
    Ok(success && all)
}

fn command(options: &Options, present: &[&str]) -> Result<CommandLine> {
    // Report all failures of a run, not only the first.
    let mut command = CommandLine::new("cargo test --locked --no-fail-fast");
    if options.drivers.is_empty() {
        // etcd is off by default, since it needs protoc; the binary is tested with every store, and
        // with all of its commands.
        command = command
            .arg("--workspace")
            .arg("--features=pac-cli/etcd,pac-cli/kubernetes,pac-cli/mock");
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
        if driver == "etcd" {
            // It is compared with the servers that this driver is tested on, and the driver is tested
            // on it.
            command = command.arg("--package=pac-etcd-mock");
            command = command.arg("--features=pac-etcd/channel");
        }
    }
    Ok(command)
}

/// The drivers that this run tests.
fn tested<'a>(options: &'a Options, present: &[&'a str]) -> Vec<&'a str> {
    if options.drivers.is_empty() {
        present.to_vec()
    } else {
        options.drivers.iter().map(String::as_str).collect()
    }
}

fn with_env(mut command: CommandLine, servers: &Servers) -> CommandLine {
    if env::var_os(THREADS).is_none() {
        let cores = available_parallelism().map_or(1, NonZero::get);
        command = command.env(THREADS, &cores.max(LEAST_THREADS).to_string());
    }
    for (name, value) in servers.env() {
        command = command.env(name, value);
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

/// The lines that a person must not overlook.
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

/// The skips that have to happen here: those on a cluster only where none is given.
fn expected(skips: &[Skip]) -> Vec<(&'static str, &'static str)> {
    let is_skipped = |what: &str| skips.iter().any(|skip| skip.what == what);
    let expected = EXPECTED_SKIPS.into_iter();
    expected
        .filter(|(what, _)| *what != GIVEN_CLUSTER || is_skipped(what))
        .collect()
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
            "cargo test --locked --no-fail-fast --workspace \
             --features=pac-cli/etcd,pac-cli/kubernetes,pac-cli/mock"
        );
    }

    #[test]
    fn a_driver_limits_the_run() {
        let options = of_drivers(&["memory"]);
        let command = command(&options, &["memory"]).unwrap();
        let packages = "--package=pac-core --package=pac-tests --package=pac-memory";
        assert!(command.to_string().ends_with(packages), "{command}");
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
    fn what_passes_alone_is_counted_as_passed_and_what_did_not_run_is_not() {
        let failed = || {
            let mut tally = Tally::default();
            tally.read("test slow ... FAILED");
            tally.read("test result: FAILED. 3 passed; 1 failed; 0 ignored");
            tally
        };
        let root = Path::new(".");
        let run = |script: &str, tally: &mut Tally| {
            let command = CommandLine::new("sh -c").arg(script);
            passes_alone(root, command, tally).unwrap()
        };
        let mut tally = failed();
        assert!(run(
            "echo 'test result: ok. 1 passed; 0 failed'",
            &mut tally
        ));
        assert_eq!((tally.passed, tally.failed), (4, 0));
        let mut tally = failed();
        assert!(!run(
            "echo 'test result: ok. 0 passed; 0 failed'",
            &mut tally
        ));
        assert_eq!((tally.passed, tally.failed), (3, 1));
        assert!(!run(
            "echo 'test result: FAILED. 0 passed; 1 failed'; exit 1",
            &mut failed()
        ));
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
    fn a_cluster_may_be_given_and_need_not() {
        assert_eq!(expected(&[]).len(), EXPECTED_SKIPS.len() - 1);
        let without = Skip {
            what: GIVEN_CLUSTER.to_owned(),
            why: NO_CLUSTER.to_owned(),
        };
        assert_eq!(expected(&[without]), EXPECTED_SKIPS);
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
