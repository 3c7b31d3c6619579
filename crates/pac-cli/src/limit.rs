//! `pac limit`: sets a limit.

use pac_concurrency::{Limit, PipelineRunKey, RepositoryKey, Settings};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::format::{FormatArg, print_result};
use crate::store;

const AFTER_HELP: &str = "\
The limit holds until another is set, or a controller announces one from a Repository that was
changed since. Raising it starts who may start now; lowering it evicts nobody.";

/// The arguments of `pac limit`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The repository
    #[arg(value_name = "NS/NAME")]
    repository: RepositoryKey,

    /// How many may run at once; 0 for no limit
    #[arg(value_name = "N")]
    limit: u32,

    #[command(flatten)]
    output: FormatArg,
}

/// The JSON and YAML output.
#[derive(Serialize)]
struct Shape<'a> {
    repository: &'a str,
    limit: u32,
    promoted: Vec<&'a str>,
}

/// Sets the limit.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Failure> {
    let limit = Limit::new(args.limit);
    let change = store::block_on(store::with_manager(settings, async |manager| {
        Ok(manager.set_limit(&args.repository, limit, None).await?)
    }))?;
    let promoted: Vec<_> = change.promoted.iter().map(PipelineRunKey::as_str).collect();
    let sentence = format!(
        "the limit of {} is {}{}",
        args.repository,
        change.limit,
        started(&promoted)
    );
    let shape = Shape {
        repository: args.repository.as_str(),
        limit: change.limit.get().unwrap_or(0),
        promoted,
    };
    print_result(args.output.format, &sentence, &shape)?;
    Ok(Exit::Success)
}

/// The runs that started, as the end of a sentence.
pub(crate) fn started(promoted: &[&str]) -> String {
    match promoted {
        [] => String::new(),
        runs => format!("; started: {}", runs.join(", ")),
    }
}
