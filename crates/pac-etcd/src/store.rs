//! The store under one prefix: reads of repositories, and what commits, removals and retention
//! share.

mod batch;
mod held;
pub(crate) mod recent;
mod refusal;
mod removal;
pub(crate) mod retention;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use recent::Recent;
use retention::Finished;

use pac_core::driver::ListFilter;
use pac_core::state::{Entry, Head, Snapshot};
use pac_core::{Error, ErrorKind, RepositoryKey, Revision};
use tokio::time::Instant;

use held::Held;

use crate::client::cluster::Cluster;
use crate::client::failure::Effect;
use crate::client::{Answer, KeyValue, Operation, Page, Range, Step, Transaction};
use crate::keys::{Keys, Place, after, end_of};
use crate::record::{StoredHead, corrupt, decode_entry, decode_floor};

/// Most keys in one answer. An entry with the longest names takes about 1.5 KB.
pub(crate) const PAGE: usize = 1_000;

/// Most entries in one answer after the first answer for a repository. More than [`PAGE`], because
/// the server counts all keys of the range for every page.
const LARGE_PAGE: usize = 10_000;

/// How many revisions of the floor are remembered; see [`Store::is_absent_at`].
const FLOORS: usize = 64;

/// The store under one prefix.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) cluster: Cluster,
    pub(crate) keys: Keys,
    pub(crate) finished: Finished,
    pub(crate) held: Held,
    pub(crate) max_operations: usize,
    pub(crate) max_bytes: usize,
    pub(crate) recent: Recent,
    floors: Mutex<VecDeque<Revision>>,
}

impl Store {
    pub(crate) fn new(
        cluster: Cluster,
        keys: Keys,
        finished: Finished,
        (max_operations, max_bytes): (usize, usize),
    ) -> Self {
        Self {
            cluster,
            keys,
            finished,
            held: Held::default(),
            max_operations,
            max_bytes,
            recent: Recent::default(),
            floors: Mutex::default(),
        }
    }

    /// Reads a repository: one request for up to [`PAGE`] entries, and one more for each
    /// [`LARGE_PAGE`] beyond. With `since`, a request for the head comes first and is mostly
    /// enough: the stream of changes has told the rest. If it has not, the server looks at all
    /// entries to find those that changed.
    pub(crate) async fn load(
        &self,
        repository: &RepositoryKey,
        since: Option<Revision>,
    ) -> Result<Snapshot, Error> {
        let read = async {
            if let Some(since) = since
                && let Some(snapshot) = self.read_recent(repository, since).await?
            {
                return Ok(snapshot);
            }
            match self.read(repository, since).await? {
                Some(snapshot) => Ok(snapshot),
                // The repository was removed after `since` and created again: read all of it.
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
        since: Revision,
    ) -> Result<Option<Snapshot>, Error> {
        let head = one(self.keys.head(repository));
        let head = self.cluster.range(head, "load").await?;
        let Some(kv) = head.entries.first() else {
            return Ok(None);
        };
        let at = revision(kv.modified);
        if at == since {
            return Ok(Some(Snapshot {
                since: Some(since),
                exists: true,
                head: decode_head(kv)?.head,
                entries: Vec::new(),
            }));
        }
        if revision(kv.created) > since {
            return Ok(None);
        }
        let until = Instant::now() + recent::TELLS_WITHIN;
        Ok(self.recent.between(repository, since, at, until).await)
    }

    async fn read(
        &self,
        repository: &RepositoryKey,
        since: Option<Revision>,
    ) -> Result<Option<Snapshot>, Error> {
        let prefix = self.keys.entries(repository);
        let from = since.map_or(0, |since| revision_of(since).saturating_add(1));
        let range = entry_range(&prefix, from);
        let transaction = Transaction {
            then: vec![
                Operation::Get(one(self.keys.head(repository))),
                Operation::Get(range.clone()),
                Operation::Get(one(self.keys.floor())),
            ],
            ..Transaction::default()
        };
        let answer = self
            .cluster
            .commit(transaction, "load", Effect::Read)
            .await?;
        let at = answer.revision;
        let [head, page, floor] = pages(answer)?;
        let Some(head) = head.entries.first() else {
            if let Some(entry) = page.entries.first() {
                return Err(corrupt(&entry.key, &"it is of a repository without a head"));
            }
            return self.absent(floor.entries.first()).map(Some);
        };
        let created_since = |since: Revision| head.created > revision_of(since);
        if since.is_some_and(|since| created_since(since) || head.modified < revision_of(since)) {
            return Ok(None);
        }
        let stored = decode_head(head)?;
        let mut entries = self.entries(repository, page, range, at, "load").await?;
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

    /// All entries, those of finished runs beyond the number that is kept too.
    pub(crate) async fn all_entries(
        &self,
        repository: &RepositoryKey,
        operation: &'static str,
    ) -> Result<Vec<Arc<Entry>>, Error> {
        let range = entry_range(&self.keys.entries(repository), 0);
        let page = self.cluster.range(range.clone(), operation).await?;
        let at = page.revision;
        self.entries(repository, page, range, at, operation).await
    }

    /// The entries of this page and of the pages after it, all as of the revision `at`.
    async fn entries(
        &self,
        repository: &RepositoryKey,
        mut page: Page,
        range: Range,
        at: i64,
        operation: &'static str,
    ) -> Result<Vec<Arc<Entry>>, Error> {
        let mut entries = Vec::with_capacity(page.entries.len());
        loop {
            for entry in &page.entries {
                entries.push(self.entry(repository, entry)?);
            }
            let Some(last) = page.entries.last().filter(|_| page.more) else {
                return Ok(entries);
            };
            let next = Range {
                key: after(&String::from_utf8_lossy(&last.key)),
                limit: LARGE_PAGE,
                at,
                ..range.clone()
            };
            page = self.cluster.range(next, operation).await?;
        }
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
        let (at, given_out) = match floor {
            Some(kv) => (revision(kv.modified), decode_floor(&kv.key, &kv.value)?),
            None => Default::default(),
        };
        self.note_floor(at);
        let head = Head {
            revision: at,
            ..Head::absent(given_out)
        };
        Ok(Snapshot {
            head,
            ..Snapshot::absent(0)
        })
    }

    pub(crate) fn note_floor(&self, at: Revision) {
        let mut floors = self.floors();
        if !floors.contains(&at) {
            floors.push_back(at);
            if floors.len() > FLOORS {
                floors.pop_front();
            }
        }
    }

    /// Whether a commit that was planned at this revision was planned for a repository that did not
    /// exist. Such a revision can only come from an answer of this driver. One that it no longer
    /// remembers makes the commit a conflict.
    pub(crate) fn is_absent_at(&self, expected: Revision) -> bool {
        expected == Revision::default() || self.floors().contains(&expected)
    }

    fn floors(&self) -> MutexGuard<'_, VecDeque<Revision>> {
        self.floors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists repositories, with one request for up to [`PAGE`] of them. Leaves out heads that
    /// cannot be decoded: a read of such a repository returns the error.
    pub(crate) async fn list(
        &self,
        filter: ListFilter,
        start_after: Option<&RepositoryKey>,
        limit: usize,
    ) -> Result<Vec<(RepositoryKey, Head)>, Error> {
        let prefix = self.keys.heads();
        let mut found = Vec::new();
        let mut start = match start_after {
            Some(repository) => after(&self.keys.head(repository)),
            None => prefix.clone(),
        };
        while found.len() < limit {
            let missing = limit - found.len();
            let range = Range {
                key: start,
                end: end_of(&prefix),
                limit: match filter {
                    ListFilter::All => missing.min(PAGE),
                    ListFilter::Startable => PAGE,
                },
                ..Range::default()
            };
            let page = self.cluster.range(range, "list").await?;
            let heads = page.entries.iter().filter_map(|kv| self.listed(kv));
            let passing = heads.filter(|(_, head)| filter.passes(head));
            found.extend(passing.take(missing));
            match page.entries.last() {
                Some(last) if page.more => start = after(&String::from_utf8_lossy(&last.key)),
                _ => break,
            }
        }
        Ok(found)
    }

    fn listed(&self, kv: &KeyValue) -> Option<(RepositoryKey, Head)> {
        let Some(Place::Head(repository)) = self.keys.place(&kv.key) else {
            return None;
        };
        match decode_head(kv) {
            Ok(stored) => Some((repository, stored.head)),
            Err(error) => {
                tracing::debug!(%repository, %error, "left out of a list");
                None
            }
        }
    }

    /// What the keys under a prefix, which ends with a slash, stand for. One request for each
    /// [`PAGE`].
    pub(crate) async fn keys_under(
        &self,
        prefix: &str,
        operation: &'static str,
    ) -> Result<Vec<Place>, Error> {
        let mut places = Vec::new();
        let mut start = prefix.to_owned();
        loop {
            let range = Range {
                key: start,
                end: end_of(prefix),
                limit: PAGE,
                keys_only: true,
                ..Range::default()
            };
            let page = self.cluster.range(range, operation).await?;
            places.extend(
                page.entries
                    .iter()
                    .filter_map(|kv| self.keys.place(&kv.key)),
            );
            match page.entries.last() {
                Some(last) if page.more => start = after(&String::from_utf8_lossy(&last.key)),
                _ => return Ok(places),
            }
        }
    }
}

/// The first page of a repository's entries, of those modified at a revision or later.
fn entry_range(prefix: &str, modified_from: i64) -> Range {
    Range {
        key: prefix.to_owned(),
        end: end_of(prefix),
        limit: PAGE,
        modified_from,
        ..Range::default()
    }
}

/// The range of one key.
pub(crate) fn one(key: String) -> Range {
    Range {
        key,
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

/// The pages that a transaction of `N` reads has returned.
pub(crate) fn pages<const N: usize>(answer: Answer) -> Result<[Page; N], Error> {
    let pages = all_pages(answer.steps);
    pages.try_into().map_err(|_| malformed())
}

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
