//! `cargo xtask mutants`: which check catches which broken variant, and
//! whether the document says so.

use std::path::Path;

use anyhow::Result;

use crate::run::CommandLine;

/// Set where the test writes the document instead of comparing it.
const WRITE: &str = "PAC_WRITE_MUTANTS";

/// What to do with the table in `docs/testing.md`; compare it by default.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write the table of what was found into docs/testing.md
    #[arg(long)]
    write: bool,
}

/// Runs the checks against every mutant.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    command(options).run(root)
}

fn command(options: &Options) -> CommandLine {
    let test = CommandLine::new("cargo test --locked --package pac-conformance --test mutants");
    if options.write {
        test.env(WRITE, "1")
    } else {
        test
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_written_only_when_asked_for() {
        let compare = command(&Options { write: false }).to_string();
        assert!(compare.starts_with("cargo test"), "{compare}");
        let write = command(&Options { write: true }).to_string();
        assert_eq!(write, format!("{WRITE}=1 {compare}"));
    }
}
