//! Deletes finished runs. Those that are too old go with etcd leases, even if no process lives;
//! those beyond the number that is kept are deleted by the processes that end runs. Several that end
//! runs of the same repository may tidy it at the same time: each deletes what is still there.
//!
//! The processes share these leases: one that ends few runs, as `pac exec` does, would need one of
//! its own otherwise, and etcd would have as many as there were processes within the retention age.
//! The key `finished` is on the lease that takes more, and counts what was taken of it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pac_core::RepositoryKey;
use pac_core::driver::Retention;
use pac_core::effect::Effect;
use pac_core::state::Entry;
use tokio::time::{Instant, timeout};

use crate::client::failure::{Cause, Failure};
use crate::client::{Client, Compare, KeyValue, Operation, Range, Transaction};
use crate::keys::end_of;
use crate::store::due::Due;
use crate::store::entries::Latest;
use crate::store::paced::Pace;
use crate::store::pages::Pages;
use crate::store::{LONGEST_TTL, Store, one};

/// Most keys on one lease: one with more takes too long to expire. etcd deletes at once what is left
/// of them then, up to four times as many as are deleted in one step elsewhere.
const KEYS_PER_LEASE: usize = 1_000;

/// The retention age divided by this is how long a lease takes new keys, and by how much it
/// outlives that age.
const LEASES_PER_AGE: u32 = 24;

/// How many keys a process first takes of a shared lease, and how many times as many each time
/// after that.
const FIRST_TAKEN: usize = 8;
const TAKEN_TIMES: usize = 8;
const MOST_TAKEN: usize = 256;

/// How long the tidying of one repository may take, before others have their turn.
const TURN: Duration = Duration::from_secs(5);

/// How many keys of entries are read with one request.
const KEYS_AT_ONCE: usize = 10_000;

/// Most entries that are deleted in one request.
const DELETED_AT_ONCE: usize = 50;

#[derive(Debug)]
pub(crate) struct Finished {
    retention: Retention,
    lease: Mutex<Option<AgeLease>>,
    /// How many keys to take of a lease the next time.
    next_taken: AtomicUsize,
    /// The repositories that have more finished runs than are kept.
    pub(super) due: Due,
}

#[derive(Debug, Clone, Copy)]
struct AgeLease {
    id: i64,
    /// How many more keys this process may put on it.
    room: usize,
    /// It takes no keys from then on.
    until: Instant,
}

impl Finished {
    pub(crate) fn new(retention: Retention) -> Self {
        // Two leases of this age fit into one.
        let age = retention.age.min(LONGEST_TTL / 2);
        Self {
            retention: Retention::new(age, retention.per_repository),
            lease: Mutex::default(),
            next_taken: AtomicUsize::new(FIRST_TAKEN),
            due: Due::new(retention.per_repository),
        }
    }

    pub(crate) fn retention(&self) -> Retention {
        self.retention
    }

    fn lease(&self) -> MutexGuard<'_, Option<AgeLease>> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the oldest of the finished entries that were read, beyond the number that is kept. If
    /// there are any, the repository is due for tidying.
    pub(crate) fn keep_latest(&self, repository: &RepositoryKey, entries: &mut Vec<Arc<Entry>>) {
        let most = self.retention.per_repository;
        let finished = entries.iter().filter(|entry| entry.is_finished()).count();
        if finished <= most {
            return;
        }
        self.due.mark(repository);
        let excess = finished - most;
        let outdated = oldest(entries, excess);
        let outdated: HashSet<_> = outdated.iter().map(|entry| &entry.run).collect();
        entries.retain(|entry| !outdated.contains(&entry.run));
    }

    /// Forgets the lease: it was revoked from outside.
    pub(crate) fn lose_lease(&self) {
        *self.lease() = None;
    }

    /// The id of the current lease, if it can take this many more keys; counts them.
    fn take(&self, keys: usize) -> Option<i64> {
        let mut lease = self.lease();
        let lease = lease.as_mut()?;
        let fits = keys <= lease.room && Instant::now() < lease.until;
        fits.then(|| {
            lease.room -= keys;
            lease.id
        })
    }

    /// How long a lease takes new keys, and by how much it outlives the retention age.
    fn spell(&self) -> Duration {
        (self.retention.age / LEASES_PER_AGE).max(Duration::from_secs(1))
    }

    /// Goes on with a lease of which this many keys were taken, from which this many are used at
    /// once, and which takes keys for so long.
    fn go_on_with(&self, id: i64, (taken, used): (usize, usize), takes_for: Duration) {
        *self.lease() = Some(AgeLease {
            id,
            room: taken.saturating_sub(used),
            until: Instant::now() + takes_for.min(LONGEST_TTL),
        });
        let more = taken.saturating_mul(TAKEN_TIMES).min(MOST_TAKEN);
        self.next_taken.store(more, Ordering::Relaxed);
    }
}

impl Store {
    /// The id of the lease for this many entries of runs that end now. When what was taken of the
    /// current one is used up, this takes more of the one that all processes share, with three
    /// requests, or makes another one, with two more.
    pub(crate) async fn retention_lease(&self, keys: usize) -> Result<i64, Failure> {
        if let Some(lease) = self.finished.take(keys) {
            return Ok(lease);
        }
        let taken = self.finished.next_taken.load(Ordering::Relaxed).max(keys);
        let found = self.cluster.read(one(self.keys.finished())).await?;
        let found = found.entries.into_iter().next();
        if let Some(shared) = &found
            && let Some(lease) = self.share(shared, (taken, keys)).await?
        {
            return Ok(lease);
        }
        let age = self.finished.retention().age;
        let spell = self.finished.spell();
        let seconds = i64::try_from((age + spell).as_secs()).unwrap_or(i64::MAX);
        let seconds = seconds.saturating_add(1);
        let grant = move |client: Client| async move { client.grant(seconds).await };
        // If the answer is lost the lease expires by itself, so the request counts as a read.
        let (id, _) = self.cluster.call(Effect::Read, grant).await?;
        // If another process has made one at the same time, that one is shared, and this one is for
        // this process alone.
        let before = found.map_or(0, |kv| kv.modified);
        let share = self.note_taken(id, before, taken);
        let is_shared = self.cluster.transact(&share, Effect::Write).await;
        let taken = match is_shared {
            Ok(answer) if answer.succeeded => taken,
            Ok(_) => KEYS_PER_LEASE.max(keys),
            Err(failure) if failure.changed_nothing() => return Err(failure),
            // Whether it is shared or not, what was taken is this process's.
            Err(_) => taken,
        };
        self.finished.go_on_with(id, (taken, keys), spell);
        Ok(id)
    }

    /// Takes keys of the shared lease, if it has as many left and outlives the retention age.
    async fn share(
        &self,
        shared: &KeyValue,
        (taken, keys): (usize, usize),
    ) -> Result<Option<i64>, Failure> {
        let id = shared.lease;
        let before = decode_taken(&shared.value).unwrap_or(KEYS_PER_LEASE);
        if id == 0 || before.saturating_add(taken) > KEYS_PER_LEASE {
            return Ok(None);
        }
        let take = self.note_taken(id, shared.modified, before + taken);
        let left = move |client: Client| async move { client.time_left(id).await };
        let (left, took) = tokio::join!(
            self.cluster.call(Effect::Read, left),
            self.cluster.transact(&take, Effect::Write)
        );
        let gone = |failure: &Failure| failure.cause == Cause::NoLease;
        let left = match left {
            Ok(left) => Duration::from_secs(u64::try_from(left).unwrap_or(0)),
            Err(failure) if gone(&failure) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        match took {
            Ok(answer) if answer.succeeded => {}
            Ok(_) => return Ok(None),
            Err(failure) if gone(&failure) => return Ok(None),
            Err(failure) => return Err(failure),
        }
        // In whole seconds, rounded down by etcd.
        let Some(takes_for) = left.checked_sub(self.finished.retention().age) else {
            return Ok(None);
        };
        self.finished.go_on_with(id, (taken, keys), takes_for);
        Ok(Some(id))
    }

    /// Notes on a lease how many keys were taken of it, unless another process was faster.
    fn note_taken(&self, lease: i64, before: i64, taken: usize) -> Transaction {
        let key = self.keys.finished();
        Transaction {
            when: vec![Compare::ModifiedAt(key.clone(), before)],
            then: vec![Operation::Put {
                key,
                value: taken.to_string().into_bytes(),
                lease,
            }],
            otherwise: Vec::new(),
        }
    }

    /// Deletes the finished runs beyond the number that is kept, in the repositories that are due.
    /// Begins with none after `until`. May be dropped at any point: what is deleted stays deleted,
    /// and what is not done is still due.
    pub(crate) async fn tidy(&self, until: Instant) {
        let round = self.finished.due.begin_round();
        while Instant::now() < until
            && let Some((repository, counted)) = self.finished.due.next(round)
        {
            match timeout(TURN, self.delete_outdated(&repository)).await {
                Ok(Ok(left)) => self.finished.due.tidied(&repository, counted, left),
                Ok(Err(failure)) => {
                    tracing::debug!(%repository, %failure, "finished runs are not tidied yet");
                    self.finished.due.note_unfinished(&repository, round);
                }
                Err(_) => self.finished.due.note_unfinished(&repository, round),
            }
        }
    }

    /// Reads the keys of all entries, and deletes those of finished runs as soon as later ones than
    /// are kept have been met: what is done when the time is over stays done. An entry of a finished
    /// run is on a lease, and no other is. Returns how many entries are left.
    async fn delete_outdated(&self, repository: &RepositoryKey) -> Result<usize, Failure> {
        let mut latest = Latest::of(self.finished.retention().per_repository);
        let mut live = 0_usize;
        let mut outdated = Vec::new();
        let prefix = self.keys.entries(repository);
        let keys = Range {
            end: end_of(&prefix),
            key: prefix.into_bytes(),
            limit: KEYS_AT_ONCE,
            keys_only: true,
            ..Range::default()
        };
        let mut pages = Pages::of(&self.cluster, keys);
        while let Some(page) = pages.next().await? {
            for kv in page.entries {
                if kv.lease == 0 {
                    live += 1;
                } else if let Ok(key) = String::from_utf8(kv.key) {
                    outdated.extend(latest.add(kv.modified, key.into_bytes()));
                }
            }
            self.delete(&mut outdated, DELETED_AT_ONCE).await?;
        }
        self.delete(&mut outdated, 1).await?;
        Ok(live + latest.len())
    }

    /// Deletes entries that are still as they were read, for as long as there are so many.
    pub(super) async fn delete(
        &self,
        outdated: &mut Vec<(i64, Vec<u8>)>,
        least: usize,
    ) -> Result<(), Failure> {
        let most = DELETED_AT_ONCE.min(self.max_operations / 2).max(1);
        while outdated.len() >= least.max(1) {
            let pace = Pace::begin();
            let from = outdated.len().saturating_sub(most);
            let deletions = outdated.drain(from..).filter_map(|(modified, key)| {
                let key = String::from_utf8(key).ok()?;
                // A new run of the same name may have replaced the entry by now.
                Some(Operation::Transaction(Transaction {
                    when: vec![Compare::ModifiedAt(key.clone(), modified)],
                    then: vec![Operation::Delete(key)],
                    otherwise: Vec::new(),
                }))
            });
            let then: Vec<_> = deletions.collect();
            let deleted = then.len();
            let transaction = Transaction {
                then,
                ..Transaction::default()
            };
            self.cluster.transact(&transaction, Effect::Write).await?;
            pace.keep(deleted).await;
        }
        Ok(())
    }
}

fn decode_taken(value: &[u8]) -> Option<usize> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The `count` finished entries that ended first, in the order of their commits.
fn oldest(entries: &[Arc<Entry>], count: usize) -> Vec<Arc<Entry>> {
    if count == 0 {
        return Vec::new();
    }
    let finished = entries.iter().filter(|entry| entry.is_finished());
    let mut finished: Vec<_> = finished.cloned().collect();
    finished.sort_by_key(|entry| (entry.revision, entry.ticket));
    finished.truncate(count);
    finished
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_retention_is_too_long() {
        let finished = Finished::new(Retention::new(Duration::MAX, 40));
        let lasts = finished.retention().age + finished.spell();
        assert!(lasts <= LONGEST_TTL, "{lasts:?}");
        finished.go_on_with(7, (8, 1), Duration::MAX);
        assert_eq!(finished.take(7), Some(7));
    }
}
