//! `pac config`: the settings in effect.

mod show;
mod sources;

use std::path::PathBuf;

use clap::ValueEnum;

use crate::exit::{Exit, Failure};
use crate::output;

pub(crate) use sources::Sources;

const AFTER_HELP: &str = "\
Sources, strongest first: --set; the environment; Secrets; ConfigMaps and plain maps; defaults.
Of two files of one kind, the later one holds. An empty value counts as none, so an empty
password in a ConfigMap is read from the Secret. Every key has a variable: postgresql-host is
PAC_POSTGRESQL_HOST. Passwords, and what else comes from a Secret, are not shown.

Exit codes:
   0  the settings are right
   2  wrong arguments
  74  output cannot be written
  78  the settings are wrong; all that is wrong is named, each with its file and line";

/// The arguments of `pac config`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Only check these files, with those of --config, and not the environment
    #[arg(long, value_name = "FILES", num_args = 1.., conflicts_with = "output")]
    check: Vec<PathBuf>,

    /// Do not look at the certificates, keys and password files that settings name: for a check
    /// elsewhere than where the settings will be used
    #[arg(long)]
    ignore_named_files: bool,

    /// How to print the settings
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A table, and what the settings amount to
    Table,
    /// A JSON array
    Json,
    /// A plain map, to be used as settings again
    Yaml,
}

/// Prints or checks the settings.
pub(crate) fn run(args: &Args, sources: &Sources) -> Result<Exit, Failure> {
    let checking = !args.check.is_empty();
    let mut loader = if checking {
        sources.loader_without_environment(&args.check)?
    } else {
        sources.loader()?
    };
    if args.ignore_named_files {
        loader = loader.without_looking_at_files();
    }
    let loaded = loader.load()?;
    match args.output {
        _ if checking => {
            output::print(|out| {
                writeln!(out, "the settings are right: {}", show::summary(&loaded))
            })?;
        }
        Output::Table => output::print(|out| out.write_all(show::table(&loaded).as_bytes()))?,
        Output::Json => output::print_json(|out| show::json(&loaded, out))?,
        Output::Yaml => output::print_json(|out| out.write_all(show::yaml(&loaded)?.as_bytes()))?,
    }
    Ok(Exit::Success)
}
