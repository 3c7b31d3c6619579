//! What an older system knows: the same shape for every layout that it may be kept in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::name::{PipelineRunKey, RepositoryKey, Uid};
use crate::value::Limit;

/// An older layout of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LegacySource {
    /// etcd, first generation: a lease for each running run, no queue.
    EtcdV1,
    /// etcd, second generation: leases and queue keys.
    EtcdV2,
    /// PostgreSQL, second generation: the table `concurrency_slots`.
    Postgresql,
    /// The annotations of PipelineRuns.
    Annotations,
}

impl LegacySource {
    /// The name of the layout: `etcd-v1`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EtcdV1 => "etcd-v1",
            Self::EtcdV2 => "etcd-v2",
            Self::Postgresql => "postgresql",
            Self::Annotations => "annotations",
        }
    }
}

impl fmt::Display for LegacySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All that an older system knows, as far as it is to be brought along.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LegacyState {
    /// Where it was kept.
    pub source: LegacySource,
    /// The Repositories that have runs.
    pub repositories: BTreeMap<RepositoryKey, LegacyRepository>,
    /// What is not brought along.
    pub left_out: Vec<LeftOut>,
}

impl LegacyState {
    /// A state without runs.
    #[must_use]
    pub fn new(source: LegacySource) -> Self {
        Self {
            source,
            repositories: BTreeMap::new(),
            left_out: Vec::new(),
        }
    }
}

/// One Repository of an older system.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LegacyRepository {
    /// Its limit, where something says it; no layout of a store does.
    pub limit: Option<Limit>,
    /// The runs that run, in the order in which they started.
    pub running: Vec<LegacyRun>,
    /// The runs that wait, next first. None of them runs.
    pub queued: Vec<LegacyRun>,
}

/// One run of an older system.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LegacyRun {
    /// The run.
    pub run: PipelineRunKey,
    /// Its uid, where something says it; no layout of a store does.
    pub uid: Option<Uid>,
    /// What is not certain about it, and what was assumed.
    pub remark: Option<&'static str>,
}

impl LegacyRun {
    /// A run of which nothing is uncertain.
    #[must_use]
    pub fn new(run: PipelineRunKey, uid: Option<Uid>) -> Self {
        Self {
            run,
            uid,
            remark: None,
        }
    }
}

/// Something that is not brought along.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftOut {
    /// The key, the row or the run.
    pub what: String,
    /// Why, and where there is one, the cure.
    pub why: String,
    /// It may still matter: the old state must not be removed.
    pub is_open: bool,
}

impl LeftOut {
    /// Something that is over, so that nothing is lost.
    pub fn over(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: why.into(),
            is_open: false,
        }
    }

    /// Something that may still matter.
    pub fn open(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            is_open: true,
            ..Self::over(what, why)
        }
    }
}

/// What the cluster says about runs and Repositories. The layouts of the stores have neither uids
/// nor limits, and the first generation on etcd does not say whose run a waiting one is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClusterFacts {
    /// The runs that the cluster has.
    pub runs: BTreeMap<PipelineRunKey, RunFacts>,
    /// The limits of Repositories; those without one are not here.
    pub limits: BTreeMap<RepositoryKey, Limit>,
}

/// What the cluster says about a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFacts {
    /// Its uid.
    pub uid: Uid,
    /// Its Repository.
    pub repository: Option<RepositoryKey>,
    /// It has ended.
    pub is_over: bool,
}

/// A run has a place in at most one of the two lists of a Repository, and is there once.
#[derive(Debug)]
pub(super) struct Collector<'a> {
    state: LegacyState,
    facts: &'a ClusterFacts,
    placed: BTreeSet<(RepositoryKey, PipelineRunKey)>,
}

/// What an older system says that a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    Run,
    Wait,
}

impl<'a> Collector<'a> {
    pub(super) fn new(source: LegacySource, facts: &'a ClusterFacts) -> Self {
        Self {
            state: LegacyState::new(source),
            facts,
            placed: BTreeSet::new(),
        }
    }

    /// Appends a run, unless it has a place in this Repository already or has ended.
    pub(super) fn add(
        &mut self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
        does: Does,
        remark: Option<&'static str>,
    ) {
        let known = self.facts.runs.get(run);
        if known.is_some_and(|facts| facts.is_over) {
            self.leave(LeftOut::over(run.as_str(), "it has ended in the cluster"));
            return;
        }
        if !self.placed.insert((repository.clone(), run.clone())) {
            return;
        }
        let legacy = LegacyRun {
            remark,
            ..LegacyRun::new(run.clone(), known.map(|facts| facts.uid.clone()))
        };
        let limit = self.facts.limits.get(repository).copied();
        let there = self.state.repositories.entry(repository.clone());
        let there = there.or_insert_with(|| LegacyRepository {
            limit,
            ..LegacyRepository::default()
        });
        match does {
            Does::Run => there.running.push(legacy),
            Does::Wait => there.queued.push(legacy),
        }
    }

    /// Appends a run whose Repository only the cluster can say.
    pub(super) fn add_by_facts(&mut self, run: &PipelineRunKey, does: Does) {
        let known = self.facts.runs.get(run);
        match known.and_then(|facts| facts.repository.clone()) {
            Some(repository) => {
                let remark = match does {
                    Does::Run => Some("its lease has expired; it may still run"),
                    Does::Wait => None,
                };
                self.add(&repository, run, does, remark);
            }
            None => self.leave(LeftOut::open(
                run.as_str(),
                "this layout does not say which Repository it belongs to: give its manifest with \
                 --manifests, or delete its state if the run is gone",
            )),
        }
    }

    pub(super) fn leave(&mut self, left: LeftOut) {
        self.state.left_out.push(left);
    }

    pub(super) fn finish(self) -> LegacyState {
        self.state
    }
}

/// A state that a run does not leave any more, in any of the layouts.
pub(super) fn is_final(state: &str) -> bool {
    matches!(state, "completed" | "failed" | "cancelled" | "released")
}
