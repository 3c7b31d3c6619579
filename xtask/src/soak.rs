//! `cargo xtask soak`: random commands against the protocol and managers, for as long as the
//! caller asks.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::run::CommandLine;

/// How long to go on; both are a minimum.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Try so many cases
    #[arg(long, value_name = "N")]
    cases: Option<u64>,
    /// Go on for so many minutes (10 when neither is given)
    #[arg(long, value_name = "M")]
    minutes: Option<u64>,
    /// Begin with this seed, to repeat what was found with it (another one
    /// every time when none is given)
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the program that tries the commands. A failure is printed with the command that repeats
/// it.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = now.map_or(0, |now| now.as_secs());
    command(options, seed).run(root)
}

/// Without optimisation: assertions and overflow checks are enabled, and only what the tests
/// have built is needed.
fn command(options: &Options, seed: u64) -> CommandLine {
    let minutes = match (options.minutes, options.cases) {
        (Some(minutes), _) => minutes,
        (None, Some(_)) => 0,
        (None, None) => 10,
    };
    let seed = options.seed.unwrap_or(seed);
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
            seed,
        };
        let command = command(&options, 7).to_string();
        let arguments = command.split_once(" -- ").map(|(_, arguments)| arguments);
        arguments.unwrap().to_owned()
    }

    #[test]
    fn seed_cases_and_seconds_are_handed_on() {
        assert_eq!(arguments(None, None, None), "7 0 600");
        assert_eq!(arguments(Some(5), None, None), "7 5 0");
        assert_eq!(arguments(Some(5), Some(2), Some(3)), "3 5 120");
    }
}
