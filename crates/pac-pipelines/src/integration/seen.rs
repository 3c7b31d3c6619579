//! What has been seen of the cluster: the latest state of every object.

mod groups;
mod queues;
mod sections;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use pac_core::{FencingToken, PipelineRunKey, RepositoryKey, Uid};
use tokio::time::Instant;

use super::limits::EffectiveLimit;
use crate::cluster::{ClusterEvent, Listing, Unreadable, UnreadableObject};
use crate::error::ModelError;
use crate::model::{RepositoryView, ResourceVersion, RunView, SpecStatus};
use crate::policy::RepositoryPolicies;
use crate::vocabulary;
pub(super) use groups::is_superseded;
use queues::{Lanes, Placed};

/// The latest state of every object, whatever order the events came in.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    global: Option<RepositoryKey>,
    global_absent_at: Option<ResourceVersion>,
    repositories: HashMap<RepositoryKey, RepositoryState>,
    runs: HashMap<PipelineRunKey, SeenRun>,
    by_repository: HashMap<RepositoryKey, BTreeSet<PipelineRunKey>>,
    /// Runs that are certainly gone, until the next list: what comes late of them is passed over.
    gone: HashMap<PipelineRunKey, HashSet<Uid>>,
    unreadable_runs: HashSet<PipelineRunKey>,
    lanes: Lanes,
    sections: sections::SectionIndex,
}

/// A Repository as it was seen last.
#[derive(Debug, Clone)]
pub(crate) enum RepositoryState {
    /// It can be understood; with what its annotations say about its runs.
    Known(RepositoryView, Arc<RepositoryPolicies>),
    /// It is there, and its limit is not known, for this reason: nothing is admitted.
    Unreadable(ModelError),
    /// It was deleted.
    Deleted(Option<ResourceVersion>),
}

#[derive(Debug)]
struct SeenRun {
    view: Arc<RunView>,
    /// The queue that it belongs to.
    placed: Placed,
    since: Instant,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Touched {
    /// One run of a Repository.
    Run(RepositoryKey, PipelineRunKey),
    /// One run, and these Repositories: it belonged to one and belongs to another, or to none.
    Moved(Vec<RepositoryKey>, PipelineRunKey),
    /// The limits, or the existence, of these Repositories, or which runs belong to them.
    Repositories(Vec<RepositoryKey>),
    /// Nothing that matters.
    Nothing,
    /// Everything: list again.
    Everything,
}

impl Seen {
    pub(crate) fn new(global: Option<RepositoryKey>) -> Self {
        Self {
            global,
            ..Self::default()
        }
    }

    /// The same, where Namespaces say which queues there are.
    pub(crate) fn with_lanes(mut self) -> Self {
        self.lanes = Lanes::on();
        self
    }

    /// Takes an event in. What is older than what is known changes nothing.
    pub(crate) fn observe(&mut self, event: ClusterEvent) -> Touched {
        match event {
            ClusterEvent::RunApplied(view) => self.apply_run(view),
            ClusterEvent::RunDeleted(view) => self.delete_run(&view),
            ClusterEvent::RepositoryApplied(view) => self.apply_repository(view),
            ClusterEvent::RepositoryDeleted(view) => self.delete_repository(&view),
            ClusterEvent::NamespaceApplied(view) => self.apply_namespace(&view),
            ClusterEvent::NamespaceDeleted(view) => self.delete_namespace(&view),
            ClusterEvent::Unreadable(unreadable) => self.unreadable(unreadable),
            ClusterEvent::Missed => Touched::Everything,
        }
    }

    /// Takes complete lists in: what is not in them is gone, unless it is newer than they are.
    pub(crate) fn replace(
        &mut self,
        repositories: Listing<RepositoryView>,
        runs: Listing<RunView>,
    ) {
        let listed: HashSet<_> = runs.items.iter().map(|run| run.uid.clone()).collect();
        self.sections.saw_repositories(repositories.version);
        self.gone.clear();
        self.unreadable_runs.clear();
        let is_unreadable = |run: &PipelineRunKey| {
            let object = UnreadableObject::Run(run.clone());
            runs.unreadable.iter().any(|other| other.object == object)
        };
        let missing: Vec<_> = self
            .runs
            .values()
            .filter(|seen| !listed.contains(&seen.view.uid))
            .filter(|seen| !is_newer(seen.view.version, runs.version))
            // It is there, and as far as is known it is as it was.
            .filter(|seen| !is_unreadable(&seen.view.key))
            .map(|seen| Arc::clone(&seen.view))
            .collect();
        for view in missing {
            self.forget(&view.key, &view.uid);
        }
        for view in runs.items {
            self.apply_run(view);
        }
        let listed: HashSet<_> = repositories
            .items
            .iter()
            .map(|view| view.key.clone())
            .collect();
        // What was deleted before has been seen to by now, or comes up as missing.
        self.global_absent_at = self.global_absent_at.max(self.global_limit().version);
        self.repositories.retain(|_, state| state.exists());
        for (key, state) in &mut self.repositories {
            if !listed.contains(key) && !is_newer(state.version(), repositories.version) {
                *state = RepositoryState::Deleted(repositories.version);
            }
        }
        if let Some(global) = self
            .global
            .as_ref()
            .filter(|global| !listed.contains(global))
        {
            let known = self.repositories.get(global);
            if known.is_none_or(|state| matches!(state, RepositoryState::Deleted(_))) {
                self.global_absent_at = self.global_absent_at.max(repositories.version);
            }
        }
        for view in repositories.items {
            self.apply_repository(view);
        }
        for unreadable in repositories.unreadable.into_iter().chain(runs.unreadable) {
            self.unreadable(unreadable);
        }
    }

    /// A run that was said to be gone is there.
    pub(crate) fn is_back(&mut self, view: RunView) -> Touched {
        if let Some(gone) = self.gone.get_mut(&view.key) {
            gone.remove(&view.uid);
        }
        self.apply_run(view)
    }

    /// A run was started with `token`, and the event that shows it has not come yet.
    pub(crate) fn started(&mut self, run: &PipelineRunKey, uid: &Uid, token: FencingToken) {
        let Some(seen) = self.runs.get_mut(run).filter(|seen| seen.view.uid == *uid) else {
            return;
        };
        if seen.view.spec_status == SpecStatus::Pending {
            let view = Arc::make_mut(&mut seen.view);
            view.spec_status = SpecStatus::None;
            view.annotations
                .insert(vocabulary::TOKEN.to_owned(), token.to_string());
        }
    }

    pub(crate) fn run(&self, run: &PipelineRunKey) -> Option<&Arc<RunView>> {
        Some(&self.runs.get(run)?.view)
    }

    /// A run, if it belongs to a Repository.
    pub(crate) fn run_of(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
    ) -> Option<&Arc<RunView>> {
        let seen = self.runs.get(run);
        let seen = seen.filter(|seen| seen.placed.queue() == Some(repository))?;
        Some(&seen.view)
    }

    /// How long ago a run was seen first.
    pub(crate) fn seen_for(&self, run: &PipelineRunKey) -> Duration {
        let seen = self.runs.get(run);
        seen.map_or(Duration::ZERO, |seen| seen.since.elapsed())
    }

    /// Whether a run is certainly gone.
    pub(crate) fn is_gone(&self, run: &PipelineRunKey, uid: &Uid) -> bool {
        self.gone.get(run).is_some_and(|gone| gone.contains(uid))
    }

    /// Whether there is a run of this name, as far as is known.
    pub(crate) fn has_run(&self, run: &PipelineRunKey) -> bool {
        self.runs.contains_key(run) || self.unreadable_runs.contains(run)
    }

    /// The runs of a Repository, as they are.
    pub(crate) fn views_of(
        &self,
        repository: &RepositoryKey,
    ) -> impl Iterator<Item = &Arc<RunView>> {
        let runs = self.by_repository.get(repository);
        runs.into_iter().flatten().filter_map(|run| self.run(run))
    }

    /// The runs of a Repository.
    pub(crate) fn runs_of(&self, repository: &RepositoryKey) -> Vec<PipelineRunKey> {
        let runs = self.by_repository.get(repository);
        runs.map_or_else(Vec::new, |runs| runs.iter().cloned().collect())
    }

    /// The Repositories that runs belong to, whether they are there or not.
    pub(crate) fn with_runs(&self) -> Vec<RepositoryKey> {
        self.by_repository.keys().cloned().collect()
    }

    /// How many runs there are.
    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }

    fn apply_run(&mut self, mut view: RunView) -> Touched {
        if self.is_gone(&view.key, &view.uid) {
            return Touched::Nothing;
        }
        if !self.lanes.are_on() {
            view.other_labels.clear();
            view.other_annotations.clear();
        }
        let mut since = Instant::now();
        let mut before = Placed::default();
        let mut matters = true;
        if let Some(known) = self.runs.get(&view.key) {
            let version = view.version;
            let is_same = known.view.uid == view.uid && known.view.version == version;
            if is_newer(known.view.version, version) || (is_same && version.is_some()) {
                return Touched::Nothing;
            }
            if known.view.uid == view.uid {
                since = known.since;
            }
            before = known.placed.clone();
            matters = differs(&known.view, &view);
        }
        let (key, placed) = (view.key.clone(), self.place(&view));
        let (queue, queue_before) = (placed.queue().cloned(), before.queue().cloned());
        matters |= placed != before;
        self.unlink(
            queue_before.as_ref().filter(|_| queue_before != queue),
            &key,
        );
        self.unreadable_runs.remove(&key);
        self.link(&placed, &key);
        let seen = SeenRun {
            view: Arc::new(view),
            placed,
            since,
        };
        let after = Arc::clone(&seen.view);
        let known = self.runs.insert(key.clone(), seen);
        if matters {
            let known = known.as_ref().map(|known| &*known.view);
            self.sections.replace(known, Some(&after));
        }
        if queue_before.is_some() && queue_before != queue {
            return Touched::Moved(queue_before.into_iter().chain(queue).collect(), key);
        }
        match queue {
            Some(queue) if matters => Touched::Run(queue, key),
            _ => Touched::Nothing,
        }
    }

    fn delete_run(&mut self, view: &RunView) -> Touched {
        let known = self.runs.get(&view.key);
        let known = known.filter(|known| known.view.uid == view.uid);
        let queue = match known {
            Some(known) => known.placed.queue().cloned(),
            None => self.place(view).queue().cloned(),
        };
        self.forget(&view.key, &view.uid);
        match queue {
            Some(repository) => Touched::Run(repository, view.key.clone()),
            None => Touched::Nothing,
        }
    }

    fn forget(&mut self, key: &PipelineRunKey, uid: &Uid) {
        self.gone
            .entry(key.clone())
            .or_default()
            .insert(uid.clone());
        if let Some(known) = self.runs.remove(key) {
            if known.view.uid == *uid {
                self.sections.replace(Some(&known.view), None);
                self.unlink(known.placed.queue(), key);
            } else {
                self.runs.insert(key.clone(), known);
            }
        }
    }

    fn apply_repository(&mut self, view: RepositoryView) -> Touched {
        let key = view.key.clone();
        if self
            .repositories
            .get(&key)
            .is_some_and(|known| is_newer(known.version(), view.version))
        {
            return Touched::Nothing;
        }
        let policies = Arc::new(RepositoryPolicies::of(&view));
        self.set_repository(key, RepositoryState::Known(view, policies))
    }

    fn delete_repository(&mut self, view: &RepositoryView) -> Touched {
        let known = self.repositories.get(&view.key);
        if known.is_some_and(|known| is_newer(known.version(), view.version)) {
            return Touched::Nothing;
        }
        self.set_repository(view.key.clone(), RepositoryState::Deleted(view.version))
    }

    fn set_repository(&mut self, key: RepositoryKey, state: RepositoryState) -> Touched {
        self.sections.saw_repositories(state.version());
        let (existed, before) = (self.exists(&key), self.limit(&key));
        let policies_before = self.annotations(&key).cloned();
        let global_before = self.global_in_force();
        self.repositories.insert(key.clone(), state);
        let limit = |effective: Option<EffectiveLimit>| effective.map(|effective| effective.limit);
        let mut touched = Vec::new();
        // Its status, which changes with every run, is of no interest.
        if self.global_in_force() != global_before {
            touched = self.under_global();
            touched.retain(|other| *other != key);
        }
        let is_other_limit = limit(self.limit(&key)) != limit(before);
        let are_other_policies = self.annotations(&key) != policies_before.as_ref();
        if self.exists(&key) != existed || is_other_limit || are_other_policies {
            // Where there are lanes, its runs are in them.
            touched.extend(self.lanes_of(key.namespace()));
            touched.push(key);
        }
        if touched.is_empty() {
            Touched::Nothing
        } else {
            Touched::Repositories(touched)
        }
    }

    fn annotations(&self, key: &RepositoryKey) -> Option<&BTreeMap<String, String>> {
        match self.repositories.get(key)? {
            RepositoryState::Known(view, _) => Some(&view.annotations),
            _ => None,
        }
    }

    /// Whether there is a Repository of this name.
    pub(crate) fn exists(&self, key: &RepositoryKey) -> bool {
        self.repositories
            .get(key)
            .is_some_and(RepositoryState::exists)
    }

    fn unreadable(&mut self, unreadable: Unreadable) -> Touched {
        tracing::warn!(error = %unreadable.error, "an object of the cluster cannot be understood");
        match unreadable.object {
            UnreadableObject::Run(run) => {
                self.unreadable_runs.insert(run);
                Touched::Nothing
            }
            // A limit that was known stays in force in the store.
            UnreadableObject::Repository(key) => {
                self.set_repository(key, RepositoryState::Unreadable(unreadable.error))
            }
            UnreadableObject::Nameless => Touched::Nothing,
        }
    }
}

impl RepositoryState {
    fn exists(&self) -> bool {
        !matches!(self, Self::Deleted(_))
    }

    fn version(&self) -> Option<ResourceVersion> {
        match self {
            Self::Known(view, _) => view.version,
            Self::Unreadable(_) => None,
            Self::Deleted(version) => *version,
        }
    }
}

/// Whether a run has changed in anything that is acted on. Most changes are to what a view does not
/// keep, or to what only says where it belongs; and its position is written for people, over and over.
fn differs(before: &RunView, after: &RunView) -> bool {
    let RunView {
        key,
        uid,
        version: _,
        generate_name,
        created,
        deleted,
        labels,
        annotations: _,
        other_labels: _,
        other_annotations: _,
        spec_status,
        managed_by,
        succeeded,
        started,
        completed,
    } = before;
    (key, uid, generate_name) != (&after.key, &after.uid, &after.generate_name)
        || (created, deleted, labels) != (&after.created, &after.deleted, &after.labels)
        || (spec_status, managed_by) != (&after.spec_status, &after.managed_by)
        || (succeeded, started, completed) != (&after.succeeded, &after.started, &after.completed)
        || !acted_on(before).eq(acted_on(after))
}

/// The annotations of a run but for the one that is never acted on.
fn acted_on(run: &RunView) -> impl Iterator<Item = (&String, &String)> {
    let all = run.annotations.iter();
    all.filter(|(name, _)| *name != vocabulary::POSITION)
}

/// Whether a state is certainly newer than another one.
fn is_newer(state: Option<ResourceVersion>, than: Option<ResourceVersion>) -> bool {
    matches!((state, than), (Some(state), Some(than)) if state > than)
}

#[cfg(test)]
mod tests;
