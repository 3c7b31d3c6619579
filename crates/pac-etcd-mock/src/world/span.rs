//! Which keys a request means.

use std::ops::Bound;

/// A range of keys, as a key and a range end say it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Span {
    /// This key alone.
    One(Vec<u8>),
    /// This key and all that follow.
    From(Vec<u8>),
    /// From the first key, up to the second, exclusive. Empty when the second is not greater.
    Between(Vec<u8>, Vec<u8>),
}

/// Where a range of keys begins and ends.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

impl Span {
    /// What `key` and `range_end` of a request mean: no end is the key alone, and one zero byte is
    /// no end at all.
    pub(crate) fn of(key: &[u8], range_end: &[u8]) -> Self {
        match range_end {
            [] => Self::One(key.to_vec()),
            [0] => Self::From(key.to_vec()),
            end => Self::Between(key.to_vec(), end.to_vec()),
        }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one.as_slice() == key,
            Self::From(from) => key >= from.as_slice(),
            Self::Between(from, to) => key >= from.as_slice() && key < to.as_slice(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Between(from, to) if from >= to)
    }

    pub(crate) fn start(&self) -> &[u8] {
        match self {
            Self::One(start) | Self::From(start) | Self::Between(start, _) => start,
        }
    }

    /// The bounds of a range that is not empty.
    pub(crate) fn bounds(&self) -> Option<Bounds<'_>> {
        let end = match self {
            Self::One(one) => Bound::Included(one.as_slice()),
            Self::From(_) => Bound::Unbounded,
            Self::Between(_, to) => Bound::Excluded(to.as_slice()),
        };
        (!self.is_empty()).then(|| (Bound::Included(self.start()), end))
    }
}

/// The end of the range of all keys that begin with `prefix`.
pub(crate) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_end_of_one_zero_byte_is_no_end() {
        assert_eq!(Span::of(b"a", b""), Span::One(b"a".to_vec()));
        assert_eq!(Span::of(b"a", b"\0"), Span::From(b"a".to_vec()));
        assert!(Span::of(b"a", b"\0").contains(b"zz"));
        assert!(!Span::of(b"a", b"\0").contains(b"A"));
    }

    #[test]
    fn an_inverted_range_has_no_keys() {
        let inverted = Span::of(b"b", b"a");
        assert!(inverted.is_empty());
        assert!(inverted.bounds().is_none());
        assert!(!inverted.contains(b"a") && !inverted.contains(b"b"));
    }

    #[test]
    fn the_end_of_a_prefix_is_the_next_key_that_has_it_not() {
        assert_eq!(prefix_end(b"ab"), b"ac");
        assert_eq!(prefix_end(b"a\xff"), b"b");
        assert_eq!(prefix_end(b"\xff"), b"\0");
    }
}
