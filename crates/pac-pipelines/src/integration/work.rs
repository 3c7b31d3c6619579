//! What is to be looked at: by Repository, each by one task at a time.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pac_core::{PipelineRunKey, RepositoryKey};
use tokio::sync::Notify;
use tokio::time::Instant;

/// What is to be looked at in one Repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Dirty {
    /// These runs.
    pub(super) runs: BTreeSet<PipelineRunKey>,
    /// All runs, and the limit.
    pub(super) all: bool,
    /// The cluster's lists have just been read: what only the store has is missing there.
    pub(super) listed: bool,
    /// How often in a row it has failed.
    pub(super) failures: u32,
}

impl Dirty {
    pub(super) fn run(run: PipelineRunKey) -> Self {
        Self::runs([run])
    }

    pub(super) fn runs(runs: impl IntoIterator<Item = PipelineRunKey>) -> Self {
        Self {
            runs: runs.into_iter().collect(),
            ..Self::default()
        }
    }

    pub(super) fn all() -> Self {
        Self {
            all: true,
            ..Self::default()
        }
    }

    pub(super) fn listed() -> Self {
        Self {
            listed: true,
            ..Self::all()
        }
    }

    fn merge(&mut self, other: Self) {
        self.runs.extend(other.runs);
        self.all |= other.all;
        self.listed |= other.listed;
        self.failures = self.failures.max(other.failures);
    }
}

/// How a task came to look at a Repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right {
    /// It was due.
    Taken,
    /// The task was waiting for this one.
    Claimed,
}

/// The Repositories that are to be looked at.
#[derive(Debug, Default)]
pub(super) struct Work {
    state: Mutex<State>,
    /// Something can be taken now, or at another time than before.
    pub(super) changed: Notify,
    /// A Repository is no longer looked at.
    released: Notify,
}

#[derive(Debug, Default)]
struct State {
    dirty: HashMap<RepositoryKey, (Instant, Dirty)>,
    /// Those that a task looks at.
    active: HashMap<RepositoryKey, Right>,
    /// So many of them were taken.
    taken: usize,
    /// In the order in which they became due.
    ready: VecDeque<RepositoryKey>,
    /// The same ones.
    is_ready: HashSet<RepositoryKey>,
    later: BTreeSet<(Instant, RepositoryKey)>,
}

impl Work {
    /// Has something looked at, not before `at`.
    pub(super) fn mark(&self, repository: &RepositoryKey, dirty: Dirty, at: Instant) {
        let mut state = self.state();
        let due = match state.dirty.get_mut(repository) {
            Some((due, known)) => {
                known.merge(dirty);
                *due = at.min(*due);
                *due
            }
            None => {
                state.dirty.insert(repository.clone(), (at, dirty));
                at
            }
        };
        if due <= Instant::now() {
            state.make_ready(repository);
        } else {
            state.later.insert((due, repository.clone()));
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The next Repository that is due and that no task looks at: from now on the caller does.
    /// `None` also when `at_once` that were taken are being looked at.
    pub(super) fn take(&self, at_once: usize) -> Option<(RepositoryKey, Dirty)> {
        let mut state = self.state();
        let now = Instant::now();
        while let Some((due, _)) = state.later.first()
            && *due <= now
        {
            if let Some((_, repository)) = state.later.pop_first() {
                state.make_ready(&repository);
            }
        }
        while state.taken < at_once {
            let repository = state.ready.pop_front()?;
            state.is_ready.remove(&repository);
            if state.active.contains_key(&repository) {
                continue;
            }
            if let Some((_, dirty)) = state.dirty.remove(&repository) {
                state.active.insert(repository.clone(), Right::Taken);
                state.taken += 1;
                return Some((repository, dirty));
            }
        }
        None
    }

    /// When the next Repository is due that is not yet.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.state().later.first().map(|(due, _)| *due)
    }

    /// Waits until no other task looks at a Repository, and takes what is to be looked at there.
    pub(super) async fn claim(&self, repository: &RepositoryKey) -> Dirty {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            // From here on no release is missed.
            released.as_mut().enable();
            {
                let mut state = self.state();
                if !state.active.contains_key(repository) {
                    state.active.insert(repository.clone(), Right::Claimed);
                    let dirty = state.dirty.remove(repository);
                    return dirty.map(|(_, dirty)| dirty).unwrap_or_default();
                }
            }
            released.await;
        }
    }

    /// The caller looks at a Repository no longer.
    pub(super) fn release(&self, repository: &RepositoryKey) {
        let mut state = self.state();
        if state.active.remove(repository) == Some(Right::Taken) {
            state.taken = state.taken.saturating_sub(1);
        }
        let due = state.dirty.get(repository).map(|(due, _)| *due);
        if due.is_some_and(|due| due <= Instant::now()) {
            state.make_ready(repository);
        }
        drop(state);
        self.released.notify_waiters();
        self.changed.notify_one();
    }

    /// Whether nothing is looked at, and nothing is due.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state();
        let now = Instant::now();
        state.active.is_empty() && state.dirty.values().all(|(due, _)| *due > now)
    }

    /// Forgets what is looked at: the tasks that did were ended.
    pub(super) fn reset(&self) {
        let mut state = self.state();
        state.active.clear();
        state.taken = 0;
        drop(state);
        self.released.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn make_ready(&mut self, repository: &RepositoryKey) {
        let waits = self.dirty.contains_key(repository) && !self.active.contains_key(repository);
        if waits && self.is_ready.insert(repository.clone()) {
            self.ready.push_back(repository.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(name: &str) -> RepositoryKey {
        RepositoryKey::new("ci", name).unwrap()
    }

    fn run(name: &str) -> PipelineRunKey {
        PipelineRunKey::new("ci", name).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_repository_is_looked_at_by_one_task_at_a_time() {
        let work = Work::default();
        let now = Instant::now();
        work.mark(&key("a"), Dirty::run(run("1")), now);
        work.mark(&key("a"), Dirty::run(run("2")), now);
        let (taken, dirty) = work.take(9).unwrap();
        assert_eq!((taken, dirty.runs.len()), (key("a"), 2));
        work.mark(&key("a"), Dirty::all(), now);
        assert_eq!(work.take(9), None);
        work.release(&key("a"));
        assert!(work.take(9).unwrap().1.all);
        let (a, later) = (key("a"), Duration::from_secs(1));
        let claimed = tokio::time::timeout(later, work.claim(&a)).await;
        assert!(claimed.is_err());
        work.release(&a);
        assert_eq!(work.claim(&a).await, Dirty::default());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_taken_than_may_be_looked_at_at_once() {
        let work = Work::default();
        for name in ["a", "b", "c"] {
            work.mark(&key(name), Dirty::all(), Instant::now());
        }
        // What a task waits for does not count.
        work.claim(&key("z")).await;
        let names = |work: &Work| work.take(2).map(|(taken, _)| taken.name().to_owned());
        assert_eq!(names(&work).as_deref(), Some("a"));
        assert_eq!(names(&work).as_deref(), Some("b"));
        assert_eq!(names(&work), None);
        work.release(&key("z"));
        assert_eq!(names(&work), None);
        work.release(&key("a"));
        assert_eq!(names(&work).as_deref(), Some("c"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_later_comes_later_and_not_twice() {
        let work = Work::default();
        let later = Instant::now() + Duration::from_secs(10);
        work.mark(&key("a"), Dirty::run(run("1")), later);
        assert_eq!((work.take(9), work.next_due()), (None, Some(later)));
        assert!(work.is_idle());
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(!work.is_idle());
        let (taken, _) = work.take(9).unwrap();
        work.release(&taken);
        assert_eq!(work.take(9), None);
    }
}
