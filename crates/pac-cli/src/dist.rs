//! Generates completions and manual pages from the command line's definition, for `cargo xtask
//! dist`.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::Cli;
use crate::exit::{Exit, Failure};

/// The name of the hidden subcommand.
pub(crate) const NAME: &str = "dist-files";

/// The arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to write `completions` and `man`
    directory: PathBuf,
}

/// Writes one completion script for each shell, and one manual page for each command.
pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    write(args).map_err(|error| {
        let message = format!("{}: cannot write: {error}", args.directory.display());
        Failure::new(Exit::Output, message)
    })?;
    Ok(Exit::Success)
}

fn write(args: &Args) -> io::Result<()> {
    let (completions, man) = (
        args.directory.join("completions"),
        args.directory.join("man"),
    );
    fs::create_dir_all(&completions)?;
    fs::create_dir_all(&man)?;
    for shell in Shell::value_variants() {
        clap_complete::generate_to(*shell, &mut Cli::command(), "pac", &completions)?;
    }
    clap_mangen::generate_to(Cli::command(), man)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_and_every_command_gets_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let args = Args {
            directory: directory.path().to_owned(),
        };
        write(&args).unwrap();
        let bash = fs::read_to_string(directory.path().join("completions/pac.bash")).unwrap();
        assert!(bash.contains("--wait-timeout"));
        for command in Cli::command()
            .get_subcommands()
            .filter(|one| !one.is_hide_set())
        {
            let page = directory
                .path()
                .join(format!("man/pac-{}.1", command.get_name()));
            assert!(page.is_file(), "{}", page.display());
        }
        assert!(!directory.path().join(format!("man/pac-{NAME}.1")).exists());
    }
}
