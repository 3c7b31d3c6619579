//! Lists of repositories, and of keys by what they stand for.

use pac_core::driver::ListFilter;
use pac_core::effect::Effect;
use pac_core::state::Head;
use pac_core::{Error, RepositoryKey};

use super::pages::Pages;
use super::{PAGE, Store, decode_head};
use crate::client::failure::Failure;
use crate::client::{KeyValue, Range};
use crate::keys::{Place, after, end_of};

/// A key under a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundKey {
    /// What it stands for.
    pub(crate) place: Place,
    /// The lease that it is on; 0: none.
    pub(crate) lease: i64,
    /// The revision of its last write.
    pub(crate) modified: i64,
}

impl Store {
    /// Lists repositories, with one request for up to [`PAGE`] of them. Passes over keys that are
    /// not those of heads, and heads that cannot be decoded: a read of such a repository returns the
    /// error.
    pub(crate) async fn list(
        &self,
        filter: ListFilter,
        start_after: Option<&RepositoryKey>,
        limit: usize,
    ) -> Result<Vec<(RepositoryKey, Head)>, Error> {
        let prefix = self.keys.heads();
        let start = match start_after {
            Some(repository) => after(self.keys.head(repository).as_bytes()),
            None => prefix.clone().into_bytes(),
        };
        let range = Range {
            key: start,
            end: end_of(&prefix),
            limit: match filter {
                ListFilter::All => limit.min(PAGE),
                ListFilter::Startable | ListFilter::Timed => PAGE,
            },
            ..Range::default()
        };
        let mut found = Vec::new();
        let mut pages = Pages::of(&self.cluster, range);
        while found.len() < limit {
            let page = pages.next().await;
            let Some(page) = page.map_err(|failure| failure.error("list", Effect::Read))? else {
                break;
            };
            let heads = page.entries.iter().filter_map(|kv| self.listed(kv));
            let passing = heads.filter(|(_, head)| filter.passes(head));
            found.extend(passing.take(limit - found.len()));
        }
        Ok(found)
    }

    fn listed(&self, kv: &KeyValue) -> Option<(RepositoryKey, Head)> {
        let Some(Place::Head(repository)) = self.keys.place(&kv.key) else {
            self.oddities.note(&kv.key, &"no key of a repository");
            return None;
        };
        match decode_head(kv) {
            Ok(stored) => Some((repository, stored.head)),
            Err(error) => {
                self.oddities.note(&kv.key, &error);
                None
            }
        }
    }

    /// What the keys of a range stand for, from the first one up to the end, exclusive. One request
    /// for each [`PAGE`]. Passes over those that this software does not write.
    pub(crate) async fn keys_in(
        &self,
        (start, end): (String, String),
    ) -> Result<Vec<FoundKey>, Failure> {
        let range = Range {
            key: start.into_bytes(),
            end,
            limit: PAGE,
            keys_only: true,
            ..Range::default()
        };
        let mut found = Vec::new();
        let mut pages = Pages::of(&self.cluster, range);
        while let Some(page) = pages.next().await? {
            for kv in &page.entries {
                match self.keys.place(&kv.key) {
                    Some(place) => found.push(FoundKey {
                        place,
                        lease: kv.lease,
                        modified: kv.modified,
                    }),
                    None => self.oddities.note(&kv.key, &"no key of this software"),
                }
            }
        }
        Ok(found)
    }
}
