//! The commit to one repository as one plain statement, for when nothing stands against it: its head
//! was seen where it is, and its sessions live. A statement has no more parts than the commit needs,
//! so there is one for each shape of commits; a connection keeps their plans.
//!
//! Where something stands against it, nothing is written. Then the answer holds what is there now,
//! which is a conflict, or leaves it to the function `commit_batch` to find out.

use std::collections::HashMap;
use std::fmt::{Arguments, Write};
use std::sync::{Arc, Mutex, PoisonError};

use pac_core::driver::RepositoryCommit;

use super::batch::{Columns, HeadColumns};
use crate::client::{Param, Type};
use crate::clock::AT_COMMIT;
use crate::record::saturated;

/// With more entries than this, a commit goes to `commit_batch`: its arrays cost less than a part of
/// a statement for each, and there would be too many shapes. With two there are 36.
const MOST: usize = 2;

/// How long the statement waits for another transaction that has locked the head or a session. A commit
/// takes as long as a write to the disk. What takes longer, as a deletion of many finished runs or
/// somebody else's transaction, is left to `commit_batch`, which does not wait for heads.
const PATIENCE: &str = "50ms";

/// What becomes of one entry. In the order of a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Becomes {
    Waiting,
    /// It gets a slot.
    Running,
    /// It had a slot before this commit, and goes on.
    GoesOn,
    Ended,
}

/// What becomes of one entry, and whether there is a row that it takes the place of.
type Part = (Becomes, bool);

fn part(columns: &Columns<'_>) -> Part {
    let replaces = columns.was > 0;
    let becomes = match columns.state {
        0 => Becomes::Waiting,
        1 if replaces && columns.started_at != Some(AT_COMMIT) => Becomes::GoesOn,
        1 => Becomes::Running,
        _ => Becomes::Ended,
    };
    (becomes, replaces)
}

/// The statements that were needed so far.
#[derive(Debug)]
pub(super) struct Statements {
    schema: String,
    known: Mutex<HashMap<Vec<Part>, Arc<str>>>,
}

/// The arguments of a statement that are there once.
#[derive(Debug)]
struct Fixed<'a> {
    repository: &'a str,
    at: &'a str,
    expected: i64,
    stamp: i64,
    sessions: Vec<i64>,
    head: HeadColumns,
    most_finished: i64,
}

/// A statement with its arguments.
#[derive(Debug)]
pub(super) struct Statement<'a> {
    pub(super) text: Arc<str>,
    fixed: Fixed<'a>,
    entries: Vec<(Becomes, Columns<'a>)>,
}

impl Statements {
    pub(super) fn new(schema: String) -> Self {
        let known = Mutex::default();
        Self { schema, known }
    }

    /// The statement for a commit by a session; `None` if there is none of its shape.
    pub(super) fn of<'a>(
        &self,
        session: i64,
        commit: &'a RepositoryCommit,
        at: &'a str,
        most_finished: usize,
    ) -> Option<Statement<'a>> {
        let changes = &commit.changes;
        if changes.remove || changes.entries.len() > MOST {
            return None;
        }
        let mut entries: Vec<_> = Columns::of(commit).map(|one| (part(&one), one)).collect();
        entries.sort_by_key(|(part, _)| *part);
        let shape: Vec<Part> = entries.iter().map(|(part, _)| *part).collect();
        let mut sessions = vec![session];
        sessions.extend(changes.alive.iter().map(|alive| saturated(alive.get())));
        sessions.sort_unstable();
        sessions.dedup();
        let entries = entries.into_iter();
        Some(Statement {
            text: self.text(shape),
            fixed: Fixed {
                repository: commit.repository.as_str(),
                at,
                expected: saturated(changes.expected.revision.get()),
                stamp: saturated(changes.expected.stamp.get()),
                sessions,
                head: HeadColumns::of(&changes.head),
                most_finished: i64::try_from(most_finished).unwrap_or(i64::MAX - 1),
            },
            entries: entries.map(|((becomes, _), one)| (becomes, one)).collect(),
        })
    }

    fn text(&self, shape: Vec<Part>) -> Arc<str> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let text = known
            .entry(shape)
            .or_insert_with_key(|shape| Text::new(&self.schema).finish(shape).into());
        Arc::clone(text)
    }
}

impl Statement<'_> {
    /// How many sessions have to live.
    pub(super) fn sessions(&self) -> usize {
        self.fixed.sessions.len()
    }

    /// The arguments, in the order in which [`Text`] numbers them.
    pub(super) fn params(&self) -> Vec<Param<'_>> {
        let (fixed, head) = (&self.fixed, &self.fixed.head);
        let mut params: Vec<Param<'_>> = vec![
            (&fixed.repository, Type::TEXT),
            (&fixed.at, Type::TEXT),
            (&fixed.expected, Type::INT8),
            (&fixed.stamp, Type::INT8),
            (&fixed.sessions, Type::INT8_ARRAY),
            (&head.limit, Type::INT8),
            (&head.limit_version, Type::INT8),
            (&head.last_ticket, Type::INT8),
            (&head.last_token, Type::INT8),
            (&head.queued, Type::INT8),
            (&head.started, Type::INT8),
            (&fixed.most_finished, Type::INT8),
        ];
        for (becomes, one) in &self.entries {
            params.extend::<[Param<'_>; 7]>([
                (&one.run, Type::TEXT),
                (&one.was, Type::INT8),
                (&one.uid, Type::TEXT),
                (&one.kind, Type::INT2),
                (&one.priority, Type::INT4),
                (&one.ticket, Type::INT8),
                (&one.queued_at, Type::INT8),
            ]);
            match becomes {
                Becomes::Waiting => params.push((&one.session, Type::INT8)),
                Becomes::Running | Becomes::GoesOn => params.extend::<[Param<'_>; 5]>([
                    (&one.session, Type::INT8),
                    (&one.token, Type::INT8),
                    (&one.started_at, Type::INT8),
                    (&one.orphaned, Type::BOOL),
                    (&one.adopted, Type::BOOL),
                ]),
                Becomes::Ended => params.extend::<[Param<'_>; 5]>([
                    (&one.token, Type::INT8),
                    (&one.started_at, Type::INT8),
                    (&one.finished_at, Type::INT8),
                    (&one.outcome, Type::INT2),
                    (&one.abandoned, Type::BOOL),
                ]),
            }
        }
        params
    }
}

/// A statement that is being written.
struct Text<'a> {
    schema: &'a str,
    sql: String,
    /// The number of the last argument that was used.
    last: usize,
    /// For each entry that takes the place of a row: how many rows its parts have found.
    found: Vec<String>,
}

impl<'a> Text<'a> {
    /// With the parts that all have. The session is locked before the head, and both for as long as the
    /// transaction takes; see 0002_sessions.sql. The setting holds before the first lock is asked for.
    fn new(schema: &'a str) -> Self {
        let sql = format!(
            "WITH living AS ( \
               SELECT k.id, pg_catalog.set_config('lock_timeout', '{PATIENCE}', true) \
                 FROM {schema}.sessions k WHERE k.id = ANY ($5) \
                 AND {schema}.lives(k.dead, k.session_ttl, k.lease_ttl, k.deadline) \
                 ORDER BY k.id FOR KEY SHARE), \
             held AS ( \
               UPDATE {schema}.repositories r SET revision = $3 + 1, \
                 stamp = {schema}.new_stamp($3 + 1), run_limit = $6, limit_version = $7, \
                 last_ticket = $8, last_token = $9, queued = $10, started = $11 \
               WHERE r.ctid = $2::pg_catalog.tid AND (r.repository = $1) IS TRUE \
                 AND r.revision = $3 AND r.stamp = $4 AND r.format = 1 \
                 AND (SELECT pg_catalog.count(*) FROM living) = pg_catalog.cardinality($5) \
               RETURNING r.ctid AS place, r.stamp, {schema}.now_millis() AS moment)"
        );
        Self {
            schema,
            sql,
            last: 12,
            found: Vec::new(),
        }
    }

    fn finish(mut self, shape: &[Part]) -> String {
        for (number, (becomes, replaces)) in shape.iter().enumerate() {
            self.entry(number, *becomes, *replaces);
        }
        let schema = self.schema;
        let as_it_was = match self.found.as_slice() {
            [] => "true".to_owned(),
            found => {
                let one_each: Vec<_> = found.iter().map(|rows| format!("{rows} = 1")).collect();
                format!(
                    "CASE WHEN h.place IS NULL OR {} THEN true ELSE {schema}.refuse() END",
                    one_each.join(" AND ")
                )
            }
        };
        // Without the OFFSET the condition would be one of the join, and the function would be called for
        // each commit.
        self.add(format_args!(
            " SELECT h.place::pg_catalog.text, h.stamp, h.moment, \
               (SELECT pg_catalog.count(*) FROM living), {as_it_was}, l.* \
             FROM (VALUES (1)) one LEFT JOIN held h ON true \
             LEFT JOIN LATERAL (SELECT now.* FROM {schema}.reload($1, $3, $4, $2, $12) now \
               WHERE h.place IS NULL OFFSET 0) l ON true"
        ));
        self.sql
    }

    fn add(&mut self, part: Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.sql.write_fmt(part);
    }

    /// The number of the next argument, as SQL has it.
    fn next(&mut self) -> String {
        self.last += 1;
        format!("${}", self.last)
    }

    /// The next argument, a time.
    fn next_time(&mut self) -> String {
        let next = self.next();
        format!("CASE {next} WHEN {AT_COMMIT} THEN h.moment ELSE {next} END")
    }

    fn entry(&mut self, number: usize, becomes: Becomes, replaces: bool) {
        let (run, was) = (self.next(), self.next());
        let (uid, kind, priority, ticket) = (self.next(), self.next(), self.next(), self.next());
        let queued_at = self.next_time();
        let schema = self.schema;
        let its_row = format!(
            "x.repository = $1 AND x.revision = {was} AND x.run = {run} AND x.format = 1 \
             AND EXISTS (SELECT FROM held)"
        );
        let mut found = Vec::new();
        if replaces {
            let mut tables = vec!["queue"];
            if becomes != Becomes::GoesOn {
                tables.push("slots");
            }
            for table in tables {
                let name = format!("left_{table}_{number}");
                self.add(format_args!(
                    ", {name} AS (DELETE FROM {schema}.{table} x WHERE {its_row} RETURNING 1)"
                ));
                found.push(name);
            }
        }
        match becomes {
            Becomes::Waiting => {
                let session = self.next();
                self.add(format_args!(
                    ", queued_{number} AS (INSERT INTO {schema}.queue (ticket, revision, session, \
                       queued_at, priority, format, kind, repository, run, uid) \
                     SELECT {ticket}, $3 + 1, {session}, {queued_at}, {priority}, 1, {kind}, $1, \
                       {run}, {uid} FROM held h)"
                ));
            }
            Becomes::Running | Becomes::GoesOn => {
                let (session, token, started_at) = (self.next(), self.next(), self.next_time());
                let (orphaned, adopted) = (self.next(), self.next());
                let mut unless = String::new();
                if becomes == Becomes::GoesOn {
                    let name = format!("goes_on_{number}");
                    self.add(format_args!(
                        ", {name} AS (UPDATE {schema}.slots x SET revision = $3 + 1, uid = {uid}, \
                           kind = {kind}, priority = {priority}, ticket = {ticket}, \
                           token = {token}, session = {session}, orphaned = {orphaned}, \
                           adopted = {adopted}, queued_at = {queued_at}, started_at = {started_at} \
                         FROM held h WHERE {its_row} RETURNING 1)"
                    ));
                    unless = format!(" WHERE NOT EXISTS (SELECT FROM {name})");
                    found.push(name);
                }
                self.add(format_args!(
                    ", taken_{number} AS (INSERT INTO {schema}.slots (ticket, token, revision, \
                       session, queued_at, started_at, head, priority, format, kind, orphaned, \
                       adopted, repository, run, uid) \
                     SELECT {ticket}, {token}, $3 + 1, {session}, {queued_at}, {started_at}, \
                       h.place, {priority}, 1, {kind}, {orphaned}, {adopted}, $1, {run}, {uid} \
                     FROM held h{unless})"
                ));
            }
            Becomes::Ended => {
                let (token, started_at, finished_at) =
                    (self.next(), self.next_time(), self.next_time());
                let (outcome, abandoned) = (self.next(), self.next());
                self.add(format_args!(
                    ", ended_{number} AS (INSERT INTO {schema}.history (ticket, revision, token, \
                       queued_at, started_at, finished_at, priority, format, kind, outcome, \
                       abandoned, repository, run, uid) \
                     SELECT {ticket}, $3 + 1, {token}, {queued_at}, {started_at}, {finished_at}, \
                       {priority}, 1, {kind}, {outcome}, {abandoned}, $1, {run}, {uid} FROM held h)"
                ));
            }
        }
        let found = found.into_iter();
        let counts: Vec<_> = found
            .map(|part| format!("(SELECT pg_catalog.count(*) FROM {part})"))
            .collect();
        if !counts.is_empty() {
            self.found.push(counts.join(" + "));
        }
    }
}
