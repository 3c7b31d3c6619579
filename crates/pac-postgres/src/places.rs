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
pub(crate) struct Places(Mutex<HashMap<RepositoryKey, Place>>);

/// A row's `ctid`: the number of its page, and its number there. There is one for each repository,
/// so it is kept as small as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    page: u32,
    row: u16,
}

impl Place {
    /// Reads what PostgreSQL writes, `(12,3)`.
    fn parse(text: &str) -> Option<Self> {
        let inner = text.strip_prefix('(')?.strip_suffix(')')?;
        let (page, row) = inner.split_once(',')?;
        Some(Self {
            page: page.parse().ok()?,
            row: row.parse().ok()?,
        })
    }
}

impl Places {
    /// The place at which the head was last seen, if it is remembered.
    pub(crate) fn get(&self, repository: &RepositoryKey) -> Option<String> {
        let place = *self.known().get(repository)?;
        Some(format!("({},{})", place.page, place.row))
    }

    /// Notes where the head is; `None` when it is gone.
    pub(crate) fn note(&self, repository: &RepositoryKey, at: Option<&str>) {
        let mut known = self.known();
        let Some(at) = at.and_then(Place::parse) else {
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

    fn known(&self) -> MutexGuard<'_, HashMap<RepositoryKey, Place>> {
        // After a panic a place may be an old one: that costs a search, and nothing else.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_as_it_was_noted_until_the_head_is_gone() {
        let places = Places::default();
        let web = "ns/web".parse().unwrap();
        for at in ["(0,1)", "(4294967294,65535)"] {
            places.note(&web, Some(at));
            assert_eq!(places.get(&web).as_deref(), Some(at));
        }
        for no_place in [None, Some(""), Some("(1)"), Some("(-1,2)"), Some("(1,2")] {
            places.note(&web, Some("(1,1)"));
            places.note(&web, no_place);
            assert_eq!(places.get(&web), None, "{no_place:?}");
        }
    }
}
