//! The manager's stream of grants. The queue manager reads it with every call that hands out runs,
//! while no [`Wakes`] does: a slot that nobody takes is given back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use pac_core::manager::{ConcurrencyManager, Grants};
use pac_core::{PipelineRunKey, RepositoryKey};

use super::Shared;

/// So many runs are remembered for a [`Wakes`] that comes later. What comes beyond that lies unread
/// at the manager, which keeps as many again, and gives back the rest.
const MOST: usize = 1_024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Stream {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// While no [`Wakes`] reads it.
    grants: Option<Grants>,
    /// A [`Wakes`] has the stream.
    lent: bool,
    /// The runs that got a slot while no [`Wakes`] was there, and were not handed out since.
    seen: VecDeque<Seen>,
    next: u64,
}

#[derive(Debug)]
struct Seen {
    number: u64,
    repository: RepositoryKey,
    run: PipelineRunKey,
}

impl Stream {
    /// Begins to read, unless somebody reads already.
    pub(super) fn open(&self, manager: &ConcurrencyManager) {
        let mut inner = self.inner();
        if !inner.lent && inner.grants.is_none() {
            inner.grants = manager.grants();
        }
    }

    /// Reads what has come, unless a [`Wakes`] does. Returns the number that the next run gets.
    pub(super) fn catch_up(&self, manager: &ConcurrencyManager) -> u64 {
        self.open(manager);
        let mut inner = self.inner();
        let Inner {
            grants, seen, next, ..
        } = &mut *inner;
        while seen.len() < MOST
            && let Some(Some(Some(lease))) =
                grants.as_mut().map(|grants| grants.next().now_or_never())
        {
            seen.push_back(Seen {
                number: *next,
                repository: lease.repository().clone(),
                run: lease.run().clone(),
            });
            *next += 1;
        }
        *next
    }

    /// Forgets the runs of a Repository that have been handed out or are over, as a state shows
    /// that was read after the runs with numbers below `before` had come.
    pub(super) fn forget(
        &self,
        repository: &RepositoryKey,
        before: u64,
        is_open: impl Fn(&PipelineRunKey) -> bool,
    ) {
        let stays = |seen: &Seen| {
            seen.repository != *repository || seen.number >= before || is_open(&seen.run)
        };
        self.inner().seen.retain(stays);
    }

    fn lend(&self, manager: &ConcurrencyManager) -> Option<Grants> {
        self.open(manager);
        let mut inner = self.inner();
        let grants = inner.grants.take();
        inner.lent |= grants.is_some();
        grants
    }

    fn take_back(&self, grants: Option<Grants>) {
        let mut inner = self.inner();
        inner.grants = grants;
        inner.lent = false;
    }

    fn next_seen(&self) -> Option<(RepositoryKey, PipelineRunKey)> {
        let seen = self.inner().seen.pop_front()?;
        Some((seen.repository, seen.run))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The runs that got a slot while no caller asked, one after the other.
#[derive(Debug)]
pub struct Wakes {
    shared: Arc<Shared>,
    /// Gone only once this is dropped.
    grants: Option<Grants>,
}

impl Wakes {
    pub(super) fn of(shared: &Arc<Shared>) -> Option<Self> {
        let grants = shared.stream.lend(&shared.manager)?;
        Some(Self {
            shared: Arc::clone(shared),
            grants: Some(grants),
        })
    }

    /// Waits for the next one: have it reconciled, or call
    /// [`QueueManager::add_list_to_running_queue`] for its Repository, with an empty list. It may
    /// have been handed out meanwhile. `None` when the manager was closed. Cancel-safe.
    ///
    /// [`QueueManager::add_list_to_running_queue`]: super::QueueManager::add_list_to_running_queue
    pub async fn next(&mut self) -> Option<(RepositoryKey, PipelineRunKey)> {
        if let Some(seen) = self.shared.stream.next_seen() {
            return Some(seen);
        }
        let lease = self.grants.as_mut()?.next().await?;
        Some((lease.repository().clone(), lease.run().clone()))
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.shared.stream.take_back(self.grants.take());
    }
}
