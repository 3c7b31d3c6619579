//! Where in its table the head of each repository was last seen.
//!
//! While a transaction elsewhere in the database keeps an old snapshot, PostgreSQL can delete no old
//! version of a row, and a search by key goes through all versions of a head, of which each commit
//! makes one. So commits and reads look first at the place that they are told: the row's `ctid`. The
//! row that is there may be another one by now, so its key and version are compared as well.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pac_core::RepositoryKey;

/// Most places that are remembered; with more, remembering starts anew. Where none is remembered,
/// the search by key finds the head.
const MOST: usize = 20_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<HashMap<RepositoryKey, String>>);

impl Places {
    /// The place at which the head was last seen, if it is remembered.
    pub(crate) fn get(&self, repository: &RepositoryKey) -> Option<String> {
        self.known().get(repository).cloned()
    }

    /// Notes where the head is; `None` when it is gone.
    pub(crate) fn note(&self, repository: &RepositoryKey, at: Option<String>) {
        let mut known = self.known();
        let Some(at) = at else {
            known.remove(repository);
            return;
        };
        if let Some(place) = known.get_mut(repository) {
            *place = at;
            return;
        }
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(repository.clone(), at);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<RepositoryKey, String>> {
        // After a panic a place may be an old one: that costs a search, and nothing else.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
