//! The objects of the cluster in memory, and how they change.

use std::collections::{BTreeMap, BTreeSet};

use pac_core::{Limit, PipelineRunKey, RepositoryKey, Timestamp, Uid};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::faults::{ClusterFaults, Requests, Script};
use super::ledger::Ledger;
use super::tekton::{self, Did, TektonMode};
use crate::cluster::{ClusterEvent, Unreadable};
use crate::model::{NamespaceView, RepositoryView, ResourceVersion, RunView, SpecStatus};

/// 2026-06-01T00:00:00Z.
pub(super) const EPOCH: Timestamp = Timestamp::from_unix_millis(1_780_272_000_000);

/// Everything that is behind the cluster's one lock.
#[derive(Debug)]
pub(super) struct World {
    begun: Instant,
    version: u64,
    created: u64,
    pub(super) global: RepositoryKey,
    pub(super) runs: BTreeMap<PipelineRunKey, RunView>,
    pub(super) repositories: BTreeMap<RepositoryKey, RepositoryView>,
    /// Whether lists leave out the runs that are done.
    pub(super) lists_unended: bool,
    /// `None` of a cluster that does not know Namespaces.
    pub(super) namespaces: Option<BTreeMap<String, NamespaceView>>,
    pub(super) unreadable_runs: Vec<Unreadable>,
    pub(super) unreadable_repositories: Vec<Unreadable>,
    watchers: Vec<mpsc::UnboundedSender<ClusterEvent>>,
    pub(super) faults: ClusterFaults,
    pub(super) script: Script,
    /// The runs that the cluster does not let start.
    pub(super) refused: BTreeSet<PipelineRunKey>,
    /// The one namespace whose runs lists show; all of them, if there is none.
    pub(super) followed_namespace: Option<String>,
    /// Whether watches miss what happens.
    pub(super) loses_events: bool,
    pub(super) chance: fastrand::Rng,
    pub(super) requests: Requests,
    pub(super) ledger: Ledger,
    pub(super) tekton: TektonMode,
}

impl World {
    pub(super) fn new(seed: u64, global: RepositoryKey) -> Self {
        Self {
            begun: Instant::now(),
            version: 1,
            created: 0,
            global,
            runs: BTreeMap::new(),
            repositories: BTreeMap::new(),
            lists_unended: false,
            namespaces: None,
            unreadable_runs: Vec::new(),
            unreadable_repositories: Vec::new(),
            watchers: Vec::new(),
            faults: ClusterFaults::default(),
            script: Script::default(),
            refused: BTreeSet::new(),
            followed_namespace: None,
            loses_events: false,
            chance: fastrand::Rng::with_seed(seed),
            requests: Requests::default(),
            ledger: Ledger::default(),
            tekton: TektonMode::default(),
        }
    }

    /// The cluster's clock.
    pub(super) fn now(&self) -> Timestamp {
        EPOCH.plus(self.begun.elapsed())
    }

    /// In whole seconds, as Kubernetes keeps it.
    pub(super) fn now_in_seconds(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.now().as_unix_millis() / 1_000 * 1_000)
    }

    pub(super) fn version(&self) -> ResourceVersion {
        ResourceVersion::new(self.version)
    }

    pub(super) fn next_version(&mut self) -> ResourceVersion {
        self.version += 1;
        self.version()
    }

    pub(super) fn next_uid(&mut self) -> Option<Uid> {
        self.created += 1;
        format!("uid-{}", self.created).parse().ok()
    }

    pub(super) fn watch(&mut self) -> mpsc::UnboundedReceiver<ClusterEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.watchers.push(sender);
        receiver
    }

    pub(super) fn cut_watches(&mut self) {
        self.watchers.clear();
    }

    pub(super) fn tell(&mut self, event: &ClusterEvent) {
        if self.loses_events {
            return;
        }
        self.watchers
            .retain(|watcher| watcher.send(event.clone()).is_ok());
    }

    /// Puts a run in, or changes it; Tekton acts if it is to act at once.
    pub(super) fn put(&mut self, mut run: RunView) {
        run.version = Some(self.next_version());
        let key = run.key.clone();
        self.keep_books(&run);
        self.runs.insert(key.clone(), run.clone());
        self.tell(&ClusterEvent::RunApplied(run));
        if self.tekton == TektonMode::Immediate {
            while self.tekton_acts_on(&key) {}
        }
    }

    /// Changes a run, if there is one.
    pub(super) fn change(
        &mut self,
        key: &PipelineRunKey,
        change: impl FnOnce(&mut RunView),
    ) -> bool {
        let Some(mut run) = self.runs.get(key).cloned() else {
            return false;
        };
        change(&mut run);
        self.put(run);
        true
    }

    /// Lets Tekton do one thing with a run. False when there is nothing to do.
    pub(super) fn tekton_acts_on(&mut self, key: &PipelineRunKey) -> bool {
        let now = self.now_in_seconds();
        let Some(mut run) = self.runs.get(key).cloned() else {
            return false;
        };
        let Some(did) = tekton::step(&mut run, now) else {
            return false;
        };
        match did {
            Did::Began => self.ledger.begin(key, &run.uid),
            Did::RanFinally => {
                self.ledger.ran_finally.insert(key.clone());
            }
            Did::Noted | Did::Ended => {}
        }
        run.version = Some(self.next_version());
        self.keep_books(&run);
        self.runs.insert(key.clone(), run.clone());
        self.tell(&ClusterEvent::RunApplied(run));
        true
    }

    pub(super) fn remove(&mut self, key: &PipelineRunKey) -> Option<RunView> {
        let mut run = self.runs.remove(key)?;
        run.version = Some(self.next_version());
        if let Some(repository) = run.repository() {
            self.ledger.ended(&repository, &run.uid);
        }
        self.tell(&ClusterEvent::RunDeleted(run.clone()));
        Some(run)
    }

    /// The limit in force for a Repository: its own, else the global one's.
    pub(super) fn limit(&self, repository: &RepositoryKey) -> Limit {
        let of = |key: &RepositoryKey| self.repositories.get(key)?.limit;
        of(repository)
            .or_else(|| of(&self.global))
            .unwrap_or(Limit::UNLIMITED)
    }

    fn keep_books(&mut self, run: &RunView) {
        let Some(repository) = run.repository() else {
            return;
        };
        // A graceful cancel runs the `finally` tasks: that counts.
        let runs = match run.spec_status {
            SpecStatus::Pending | SpecStatus::Cancelled | SpecStatus::Unknown(_) => {
                run.started.is_some()
            }
            _ => true,
        };
        if run.is_done() || !runs {
            self.ledger.ended(&repository, &run.uid);
        } else {
            self.ledger.runs(&repository, &run.uid);
        }
    }
}
