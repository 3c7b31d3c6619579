//! Ranges of keys that a role may read or write.

use super::Access;
use crate::world::span::Span;

/// One permission of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Permission {
    pub(super) kind: i32,
    pub(super) key: Vec<u8>,
    pub(super) range_end: Vec<u8>,
}

const READ: i32 = 0;
const WRITE: i32 = 1;
const READ_WRITE: i32 = 2;

impl Permission {
    fn permits(&self, access: Access) -> bool {
        match access {
            Access::Read => matches!(self.kind, READ | READ_WRITE),
            Access::Write => matches!(self.kind, WRITE | READ_WRITE),
        }
    }
}

/// Where a range ends, exclusive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Before(Vec<u8>),
    Never,
}

fn range_of(span: Span) -> (Vec<u8>, End) {
    match span {
        Span::One(key) => {
            let mut end = key.clone();
            end.push(0);
            (key, End::Before(end))
        }
        Span::From(key) => (key, End::Never),
        Span::Between(key, end) => (key, End::Before(end)),
    }
}

/// Whether these permissions together permit something with all keys of a range. As in etcd, this
/// needs a permission for the first key also where the range is empty.
pub(super) fn cover<'a>(
    permissions: impl Iterator<Item = &'a Permission>,
    span: &Span,
    access: Access,
) -> bool {
    let (start, end) = range_of(span.clone());
    let (_, first) = range_of(Span::One(start.clone()));
    let mut ranges: Vec<_> = permissions
        // As in etcd, where an empty key is greater than all others.
        .filter(|permission| permission.permits(access) && !permission.key.is_empty())
        .map(|permission| range_of(Span::of(&permission.key, &permission.range_end)))
        .collect();
    ranges.sort();
    let mut covered = End::Before(start);
    for (from, to) in ranges {
        if End::Before(from) > covered {
            break;
        }
        covered = covered.max(to);
    }
    covered >= end.max(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permission(kind: i32, key: &[u8], range_end: &[u8]) -> Permission {
        Permission {
            kind,
            key: key.to_vec(),
            range_end: range_end.to_vec(),
        }
    }

    fn reads(permissions: &[Permission], key: &[u8], end: &[u8]) -> bool {
        cover(permissions.iter(), &Span::of(key, end), Access::Read)
    }

    #[test]
    fn ranges_that_touch_permit_what_they_cover_together() {
        let both = [
            permission(READ, b"b", b"d"),
            permission(READ_WRITE, b"a", b"b"),
        ];
        assert!(reads(&both, b"a", b"d"));
        assert!(reads(&both, b"c", b""));
        assert!(!reads(&both, b"d", b""));
        assert!(!reads(&both, b"a", b"e"));
        assert!(!reads(&both, b"a", b"\0"));
        let apart = [permission(READ, b"a", b"b"), permission(READ, b"c", b"d")];
        assert!(!reads(&apart, b"a", b"d"));
    }

    #[test]
    fn an_empty_range_needs_a_permission_for_its_first_key() {
        let one = [permission(READ, b"b", b"d")];
        assert!(reads(&one, b"c", b"a") && reads(&one, b"b", b"b"));
        assert!(!reads(&one, b"d", b"b") && !reads(&one, b"a", b"a"));
    }

    #[test]
    fn one_kind_of_access_does_not_permit_the_other() {
        let write = [permission(WRITE, b"a", b"\0")];
        assert!(!reads(&write, b"a", b""));
        assert!(cover(write.iter(), &Span::of(b"a", b"\0"), Access::Write));
        assert!(cover(write.iter(), &Span::of(b"zz", b""), Access::Write));
        let point = [permission(READ, b"a", b"")];
        assert!(reads(&point, b"a", b"") && !reads(&point, b"a\0", b""));
    }
}
