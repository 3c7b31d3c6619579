//! The waiting and running runs of a repository, found by what they asked for.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};

use super::entry::Entry;
use crate::name::{Group, PipelineRunKey};
use crate::value::Timestamp;

/// See the module. A repository in which nobody asks for anything beyond a slot has none.
#[derive(Debug, Clone, Default)]
pub(super) struct ByTerms {
    /// The numbers of the slots of those that know theirs, and how many have each: more than one only
    /// while a snapshot is taken in.
    numbers: BTreeMap<u32, usize>,
    /// When the time of those is over that have an end.
    deadlines: BTreeSet<(Timestamp, PipelineRunKey)>,
    groups: BTreeMap<Group, BTreeSet<PipelineRunKey>>,
    /// How many slots those that run take beyond one each.
    pub(super) surplus: u64,
}

impl ByTerms {
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.numbers.keys().copied()
    }

    pub(super) fn deadlines(&self) -> impl Iterator<Item = &(Timestamp, PipelineRunKey)> {
        self.deadlines.iter()
    }

    pub(super) fn group(&self, group: &Group) -> impl Iterator<Item = &PipelineRunKey> {
        self.groups.get(group).into_iter().flatten()
    }

    /// Takes in an entry that is not finished.
    pub(super) fn take_in(&mut self, entry: &Entry) {
        let Some(terms) = entry.terms.as_deref() else {
            return;
        };
        for number in &terms.slots {
            *self.numbers.entry(*number).or_default() += 1;
        }
        if let Some(deadline) = entry.deadline() {
            self.deadlines.insert((deadline, entry.run.clone()));
        }
        if let Some(group) = &terms.group {
            let runs = self.groups.entry(group.clone()).or_default();
            runs.insert(entry.run.clone());
        }
        if entry.is_started() {
            self.surplus += u64::from(terms.weight.surplus());
        }
    }

    /// Takes out an entry that was taken in.
    pub(super) fn take_out(&mut self, entry: &Entry) {
        let Some(terms) = entry.terms.as_deref() else {
            return;
        };
        for number in &terms.slots {
            if let Slot::Occupied(mut slot) = self.numbers.entry(*number) {
                *slot.get_mut() -= 1;
                if *slot.get() == 0 {
                    slot.remove();
                }
            }
        }
        if let Some(deadline) = entry.deadline() {
            self.deadlines.remove(&(deadline, entry.run.clone()));
        }
        if let Some(group) = &terms.group
            && let Some(runs) = self.groups.get_mut(group)
        {
            runs.remove(&entry.run);
            if runs.is_empty() {
                self.groups.remove(group);
            }
        }
        if entry.is_started() {
            self.surplus -= u64::from(terms.weight.surplus());
        }
    }
}
