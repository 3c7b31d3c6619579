//! Commits as arguments of statements.

use std::collections::HashSet;

use pac_core::driver::RepositoryCommit;
use pac_core::state::{Entry, EntryState, Head, Policy, RunKind, RunOutcome, Terms};
use pac_core::{Error, ErrorKind, MAX_COUNTER};

use crate::client::{Param, Type};
use crate::clock;
use crate::record::saturated;

/// An error if a commit would count further than counters go. Nothing of it may be written then.
pub(super) fn check(commit: &RepositoryCommit) -> Result<(), Error> {
    let refused = |reason: String| {
        Error::new(ErrorKind::Corrupt, "commit", reason).in_repository(&commit.repository)
    };
    commit.changes.check_counters().map_err(refused)?;
    let expected = commit.changes.expected.revision.get();
    // The next revision, which is one higher, has to be a counter too.
    if expected >= MAX_COUNTER {
        return Err(refused(format!(
            "its revision is {expected}, and counting ends at 2^62: restore the records of the \
             repository from a backup, or delete them"
        )));
    }
    Ok(())
}

/// The columns of a head that a commit writes. A policy that stays as it was is not written.
#[derive(Debug)]
pub(crate) struct HeadColumns {
    pub(crate) limit: i64,
    pub(crate) limit_version: Option<i64>,
    pub(crate) last_ticket: i64,
    pub(crate) last_token: i64,
    pub(crate) queued: i64,
    pub(crate) started: i64,
    pub(crate) policy: Option<String>,
}

impl HeadColumns {
    pub(crate) fn of(head: &Head, new_policy: Option<&Policy>) -> Self {
        let version = head
            .limit_version
            .map(|version| version.get().cast_signed());
        Self {
            limit: head.limit.get().map_or(0, i64::from),
            limit_version: version,
            last_ticket: saturated(head.last_ticket.get()),
            last_token: saturated(head.last_token.get()),
            queued: i64::from(head.queued),
            started: i64::from(head.started),
            policy: new_policy.map(Policy::to_json),
        }
    }
}

/// The columns of an entry, whichever table it goes to.
#[derive(Debug)]
pub(crate) struct Columns<'a> {
    pub(crate) run: &'a str,
    pub(crate) uid: &'a str,
    pub(crate) kind: i16,
    pub(crate) priority: i32,
    pub(crate) ticket: i64,
    /// The revision of the row that it takes the place of, or 0.
    pub(crate) was: i64,
    pub(crate) state: i16,
    pub(crate) token: Option<i64>,
    pub(crate) session: Option<i64>,
    pub(crate) orphaned: bool,
    pub(crate) outcome: Option<i16>,
    pub(crate) abandoned: bool,
    pub(crate) adopted: bool,
    pub(crate) terms: Option<String>,
    pub(crate) queued_at: Option<i64>,
    pub(crate) started_at: Option<i64>,
    pub(crate) finished_at: Option<i64>,
}

impl<'a> Columns<'a> {
    /// Those of all entries of a commit.
    pub(crate) fn of(commit: &'a RepositoryCommit) -> impl Iterator<Item = Self> {
        let changes = &commit.changes;
        let adopted: HashSet<_> = changes.adopted.iter().collect();
        let entries = changes.entries.iter().filter(|_| !changes.remove);
        entries.map(move |entry| {
            let adopted = entry.is_started() && adopted.contains(&entry.run);
            Self::of_entry(entry, adopted)
        })
    }

    pub(crate) fn of_entry(entry: &'a Entry, adopted: bool) -> Self {
        let (state, session, orphaned, outcome, abandoned) = match entry.state {
            EntryState::Queued { owner } => (0, owner, false, None, false),
            EntryState::Started {
                session, orphaned, ..
            } => (1, Some(session), orphaned, None, false),
            EntryState::Finished {
                outcome, abandoned, ..
            } => (2, None, false, Some(outcome), abandoned),
        };
        Self {
            run: entry.run.as_str(),
            uid: entry.uid.as_str(),
            kind: match entry.kind {
                RunKind::Durable => 0,
                RunKind::Ephemeral => 1,
            },
            priority: entry.priority.get(),
            ticket: saturated(entry.ticket.get()),
            was: saturated(entry.revision.get()),
            state,
            token: entry.token().map(|token| saturated(token.get())),
            session: session.map(|session| saturated(session.get())),
            orphaned,
            outcome: outcome.map(|outcome| match outcome {
                RunOutcome::Completed => 0,
                RunOutcome::Failed => 1,
                RunOutcome::Cancelled => 2,
                RunOutcome::LeaseLost => 3,
                RunOutcome::Superseded => 4,
                RunOutcome::TimedOut => 5,
                RunOutcome::QueueFull => 6,
            }),
            abandoned,
            adopted,
            terms: entry.terms.as_deref().map(Terms::to_json),
            queued_at: clock::written(entry.queued),
            started_at: clock::written(entry.started),
            finished_at: clock::written(entry.finished),
        }
    }
}

/// The arguments of the function `commit_batch`, in its order, after the session.
#[derive(Debug, Default)]
pub(super) struct Batch<'a> {
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
    policy: Parts,
    /// How many entries there are up to this repository.
    last: Vec<i32>,
    alive_of: Vec<i32>,
    alive: Vec<i64>,
    entries: Entries<'a>,
}

#[derive(Debug, Default)]
struct Entries<'a> {
    was: Vec<i64>,
    run: Vec<&'a str>,
    uid: Vec<&'a str>,
    kind: Vec<i16>,
    priority: Vec<i32>,
    ticket: Vec<i64>,
    state: Vec<i16>,
    token: Vec<Option<i64>>,
    session: Vec<Option<i64>>,
    orphaned: Vec<bool>,
    outcome: Vec<Option<i16>>,
    abandoned: Vec<bool>,
    adopted: Vec<bool>,
    queued_at: Vec<Option<i64>>,
    started_at: Vec<Option<i64>>,
    finished_at: Vec<Option<i64>>,
    terms: Parts,
}

/// The JSON objects of a batch, one for each of its repositories or entries. No array where none has any.
#[derive(Debug, Default)]
struct Parts(Option<Vec<Option<String>>>);

impl Parts {
    /// Adds that of the next one, before which there were so many.
    fn push(&mut self, before: usize, part: Option<String>) {
        match &mut self.0 {
            Some(parts) => parts.push(part),
            None if part.is_none() => {}
            None => {
                let mut parts = vec![None; before];
                parts.push(part);
                self.0 = Some(parts);
            }
        }
    }
}

impl<'a> Batch<'a> {
    /// Adds a repository, whose head was last seen `at` this place. Its number is the number of
    /// repositories added before it, plus one.
    ///
    /// # Errors
    /// `Corrupt` for a counter at the end of counting; nothing was added then.
    pub(super) fn push(
        &mut self,
        commit: &'a RepositoryCommit,
        at: Option<String>,
    ) -> Result<(), Error> {
        check(commit)?;
        let changes = &commit.changes;
        let number = counted(self.repository.len() + 1);
        self.repository.push(commit.repository.as_str());
        self.expected
            .push(saturated(changes.expected.revision.get()));
        // A stamp that does not fit is that of no commit.
        self.stamp.push(saturated(changes.expected.stamp.get()));
        self.at.push(at);
        self.remove.push(changes.remove);
        let head = HeadColumns::of(&changes.head, changes.new_policy());
        self.limit.push(head.limit);
        self.limit_version.push(head.limit_version);
        self.last_ticket.push(head.last_ticket);
        self.last_token.push(head.last_token);
        self.queued.push(head.queued);
        self.started.push(head.started);
        self.policy.push(self.repository.len() - 1, head.policy);
        for session in &changes.alive {
            self.alive_of.push(number);
            self.alive.push(saturated(session.get()));
        }
        for columns in Columns::of(commit) {
            self.entries.push(columns);
        }
        self.last.push(counted(self.entries.was.len()));
        Ok(())
    }

    /// The arguments.
    pub(super) fn params(&self) -> [Param<'_>; 32] {
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
            (&self.last, Type::INT4_ARRAY),
            (&self.alive_of, Type::INT4_ARRAY),
            (&self.alive, Type::INT8_ARRAY),
            (&e.was, Type::INT8_ARRAY),
            (&e.run, Type::TEXT_ARRAY),
            (&e.uid, Type::TEXT_ARRAY),
            (&e.kind, Type::INT2_ARRAY),
            (&e.priority, Type::INT4_ARRAY),
            (&e.ticket, Type::INT8_ARRAY),
            (&e.state, Type::INT2_ARRAY),
            (&e.token, Type::INT8_ARRAY),
            (&e.session, Type::INT8_ARRAY),
            (&e.orphaned, Type::BOOL_ARRAY),
            (&e.outcome, Type::INT2_ARRAY),
            (&e.abandoned, Type::BOOL_ARRAY),
            (&e.adopted, Type::BOOL_ARRAY),
            (&e.queued_at, Type::INT8_ARRAY),
            (&e.started_at, Type::INT8_ARRAY),
            (&e.finished_at, Type::INT8_ARRAY),
            (&self.policy.0, Type::TEXT_ARRAY),
            (&e.terms.0, Type::TEXT_ARRAY),
        ]
    }
}

impl<'a> Entries<'a> {
    fn push(&mut self, columns: Columns<'a>) {
        self.terms.push(self.was.len(), columns.terms);
        self.was.push(columns.was);
        self.run.push(columns.run);
        self.uid.push(columns.uid);
        self.kind.push(columns.kind);
        self.priority.push(columns.priority);
        self.ticket.push(columns.ticket);
        self.state.push(columns.state);
        self.token.push(columns.token);
        self.session.push(columns.session);
        self.orphaned.push(columns.orphaned);
        self.outcome.push(columns.outcome);
        self.abandoned.push(columns.abandoned);
        self.adopted.push(columns.adopted);
        self.queued_at.push(columns.queued_at);
        self.started_at.push(columns.started_at);
        self.finished_at.push(columns.finished_at);
    }
}

/// A number as the server takes it. No batch is so large that it does not fit.
fn counted(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
