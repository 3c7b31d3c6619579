//! `pac doctor`: tries the store of the settings, one thing after the other.

mod connection;
mod report;
mod trial;

use pac_concurrency::LoadedSettings;

use crate::config::Sources;
use crate::exit::{Exit, Failure};
use crate::format::FormatArg;
use crate::store;

use report::{Report, Step};

const AFTER_HELP: &str = "\
It writes to the store, and removes it again: a repository pac-doctor/session-N, with one run, and
the sessions of two processes. It neither creates nor changes the schema of PostgreSQL.

Exit codes, of the first thing that failed:
   0  all is well
   1  something else failed
   2  wrong arguments
  69  the store cannot be reached or used
  74  output cannot be written
  77  the store does not let us in, or not do what is needed
  78  wrong settings";

/// The arguments of `pac doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    output: FormatArg,
}

/// Checks everything and prints the results.
pub(crate) fn run(args: &Args, sources: &Sources) -> Result<Exit, Failure> {
    let mut report = Report::default();
    match sources.loader()?.load() {
        Ok(loaded) => examine(&loaded, &mut report)?,
        Err(error) => report.failed(Step::Settings, error.into()),
    }
    report.print(args.output.format)?;
    Ok(report.exit())
}

fn examine(loaded: &LoadedSettings, report: &mut Report) -> Result<(), Failure> {
    let settings = loaded.settings();
    if settings.enabled && settings.is_in_process() {
        let driver = store::in_process(&settings);
        report.ok(Step::Settings, format!("right; the driver is {driver}"));
        report.skip_rest(
            "the state is in the process that makes it; there is nothing to check beyond the \
             settings",
        );
        return Ok(());
    }
    store::block_on(async {
        if let Some((driver, manager)) = connection::open(loaded, &settings, report).await {
            trial::run(&settings, driver, &manager, report).await;
            if let Err(error) = manager.close().await {
                trial::was_not_closed(error, report);
            }
        }
        Ok(())
    })
}
