//! A write in progress: its changes stand at one revision, and it sees them itself.

use etcd_client::proto::{
    PbDeleteRequest, PbDeleteResponse, PbPutRequest, PbPutResponse, PbRangeRequest, PbRangeResponse,
};

use super::kv::{count, header_at, range, resolve};
use super::lease::Leases;
use super::refusal::Answer;
use super::span::Span;
use super::store::{Change, Store};

/// Changes to the keys, and to what the leases hold with them.
#[derive(Debug)]
pub(super) struct Write<'a> {
    store: &'a mut Store,
    leases: &'a mut Leases,
    changes: Vec<Change>,
}

impl<'a> Write<'a> {
    pub(super) fn new(store: &'a mut Store, leases: &'a mut Leases) -> Self {
        Self {
            store,
            leases,
            changes: Vec::new(),
        }
    }

    /// The revision that a read in this write sees.
    fn now(&self) -> i64 {
        self.store.revision() + i64::from(!self.changes.is_empty())
    }

    pub(super) fn range(&self, asked: &PbRangeRequest) -> Answer<PbRangeResponse> {
        range(self.store, self.now(), asked)
    }

    pub(super) fn put(&mut self, mut asked: PbPutRequest) -> Answer<PbPutResponse> {
        let before = self.store.get(&asked.key, self.now()).cloned();
        resolve(&mut asked, before.as_deref())?;
        let (written, before) = self.store.put(&asked.key, asked.value, asked.lease);
        if let Some(before) = &before {
            self.leases.detach(before.lease, &asked.key);
        }
        self.leases.attach(asked.lease, &asked.key);
        let answer = PbPutResponse {
            header: Some(header_at(written.mod_revision)),
            prev_kv: before.filter(|_| asked.prev_kv).map(|kv| (*kv).clone()),
        };
        self.changes.push(Change::Put(written));
        Ok(answer)
    }

    pub(super) fn delete_range(&mut self, asked: &PbDeleteRequest) -> PbDeleteResponse {
        let span = Span::of(&asked.key, &asked.range_end);
        let found: Vec<_> = self.store.range(&span, self.now()).cloned().collect();
        for entry in &found {
            self.leases.detach(entry.lease, &entry.key);
            let change = self.store.delete(&entry.key);
            self.changes.push(change);
        }
        PbDeleteResponse {
            header: Some(header_at(self.now())),
            deleted: count(found.len()),
            prev_kvs: if asked.prev_kv {
                found.iter().map(|kv| (**kv).clone()).collect()
            } else {
                Vec::new()
            },
        }
    }

    /// Deletes one key, as the end of its lease does.
    pub(super) fn delete(&mut self, key: &[u8]) {
        if self.store.get(key, self.now()).is_some() {
            let change = self.store.delete(key);
            self.changes.push(change);
        }
    }

    /// What is to be committed.
    pub(super) fn end(self) -> Vec<Change> {
        self.changes
    }
}
