//! What `pac migrate` prints.

use pac_concurrency::DriverKind;
use pac_concurrency::migration::{Action, LeftOut, MigratedRepository, MigrationReport};
use serde::Serialize;

use crate::exit::Failure;
use crate::format::{Format, Printer, cell, table};

/// What was done, or would be.
#[derive(Debug)]
pub(crate) struct Outcome {
    from: String,
    to: DriverKind,
    is_dry_run: bool,
    pub(crate) report: MigrationReport,
    /// After a removal: how much of the old state was left because it had changed meanwhile.
    kept: Option<usize>,
}

impl Outcome {
    pub(crate) fn new(
        from: &str,
        to: DriverKind,
        is_dry_run: bool,
        report: MigrationReport,
    ) -> Self {
        Self {
            from: from.to_owned(),
            to,
            is_dry_run,
            report,
            kept: None,
        }
    }

    /// The old state was removed, but for so much of it.
    pub(crate) fn removed(&mut self, kept: usize) {
        self.kept = Some(kept);
    }

    /// Whether nothing of the old state is needed any more.
    pub(crate) fn is_done(&self) -> bool {
        self.report.is_complete() && self.kept.is_none_or(|kept| kept == 0)
    }
}

/// The JSON and YAML output.
#[derive(Serialize)]
struct Shape<'a> {
    from: &'a str,
    to: String,
    dry_run: bool,
    complete: bool,
    removed: bool,
    kept: usize,
    repositories: Vec<RepositoryShape<'a>>,
    left_out: Vec<LeftOutShape<'a>>,
}

#[derive(Serialize)]
struct RepositoryShape<'a> {
    repository: &'a str,
    limit: u32,
    limit_is_provisional: bool,
    runs: Vec<RunShape<'a>>,
    problems: &'a [String],
}

#[derive(Serialize)]
struct RunShape<'a> {
    run: &'a str,
    action: &'a str,
    remark: Option<&'a str>,
}

#[derive(Serialize)]
struct LeftOutShape<'a> {
    what: &'a str,
    why: &'a str,
    open: bool,
}

/// Prints the outcome.
pub(crate) fn print(outcome: &Outcome, format: Format) -> Result<(), Failure> {
    let mut printer = Printer::new(format);
    match format {
        Format::Table => {
            printer.text(&text(outcome))?;
            printer.flush()
        }
        Format::Json | Format::Yaml => printer.document(&shape(outcome)),
    }
}

fn shape(outcome: &Outcome) -> Shape<'_> {
    let report = &outcome.report;
    let repositories = report.repositories.iter().map(|one| RepositoryShape {
        repository: one.repository.as_str(),
        limit: one.limit.get().unwrap_or(0),
        limit_is_provisional: one.limit_is_provisional,
        runs: one
            .runs
            .iter()
            .map(|run| RunShape {
                run: run.run.as_str(),
                action: run.action.as_str(),
                remark: run.remark,
            })
            .collect(),
        problems: &one.problems,
    });
    let left_out = report.left_out.iter().map(|left| LeftOutShape {
        what: &left.what,
        why: &left.why,
        open: left.is_open,
    });
    Shape {
        from: &outcome.from,
        to: outcome.to.to_string(),
        dry_run: outcome.is_dry_run,
        complete: outcome.is_done(),
        removed: outcome.kept.is_some(),
        kept: outcome.kept.unwrap_or(0),
        repositories: repositories.collect(),
        left_out: left_out.collect(),
    }
}

fn text(outcome: &Outcome) -> String {
    let report = &outcome.report;
    let mut text = String::new();
    let mut runs = table(["REPOSITORY", "RUN", "ACTION", "REMARK"]);
    for one in &report.repositories {
        // Those that are there already, or have ended, are only counted.
        let shown = one.runs.iter().filter(|run| {
            let action = run.action;
            matches!(action, Action::Adopt | Action::Enqueue | Action::Conflict)
        });
        for run in shown {
            let (repository, name) = (one.repository.as_str(), run.run.as_str());
            runs.add_row([
                repository,
                name,
                run.action.as_str(),
                run.remark.unwrap_or(""),
            ]);
        }
    }
    if !runs.is_empty() {
        text.push_str(&format!("{runs}\n"));
    }
    for one in &report.repositories {
        text.push_str(&repository_lines(one));
    }
    for left in &report.left_out {
        text.push_str(&left_out_line(left));
    }
    text.push_str(&sentence(outcome));
    text.push('\n');
    text
}

fn repository_lines(one: &MigratedRepository) -> String {
    let mut lines = String::new();
    if one.limit_is_provisional {
        lines.push_str(&format!(
            "{}: nothing says its limit; {} until a controller or `pac limit` sets it\n",
            one.repository, one.limit
        ));
    }
    for problem in &one.problems {
        lines.push_str(&format!("{}: {}\n", one.repository, cell(problem)));
    }
    lines
}

fn left_out_line(left: &LeftOut) -> String {
    // Names and states of an old store may hold anything.
    format!("left out: {}: {}\n", cell(&left.what), cell(&left.why))
}

fn sentence(outcome: &Outcome) -> String {
    let count = |wanted| {
        let all = outcome.report.repositories.iter();
        all.flat_map(|one| &one.runs)
            .filter(|run| run.action == wanted)
            .count()
    };
    let would = if outcome.is_dry_run { "would be " } else { "" };
    let mut sentence = format!(
        "from {} to {}: {} runs {would}adopted, {} {would}queued, {} that have ended {would}\
         recorded; {} are there already",
        outcome.from,
        outcome.to,
        count(Action::Adopt),
        count(Action::Enqueue),
        count(Action::Record),
        count(Action::Present)
    );
    match (outcome.is_done(), outcome.is_dry_run, outcome.kept) {
        (true, true, _) => {}
        (true, false, Some(_)) => sentence.push_str("; verified, and the old state is removed"),
        (true, false, None) => sentence.push_str("; verified"),
        (false, _, Some(kept)) => sentence.push_str(&format!(
            "; {kept} parts of the old state were left because they changed meanwhile: run this \
             again"
        )),
        (false, _, None) => sentence.push_str("; not all is well, see above: nothing was removed"),
    }
    sentence
}
