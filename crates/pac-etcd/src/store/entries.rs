//! The entries of one repository: all of them, or, where there are far more than it keeps, those
//! that matter.
//!
//! An entry of a finished run is on an etcd lease, by which it vanishes, and one of a waiting or
//! running run is on none. So the keys alone, with the revisions of their last writes, tell which
//! entries a reader needs: those without a lease, and the latest of the others.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use pac_core::effect::Effect;
use pac_core::state::{Entry, Head};
use pac_core::{Error, RepositoryKey};

use super::pages::Pages;
use super::{Store, all_pages};
use crate::client::failure::Failure;
use crate::client::{KeyValue, Operation, Page, Range, Transaction};
use crate::record::corrupt;

/// Most entries in one answer after the first answer for a repository. More than
/// [`PAGE`](super::PAGE), because the server counts all keys of the range for every page.
const LARGE_PAGE: usize = 10_000;

/// A repository has too many entries with more than so many times the number of finished runs that
/// it keeps, and a large page, beyond those that wait or run.
const TIMES_KEPT: usize = 4;

/// So many more entries without a lease than the head counts make a repository corrupt, before all
/// of them are read.
const UNCOUNTED: usize = 1_000;

/// The latest finished runs among the keys that were passed, by the revisions of their last writes.
pub(super) struct Latest {
    most: usize,
    kept: BinaryHeap<Reverse<(i64, Vec<u8>)>>,
}

impl Latest {
    pub(super) fn of(most: usize) -> Self {
        Self {
            most,
            kept: BinaryHeap::new(),
        }
    }

    /// Adds one. Gives back the one that is not among the latest any more.
    pub(super) fn add(&mut self, modified: i64, key: Vec<u8>) -> Option<(i64, Vec<u8>)> {
        self.kept.push(Reverse((modified, key)));
        if self.kept.len() <= self.most {
            return None;
        }
        self.kept.pop().map(|Reverse(oldest)| oldest)
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    fn into_keys(self) -> impl Iterator<Item = Vec<u8>> {
        let kept = self.kept.into_iter();
        kept.map(|Reverse((_, key))| key)
    }
}

impl Store {
    /// The entries of this page and of the pages after it in the same range.
    pub(super) async fn entries(
        &self,
        repository: &RepositoryKey,
        first: Page,
        range: Range,
    ) -> Result<Vec<Arc<Entry>>, Error> {
        let mut entries = Vec::with_capacity(first.entries.len());
        let larger = Range {
            limit: LARGE_PAGE,
            ..range
        };
        let mut pages = Pages::after(&self.cluster, larger, &first);
        let mut page = Some(first);
        while let Some(read) = page {
            for entry in &read.entries {
                entries.push(self.entry(repository, entry)?);
            }
            page = pages.next().await.map_err(|failure| not_loaded(&failure))?;
        }
        Ok(entries)
    }

    /// Whether a repository has so many more entries than it keeps that not all of them are read.
    pub(super) fn has_too_many(&self, page: &Page, head: &Head) -> bool {
        let live = head.queued as usize + head.started as usize;
        let kept = self.finished.retention().per_repository;
        let most = kept.saturating_mul(TIMES_KEPT).saturating_add(LARGE_PAGE);
        page.count > live.saturating_add(most)
    }

    /// The entries without a lease, and the latest of the finished runs, of a repository that has
    /// too many. Reads all keys of the range, and the values of those alone.
    pub(super) async fn entries_of_many(
        &self,
        repository: &RepositoryKey,
        range: Range,
        head: &Head,
    ) -> Result<Vec<Arc<Entry>>, Error> {
        let counted = head.queued as usize + head.started as usize;
        let mut latest = Latest::of(self.finished.retention().per_repository);
        let (mut live, mut finished) = (Vec::new(), 0_usize);
        let keys = Range {
            limit: LARGE_PAGE,
            keys_only: true,
            ..range.clone()
        };
        let mut pages = Pages::of(&self.cluster, keys);
        while let Some(page) = pages.next().await.map_err(|failure| not_loaded(&failure))? {
            for kv in page.entries {
                if kv.lease == 0 {
                    live.push(kv.key);
                } else {
                    finished += 1;
                    drop(latest.add(kv.modified, kv.key));
                }
            }
            if live.len() > counted.saturating_add(UNCOUNTED) {
                let reason = format!(
                    "the repository has {} runs or more that have not ended, and its head counts \
                     {counted}",
                    live.len()
                );
                let key = self.keys.head(repository);
                return Err(corrupt(key.as_bytes(), &reason));
            }
        }
        self.finished.due.mark(repository);
        tracing::warn!(
            %repository,
            finished,
            read = latest.len(),
            "far more finished runs are stored than are kept: only the latest are read, and \
             controllers delete the others when they look for dead sessions"
        );
        live.extend(latest.into_keys());
        let mut entries = Vec::with_capacity(live.len());
        let mut left = live.as_slice();
        let mut at_once = self.max_operations;
        while !left.is_empty() {
            let (part, rest) = left.split_at(at_once.clamp(1, left.len()));
            match self.values(part, range.at).await {
                Ok(found) => {
                    for kv in &found {
                        entries.push(self.entry(repository, kv)?);
                    }
                    left = rest;
                }
                Err(failure) if failure.is_too_large() && part.len() > 1 => {
                    at_once = part.len() / 2;
                }
                Err(failure) => return Err(not_loaded(&failure)),
            }
        }
        Ok(entries)
    }

    /// These keys with their values, as of a revision.
    async fn values(&self, keys: &[Vec<u8>], at: i64) -> Result<Vec<KeyValue>, Failure> {
        let one = |key: &Vec<u8>| {
            Operation::Get(Range {
                key: key.clone(),
                at,
                ..Range::default()
            })
        };
        let transaction = Transaction {
            then: keys.iter().map(one).collect(),
            ..Transaction::default()
        };
        let answer = self.cluster.transact(&transaction, Effect::Read).await?;
        let pages = all_pages(answer.steps);
        Ok(pages.into_iter().flat_map(|page| page.entries).collect())
    }
}

fn not_loaded(failure: &Failure) -> Error {
    failure.error("load", Effect::Read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept_and_each_older_one_is_given_back_once() {
        let mut latest = Latest::of(2);
        let mut gone = Vec::new();
        for modified in [5, 3, 9, 1, 7] {
            let key = modified.to_string().into_bytes();
            gone.extend(latest.add(modified, key).map(|(modified, _)| modified));
        }
        assert_eq!(gone, [3, 1, 5]);
        let mut kept: Vec<_> = latest.into_keys().collect();
        kept.sort();
        assert_eq!(kept, [b"7".to_vec(), b"9".to_vec()]);
        assert_eq!(Latest::of(0).add(1, Vec::new()), Some((1, Vec::new())));
    }
}
