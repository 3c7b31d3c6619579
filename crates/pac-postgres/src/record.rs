//! Heads and entries as rows, and a commit as arrays.
//!
//! The protocol's numbers have 64 bits and no sign, the columns have one. Counters above 2⁶², which no
//! counter reaches, are corrupt. The version of a limit comes from outside, so it is stored whole, bit
//! for bit.

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;

use pac_core::driver::RepositoryCommit;
use pac_core::state::{Entry, EntryState, Head, RunKind, RunOutcome};
use pac_core::{
    Error, ErrorKind, FencingToken, Limit, LimitVersion, MAX_COUNTER, Priority, Revision,
    SessionId, Stamp, Ticket,
};

use crate::client::{FromSql, Param, Row, RowError, Type};
use crate::clock;

/// The version of the records that this software writes and reads.
const FORMAT: i16 = 1;

/// The columns of a head, as [`head`] reads them.
pub(crate) const HEAD: &str = "format, revision, stamp, run_limit, limit_version, last_ticket, \
                               last_token, queued, started";
/// How many columns those are.
pub(crate) const HEAD_COLUMNS: usize = 9;

/// Reads a head from the columns from `at` on.
pub(crate) fn head(row: &Row, at: usize) -> Result<Head, Error> {
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
    })
}

/// Reads an entry from the columns from `at` on, in the order of `load_repository`.
pub(crate) fn entry(row: &Row, at: usize) -> Result<Entry, Error> {
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
                Some(3) => RunOutcome::Expired,
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
        revision: Revision::new(counter(row, at + 15)?),
    })
}

/// A value of a row.
pub(crate) fn cell<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, Error> {
    row.try_get(at)
        .map_err(|error: RowError| broken(name(row, at), error))
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

fn counter(row: &Row, at: usize) -> Result<u64, Error> {
    counted(row, at, cell(row, at)?)
}

fn counted(row: &Row, at: usize, number: i64) -> Result<u64, Error> {
    let counter = u64::try_from(number).ok();
    let counter = counter.filter(|counter| *counter <= MAX_COUNTER);
    counter.ok_or_else(|| {
        let message = format!(
            "{} holds {number}, and counters are numbers from 0 to 2^62: correct or remove the record",
            name(row, at)
        );
        Error::new(ErrorKind::Corrupt, "load", message)
    })
}

fn number(row: &Row, at: usize) -> Result<u64, Error> {
    unsigned(row, at, cell(row, at)?)
}

fn unsigned(row: &Row, at: usize, number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|_| broken(name(row, at), number))
}

fn name(row: &Row, at: usize) -> &str {
    row.columns().get(at).map_or("?", |column| column.name())
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

/// The arguments of the function `commit_batch`, in its order, after the session.
#[derive(Debug, Default)]
pub(crate) struct Batch<'a> {
    repository: Vec<&'a str>,
    expected: Vec<i64>,
    stamp: Vec<i64>,
    at: Vec<Option<String>>,
    remove: Vec<bool>,
    limit: Vec<i64>,
    limit_version: Vec<Option<i64>>,
    last_ticket: Vec<i64>,
    last_token: Vec<i64>,
    queued: Vec<i64>,
    started: Vec<i64>,
    alive_of: Vec<i32>,
    alive: Vec<i64>,
    entries: Entries<'a>,
}

#[derive(Debug, Default)]
struct Entries<'a> {
    of: Vec<i32>,
    run: Vec<&'a str>,
    uid: Vec<&'a str>,
    kind: Vec<i16>,
    priority: Vec<i32>,
    ticket: Vec<i64>,
    state: Vec<i16>,
    token: Vec<Option<i64>>,
    owner: Vec<Option<i64>>,
    orphaned: Vec<bool>,
    outcome: Vec<Option<i16>>,
    abandoned: Vec<bool>,
    adopted: Vec<bool>,
    queued_at: Vec<Option<i64>>,
    started_at: Vec<Option<i64>>,
    finished_at: Vec<Option<i64>>,
}

impl<'a> Batch<'a> {
    /// Adds a repository, whose head was last seen `at` this place. Its number is the number of
    /// repositories added before it, plus one.
    ///
    /// # Errors
    /// `Corrupt` for a counter at the end of counting; nothing was added then.
    pub(crate) fn push(
        &mut self,
        commit: &'a RepositoryCommit,
        at: Option<String>,
    ) -> Result<(), Error> {
        let changes = &commit.changes;
        let head = &changes.head;
        let refused = |reason: String| {
            Error::new(ErrorKind::Corrupt, "commit", reason).in_repository(&commit.repository)
        };
        changes.check_counters().map_err(refused)?;
        let expected = changes.expected.revision.get();
        // The next revision, which is one higher, has to be a counter too.
        if expected >= MAX_COUNTER {
            return Err(refused(format!(
                "its revision is {expected}, and counting ends at 2^62: restore the records of the \
                 repository from a backup, or delete them"
            )));
        }
        let number = i32::try_from(self.repository.len() + 1).unwrap_or(i32::MAX);
        self.repository.push(commit.repository.as_str());
        self.expected.push(saturated(expected));
        // A stamp that does not fit is that of no commit.
        self.stamp.push(saturated(changes.expected.stamp.get()));
        self.at.push(at);
        self.remove.push(changes.remove);
        self.limit.push(head.limit.get().map_or(0, i64::from));
        let version = head
            .limit_version
            .map(|version| version.get().cast_signed());
        self.limit_version.push(version);
        self.last_ticket.push(saturated(head.last_ticket.get()));
        self.last_token.push(saturated(head.last_token.get()));
        self.queued.push(i64::from(head.queued));
        self.started.push(i64::from(head.started));
        for session in &changes.alive {
            self.alive_of.push(number);
            self.alive.push(saturated(session.get()));
        }
        let adopted: HashSet<_> = changes.adopted.iter().collect();
        for entry in changes.entries.iter().filter(|_| !changes.remove) {
            let adopted = entry.is_started() && adopted.contains(&entry.run);
            self.entries.push(number, entry, adopted);
        }
        Ok(())
    }

    /// The arguments.
    pub(crate) fn params(&self) -> [Param<'_>; 29] {
        let e = &self.entries;
        [
            (&self.repository, Type::TEXT_ARRAY),
            (&self.expected, Type::INT8_ARRAY),
            (&self.stamp, Type::INT8_ARRAY),
            (&self.at, Type::TEXT_ARRAY),
            (&self.remove, Type::BOOL_ARRAY),
            (&self.limit, Type::INT8_ARRAY),
            (&self.limit_version, Type::INT8_ARRAY),
            (&self.last_ticket, Type::INT8_ARRAY),
            (&self.last_token, Type::INT8_ARRAY),
            (&self.queued, Type::INT8_ARRAY),
            (&self.started, Type::INT8_ARRAY),
            (&self.alive_of, Type::INT4_ARRAY),
            (&self.alive, Type::INT8_ARRAY),
            (&e.of, Type::INT4_ARRAY),
            (&e.run, Type::TEXT_ARRAY),
            (&e.uid, Type::TEXT_ARRAY),
            (&e.kind, Type::INT2_ARRAY),
            (&e.priority, Type::INT4_ARRAY),
            (&e.ticket, Type::INT8_ARRAY),
            (&e.state, Type::INT2_ARRAY),
            (&e.token, Type::INT8_ARRAY),
            (&e.owner, Type::INT8_ARRAY),
            (&e.orphaned, Type::BOOL_ARRAY),
            (&e.outcome, Type::INT2_ARRAY),
            (&e.abandoned, Type::BOOL_ARRAY),
            (&e.adopted, Type::BOOL_ARRAY),
            (&e.queued_at, Type::INT8_ARRAY),
            (&e.started_at, Type::INT8_ARRAY),
            (&e.finished_at, Type::INT8_ARRAY),
        ]
    }
}

impl<'a> Entries<'a> {
    fn push(&mut self, of: i32, entry: &'a Arc<Entry>, adopted: bool) {
        let (state, owner, orphaned, outcome, abandoned) = match entry.state {
            EntryState::Queued { owner } => (0, owner, false, None, false),
            EntryState::Started {
                session, orphaned, ..
            } => (1, Some(session), orphaned, None, false),
            EntryState::Finished {
                outcome, abandoned, ..
            } => (2, None, false, Some(outcome), abandoned),
        };
        self.of.push(of);
        self.run.push(entry.run.as_str());
        self.uid.push(entry.uid.as_str());
        self.kind.push(match entry.kind {
            RunKind::Durable => 0,
            RunKind::Ephemeral => 1,
        });
        self.priority.push(entry.priority.get());
        self.ticket.push(saturated(entry.ticket.get()));
        self.state.push(state);
        self.token
            .push(entry.token().map(|token| saturated(token.get())));
        self.owner.push(owner.map(|owner| saturated(owner.get())));
        self.orphaned.push(orphaned);
        self.outcome.push(outcome.map(|outcome| match outcome {
            RunOutcome::Completed => 0,
            RunOutcome::Failed => 1,
            RunOutcome::Cancelled => 2,
            RunOutcome::Expired => 3,
        }));
        self.abandoned.push(abandoned);
        self.adopted.push(adopted);
        self.queued_at.push(clock::written(entry.queued));
        self.started_at.push(clock::written(entry.started));
        self.finished_at.push(clock::written(entry.finished));
    }
}

/// For counters, of which [`Batch::push`] has checked those of the head: no ticket or token is above.
/// And for the ids of sessions and for stamps: one that does not fit is none of this store's.
pub(crate) fn saturated(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
