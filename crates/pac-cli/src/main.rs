//! `pac`: per-repository concurrency limits from a shell.

mod config;
mod exit;
mod output;
mod replay;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use config::Sources;

/// Concurrency limits, strict FIFO queues and fenced leases, per repository.
#[derive(Debug, Parser)]
#[command(name = "pac", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    sources: Sources,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the settings in effect and where each comes from, or check files of them.
    Config(With<config::Args>),
    /// Feed a recorded stream of PipelineRuns through the manager and show what the limits did.
    Replay(With<replay::Args>),
}

/// The arguments of a command, and the options that may stand on either side of its name.
/// (A global option of clap's forgets those before the name when there are some behind it.)
#[derive(Debug, clap::Args)]
struct With<A: clap::Args> {
    #[command(flatten)]
    args: A,
    #[command(flatten)]
    sources: Sources,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Config(With { args, sources }) => {
            config::run(&args, &cli.sources.followed_by(sources))
        }
        Command::Replay(With { args, sources }) => {
            cli.sources.followed_by(sources).note_unused("replay");
            replay::run(&args)
        }
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
