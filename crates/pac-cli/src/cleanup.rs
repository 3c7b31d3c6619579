//! `pac cleanup`: forgets a repository.

use pac_concurrency::{PipelineRunKey, RepositoryKey, Settings};
use serde::Serialize;

use crate::counted::{counted, runs};
use crate::exit::{Exit, Failure};
use crate::format::{FormatArg, print_result};
use crate::store::{self, confirm};

const AFTER_HELP: &str = "\
Nothing is left of it in the store: its limit, its queue, its history. Runs that wait or run are
ended, and commands of them under `pac exec` too; it asks first if there are any. Should it come
back, its fencing tokens go on where they were.";

/// The arguments of `pac cleanup`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The repository
    #[arg(value_name = "NS/NAME")]
    repository: RepositoryKey,

    /// Do not ask
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    output: FormatArg,
}

/// The JSON and YAML output.
#[derive(Serialize)]
struct Shape<'a> {
    repository: &'a str,
    existed: bool,
    ended: Vec<&'a str>,
}

/// Removes the repository.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Failure> {
    let repository = &args.repository;
    let (existed, ended) = store::block_on(store::with_manager(settings, async |manager| {
        let status = manager.status(repository).await?;
        let live = runs(status.running.len(), status.queued.len());
        if !live.is_empty() {
            confirm(&format!("Remove {repository} with {live}?"), args.yes)?;
        }
        Ok((status.exists, manager.remove_repository(repository).await?))
    }))?;
    let sentence = match (existed, ended.len()) {
        (false, _) => format!("the store knows nothing of {repository}"),
        (true, 0) => format!("{repository} is removed"),
        (true, ended) => {
            let ended = counted(ended, "run", "runs");
            format!("{repository} is removed; {ended} ended with it")
        }
    };
    let shape = Shape {
        repository: repository.as_str(),
        existed,
        ended: ended.iter().map(PipelineRunKey::as_str).collect(),
    };
    print_result(args.output.format, &sentence, &shape)?;
    Ok(Exit::Success)
}
