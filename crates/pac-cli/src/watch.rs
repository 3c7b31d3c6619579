//! `pac watch`: prints changes line by line.

use std::time::Duration;

use pac_concurrency::{
    Change, FencingToken, Limit, Owner, Paused, RepositoryKey, RunChange, RunStep, SessionId,
    Settings, Timestamp,
};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::format::{Format, FormatArg, Printer};
use crate::output::note;
use crate::process::{ProcessShape, Processes};
use crate::store;
use crate::terms::TermsShape;
use crate::time::{humanise, now, rfc3339};

const AFTER_HELP: &str = "\
One line per event: a run that was queued or moved in the queue, started, asked to end, or ended; a limit
that changed, or its owner; a repository that was paused, resumed or removed. A run that takes several
steps between two looks is shown at the last, but never as asked to end before it was shown as started; its
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
                Change::Limit {
                    repository,
                    limit,
                    owner,
                } => Shape::of_limit(repository, *limit, *owner),
                Change::Pause { repository, pause } => Shape::of_pause(repository, pause.as_ref()),
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
    priority: Option<i32>,
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
    #[serde(flatten)]
    terms: TermsShape,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'static str>,
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
            priority: None,
            token: None,
            session: None,
            process: None,
            queued_at: None,
            started_at: None,
            finished_at: None,
            terms: TermsShape::default(),
            reason: None,
            limit: None,
            owner: None,
            running: None,
            queued: None,
            cell: None,
            waited: None,
            ran: None,
        }
    }

    fn of_limit(repository: &RepositoryKey, limit: Limit, owner: Option<Owner>) -> Self {
        Self {
            limit: Some(limit.get().unwrap_or(0)),
            owner: owner.map(Owner::as_str),
            ..Self::new(repository, "limit", now())
        }
    }

    fn of_pause(repository: &RepositoryKey, pause: Option<&Paused>) -> Self {
        match pause {
            None => Self::new(repository, "resumed", now()),
            Some(pause) => Self {
                reason: pause.reason.as_ref().map(ToString::to_string),
                ..Self::new(repository, "paused", pause.since.unwrap_or_else(now))
            },
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
                let asked = change.terms().asked.at();
                let event = match (orphaned, asked) {
                    (true, _) => "orphaned",
                    (false, Some(_)) => "asked-to-end",
                    (false, None) => "started",
                };
                (
                    event.to_owned(),
                    asked.filter(|_| !orphaned).or(change.started_at),
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
            priority: matches!(change.step, RunStep::Queued { .. }).then(|| change.priority.get()),
            token: token.map(FencingToken::get),
            session: session.map(|session| session.to_string()),
            process: session.and_then(|session| processes.shape(session)),
            cell: session.map(|session| processes.cell(session)),
            queued_at: change.queued_at.map(rfc3339),
            started_at: change.started_at.map(rfc3339),
            finished_at: change.finished_at.map(rfc3339),
            terms: TermsShape::of(change.terms()),
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
        if let Some(priority) = self.priority.filter(|priority| *priority != 0) {
            line.push_str(&format!("  priority {priority}"));
        }
        for words in self.terms.words(true) {
            line.push_str(&format!("  {words}"));
        }
        if let Some(reason) = &self.reason {
            line.push_str(&format!(" {reason}"));
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
                _ => {
                    let owner = self.owner.map(|owner| format!(" ({owner})"));
                    line.push_str(&format!(" {limit}{}", owner.unwrap_or_default()));
                }
            }
        }
        line.push('\n');
        line
    }
}
