//! The store under one prefix: reads of repositories, and what commits, removals and retention
//! share.

mod batch;
pub(crate) mod chores;
mod due;
mod entries;
mod held;
pub(crate) mod left_behind;
mod listing;
mod oddities;
pub(crate) mod paced;
pub(crate) mod pages;
pub(crate) mod recent;
mod refusal;
mod removal;
pub(crate) mod retention;
pub(crate) mod upkeep;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oddities::Oddities;
use recent::Recent;
use retention::Finished;
use upkeep::Upkeep;

use pac_core::effect::Effect;
use pac_core::state::{Entry, Head, Snapshot};
use pac_core::{Error, ErrorKind, RepositoryKey, Revision, Stamp, Version};
use tokio::time::Instant;

use held::Held;
use left_behind::{LeftBehind, Removal};

use crate::client::cluster::Cluster;
use crate::client::failure::Cause;
use crate::client::{KeyValue, Operation, Page, Range, Step, Transaction};
use crate::keys::{Keys, Place, end_of};
use crate::record::{StoredHead, corrupt, decode_entry, decode_floor};
use crate::sessions::Witness;

/// Most keys in one answer. An entry with the longest names takes about 1.5 KB.
pub(crate) const PAGE: usize = 1_000;

/// The longest TTL that etcd accepts for a lease.
pub(crate) const LONGEST_TTL: Duration = Duration::from_secs(9_000_000_000);

/// How many versions of the floor are remembered; see [`Store::is_absent_at`].
const FLOORS: usize = 64;

/// The store under one prefix.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) cluster: Cluster,
    pub(crate) keys: Keys,
    pub(crate) finished: Finished,
    pub(crate) held: Held,
    pub(crate) left_behind: LeftBehind,
    pub(crate) max_operations: usize,
    pub(crate) max_bytes: usize,
    pub(crate) recent: Recent,
    pub(crate) upkeep: Upkeep,
    pub(crate) oddities: Oddities,
    pub(crate) witness: Witness,
    floors: Mutex<VecDeque<Version>>,
}

impl Store {
    pub(crate) fn new(
        cluster: Cluster,
        keys: Keys,
        finished: Finished,
        upkeep: Upkeep,
        (max_operations, max_bytes): (usize, usize),
    ) -> Self {
        Self {
            cluster,
            keys,
            finished,
            held: Held::default(),
            left_behind: LeftBehind::default(),
            max_operations,
            max_bytes,
            recent: Recent::default(),
            upkeep,
            oddities: Oddities::default(),
            witness: Witness::default(),
            floors: Mutex::default(),
        }
    }

    /// Reads a repository: one request for up to [`PAGE`] entries, and one more for each larger page
    /// beyond. With `since`, a request for the head comes first and is mostly
    /// enough: the stream of changes has told the rest. If it has not, the server looks at all
    /// entries to find those that changed.
    pub(crate) async fn load(
        &self,
        repository: &RepositoryKey,
        since: Option<Version>,
    ) -> Result<Snapshot, Error> {
        let read = async {
            if let Some(since) = since
                && let Some(snapshot) = self.read_recent(repository, since).await?
            {
                return Ok(snapshot);
            }
            match self.read(repository, since).await? {
                Some(snapshot) => Ok(snapshot),
                // The repository was removed after `since` and created again, or `since` is of
                // another history or was compacted away: read all of it.
                None => self.read(repository, None).await?.ok_or_else(malformed),
            }
        };
        read.await
            .map_err(|error: Error| error.in_repository(repository))
    }

    /// What changed after `since`, if that is nothing or the stream of changes has told it.
    async fn read_recent(
        &self,
        repository: &RepositoryKey,
        since: Version,
    ) -> Result<Option<Snapshot>, Error> {
        let head = one(self.keys.head(repository));
        let head = self.cluster.range(head, "load").await?;
        let Some(kv) = head.entries.first() else {
            return Ok(None);
        };
        let head = decode_head(kv)?.head;
        let to = head.version();
        if to.revision == since.revision {
            return Ok((to == since).then(|| Snapshot {
                since: Some(since),
                exists: true,
                head,
                entries: Vec::new(),
            }));
        }
        if revision(kv.created) > since.revision {
            return Ok(None);
        }
        let until = Instant::now() + recent::TELLS_WITHIN;
        Ok(self.recent.between(repository, since, to, until).await)
    }

    /// `None` when what changed since cannot be told.
    async fn read(
        &self,
        repository: &RepositoryKey,
        since: Option<Version>,
    ) -> Result<Option<Snapshot>, Error> {
        let prefix = self.keys.entries(repository);
        let at = since.map(|since| revision_of(since.revision));
        let mut range = entry_range(&prefix, at.map_or(0, |at| at.saturating_add(1)));
        let head = one(self.keys.head(repository));
        // The head as it was then tells whether that was in this history: a store that was restored
        // from an older copy may have come to the same revision with other content.
        let then = at.map(|at| Range { at, ..head.clone() });
        let answer = loop {
            let removed = one(self.keys.removed(repository));
            let now = [head.clone(), range.clone(), one(self.keys.floor()), removed];
            let transaction = Transaction {
                then: now
                    .into_iter()
                    .chain(then.clone())
                    .map(Operation::Get)
                    .collect(),
                ..Transaction::default()
            };
            match self.cluster.transact(&transaction, Effect::Read).await {
                Err(failure) if failure.is_too_large() && range.limit > 1 => {
                    range.limit /= 2;
                }
                answer => break answer,
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            // That revision was compacted away, or this store has not come so far.
            Err(failure)
                if since.is_some() && matches!(failure.cause, Cause::Compacted | Cause::Other) =>
            {
                tracing::debug!(%repository, %failure, "reading all of it");
                return Ok(None);
            }
            Err(failure) => return Err(failure.error("load", Effect::Read)),
        };
        let at = answer.revision;
        let mut pages = all_pages(answer.steps);
        let then = since.and_then(|_| pages.pop());
        let [head, page, floor, removed]: [Page; 4] = pages.try_into().map_err(|_| malformed())?;
        let removal = removed.entries.first().map(Removal::decode).transpose()?;
        let Some(head) = head.entries.first() else {
            for kv in &page.entries {
                let entry = removal.map(|removal| (removal, self.entry(repository, kv)));
                let left = entry.is_some_and(|(removal, entry)| {
                    entry.is_ok_and(|entry| removal.has_left(&entry))
                });
                if !left {
                    return Err(corrupt(&kv.key, &"it is of a repository without a head"));
                }
            }
            return self.absent(floor.entries.first()).map(Some);
        };
        let was_here = |since: Version| {
            let then = then.as_ref().and_then(|then| then.entries.first());
            then.and_then(|then| decode_head(then).ok())
                .is_some_and(|then| then.head.version() == since)
        };
        let created_since = |since: Version| head.created > revision_of(since.revision);
        if since.is_some_and(|since| created_since(since) || !was_here(since)) {
            return Ok(None);
        }
        let stored = decode_head(head)?;
        let whole = Range { at, ..range };
        // What is left behind is no part of what the head counts.
        let many = removal.is_none() && since.is_none() && self.has_too_many(&page, &stored.head);
        let mut entries = if many {
            self.entries_of_many(repository, whole, &stored.head)
                .await?
        } else {
            self.entries(repository, page, whole).await?
        };
        if let Some(removal) = removal {
            entries.retain(|entry| !removal.has_left(entry));
        }
        // An entry that was repaired by hand has a newer revision than the last commit.
        for entry in entries
            .iter_mut()
            .filter(|entry| entry.revision > stored.head.revision)
        {
            Arc::make_mut(entry).revision = stored.head.revision;
        }
        if since.is_none() {
            self.finished.keep_latest(repository, &mut entries);
        }
        Ok(Some(Snapshot {
            since,
            exists: true,
            head: stored.head,
            entries,
        }))
    }

    /// The entry at `kv`, which is in the range of this repository's entries.
    fn entry(&self, repository: &RepositoryKey, kv: &KeyValue) -> Result<Arc<Entry>, Error> {
        match self.keys.place(&kv.key) {
            Some(Place::Entry(of, run)) if of == *repository => {
                decode_entry(run, &kv.key, &kv.value, revision(kv.modified)).map(Arc::new)
            }
            _ => Err(corrupt(&kv.key, &"its key is not that of a run")),
        }
    }

    /// The state of a repository that does not exist. Its revision is the one at which a repository
    /// was last removed: no head is ever written at that revision.
    fn absent(&self, floor: Option<&KeyValue>) -> Result<Snapshot, Error> {
        let (at, given_out, stamp) = match floor {
            Some(kv) => {
                let (given_out, stamp) = decode_floor(&kv.key, &kv.value)?;
                (revision(kv.modified), given_out, stamp)
            }
            None => Default::default(),
        };
        Ok(self.absent_at(at, stamp, given_out))
    }

    /// The state of a repository that does not exist, as of the removal that made this floor.
    pub(crate) fn absent_at(&self, at: Revision, stamp: Stamp, given_out: u64) -> Snapshot {
        self.note_floor(Version::new(at, stamp));
        let head = Head {
            revision: at,
            stamp,
            ..Head::absent(given_out)
        };
        Snapshot {
            head,
            ..Snapshot::absent(0)
        }
    }

    fn note_floor(&self, at: Version) {
        let mut floors = self.floors();
        if !floors.contains(&at) {
            floors.push_back(at);
            if floors.len() > FLOORS {
                floors.pop_front();
            }
        }
    }

    /// Whether a commit that was planned at this version was planned for a repository that did not
    /// exist. Such a version can only come from an answer of this driver. One that it no longer
    /// remembers makes the commit a conflict.
    pub(crate) fn is_absent_at(&self, expected: Version) -> bool {
        expected == Version::default() || self.floors().contains(&expected)
    }

    fn floors(&self) -> MutexGuard<'_, VecDeque<Version>> {
        self.floors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first page of a repository's entries, of those modified at a revision or later.
fn entry_range(prefix: &str, modified_from: i64) -> Range {
    Range {
        key: prefix.to_owned().into_bytes(),
        end: end_of(prefix),
        limit: PAGE,
        modified_from,
        ..Range::default()
    }
}

/// The range of one key.
pub(crate) fn one(key: String) -> Range {
    Range {
        key: key.into_bytes(),
        ..Range::default()
    }
}

/// The range of one key, without its value.
pub(crate) fn one_key(key: String) -> Range {
    Range {
        keys_only: true,
        ..one(key)
    }
}

pub(crate) fn decode_head(kv: &KeyValue) -> Result<StoredHead, Error> {
    StoredHead::decode(&kv.key, &kv.value, revision(kv.modified))
}

/// The pages that the reads of a transaction have returned.
pub(crate) fn all_pages(steps: Vec<Step>) -> Vec<Page> {
    let pages = steps.into_iter().filter_map(|step| match step {
        Step::Got(page) => Some(page),
        Step::Written | Step::Transaction(_) => None,
    });
    pages.collect()
}

pub(crate) fn malformed() -> Error {
    let message = "etcd answered something else than it was asked";
    Error::new(ErrorKind::Internal, "read", message)
}

pub(crate) fn revision(number: i64) -> Revision {
    Revision::new(u64::try_from(number).unwrap_or(0))
}

pub(crate) fn revision_of(revision: Revision) -> i64 {
    i64::try_from(revision.get()).unwrap_or(i64::MAX)
}
