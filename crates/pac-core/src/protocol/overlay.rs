//! The entries that a plan changes, over the state that it does not touch.

use std::sync::Arc;

use crate::hash::HashMap;
use crate::name::PipelineRunKey;
use crate::state::{Entry, RepositoryState};

/// Up to this many changed entries, a linear scan is faster than a map.
const SCAN: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// The changed entries, in the order in which they were first changed.
    changed: Vec<Arc<Entry>>,
    /// The position of each run in `changed`; empty while `changed` is short enough to scan.
    index: HashMap<PipelineRunKey, usize>,
}

impl Overlay {
    pub(super) fn len(&self) -> usize {
        self.changed.len()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.changed.iter()
    }

    pub(super) fn into_entries(self) -> Vec<Arc<Entry>> {
        self.changed
    }

    pub(super) fn get(&self, run: &PipelineRunKey) -> Option<&Arc<Entry>> {
        self.changed.get(self.find(run)?)
    }

    /// The entry as this plan has changed it, or else as it is in the state.
    pub(super) fn current<'a>(
        &'a self,
        state: &'a RepositoryState,
        run: &PipelineRunKey,
    ) -> Option<&'a Arc<Entry>> {
        self.get(run).or_else(|| state.entry(run))
    }

    pub(super) fn put(&mut self, entry: Entry) {
        if let Some(known) = self
            .find(&entry.run)
            .and_then(|at| self.changed.get_mut(at))
        {
            *known = Arc::new(entry);
            return;
        }
        self.changed.push(Arc::new(entry));
        if self.changed.len() > SCAN {
            let indexed = self.index.len();
            for (at, entry) in self.changed.iter().enumerate().skip(indexed) {
                self.index.insert(entry.run.clone(), at);
            }
        }
    }

    fn find(&self, run: &PipelineRunKey) -> Option<usize> {
        if self.index.is_empty() {
            self.changed.iter().position(|entry| entry.run == *run)
        } else {
            self.index.get(run).copied()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing::queued;
    use crate::value::Priority;

    #[test]
    fn finds_and_replaces_beyond_the_scan() {
        let mut overlay = Overlay::default();
        for ticket in 0..3 * SCAN as u64 {
            overlay.put(queued(ticket, 0));
        }
        for ticket in 0..3 * SCAN as u64 {
            overlay.put(queued(ticket, 7));
            let run = queued(ticket, 0).run;
            assert_eq!(overlay.get(&run).unwrap().priority, Priority::new(7));
        }
        assert_eq!(overlay.len(), 3 * SCAN);
        assert!(overlay.get(&"ns/other".parse().unwrap()).is_none());
    }
}
