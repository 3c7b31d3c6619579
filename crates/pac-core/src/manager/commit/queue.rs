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
    /// Those of them that take what is ready, and are not on their way.
    gathering: usize,
    ready: VecDeque<Token>,
}

impl CommitQueue {
    pub(in crate::manager) fn new(most_workers: usize) -> Self {
        Self {
            most_workers: most_workers.max(1),
            inner: Mutex::default(),
        }
    }

    /// Adds a repository. True when the caller has to start a worker: none takes what is ready. A
    /// second one would only split the batch, and wake a thread for it.
    pub(super) fn push(&self, token: Token) -> bool {
        let mut inner = self.inner();
        inner.ready.push_back(token);
        self.starts(&mut inner)
    }

    /// A worker leaves with what it has. True when it has to start another one for the rest.
    pub(super) fn leave(&self) -> bool {
        let mut inner = self.inner();
        inner.gathering -= 1;
        !inner.ready.is_empty() && self.starts(&mut inner)
    }

    /// A worker is back, and takes what is ready.
    pub(super) fn come_back(&self) {
        self.inner().gathering += 1;
    }

    /// Counts a worker that is to be started, if one is needed and there may be one more.
    fn starts(&self, inner: &mut Inner) -> bool {
        let starts = inner.gathering == 0 && inner.workers < self.most_workers;
        inner.workers += usize::from(starts);
        inner.gathering += usize::from(starts);
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
        inner.gathering -= usize::from(rests);
        rests
    }

    /// A worker has died. True when the caller has to start another one in its place.
    pub(super) fn worker_died(&self, gathered: bool) -> bool {
        let mut inner = self.inner();
        inner.workers -= 1;
        inner.gathering -= usize::from(gathered);
        !inner.ready.is_empty() && self.starts(&mut inner)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
