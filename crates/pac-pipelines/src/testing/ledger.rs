//! What a test wants to know of the past: which runs started, how often, and how many at once.

use std::collections::{BTreeMap, BTreeSet};

use pac_core::{Limit, PipelineRunKey, RepositoryKey, Uid};

/// Kept apart from the objects: they forget, and may be deleted.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The runs that are to run or do run, by repository.
    running: BTreeMap<RepositoryKey, BTreeSet<Uid>>,
    peaks: BTreeMap<RepositoryKey, usize>,
    /// The runs that were started by a request, in that order.
    pub(super) started: Vec<PipelineRunKey>,
    /// How often Tekton began with a run's tasks, and with its `finally` tasks.
    pub(super) began: BTreeMap<Uid, usize>,
    pub(super) ran_finally: BTreeSet<PipelineRunKey>,
    pub(super) breaches: Vec<String>,
}

impl Ledger {
    pub(super) fn runs(&mut self, repository: &RepositoryKey, uid: &Uid) {
        let running = self.running.entry(repository.clone()).or_default();
        running.insert(uid.clone());
        let peak = self.peaks.entry(repository.clone()).or_default();
        *peak = running.len().max(*peak);
    }

    pub(super) fn ended(&mut self, repository: &RepositoryKey, uid: &Uid) {
        if let Some(running) = self.running.get_mut(repository) {
            running.remove(uid);
        }
    }

    pub(super) fn running(&self, repository: &RepositoryKey) -> usize {
        self.running.get(repository).map_or(0, BTreeSet::len)
    }

    pub(super) fn peak(&self, repository: &RepositoryKey) -> usize {
        self.peaks.get(repository).copied().unwrap_or(0)
    }

    /// A request has started a run.
    pub(super) fn start(&mut self, run: &PipelineRunKey, repository: &RepositoryKey, limit: Limit) {
        self.started.push(run.clone());
        let running = self.running(repository);
        if limit.get().is_some_and(|limit| running > limit as usize) {
            let breach = format!("{run} was started as number {running} of {repository}: {limit}");
            self.breaches.push(breach);
        }
    }

    /// Tekton has begun with the tasks of a run.
    pub(super) fn begin(&mut self, run: &PipelineRunKey, uid: &Uid) {
        let times = self.began.entry(uid.clone()).or_default();
        *times += 1;
        if *times > 1 {
            self.breaches.push(format!("{run} began {times} times"));
        }
    }
}
