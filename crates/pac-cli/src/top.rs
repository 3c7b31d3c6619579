//! `pac top`: the busiest repositories, live.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::io::{self, IsTerminal};
use std::num::NonZeroU64;
use std::time::Duration;

use comfy_table::CellAlignment;
use console::Term;
use pac_concurrency::text::{lines, one_line};
use pac_concurrency::{
    Error, Owner, RepositoryKey, RepositoryStatus, RepositorySummary, Revision, SessionId,
    Settings, StoreReader,
};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use crate::exit::{Exit, Failure};
use crate::format::{Format, FormatArg, Printer, table};
use crate::output::note;
use crate::process::{ProcessShape, Processes};
use crate::store;
use crate::terms::PauseShape;
use crate::time::{now, parse_duration, rfc3339};
use crate::why;

/// Repositories per page of the list.
const PAGE: usize = 1_000;

/// Of so many repositories a view says who holds their slots: each is read, when it has changed.
const LOOKED_INTO: usize = 10;
/// Those where more than this wait are not read for that.
const DEEPEST: u32 = 1_000;

const AFTER_HELP: &str = "\
Repositories are ordered by how many wait, then by how many run. The first ten say who holds their
slots, unless more than a thousand wait there. Ends with Ctrl-C. Where standard
output is no terminal, or with JSON or YAML, every view is printed below the one before.";

/// The arguments of `pac top`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// How often to look
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    every: Duration,

    /// End after so many views
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,

    #[command(flatten)]
    output: FormatArg,
}

/// Shows the store until the command is stopped.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Failure> {
    store::block_on(async {
        let reader = store::reader(settings).await?;
        let mut screen = Screen::new(args.output.format);
        let mut holders = Holders::default();
        let mut tick = interval(args.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut left = args.count.map_or(u64::MAX, NonZeroU64::get);
        let mut seen = false;
        while left > 0 {
            tokio::select! {
                _ = tick.tick() => {}
                stopped = tokio::signal::ctrl_c() => {
                    return match stopped {
                        Ok(()) => Ok(Exit::Success),
                        Err(error) => Err(Failure::new(Exit::Internal, error)),
                    };
                }
            }
            match View::read(&reader).await {
                Ok(view) => {
                    holders.look(&reader, &view).await;
                    screen.show(&view, &holders)?;
                }
                Err(error) if seen && error.is_retryable() => {
                    screen.complain(&error)?;
                }
                Err(error) => return Err(error.into()),
            }
            seen = true;
            left -= 1;
        }
        Ok(Exit::Success)
    })
}

/// The state of the store at one moment.
struct View {
    repositories: Vec<RepositorySummary>,
}

impl View {
    async fn read(reader: &StoreReader) -> Result<Self, Error> {
        let mut repositories: Vec<RepositorySummary> = Vec::new();
        loop {
            let after = repositories.last().map(|last| last.repository.clone());
            let page = reader.list(after.as_ref(), PAGE).await?;
            let last = page.len() < PAGE;
            repositories.extend(page);
            if last {
                break;
            }
        }
        repositories.sort_by_key(|one| Reverse((one.queued, one.running)));
        Ok(Self { repositories })
    }

    fn totals(&self) -> String {
        let sum = |of: fn(&RepositorySummary) -> u32| -> u64 {
            self.repositories.iter().map(|one| u64::from(of(one))).sum()
        };
        format!(
            "pac top  {}  {} repositories, {} running, {} queued",
            rfc3339(now()),
            self.repositories.len(),
            sum(|one| one.running),
            sum(|one| one.queued)
        )
    }

    /// The view as text of at most `most_lines` lines.
    fn text(&self, holders: &Holders, most_lines: usize) -> String {
        // Less the line of totals, three of the table's frame, its header, and one for the
        // cursor.
        let most = most_lines.saturating_sub(6).max(1);
        let shown = || self.repositories.iter().take(most);
        let mut rows = table(["repository", "limit", "running", "queued", "held by"]);
        let with_notes = shown().any(|one| !notes(one).is_empty());
        if with_notes {
            rows.set_header(["repository", "limit", "running", "queued", "held by", ""]);
        }
        for column in rows.column_iter_mut().skip(1).take(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for one in shown() {
            let mut row = vec![
                one.repository.to_string(),
                one.limit.to_string(),
                one.running.to_string(),
                one.queued.to_string(),
                holders.cell(&one.repository),
            ];
            row.extend(with_notes.then(|| notes(one)));
            rows.add_row(row);
        }
        lines(&format!("{}\n{rows}\n", self.totals())).into_owned()
    }
}

/// What is out of the ordinary in a repository.
fn notes(one: &RepositorySummary) -> String {
    let paused = one.pause.as_ref().map(why::paused);
    let by_slots = why::by_slots(one.slots_taken, one.running);
    let slots = by_slots.then(|| format!("{} slots taken", one.slots_taken));
    let parts: Vec<_> = [paused, slots].into_iter().flatten().collect();
    parts.join("; ")
}

/// The sessions that hold the slots of the repositories that a view looks into, oldest grant first.
#[derive(Default)]
struct Holders {
    of: HashMap<RepositoryKey, (Revision, Vec<SessionId>)>,
    processes: Processes,
}

impl Holders {
    /// Reads the first repositories that have changed since the last view, and then the sessions
    /// that are new, with one request. What cannot be read is left out.
    async fn look(&mut self, reader: &StoreReader, view: &View) {
        let mut before = std::mem::take(&mut self.of);
        for one in view.repositories.iter().take(LOOKED_INTO) {
            if one.queued > DEEPEST {
                continue;
            }
            let known = before.remove(&one.repository);
            let known = known.filter(|(revision, _)| *revision == one.revision);
            let known = match (known, one.running) {
                (Some(known), _) => known,
                (None, 0) => (one.revision, Vec::new()),
                (None, _) => match reader.status(&one.repository).await {
                    Ok(status) => (status.revision, holders(&status)),
                    Err(_) => continue,
                },
            };
            self.of.insert(one.repository.clone(), known);
        }
        let sessions: Vec<_> = self.of.values().flat_map(|(_, all)| all.clone()).collect();
        self.processes.read(reader, sessions).await;
    }

    /// The one with the oldest grant, and how many others there are.
    fn cell(&self, repository: &RepositoryKey) -> String {
        let holders = self
            .of
            .get(repository)
            .map(|(_, holders)| holders.as_slice());
        match holders.unwrap_or_default() {
            [] => String::new(),
            [one] => self.processes.cell(*one),
            [one, others @ ..] => format!("{} +{}", self.processes.cell(*one), others.len()),
        }
    }

    fn shapes(&self, repository: &RepositoryKey) -> Option<Vec<Holder<'_>>> {
        let (_, holders) = self.of.get(repository)?;
        let shape = |session: &SessionId| Holder {
            session: session.to_string(),
            process: self.processes.shape(*session),
        };
        Some(holders.iter().map(shape).collect())
    }
}

/// Each session that holds a slot, once.
fn holders(status: &RepositoryStatus) -> Vec<SessionId> {
    let mut holders: Vec<SessionId> = Vec::new();
    let mut seen = HashSet::new();
    for run in &status.running {
        if seen.insert(run.session) {
            holders.push(run.session);
        }
    }
    holders
}

/// The JSON and YAML output: one document per view.
#[derive(Serialize)]
struct Shape<'a> {
    at: String,
    repositories: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    repository: &'a str,
    limit: u32,
    running: u32,
    queued: u32,
    slots_taken: u32,
    owner: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_queued: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<PauseShape<'a>>,
    held_by: Option<Vec<Holder<'a>>>,
}

#[derive(Serialize)]
struct Holder<'a> {
    session: String,
    process: Option<ProcessShape<'a>>,
}

impl<'a> Shape<'a> {
    fn of(view: &'a View, holders: &'a Holders) -> Self {
        let rows = view.repositories.iter().map(|one| Row {
            repository: one.repository.as_str(),
            limit: one.limit.get().unwrap_or(0),
            running: one.running,
            queued: one.queued,
            slots_taken: one.slots_taken,
            owner: one.owner.map(Owner::as_str),
            max_queued: one.max_queued,
            paused: one.pause.as_ref().map(PauseShape::of),
            held_by: holders.shapes(&one.repository),
        });
        Self {
            at: rfc3339(now()),
            repositories: rows.collect(),
        }
    }
}

/// Where views are printed. Dropping it shows a terminal's cursor again.
struct Screen {
    format: Format,
    printer: Printer,
    terminal: Option<Term>,
}

impl Screen {
    fn new(format: Format) -> Self {
        let live = format == Format::Table && io::stdout().is_terminal();
        let terminal = live.then(Term::stdout);
        if let Some(terminal) = &terminal {
            let _ = terminal.hide_cursor();
            let _ = terminal.clear_screen();
        }
        Self {
            format,
            printer: Printer::new(format),
            terminal,
        }
    }

    fn show(&mut self, view: &View, holders: &Holders) -> Result<(), Failure> {
        if let Some(terminal) = &self.terminal {
            let (lines, _) = terminal.size();
            // Overwrite the last view instead of clearing the screen, which would flicker.
            terminal.move_cursor_to(0, 0)?;
            for line in view.text(holders, usize::from(lines)).lines() {
                terminal.clear_line()?;
                terminal.write_line(line)?;
            }
            return Ok(terminal.clear_to_end_of_screen()?);
        }
        if self.format == Format::Table {
            self.printer.text(&view.text(holders, usize::MAX))?;
            return self.printer.flush();
        }
        self.printer.document(&Shape::of(view, holders))
    }

    fn complain(&self, error: &Error) -> Result<(), Failure> {
        match &self.terminal {
            Some(terminal) => Ok(terminal.write_line(&one_line(&error.to_string()))?),
            None => {
                note(error);
                Ok(())
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(terminal) = &self.terminal {
            let _ = terminal.show_cursor();
        }
    }
}
