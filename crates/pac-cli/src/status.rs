//! `pac status`: limits, running and waiting runs.

#[cfg(feature = "kubernetes")]
mod cluster;
#[cfg(not(feature = "kubernetes"))]
#[path = "status/no_cluster.rs"]
mod cluster;
mod rows;

use std::collections::HashSet;
use std::num::NonZeroU32;

use futures_util::future::join_all;
use pac_concurrency::{
    Owner, PipelineRunKey, RepositoryKey, RepositoryStatus, SessionId, Settings, StoreReader,
    Timestamp, Uid,
};
use serde::Serialize;

use crate::event::EventShape;
use crate::exit::{Exit, Failure};
use crate::format::{Format, FormatArg, Printer, fit, table};
use crate::limit::rules::names_of_slots;
use crate::many::unknown;
use crate::output::note;
use crate::process::{ProcessShape, Processes};
use crate::store;
use crate::terms::{PauseShape, TermsShape};
use crate::time::{now, rfc3339};
use crate::why;
use cluster::{ClusterArgs, Origins};
use rows::{heading, names_of, queued, running};

/// Repositories per page of the list.
const PAGE: usize = 500;
/// Repositories read at once.
const AT_ONCE: usize = 16;
/// Repositories and waiting runs that a table shows, unless all are asked for.
const REPOSITORIES_SHOWN: usize = 50;
const QUEUED_SHOWN: usize = 20;

/// The arguments of `pac status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this repository
    #[arg(value_name = "NS/NAME")]
    repository: Option<RepositoryKey>,

    /// In a table, show everything and not only the first 50 repositories and the first 20 that
    /// wait in each; JSON and YAML always have everything
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    cluster: ClusterArgs,

    #[command(flatten)]
    output: FormatArg,
}

/// Prints the state of one repository, or of all.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Failure> {
    store::block_on(async {
        let reader = store::reader(settings).await?;
        let mut origins = args.cluster.origins().await?;
        let mut view = View::new(args, dead_sessions(&reader).await);
        let exit = each_repository(&reader, args.repository.as_ref(), async |status| {
            let sessions = view.sessions(&status);
            view.processes.read(&reader, sessions).await;
            if let Some(origins) = &mut origins {
                origins.read(&status).await;
            }
            view.show(&status, origins.as_ref())
        })
        .await?;
        view.end(exit)?;
        let of_cluster = origins.and_then(|origins| origins.exit());
        Ok(match exit {
            Exit::Success => of_cluster.unwrap_or(exit),
            exit => exit,
        })
    })
}

/// The dead sessions, whose runs have yet to be cleaned up. Empty if the store refuses to tell.
async fn dead_sessions(reader: &StoreReader) -> HashSet<SessionId> {
    let dead = reader.dead_sessions().await.unwrap_or_else(|error| {
        note(format_args!(
            "{error}; runs of dead processes are not marked"
        ));
        Vec::new()
    });
    dead.into_iter().collect()
}

/// Reads every repository, or the given one, in the order of their keys, and passes each to
/// `show` until `show` returns false. One that cannot be understood does not stop the others. Of one that
/// is given and not there, says so.
pub(crate) async fn each_repository(
    reader: &StoreReader,
    only: Option<&RepositoryKey>,
    mut show: impl AsyncFnMut(RepositoryStatus) -> Result<bool, Failure>,
) -> Result<Exit, Failure> {
    if let Some(only) = only {
        let status = reader.status(only).await?;
        if status.exists {
            show(status).await?;
            return Ok(Exit::Success);
        }
        note(unknown(only));
        return Ok(Exit::Negative);
    }
    let mut exit = Exit::Success;
    let mut after = None;
    loop {
        let page = reader.list(after.as_ref(), PAGE).await?;
        after = page.last().map(|last| last.repository.clone());
        let last = page.len() < PAGE;
        for some in page.chunks(AT_ONCE) {
            // All of them before any is shown: to show one may take a request of its own, and those
            // that are on their way keep the connections of the driver for themselves.
            let read = some.iter().map(|one| reader.status(&one.repository));
            for status in join_all(read).await {
                match status {
                    // The repository was removed after it was listed.
                    Ok(status) if !status.exists => {}
                    Ok(status) => {
                        if !show(status).await? {
                            return Ok(exit);
                        }
                    }
                    Err(error) if error.repository().is_some() => {
                        note(&error);
                        exit = Exit::Internal;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if last {
            return Ok(exit);
        }
    }
}

/// The JSON and YAML output.
#[derive(Serialize)]
struct Shape<'a> {
    repository: &'a str,
    /// 0 means no limit.
    limit: u32,
    owner: Option<&'static str>,
    slots_taken: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_queued: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backfill: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slots: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<PauseShape<'a>>,
    running: Vec<Running<'a>>,
    queued: Vec<Queued<'a>>,
}

#[derive(Serialize)]
struct Running<'a> {
    run: &'a str,
    token: u64,
    session: String,
    process: Option<ProcessShape<'a>>,
    started_at: Option<String>,
    #[serde(flatten)]
    terms: TermsShape,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    slot_names: Vec<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    dead: bool,
    #[serde(skip_serializing_if = "EventShape::is_empty")]
    event: EventShape<'a>,
}

#[derive(Serialize)]
struct Queued<'a> {
    run: &'a str,
    position: usize,
    priority: i32,
    queued_at: Option<String>,
    owner: Option<String>,
    process: Option<ProcessShape<'a>>,
    reason: &'static str,
    #[serde(flatten)]
    terms: TermsShape,
    #[serde(skip_serializing_if = "is_false")]
    dead: bool,
    #[serde(skip_serializing_if = "EventShape::is_empty")]
    event: EventShape<'a>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl<'a> Shape<'a> {
    fn of(
        status: &'a RepositoryStatus,
        dead: &HashSet<SessionId>,
        processes: &'a Processes,
        origins: Option<&'a Origins>,
    ) -> Self {
        let event = |run: &PipelineRunKey, uid: &Uid| {
            let event = origins.map(|origins| origins.of(run, uid));
            event.unwrap_or_default()
        };
        let running = status.running.iter().map(|run| Running {
            run: run.run.as_str(),
            token: run.token.get(),
            session: run.session.to_string(),
            process: processes.shape(run.session),
            started_at: run.started_at.map(rfc3339),
            terms: TermsShape::of(run.terms()),
            slot_names: names_of(run, &status.rules),
            dead: dead.contains(&run.session),
            event: event(&run.run, &run.uid),
        });
        let queued = status.queued.iter().map(|run| Queued {
            run: run.run.as_str(),
            position: run.position,
            priority: run.priority.get(),
            queued_at: run.queued_at.map(rfc3339),
            owner: run.owner.map(|owner| owner.to_string()),
            process: run.owner.and_then(|owner| processes.shape(owner)),
            reason: why::word(&run.reason),
            terms: TermsShape::of(run.terms()),
            dead: run.owner.is_some_and(|owner| dead.contains(&owner)),
            event: event(&run.run, &run.uid),
        });
        Self {
            repository: status.repository.as_str(),
            limit: status.limit.get().unwrap_or(0),
            owner: status.owner.map(Owner::as_str),
            slots_taken: status.slots_taken,
            max_queued: status.rules.max_queued,
            backfill: status.rules.backfill.map(NonZeroU32::get),
            slots: names_of_slots(&status.rules),
            paused: status.pause.as_ref().map(PauseShape::of),
            running: running.collect(),
            queued: queued.collect(),
        }
    }
}

struct View {
    format: Format,
    all: bool,
    dead: HashSet<SessionId>,
    processes: Processes,
    printer: Printer,
    shown: usize,
    cut: bool,
}

impl View {
    fn new(args: &Args, dead: HashSet<SessionId>) -> Self {
        let format = args.output.format;
        Self {
            format,
            all: args.all,
            dead,
            processes: Processes::default(),
            printer: Printer::new(format),
            shown: 0,
            cut: false,
        }
    }

    /// How many of the runs that wait are shown.
    fn most_queued(&self) -> usize {
        match self.format {
            Format::Table if !self.all => QUEUED_SHOWN,
            _ => usize::MAX,
        }
    }

    /// The sessions of the runs that are shown of a repository.
    fn sessions(&self, status: &RepositoryStatus) -> Vec<SessionId> {
        let holders = status.running.iter().map(|run| run.session);
        let queued = status.queued.iter().take(self.most_queued());
        holders.chain(queued.filter_map(|run| run.owner)).collect()
    }

    /// Shows a repository. Returns false once enough have been shown.
    fn show(
        &mut self,
        status: &RepositoryStatus,
        origins: Option<&Origins>,
    ) -> Result<bool, Failure> {
        if self.format != Format::Table {
            let shape = Shape::of(status, &self.dead, &self.processes, origins);
            self.printer.item(&shape)?;
            return Ok(true);
        }
        if self.shown == REPOSITORIES_SHOWN && !self.all {
            self.cut = true;
            return Ok(false);
        }
        self.shown += 1;
        let text = self.describe(status, origins, now());
        self.printer.text(&text)?;
        self.printer.flush()?;
        Ok(true)
    }

    /// Describes a repository in words and a table, with what its runs were made for if that was
    /// asked.
    fn describe(
        &self,
        status: &RepositoryStatus,
        origins: Option<&Origins>,
        now: Timestamp,
    ) -> String {
        let mut text = heading(status, now);
        if status.running.is_empty() && status.queued.is_empty() {
            return text;
        }
        let header = ["run", "state", "token", "process", "for", "why it waits"];
        let mut rows = table(header);
        if origins.is_some() {
            rows.set_header(header.into_iter().chain(["event"]));
        }
        fit(&mut rows);
        let event = |run: &PipelineRunKey, uid: &Uid| origins.map(|all| all.of(run, uid).words());
        for run in &status.running {
            let is_dead = self.dead.contains(&run.session);
            let process = self.processes.cell(run.session);
            let row = running(run, process, is_dead, status, now).into_iter();
            rows.add_row(row.chain(event(&run.run, &run.uid)));
        }
        let most = self.most_queued();
        for run in status.queued.iter().take(most) {
            let is_dead = run.owner.is_some_and(|owner| self.dead.contains(&owner));
            let process = run.owner.map(|owner| self.processes.cell(owner));
            let row = queued(run, process, is_dead, status, now).into_iter();
            rows.add_row(row.chain(event(&run.run, &run.uid)));
        }
        text.push_str(&format!("{rows}\n"));
        let more = status.queued.len().saturating_sub(most);
        if more > 0 {
            text.push_str(&format!("… and {more} more that wait: --all shows them\n"));
        }
        text
    }

    /// `exit` says whether all that was asked for is there.
    fn end(mut self, exit: Exit) -> Result<(), Failure> {
        match self.format {
            Format::Json | Format::Yaml => return self.printer.end_list(),
            Format::Table if self.cut => {
                self.printer.text("more repositories: --all shows them\n")?;
            }
            Format::Table if self.shown == 0 && exit == Exit::Success => {
                note("no repository has state here");
            }
            Format::Table => {}
        }
        self.printer.flush()
    }
}
