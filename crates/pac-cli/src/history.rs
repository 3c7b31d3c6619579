//! `pac history`: the runs that have ended, with their waits.

use std::time::Duration;

use pac_concurrency::{FinishedRun, RepositoryKey, RepositoryStatus, Settings, Timestamp};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::format::{Format, FormatArg, Printer, table};
use crate::output::note;
use crate::status::each_repository;
use crate::store;
use crate::terms::TermsShape;
use crate::time::{humanise, rfc3339};

/// Runs of each repository that a table shows, unless all are asked for.
const SHOWN: usize = 20;

/// The arguments of `pac history`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this repository
    #[arg(value_name = "NS/NAME")]
    repository: Option<RepositoryKey>,

    /// In a table, show all runs that the store still has, and not only the last 20 of each
    /// repository; JSON and YAML always have all
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    output: FormatArg,
}

/// Prints the finished runs, oldest first in each repository.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Failure> {
    let format = args.output.format;
    let most = if args.all { usize::MAX } else { SHOWN };
    store::block_on(async {
        let reader = store::reader(settings).await?;
        let mut printer = Printer::new(format);
        let mut shown = 0;
        let exit = each_repository(&reader, args.repository.as_ref(), async |status| {
            match format {
                Format::Table => printer.text(&describe(&status, most))?,
                Format::Json | Format::Yaml => {
                    for run in &status.finished {
                        printer.item(&Shape::of(&status.repository, run))?;
                    }
                }
            }
            shown += status.finished.len();
            printer.flush()?;
            Ok(true)
        })
        .await?;
        match format {
            Format::Table if shown == 0 && exit == Exit::Success => note("no run has ended lately"),
            Format::Table => {}
            Format::Json | Format::Yaml => printer.end_list()?,
        }
        Ok(exit)
    })
}

/// The JSON and YAML output.
#[derive(Serialize)]
struct Shape<'a> {
    repository: &'a str,
    run: &'a str,
    outcome: String,
    queued_at: Option<String>,
    started_at: Option<String>,
    finished_at: Option<String>,
    wait_s: Option<f64>,
    run_s: Option<f64>,
    #[serde(flatten)]
    terms: TermsShape,
}

impl<'a> Shape<'a> {
    fn of(repository: &'a RepositoryKey, run: &'a FinishedRun) -> Self {
        let seconds = |duration: Duration| duration.as_millis() as f64 / 1_000.0;
        Self {
            repository: repository.as_str(),
            run: run.run.as_str(),
            outcome: run.outcome.to_string(),
            queued_at: run.queued_at.map(rfc3339),
            started_at: run.started_at.map(rfc3339),
            finished_at: run.finished_at.map(rfc3339),
            wait_s: waited(run).map(seconds),
            run_s: ran(run).map(seconds),
            terms: TermsShape::of(run.terms()),
        }
    }
}

fn describe(status: &RepositoryStatus, most: usize) -> String {
    if status.finished.is_empty() {
        return String::new();
    }
    let mut rows = table(["run", "outcome", "ended", "waited", "ran"]);
    let earlier = status.finished.len().saturating_sub(most);
    for run in status.finished.iter().skip(earlier) {
        let text = |duration: Option<Duration>| duration.map_or_else(String::new, humanise);
        rows.add_row([
            run.run.to_string(),
            run.outcome.to_string(),
            run.finished_at.map_or_else(String::new, rfc3339),
            text(waited(run)),
            text(ran(run)),
        ]);
    }
    let more = match earlier {
        0 => String::new(),
        earlier => format!("… and {earlier} earlier ones: --all shows them\n"),
    };
    format!("{}\n{rows}\n{more}", status.repository)
}

/// The time from being queued to the start, or to the end if it never started.
fn waited(run: &FinishedRun) -> Option<Duration> {
    between(run.queued_at, run.started_at.or(run.finished_at))
}

/// The time from start to end; `None` if it never started.
fn ran(run: &FinishedRun) -> Option<Duration> {
    between(run.started_at, run.finished_at)
}

fn between(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<Duration> {
    Some(to?.since(from?))
}
