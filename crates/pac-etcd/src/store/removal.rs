//! Removes a repository in a transaction of its own, so that no head is ever written at the
//! revision of the floor.

use std::sync::atomic::{AtomicBool, Ordering};

use pac_core::SessionId;
use pac_core::driver::{CommitOutcome, RepositoryCommit};
use pac_core::effect::Effect;
use tokio::time::{Instant, timeout_at};

use crate::client::failure::Failure;
use crate::client::{Compare, Operation, Range, Transaction};
use crate::keys::{Place, end_of};
use crate::record::{decode_floor, encode_floor, encode_removed, is_stamped, new_stamp};
use crate::store::batch::may_be_written;
use crate::store::paced::STEP;
use crate::store::refusal::is_at;
use crate::store::{Store, all_pages, malformed, one, one_key, revision, revision_of};

/// How often a removal is tried: each removal of another repository at the same moment fails an
/// attempt.
const ATTEMPTS: usize = 5;

impl Store {
    /// Removes a repository with all that belongs to it. Two requests, and two more for every
    /// removal of another repository at the same moment. The runs are deleted in the same
    /// transaction, or left behind if they are many: what a removal costs does not grow with them.
    /// It ends at `until`, and is not begun after that.
    pub(super) async fn remove(
        &self,
        session: SessionId,
        commit: &RepositoryCommit,
        until: Instant,
    ) -> CommitOutcome {
        if let Err(refused) = may_be_written(&commit.changes) {
            return CommitOutcome::Refused(refused);
        }
        let is_sent = AtomicBool::new(false);
        let trying = async {
            for _ in 0..ATTEMPTS {
                match self.try_remove(session, commit, &is_sent).await {
                    Ok(Some(outcome)) => return Ok(outcome),
                    // That one was not applied.
                    Ok(None) => is_sent.store(false, Ordering::Relaxed),
                    Err(failure) => return Err(failure),
                }
            }
            Ok(CommitOutcome::Conflict(None))
        };
        let tried = if Instant::now() < until {
            timeout_at(until, trying).await.ok()
        } else {
            None
        };
        let failure = match tried {
            Some(Ok(outcome)) => return outcome,
            Some(Err(failure)) => failure,
            None => Failure::unanswered(),
        };
        let effect = if is_sent.load(Ordering::Relaxed) {
            Effect::Write
        } else {
            Effect::Read
        };
        CommitOutcome::Failed(failure.error("commit", effect))
    }

    /// `None` when another repository was removed after the floor was read. Says in `is_sent` that
    /// the request that removes the repository is sent.
    async fn try_remove(
        &self,
        session: SessionId,
        commit: &RepositoryCommit,
        is_sent: &AtomicBool,
    ) -> Result<Option<CommitOutcome>, Failure> {
        let (repository, changes) = (&commit.repository, &commit.changes);
        let (entries, sessions) = (self.keys.entries(repository), self.keys.sessions());
        let mut look = Transaction {
            then: vec![
                Operation::Get(one(self.keys.floor())),
                Operation::Get(Range {
                    end: end_of(&entries),
                    key: entries.into_bytes(),
                    count_only: true,
                    ..Range::default()
                }),
                Operation::Get(one_key(self.keys.removed(repository))),
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
        let mut pages = all_pages(read?.steps).into_iter();
        let (Some(floor), Some(entries), Some(removed)) =
            (pages.next(), pages.next(), pages.next())
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
        // Those that an earlier removal has left are there, too.
        let leaves_runs = entries.count > STEP || !removed.entries.is_empty();
        let head = &changes.head;
        let given_out = before
            .max(head.last_ticket.get())
            .max(head.last_token.get());
        let stamp = new_stamp();
        let values = encode_floor(given_out, stamp)
            .and_then(|floor| Ok((floor, encode_removed(given_out)?)));
        let (floor, left) = match values {
            Ok(values) => values,
            Err(error) => return Ok(Some(CommitOutcome::Refused(error))),
        };

        let head = self.keys.head(repository);
        let entries = if leaves_runs {
            Operation::Put {
                key: self.keys.removed(repository),
                value: left,
                lease: 0,
            }
        } else {
            Operation::delete_under(self.keys.entries(repository))
        };
        let mut then = vec![
            Operation::Delete(head.clone()),
            entries,
            Operation::Put {
                key: self.keys.floor(),
                value: floor,
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
        is_sent.store(true, Ordering::Relaxed);
        let answer = self.cluster.transact(&transaction, Effect::Write).await?;
        if answer.succeeded {
            self.held.note_deleted(session, repository);
            if leaves_runs {
                self.left_behind.note(repository);
            }
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
