//! The rule of a transaction that no key is written twice.

use std::collections::{BTreeMap, HashSet};

use etcd_client::proto::{PbTxnOpRequest as Op, PbTxnRequestOp};

use super::refusal::{Answer, DUPLICATE_KEY};

/// Refuses operations of which two put the same key, or one puts a key that another deletes. The
/// two branches of a nested transaction exclude each other, and may put the same key.
pub(super) fn check_overlaps(operations: &[PbTxnRequestOp]) -> Answer<()> {
    collect(operations).map(drop)
}

type Puts<'a> = HashSet<&'a [u8]>;

fn collect(operations: &[PbTxnRequestOp]) -> Answer<(Puts<'_>, Deleted<'_>)> {
    let mut deleted = Deleted::default();
    for operation in operations {
        if let Some(Op::RequestDeleteRange(delete)) = &operation.request {
            deleted.add(&delete.key, &delete.range_end);
        }
    }
    let mut puts = Puts::new();
    for operation in operations {
        if let Some(Op::RequestTxn(nested)) = &operation.request {
            let (then_puts, then_deleted) = collect(&nested.success)?;
            let (else_puts, else_deleted) = collect(&nested.failure)?;
            for key in then_puts.union(&else_puts) {
                if deleted.contains(key) || !puts.insert(key) {
                    return Err(DUPLICATE_KEY);
                }
            }
            deleted.merge(then_deleted);
            deleted.merge(else_deleted);
        }
    }
    for operation in operations {
        if let Some(Op::RequestPut(put)) = &operation.request
            && (deleted.contains(&put.key) || !puts.insert(&put.key))
        {
            return Err(DUPLICATE_KEY);
        }
    }
    Ok((puts, deleted))
}

/// Ranges of keys, none of which touches another.
#[derive(Debug, Default)]
struct Deleted<'a>(BTreeMap<&'a [u8], End<'a>>);

/// Where a range ends, exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End<'a> {
    Before(&'a [u8]),
    /// Right after this key: a range of one key is `(key, After(key))`.
    After(&'a [u8]),
}

impl<'a> End<'a> {
    fn key(self) -> &'a [u8] {
        match self {
            Self::Before(key) | Self::After(key) => key,
        }
    }

    fn is_past(self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < end,
            Self::After(end) => key <= end,
        }
    }
}

impl<'a> Deleted<'a> {
    /// As in etcd, a range without an end (`range_end` of one zero byte) is taken here for one
    /// that ends before it begins, and overlaps with nothing.
    fn add(&mut self, key: &'a [u8], range_end: &'a [u8]) {
        if range_end.is_empty() {
            self.insert(key, End::After(key));
        } else if key < range_end {
            self.insert(key, End::Before(range_end));
        }
    }

    fn insert(&mut self, mut start: &'a [u8], mut end: End<'a>) {
        // All ranges that begin within this one, or right at its end, become part of it.
        while let Some((&other, &other_end)) = self.0.range(..=end.key()).next_back() {
            if !other_end.is_past(start) && other < start {
                break;
            }
            self.0.remove(other);
            start = start.min(other);
            let longer = other_end.key() > end.key()
                || (other_end.key() == end.key() && matches!(other_end, End::After(_)));
            if longer {
                end = other_end;
            }
        }
        self.0.insert(start, end);
    }

    fn merge(&mut self, other: Self) {
        for (start, end) in other.0 {
            self.insert(start, end);
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        let before = self.0.range(..=key).next_back();
        before.is_some_and(|(_, end)| end.is_past(key))
    }
}

#[cfg(test)]
mod tests {
    use etcd_client::proto::{PbDeleteRequest, PbPutRequest, PbTxnRequest};

    use super::*;

    fn put(key: &str) -> PbTxnRequestOp {
        let put = PbPutRequest {
            key: key.into(),
            ..PbPutRequest::default()
        };
        PbTxnRequestOp {
            request: Some(Op::RequestPut(put)),
        }
    }

    fn delete(key: &str, end: &str) -> PbTxnRequestOp {
        let delete = PbDeleteRequest {
            key: key.into(),
            range_end: end.into(),
            ..PbDeleteRequest::default()
        };
        PbTxnRequestOp {
            request: Some(Op::RequestDeleteRange(delete)),
        }
    }

    fn nested(then: Vec<PbTxnRequestOp>, otherwise: Vec<PbTxnRequestOp>) -> PbTxnRequestOp {
        let nested = PbTxnRequest {
            success: then,
            failure: otherwise,
            ..PbTxnRequest::default()
        };
        PbTxnRequestOp {
            request: Some(Op::RequestTxn(nested)),
        }
    }

    #[test]
    fn no_key_is_put_twice_or_put_and_deleted() {
        for refused in [
            vec![put("a"), put("a")],
            vec![put("a"), delete("a", "")],
            vec![delete("a", "c"), put("b")],
            vec![delete("a", "c"), delete("b", "e"), put("d")],
            vec![nested(vec![put("a")], vec![]), put("a")],
            vec![nested(vec![delete("a", "c")], vec![]), put("b")],
            vec![delete("a", "c"), nested(vec![], vec![put("b")])],
            vec![
                nested(vec![put("a")], vec![]),
                nested(vec![], vec![put("a")]),
            ],
        ] {
            assert_eq!(check_overlaps(&refused), Err(DUPLICATE_KEY), "{refused:?}");
        }
    }

    #[test]
    fn branches_that_exclude_each_other_and_ranges_side_by_side_may_be() {
        for allowed in [
            vec![nested(vec![put("a")], vec![put("a")])],
            vec![delete("a", "b"), put("b")],
            vec![delete("a", "b"), delete("c", "d"), put("b")],
            vec![delete("a", ""), put("a\0")],
            vec![delete("a", ""), delete("a", "")],
            // etcd does not notice this one.
            vec![delete("a", "\0"), put("b")],
        ] {
            assert_eq!(check_overlaps(&allowed), Ok(()), "{allowed:?}");
        }
    }
}
