//! Keys with all their versions since the last compaction, and the changes of each revision.
//!
//! Source: `server/storage/mvcc` of etcd. A store begins at revision 1; -1 stands for "never
//! compacted".

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use etcd_client::proto::PbKeyValue as KeyValue;

use super::refusal::{Answer, COMPACTED, FUTURE_REVISION};
use super::span::Span;

/// One key was written or deleted.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Put(Arc<KeyValue>),
    Delete { key: Arc<[u8]>, revision: i64 },
}

impl Change {
    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Self::Put(written) => &written.key,
            Self::Delete { key, .. } => key,
        }
    }
}

/// The keys of one world.
#[derive(Debug)]
pub(crate) struct Store {
    keys: BTreeMap<Vec<u8>, Versions>,
    /// The changes of each revision after `compacted`, and at it, in their order.
    log: VecDeque<(i64, Vec<Change>)>,
    revision: i64,
    compacted: i64,
    /// Of keys and values of all versions that are kept, in bytes.
    size: usize,
}

/// The versions of one key, oldest first.
#[derive(Debug, Default)]
struct Versions(VecDeque<Version>);

#[derive(Debug)]
struct Version {
    revision: i64,
    /// `None`: deleted.
    written: Option<Arc<KeyValue>>,
}

impl Versions {
    fn at(&self, revision: i64) -> Option<&Arc<KeyValue>> {
        let after = self.0.partition_point(|v| v.revision <= revision);
        self.0.get(after.checked_sub(1)?)?.written.as_ref()
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            log: VecDeque::new(),
            revision: 1,
            compacted: -1,
            size: 0,
        }
    }
}

impl Store {
    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    pub(crate) fn compacted(&self) -> i64 {
        self.compacted
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The version of a key that was current at a revision. `None` also for compacted ones.
    pub(crate) fn get(&self, key: &[u8], at: i64) -> Option<&Arc<KeyValue>> {
        if at < self.compacted {
            return None;
        }
        self.keys.get(key)?.at(at)
    }

    /// The keys of a range, in their order, as of a revision.
    pub(crate) fn range<'a>(
        &'a self,
        span: &'a Span,
        at: i64,
    ) -> impl Iterator<Item = &'a Arc<KeyValue>> {
        let bounds = span.bounds();
        let found = bounds.map(|bounds| self.keys.range::<[u8], _>(bounds));
        let found = found.into_iter().flatten();
        found.filter_map(move |(_, versions)| versions.at(at))
    }

    /// The revision to read at, of a request that names one, while `now` is current.
    pub(crate) fn readable(&self, asked: i64, now: i64) -> Answer<i64> {
        if asked > now {
            return Err(FUTURE_REVISION);
        }
        let at = if asked <= 0 { now } else { asked };
        if at < self.compacted {
            return Err(COMPACTED);
        }
        Ok(at)
    }

    /// Whether a transaction may read at a revision. Unlike a read by itself, it minds negative
    /// ones.
    pub(crate) fn readable_in_txn(&self, asked: i64) -> Answer<()> {
        if asked > self.revision {
            return Err(FUTURE_REVISION);
        }
        if asked < self.compacted {
            return Err(COMPACTED);
        }
        Ok(())
    }

    /// The changes from a revision on, by revision.
    pub(crate) fn changes_from(&self, revision: i64) -> impl Iterator<Item = &(i64, Vec<Change>)> {
        let first = self.log.partition_point(|(at, _)| *at < revision);
        self.log.range(first..)
    }

    /// Writes one version of a key at the revision after the current one. Returns the version that
    /// it replaces.
    pub(crate) fn put(
        &mut self,
        key: &[u8],
        value: Vec<u8>,
        lease: i64,
    ) -> (Arc<KeyValue>, Option<Arc<KeyValue>>) {
        let revision = self.revision + 1;
        let before = self.keys.get(key).and_then(|v| v.at(revision)).cloned();
        let written = Arc::new(KeyValue {
            create_revision: before.as_ref().map_or(revision, |kv| kv.create_revision),
            version: before.as_ref().map_or(1, |kv| kv.version + 1),
            mod_revision: revision,
            key: key.to_vec(),
            value,
            lease,
        });
        self.keep(key, revision, Some(Arc::clone(&written)));
        (written, before)
    }

    /// Deletes a key at the revision after the current one.
    pub(crate) fn delete(&mut self, key: &[u8]) -> Change {
        let revision = self.revision + 1;
        self.keep(key, revision, None);
        Change::Delete {
            key: key.into(),
            revision,
        }
    }

    fn keep(&mut self, key: &[u8], revision: i64, written: Option<Arc<KeyValue>>) {
        self.size += size_of(key, written.as_deref());
        let version = Version { revision, written };
        match self.keys.get_mut(key) {
            Some(versions) => versions.0.push_back(version),
            None => {
                let versions = Versions(VecDeque::from([version]));
                self.keys.insert(key.to_vec(), versions);
            }
        }
    }

    /// Ends a write: its changes stand at the next revision. Nothing happens without changes.
    pub(crate) fn commit(&mut self, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.revision += 1;
            self.log.push_back((self.revision, changes));
        }
    }

    pub(crate) fn compactable(&self, revision: i64) -> Answer<()> {
        if revision <= self.compacted {
            return Err(COMPACTED);
        }
        if revision > self.revision {
            return Err(FUTURE_REVISION);
        }
        Ok(())
    }

    /// Forgets what only reads before this revision would see.
    pub(crate) fn compact(&mut self, revision: i64) -> Answer<()> {
        self.compactable(revision)?;
        self.compacted = revision;
        // Only keys that changed since the last compaction have versions to forget.
        let last = self.log.partition_point(|(at, _)| *at <= revision);
        let forgotten: Vec<_> = self.log.drain(..last).collect();
        let mut at_revision = Vec::new();
        for (at, changes) in forgotten {
            for change in &changes {
                self.forget(change.key(), revision);
            }
            // A watch may begin at the compacted revision, and sees what was written at it. A
            // deletion leaves nothing behind.
            if at == revision {
                at_revision = changes;
                at_revision.retain(|change| matches!(change, Change::Put(_)));
            }
        }
        if !at_revision.is_empty() {
            self.log.push_front((revision, at_revision));
        }
        Ok(())
    }

    fn forget(&mut self, key: &[u8], revision: i64) {
        let Some(versions) = self.keys.get_mut(key) else {
            return;
        };
        let after = versions.0.partition_point(|v| v.revision <= revision);
        let Some(current) = after.checked_sub(1) else {
            return;
        };
        let deleted = versions.0.get(current).is_some_and(|v| v.written.is_none());
        let gone = if deleted { after } else { current };
        for version in versions.0.drain(..gone) {
            self.size -= size_of(key, version.written.as_deref());
        }
        if versions.0.is_empty() {
            self.keys.remove(key);
        }
    }
}

fn size_of(key: &[u8], written: Option<&KeyValue>) -> usize {
    // etcd stores the key with its value at each revision, and some numbers with them.
    const NUMBERS: usize = 32;
    key.len() + written.map_or(0, |kv| kv.value.len()) + NUMBERS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &mut Store, key: &[u8], value: &[u8]) -> Arc<KeyValue> {
        let (written, _) = store.put(key, value.to_vec(), 0);
        store.commit(vec![Change::Put(Arc::clone(&written))]);
        written
    }

    fn delete(store: &mut Store, key: &[u8]) {
        let change = store.delete(key);
        store.commit(vec![change]);
    }

    fn keys(store: &Store, at: i64) -> Vec<Vec<u8>> {
        let all = Span::From(vec![0]);
        store.range(&all, at).map(|kv| kv.key.clone()).collect()
    }

    #[test]
    fn a_key_that_was_deleted_begins_anew() {
        let mut store = Store::default();
        put(&mut store, b"a", b"1");
        let second = put(&mut store, b"a", b"2");
        assert_eq!((second.version, second.create_revision), (2, 2));
        delete(&mut store, b"a");
        let third = put(&mut store, b"a", b"3");
        assert_eq!((third.version, third.create_revision), (1, 5));
        assert_eq!(store.get(b"a", 3).unwrap().value, b"2");
        assert!(store.get(b"a", 4).is_none());
    }

    #[test]
    fn compaction_keeps_what_is_current_and_no_deleted_key() {
        let mut store = Store::default();
        put(&mut store, b"a", b"1");
        put(&mut store, b"a", b"2");
        put(&mut store, b"b", b"1");
        delete(&mut store, b"b");
        let before = store.size();
        store.compact(5).unwrap();
        assert_eq!(store.compact(5), Err(COMPACTED));
        assert_eq!(store.compact(6), Err(FUTURE_REVISION));
        assert_eq!(keys(&store, 5), [b"a".to_vec()]);
        assert_eq!(store.readable(4, 5), Err(COMPACTED));
        assert_eq!(store.keys.len(), 1);
        assert_eq!(store.changes_from(0).count(), 0);
        assert!(store.size() < before);
    }

    #[test]
    fn a_compaction_between_versions_keeps_the_older_one_and_the_change_at_it() {
        let mut store = Store::default();
        for value in [b"1", b"2", b"3"] {
            put(&mut store, b"a", value);
        }
        store.compact(3).unwrap();
        assert_eq!(store.get(b"a", 3).unwrap().value, b"2");
        assert!(store.get(b"a", 2).is_none());
        let kept: Vec<i64> = store.changes_from(0).map(|(at, _)| *at).collect();
        assert_eq!(kept, [3, 4]);
    }
}
