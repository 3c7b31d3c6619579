//! Which watches a key concerns.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::WatchKey;
use crate::world::span::{Span, prefix_end};

/// The watches by what they watch. Most watch one key or one prefix: those are found by the key
/// alone, however many there are.
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: HashMap<Vec<u8>, BTreeSet<WatchKey>>,
    prefixes: HashMap<Vec<u8>, BTreeSet<WatchKey>>,
    /// How many prefixes of each length there are.
    lengths: BTreeMap<usize, usize>,
    ranges: BTreeMap<Span, BTreeSet<WatchKey>>,
}

enum Shape<'a> {
    Key(&'a [u8]),
    Prefix(&'a [u8]),
    Range,
}

fn shape(span: &Span) -> Shape<'_> {
    match span {
        Span::One(key) => Shape::Key(key),
        // No key is less: all keys.
        Span::From(from) if from.as_slice() == [0] => Shape::Prefix(&[]),
        Span::Between(from, to) if prefix_end(from) == *to => Shape::Prefix(from),
        _ => Shape::Range,
    }
}

impl Index {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.prefixes.is_empty() && self.ranges.is_empty()
    }

    pub(super) fn add(&mut self, span: &Span, watch: WatchKey) {
        let watches = match shape(span) {
            Shape::Key(key) => self.keys.entry(key.to_vec()).or_default(),
            Shape::Prefix(prefix) => {
                let lengths = &mut self.lengths;
                self.prefixes.entry(prefix.to_vec()).or_insert_with(|| {
                    *lengths.entry(prefix.len()).or_default() += 1;
                    BTreeSet::new()
                })
            }
            Shape::Range => self.ranges.entry(span.clone()).or_default(),
        };
        watches.insert(watch);
    }

    pub(super) fn remove(&mut self, span: &Span, watch: WatchKey) {
        match shape(span) {
            Shape::Key(key) => {
                take(self.keys.get_mut(key), watch).then(|| self.keys.remove(key));
            }
            Shape::Prefix(prefix) => {
                if take(self.prefixes.get_mut(prefix), watch) {
                    self.prefixes.remove(prefix);
                    if let Some(number) = self.lengths.get_mut(&prefix.len()) {
                        *number -= 1;
                        if *number == 0 {
                            self.lengths.remove(&prefix.len());
                        }
                    }
                }
            }
            Shape::Range => {
                take(self.ranges.get_mut(span), watch).then(|| self.ranges.remove(span));
            }
        }
    }

    /// Calls for each watch of a key.
    pub(super) fn each(&self, key: &[u8], mut call: impl FnMut(WatchKey)) {
        let exact = self.keys.get(key).into_iter().flatten();
        exact.copied().for_each(&mut call);
        let prefixes = self.lengths.keys().filter_map(|length| key.get(..*length));
        for prefix in prefixes {
            let watches = self.prefixes.get(prefix).into_iter().flatten();
            watches.copied().for_each(&mut call);
        }
        for (span, watches) in &self.ranges {
            if span.contains(key) {
                watches.iter().copied().for_each(&mut call);
            }
        }
    }
}

/// Removes a watch. Whether none is left.
fn take(watches: Option<&mut BTreeSet<WatchKey>>, watch: WatchKey) -> bool {
    watches.is_some_and(|watches| {
        watches.remove(&watch);
        watches.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use super::super::StreamId;
    use super::*;

    #[test]
    fn a_key_is_watched_by_itself_by_its_prefixes_and_by_ranges() {
        let spans = [
            Span::of(b"ab", b""),
            Span::of(b"a", b"b"),
            Span::of(b"\0", b"\0"),
            Span::of(b"aa", b"ac"),
            Span::of(b"ab", b"\0"),
            Span::of(b"abc", b""),
            Span::of(b"b", b"c"),
        ];
        let mut index = Index::default();
        let watch = |n: usize| WatchKey {
            stream: StreamId(0),
            watch: i64::try_from(n).unwrap(),
        };
        for (n, span) in spans.iter().enumerate() {
            index.add(span, watch(n));
        }
        let found = |index: &Index| {
            let mut found = BTreeSet::new();
            index.each(b"ab", |watch| assert!(found.insert(watch.watch)));
            found
        };
        assert_eq!(found(&index), BTreeSet::from([0, 1, 2, 3, 4]));
        for (n, span) in spans.iter().enumerate() {
            assert!(!index.is_empty());
            index.remove(span, watch(n));
            assert!(!found(&index).contains(&watch(n).watch));
        }
        assert!(index.is_empty() && index.lengths.is_empty());
    }
}
