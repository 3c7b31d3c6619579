//! Removes a repository in a transaction of its own, so that no head is ever written at the
//! revision of the floor.

use pac_core::SessionId;
use pac_core::driver::{CommitOutcome, RepositoryCommit};
use pac_core::effect::Effect;

use crate::client::failure::Failure;
use crate::client::{Compare, KeyValue, Operation, Range, Transaction};
use crate::keys::{Place, end_of};
use crate::record::{decode_floor, encode_floor, is_stamped, new_stamp};
use crate::store::batch::may_be_written;
use crate::store::paced::STEP;
use crate::store::refusal::is_at;
use crate::store::{Store, all_pages, malformed, one, one_key, revision, revision_of};

/// How often a removal is tried: each removal of another repository at the same moment fails an
/// attempt.
const ATTEMPTS: usize = 5;

impl Store {
    /// Deletes everything that belongs to a repository. Two requests, and two more for every
    /// removal of another repository at the same moment. Many finished runs are deleted before, in
    /// steps. Those that wait or run go with the head, which counts them. If a request failed, its
    /// failure is returned beside the outcome.
    pub(crate) async fn remove(
        &self,
        session: SessionId,
        commit: RepositoryCommit,
    ) -> (CommitOutcome, Option<Failure>) {
        if let Err(refused) = may_be_written(&commit.changes) {
            return (CommitOutcome::Refused(refused), None);
        }
        for _ in 0..ATTEMPTS {
            match self.try_remove(session, &commit).await {
                Ok(Some(outcome)) => return (outcome, None),
                Ok(None) => {}
                Err((failure, effect)) => {
                    let error = failure.error("commit", effect);
                    return (CommitOutcome::Failed(error), Some(failure));
                }
            }
        }
        (CommitOutcome::Conflict(None), None)
    }

    /// `None` when another repository was removed after the floor was read.
    async fn try_remove(
        &self,
        session: SessionId,
        commit: &RepositoryCommit,
    ) -> Result<Option<CommitOutcome>, (Failure, Effect)> {
        let (repository, changes) = (&commit.repository, &commit.changes);
        let (entries, sessions) = (self.keys.entries(repository), self.keys.sessions());
        let mut look = Transaction {
            then: vec![
                Operation::Get(one(self.keys.floor())),
                Operation::Get(one(self.keys.head(repository))),
                Operation::Get(Range {
                    end: end_of(&entries),
                    key: entries.into_bytes(),
                    count_only: true,
                    ..Range::default()
                }),
                Operation::Get(Range {
                    end: end_of(&sessions),
                    key: sessions.into_bytes(),
                    // A session has up to three keys.
                    limit: 3 * (self.max_operations / 2),
                    keys_only: true,
                    ..Range::default()
                }),
            ],
            ..Transaction::default()
        };
        let read = match self.cluster.transact(&look, Effect::Read).await {
            // Foreign keys among those of the sessions are too long. What sessions have noted of
            // this repository is then left over, and deleted after they are dead.
            Err(failure) if failure.is_too_large() => {
                look.then.pop();
                self.cluster.transact(&look, Effect::Read).await
            }
            read => read,
        };
        let mut pages =
            all_pages(read.map_err(|failure| (failure, Effect::Read))?.steps).into_iter();
        let (Some(floor), Some(head), Some(entries)) = (pages.next(), pages.next(), pages.next())
        else {
            return Ok(Some(CommitOutcome::Failed(malformed())));
        };
        let sessions = pages.next().unwrap_or_default();
        let floor = floor.entries.first();
        let floor_at = floor.map_or(0, |kv| kv.modified);
        let before = match floor.map(|kv| decode_floor(&kv.key, &kv.value)).transpose() {
            Ok(before) => before.map_or(0, |(given_out, _)| given_out),
            Err(error) => return Ok(Some(CommitOutcome::Refused(error))),
        };
        let is_expected = |head: &KeyValue| is_at(head, changes.expected);
        if entries.count > STEP && head.entries.first().is_some_and(is_expected) {
            // Nobody decides anything by them, so that this is no part of the commit.
            let deleted = self.delete_finished(repository, 0).await;
            deleted.map_err(|failure| (failure, Effect::Read))?;
        }
        let head = &changes.head;
        let given_out = before
            .max(head.last_ticket.get())
            .max(head.last_token.get());
        let stamp = new_stamp();
        let value = match encode_floor(given_out, stamp) {
            Ok(value) => value,
            Err(error) => return Ok(Some(CommitOutcome::Refused(error))),
        };

        let head = self.keys.head(repository);
        let mut then = vec![
            Operation::Delete(head.clone()),
            Operation::delete_under(self.keys.entries(repository)),
            Operation::Put {
                key: self.keys.floor(),
                value,
                lease: 0,
            },
        ];
        let records = sessions
            .entries
            .iter()
            .filter_map(|kv| self.keys.place(&kv.key));
        let notes = records.filter_map(|place| match place {
            Place::Record(id) => Some(Operation::Delete(self.keys.held(id, repository))),
            _ => None,
        });
        // The `held` keys of further sessions are left over, and deleted after those sessions are
        // dead.
        then.extend(notes.take(self.max_operations / 2));
        let expected = changes.expected;
        let mut when = vec![
            Compare::ModifiedAt(head.clone(), revision_of(expected.revision)),
            Compare::ModifiedAt(self.keys.floor(), floor_at),
            Compare::Exists(self.keys.alive(session)),
        ];
        when.extend(is_stamped(&head, expected.stamp));
        let transaction = Transaction {
            when,
            then,
            otherwise: vec![
                Operation::Get(one(head)),
                Operation::Get(one_key(self.keys.alive(session))),
            ],
        };
        let answer = self.cluster.transact(&transaction, Effect::Write).await;
        let answer = answer.map_err(|failure| (failure, Effect::Write))?;
        if answer.succeeded {
            self.held.note_deleted(session, repository);
            let absent = self.absent_at(revision(answer.revision), stamp, given_out);
            return Ok(Some(CommitOutcome::Committed(absent)));
        }
        let mut pages = all_pages(answer.steps).into_iter();
        let (Some(head), Some(alive)) = (pages.next(), pages.next()) else {
            return Ok(Some(CommitOutcome::Failed(malformed())));
        };
        if alive.entries.is_empty() {
            return Ok(Some(CommitOutcome::SessionDead(session)));
        }
        let head = head.entries.first();
        let unchanged = head.is_some_and(|head| is_at(head, expected));
        Ok((!unchanged).then_some(CommitOutcome::Conflict(None)))
    }
}
