//! Deletes finished runs. Those that are too old go with etcd leases, even if no process lives;
//! those beyond the number that is kept are deleted by the processes that end runs.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pac_core::driver::Retention;
use pac_core::state::Entry;
use pac_core::{Error, RepositoryKey};
use tokio::time::Instant;

use crate::client::failure::{Effect, Failure};
use crate::client::{Client, Compare, Operation, Transaction};
use crate::store::{Store, revision_of};

/// Most keys on one lease: one with more takes too long to expire, which is one step for etcd.
const KEYS_PER_LEASE: usize = 1_000;

/// The retention age divided by this is how long a lease takes new keys, and by how much it
/// outlives that age.
const LEASES_PER_AGE: u32 = 24;

/// A repository is due for tidying when the number of finished runs that it keeps, divided by this,
/// has ended there since it was last tidied.
const LOOK_AFTER: usize = 4;

/// Tidying reads all entries of the repository, those of waiting runs too. It waits until it reads
/// at most this many for each run that ended since the last time.
const READ_PER_END: usize = 16;

/// Most entries that are deleted in one request.
const DELETED_AT_ONCE: usize = 50;

#[derive(Debug)]
pub(crate) struct Finished {
    retention: Retention,
    lease: Mutex<Option<AgeLease>>,
    ended: Mutex<HashMap<RepositoryKey, Ended>>,
}

/// What happened in a repository since it was last tidied.
#[derive(Debug, Default)]
struct Ended {
    /// Runs that ended.
    runs: usize,
    /// Entries that were left then; 0 if there were too few to matter.
    entries: usize,
}

#[derive(Debug, Clone, Copy)]
struct AgeLease {
    id: i64,
    /// How many keys were put on it.
    taken: usize,
    /// It takes no keys from then on.
    until: Instant,
}

impl Finished {
    pub(crate) fn new(retention: Retention) -> Self {
        Self {
            retention,
            lease: Mutex::default(),
            ended: Mutex::default(),
        }
    }

    pub(crate) fn retention(&self) -> Retention {
        self.retention
    }

    fn ended(&self) -> MutexGuard<'_, HashMap<RepositoryKey, Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.mark_due(repository);
        let excess = finished - most;
        let outdated = oldest(entries, excess);
        let outdated: HashSet<_> = outdated.iter().map(|entry| &entry.run).collect();
        entries.retain(|entry| !outdated.contains(&entry.run));
    }

    /// Notes that runs of a repository have ended.
    pub(crate) fn note(&self, repository: &RepositoryKey, ended: usize) {
        if ended > 0 {
            self.ended().entry(repository.clone()).or_default().runs += ended;
        }
    }

    /// The repositories that are due for tidying. They count as tidied from now on.
    fn due(&self) -> Vec<RepositoryKey> {
        let enough = self.enough();
        let mut due = Vec::new();
        self.ended().retain(|repository, ended| {
            if ended.runs < enough.max(ended.entries / READ_PER_END) {
                return true;
            }
            due.push(repository.clone());
            ended.runs = 0;
            // The number of entries is kept in case there is no time to finish the tidying.
            ended.entries > 0
        });
        due
    }

    /// Makes a repository due for tidying at once.
    fn mark_due(&self, repository: &RepositoryKey) {
        let ended = Ended {
            runs: self.enough(),
            entries: 0,
        };
        self.ended().insert(repository.clone(), ended);
    }

    /// How many runs of a repository have to end before it is due for tidying.
    fn enough(&self) -> usize {
        (self.retention.per_repository / LOOK_AFTER).max(1)
    }

    /// Notes that a repository was tidied and has this many entries left.
    fn tidied(&self, repository: &RepositoryKey, entries: usize) {
        let mut ended = self.ended();
        if entries / READ_PER_END > self.enough() {
            ended.entry(repository.clone()).or_default().entries = entries;
        } else if let Some(ended) = ended.get_mut(repository) {
            ended.entries = 0;
        }
    }

    /// Forgets the lease: it was revoked from outside.
    pub(crate) fn lose_lease(&self) {
        *self.lease() = None;
    }

    /// The id of the current lease, if it can take this many more keys; counts them.
    fn take(&self, keys: usize) -> Option<i64> {
        let mut lease = self.lease();
        let lease = lease.as_mut()?;
        let fits = lease.taken + keys <= KEYS_PER_LEASE && Instant::now() < lease.until;
        fits.then(|| {
            lease.taken += keys;
            lease.id
        })
    }
}

impl Store {
    /// The id of the lease for this many entries of runs that end now. Grants a new one, with one
    /// request, when the current one is full or no longer takes keys.
    pub(crate) async fn retention_lease(&self, keys: usize) -> Result<i64, Failure> {
        if let Some(lease) = self.finished.take(keys) {
            return Ok(lease);
        }
        let age = self.finished.retention().age;
        let spell = (age / LEASES_PER_AGE).max(Duration::from_secs(1));
        let seconds = i64::try_from((age + spell).as_secs()).unwrap_or(i64::MAX);
        let until = Instant::now() + spell;
        let seconds = seconds.saturating_add(1);
        let grant = move |client: Client| async move { client.grant(seconds).await };
        // If the answer is lost the lease expires by itself, so the request counts as a read.
        let (id, _) = self.cluster.call(Effect::Read, grant).await?;
        let lease = AgeLease {
            id,
            taken: keys,
            until,
        };
        *self.finished.lease() = Some(lease);
        Ok(id)
    }

    /// Deletes the finished runs beyond the number that is kept, in the repositories that are due.
    pub(crate) async fn tidy(&self) {
        for repository in self.finished.due() {
            if let Err(error) = self.tidy_one(&repository).await {
                tracing::debug!(%repository, %error, "finished runs are not tidied yet");
                self.finished.mark_due(&repository);
            }
        }
    }

    async fn tidy_one(&self, repository: &RepositoryKey) -> Result<(), Error> {
        let most = self.finished.retention().per_repository;
        let entries = self.all_entries(repository, "sweep").await?;
        let finished = entries.iter().filter(|entry| entry.is_finished()).count();
        let outdated = oldest(&entries, finished.saturating_sub(most));
        self.finished
            .tidied(repository, entries.len() - outdated.len());
        for chunk in outdated.chunks(DELETED_AT_ONCE.min(self.max_operations / 2)) {
            let deletions = chunk.iter().map(|entry| {
                let key = self.keys.entry(repository, &entry.run);
                // A new run of the same name may have replaced the entry by now.
                Operation::Transaction(Transaction {
                    when: vec![Compare::ModifiedAt(
                        key.clone(),
                        revision_of(entry.revision),
                    )],
                    then: vec![Operation::Delete(key)],
                    otherwise: Vec::new(),
                })
            });
            let transaction = Transaction {
                then: deletions.collect(),
                ..Transaction::default()
            };
            self.cluster
                .commit(transaction, "sweep", Effect::Write)
                .await?;
        }
        Ok(())
    }
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
    fn the_more_entries_there_are_the_more_ends_are_worth_a_look() {
        let finished = Finished::new(Retention::new(Duration::from_secs(60), 40));
        let [web, api] = ["team/web", "team/api"].map(|key| key.parse::<RepositoryKey>().unwrap());
        finished.tidied(&web, 3_200);
        finished.tidied(&api, 100);
        for (ends, due) in [(9, 0), (1, 1), (180, 1), (9, 0), (1, 2)] {
            finished.note(&web, ends);
            finished.note(&api, ends);
            assert_eq!(finished.due().len(), due, "after {ends} more");
        }
    }
}
