//! `pac cancel`: ends runs that wait or run, or asks them to end.

use std::time::Duration;

use pac_concurrency::{
    Cancellation, ConcurrencyManager, Group, PipelineRunKey, RepositoryKey, Settings, Swept, Which,
};
use serde::Serialize;

use crate::counted::{counted, runs};
use crate::exit::{Exit, Failure};
use crate::format::{FormatArg, print_result};
use crate::limit::started;
use crate::release::report;
use crate::store::{self, confirm};
use crate::time::{now, parse_duration};

const AFTER_HELP: &str = "\
A run that waits leaves the queue; one that runs loses its slot, and the next starts. A command
under `pac exec` is ended with it. For a PipelineRun, its controller asks the cluster to end it,
with its next comparison of both: within minutes.

With --ask, a run that runs keeps its slot until it has ended: `pac exec` sends its command SIGTERM, and
SIGKILL after its grace. With --waiting, one that has started goes on, also one that starts in this
instant: the store judges that with the change itself.

Without RUN, all that are meant are ended together: those of --group, those that were queued longer ago
than --older-than, by the clock of this machine; or --all of them. Whether they wait or run: say --waiting
to spare those that run. It asks first where neither --group nor --older-than says which.

Exit codes: 0 when something ended or was asked to, and when RUN had ended before; 1 when there was
nothing to end: no such run, or it has started and only a waiting one was meant.";

/// The arguments of `pac cancel`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The repository
    #[arg(value_name = "NS/NAME")]
    repository: RepositoryKey,

    /// The run
    #[arg(
        value_name = "RUN-NS/RUN-NAME",
        required_unless_present_any = ["group", "older_than", "all", "waiting"],
        conflicts_with_all = ["group", "older_than", "all"]
    )]
    run: Option<PipelineRunKey>,

    /// Only what waits; by itself, all that waits
    #[arg(long, conflicts_with = "ask")]
    waiting: bool,

    /// Ask what runs to end, and leave it its slot until then
    #[arg(long)]
    ask: bool,

    /// The runs of this group
    #[arg(long, value_name = "G")]
    group: Option<Group>,

    /// The runs that were queued longer ago
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    older_than: Option<Duration>,

    /// All runs of the repository
    #[arg(long, conflicts_with_all = ["group", "older_than", "waiting"])]
    all: bool,

    /// Do not ask
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    output: FormatArg,
}

/// The JSON and YAML output where many are ended.
#[derive(Serialize)]
struct Shape<'a> {
    repository: &'a str,
    result: &'static str,
    runs: Vec<&'a str>,
    promoted: Vec<&'a str>,
}

/// Ends the run, or the runs.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Failure> {
    match &args.run {
        Some(run) => {
            let answer = store::block_on(store::with_manager(settings, async |manager| {
                let how = args.how();
                let cancelled = manager.cancel_as(&args.repository, run, None, how);
                Ok(cancelled.await?.into())
            }))?;
            report(args.output.format, &args.repository, run, &answer)
        }
        None => {
            let swept = store::block_on(store::with_manager(settings, async |manager| {
                args.cancel_all(manager).await
            }))?;
            args.report_all(&swept)
        }
    }
}

impl Args {
    fn how(&self) -> Cancellation {
        match (self.waiting, self.ask) {
            (true, _) => Cancellation::IfWaiting,
            (false, true) => Cancellation::Ask,
            (false, false) => Cancellation::AtOnce,
        }
    }

    async fn cancel_all(&self, manager: &ConcurrencyManager) -> Result<Swept, Failure> {
        let repository = &self.repository;
        let mut which = Which::all();
        if let Some(group) = &self.group {
            which = which.of_group(group.clone());
        }
        if let Some(age) = self.older_than {
            which = which.queued_before(now().minus(age));
        }
        if self.group.is_none() && self.older_than.is_none() {
            let status = manager.status(repository).await?;
            let running = match self.waiting {
                true => 0,
                false => status.running.len(),
            };
            if let Some(question) = self.question(running, status.queued.len()) {
                confirm(&question, self.yes)?;
            }
        }
        Ok(manager.cancel_all(repository, &which, self.how()).await?)
    }

    /// What is asked before so many are ended; nothing where there are none.
    fn question(&self, running: usize, queued: usize) -> Option<String> {
        let all = runs(running, queued);
        let what = match (running, queued, self.ask) {
            (0, 0, _) => return None,
            (0, _, true) | (_, _, false) => format!("End {all}"),
            (_, 0, true) => format!("Ask {all} to end"),
            (_, _, true) => format!(
                "Ask {} to end, and end {}",
                runs(running, 0),
                runs(0, queued)
            ),
        };
        Some(format!("{what} of {}?", self.repository))
    }

    fn report_all<'a>(&'a self, swept: &'a Swept) -> Result<Exit, Failure> {
        let names = |runs: &'a [PipelineRunKey]| runs.iter().map(PipelineRunKey::as_str).collect();
        let shape = Shape {
            repository: self.repository.as_str(),
            result: match (swept.affected.is_empty(), self.ask) {
                (true, _) => "nothing",
                (false, true) => "asked",
                (false, false) => "ended",
            },
            runs: names(&swept.affected),
            promoted: names(&swept.promoted),
        };
        let (sentence, exit) = match shape.runs.len() {
            0 => ("nothing to end".to_owned(), Exit::Negative),
            count => {
                let did = if self.ask {
                    "ended, or asked to"
                } else {
                    "ended"
                };
                let runs = counted(count, "run", "runs");
                let started = started(&shape.promoted);
                (
                    format!("{runs} {did}: {}{started}", shape.runs.join(", ")),
                    Exit::Success,
                )
            }
        };
        print_result(self.output.format, &sentence, &shape)?;
        Ok(exit)
    }
}
