//! `pac release`: gives the slot of a run back.

use clap::ValueEnum;
use pac_concurrency::{
    ConcurrencyManager, Ended, Ending, FencingToken, PipelineRunKey, RepositoryKey, RunOutcome,
    RunStatus, Settings,
};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::format::{Format, FormatArg, print_result};
use crate::limit::started;
use crate::process::named;
use crate::store::{self, confirm};

const AFTER_HELP: &str = "\
The token is the one of the run's grant, as `pac status` shows it: should the slot have been
granted again since, nothing changes. Without a token the slot is taken from whoever holds it,
which may still be at work: two may then run in one slot. A PipelineRun that is released before
it has started never starts: its controller asks the cluster to end it, within minutes.

Exit codes: 0 also when it had ended before; 1 when there is no such run, it waits, or the token
is out of date.";

/// The arguments of `pac release`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The repository
    #[arg(value_name = "NS/NAME")]
    repository: RepositoryKey,

    /// The run
    #[arg(value_name = "RUN-NS/RUN-NAME")]
    run: PipelineRunKey,

    /// The fencing token of its grant
    #[arg(
        long,
        value_name = "N",
        required_unless_present = "force",
        conflicts_with = "force"
    )]
    token: Option<u64>,

    /// Whoever holds it; asks first
    #[arg(long)]
    force: bool,

    /// Do not ask
    #[arg(long, requires = "force")]
    yes: bool,

    /// How the run ended
    #[arg(long, value_enum, default_value_t = Outcome::Completed)]
    outcome: Outcome,

    #[command(flatten)]
    output: FormatArg,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Outcome {
    /// It succeeded
    Completed,
    /// It failed
    Failed,
    /// It was ended
    Cancelled,
}

impl From<Outcome> for RunOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Completed => Self::Completed,
            Outcome::Failed => Self::Failed,
            Outcome::Cancelled => Self::Cancelled,
        }
    }
}

/// Gives the slot back.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Failure> {
    let answer = store::block_on(store::with_manager(settings, async |manager| {
        args.release(manager).await
    }))?;
    report(args.output.format, &args.repository, &args.run, &answer)
}

impl Args {
    async fn release(&self, manager: &ConcurrencyManager) -> Result<Answer, Failure> {
        let refused = |ended| Answer {
            ended,
            outcome: None,
            promoted: Vec::new(),
        };
        let run = match manager.run_status(&self.repository, &self.run).await? {
            RunStatus::Started(run) => run,
            RunStatus::Queued(_) => return Ok(refused(Ended::NotStarted)),
            RunStatus::Finished(run) => return Ok(refused(Ended::Before(run.outcome))),
            _ => return Ok(refused(Ended::Unknown)),
        };
        if self.force {
            let holder = named(manager, run.session).await;
            let question = format!(
                "Take the slot of {} from {}, which {holder} holds with token {}?",
                self.repository, self.run, run.token
            );
            confirm(&question, self.yes)?;
        }
        // Release exactly the grant that was shown, not one made meanwhile.
        let token = self.token.map_or(run.token, FencingToken::new);
        let outcome = self.outcome.into();
        let ending = manager
            .release_run(&self.repository, &self.run, &run.uid, Some(token), outcome)
            .await?;
        Ok(ending.into())
    }
}

/// The JSON and YAML output.
#[derive(Serialize)]
struct Shape<'a> {
    repository: &'a str,
    run: &'a str,
    result: &'static str,
    outcome: Option<String>,
    promoted: Vec<&'a str>,
}

/// The result of ending a run.
#[derive(Debug)]
pub(crate) struct Answer {
    ended: Ended,
    /// How the run of that name has ended, if it has.
    outcome: Option<RunOutcome>,
    promoted: Vec<PipelineRunKey>,
}

impl From<Ending> for Answer {
    fn from(ending: Ending) -> Self {
        let outcome = match ending.status() {
            RunStatus::Finished(run) => Some(run.outcome),
            _ => None,
        };
        Self {
            ended: ending.ended,
            outcome,
            promoted: ending.promoted,
        }
    }
}

/// Prints the result of ending a run.
pub(crate) fn report(
    format: Format,
    repository: &RepositoryKey,
    run: &PipelineRunKey,
    answer: &Answer,
) -> Result<Exit, Failure> {
    let promoted: Vec<_> = answer.promoted.iter().map(PipelineRunKey::as_str).collect();
    let (result, sentence, exit) = match answer.ended {
        Ended::Done => {
            let sentence = format!("{run} has ended{}", started(&promoted));
            ("ended", sentence, Exit::Success)
        }
        Ended::Before(outcome) => {
            let sentence = format!("{run} had ended before: {outcome}");
            ("ended-before", sentence, Exit::Success)
        }
        Ended::NotStarted => {
            let sentence = format!("{run} waits and has no slot; `pac cancel` takes it out");
            ("not-started", sentence, Exit::Negative)
        }
        Ended::Started(token) => {
            let sentence = format!("{run} does not wait: it has started with token {token}");
            ("started", sentence, Exit::Negative)
        }
        Ended::Asked(token) => {
            let sentence =
                format!("{run} is asked to end, and keeps its slot (token {token}) until then");
            ("asked", sentence, Exit::Success)
        }
        Ended::Stale(token) => {
            let sentence = format!("the token is out of date: {run} holds its slot with {token}");
            ("stale-token", sentence, Exit::Negative)
        }
        Ended::Unknown => {
            let sentence = format!("{repository} has no run {run}; `pac status {repository}`");
            ("unknown", sentence, Exit::Negative)
        }
        // What a later version of the library may add.
        other => {
            let sentence = format!("{run} was not ended by this: {other:?}");
            ("not-ended", sentence, Exit::Negative)
        }
    };
    let outcome = match answer.ended {
        Ended::Before(outcome) => Some(outcome),
        _ => answer.outcome,
    };
    let shape = Shape {
        repository: repository.as_str(),
        run: run.as_str(),
        result,
        outcome: outcome.map(|outcome| outcome.to_string()),
        promoted,
    };
    print_result(format, &sentence, &shape)?;
    Ok(exit)
}
