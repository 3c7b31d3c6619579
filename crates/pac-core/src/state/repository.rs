//! The cached state of a repository, which snapshots keep up to date and commands are applied
//! to.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::mem;
use std::sync::Arc;

use super::by_terms::ByTerms;
use super::entry::{Entry, EntryState};
use super::head::{Head, check_absent};
use super::queue::{Iter, Queue, Rank};
use crate::hash::HashSet;
use crate::name::{Group, PipelineRunKey};
use crate::value::{Revision, Timestamp, Version};

/// The content of one repository in the store at one revision: all of it, or what changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// `entries` are those changed after this version of the same history; `None` means that they
    /// are all there are.
    pub since: Option<Version>,
    /// Whether the store has any state of this repository.
    pub exists: bool,
    /// The head; [`Head::absent`] when nothing exists.
    pub head: Head,
    /// The entries, each at most once, in no particular order.
    pub entries: Vec<Arc<Entry>>,
}

impl Snapshot {
    /// The snapshot of a repository that the store has no state of.
    #[must_use]
    pub fn absent(floor: u64) -> Self {
        Self {
            since: None,
            exists: false,
            head: Head::absent(floor),
            entries: Vec::new(),
        }
    }
}

/// The result of [`RepositoryState::absorb`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absorb {
    /// The state is now at the snapshot's revision.
    Applied,
    /// The state was at the snapshot's revision or a later one already; nothing changed.
    Stale,
    /// The snapshot starts after the state's revision, or belongs to another history, or its counts
    /// do not match the state: load a full snapshot. The state may have changed in part.
    Incomplete,
}

/// Why an entry cannot be taken in.
#[derive(Debug, Clone, Copy)]
enum Unfit {
    FromNowhere,
    PlaceTaken,
}

impl Unfit {
    /// What is told of the entry of this run.
    fn of(self, run: &PipelineRunKey) -> String {
        match self {
            Self::FromNowhere => {
                format!("run {run} has a ticket or token that the head has not given out yet")
            }
            Self::PlaceTaken => format!("two runs wait in the place of run {run}"),
        }
    }
}

/// An entry in a set, looked up by its run.
#[derive(Debug, Clone)]
struct ByRun(Arc<Entry>);

impl Borrow<PipelineRunKey> for ByRun {
    fn borrow(&self) -> &PipelineRunKey {
        &self.0.run
    }
}

impl Hash for ByRun {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.run.hash(state);
    }
}

impl PartialEq for ByRun {
    fn eq(&self, other: &Self) -> bool {
        self.0.run == other.0.run
    }
}

impl Eq for ByRun {}

/// The state of one repository: commands are planned against it, and a manager caches it.
///
/// Reading an entry, the counts and the first waiter costs O(1); see [`Self::position`].
#[derive(Debug, Clone)]
pub struct RepositoryState {
    exists: bool,
    head: Head,
    entries: HashSet<ByRun>,
    queue: Queue,
    started: usize,
    /// Finished entries, oldest first; some may have been replaced since, by a newer record or
    /// by a new run of their name.
    finished: VecDeque<Arc<Entry>>,
    /// How many of `entries` are finished.
    finished_count: usize,
    /// Made by the first entry that has terms.
    by_terms: Option<Box<ByTerms>>,
}

impl RepositoryState {
    /// The state of a repository that the store has nothing of; see [`Head::absent`].
    #[must_use]
    pub fn absent(floor: u64) -> Self {
        Self {
            exists: false,
            head: Head::absent(floor),
            entries: HashSet::default(),
            queue: Queue::default(),
            started: 0,
            finished: VecDeque::new(),
            finished_count: 0,
            by_terms: None,
        }
    }

    /// The state that a full snapshot describes.
    ///
    /// # Errors
    /// A sentence naming the contradiction in a snapshot that no correct driver could have
    /// stored.
    pub fn from_snapshot(snapshot: &Snapshot) -> Result<Self, String> {
        let mut state = Self::absent(0);
        match state.absorb(snapshot, |_, _| ())? {
            Absorb::Applied => Ok(state),
            Absorb::Stale | Absorb::Incomplete => {
                Err("a part of the state came where all of it was asked for".to_owned())
            }
        }
    }

    /// Whether the store has any state of this repository.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.exists
    }

    /// The head.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The entry of a run, even if the run has finished (until its entry is forgotten).
    #[must_use]
    pub fn entry(&self, run: &PipelineRunKey) -> Option<&Arc<Entry>> {
        self.entries.get(run).map(|entry| &entry.0)
    }

    /// The revision of the queued or started entry of a run; 0 where there is none. By it a changed
    /// entry says what it takes the place of; see [`Changes`](crate::protocol::Changes).
    #[must_use]
    pub fn live_revision(&self, run: &PipelineRunKey) -> Revision {
        let live = self.entry(run).filter(|entry| !entry.is_finished());
        live.map_or(Revision::new(0), |entry| entry.revision)
    }

    /// All entries, in no particular order.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.iter().map(|entry| &entry.0)
    }

    /// The numbers of the slots of the runs that know theirs, in order.
    pub(crate) fn slot_numbers(&self) -> impl Iterator<Item = u32> {
        self.by_terms.iter().flat_map(|found| found.numbers())
    }

    /// The waiting and running runs of a group, by name.
    pub(crate) fn group(&self, group: &Group) -> impl Iterator<Item = &Arc<Entry>> {
        let runs = self.by_terms.iter().flat_map(|found| found.group(group));
        runs.filter_map(|run| self.entry(run))
    }

    /// The waiting and running runs whose time has an end, the first one first, and that time.
    pub(crate) fn deadlines(&self) -> impl Iterator<Item = (Timestamp, &Arc<Entry>)> {
        let deadlines = self.by_terms.iter().flat_map(|found| found.deadlines());
        deadlines.filter_map(|(deadline, run)| Some((*deadline, self.entry(run)?)))
    }

    /// The waiting runs in the order in which they start.
    pub fn queue(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.queue.iter()
    }

    pub(crate) fn queue_iter(&self) -> Iter<'_> {
        self.queue.iter()
    }

    /// The number of runs before this one in the queue; `None` when it does not wait. O(√n).
    #[must_use]
    pub fn position(&self, run: &PipelineRunKey) -> Option<usize> {
        let entry = self.entry(run)?;
        self.queue.position(Rank::of(entry))
    }

    /// Updates the state to a snapshot of the same repository. Calls `changed` with the entry
    /// before and after for every entry of the snapshot, and with `None` after for every entry
    /// that a full snapshot no longer has.
    ///
    /// # Errors
    /// A sentence naming the contradiction; the state must not be used any more.
    pub fn absorb(
        &mut self,
        snapshot: &Snapshot,
        mut changed: impl FnMut(Option<&Arc<Entry>>, Option<&Arc<Entry>>),
    ) -> Result<Absorb, String> {
        let (known, now) = (self.head.version(), snapshot.head.version());
        if snapshot.exists {
            snapshot.head.check_counters()?;
        } else {
            check_absent(&snapshot.head)?;
        }
        if now.revision < known.revision {
            return Ok(Absorb::Stale);
        }
        match snapshot.since {
            Some(since) if known.is_rewound_from(since) => return Ok(Absorb::Incomplete),
            Some(_) if now.revision == known.revision && self.exists => {
                // Of the same revision and another commit, it belongs to another history.
                return Ok(if now == known {
                    Absorb::Stale
                } else {
                    Absorb::Incomplete
                });
            }
            Some(_) => {
                // A run may have taken the place of another one that has changed too: all of them
                // leave the queue before the first one takes a place.
                let apart = snapshot.entries.len() > 1;
                let to_leave = if apart { &*snapshot.entries } else { &[] };
                for entry in to_leave {
                    let before = self.entries.get(&entry.run).map(|before| &before.0);
                    if let Some(before) = before.filter(|before| before.is_queued()) {
                        self.queue.remove(Rank::of(before));
                    }
                }
                for entry in &snapshot.entries {
                    let before = match self.put(entry, &snapshot.head, apart) {
                        Ok(before) => before,
                        // The record of who had the place is gone, and with it what became of that.
                        Err(Unfit::PlaceTaken) => return Ok(Absorb::Incomplete),
                        Err(unfit) => return Err(unfit.of(&entry.run)),
                    };
                    changed(before.as_ref(), Some(entry));
                }
            }
            None => {
                let mut known = mem::take(&mut self.entries);
                self.queue = Queue::default();
                self.started = 0;
                self.by_terms = None;
                self.finished.clear();
                self.finished_count = 0;
                for entry in &snapshot.entries {
                    let before = known.take(&entry.run).map(|entry| entry.0);
                    let before_it = self.put(entry, &snapshot.head, false);
                    if before_it.map_err(|unfit| unfit.of(&entry.run))?.is_some() {
                        return Err(format!("run {} is there twice", entry.run));
                    }
                    changed(before.as_ref(), Some(entry));
                }
                let by_age = |entry: &Arc<Entry>| entry.finished.at();
                self.finished.make_contiguous().sort_by_key(by_age);
                for gone in &known {
                    changed(Some(&gone.0), None);
                }
            }
        }
        self.exists = snapshot.exists;
        self.head = snapshot.head.clone();
        let counts = self.counts();
        let expected = (
            self.head.queued as usize,
            self.head.started as usize,
            u64::from(self.head.surplus()),
        );
        if counts == expected {
            Ok(Absorb::Applied)
        } else if snapshot.since.is_some() {
            Ok(Absorb::Incomplete)
        } else {
            Err(format!(
                "the head counts {} queued and {} started runs, which take {} slots more, but there \
                 are {} and {}, which take {} more",
                expected.0, expected.1, expected.2, counts.0, counts.1, counts.2
            ))
        }
    }

    /// Checks that the counts in a delta's head match this state with the delta's entries
    /// applied. A store calls it to refuse a commit from a broken client.
    ///
    /// # Errors
    /// A sentence naming the contradiction.
    pub fn check(&self, delta: &Snapshot) -> Result<(), String> {
        let mut queued = i128::from(delta.head.queued) - self.queue.len() as i128;
        let mut started = i128::from(delta.head.started) - self.started as i128;
        let mut surplus = i128::from(delta.head.surplus()) - i128::from(self.surplus());
        for entry in &delta.entries {
            let before = self.entry(&entry.run);
            for (entry, sign) in before
                .map(|before| (before, 1))
                .into_iter()
                .chain([(entry, -1)])
            {
                match entry.state {
                    EntryState::Queued { .. } => queued += sign,
                    EntryState::Started { .. } => {
                        started += sign;
                        surplus += sign * i128::from(entry.weight().surplus());
                    }
                    EntryState::Finished { .. } => {}
                }
            }
        }
        if (queued, started, surplus) == (0, 0, 0) {
            Ok(())
        } else {
            Err("the head does not count the runs that are there".to_owned())
        }
    }

    /// How many runs wait and hold slots, and how many slots the latter take beyond one each, as far as
    /// a head can count.
    fn counts(&self) -> (usize, usize, u64) {
        let surplus = self.surplus().min(u32::MAX.into());
        (self.queue.len(), self.started, surplus)
    }

    /// How many slots the running runs take beyond one each.
    fn surplus(&self) -> u64 {
        self.by_terms.as_ref().map_or(0, |found| found.surplus)
    }

    /// Takes an entry in; `left` when what it takes the place of has left the queue already.
    fn put(
        &mut self,
        entry: &Arc<Entry>,
        head: &Head,
        left: bool,
    ) -> Result<Option<Arc<Entry>>, Unfit> {
        if entry.ticket > head.last_ticket || entry.token() > Some(head.last_token) {
            return Err(Unfit::FromNowhere);
        }
        let before = self.entries.replace(ByRun(Arc::clone(entry)));
        let before = before.map(|before| before.0);
        if let Some(known) = &before
            && known.is_finished()
            && **known == **entry
        {
            // The same finished entry again: the old `Arc` stays, since `finished` is compared with
            // it by pointer.
            self.entries.replace(ByRun(Arc::clone(known)));
            return Ok(before);
        }
        let had_terms = before.as_ref().is_some_and(|before| before.terms.is_some());
        if had_terms || entry.terms.is_some() {
            self.note_terms(before.as_deref(), entry);
        }
        match before.as_ref().map(|before| (before, before.state)) {
            Some((_, EntryState::Queued { .. })) if left => {}
            Some((before, EntryState::Queued { .. })) => {
                self.queue.remove(Rank::of(before));
            }
            Some((_, EntryState::Started { .. })) => self.started -= 1,
            Some((_, EntryState::Finished { .. })) => self.finished_count -= 1,
            None => {}
        }
        match entry.state {
            EntryState::Queued { .. } => {
                if !self.queue.insert(Arc::clone(entry)) {
                    return Err(Unfit::PlaceTaken);
                }
            }
            EntryState::Started { .. } => self.started += 1,
            EntryState::Finished { .. } => {
                self.finished_count += 1;
                self.finished.push_back(Arc::clone(entry));
                self.drop_replaced();
            }
        }
        Ok(before)
    }

    /// Kept out of the way of the many runs that have no terms.
    #[cold]
    #[inline(never)]
    fn note_terms(&mut self, before: Option<&Entry>, entry: &Entry) {
        let found = self.by_terms.get_or_insert_default();
        if let Some(before) = before.filter(|before| !before.is_finished()) {
            found.take_out(before);
        }
        if !entry.is_finished() {
            found.take_in(entry);
        }
    }

    /// Keeps the list of finished entries in proportion to those that are still there.
    fn drop_replaced(&mut self) {
        if self.finished.len() > 2 * self.finished_count + 64 {
            let entries = &self.entries;
            self.finished.retain(|entry| {
                let now = entries.get(&entry.run);
                now.is_some_and(|now| Arc::ptr_eq(&now.0, entry))
            });
        }
    }

    /// Drops finished entries that ended before `before`, then the oldest until at most `keep`
    /// remain. Calls `dropped` with each.
    pub fn forget_finished(
        &mut self,
        before: Timestamp,
        keep: usize,
        mut dropped: impl FnMut(&Arc<Entry>),
    ) {
        while let Some(oldest) = self.finished.front() {
            let outdated = oldest.finished.at().is_none_or(|at| at < before);
            if !outdated && self.finished_count <= keep {
                return;
            }
            let Some(oldest) = self.finished.pop_front() else {
                return;
            };
            match self.entries.take(&oldest.run) {
                Some(now) if Arc::ptr_eq(&now.0, &oldest) => {
                    self.finished_count -= 1;
                    dropped(&oldest);
                }
                // Replaced since: what is there now is not of that age.
                Some(now) => {
                    self.entries.insert(now);
                }
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
