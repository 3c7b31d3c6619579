//! The deletion of finished runs, and how many of them a read takes in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pac_core::state::Entry;
use pac_core::{Error, RepositoryKey};

use super::Store;
use crate::client::{Effect, Type};
use crate::clock::millis;
use crate::record::cell;

/// Most finished runs that one statement deletes. A commit to the same repository is a conflict as
/// long as that statement takes.
const PURGE: i32 = 500;
/// The same for those beyond the number that is kept, of each repository.
const PURGE_EXCESS: i64 = 2_000;
/// How many runs of a repository this process ends before it deletes those beyond the number that
/// is kept.
const ENDED: usize = 64;
/// Most repositories for which ended runs are counted; with more, counting starts anew. Runs that
/// are then not deleted for their number go by their age.
const COUNTED: usize = 10_000;
/// The longest time between two looks for finished runs that are too old.
const PURGE_INTERVAL: Duration = Duration::from_secs(10);

/// Finished runs beyond twice the number that is kept, and these, are not read: processes delete what
/// is too much some time after it has come.
const READ_BEYOND: usize = 1_000;
/// The time between two lines in the log about too many finished runs.
pub(super) const TELL: Duration = Duration::from_secs(60);

impl Store {
    /// Deletes finished runs: those that are too old, a limited number at a time, and those beyond
    /// the number that is kept. Not at every call.
    pub(crate) async fn purge(&self) -> Result<(), Error> {
        let excess = self.purge_excess().await;
        // What is wrong with some repositories keeps no others from being seen to.
        self.purge_old().await.and(excess)
    }

    async fn purge_excess(&self) -> Result<(), Error> {
        let schema = self.client.schema();
        let retention = self.client.options().retention;
        let mut excess = Excess {
            ended: &self.ended,
            counts: Vec::new(),
        };
        {
            let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            let most = ENDED.min(retention.per_repository);
            let due = ended.extract_if(|_, ended| *ended >= most);
            excess.counts = due.collect();
        }
        if !excess.counts.is_empty() {
            let names: Vec<_> = excess.counts.iter().map(|(key, _)| key.as_str()).collect();
            let keep = i64::try_from(retention.per_repository).unwrap_or(i64::MAX);
            let sql = format!("SELECT {schema}.purge_excess($1, $2, $3)");
            let params = [
                (&names as _, Type::TEXT_ARRAY),
                (&keep as _, Type::INT8),
                (&PURGE_EXCESS as _, Type::INT8),
            ];
            let purged = self.client.query("purge", Effect::Write, &sql, &params);
            let gone = purged.await?.first().map_or(Ok(0), |row| cell(row, 0))?;
            // Else there may be more, which the next call deletes.
            if gone < PURGE_EXCESS {
                excess.counts.clear();
            }
        }
        Ok(())
    }

    async fn purge_old(&self) -> Result<(), Error> {
        let schema = self.client.schema();
        let retention = self.client.options().retention;
        if self.is_purge_due(retention.age) {
            let sql = format!("SELECT {schema}.purge_old($1, $2)");
            let age = millis(retention.age);
            let params = [(&age as _, Type::INT8), (&PURGE as _, Type::INT4)];
            let rows = self
                .client
                .query("purge", Effect::Write, &sql, &params)
                .await?;
            let gone = rows.first().map_or(Ok(0), |row| cell::<i64>(row, 0))?;
            if gone >= i64::from(PURGE) {
                // There are more, which the next call deletes.
                *self.next_purge() = Instant::now();
            }
        }
        Ok(())
    }

    fn is_purge_due(&self, age: Duration) -> bool {
        let mut next = self.next_purge();
        let due = *next <= Instant::now();
        if due {
            let interval = PURGE_INTERVAL.min(age / 20);
            *next = Instant::now() + interval.mul_f64(0.8 + 0.4 * fastrand::f64());
        }
        due
    }

    fn next_purge(&self) -> MutexGuard<'_, Instant> {
        self.next_purge
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_ended(&self, key: &RepositoryKey, entries: &[Arc<Entry>]) {
        let ended = entries.iter().filter(|entry| entry.is_finished()).count();
        if ended > 0 {
            let mut known = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= COUNTED && !known.contains_key(key) {
                known.clear();
            }
            *known.entry(key.clone()).or_default() += ended;
        }
    }

    /// How many finished runs of a repository are read at most, and one.
    pub(super) fn most_finished(&self) -> usize {
        let kept = self.client.options().retention.per_repository;
        kept.saturating_mul(2).saturating_add(READ_BEYOND)
    }

    /// Says that a repository has more finished runs than are read, and has the next calls of
    /// [`purge`](Self::purge) delete what is too much.
    pub(super) fn note_too_many(&self, key: &RepositoryKey) {
        let most = self.most_finished();
        {
            let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            if ended.len() < COUNTED || ended.contains_key(key) {
                ended.insert(key.clone(), ENDED);
            }
        }
        let mut tell = self.tell.lock().unwrap_or_else(PoisonError::into_inner);
        if tell.is_due() {
            tracing::warn!(
                repository = key.as_str(),
                most,
                "more finished runs are stored than are read: the older ones count as gone, and \
                 are deleted by and by; if this comes again, look for what writes them"
            );
        }
    }
}

/// Repositories that have too many finished runs. Those that are left when this is dropped count
/// again: the next call sees to them.
struct Excess<'a> {
    ended: &'a Mutex<HashMap<RepositoryKey, usize>>,
    counts: Vec<(RepositoryKey, usize)>,
}

impl Drop for Excess<'_> {
    fn drop(&mut self) {
        if self.counts.is_empty() {
            return;
        }
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, count) in self.counts.drain(..) {
            *ended.entry(key).or_default() += count;
        }
    }
}
