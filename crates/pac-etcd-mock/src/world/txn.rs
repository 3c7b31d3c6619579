//! Transactions: their rules, their comparisons, and the branches that they take.
//!
//! Which branches are taken is decided by the state before the transaction, also for the nested
//! ones. A path lists the decisions, in the order in which the branches are entered.

use std::cmp::Ordering;

use etcd_client::proto::{
    PbCompare, PbKeyValue as KeyValue, PbResponseOp, PbTargetUnion as Target, PbTxnOpRequest as Op,
    PbTxnOpResponse, PbTxnRequest, PbTxnRequestOp, PbTxnResponse,
};

use super::kv::{check_delete, check_put, check_range};
use super::lease::Leases;
use super::members::KEY_COST;
use super::overlap::check_overlaps;
use super::refusal::{Answer, EMPTY_KEY, KEY_NOT_FOUND, TOO_MANY_OPS};
use super::span::Span;
use super::store::Store;
use super::write::Write;

/// What can be said of a transaction before it is done.
pub(super) fn check_shape(asked: &PbTxnRequest, most: usize) -> Answer<()> {
    check_operations(asked, most)?;
    // After the check of the number, which bounds the work.
    check_overlaps(&asked.success)?;
    check_overlaps(&asked.failure)?;
    Ok(())
}

fn check_operations(asked: &PbTxnRequest, most: usize) -> Answer<()> {
    let operations = asked.compare.len();
    let operations = operations.max(asked.success.len()).max(asked.failure.len());
    let left = most.checked_sub(operations).ok_or(TOO_MANY_OPS)?;
    if asked.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(EMPTY_KEY);
    }
    for operation in asked.success.iter().chain(&asked.failure) {
        match &operation.request {
            Some(Op::RequestRange(range)) => check_range(range)?,
            Some(Op::RequestPut(put)) => check_put(put)?,
            Some(Op::RequestDeleteRange(delete)) => check_delete(delete)?,
            Some(Op::RequestTxn(nested)) => check_operations(nested, left)?,
            None => return Err(KEY_NOT_FOUND),
        }
    }
    Ok(())
}

/// Whether both branches only read. A nested transaction counts as a write, as it does for etcd.
pub(super) fn is_read_only(asked: &PbTxnRequest) -> bool {
    let mut operations = asked.success.iter().chain(&asked.failure);
    operations.all(|operation| matches!(operation.request, Some(Op::RequestRange(_))))
}

/// What the dearer branch costs. As in etcd, what is nested is not seen.
pub(super) fn cost(asked: &PbTxnRequest) -> usize {
    let costs = |operations: &[PbTxnRequestOp]| -> usize {
        let puts = operations
            .iter()
            .filter_map(|operation| match &operation.request {
                Some(Op::RequestPut(put)) => Some(KEY_COST + put.key.len() + put.value.len()),
                _ => None,
            });
        puts.sum()
    };
    costs(&asked.success).max(costs(&asked.failure))
}

/// The branches that the transaction takes.
pub(super) fn path(store: &Store, asked: &PbTxnRequest) -> Vec<bool> {
    let mut path = Vec::new();
    extend_path(store, asked, &mut path);
    path
}

fn extend_path(store: &Store, asked: &PbTxnRequest, path: &mut Vec<bool>) {
    let holds = asked.compare.iter().all(|compare| holds(store, compare));
    path.push(holds);
    for operation in branch(asked, holds) {
        if let Some(Op::RequestTxn(nested)) = &operation.request {
            extend_path(store, nested, path);
        }
    }
}

fn branch(asked: &PbTxnRequest, holds: bool) -> &[PbTxnRequestOp] {
    if holds {
        &asked.success
    } else {
        &asked.failure
    }
}

/// Whether a comparison holds for all keys of its range. For no key at all it is made with the
/// zero value, and a comparison of values fails.
fn holds(store: &Store, compare: &PbCompare) -> bool {
    let span = Span::of(&compare.key, &compare.range_end);
    let mut found = store.range(&span, store.revision()).peekable();
    if found.peek().is_none() {
        return compare.target != VALUE && holds_for(compare, &KeyValue::default());
    }
    found.all(|entry| holds_for(compare, entry))
}

const VERSION: i32 = 0;
const CREATE: i32 = 1;
const MOD: i32 = 2;
const VALUE: i32 = 3;
const LEASE: i32 = 4;

const EQUAL: i32 = 0;
const GREATER: i32 = 1;
const LESS: i32 = 2;
const NOT_EQUAL: i32 = 3;

fn holds_for(compare: &PbCompare, entry: &KeyValue) -> bool {
    // A number of another kind than the target counts as 0.
    let given = match (compare.target, &compare.target_union) {
        (VERSION, Some(Target::Version(given)))
        | (CREATE, Some(Target::CreateRevision(given)))
        | (MOD, Some(Target::ModRevision(given)))
        | (LEASE, Some(Target::Lease(given))) => *given,
        _ => 0,
    };
    let order = match compare.target {
        VERSION => entry.version.cmp(&given),
        CREATE => entry.create_revision.cmp(&given),
        MOD => entry.mod_revision.cmp(&given),
        LEASE => entry.lease.cmp(&given),
        VALUE => match &compare.target_union {
            Some(Target::Value(value)) => entry.value.as_slice().cmp(value),
            _ => entry.value.as_slice().cmp(&[]),
        },
        _ => Ordering::Equal,
    };
    match compare.result {
        EQUAL => order.is_eq(),
        GREATER => order.is_gt(),
        LESS => order.is_lt(),
        NOT_EQUAL => order.is_ne(),
        _ => true,
    }
}

type Path<'a> = std::slice::Iter<'a, bool>;

/// Whether the puts of the branches that are taken can be done, so that a transaction is done as a
/// whole or not at all. `deleted` is what these branches delete before.
pub(super) fn check_puts(
    store: &Store,
    leases: &Leases,
    asked: &PbTxnRequest,
    path: &mut Path<'_>,
    deleted: &mut Vec<Span>,
) -> Answer<()> {
    let holds = path.next().copied().unwrap_or_default();
    for operation in branch(asked, holds) {
        match &operation.request {
            Some(Op::RequestTxn(nested)) => check_puts(store, leases, nested, path, deleted)?,
            Some(Op::RequestDeleteRange(delete)) => {
                deleted.push(Span::of(&delete.key, &delete.range_end));
            }
            Some(Op::RequestPut(put)) => {
                // etcd does not look at what was deleted before, and crashes.
                let absent = || {
                    store.get(&put.key, store.revision()).is_none()
                        || deleted.iter().any(|span| span.contains(&put.key))
                };
                if (put.ignore_value || put.ignore_lease) && absent() {
                    return Err(KEY_NOT_FOUND);
                }
                if put.lease != 0 {
                    leases.check(put.lease)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the revisions can be read that the branches name which are taken.
pub(super) fn check_ranges(store: &Store, asked: &PbTxnRequest, path: &mut Path<'_>) -> Answer<()> {
    let holds = path.next().copied().unwrap_or_default();
    for operation in branch(asked, holds) {
        match &operation.request {
            Some(Op::RequestTxn(nested)) => check_ranges(store, nested, path)?,
            Some(Op::RequestRange(range)) if range.revision != 0 => {
                store.readable_in_txn(range.revision)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Does the transaction.
pub(super) fn apply(
    write: &mut Write<'_>,
    asked: PbTxnRequest,
    path: &mut Path<'_>,
) -> Answer<PbTxnResponse> {
    let succeeded = path.next().copied().unwrap_or_default();
    let operations = if succeeded {
        asked.success
    } else {
        asked.failure
    };
    let mut responses = Vec::with_capacity(operations.len());
    for operation in operations {
        let response = match operation.request {
            Some(Op::RequestRange(range)) => PbTxnOpResponse::ResponseRange(write.range(&range)?),
            Some(Op::RequestPut(put)) => PbTxnOpResponse::ResponsePut(write.put(put)?),
            Some(Op::RequestDeleteRange(delete)) => {
                PbTxnOpResponse::ResponseDeleteRange(write.delete_range(&delete))
            }
            Some(Op::RequestTxn(nested)) => {
                PbTxnOpResponse::ResponseTxn(apply(write, nested, path)?)
            }
            None => return Err(KEY_NOT_FOUND),
        };
        responses.push(PbResponseOp {
            response: Some(response),
        });
    }
    Ok(PbTxnResponse {
        header: Some(etcd_client::proto::PbResponseHeader::default()),
        succeeded,
        responses,
    })
}
