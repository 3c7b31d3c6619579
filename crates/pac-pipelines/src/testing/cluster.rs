//! The cluster in memory, as a test sees it: its users, Tekton, and its past.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pac_core::{Limit, PipelineRunKey, RepositoryKey, Timestamp, Uid};

use super::faults::{ClusterFaults, Requests, StartFault};
use super::tekton::{self, TektonMode};
use super::world::{EPOCH, World};
use crate::cluster::{ClusterEvent, Unreadable, UnreadableObject};
use crate::error::ModelError;
use crate::model::{
    ConditionStatus, ExecutionOrder, NamespaceView, PacState, RepositoryView, RunView, SpecStatus,
};
use crate::vocabulary;

/// A cluster in memory. Clones are the same cluster.
///
/// Its clock starts at [`MemoryCluster::EPOCH`] and follows tokio's.
#[derive(Debug, Clone)]
pub struct MemoryCluster {
    world: Arc<Mutex<World>>,
}

/// A run that a user, or Pipelines-as-Code, is about to create.
#[derive(Debug, Clone)]
pub struct NewRun {
    key: PipelineRunKey,
    view: Vec<Mark>,
}

#[derive(Debug, Clone)]
enum Mark {
    Label(&'static str, String),
    Annotation(&'static str, String),
    Status(SpecStatus),
    ManagedBy(String),
}

impl NewRun {
    /// A run without any mark, to be run at once.
    #[must_use]
    pub fn plain(key: PipelineRunKey) -> Self {
        Self {
            key,
            view: Vec::new(),
        }
    }

    /// A run as Pipelines-as-Code creates it for a Repository with a limit: held back, in the
    /// state `queued`, without an order.
    #[must_use]
    pub fn held(key: PipelineRunKey, repository: &RepositoryKey) -> Self {
        Self::of(key, repository)
            .annotated(vocabulary::STATE, PacState::Queued.as_str())
            .with_status(SpecStatus::Pending)
    }

    /// A run as Pipelines-as-Code creates it for a Repository without a limit: to be run at once.
    #[must_use]
    pub fn of(key: PipelineRunKey, repository: &RepositoryKey) -> Self {
        Self::plain(key)
            .labelled(vocabulary::MANAGED_BY, vocabulary::PAC_MANAGER)
            .labelled(vocabulary::STATE, PacState::Started.as_str())
            .annotated(vocabulary::REPOSITORY, repository.name())
    }

    /// With a label.
    #[must_use]
    pub fn labelled(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.view.push(Mark::Label(name, value.into()));
        self
    }

    /// With an annotation.
    #[must_use]
    pub fn annotated(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.view.push(Mark::Annotation(name, value.into()));
        self
    }

    /// With this `spec.status`.
    #[must_use]
    pub fn with_status(mut self, status: SpecStatus) -> Self {
        self.view.push(Mark::Status(status));
        self
    }

    /// With this `spec.managedBy`.
    #[must_use]
    pub fn managed_by(mut self, manager: impl Into<String>) -> Self {
        self.view.push(Mark::ManagedBy(manager.into()));
        self
    }

    fn into_view(self, uid: Uid, created: Timestamp) -> RunView {
        let mut view = RunView::new(self.key, uid);
        view.created = Some(created);
        for mark in self.view {
            match mark {
                Mark::Label(name, value) => {
                    let is_named = vocabulary::LABELS.contains(&name);
                    let labels = match is_named {
                        true => &mut view.labels,
                        false => &mut view.other_labels,
                    };
                    labels.insert(name.to_owned(), value);
                }
                Mark::Annotation(name, value) => {
                    view.annotations.insert(name.to_owned(), value);
                }
                Mark::Status(status) => view.spec_status = status,
                Mark::ManagedBy(manager) => view.managed_by = Some(manager),
            }
        }
        view
    }
}

impl MemoryCluster {
    /// What its clock shows at the start: 2026-06-01, midnight UTC.
    pub const EPOCH: Timestamp = EPOCH;

    /// An empty cluster whose chances come from `seed`. Its global Repository, if there is ever
    /// one, is `global`.
    #[must_use]
    pub fn new(seed: u64, global: RepositoryKey) -> Self {
        Self {
            world: Arc::new(Mutex::new(World::new(seed, global))),
        }
    }

    // What users do.

    /// Creates a Repository, or changes its limit; [`Limit::UNLIMITED`] is none.
    pub fn apply_repository(&self, key: &RepositoryKey, limit: Limit) {
        let mut world = self.world();
        let known = world.repositories.get(key).cloned();
        let mut view = known
            .unwrap_or_else(|| RepositoryView::new(key.clone()))
            .with_limit(limit);
        view.version = Some(world.next_version());
        world.repositories.insert(key.clone(), view.clone());
        world.tell(&ClusterEvent::RepositoryApplied(view));
    }

    /// Writes an annotation of [`vocabulary::REPOSITORY_ANNOTATIONS`] on a Repository that is there.
    pub fn annotate_repository(&self, key: &RepositoryKey, annotation: &str, value: &str) {
        self.change_repository(key, |view| {
            view.annotations
                .insert(annotation.to_owned(), value.to_owned());
        });
    }

    /// Gives a Repository that is there a limit of both kinds.
    pub fn put_in_two_modes(&self, key: &RepositoryKey) {
        self.change_repository(key, |view| view.in_two_modes = true);
    }

    fn change_repository(&self, key: &RepositoryKey, change: impl FnOnce(&mut RepositoryView)) {
        let mut world = self.world();
        let version = world.next_version();
        if let Some(view) = world.repositories.get_mut(key) {
            change(view);
            view.version = Some(version);
            let view = view.clone();
            world.tell(&ClusterEvent::RepositoryApplied(view));
        }
    }

    /// Creates a Namespace, or replaces its annotations. From the first one on, the cluster lists
    /// its Namespaces.
    pub fn apply_namespace(&self, name: &str, annotations: &[(&str, &str)]) {
        let mut world = self.world();
        let mut view = NamespaceView::new(name);
        let annotations = annotations.iter();
        let annotations =
            annotations.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        view.annotations.extend(annotations);
        view.version = Some(world.next_version());
        let namespaces = world.namespaces.get_or_insert_default();
        namespaces.insert(name.to_owned(), view.clone());
        world.tell(&ClusterEvent::NamespaceApplied(view));
    }

    /// Writes a label on a run that no rule of ours speaks of.
    pub fn relabel(&self, run: &PipelineRunKey, label: &str, value: &str) {
        self.world().change(run, |run| {
            run.other_labels.insert(label.to_owned(), value.to_owned());
        });
    }

    /// Deletes a Repository. Its runs stay.
    pub fn delete_repository(&self, key: &RepositoryKey) {
        let mut world = self.world();
        if let Some(mut view) = world.repositories.remove(key) {
            view.version = Some(world.next_version());
            world.tell(&ClusterEvent::RepositoryDeleted(view));
        }
    }

    /// Creates a run. One of this name that is there stays as it is.
    pub fn create(&self, run: NewRun) -> Option<RunView> {
        let mut world = self.world();
        if world.runs.contains_key(&run.key) {
            return None;
        }
        let (key, uid) = (run.key.clone(), world.next_uid()?);
        let view = run.into_view(uid, world.now_in_seconds());
        world.put(view);
        world.runs.get(&key).cloned()
    }

    /// Writes the order of an event's runs on each of them.
    pub fn set_order(&self, runs: &[PipelineRunKey]) {
        let order = ExecutionOrder::of(runs.iter().cloned()).to_string();
        for run in runs {
            self.mark(run, vocabulary::EXECUTION_ORDER, &order);
        }
    }

    /// Writes an annotation on a run.
    pub fn mark(&self, run: &PipelineRunKey, annotation: &str, value: &str) {
        self.world().change(run, |run| {
            run.annotations
                .insert(annotation.to_owned(), value.to_owned());
        });
    }

    /// Sets the `spec.status` of a run, as its user would. False where the webhook refuses it:
    /// there is no such run, it is done, or has started and is not to be held back.
    pub fn set_status(&self, run: &PipelineRunKey, status: SpecStatus) -> bool {
        let mut world = self.world();
        let allowed = world.runs.get(run).is_some_and(|run| {
            !run.is_done() && (status != SpecStatus::Pending || !run.has_started())
        });
        allowed && world.change(run, |run| run.spec_status = status)
    }

    /// Deletes a run.
    pub fn delete(&self, run: &PipelineRunKey) -> Option<RunView> {
        self.world().remove(run)
    }

    /// Asks for the deletion of a run that a finalizer keeps.
    pub fn begin_deletion(&self, run: &PipelineRunKey) {
        let now = self.now();
        self.world().change(run, |run| run.deleted = Some(now));
    }

    /// A run of this name that cannot be understood.
    pub fn add_unreadable_run(&self, run: &PipelineRunKey) {
        let error = ModelError::new(format!("PipelineRun {run}"), "status", "must be a mapping");
        let unreadable = Unreadable::new(UnreadableObject::Run(run.clone()), error);
        let mut world = self.world();
        world.unreadable_runs.push(unreadable.clone());
        world.tell(&ClusterEvent::Unreadable(unreadable));
    }

    /// Leaves the runs that are done out of all lists from now on, as a selection by labels does.
    pub fn list_the_unended(&self) {
        self.world().lists_unended = true;
    }

    /// Makes a Repository one that cannot be understood, from now on.
    pub fn break_repository(&self, key: &RepositoryKey) {
        let rule = "must be a whole number of at least 1, not -1; leave it out for no limit";
        let object = format!("Repository {key}");
        let error = ModelError::new(object, "spec.concurrency_limit", rule);
        let unreadable = Unreadable::new(UnreadableObject::Repository(key.clone()), error);
        let mut world = self.world();
        world.repositories.remove(key);
        world.unreadable_repositories.push(unreadable.clone());
        world.tell(&ClusterEvent::Unreadable(unreadable));
    }

    // What Tekton does.

    /// Whether Tekton acts by itself from now on.
    pub fn set_tekton(&self, mode: TektonMode) {
        self.world().tekton = mode;
        if mode == TektonMode::Immediate {
            while self.tekton() {}
        }
    }

    /// Lets Tekton do one thing with every run. False when there was nothing to do.
    pub fn tekton(&self) -> bool {
        let mut world = self.world();
        let runs: Vec<_> = world.runs.keys().cloned().collect();
        let mut acted = false;
        for run in runs {
            acted |= world.tekton_acts_on(&run);
        }
        acted
    }

    /// Ends a run that Tekton has begun with. False when there is none.
    pub fn finish(&self, run: &PipelineRunKey, succeeded: bool) -> bool {
        let mut world = self.world();
        let runs = |run: &RunView| run.has_started() && !run.is_done();
        if !world.runs.get(run).is_some_and(runs) {
            return false;
        }
        let now = world.now_in_seconds();
        world.change(run, |run| {
            if succeeded {
                tekton::end(run, ConditionStatus::True, "Succeeded", now);
            } else {
                tekton::end(run, ConditionStatus::False, "Failed", now);
            }
        })
    }

    // What goes wrong.

    /// Sets the faults of the API from now on.
    pub fn set_faults(&self, faults: ClusterFaults) {
        self.world().faults = faults;
    }

    /// The next start that nothing else is decided for meets this.
    pub fn fail_next_start(&self, fault: StartFault) {
        self.world().script.push(fault);
    }

    /// Refuses all starts of a run from now on (409), as a webhook may.
    pub fn refuse_starts_of(&self, run: &PipelineRunKey) {
        self.world().refused.insert(run.clone());
    }

    /// Leaves the runs of all other namespaces out of the lists from now on, as a controller of one
    /// namespace does. Watches show them all the same.
    pub fn follow_one_namespace(&self, namespace: &str) {
        self.world().followed_namespace = Some(namespace.to_owned());
    }

    /// Whether watches miss what happens from now on. They are not told of it.
    pub fn lose_events(&self, lose: bool) {
        self.world().loses_events = lose;
    }

    /// Ends all watches.
    pub fn cut_watches(&self) {
        self.world().cut_watches();
    }

    /// Hands an event to all watches, as a watch that lags does.
    pub fn repeat(&self, event: &ClusterEvent) {
        self.world().tell(event);
    }

    // What is to be seen.

    /// The cluster's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.world().now()
    }

    /// A run as it is now.
    #[must_use]
    pub fn view(&self, run: &PipelineRunKey) -> Option<RunView> {
        self.world().runs.get(run).cloned()
    }

    /// All runs as they are now.
    #[must_use]
    pub fn views(&self) -> Vec<RunView> {
        self.world().runs.values().cloned().collect()
    }

    /// How many requests came since the last call.
    #[must_use]
    pub fn take_requests(&self) -> Requests {
        std::mem::take(&mut self.world().requests)
    }

    /// How many runs of a Repository run or are to run.
    #[must_use]
    pub fn running(&self, repository: &RepositoryKey) -> usize {
        self.world().ledger.running(repository)
    }

    /// How many runs of a Repository ran at once at most.
    #[must_use]
    pub fn peak(&self, repository: &RepositoryKey) -> usize {
        self.world().ledger.peak(repository)
    }

    /// The runs that were started by a request, in that order.
    #[must_use]
    pub fn started(&self) -> Vec<PipelineRunKey> {
        self.world().ledger.started.clone()
    }

    /// Whether the `finally` tasks of a cancelled run ran.
    #[must_use]
    pub fn ran_finally(&self, run: &PipelineRunKey) -> bool {
        self.world().ledger.ran_finally.contains(run)
    }

    /// What must never happen and did: a start beyond the limit that the cluster had at that
    /// moment, a run that began twice.
    #[must_use]
    pub fn breaches(&self) -> Vec<String> {
        self.world().ledger.breaches.clone()
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn shared_world(&self) -> Arc<Mutex<World>> {
        Arc::clone(&self.world)
    }
}
