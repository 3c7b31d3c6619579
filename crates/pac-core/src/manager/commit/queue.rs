//! Repositories that have something to commit, while all workers are on their way to the store.
//! First come, first served: one that has more to commit goes to the end again, so that however
//! many are busy, each has its turn.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::token::Token;

/// See the module.
#[derive(Debug)]
pub(in crate::manager) struct CommitQueue {
    most_workers: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    workers: usize,
    ready: VecDeque<Token>,
}

impl CommitQueue {
    pub(in crate::manager) fn new(most_workers: usize) -> Self {
        Self {
            most_workers: most_workers.max(1),
            inner: Mutex::default(),
        }
    }

    /// Adds a repository. True when the caller has to start a worker.
    pub(super) fn push(&self, token: Token) -> bool {
        let mut inner = self.inner();
        inner.ready.push_back(token);
        let starts = inner.workers < self.most_workers;
        inner.workers += usize::from(starts);
        starts
    }

    /// Adds repositories that a worker has more to do for.
    pub(super) fn push_again(&self, tokens: impl Iterator<Item = Token>) {
        self.inner().ready.extend(tokens);
    }

    /// Moves what is ready to a worker, up to `most` in all.
    pub(super) fn take(&self, work: &mut Vec<Token>, most: usize) {
        let mut inner = self.inner();
        let taken = inner.ready.len().min(most.saturating_sub(work.len()));
        work.extend(inner.ready.drain(..taken));
    }

    /// A worker has nothing to do. False when something came in this instant: it goes on.
    pub(super) fn rest(&self) -> bool {
        let mut inner = self.inner();
        let rests = inner.ready.is_empty();
        inner.workers -= usize::from(rests);
        rests
    }

    /// A worker has died. True when the caller has to start another one in its place.
    pub(super) fn worker_died(&self) -> bool {
        let mut inner = self.inner();
        let goes_on = !inner.ready.is_empty();
        inner.workers -= usize::from(!goes_on);
        goes_on
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
