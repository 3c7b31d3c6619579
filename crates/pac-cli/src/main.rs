//! `pac`: per-repository concurrency limits from a shell.

mod exit;
mod replay;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Concurrency limits, strict FIFO queues and fenced leases, per repository.
#[derive(Debug, Parser)]
#[command(name = "pac", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Feed a recorded stream of PipelineRuns through the manager and show what the limits did.
    Replay(replay::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Replay(args) => replay::run(&args),
    };
    let exit = result.unwrap_or_else(|failure| {
        // With stderr gone the exit code is all that is left to say it.
        let _ = writeln!(io::stderr().lock(), "pac: {failure}");
        failure.exit()
    });
    exit.into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
