//! Commits: one repository's by itself, and those of several together.

use std::collections::HashMap;

use pac_core::driver::{BatchOutcome, CommitOutcome, RepositoryCommit};
use pac_core::state::Snapshot;
use pac_core::{Error, ErrorKind, SessionId, Stamp, Timestamp, Version};

use super::batch::{self, Batch};
use super::{Loaded, Store, loaded};
use crate::client::{Effect, Row, Sql, Type};
use crate::record::{cell, saturated};

/// Where a snapshot begins in the answer to a [`Statement`](super::statement::Statement).
const SNAPSHOT_AT: usize = 5;

impl Store {
    /// Commits a batch. If the database refuses it because of the records of one repository,
    /// commits each repository alone, so that only that one is refused.
    pub(crate) async fn commit(
        &self,
        session: SessionId,
        batch: Vec<RepositoryCommit>,
    ) -> BatchOutcome {
        let answer = match batch.as_slice() {
            [commit] => self.commit_one(session, commit).await.map(|one| vec![one]),
            several => self.commit_together(session, several).await,
        };
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
                let version = Version::new(revision, Stamp::new(*stamp));
                let written = changes
                    .clone()
                    .written(version, Timestamp::from_unix_millis(*now));
                self.note_ended(&commit.repository, &written.entries);
                CommitOutcome::Committed(written)
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

    /// The commit of one repository: a plain statement, as long as nothing stands against it.
    async fn commit_one(
        &self,
        session: SessionId,
        commit: &RepositoryCommit,
    ) -> Result<CommitOutcome, Error> {
        if let Err(refusal) = batch::check(commit) {
            return Ok(CommitOutcome::Refused(refusal));
        }
        if self.client.names_statements()
            && let Some(at) = self.places.get(&commit.repository)
        {
            match self.commit_at(session, commit, &at).await? {
                Attempt::Over(outcome) => return Ok(outcome),
                // A guard, or a deletion of finished runs, has moved the head.
                Attempt::Elsewhere(at) => {
                    if let Attempt::Over(outcome) = self.commit_at(session, commit, &at).await? {
                        return Ok(outcome);
                    }
                }
                Attempt::Unclear => {}
            }
        }
        let mut outcomes = self
            .commit_together(session, std::slice::from_ref(commit))
            .await?;
        outcomes.pop().ok_or_else(|| {
            let message = "the server did not answer; read before acting";
            Error::new(ErrorKind::Indeterminate, "commit", message)
        })
    }

    async fn commit_at(
        &self,
        session: SessionId,
        commit: &RepositoryCommit,
        at: &str,
    ) -> Result<Attempt, Error> {
        let most = self.most_finished();
        let session = saturated(session.get());
        let Some(statement) = self.statements.of(session, commit, at, most) else {
            return Ok(Attempt::Unclear);
        };
        let sql = Sql::Often(&statement.text);
        let rows = self
            .client
            .attempt("commit", Effect::Write, sql, &statement.params())
            .await;
        let rows = match rows {
            // Another transaction has locked the head for longer than the statement waits.
            Err(failure) if failure.is_locked() => return Ok(Attempt::Unclear),
            // A run is not where its entry shows it to be.
            Err(failure) if failure.error.kind() == ErrorKind::Incompatible => {
                return Ok(Attempt::Unclear);
            }
            rows => rows.map_err(|failure| failure.error)?,
        };
        let Some(first) = rows.first() else {
            return Ok(Attempt::Unclear);
        };
        if let Some(at) = cell::<Option<String>>(first, 0)? {
            let answer = Answer {
                number: 1,
                outcome: 0,
                moment: cell(first, 2)?,
                about: None,
                stamp: unsigned(first, 1)?,
                at: Some(at),
            };
            return self.outcome(commit, &answer).map(Attempt::Over);
        }
        let all_live = cell::<bool>(first, 3)?;
        if !all_live {
            return Ok(Attempt::Unclear);
        }
        let expected = commit.changes.expected;
        // What cannot be read is found by the one who reads it next.
        let Ok(now) = loaded(&rows, SNAPSHOT_AT, Some(expected)) else {
            return Ok(Attempt::Over(CommitOutcome::Conflict(None)));
        };
        let Loaded {
            snapshot: now,
            at: place,
            ends,
        } = now;
        self.places.note(&commit.repository, place.as_deref());
        Ok(match place {
            Some(place) if now.head.version() == expected && place != at => {
                Attempt::Elsewhere(place)
            }
            Some(_) if now.head.version() != expected => {
                Attempt::Over(CommitOutcome::Conflict((ends <= most).then_some(now)))
            }
            _ => Attempt::Unclear,
        })
    }
}

/// What came of the attempt to commit by a plain statement. Nothing was written but in the first case.
#[derive(Debug)]
enum Attempt {
    Over(CommitOutcome),
    /// The head is as it was expected, and at this place.
    Elsewhere(String),
    /// The function for batches finds out.
    Unclear,
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
        Ok(Self {
            number: cell(row, 0)?,
            outcome: cell(row, 1)?,
            moment: cell(row, 2)?,
            about: unsigned(row, 3)?,
            stamp: unsigned(row, 4)?,
            at: cell(row, 5)?,
        })
    }
}

fn unsigned(row: &Row, at: usize) -> Result<Option<u64>, Error> {
    Ok(cell::<Option<i64>>(row, at)?.and_then(|number| u64::try_from(number).ok()))
}

/// The error for a batch of which one commit failed: `Indeterminate` if others were done before it.
fn unknown_rest(error: Error, nothing_before: bool) -> Error {
    if nothing_before {
        return error;
    }
    let message = "a part of the batch was written, and then the store failed; read before acting";
    Error::new(ErrorKind::Indeterminate, "commit", message).caused_by(error)
}
