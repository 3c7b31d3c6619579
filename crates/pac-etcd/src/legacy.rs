//! The older layouts on etcd: reads all of their keys, and deletes what was read.

use std::sync::Arc;

use pac_core::migration::{
    CONCURRENCY, ClusterFacts, LEASES, LegacyKey, LegacySource, LegacyState, etcd_v1, etcd_v2,
    is_of_layout,
};
use pac_core::{Error, ErrorKind};

use crate::EtcdOptions;
use crate::client::cluster::Cluster;
use crate::client::failure::Effect;
use crate::client::{Compare, Operation, Range, Transaction};
use crate::keys::{after, end_of};

/// Keys read with one request.
const PAGE: usize = 1_000;

/// What was read of an older layout on etcd.
#[derive(Debug)]
pub struct LegacyEtcd {
    /// What it says.
    pub state: LegacyState,
    cluster: Cluster,
    /// The keys of the layout, each with the revision of its last write.
    keys: Vec<(String, i64)>,
    keys_per_request: usize,
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
        let interpret = match source {
            LegacySource::EtcdV1 => etcd_v1,
            LegacySource::EtcdV2 => etcd_v2,
            other => {
                let message = format!("the layout {other} is not on etcd");
                return Err(Error::new(ErrorKind::InvalidInput, "migrate", message));
            }
        };
        let cluster = Cluster::new(Arc::new(options.read()?));
        let (mut found, mut keys, mut at) = (Vec::new(), Vec::new(), 0);
        for prefix in [LEASES, CONCURRENCY] {
            let mut start = prefix.to_owned();
            loop {
                let range = Range {
                    key: start,
                    end: end_of(prefix),
                    limit: PAGE,
                    at,
                    ..Range::default()
                };
                let page = cluster.range(range, "migrate").await?;
                if at == 0 {
                    at = page.revision;
                }
                for kv in &page.entries {
                    let key = String::from_utf8_lossy(&kv.key).into_owned();
                    if is_of_layout(source, &key) {
                        keys.push((key.clone(), kv.modified));
                    }
                    found.push(LegacyKey {
                        key,
                        value: String::from_utf8_lossy(&kv.value).into_owned(),
                        created: kv.created,
                    });
                }
                match found.last() {
                    Some(last) if page.more => start = after(&last.key),
                    _ => break,
                }
            }
        }
        Ok(Self {
            state: interpret(&found, facts),
            cluster,
            keys,
            // Each key takes a condition and an operation.
            keys_per_request: (options.max_txn_ops / 2).max(1),
        })
    }

    /// Deletes the keys that were read, and returns how many were left because they have been
    /// written since: read again to see what they say. It may be interrupted at any point, and
    /// called again.
    ///
    /// # Errors
    /// Those of the store; what was deleted by then is gone.
    pub async fn remove(&self) -> Result<usize, Error> {
        let mut left = 0;
        for keys in self.keys.chunks(self.keys_per_request) {
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
        let answer = self
            .cluster
            .commit(deletion, "migrate", Effect::Write)
            .await?;
        if answer.succeeded {
            return Ok(true);
        }
        let is_there = |page: &crate::client::Page| !page.entries.is_empty();
        Ok(!crate::store::all_pages(answer.steps).iter().any(is_there))
    }
}
