//! `pac limit`: shows and sets a limit.

use pac_concurrency::{Limit, PipelineRunKey, RepositoryKey, Settings};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::format::{FormatArg, print_result};
use crate::store::{self, confirm};

const AFTER_HELP: &str = "\
Without N the limit in force is shown, and nothing is changed. 0 is no limit: all that waits starts at
once, so it asks first where something waits.

The limit holds until another is set, or a controller announces one from a Repository that was
changed since. Raising it starts who may start now; lowering it evicts nobody.

Exit codes: 1 when the answer was no, or the store knows nothing of a repository whose limit is to be
shown.";

/// The arguments of `pac limit`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The repository
    #[arg(value_name = "NS/NAME")]
    repository: RepositoryKey,

    /// How many may run at once; 0 for no limit
    #[arg(value_name = "N")]
    limit: Option<u32>,

    /// Do not ask before all that waits is started
    #[arg(long, requires = "limit")]
    yes: bool,

    #[command(flatten)]
    output: FormatArg,
}

/// The JSON and YAML output where a limit is set.
#[derive(Serialize)]
struct Shape<'a> {
    repository: &'a str,
    limit: u32,
    promoted: Vec<&'a str>,
}

/// The JSON and YAML output where a limit is shown.
#[derive(Serialize)]
struct Shown<'a> {
    repository: &'a str,
    limit: u32,
}

/// Shows or sets the limit.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Failure> {
    match args.limit {
        Some(limit) => set(args, Limit::new(limit), settings),
        None => show(args, settings),
    }
}

fn show(args: &Args, settings: &Settings) -> Result<Exit, Failure> {
    let status = store::block_on(async {
        let reader = store::reader(settings).await?;
        Ok(reader.status(&args.repository).await?)
    })?;
    if !status.exists {
        let message = format!("the store knows nothing of {}", args.repository);
        return Err(Failure::new(Exit::Negative, message));
    }
    let sentence = format!("the limit of {} is {}", args.repository, status.limit);
    let shape = Shown {
        repository: args.repository.as_str(),
        limit: status.limit.get().unwrap_or(0),
    };
    print_result(args.output.format, &sentence, &shape)?;
    Ok(Exit::Success)
}

fn set(args: &Args, limit: Limit, settings: &Settings) -> Result<Exit, Failure> {
    let change = store::block_on(store::with_manager(settings, async |manager| {
        if limit == Limit::UNLIMITED {
            let repository = &args.repository;
            let waiting = manager.status(repository).await?.queued.len();
            if waiting > 0 {
                let question = format!(
                    "0 is no limit: start what waits in {repository} ({waiting}), and all that comes?"
                );
                confirm(&question, args.yes)?;
            }
        }
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
