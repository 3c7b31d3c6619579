//! `pac schema`: the version of PostgreSQL's schema, and the way to change it on purpose.

use pac_concurrency::{DriverKind, PostgresSchema, SchemaStatus, Settings};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::format::{FormatArg, Printer, print_result};
use crate::store;

const AFTER_HELP: &str = "\
Controllers and `pac exec` create a schema that is missing. They leave one of an older version alone,
unless postgresql-migrate is always: software of that version cannot use it once it is changed. Other
commands never change it.

Exit codes of status: 0 when the schema is of this version, 1 when there is something to do.";

/// The arguments of `pac schema`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show the version of the schema, and what there is to do; changes nothing
    Status(Choice),
    /// Create the schema, or bring it up to date
    Apply(Choice),
}

#[derive(Debug, clap::Args)]
struct Choice {
    /// Print the SQL that creates the schema or brings it up to date, and change nothing
    #[arg(long, conflicts_with = "format")]
    print: bool,

    #[command(flatten)]
    output: FormatArg,
}

/// What there is to do about a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Todo {
    Nothing,
    Create,
    Upgrade,
    /// The schema is newer than this software.
    UpdateSoftware,
}

/// The JSON and YAML output.
#[derive(Serialize)]
struct Shape<'a> {
    database: &'a str,
    schema: &'a str,
    found: Option<u32>,
    needed: u32,
    todo: Todo,
}

/// Shows or changes the schema.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Failure> {
    if settings.driver != DriverKind::Postgresql {
        let message = format!(
            "the driver is {}, which has no schema; only postgresql has one",
            settings.driver
        );
        return Err(Failure::new(Exit::Config, message));
    }
    store::block_on(async {
        let schema = PostgresSchema::new(&settings.postgres)?;
        match &args.command {
            Command::Status(choice) | Command::Apply(choice) if choice.print => {
                print(&schema.status().await?)
            }
            Command::Status(choice) => show(&schema.status().await?, choice),
            Command::Apply(choice) => {
                let before = schema.status().await?;
                schema.apply().await?;
                report(&before, &schema.status().await?, choice)
            }
        }
    })
}

/// Prints the SQL alone, so that it can be kept or piped.
fn print(status: &SchemaStatus) -> Result<Exit, Failure> {
    let mut printer = Printer::new(crate::format::Format::Table);
    printer.text(&status.sql)?;
    printer.flush()?;
    match todo(status) {
        Todo::UpdateSoftware => Err(Failure::new(Exit::StoreUnavailable, sentence(status))),
        _ => Ok(Exit::Success),
    }
}

fn show(status: &SchemaStatus, choice: &Choice) -> Result<Exit, Failure> {
    print_result(choice.output.format, &sentence(status), &shape(status))?;
    Ok(match todo(status) {
        Todo::Nothing => Exit::Success,
        _ => Exit::Negative,
    })
}

fn report(before: &SchemaStatus, now: &SchemaStatus, choice: &Choice) -> Result<Exit, Failure> {
    let (schema, needed) = (&now.schema, now.needed);
    let done = match todo(before) {
        Todo::Create => format!("the schema {schema:?} was created, with version {needed}"),
        Todo::Upgrade => format!("the schema {schema:?} was brought up to version {needed}"),
        Todo::Nothing | Todo::UpdateSoftware => sentence(now),
    };
    print_result(choice.output.format, &done, &shape(now))?;
    Ok(Exit::Success)
}

fn shape(status: &SchemaStatus) -> Shape<'_> {
    Shape {
        database: &status.database,
        schema: &status.schema,
        found: status.found,
        needed: status.needed,
        todo: todo(status),
    }
}

fn todo(status: &SchemaStatus) -> Todo {
    match status.found {
        None => Todo::Create,
        Some(found) if found < status.needed => Todo::Upgrade,
        Some(found) if found > status.needed => Todo::UpdateSoftware,
        Some(_) => Todo::Nothing,
    }
}

fn sentence(status: &SchemaStatus) -> String {
    let (database, schema, needed) = (&status.database, &status.schema, status.needed);
    let found = status.found.unwrap_or(0);
    match todo(status) {
        Todo::Nothing => {
            format!("the schema {schema:?} of {database:?} has version {found}, as needed")
        }
        Todo::Create => format!(
            "the database {database:?} has no schema {schema:?} of this software: `pac schema \
             apply` creates it, with version {needed}"
        ),
        Todo::Upgrade => format!(
            "the schema {schema:?} of {database:?} has version {found}: `pac schema apply` brings it \
             up to version {needed}; software of the older version cannot use it then"
        ),
        Todo::UpdateSoftware => format!(
            "the schema {schema:?} of {database:?} has version {found}, and this software knows up \
             to {needed}: use a newer version of it"
        ),
    }
}
