//! The waiting runs of one repository in the order in which they will start.

use std::cmp::Reverse;
use std::collections::{VecDeque, vec_deque};
use std::iter::Flatten;
use std::sync::Arc;

use super::entry::Entry;
use crate::value::{Priority, Ticket};

/// A chunk is split in two once it holds more than twice this many places. About the square root
/// of the longest queue worth planning for (a few 100,000), so that neither the number of chunks
/// nor their length dominates the cost.
const CHUNK: usize = 512;

/// The order of grants: higher priority first, then the ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank(Reverse<Priority>, Ticket);

impl Rank {
    pub(crate) fn of(entry: &Entry) -> Self {
        Self(Reverse(entry.priority), entry.ticket)
    }
}

#[derive(Debug, Clone)]
struct Place {
    /// A copy beside the pointer, so that a search need not follow it to each entry.
    rank: Rank,
    entry: Arc<Entry>,
}

/// A sorted list in chunks, as Grant Jenks describes it for Python's `sortedcontainers`: cheap
/// at both ends, and the position of any place is a sum over few chunk lengths.
///
/// Appending and taking the first cost O(1); a search, an insertion or removal in the middle,
/// and a position cost at most O(√n), over contiguous memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queue {
    /// No chunk is empty.
    chunks: VecDeque<VecDeque<Place>>,
    len: usize,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a waiting entry. False when an entry with this rank is present already, which no
    /// correct store allows.
    pub(crate) fn insert(&mut self, entry: Arc<Entry>) -> bool {
        let place = Place {
            rank: Rank::of(&entry),
            entry,
        };
        match self.chunks.back_mut() {
            Some(last) if last.back().is_none_or(|back| back.rank < place.rank) => {
                if last.len() < CHUNK {
                    last.push_back(place);
                } else {
                    self.chunks.push_back(VecDeque::from([place]));
                }
            }
            None => self.chunks.push_back(VecDeque::from([place])),
            Some(_) => {
                if !self.insert_in_order(place) {
                    return false;
                }
            }
        }
        self.len += 1;
        true
    }

    fn insert_in_order(&mut self, place: Place) -> bool {
        let index = self.chunk_of(place.rank);
        let Some(chunk) = self.chunks.get_mut(index) else {
            return false;
        };
        let Err(at) = chunk.binary_search_by_key(&place.rank, |other| other.rank) else {
            return false;
        };
        chunk.insert(at, place);
        if chunk.len() > 2 * CHUNK {
            let upper = chunk.split_off(CHUNK);
            self.chunks.insert(index + 1, upper);
        }
        true
    }

    /// Removes and returns the entry with this rank, if there is one.
    pub(crate) fn remove(&mut self, rank: Rank) -> Option<Arc<Entry>> {
        let first = self.chunks.front().and_then(VecDeque::front);
        let is_first = first.is_some_and(|first| first.rank == rank);
        let index = if is_first { 0 } else { self.chunk_of(rank) };
        let chunk = self.chunks.get_mut(index)?;
        let at = if is_first {
            0
        } else {
            chunk.binary_search_by_key(&rank, |place| place.rank).ok()?
        };
        let place = chunk.remove(at)?;
        if chunk.is_empty() {
            self.chunks.remove(index);
        }
        self.len -= 1;
        Some(place.entry)
    }

    /// The number of entries before this rank; `None` if no entry has it.
    pub(crate) fn position(&self, rank: Rank) -> Option<usize> {
        let index = self.chunk_of(rank);
        let at = self
            .chunks
            .get(index)?
            .binary_search_by_key(&rank, |place| place.rank)
            .ok()?;
        let before: usize = self.chunks.iter().take(index).map(VecDeque::len).sum();
        Some(before + at)
    }

    /// The waiting entries in the order in which they start.
    pub(crate) fn iter(&self) -> Iter<'_> {
        Iter(self.chunks.iter().flatten())
    }

    /// The first chunk whose last rank is not before `rank`: the one that contains it or, for an
    /// insertion, should.
    fn chunk_of(&self, rank: Rank) -> usize {
        self.chunks
            .partition_point(|chunk| chunk.back().is_some_and(|back| back.rank < rank))
    }
}

/// See [`Queue::iter`].
#[derive(Debug, Clone)]
pub(crate) struct Iter<'a>(Flatten<vec_deque::Iter<'a, VecDeque<Place>>>);

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Arc<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|place| &place.entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing::queued;

    fn order(queue: &Queue) -> Vec<(i32, u64)> {
        queue
            .iter()
            .map(|entry| (entry.priority.get(), entry.ticket.get()))
            .collect()
    }

    /// Compares with a plain sorted vector, over enough entries for several splits.
    #[test]
    fn agrees_with_a_sorted_vector() {
        let mut queue = Queue::default();
        let mut model: Vec<(Reverse<i32>, u64)> = Vec::new();
        let mut seed = 7u64;
        for step in 0..20_000u64 {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let pick = seed >> 33;
            if !pick.is_multiple_of(3) || model.is_empty() {
                let entry = queued(step, (pick % 5) as i32 - 2);
                let place = (Reverse(entry.priority.get()), step);
                let at = model.partition_point(|other| *other < place);
                model.insert(at, place);
                assert!(queue.insert(Arc::new(entry)));
            } else {
                let at = (pick as usize / 3) % model.len();
                let (Reverse(priority), ticket) = model.remove(at);
                let rank = Rank::of(&queued(ticket, priority));
                assert_eq!(queue.position(rank), Some(at));
                assert_eq!(queue.remove(rank).unwrap().ticket.get(), ticket);
                assert_eq!(queue.remove(rank), None);
                assert_eq!(queue.position(rank), None);
            }
            assert_eq!(queue.len(), model.len());
        }
        let expected: Vec<_> = model.iter().map(|(p, t)| (p.0, *t)).collect();
        assert!(queue.chunks.len() > 3);
        assert_eq!(order(&queue), expected);
    }

    #[test]
    fn a_rank_is_taken_once() {
        let mut queue = Queue::default();
        assert!(queue.insert(Arc::new(queued(1, 0))));
        assert!(queue.insert(Arc::new(queued(3, 0))));
        assert!(!queue.insert(Arc::new(queued(1, 0))));
        assert!(!queue.insert(Arc::new(queued(3, 0))));
        assert_eq!(queue.len(), 2);
    }
}
