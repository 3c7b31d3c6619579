//! The workspace's own tasks: `cargo xtask --help` lists them.
//!
//! One file per command. Nothing here depends on a crate that it checks, so
//! the tasks run when the rest of the workspace does not build.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is how these tasks report"
)]

mod advisories;
mod bench;
mod ci;
mod dist;
mod drivers;
mod features;
mod miri;
mod mutants;
mod run;
mod servers;
mod skip;
mod soak;
mod test;
mod tidy;
mod tools;
mod user;

use std::process::ExitCode;

use clap::Parser;

/// The workspace's own tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Run the tests, and say what was skipped
    Test(test::Options),
    /// Run everything that a change must pass, in order
    Ci(ci::Options),
    /// Measure every driver, and write docs/performance.md
    Bench(bench::Options),
    /// Build the binary, shell completions, manual pages and the list of licenses into target/dist
    Dist,
    /// Look for known vulnerabilities of the dependencies (needs the network)
    Advisories,
    /// Check every combination of features, and what the default one pulls in
    Features,
    /// Check the rules of this repository
    Tidy,
    /// Try random commands for as long as one likes
    Soak(soak::Options),
    /// Check that every broken variant is caught
    Mutants(mutants::Options),
    /// Interpret the synchronous parts with Miri (needs a nightly toolchain)
    Miri,
}

fn main() -> ExitCode {
    let root = run::root();
    let done = match Task::parse() {
        Task::Test(options) => test::run(&root, &options),
        Task::Ci(options) => ci::run(&root, &options),
        Task::Bench(options) => bench::run(&root, &options),
        Task::Dist => dist::run(&root),
        Task::Advisories => advisories::run(&root),
        Task::Features => features::run(&root),
        Task::Tidy => tidy::run(&root),
        Task::Soak(options) => soak::run(&root, &options),
        Task::Mutants(options) => mutants::run(&root, &options),
        Task::Miri => miri::run(&root),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
