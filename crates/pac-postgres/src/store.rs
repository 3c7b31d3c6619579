//! The repositories in their tables: reads, commits and lists.

mod retention;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use pac_core::driver::{BatchOutcome, CommitOutcome, ListFilter, RepositoryCommit};
use pac_core::pauses::Seldom;
use pac_core::state::{Head, Snapshot};
use pac_core::{Error, ErrorKind, RepositoryKey, SessionId, Stamp, Timestamp, Version};

use crate::client::{Client, Effect, Row, Sql, Type};
use crate::places::Places;
use crate::record::{self, Batch, HEAD, HEAD_COLUMNS, cell, saturated};

/// The tables. Each operation is one statement.
#[derive(Debug)]
pub(crate) struct Store {
    client: Client,
    load: String,
    commit: String,
    places: Places,
    /// How many runs this process has ended in each repository since the last deletion there.
    ended: Mutex<HashMap<RepositoryKey, usize>>,
    next_purge: Mutex<Instant>,
    /// To say that a repository has too many finished runs.
    tell: Mutex<Seldom>,
}

impl Store {
    pub(crate) fn new(client: Client) -> Self {
        let schema = client.schema();
        let load = format!("SELECT * FROM {schema}.load_repository($1, $2, $3, $4, $5)");
        let params: Vec<_> = (1..=30).map(|n| format!("${n}")).collect();
        let commit = format!("SELECT * FROM {schema}.commit_batch({})", params.join(", "));
        Self {
            load,
            commit,
            client,
            places: Places::default(),
            ended: Mutex::default(),
            next_purge: Mutex::new(Instant::now()),
            tell: Mutex::new(Seldom::every(retention::TELL)),
        }
    }

    pub(crate) async fn load(
        &self,
        key: &RepositoryKey,
        since: Option<Version>,
    ) -> Result<Snapshot, Error> {
        let snapshot = self.load_once(key, since).await?;
        let finished = snapshot.entries.iter().filter(|entry| entry.is_finished());
        if finished.count() <= self.most_finished() {
            return Ok(snapshot);
        }
        self.note_too_many(key);
        if snapshot.since.is_none() {
            return Ok(snapshot);
        }
        // What was left out may be the end of a run that the caller takes for queued or started. A
        // whole snapshot does not need it.
        self.load_once(key, None).await
    }

    async fn load_once(
        &self,
        key: &RepositoryKey,
        since: Option<Version>,
    ) -> Result<Snapshot, Error> {
        let (name, at) = (key.as_str(), self.places.get(key));
        let most = i64::try_from(self.most_finished()).unwrap_or(i64::MAX - 1);
        let known = since.map(|since| saturated(since.revision.get()));
        let stamp = since.map(|since| saturated(since.stamp.get()));
        let params = [
            (&name as _, Type::TEXT),
            (&known as _, Type::INT8),
            (&stamp as _, Type::INT8),
            (&at as _, Type::TEXT),
            (&most as _, Type::INT8),
        ];
        let rows = self
            .client
            .query("load", Effect::Read, Sql::Often(&self.load), &params)
            .await?;
        let (snapshot, at) = snapshot(&rows, since).map_err(|error| error.in_repository(key))?;
        self.places.note(key, at.as_deref());
        Ok(snapshot)
    }

    /// Commits a batch. If the database refuses it because of the records of one repository,
    /// commits each repository alone, so that only that one is refused.
    pub(crate) async fn commit(
        &self,
        session: SessionId,
        batch: Vec<RepositoryCommit>,
    ) -> BatchOutcome {
        let answer = self.commit_together(session, &batch).await;
        let refused = |error: &Error| {
            let kinds = [
                ErrorKind::Corrupt,
                ErrorKind::Incompatible,
                ErrorKind::Internal,
            ];
            kinds.contains(&error.kind())
        };
        match answer {
            Err(error) if refused(&error) && batch.len() > 1 => {
                let mut outcomes = Vec::with_capacity(batch.len());
                for commit in batch.chunks(1) {
                    match self.commit_together(session, commit).await {
                        Ok(alone) => outcomes.extend(alone),
                        Err(error) if refused(&error) => {
                            outcomes.push(CommitOutcome::Refused(error));
                        }
                        // The commits before this one are done; about the others only a read can
                        // tell.
                        Err(error) => return Err(unknown_rest(error, outcomes.is_empty())),
                    }
                }
                Ok(outcomes)
            }
            Err(error) if refused(&error) => Ok(vec![CommitOutcome::Refused(error)]),
            answer => answer,
        }
    }

    async fn commit_together(
        &self,
        session: SessionId,
        commits: &[RepositoryCommit],
    ) -> BatchOutcome {
        let mut batch = Batch::default();
        let refusals: Vec<_> = commits
            .iter()
            .map(|commit| {
                batch
                    .push(commit, self.places.get(&commit.repository))
                    .err()
            })
            .collect();
        let id = saturated(session.get());
        let mut params = vec![(&id as _, Type::INT8)];
        params.extend(batch.params());
        let rows = self
            .client
            .query("commit", Effect::Write, Sql::Often(&self.commit), &params)
            .await?;
        let mut answers = HashMap::with_capacity(rows.len());
        for row in &rows {
            let answer = Answer::of(row)?;
            if answer.number == 0 {
                return Err(Error::session_lost("commit", session));
            }
            answers.insert(answer.number, answer);
        }
        let mut number = 0;
        let outcomes = commits
            .iter()
            .zip(refusals)
            .map(|(commit, refusal)| match refusal {
                Some(error) => Ok(CommitOutcome::Refused(error)),
                None => {
                    number += 1;
                    let answer = answers.get(&number).ok_or_else(|| {
                        let message = "the server did not answer for every repository; read before \
                                   acting";
                        Error::new(ErrorKind::Indeterminate, "commit", message)
                    })?;
                    self.outcome(commit, answer)
                }
            });
        outcomes.collect()
    }

    fn outcome(&self, commit: &RepositoryCommit, answer: &Answer) -> Result<CommitOutcome, Error> {
        let changes = &commit.changes;
        Ok(match answer {
            Answer {
                outcome: 0,
                about: Some(floor),
                ..
            } if changes.remove => CommitOutcome::Committed(Snapshot::absent(*floor)),
            Answer {
                outcome: 0,
                moment: Some(now),
                stamp: Some(stamp),
                at,
                ..
            } => {
                let revision = changes.expected.revision.next();
                self.places.note(&commit.repository, at.as_deref());
                let now = Timestamp::from_unix_millis(*now);
                let mut entries = changes.entries.clone();
                for entry in &mut entries {
                    Arc::make_mut(entry).stamp(revision, now);
                }
                self.note_ended(&commit.repository, &entries);
                CommitOutcome::Committed(Snapshot {
                    since: Some(changes.expected),
                    exists: true,
                    head: Head {
                        revision,
                        stamp: Stamp::new(*stamp),
                        ..changes.head
                    },
                    entries,
                })
            }
            Answer { outcome: 1, .. } => CommitOutcome::Conflict(None),
            Answer {
                outcome: 2,
                about: Some(dead),
                ..
            } => CommitOutcome::SessionDead(SessionId::new(*dead)),
            answer => {
                return Err(Error::new(
                    ErrorKind::Indeterminate,
                    "commit",
                    format!("the server answered {answer:?}; read before acting"),
                ));
            }
        })
    }

    pub(crate) async fn server_version(&self) -> Result<String, Error> {
        let sql = "SELECT pg_catalog.current_setting('server_version')";
        let client = &self.client;
        let rows = client.query("read version", Effect::Read, sql, &[]).await?;
        rows.first().map_or(Ok(String::new()), |row| cell(row, 0))
    }

    pub(crate) async fn list(
        &self,
        filter: ListFilter,
        after: Option<&RepositoryKey>,
        limit: usize,
    ) -> Result<Vec<(RepositoryKey, Head)>, Error> {
        let schema = self.client.schema();
        let sql = match filter {
            ListFilter::All => format!(
                "SELECT repository, {HEAD} FROM {schema}.repositories \
                 WHERE repository > $1 ORDER BY repository LIMIT $2"
            ),
            // Goes along an index from one repository with queued runs to the next.
            ListFilter::Startable => format!(
                "WITH RECURSIVE waiting (repository) AS ( \
                   SELECT pg_catalog.min(repository) FROM {schema}.entries \
                   WHERE state = 0 AND repository > $1 \
                   UNION ALL \
                   SELECT (SELECT pg_catalog.min(e.repository) FROM {schema}.entries e \
                     WHERE e.state = 0 AND e.repository > w.repository) \
                   FROM waiting w WHERE w.repository IS NOT NULL) \
                 SELECT repository, {HEAD} FROM {schema}.repositories \
                 WHERE repository = ANY (ARRAY(SELECT w.repository FROM waiting w)) \
                   AND queued > 0 AND (run_limit = 0 OR started < run_limit) \
                 ORDER BY repository LIMIT $2"
            ),
        };
        let mut page = Vec::new();
        let mut after = after.map_or(String::new(), |key| key.as_str().to_owned());
        while page.len() < limit {
            let rest = i64::try_from(limit - page.len()).unwrap_or(i64::MAX);
            let params = [(&after as _, Type::TEXT), (&rest as _, Type::INT8)];
            let rows = self
                .client
                .query("list", Effect::Read, &sql, &params)
                .await?;
            for row in &rows {
                let (name, head) = (cell::<&str>(row, 0)?, record::head(row, 1));
                name.clone_into(&mut after);
                match (name.parse::<RepositoryKey>(), head) {
                    (Ok(key), Ok(head)) if filter.passes(&head) => page.push((key, head)),
                    (Ok(_), Ok(_)) => {}
                    (Err(error), _) => {
                        tracing::warn!(%error, "left out of a list: not written by this software");
                    }
                    (_, Err(error)) => {
                        tracing::warn!(repository = name, %error, "left out of a list");
                    }
                }
            }
            if i64::try_from(rows.len()).is_ok_and(|found| found < rest) {
                break;
            }
        }
        Ok(page)
    }
}

/// A row of `commit_batch`.
#[derive(Debug)]
struct Answer {
    number: i32,
    outcome: i16,
    moment: Option<i64>,
    about: Option<u64>,
    stamp: Option<u64>,
    at: Option<String>,
}

impl Answer {
    fn of(row: &Row) -> Result<Self, Error> {
        let number = |at| -> Result<Option<u64>, Error> {
            Ok(cell::<Option<i64>>(row, at)?.and_then(|number| u64::try_from(number).ok()))
        };
        Ok(Self {
            number: cell(row, 0)?,
            outcome: cell(row, 1)?,
            moment: cell(row, 2)?,
            about: number(3)?,
            stamp: number(4)?,
            at: cell(row, 5)?,
        })
    }
}

/// The snapshot in the rows of `load_repository`, which was called with the version `since`; and the
/// place of the head.
fn snapshot(rows: &[Row], since: Option<Version>) -> Result<(Snapshot, Option<String>), Error> {
    /// The floor comes first, then whether the entries are a part, and the place of the head.
    const HEAD_AT: usize = 3;
    const ENTRY_AT: usize = HEAD_AT + HEAD_COLUMNS;
    let mut first = None;
    let mut entries = Vec::with_capacity(rows.len().saturating_sub(1));
    for row in rows {
        match cell::<Option<i64>>(row, 0)? {
            Some(floor) => first = Some((floor, row)),
            None => entries.push(Arc::new(record::entry(row, ENTRY_AT)?)),
        }
    }
    let Some((floor, row)) = first else {
        let message = "the table floor is empty; restore its one row from a backup";
        return Err(Error::new(ErrorKind::Corrupt, "load", message));
    };
    let Some(part) = cell::<Option<bool>>(row, 1)? else {
        if let Some(entry) = entries.first() {
            let message = format!(
                "run {} has a record, and its repository has none",
                entry.run
            );
            return Err(Error::new(ErrorKind::Corrupt, "load", message));
        }
        return Ok((Snapshot::absent(record::floor(floor)?), None));
    };
    let snapshot = Snapshot {
        since: since.filter(|_| part),
        exists: true,
        head: record::head(row, HEAD_AT)?,
        entries,
    };
    Ok((snapshot, cell(row, 2)?))
}

/// The error for a batch of which one commit failed: `Indeterminate` if others were done before it.
fn unknown_rest(error: Error, nothing_before: bool) -> Error {
    if nothing_before {
        return error;
    }
    let message = "a part of the batch was written, and then the store failed; read before acting";
    Error::new(ErrorKind::Indeterminate, "commit", message).caused_by(error)
}
