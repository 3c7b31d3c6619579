//! `pac status`: limits, running and waiting runs.

#[cfg(feature = "kubernetes")]
mod cluster;
#[cfg(not(feature = "kubernetes"))]
#[path = "status/no_cluster.rs"]
mod cluster;

use std::collections::HashSet;
use std::num::NonZeroU32;

use futures_util::StreamExt;
use futures_util::stream::iter;
use pac_concurrency::{
    Limit, Owner, PipelineRunKey, QueuedRun, RepositoryKey, RepositoryStatus, RepositorySummary,
    Rules, RunningRun, SessionId, Settings, SlotName, StoreReader, Timestamp, Uid,
};
use serde::Serialize;

use crate::event::EventShape;
use crate::exit::{Exit, Failure};
use crate::format::{Format, FormatArg, Printer, cell, table};
use crate::output::note;
use crate::store;
use crate::terms::{PauseShape, TermsShape};
use crate::time::{humanise, now, rfc3339};
use crate::why::{self, Waiting};
use cluster::{ClusterArgs, Origins};

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
            if let Some(origins) = &mut origins {
                origins.read(&status).await;
            }
            view.show(&status, origins.as_ref())
        })
        .await?;
        view.end()?;
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
/// `show` until `show` returns false. One that cannot be understood does not stop the others.
pub(crate) async fn each_repository(
    reader: &StoreReader,
    only: Option<&RepositoryKey>,
    mut show: impl AsyncFnMut(RepositoryStatus) -> Result<bool, Failure>,
) -> Result<Exit, Failure> {
    if let Some(only) = only {
        let status = reader.status(only).await?;
        if status.exists {
            show(status).await?;
        } else {
            note(format_args!("the store knows nothing of {only}"));
        }
        return Ok(Exit::Success);
    }
    let mut exit = Exit::Success;
    let mut after = None;
    loop {
        let page = reader.list(after.as_ref(), PAGE).await?;
        after = page.last().map(|last| last.repository.clone());
        let last = page.len() < PAGE;
        let read =
            |summary: RepositorySummary| async move { reader.status(&summary.repository).await };
        let mut statuses = iter(page).map(read).buffered(AT_ONCE);
        while let Some(status) = statuses.next().await {
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
            started_at: run.started_at.map(rfc3339),
            terms: TermsShape::of(&run.terms),
            slot_names: slot_names(run, &status.rules).collect(),
            dead: dead.contains(&run.session),
            event: event(&run.run, &run.uid),
        });
        let queued = status.queued.iter().map(|run| Queued {
            run: run.run.as_str(),
            position: run.position,
            priority: run.priority.get(),
            queued_at: run.queued_at.map(rfc3339),
            owner: run.owner.map(|owner| owner.to_string()),
            reason: why::word(&run.reason),
            terms: TermsShape::of(&run.terms),
            dead: run.owner.is_some_and(|owner| dead.contains(&owner)),
            event: event(&run.run, &run.uid),
        });
        let names = |names: &'a [SlotName]| names.iter().map(SlotName::as_str).collect();
        Self {
            repository: status.repository.as_str(),
            limit: status.limit.get().unwrap_or(0),
            owner: status.owner.map(Owner::as_str),
            slots_taken: status.slots_taken,
            max_queued: status.rules.max_queued,
            backfill: status.rules.backfill.map(NonZeroU32::get),
            slots: status.rules.slots.as_deref().map(names),
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
            printer: Printer::new(format),
            shown: 0,
            cut: false,
        }
    }

    /// Shows a repository. Returns false once enough have been shown.
    fn show(
        &mut self,
        status: &RepositoryStatus,
        origins: Option<&Origins>,
    ) -> Result<bool, Failure> {
        if self.format != Format::Table {
            self.printer.item(&Shape::of(status, &self.dead, origins))?;
            return Ok(true);
        }
        if self.shown == REPOSITORIES_SHOWN && !self.all {
            self.cut = true;
            return Ok(false);
        }
        self.shown += 1;
        let most = if self.all { usize::MAX } else { QUEUED_SHOWN };
        let text = describe(status, most, &self.dead, origins, now());
        self.printer.text(&text)?;
        self.printer.flush()?;
        Ok(true)
    }

    fn end(mut self) -> Result<(), Failure> {
        match self.format {
            Format::Json | Format::Yaml => return self.printer.end_list(),
            Format::Table if self.cut => {
                self.printer.text("more repositories: --all shows them\n")?;
            }
            Format::Table if self.shown == 0 => note("no repository has state here"),
            Format::Table => {}
        }
        self.printer.flush()
    }
}

/// Describes a repository in words and a table, with what its runs were made for if that was asked.
fn describe(
    status: &RepositoryStatus,
    most: usize,
    dead: &HashSet<SessionId>,
    origins: Option<&Origins>,
    now: Timestamp,
) -> String {
    let mut text = heading(status, now);
    if status.running.is_empty() && status.queued.is_empty() {
        return text;
    }
    let mut rows = table(["run", "state", "token", "session", "for", "why it waits"]);
    if origins.is_some() {
        rows.set_header([
            "run",
            "state",
            "token",
            "session",
            "for",
            "why it waits",
            "event",
        ]);
    }
    let event = |run: &PipelineRunKey, uid: &Uid| origins.map(|all| all.of(run, uid).words());
    for run in &status.running {
        let row = running(run, dead.contains(&run.session), status, now).into_iter();
        rows.add_row(row.chain(event(&run.run, &run.uid)));
    }
    for run in status.queued.iter().take(most) {
        let is_dead = run.owner.is_some_and(|owner| dead.contains(&owner));
        let row = queued(run, is_dead, status, now).into_iter();
        rows.add_row(row.chain(event(&run.run, &run.uid)));
    }
    text.push_str(&format!("{rows}\n"));
    if let Some(more) = status
        .queued
        .len()
        .checked_sub(most)
        .filter(|more| *more > 0)
    {
        text.push_str(&format!("… and {more} more that wait: --all shows them\n"));
    }
    text
}

/// The repository, its limit, how many there are, and whether it is paused.
fn heading(status: &RepositoryStatus, now: Timestamp) -> String {
    let owner = match status.owner {
        Some(owner @ (Owner::Pinned | Owner::Proposed)) => format!(" ({})", owner.as_str()),
        _ => String::new(),
    };
    let (running, queued) = (status.running.len(), status.queued.len());
    let slots = match by_slots(status) {
        true => format!(", {} slots taken", status.slots_taken),
        false => String::new(),
    };
    let most = status
        .rules
        .max_queued
        .map(|most| format!(" of at most {most}"));
    let mut text = format!(
        "{}  limit {}{owner}, {running} running{slots}, {queued} queued{}\n",
        status.repository,
        status.limit,
        most.unwrap_or_default()
    );
    if let Some(pause) = &status.pause {
        let since = age(pause.since, now);
        let reason = pause.reason.as_ref().map(|reason| format!(": {reason}"));
        text.push_str(&format!(
            "paused for {since}{}\n",
            reason.unwrap_or_default()
        ));
    }
    text
}

/// Whether some of its runs take several slots.
fn by_slots(status: &RepositoryStatus) -> bool {
    usize::try_from(status.slots_taken).is_ok_and(|taken| taken != status.running.len())
}

/// The names of the slots of a run, where they have any.
fn slot_names<'a>(run: &RunningRun, rules: &'a Rules) -> impl Iterator<Item = &'a str> {
    let names = rules.slots.as_deref().unwrap_or_default();
    let named = run.terms.slots.iter().map(|slot| {
        let slot = usize::try_from(*slot).ok()?;
        names.get(slot).map(SlotName::as_str)
    });
    named.flatten()
}

/// Which slots a run has, where that is not plain.
fn slots(run: &RunningRun, status: &RepositoryStatus) -> Option<String> {
    let names: Vec<_> = slot_names(run, &status.rules).collect();
    let numbers = || {
        let numbers: Vec<_> = run.terms.slots.iter().map(u32::to_string).collect();
        numbers.join(", ")
    };
    match (names.is_empty(), run.terms.slots.is_empty()) {
        (false, _) => Some(format!("in {}", names.join(", "))),
        (true, false) if status.limit != Limit::new(1) => {
            let slots = if run.terms.slots.len() == 1 {
                "slot"
            } else {
                "slots"
            };
            Some(format!("{slots} {}", numbers()))
        }
        (true, _) => None,
    }
}

fn running(
    run: &RunningRun,
    is_dead: bool,
    status: &RepositoryStatus,
    now: Timestamp,
) -> [String; 6] {
    let state = if run.orphaned {
        "running, orphaned"
    } else if is_dead {
        "running, process dead"
    } else {
        "running"
    };
    let asked = run.terms.asked.at();
    let asked = asked.map(|asked| format!("asked to end {} ago", humanise(now.since(asked))));
    let parts = std::iter::once(state.to_owned())
        .chain(asked)
        .chain(slots(run, status))
        .chain(TermsShape::of(&run.terms).words());
    // How many it has is plain where they are told one by one.
    let parts = parts.filter(|words| run.terms.slots.is_empty() || !words.ends_with(" slots"));
    let state = cell(&parts.collect::<Vec<_>>().join(", "));
    [
        run.run.to_string(),
        state,
        run.token.to_string(),
        run.session.to_string(),
        age(run.started_at, now),
        String::new(),
    ]
}

fn queued(
    run: &QueuedRun,
    is_dead: bool,
    status: &RepositoryStatus,
    now: Timestamp,
) -> [String; 6] {
    let waiting = Waiting {
        weight: run.terms.weight,
        by_slots: by_slots(status),
    };
    let terms: Vec<_> = TermsShape::of(&run.terms).words().collect();
    let terms = terms
        .iter()
        .map(|words| format!(", {words}"))
        .collect::<String>();
    let priority = match run.priority.get() {
        0 => String::new(),
        priority => format!(", priority {priority}"),
    };
    [
        run.run.to_string(),
        cell(&format!("queued at {}{priority}{terms}", run.position)),
        String::new(),
        run.owner
            .map_or_else(|| "none".to_owned(), |owner| owner.to_string()),
        age(run.queued_at, now),
        if is_dead {
            "its process is dead; it is about to be seen to".to_owned()
        } else {
            why::reason(&run.reason, waiting)
        },
    ]
}

fn age(since: Option<Timestamp>, now: Timestamp) -> String {
    since.map_or_else(String::new, |since| humanise(now.since(since)))
}
