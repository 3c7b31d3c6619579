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
/// a statement for each, and there would be too many shapes.
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

/// Where the row is that an entry takes the place of. Each place to look costs as much as a row that is
/// written, so there is one where the entry shows which. Where it shows the wrong one, as when a run
/// was given back and started anew in one commit, the row is missing, and `commit_batch` finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Replaces {
    Nothing,
    Waiting,
    Running,
    Either,
}

/// What becomes of one entry, and what it takes the place of.
type Part = (Becomes, Replaces);

fn part(columns: &Columns<'_>) -> Part {
    let ran = columns.started_at.is_some_and(|at| at != AT_COMMIT);
    let replaces = |replaces| match columns.was {
        ..=0 => Replaces::Nothing,
        _ => replaces,
    };
    match columns.state {
        0 => (Becomes::Waiting, replaces(Replaces::Either)),
        1 if columns.was > 0 && columns.started_at != Some(AT_COMMIT) => {
            (Becomes::GoesOn, Replaces::Running)
        }
        1 => (Becomes::Running, replaces(Replaces::Waiting)),
        _ if ran => (Becomes::Ended, replaces(Replaces::Running)),
        _ => (Becomes::Ended, replaces(Replaces::Waiting)),
    }
}

/// The form of a commit, for which there is one statement.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Shape {
    /// Whether other sessions than its own have to live.
    others: bool,
    /// Whether the repository gets another policy.
    policy: bool,
    /// Whether any of the entries has terms. Those beside it that have none send an empty text: to tell
    /// them apart would double the number of shapes once more.
    terms: bool,
    parts: Vec<Part>,
}

/// The statements that were needed so far.
#[derive(Debug)]
pub(super) struct Statements {
    schema: String,
    known: Mutex<HashMap<Shape, Arc<str>>>,
}

/// The arguments of a statement that are there once.
#[derive(Debug)]
struct Fixed<'a> {
    repository: &'a str,
    at: &'a str,
    expected: i64,
    stamp: i64,
    session: i64,
    others: Vec<i64>,
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
        let terms = entries.iter().any(|(_, one)| one.terms.is_some());
        if terms {
            for (_, one) in &mut entries {
                one.terms.get_or_insert_default();
            }
        }
        let mut others: Vec<_> = changes
            .alive
            .iter()
            .map(|alive| saturated(alive.get()))
            .collect();
        others.retain(|other| *other != session);
        let head = HeadColumns::of(&changes.head, changes.new_policy());
        let shape = Shape {
            others: !others.is_empty(),
            policy: head.policy.is_some(),
            terms,
            parts: entries.iter().map(|(part, _)| *part).collect(),
        };
        let entries = entries.into_iter();
        Some(Statement {
            text: self.text(shape),
            fixed: Fixed {
                repository: commit.repository.as_str(),
                at,
                expected: saturated(changes.expected.revision.get()),
                stamp: saturated(changes.expected.stamp.get()),
                session,
                others,
                head,
                most_finished: i64::try_from(most_finished).unwrap_or(i64::MAX - 1),
            },
            entries: entries.map(|((becomes, _), one)| (becomes, one)).collect(),
        })
    }

    fn text(&self, shape: Shape) -> Arc<str> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let text = known
            .entry(shape)
            .or_insert_with_key(|shape| Text::new(&self.schema, shape).finish(shape).into());
        Arc::clone(text)
    }
}

impl Statement<'_> {
    /// The arguments, in the order in which [`Text`] numbers them.
    pub(super) fn params(&self) -> Vec<Param<'_>> {
        let (fixed, head) = (&self.fixed, &self.fixed.head);
        let mut params: Vec<Param<'_>> = vec![
            (&fixed.repository, Type::TEXT),
            (&fixed.at, Type::TEXT),
            (&fixed.expected, Type::INT8),
            (&fixed.stamp, Type::INT8),
            (&fixed.session, Type::INT8),
            (&head.limit, Type::INT8),
            (&head.limit_version, Type::INT8),
            (&head.last_ticket, Type::INT8),
            (&head.last_token, Type::INT8),
            (&head.queued, Type::INT8),
            (&head.started, Type::INT8),
            (&fixed.most_finished, Type::INT8),
        ];
        if !fixed.others.is_empty() {
            params.push((&fixed.others, Type::INT8_ARRAY));
        }
        if head.policy.is_some() {
            params.push((&head.policy, Type::TEXT));
        }
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
            if one.terms.is_some() {
                params.push((&one.terms, Type::TEXT));
            }
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
    /// Whether all sessions live.
    all_live: &'static str,
    /// For each entry that takes the place of a row: how many rows its parts have found.
    found: Vec<String>,
}

impl<'a> Text<'a> {
    /// With the parts that all have. Sessions are locked before the head, in the order of their
    /// numbers, and both for as long as the transaction takes; see 0002_sessions.sql. The setting
    /// holds before the first lock is asked for.
    fn new(schema: &'a str, shape: &Shape) -> Self {
        // One session needs neither to be sorted nor to be counted.
        let (last, which, order, all_live) = if shape.others {
            (
                13,
                "= ANY ($5 || $13)",
                "ORDER BY k.id",
                "(SELECT pg_catalog.count(*) FROM living) = 1 + pg_catalog.cardinality($13)",
            )
        } else {
            (12, "= $5", "", "EXISTS (SELECT FROM living)")
        };
        // The time of the commit is read once: the policy and the answer say the same.
        let (last, policy, now, moment) = if shape.policy {
            (
                last + 1,
                format!(", policy = {schema}.at_moment(${}, n.moment)", last + 1),
                format!("FROM (SELECT {schema}.now_millis() AS moment OFFSET 0) n "),
                "n.moment".to_owned(),
            )
        } else {
            let moment = format!("{schema}.now_millis() AS moment");
            (last, String::new(), String::new(), moment)
        };
        let sql = format!(
            "WITH living AS ( \
               SELECT k.id, pg_catalog.set_config('lock_timeout', '{PATIENCE}', true) \
                 FROM {schema}.sessions k WHERE k.id {which} \
                 AND {schema}.lives(k.dead, k.session_ttl, k.lease_ttl, k.deadline) \
                 {order} FOR KEY SHARE), \
             held AS ( \
               UPDATE {schema}.repositories r SET revision = $3 + 1, \
                 stamp = {schema}.new_stamp($3 + 1), run_limit = $6, limit_version = $7, \
                 last_ticket = $8, last_token = $9, queued = $10, started = $11{policy} \
               {now}WHERE r.ctid = $2::pg_catalog.tid AND (r.repository = $1) IS TRUE \
                 AND r.revision = $3 AND r.stamp = $4 AND r.format = 1 AND {all_live} \
               RETURNING r.ctid AS place, r.stamp, {moment})"
        );
        Self {
            schema,
            sql,
            last,
            all_live,
            found: Vec::new(),
        }
    }

    fn finish(mut self, shape: &Shape) -> String {
        for (number, part) in shape.parts.iter().enumerate() {
            self.entry(number, *part, shape.terms);
        }
        let (schema, all_live) = (self.schema, self.all_live);
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
        // The last function does nothing where no repository is named.
        self.add(format_args!(
            " SELECT h.place::pg_catalog.text, h.stamp, h.moment, {all_live}, {as_it_was}, l.* \
             FROM (VALUES (1)) one LEFT JOIN held h ON true \
             LEFT JOIN LATERAL {schema}.reload( \
               CASE WHEN h.place IS NULL THEN $1 END, $3, $4, $2, $12) l ON true"
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

    fn entry(&mut self, number: usize, (becomes, replaces): Part, with_terms: bool) {
        let (run, was) = (self.next(), self.next());
        let (uid, kind, priority, ticket) = (self.next(), self.next(), self.next(), self.next());
        let queued_at = self.next_time();
        let schema = self.schema;
        let terms = with_terms.then(|| format!("{schema}.at_moment({}, h.moment)", self.next()));
        let (column, terms_too) = match &terms {
            Some(terms) => (", terms", format!(", {terms}")),
            None => ("", String::new()),
        };
        // A run that goes on may have had some.
        let terms = terms.as_deref().unwrap_or("''");
        let its_row = format!(
            "x.repository = $1 AND x.revision = {was} AND x.run = {run} AND x.format = 1 \
             AND EXISTS (SELECT FROM held)"
        );
        let mut found = Vec::new();
        let tables: &[_] = match replaces {
            _ if becomes == Becomes::GoesOn => &[],
            Replaces::Nothing => &[],
            Replaces::Waiting => &["queue"],
            Replaces::Running => &["slots"],
            Replaces::Either => &["queue", "slots"],
        };
        for table in tables {
            let name = format!("left_{table}_{number}");
            self.add(format_args!(
                ", {name} AS (DELETE FROM {schema}.{table} x WHERE {its_row} RETURNING 1)"
            ));
            found.push(name);
        }
        match becomes {
            Becomes::Waiting => {
                let session = self.next();
                self.add(format_args!(
                    ", queued_{number} AS (INSERT INTO {schema}.queue (ticket, revision, session, \
                       queued_at, priority, format, kind, repository, run, uid{column}) \
                     SELECT {ticket}, $3 + 1, {session}, {queued_at}, {priority}, 1, {kind}, $1, \
                       {run}, {uid}{terms_too} FROM held h)"
                ));
            }
            Becomes::Running | Becomes::GoesOn => {
                let (session, token, started_at) = (self.next(), self.next(), self.next_time());
                let (orphaned, adopted) = (self.next(), self.next());
                if becomes == Becomes::GoesOn {
                    let name = format!("goes_on_{number}");
                    self.add(format_args!(
                        ", {name} AS (UPDATE {schema}.slots x SET revision = $3 + 1, uid = {uid}, \
                           kind = {kind}, priority = {priority}, ticket = {ticket}, \
                           token = {token}, session = {session}, orphaned = {orphaned}, \
                           adopted = {adopted}, queued_at = {queued_at}, \
                           started_at = {started_at}, terms = {terms} \
                         FROM held h WHERE {its_row} RETURNING 1)"
                    ));
                    found.push(name);
                } else {
                    self.add(format_args!(
                        ", taken_{number} AS (INSERT INTO {schema}.slots (ticket, token, \
                           revision, session, queued_at, started_at, head, priority, format, \
                           kind, orphaned, adopted, repository, run, uid{column}) \
                         SELECT {ticket}, {token}, $3 + 1, {session}, {queued_at}, {started_at}, \
                           h.place, {priority}, 1, {kind}, {orphaned}, {adopted}, $1, {run}, \
                           {uid}{terms_too} FROM held h)"
                    ));
                }
            }
            Becomes::Ended => {
                let (token, started_at, finished_at) =
                    (self.next(), self.next_time(), self.next_time());
                let (outcome, abandoned) = (self.next(), self.next());
                self.add(format_args!(
                    ", ended_{number} AS (INSERT INTO {schema}.history (ticket, revision, token, \
                       queued_at, started_at, finished_at, priority, format, kind, outcome, \
                       abandoned, repository, run, uid{column}) \
                     SELECT {ticket}, $3 + 1, {token}, {queued_at}, {started_at}, {finished_at}, \
                       {priority}, 1, {kind}, {outcome}, {abandoned}, $1, {run}, {uid}{terms_too} \
                     FROM held h)"
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
