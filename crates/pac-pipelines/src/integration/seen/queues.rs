//! Which queue each run belongs to, and how many of it run at once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use pac_core::{Limit, PipelineRunKey, RepositoryKey};

use super::super::limits::{EffectiveLimit, GlobalLimit};
use super::{RepositoryState, Seen, Touched, is_newer};
use crate::cluster::Listing;
use crate::lanes::{self, Lane, NamespaceRule};
use crate::model::{NamespaceView, RepositoryView, ResourceVersion, RunView};
use crate::vocabulary;

/// What Namespaces say about queues, in a mode in which they may.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    may_be: bool,
    /// All Namespaces were listed: one that is not known then is so new that nothing may start.
    are_listed: bool,
    namespaces: HashMap<String, Namespace>,
}

#[derive(Debug)]
struct Namespace {
    version: Option<ResourceVersion>,
    annotations: BTreeMap<String, String>,
    rule: NamespaceRule,
}

/// Where a run belongs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Placed {
    queue: Option<RepositoryKey>,
    /// The lane that its queue is; `None` for a Repository, and the lane of a whole Namespace.
    lane: Option<Arc<Lane>>,
    /// Why it cannot be told where it belongs: it is counted where it was put, and not started.
    problem: Option<Arc<str>>,
}

impl Placed {
    /// The queue that the run belongs to.
    pub(super) fn queue(&self) -> Option<&RepositoryKey> {
        self.queue.as_ref()
    }

    fn in_queue(queue: Option<RepositoryKey>) -> Self {
        Self {
            queue,
            ..Self::default()
        }
    }
}

impl Lanes {
    /// Namespaces may say which queues there are, once they were listed.
    pub(super) fn on() -> Self {
        Self {
            may_be: true,
            ..Self::default()
        }
    }

    /// Whether Namespaces may say which queues there are.
    pub(super) fn are_on(&self) -> bool {
        self.may_be
    }

    fn rule(&self, namespace: &str) -> Option<&NamespaceRule> {
        Some(&self.namespaces.get(namespace)?.rule)
    }
}

impl Seen {
    /// The queue that a run belongs to, as it is here.
    pub(crate) fn queue_of(&self, run: &RunView) -> Option<RepositoryKey> {
        self.place(run).queue
    }

    /// The queue of a run that is known.
    pub(crate) fn queue_of_known(&self, run: &PipelineRunKey) -> Option<RepositoryKey> {
        self.runs.get(run)?.placed.queue().cloned()
    }

    /// Whether a queue is a lane, and no Repository's.
    pub(crate) fn is_lane(&self, key: &RepositoryKey) -> bool {
        self.lanes.are_listed && lanes::is_lane(key)
    }

    /// Whether a queue is that of a Repository that is known, or of a lane that has runs.
    pub(crate) fn is_known(&self, key: &RepositoryKey) -> bool {
        if self.is_lane(key) {
            self.by_repository.contains_key(key)
        } else {
            self.repositories.contains_key(key)
        }
    }

    /// A Repository that is known; none has the name of a lane.
    pub(crate) fn repository(&self, key: &RepositoryKey) -> Option<&RepositoryState> {
        let state = self.repositories.get(key);
        state.filter(|_| !self.is_lane(key))
    }

    /// All Repositories that are there, and all lanes that have runs, and how many runs each has.
    pub(crate) fn repositories(&self) -> impl Iterator<Item = (&RepositoryKey, usize)> {
        let there = self.repositories.iter();
        let there = there.filter(|(key, state)| state.exists() && !self.is_lane(key));
        let repositories = there.map(|(key, _)| (key, self.by_repository.get(key)));
        let lanes = self.by_repository.iter();
        let lanes = lanes.filter(|(key, _)| self.is_lane(key));
        let all = repositories.chain(lanes.map(|(key, runs)| (key, Some(runs))));
        all.map(|(key, runs)| (key, runs.map_or(0, BTreeSet::len)))
    }

    /// The limit in force for a queue; `None` where it is not there or cannot be understood.
    pub(crate) fn limit(&self, key: &RepositoryKey) -> Option<EffectiveLimit> {
        if self.is_lane(key) {
            return self.limit_of_lane(key);
        }
        let RepositoryState::Known(view, _) = self.repositories.get(key)? else {
            return None;
        };
        if view.limit.is_some() {
            return Some(EffectiveLimit::of(view, self.global_limit()));
        }
        let mut inherited = self.global_limit();
        if self.lanes.are_listed {
            let namespace = self.lanes.namespaces.get(key.namespace())?;
            inherited.version = inherited.version.max(namespace.version);
            if let Some(limit) = namespace.rule.limit().ok()? {
                inherited.limit = Some(limit);
                return Some(EffectiveLimit::of(view, inherited));
            }
        }
        (!self.global_is_unreadable()).then(|| EffectiveLimit::of(view, inherited))
    }

    /// The Repository with the `concurrency_limit` by which Pipelines-as-Code queues the runs of
    /// this one although our annotation sets a limit: itself, or the global one.
    pub(crate) fn limit_beside_annotation(&self, key: &RepositoryKey) -> Option<RepositoryKey> {
        let RepositoryState::Known(view, _) = self.repository(key)? else {
            return None;
        };
        if view.in_two_modes {
            return Some(key.clone());
        }
        let inherits = view.is_limited_by_annotation() && self.global_has_concurrency_limit();
        self.global.clone().filter(|_| inherits)
    }

    /// Why a run must not be queued, though it is held back for us: it cannot be told where it
    /// belongs, or how many may run there.
    pub(crate) fn refusal(&self, queue: &RepositoryKey, run: &RunView) -> Option<String> {
        if let Some(RepositoryState::Unreadable(error)) = self.repository(queue) {
            return Some(error.to_string());
        }
        if !self.lanes.are_listed {
            return None;
        }
        let known = self.runs.get(&run.key);
        // What was seen has its place already; an expression need not be evaluated again.
        let placed = match known.filter(|known| std::ptr::eq(&*known.view, run)) {
            Some(known) => known.placed.clone(),
            None => self.place(run),
        };
        if let Some(problem) = &placed.problem {
            return Some(problem.to_string());
        }
        let rule = self.lanes.rule(queue.namespace())?;
        if !self.is_lane(queue) {
            let state = self.repositories.get(queue);
            let inherits =
                matches!(state, Some(RepositoryState::Known(view, _)) if view.limit.is_none());
            return rule
                .limit()
                .err()
                .filter(|_| inherits)
                .map(ToString::to_string);
        }
        let limit = match &placed.lane {
            Some(lane) => rule.limit_of(lane).err(),
            None => rule.limit().err().cloned(),
        };
        let own = run.repository().filter(|_| rule.has_lanes());
        let state = own.as_ref().and_then(|key| self.repositories.get(key));
        if let Some(RepositoryState::Unreadable(error)) = state {
            return Some(error.to_string());
        }
        let is_limited =
            matches!(state, Some(RepositoryState::Known(view, _)) if view.limit.is_some());
        limit.map(|error| error.to_string()).or_else(|| {
            let own = own.filter(|_| is_limited)?;
            Some(format!(
                "Repository {own} has a limit of its own, and its Namespace has lanes; remove one \
                 of them"
            ))
        })
    }

    /// Takes a complete list of the Namespaces in: what is not in it is gone, unless it is newer.
    pub(crate) fn replace_namespaces(&mut self, listing: &Listing<NamespaceView>) {
        if !self.lanes.may_be {
            return;
        }
        let is_first = !std::mem::replace(&mut self.lanes.are_listed, true);
        let mut changed: HashSet<String> = HashSet::new();
        let listed: HashSet<String> = listing.items.iter().map(|view| view.name.clone()).collect();
        self.lanes.namespaces.retain(|name, known| {
            let stays = listed.contains(name) || is_newer(known.version, listing.version);
            if !stays {
                changed.insert(name.clone());
            }
            stays
        });
        for view in &listing.items {
            if self.set_namespace(view) {
                changed.insert(view.name.clone());
            }
        }
        if is_first {
            let all = self.runs.keys().map(|run| run.namespace().to_owned());
            changed.extend(all);
        }
        // All that has runs is looked at after a list.
        let _ = self.rearrange(&changed);
    }

    pub(super) fn apply_namespace(&mut self, view: &NamespaceView) -> Touched {
        if !self.lanes.may_be || !self.set_namespace(view) {
            return Touched::Nothing;
        }
        let touched = self.rearrange(&HashSet::from([view.name.clone()]));
        if touched.is_empty() {
            Touched::Nothing
        } else {
            Touched::Repositories(touched)
        }
    }

    /// It is known without annotations until the next list, so that nothing older counts.
    pub(super) fn delete_namespace(&mut self, view: &NamespaceView) -> Touched {
        let mut without = NamespaceView::new(view.name.clone());
        without.version = view.version;
        self.apply_namespace(&without)
    }

    /// The lanes of a namespace that have runs.
    pub(super) fn lanes_of(&self, namespace: &str) -> Vec<RepositoryKey> {
        let queues = self.by_repository.keys();
        let lanes = queues.filter(|key| key.namespace() == namespace && self.is_lane(key));
        lanes.cloned().collect()
    }

    /// Where a run belongs: to a lane, where its Namespace has lanes; else to its Repository; else
    /// to the lane of the whole Namespace, if that has a limit or the run is held back for us.
    pub(super) fn place(&self, run: &RunView) -> Placed {
        if !self.lanes.are_listed {
            return Placed::in_queue(run.repository());
        }
        let namespace = run.key.namespace();
        let of_namespace = |problem: Option<String>| Placed {
            queue: lanes::of_namespace(namespace),
            lane: None,
            problem: problem.map(Arc::from),
        };
        let rule = self.lanes.rule(namespace);
        match rule.and_then(|rule| rule.lane_of(run)) {
            Some(Ok(lane)) => {
                return Placed {
                    queue: Some(lane.key().clone()),
                    lane: Some(Arc::new(lane)),
                    problem: None,
                };
            }
            Some(Err(error)) => return of_namespace(Some(error.to_string())),
            None => {}
        }
        match run.repository() {
            Some(key) if lanes::is_lane(&key) => of_namespace(Some(format!(
                "Repository {key} has a name that begins with \"lane.\", as those of lanes do; \
                 give it another one"
            ))),
            Some(key) => Placed::in_queue(Some(key)),
            None if run.is_held_for_us() || rule.is_some_and(NamespaceRule::is_said) => {
                of_namespace(None)
            }
            None => Placed::default(),
        }
    }

    /// Puts a run into the queue where it belongs.
    pub(super) fn link(&mut self, placed: &Placed, run: &PipelineRunKey) {
        if let Some(queue) = &placed.queue {
            let runs = self.by_repository.entry(queue.clone()).or_default();
            runs.insert(run.clone());
        }
    }

    pub(super) fn unlink(&mut self, queue: Option<&RepositoryKey>, run: &PipelineRunKey) {
        if let Some(queue) = queue
            && let Some(runs) = self.by_repository.get_mut(queue)
        {
            runs.remove(run);
            if runs.is_empty() {
                self.by_repository.remove(queue);
            }
        }
    }

    /// The Repositories without a `concurrency_limit` of their own: for Pipelines-as-Code, that of
    /// the global one holds.
    pub(super) fn under_global(&self) -> Vec<RepositoryKey> {
        let is_under = |state: &RepositoryState| matches!(state, RepositoryState::Known(view, _) if !view.has_concurrency_limit);
        let all = self.repositories.iter();
        all.filter(|(_, state)| is_under(state))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// What of the global Repository matters for others: its limit, whether that is not known, and
    /// whether Pipelines-as-Code queues by it.
    pub(super) fn global_in_force(&self) -> (Option<Limit>, bool, bool) {
        let limit = self.global_limit().limit;
        (
            limit,
            self.global_is_unreadable(),
            self.global_has_concurrency_limit(),
        )
    }

    fn global_has_concurrency_limit(&self) -> bool {
        matches!(self.global_state(), Some(RepositoryState::Known(view, _)) if view.has_concurrency_limit)
    }

    fn global_is_unreadable(&self) -> bool {
        matches!(self.global_state(), Some(RepositoryState::Unreadable(_)))
    }

    pub(super) fn global_limit(&self) -> GlobalLimit {
        match self.global_state() {
            Some(RepositoryState::Known(RepositoryView { limit, version, .. }, _)) => GlobalLimit {
                limit: *limit,
                version: *version,
            },
            Some(RepositoryState::Deleted(version)) => GlobalLimit {
                limit: None,
                version: *version,
            },
            Some(RepositoryState::Unreadable(_)) | None => GlobalLimit {
                limit: None,
                version: self.global_absent_at,
            },
        }
    }

    fn global_state(&self) -> Option<&RepositoryState> {
        self.repositories.get(self.global.as_ref()?)
    }

    fn limit_of_lane(&self, key: &RepositoryKey) -> Option<EffectiveLimit> {
        let namespace = self.lanes.namespaces.get(key.namespace())?;
        // All of its runs are of the same lane.
        let runs = self.by_repository.get(key)?;
        let placed = &self.runs.get(runs.first()?)?.placed;
        let limit = match &placed.lane {
            Some(lane) => namespace.rule.limit_of(lane).ok()?,
            None => namespace.rule.limit().ok()?,
        };
        let version = namespace.version.map(Into::into);
        Some(EffectiveLimit::alone(
            limit.unwrap_or(Limit::UNLIMITED),
            version,
        ))
    }

    /// Takes in what a Namespace says. False where that is nothing new.
    fn set_namespace(&mut self, view: &NamespaceView) -> bool {
        let mut annotations = view.annotations.clone();
        annotations.retain(|name, _| vocabulary::NAMESPACE_ANNOTATIONS.contains(&name.as_str()));
        if let Some(known) = self.lanes.namespaces.get_mut(&view.name) {
            if is_newer(known.version, view.version) {
                return false;
            }
            known.version = view.version;
            if known.annotations == annotations {
                return false;
            }
        }
        let rule = NamespaceRule::of(view);
        for problem in rule.problems() {
            tracing::warn!(error = %problem, "an annotation of a Namespace breaks its rule");
        }
        let namespace = Namespace {
            version: view.version,
            annotations,
            rule,
        };
        self.lanes.namespaces.insert(view.name.clone(), namespace);
        true
    }

    /// Puts the runs of these namespaces where they belong now. Answers with all queues there, those
    /// that they have left among them.
    fn rearrange(&mut self, namespaces: &HashSet<String>) -> Vec<RepositoryKey> {
        let is_there = |key: &RepositoryKey| namespaces.contains(key.namespace());
        let queues = self.by_repository.keys().chain(self.repositories.keys());
        let mut touched: BTreeSet<_> = queues.filter(|key| is_there(key)).cloned().collect();
        let runs = self.runs.iter();
        let runs = runs.filter(|(run, _)| namespaces.contains(run.namespace()));
        let moved: Vec<_> = runs
            .map(|(run, seen)| (run.clone(), self.place(&seen.view)))
            .collect();
        for (run, placed) in moved {
            let Some(seen) = self.runs.get_mut(&run) else {
                continue;
            };
            let before = std::mem::replace(&mut seen.placed, placed.clone());
            if before.queue != placed.queue {
                self.unlink(before.queue(), &run);
                self.link(&placed, &run);
            }
            touched.extend(placed.queue);
        }
        touched.into_iter().collect()
    }
}

#[cfg(test)]
mod tests;
