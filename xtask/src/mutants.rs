//! `cargo xtask mutants`: determines which checks catch which mutant, and compares that with
//! `docs/testing.md`.

use std::path::Path;

use anyhow::Result;

use crate::run::CommandLine;

/// If this variable is set, the tests write the document instead of comparing it.
const WRITE: &str = "PAC_WRITE_MUTANTS";

/// The checks of the protocol and of managers against the mutants; and the model check, which CI
/// runs as a stage of its own.
const TESTS: [&str; 2] = [
    "cargo test --locked --package pac-conformance --test mutants",
    MODEL_CHECK,
];

/// Optimised: the check visits millions of states.
pub(crate) const MODEL_CHECK: &str = "cargo test --profile model --locked --package pac-conformance \
    --features model --test model -- --nocapture --test-threads=1";

/// What to do with the tables in `docs/testing.md`; compare them by default.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write the tables of what was found into docs/testing.md
    #[arg(long)]
    write: bool,
}

/// Runs the checks against every mutant.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let mut commands = commands(options).into_iter();
    commands.try_for_each(|command| command.run(root))
}

fn commands(options: &Options) -> [CommandLine; 2] {
    TESTS.map(CommandLine::new).map(|test| match options.write {
        true => test.env(WRITE, "1"),
        false => test,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_written_only_when_asked_for() {
        let [compare, write] = [false, true]
            .map(|write| commands(&Options { write }).map(|command| command.to_string()));
        for (compare, write) in compare.iter().zip(&write) {
            assert!(compare.starts_with("cargo test"), "{compare}");
            assert_eq!(*write, format!("{WRITE}=1 {compare}"));
        }
    }
}
