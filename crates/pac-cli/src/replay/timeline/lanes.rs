//! Puts bars that overlap in time into lanes of their own.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The lane of each interval `(start, end)`, from 0, and how many lanes there are. Intervals
/// come in the order of their starts; each gets the lowest lane that is free by then.
pub(super) fn pack<T: Ord + Copy>(intervals: &[(T, T)]) -> (Vec<usize>, usize) {
    let mut occupied = BinaryHeap::new();
    let mut free = BinaryHeap::new();
    let mut count = 0;
    let mut lanes = Vec::with_capacity(intervals.len());
    for &(start, end) in intervals {
        while let Some(&Reverse((until, lane))) = occupied.peek()
            && until <= start
        {
            occupied.pop();
            free.push(Reverse(lane));
        }
        let lane = free.pop().map_or(count, |Reverse(lane)| lane);
        count = count.max(lane + 1);
        occupied.push(Reverse((end, lane)));
        lanes.push(lane);
    }
    (lanes, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_used_again_from_the_moment_it_is_free() {
        let intervals = [(0, 10), (0, 5), (2, 4), (4, 6), (5, 7), (10, 11)];
        assert_eq!(pack(&intervals), (vec![0, 1, 2, 2, 1, 0], 3));
        assert_eq!(pack::<i64>(&[]), (vec![], 0));
    }
}
