//! `cargo xtask soak`: random commands against the protocol and managers, hostile inputs for all
//! that is parsed, and random sequences on the mock of etcd and on real ones, for as long as the
//! caller asks.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::run::CommandLine;
use crate::servers::Servers;
use crate::tools;

/// How long to go on; cases and minutes are a minimum.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Try so many cases
    #[arg(long, value_name = "N")]
    cases: Option<u64>,
    /// Go on for so many minutes (10 when neither is given)
    #[arg(long, value_name = "M")]
    minutes: Option<u64>,
    /// Then fuzz each target for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    fuzz: u64,
    /// Then try so many sequences on the mock of etcd and on each version of etcd
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    sequences: u64,
    /// Begin with this seed, to repeat what was found with it (another one
    /// every time when none is given)
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the program that tries the commands. A failure is printed with the command that repeats
/// it.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = options.seed.unwrap_or(now.map_or(0, |now| now.as_secs()));
    command(options, seed).run(root)?;
    if options.fuzz > 0 {
        fuzz(&fuzzed(root)?, options.fuzz, seed).run(root)?;
    }
    if options.sequences == 0 {
        return Ok(());
    }
    tools::ensure(root, &tools::PROTOC)?;
    let servers = Servers::start(root, &["etcd"])?;
    let command = sequences(options.sequences, seed);
    let command = servers
        .env()
        .iter()
        .fold(command, |command, (name, value)| command.env(name, value));
    let unrunnable = servers.unrunnable().iter();
    let command = unrunnable.fold(command, |command, part| command.arg("--skip").arg(*part));
    command.run(root)
}

/// The crates that have targets for fuzzing: those with a corpus.
fn fuzzed(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root.join("crates"))? {
        let directory = entry?;
        if directory.path().join("fuzz").is_dir() {
            names.push(directory.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The tests of `pac-fuzz`, which take as long as they are told.
fn fuzz(crates: &[String], seconds: u64, seed: u64) -> CommandLine {
    let command = CommandLine::new("cargo test --locked --lib --bins --tests")
        .env("PAC_FUZZ_SECONDS", &seconds.to_string())
        .env("PAC_FUZZ_SEED", &seed.to_string());
    let of_all = |command: CommandLine, name: &String| command.arg("--package").arg(name);
    crates.iter().fold(command, of_all).arg("--").arg("fuzz_")
}

/// The test that compares the mock of etcd, with more sequences than it has in CI.
fn sequences(count: u64, seed: u64) -> CommandLine {
    CommandLine::new("cargo test --locked --package pac-etcd-mock --test differential")
        .env("PAC_TEST_SEQUENCES", &count.to_string())
        .env("PAC_TEST_SEED", &seed.to_string())
        .arg("--")
        .arg("agree")
}

/// Without optimisation: assertions and overflow checks are enabled, and only what the tests
/// have built is needed.
fn command(options: &Options, seed: u64) -> CommandLine {
    let minutes = match (options.minutes, options.cases) {
        (Some(minutes), _) => minutes,
        (None, Some(_)) => 0,
        (None, None) => 10,
    };
    CommandLine::new("cargo run --locked --package pac-conformance --features random")
        .arg("--example=soak")
        .arg("--")
        .arg(seed.to_string())
        .arg(options.cases.unwrap_or(0).to_string())
        .arg(minutes.saturating_mul(60).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(cases: Option<u64>, minutes: Option<u64>, seed: Option<u64>) -> String {
        let options = Options {
            cases,
            minutes,
            fuzz: 0,
            sequences: 0,
            seed,
        };
        let command = command(&options, seed.unwrap_or(7)).to_string();
        let arguments = command.split_once(" -- ").map(|(_, arguments)| arguments);
        arguments.unwrap().to_owned()
    }

    #[test]
    fn seed_cases_and_seconds_are_handed_on() {
        assert_eq!(arguments(None, None, None), "7 0 600");
        assert_eq!(arguments(Some(5), None, None), "7 5 0");
        assert_eq!(arguments(Some(5), Some(2), Some(3)), "3 5 120");
    }

    #[test]
    fn every_crate_with_a_corpus_is_fuzzed() {
        let crates = fuzzed(&crate::run::root()).unwrap();
        assert!(
            crates.iter().any(|name| name == "pac-concurrency"),
            "{crates:?}"
        );
        assert!(!crates.iter().any(|name| name == "pac-fuzz"), "{crates:?}");
        let command = fuzz(&["a".to_owned(), "b".to_owned()], 5, 7).to_string();
        assert_eq!(
            command,
            "PAC_FUZZ_SECONDS=5 PAC_FUZZ_SEED=7 cargo test --locked --lib --bins --tests \
             --package a --package b -- fuzz_"
        );
    }

    #[test]
    fn the_number_of_sequences_and_the_seed_are_handed_on() {
        let command = sequences(5, 7).to_string();
        assert!(command.starts_with("PAC_TEST_SEQUENCES=5 PAC_TEST_SEED=7 cargo test"));
    }
}
