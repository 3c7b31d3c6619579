//! Heads and entries as rows.
//!
//! The protocol's numbers have 64 bits and no sign, the columns have one. Counters above 2⁶², which no
//! counter reaches, are corrupt. The version of a limit comes from outside, so it is stored whole, bit
//! for bit.

#[cfg(test)]
mod fuzz;

use std::fmt::Display;
use std::sync::Arc;

use pac_core::state::{
    Entry, EntryState, Head, Policy, RunKind, RunOutcome, Terms, UnreadablePart,
};
use pac_core::{
    Error, ErrorKind, FencingToken, Limit, LimitVersion, MAX_COUNTER, Priority, Revision,
    SessionId, Stamp, Ticket,
};

use crate::client::{FromSql, Row, RowError};
use crate::clock;

/// The version of the records that this software writes and reads.
const FORMAT: i16 = 1;

/// The columns of a head, as [`head`] reads them.
pub(crate) const HEAD: &str = "format, revision, stamp, run_limit, limit_version, last_ticket, \
                               last_token, queued, started, policy";
/// How many columns those are.
pub(crate) const HEAD_COLUMNS: usize = 10;

/// Reads a head from the columns from `at` on.
pub(crate) fn head(row: &impl Cells, at: usize) -> Result<Head, Error> {
    check_format(cell(row, at)?)?;
    let limit: i64 = cell(row, at + 3)?;
    let version: Option<i64> = cell(row, at + 4)?;
    Ok(Head {
        revision: Revision::new(counter(row, at + 1)?),
        stamp: Stamp::new(number(row, at + 2)?),
        limit: Limit::new(narrow("run_limit", limit)?),
        limit_version: version.map(|version| LimitVersion::new(version.cast_unsigned())),
        last_ticket: Ticket::new(counter(row, at + 5)?),
        last_token: FencingToken::new(counter(row, at + 6)?),
        queued: narrow("queued", cell::<i64>(row, at + 7)?)?,
        started: narrow("started", cell::<i64>(row, at + 8)?)?,
        policy: part(row, at + 9, Policy::from_json)?.map(Arc::new),
    })
}

/// Reads an entry from the columns from `at` on, in the order of `load_repository`.
pub(crate) fn entry(row: &impl Cells, at: usize) -> Result<Entry, Error> {
    check_format(cell(row, at)?)?;
    let token = match cell::<Option<i64>>(row, at + 7)? {
        Some(token) => Some(FencingToken::new(counted(row, at + 7, token)?)),
        None => None,
    };
    let session = match cell::<Option<i64>>(row, at + 8)? {
        Some(session) => Some(SessionId::new(unsigned(row, at + 8, session)?)),
        None => None,
    };
    let state = match (cell::<i16>(row, at + 6)?, token, session) {
        (0, None, owner) => EntryState::Queued { owner },
        (1, Some(token), Some(session)) => EntryState::Started {
            token,
            session,
            orphaned: cell(row, at + 9)?,
        },
        (2, token, None) => EntryState::Finished {
            outcome: match cell::<Option<i16>>(row, at + 10)? {
                Some(0) => RunOutcome::Completed,
                Some(1) => RunOutcome::Failed,
                Some(2) => RunOutcome::Cancelled,
                Some(3) => RunOutcome::LeaseLost,
                Some(4) => RunOutcome::Superseded,
                Some(5) => RunOutcome::TimedOut,
                Some(6) => RunOutcome::QueueFull,
                other => return Err(broken("outcome", format!("{other:?}"))),
            },
            token,
            abandoned: cell(row, at + 11)?,
        },
        (state, ..) => {
            return Err(broken(
                "state",
                format!("{state} with this token and session"),
            ));
        }
    };
    let (run, uid): (&str, &str) = (cell(row, at + 1)?, cell(row, at + 2)?);
    Ok(Entry {
        run: run.parse().map_err(|error| broken("run", error))?,
        uid: uid.parse().map_err(|error| broken("uid", error))?,
        kind: match cell::<i16>(row, at + 3)? {
            0 => RunKind::Durable,
            1 => RunKind::Ephemeral,
            other => return Err(broken("kind", other)),
        },
        priority: Priority::new(cell(row, at + 4)?),
        ticket: Ticket::new(counter(row, at + 5)?),
        state,
        queued: clock::stored(cell(row, at + 12)?),
        started: clock::stored(cell(row, at + 13)?),
        finished: clock::stored(cell(row, at + 14)?),
        terms: part(row, at + 16, Terms::from_json)?.map(Box::new),
        revision: Revision::new(counter(row, at + 15)?),
    })
}

/// What a JSON object says; an empty text stands for none.
fn part<T>(
    row: &impl Cells,
    at: usize,
    read: impl FnOnce(&str) -> Result<T, UnreadablePart>,
) -> Result<Option<T>, Error> {
    let text: Option<&str> = cell(row, at)?;
    text.filter(|text| !text.is_empty())
        .map(read)
        .transpose()
        .map_err(|error| error.error("load", format_args!("the {} of a record", row.name(at))))
}

/// A row, as far as records are read from it.
pub(crate) trait Cells {
    /// The value in a column.
    ///
    /// # Errors
    /// `Corrupt` where there is none of this type.
    fn value<'a, T: FromSql<'a>>(&'a self, at: usize) -> Result<T, Error>;

    /// The name of a column.
    fn name(&self, at: usize) -> &str;
}

impl Cells for Row {
    fn value<'a, T: FromSql<'a>>(&'a self, at: usize) -> Result<T, Error> {
        self.try_get(at)
            .map_err(|error: RowError| broken(self.name(at), error))
    }

    fn name(&self, at: usize) -> &str {
        self.columns().get(at).map_or("?", |column| column.name())
    }
}

/// A value of a row.
pub(crate) fn cell<'a, T: FromSql<'a>>(row: &'a impl Cells, at: usize) -> Result<T, Error> {
    row.value(at)
}

fn check_format(format: i16) -> Result<(), Error> {
    match format {
        FORMAT => Ok(()),
        newer if newer > FORMAT => Err(Error::new(
            ErrorKind::Incompatible,
            "load",
            format!(
                "a record has format {newer}, and this software knows up to {FORMAT}: update it"
            ),
        )),
        other => Err(broken("format", other)),
    }
}

/// The floor: the number from which the counters of a repository go on that does not exist.
pub(crate) fn floor(number: i64) -> Result<u64, Error> {
    let floor = u64::try_from(number).ok();
    let floor = floor.filter(|floor| *floor <= MAX_COUNTER);
    floor.ok_or_else(|| {
        let message = format!(
            "the table floor holds {number}, and counters are numbers from 0 to 2^62: set it to the \
             highest revision, ticket or token of any repository"
        );
        Error::new(ErrorKind::Corrupt, "load", message)
    })
}

fn counter(row: &impl Cells, at: usize) -> Result<u64, Error> {
    counted(row, at, cell(row, at)?)
}

fn counted(row: &impl Cells, at: usize, number: i64) -> Result<u64, Error> {
    let counter = u64::try_from(number).ok();
    let counter = counter.filter(|counter| *counter <= MAX_COUNTER);
    counter.ok_or_else(|| {
        let message = format!(
            "{} holds {number}, and counters are numbers from 0 to 2^62: correct or remove the record",
            row.name(at)
        );
        Error::new(ErrorKind::Corrupt, "load", message)
    })
}

fn number(row: &impl Cells, at: usize) -> Result<u64, Error> {
    unsigned(row, at, cell(row, at)?)
}

fn unsigned(row: &impl Cells, at: usize, number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|_| broken(row.name(at), number))
}

fn narrow(column: &str, number: i64) -> Result<u32, Error> {
    u32::try_from(number).map_err(|_| broken(column, number))
}

fn broken(column: &str, value: impl Display) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "load",
        format!(
            "{column} holds {value}, which this software never writes: correct or remove the \
             record"
        ),
    )
}

/// For counters that were checked, and for the ids of sessions and for stamps: one that does not fit is none of this store's.
pub(crate) fn saturated(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
