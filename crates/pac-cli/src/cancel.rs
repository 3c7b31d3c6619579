//! `pac cancel`: ends a run that waits or runs.

use pac_concurrency::{PipelineRunKey, RepositoryKey, Settings};

use crate::exit::{Exit, Failure};
use crate::format::FormatArg;
use crate::release::report;
use crate::store;

const AFTER_HELP: &str = "\
A run that waits leaves the queue; one that runs loses its slot, and the next starts. A command
under `pac exec` is ended with it. For a PipelineRun, its controller asks the cluster to end it,
with its next comparison of both: within minutes.

Exit codes: 0 also when it had ended before, 1 when there is no such run.";

/// The arguments of `pac cancel`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The repository
    #[arg(value_name = "NS/NAME")]
    repository: RepositoryKey,

    /// The run
    #[arg(value_name = "RUN-NS/RUN-NAME")]
    run: PipelineRunKey,

    #[command(flatten)]
    output: FormatArg,
}

/// Ends the run.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Failure> {
    let answer = store::block_on(store::with_manager(settings, async |manager| {
        let ending = manager.cancel(&args.repository, &args.run, None).await?;
        Ok(ending.into())
    }))?;
    report(args.output.format, &args.repository, &args.run, &answer)
}
