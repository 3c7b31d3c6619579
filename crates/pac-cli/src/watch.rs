//! `pac watch`: prints changes line by line.

use std::time::Duration;

use pac_concurrency::{
    Change, FencingToken, Limit, RepositoryKey, RunChange, RunStep, SessionId, Settings, Timestamp,
};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::format::{Format, FormatArg, Printer};
use crate::output::note;
use crate::process::{ProcessShape, Processes};
use crate::store;
use crate::time::{humanise, now, rfc3339};

const AFTER_HELP: &str = "\
One line per event: a run that was queued, started, or ended; a limit that changed; a repository
that was removed. A run that takes several steps between two looks is shown at the last; its
times tell the others. When the connection is lost, that goes to stderr, and the watch goes on
where it was as soon as the store is back. Ends with Ctrl-C, or when nobody reads any more.";

/// The arguments of `pac watch`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Only this repository
    #[arg(value_name = "NS/NAME")]
    repository: Option<RepositoryKey>,

    #[command(flatten)]
    output: FormatArg,
}

/// Prints changes until the command is stopped.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Failure> {
    let format = args.output.format;
    store::block_on(async {
        let reader = store::reader(settings).await?;
        let mut watch = reader.watch(args.repository.clone()).await?;
        let mut printer = Printer::new(format);
        let mut processes = Processes::default();
        loop {
            let change = watch.next().await?;
            let shape = match &change {
                Change::Run(run) => {
                    processes.read(&reader, session_of(run)).await;
                    Shape::of_run(run, &processes)
                }
                Change::Limit { repository, limit } => Shape::of_limit(repository, *limit),
                Change::Removed(repository) => Shape::new(repository, "removed", now()),
                Change::Unreadable(error) => {
                    note(error);
                    continue;
                }
                Change::Interrupted(error) => {
                    note(format_args!("{error}; going on when the store is back"));
                    continue;
                }
                Change::Resumed => {
                    note("the store is back");
                    continue;
                }
                _ => continue,
            };
            match format {
                Format::Table => {
                    printer.text(&shape.line())?;
                    printer.flush()?;
                }
                Format::Json | Format::Yaml => printer.document(&shape)?,
            }
        }
    })
}

/// The JSON and YAML output. Fields that do not apply to an event are left out.
#[derive(Debug, Serialize)]
struct Shape<'a> {
    at: String,
    event: String,
    repository: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<ProcessShape<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queued_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    running: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queued: Option<u32>,
    #[serde(skip)]
    cell: Option<String>,
    #[serde(skip)]
    waited: Option<Duration>,
    #[serde(skip)]
    ran: Option<Duration>,
}

/// The session that a run has now.
fn session_of(change: &RunChange) -> Option<SessionId> {
    match change.step {
        RunStep::Queued { owner } => owner,
        RunStep::Started { session, .. } => Some(session),
        RunStep::Finished(_) => None,
    }
}

impl<'a> Shape<'a> {
    fn new(repository: &RepositoryKey, event: impl Into<String>, at: Timestamp) -> Self {
        Self {
            at: rfc3339(at),
            event: event.into(),
            repository: repository.to_string(),
            run: None,
            token: None,
            session: None,
            process: None,
            queued_at: None,
            started_at: None,
            finished_at: None,
            limit: None,
            running: None,
            queued: None,
            cell: None,
            waited: None,
            ran: None,
        }
    }

    fn of_limit(repository: &RepositoryKey, limit: Limit) -> Self {
        Self {
            limit: Some(limit.get().unwrap_or(0)),
            ..Self::new(repository, "limit", now())
        }
    }

    fn of_run(change: &RunChange, processes: &'a Processes) -> Self {
        let (event, at, token, session) = match change.step {
            RunStep::Queued { owner } => {
                let event = if owner.is_some() {
                    "queued"
                } else {
                    "owner-lost"
                };
                (event.to_owned(), change.queued_at, None, owner)
            }
            RunStep::Started {
                token,
                session,
                orphaned,
            } => {
                let event = if orphaned { "orphaned" } else { "started" };
                (
                    event.to_owned(),
                    change.started_at,
                    Some(token),
                    Some(session),
                )
            }
            RunStep::Finished(outcome) => (outcome.to_string(), change.finished_at, None, None),
        };
        let until = change.started_at.or(change.finished_at);
        let span = |from: Option<Timestamp>, to: Option<Timestamp>| Some(to?.since(from?));
        Self {
            run: Some(change.run.to_string()),
            token: token.map(FencingToken::get),
            session: session.map(|session| session.to_string()),
            process: session.and_then(|session| processes.shape(session)),
            cell: session.map(|session| processes.cell(session)),
            queued_at: change.queued_at.map(rfc3339),
            started_at: change.started_at.map(rfc3339),
            finished_at: change.finished_at.map(rfc3339),
            limit: Some(change.limit.get().unwrap_or(0)),
            running: Some(change.running),
            queued: Some(change.queued),
            waited: span(change.queued_at, until),
            ran: span(change.started_at, change.finished_at),
            ..Self::new(&change.repository, event, at.unwrap_or_else(now))
        }
    }

    fn line(&self) -> String {
        let mut line = format!("{}  {}  {:<10}", self.at, self.repository, self.event);
        if let Some(run) = &self.run {
            line.push_str(&format!(" {run}"));
        }
        if let Some(token) = self.token {
            line.push_str(&format!("  token {token}"));
        }
        if let Some(cell) = &self.cell {
            line.push_str(&format!("  by {cell}"));
        }
        if let Some(waited) = self.waited {
            line.push_str(&format!("  waited {}", humanise(waited)));
        }
        if let Some(ran) = self.ran {
            line.push_str(&format!("  ran {}", humanise(ran)));
        }
        if let Some(limit) = self.limit {
            let limit = Limit::new(limit);
            match (self.running, self.queued) {
                (Some(running), Some(queued)) => line.push_str(&format!(
                    "  ({running} running of {limit}, {queued} queued)"
                )),
                _ => line.push_str(&format!(" {limit}")),
            }
        }
        line.push('\n');
        line
    }
}
