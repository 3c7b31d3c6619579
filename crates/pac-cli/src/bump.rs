//! `pac bump`: moves a waiting run within its queue.

use pac_concurrency::{Bump, PipelineRunKey, Priority, RepositoryKey, RunStatus, Settings};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::format::{FormatArg, print_result};
use crate::store;
use crate::why::{self, Waiting};

const AFTER_HELP: &str = "\
Without an option, it is --first. A run that was moved stays where it was put, also when its owner asks for it
again; --back gives it the priority that its owner asks for it with.

Exit codes: 0 also when it starts at once, since what it waited behind did not fit; 1 when no such run waits.";

/// The arguments of `pac bump`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The repository
    #[arg(value_name = "NS/NAME")]
    repository: RepositoryKey,

    /// The run
    #[arg(value_name = "RUN-NS/RUN-NAME")]
    run: PipelineRunKey,

    /// Before all others that wait
    #[arg(long, conflicts_with_all = ["priority", "back"])]
    first: bool,

    /// Among those of this priority, in the order of arrival
    #[arg(
        long,
        value_name = "P",
        allow_negative_numbers = true,
        conflicts_with = "back"
    )]
    priority: Option<i32>,

    /// Back to where it was
    #[arg(long)]
    back: bool,

    #[command(flatten)]
    output: FormatArg,
}

/// The JSON and YAML output.
#[derive(Serialize)]
struct Shape<'a> {
    repository: &'a str,
    run: &'a str,
    /// `queued`, `started`, `ended` or `unknown`: where it stands now.
    state: &'static str,
    position: Option<usize>,
    priority: Option<i32>,
}

/// Moves the run.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Failure> {
    let (repository, run) = (&args.repository, &args.run);
    let to = match args.priority {
        Some(priority) => Bump::To(Priority::new(priority)),
        None if args.back => Bump::Back,
        None => Bump::First,
    };
    let (waited, standing, by_slots) =
        store::block_on(store::with_manager(settings, async |manager| {
            let before = manager.run_status(repository, run).await?;
            let standing = manager.bump(repository, run, None, to).await?;
            // It is moved, whatever can be read of the repository.
            let status = manager.status(repository).await.ok();
            let by_slots = status.is_some_and(|status| why::counts_slots(&status));
            Ok((matches!(before, RunStatus::Queued(_)), standing, by_slots))
        }))?;
    let (state, sentence, exit) = match &standing {
        RunStatus::Queued(queued) => {
            let waiting = Waiting {
                weight: queued.terms().weight,
                by_slots,
            };
            let (position, reason) = (queued.position, why::reason(&queued.reason, waiting));
            let sentence = format!("{run} is queued at {position} ({reason})");
            ("queued", sentence, Exit::Success)
        }
        RunStatus::Started(started) if waited => {
            let sentence = format!("{run} has started with token {}", started.token);
            ("started", sentence, Exit::Success)
        }
        RunStatus::Started(started) => {
            let token = started.token;
            let sentence = format!("{run} does not wait: it has started with token {token}");
            ("started", sentence, Exit::Negative)
        }
        RunStatus::Finished(ended) => {
            let sentence = format!(
                "{run} does not wait: it had ended before: {}",
                ended.outcome
            );
            ("ended", sentence, Exit::Negative)
        }
        _ => {
            let sentence = format!("{repository} has no run {run}; `pac status {repository}`");
            ("unknown", sentence, Exit::Negative)
        }
    };
    let queued = match &standing {
        RunStatus::Queued(queued) => Some(queued),
        _ => None,
    };
    let shape = Shape {
        repository: repository.as_str(),
        run: run.as_str(),
        state,
        position: queued.map(|queued| queued.position),
        priority: queued.map(|queued| queued.priority.get()),
    };
    print_result(args.output.format, &sentence, &shape)?;
    Ok(exit)
}
