//! How many requests of each kind were made.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::operation::Operation;

/// One number for each kind of request.
#[derive(Debug, Default)]
pub(crate) struct Counters([AtomicU64; Operation::ALL.len()]);

impl Counters {
    pub(crate) fn count(&self, operation: Operation) {
        if let Some(number) = self.0.get(operation as usize) {
            number.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn read(&self) -> BTreeMap<Operation, u64> {
        let numbers = self.0.iter().map(|number| number.load(Ordering::Relaxed));
        Operation::ALL.into_iter().zip(numbers).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_number_of_its_own() {
        let counters = Counters::default();
        for (n, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, n);
            counters.count(operation);
        }
        assert!(counters.read().values().all(|number| *number == 1));
        assert_eq!(counters.read().len(), Operation::ALL.len());
    }
}
