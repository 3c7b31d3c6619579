//! Reads, writes and compactions.
//!
//! Source: `server/etcdserver/apply.go` and `server/etcdserver/api/v3rpc/key.go` of etcd 3.5.

use std::cmp::Ordering;
use std::sync::Arc;

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse,
    PbKeyValue as KeyValue, PbPutRequest, PbPutResponse, PbRangeRequest, PbRangeResponse,
    PbResponseHeader as Header, PbTxnRequest, PbTxnResponse,
};

use super::members::KEY_COST;
use super::refusal::{
    Answer, EMPTY_KEY, INVALID_SORT, KEY_NOT_FOUND, LEASE_PROVIDED, VALUE_PROVIDED,
};
use super::span::Span;
use super::store::Store;
use super::txn;
use super::write::Write;
use super::{Call, World};

const SORT_NONE: i32 = 0;
const SORT_ASCENDING: i32 = 1;
const SORT_DESCENDING: i32 = 2;

const BY_KEY: i32 = 0;
const BY_VERSION: i32 = 1;
const BY_CREATION: i32 = 2;
const BY_MODIFICATION: i32 = 3;
const BY_VALUE: i32 = 4;

impl World {
    pub(crate) fn range(&mut self, call: &Call, asked: &PbRangeRequest) -> Answer<PbRangeResponse> {
        check_range(asked)?;
        let user = self.identify(call)?;
        self.auth.check_range(user.as_ref(), asked)?;
        let mut answer = range(&self.store, self.store.revision(), asked)?;
        self.fill(&mut answer.header);
        Ok(answer)
    }

    pub(crate) fn put(&mut self, call: &Call, asked: PbPutRequest) -> Answer<PbPutResponse> {
        self.check_quota(KEY_COST + asked.key.len() + asked.value.len())?;
        check_put(&asked)?;
        let user = self.identify(call)?;
        self.check_size(&asked)?;
        self.auth.check_put(user.as_ref(), &asked, &self.leases)?;
        self.check_space()?;
        if asked.lease != 0 {
            self.leases.check(asked.lease)?;
        }
        let mut write = Write::new(&mut self.store, &mut self.leases);
        let answer = write.put(asked);
        let changes = write.end();
        self.commit(changes);
        let mut answer = answer?;
        self.fill(&mut answer.header);
        Ok(answer)
    }

    pub(crate) fn delete_range(
        &mut self,
        call: &Call,
        asked: &PbDeleteRequest,
    ) -> Answer<PbDeleteResponse> {
        check_delete(asked)?;
        let user = self.identify(call)?;
        self.check_size(asked)?;
        self.auth.check_delete(user.as_ref(), asked)?;
        let mut write = Write::new(&mut self.store, &mut self.leases);
        let mut answer = write.delete_range(asked);
        let changes = write.end();
        self.commit(changes);
        self.fill(&mut answer.header);
        Ok(answer)
    }

    pub(crate) fn txn(&mut self, call: &Call, asked: PbTxnRequest) -> Answer<PbTxnResponse> {
        let cost = txn::cost(&asked);
        self.check_quota(cost)?;
        txn::check_shape(&asked, self.limits.txn_operations)?;
        let reads_only = txn::is_read_only(&asked);
        let user = self.identify(call)?;
        if !reads_only {
            self.check_size(&asked)?;
        }
        self.auth.check_txn(user.as_ref(), &asked, &self.leases)?;
        if !reads_only && cost > 0 {
            self.check_space()?;
        }
        let path = txn::path(&self.store, &asked);
        if !reads_only {
            let (path, deleted) = (&mut path.iter(), &mut Vec::new());
            txn::check_puts(&self.store, &self.leases, &asked, path, deleted)?;
        }
        txn::check_ranges(&self.store, &asked, &mut path.iter())?;
        let mut write = Write::new(&mut self.store, &mut self.leases);
        let answer = txn::apply(&mut write, asked, &mut path.iter());
        let changes = write.end();
        self.commit(changes);
        let mut answer = answer?;
        self.fill(&mut answer.header);
        Ok(answer)
    }

    pub(crate) fn compact(
        &mut self,
        call: &Call,
        asked: &PbCompactionRequest,
    ) -> Answer<PbCompactionResponse> {
        self.identify(call)?;
        self.index += 1;
        self.store.compactable(asked.revision)?;
        self.compact_to(asked.revision);
        let mut answer = PbCompactionResponse::default();
        self.fill(&mut answer.header);
        Ok(answer)
    }
}

pub(super) fn check_range(asked: &PbRangeRequest) -> Answer<()> {
    // etcd 3.5 panics on other numbers; later versions refuse them with this error.
    let sorted = (SORT_NONE..=SORT_DESCENDING).contains(&asked.sort_order)
        && (BY_KEY..=BY_VALUE).contains(&asked.sort_target);
    if asked.key.is_empty() {
        Err(EMPTY_KEY)
    } else if sorted {
        Ok(())
    } else {
        Err(INVALID_SORT)
    }
}

pub(super) fn check_put(asked: &PbPutRequest) -> Answer<()> {
    if asked.key.is_empty() {
        return Err(EMPTY_KEY);
    }
    if asked.ignore_value && !asked.value.is_empty() {
        return Err(VALUE_PROVIDED);
    }
    if asked.ignore_lease && asked.lease != 0 {
        return Err(LEASE_PROVIDED);
    }
    Ok(())
}

pub(super) fn check_delete(asked: &PbDeleteRequest) -> Answer<()> {
    if asked.key.is_empty() {
        return Err(EMPTY_KEY);
    }
    Ok(())
}

/// Reads as of a revision that the request names, or as of `now`.
pub(super) fn range(store: &Store, now: i64, asked: &PbRangeRequest) -> Answer<PbRangeResponse> {
    let at = store.readable(asked.revision, now)?;
    let span = Span::of(&asked.key, &asked.range_end);
    let mut answer = PbRangeResponse {
        header: Some(header_at(now)),
        ..PbRangeResponse::default()
    };
    let found = store.range(&span, at);
    if asked.count_only {
        answer.count = count(found.count());
        return Ok(answer);
    }
    // As etcd does: what is filtered or sorted is read whole, and the count is of before.
    let limit = usize::try_from(asked.limit).unwrap_or(0);
    let all = limit == 0 || asked.sort_order != SORT_NONE || is_filtered(asked);
    let mut kept: Vec<&Arc<KeyValue>> = Vec::new();
    let mut total = 0;
    for entry in found {
        total += 1;
        if all && passes(asked, entry) || !all && kept.len() <= limit {
            kept.push(entry);
        }
    }
    sort(&mut kept, asked);
    answer.count = total;
    answer.more = limit > 0 && kept.len() > limit;
    if answer.more {
        kept.truncate(limit);
    }
    let copied = kept.into_iter().map(|entry| copied(entry, asked.keys_only));
    answer.kvs = copied.collect();
    Ok(answer)
}

fn copied(entry: &KeyValue, key_only: bool) -> KeyValue {
    if !key_only {
        return entry.clone();
    }
    KeyValue {
        key: entry.key.clone(),
        value: Vec::new(),
        create_revision: entry.create_revision,
        mod_revision: entry.mod_revision,
        version: entry.version,
        lease: entry.lease,
    }
}

fn is_filtered(asked: &PbRangeRequest) -> bool {
    asked.min_mod_revision != 0
        || asked.max_mod_revision != 0
        || asked.min_create_revision != 0
        || asked.max_create_revision != 0
}

fn passes(asked: &PbRangeRequest, entry: &KeyValue) -> bool {
    let within = |revision, least, most| {
        (least == 0 || revision >= least) && (most == 0 || revision <= most)
    };
    within(
        entry.mod_revision,
        asked.min_mod_revision,
        asked.max_mod_revision,
    ) && within(
        entry.create_revision,
        asked.min_create_revision,
        asked.max_create_revision,
    )
}

fn sort(found: &mut [&Arc<KeyValue>], asked: &PbRangeRequest) {
    let order = match (asked.sort_order, asked.sort_target) {
        (SORT_NONE, BY_KEY) => return,
        // Any other target means ascending order, where none is asked for.
        (SORT_NONE, _) => SORT_ASCENDING,
        (order, _) => order,
    };
    let compare = |a: &KeyValue, b: &KeyValue| -> Ordering {
        match asked.sort_target {
            BY_VERSION => a.version.cmp(&b.version),
            BY_CREATION => a.create_revision.cmp(&b.create_revision),
            BY_MODIFICATION => a.mod_revision.cmp(&b.mod_revision),
            BY_VALUE => a.value.cmp(&b.value),
            _ => a.key.cmp(&b.key),
        }
    };
    if order == SORT_DESCENDING {
        found.sort_by(|a, b| compare(b, a));
    } else {
        found.sort_by(|a, b| compare(a, b));
    }
}

pub(super) fn header_at(revision: i64) -> Header {
    Header {
        revision,
        ..Header::default()
    }
}

pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The value and the lease of a put, which may be those that the key has.
pub(super) fn resolve(asked: &mut PbPutRequest, before: Option<&KeyValue>) -> Answer<()> {
    if !asked.ignore_value && !asked.ignore_lease {
        return Ok(());
    }
    let before = before.ok_or(KEY_NOT_FOUND)?;
    if asked.ignore_value {
        asked.value.clone_from(&before.value);
    }
    if asked.ignore_lease {
        asked.lease = before.lease;
    }
    Ok(())
}
