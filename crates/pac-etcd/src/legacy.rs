//! The older layouts on etcd: reads all of their keys, and deletes what was read.

use std::sync::Arc;

use pac_core::effect::Effect;
use pac_core::migration::{
    CONCURRENCY, ClusterFacts, LEASES, LegacyKey, LegacySource, LegacyState, etcd_generations,
    etcd_v1, etcd_v2, is_of_layout,
};
use pac_core::{Error, ErrorKind};

use crate::EtcdOptions;
use crate::client::cluster::Cluster;
use crate::client::failure::Failure;
use crate::client::{Compare, Operation, Range, Transaction};
use crate::keys::{Keys, end_of};
use crate::store::pages::Pages;

/// Keys read with one request.
const PAGE: usize = 1_000;

/// What was read of an older layout on etcd.
#[derive(Debug)]
pub struct LegacyEtcd {
    /// What it says.
    pub state: LegacyState,
    /// The keys of the layout, each with the revision of its last write.
    keys: Vec<(String, i64)>,
    store: OldStore,
}

/// The cluster that the older layouts are on, beside the keys of this version.
#[derive(Debug, Clone)]
struct OldStore {
    cluster: Arc<Cluster>,
    keys: Keys,
    keys_per_request: usize,
}

/// Keys, and the revision of the last write of each.
#[derive(Debug, Default)]
struct Found {
    keys: Vec<LegacyKey>,
    modified: Vec<i64>,
}

impl LegacyEtcd {
    /// Reads all keys of an older layout, as of one revision. The prefix of the options is not
    /// used: these layouts have prefixes of their own. Writes nothing, so the future may be
    /// dropped.
    ///
    /// # Errors
    /// `InvalidInput` for a layout that is not on etcd, `Config` for options that cannot be used,
    /// `Unauthorised` when the user may not read the keys, `Unavailable` when no member could be
    /// reached.
    pub async fn read(
        options: &EtcdOptions,
        source: LegacySource,
        facts: &ClusterFacts,
    ) -> Result<Self, Error> {
        let store = OldStore::open(options).await?;
        let found = store.read_all().await?;
        Self::of(&store, source, &found, facts)
    }

    /// Reads the older layouts that are there and were not
    /// [brought along](Self::note_brought_along) yet. Writes nothing, so the future may be
    /// dropped.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub async fn find(options: &EtcdOptions) -> Result<Vec<Self>, Error> {
        let store = OldStore::open(options).await?;
        if store.is_empty().await? {
            return Ok(Vec::new());
        }
        let found = store.read_all().await?;
        let keys = found.keys.iter().map(|key| key.key.as_str());
        let mut layouts = Vec::new();
        for source in etcd_generations(keys) {
            if !store.has(store.keys.migrated(source.as_str())).await? {
                let facts = ClusterFacts::default();
                layouts.push(Self::of(&store, source, &found, &facts)?);
            }
        }
        Ok(layouts)
    }

    fn of(
        store: &OldStore,
        source: LegacySource,
        found: &Found,
        facts: &ClusterFacts,
    ) -> Result<Self, Error> {
        let interpret = match source {
            LegacySource::EtcdV1 => etcd_v1,
            LegacySource::EtcdV2 => etcd_v2,
            other => {
                let message = format!("the layout {other} is not on etcd");
                return Err(Error::new(ErrorKind::InvalidInput, "migrate", message));
            }
        };
        let keys = found.keys.iter().zip(&found.modified);
        let its_own = keys.filter(|(key, _)| is_of_layout(source, &key.key));
        Ok(Self {
            state: interpret(&found.keys, facts),
            keys: its_own
                .map(|(key, modified)| (key.key.clone(), *modified))
                .collect(),
            store: store.clone(),
        })
    }

    /// Notes beside the new state that this layout was brought along, so that
    /// [`find`](Self::find) passes it over from now on. Dropped in flight, it is done or not done.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn note_brought_along(&self) -> Result<(), Error> {
        let key = self.store.keys.migrated(self.state.source.as_str());
        let note = Transaction {
            then: vec![Operation::Put {
                key,
                value: Vec::new(),
                lease: 0,
            }],
            ..Transaction::default()
        };
        let commit = self.store.cluster.commit(note, "migrate", Effect::Write);
        commit.await.map(drop)
    }

    /// Deletes the keys that were read, and returns how many were left because they have been
    /// written since: read again to see what they say. It may be interrupted at any point, and
    /// called again.
    ///
    /// # Errors
    /// Those of the store; what was deleted by then is gone.
    pub async fn remove(&self) -> Result<usize, Error> {
        let mut left = 0;
        for keys in self.keys.chunks(self.store.keys_per_request) {
            if self.delete(keys).await? {
                continue;
            }
            for key in keys {
                let is_deleted = self.delete(std::slice::from_ref(key)).await?;
                left += usize::from(!is_deleted);
            }
        }
        Ok(left)
    }

    /// Deletes all of these keys or none. A key that is gone already counts as deleted.
    async fn delete(&self, keys: &[(String, i64)]) -> Result<bool, Error> {
        let unchanged = keys.iter();
        let deletion = Transaction {
            when: unchanged
                .map(|(key, modified)| Compare::ModifiedAt(key.clone(), *modified))
                .collect(),
            then: keys
                .iter()
                .map(|(key, _)| Operation::Delete(key.clone()))
                .collect(),
            otherwise: keys
                .iter()
                .map(|(key, _)| Operation::Get(crate::store::one_key(key.clone())))
                .collect(),
        };
        let commit = self
            .store
            .cluster
            .commit(deletion, "migrate", Effect::Write);
        let answer = commit.await?;
        if answer.succeeded {
            return Ok(true);
        }
        let is_there = |page: &crate::client::Page| !page.entries.is_empty();
        Ok(!crate::store::all_pages(answer.steps).iter().any(is_there))
    }
}

impl OldStore {
    async fn open(options: &EtcdOptions) -> Result<Self, Error> {
        let access = options.checked().await?;
        Ok(Self {
            keys: Keys::new(&options.prefix)?,
            cluster: Arc::new(Cluster::new(Arc::new(access))),
            // Each key takes a condition and an operation.
            keys_per_request: (options.max_txn_ops / 2).max(1),
        })
    }

    /// Whether nothing at all has the prefixes of the older layouts.
    async fn is_empty(&self) -> Result<bool, Error> {
        for prefix in [LEASES, CONCURRENCY] {
            let range = Range {
                key: prefix.to_owned().into_bytes(),
                end: end_of(prefix),
                limit: 1,
                keys_only: true,
                ..Range::default()
            };
            let page = self.cluster.range(range, "migrate").await?;
            if !page.entries.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn has(&self, key: String) -> Result<bool, Error> {
        let range = crate::store::one_key(key);
        let page = self.cluster.range(range, "migrate").await?;
        Ok(!page.entries.is_empty())
    }

    /// All keys with the prefixes of the older layouts, as of one revision.
    async fn read_all(&self) -> Result<Found, Error> {
        let (mut found, mut at) = (Found::default(), 0);
        for prefix in [LEASES, CONCURRENCY] {
            let range = Range {
                key: prefix.to_owned().into_bytes(),
                end: end_of(prefix),
                limit: PAGE,
                at,
                ..Range::default()
            };
            let mut pages = Pages::of(&self.cluster, range);
            while let Some(page) = pages.next().await.map_err(|failure| not_read(&failure))? {
                if at == 0 {
                    at = page.revision;
                    pages.as_of(at);
                }
                for kv in &page.entries {
                    found.keys.push(LegacyKey {
                        key: String::from_utf8_lossy(&kv.key).into_owned(),
                        value: String::from_utf8_lossy(&kv.value).into_owned(),
                        created: kv.created,
                    });
                    found.modified.push(kv.modified);
                }
            }
        }
        Ok(found)
    }
}

fn not_read(failure: &Failure) -> Error {
    failure.error("migrate", Effect::Read)
}
