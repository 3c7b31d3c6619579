//! The cluster that the manifests are: it shows their objects, and notes what it is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use pac_concurrency::{FencingToken, PipelineRunKey, Uid};
use pac_pipelines::model::{RepositoryView, ResourceVersion, RunView, SpecStatus};
use pac_pipelines::{
    Cluster, ClusterError, ClusterErrorKind, ClusterWatch, EndOutcome, HoldOutcome, Listing,
    StartOutcome, Unreadable, UnreadableObject, vocabulary,
};

use super::manifests::Manifests;

/// The objects of the manifests as a cluster.
#[derive(Debug)]
pub(super) struct PlannedCluster {
    repositories: Vec<RepositoryView>,
    unreadable: Vec<Unreadable>,
    version: ResourceVersion,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    runs: BTreeMap<PipelineRunKey, RunView>,
    asked: Asked,
}

/// What the controller asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    /// The runs that it started.
    pub(super) started: BTreeSet<PipelineRunKey>,
    /// The runs that it had ended at once.
    pub(super) ended: BTreeSet<PipelineRunKey>,
}

impl PlannedCluster {
    pub(super) fn of(manifests: &Manifests) -> Self {
        let views = manifests.runs.iter().map(|run| run.view.clone());
        Self {
            repositories: manifests.repositories.values().cloned().collect(),
            unreadable: manifests.unreadable_objects.clone(),
            version: manifests.version(),
            state: Mutex::new(State {
                runs: views.map(|view| (view.key.clone(), view)).collect(),
                asked: Asked::default(),
            }),
        }
    }

    /// What has been asked for so far.
    pub(super) fn asked(&self) -> Asked {
        self.state().asked.clone()
    }

    fn listing<T>(&self, items: Vec<T>, of_repositories: bool) -> Listing<T> {
        let mut listing = Listing::new(items, Some(self.version));
        let unreadable = self.unreadable.iter().filter(|unreadable| {
            matches!(unreadable.object, UnreadableObject::Repository(_)) == of_repositories
        });
        listing.unreadable = unreadable.cloned().collect();
        listing
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn run(&mut self, run: &PipelineRunKey, uid: &Uid) -> Option<&mut RunView> {
        self.runs.get_mut(run).filter(|view| view.uid == *uid)
    }
}

#[async_trait]
impl Cluster for PlannedCluster {
    async fn start(&self, run: &PipelineRunKey, uid: &Uid, token: FencingToken) -> StartOutcome {
        let mut state = self.state();
        let Some(view) = state.run(run, uid) else {
            return StartOutcome::Gone;
        };
        if view.spec_status != SpecStatus::Pending {
            return StartOutcome::AlreadyStarted;
        }
        view.spec_status = SpecStatus::None;
        let token = token.to_string();
        view.annotations.insert(vocabulary::TOKEN.to_owned(), token);
        state.asked.started.insert(run.clone());
        StartOutcome::Started
    }

    async fn hold(&self, run: &PipelineRunKey, uid: &Uid) -> Result<HoldOutcome, ClusterError> {
        let mut state = self.state();
        let Some(view) = state.run(run, uid) else {
            return Ok(HoldOutcome::Gone);
        };
        view.spec_status = SpecStatus::Pending;
        Ok(HoldOutcome::Held)
    }

    async fn request_end(
        &self,
        run: &PipelineRunKey,
        uid: &Uid,
        form: SpecStatus,
    ) -> Result<EndOutcome, ClusterError> {
        let mut state = self.state();
        let Some(view) = state.run(run, uid) else {
            return Ok(EndOutcome::Gone);
        };
        view.spec_status = form;
        state.asked.ended.insert(run.clone());
        Ok(EndOutcome::Requested)
    }

    async fn annotate(
        &self,
        run: &PipelineRunKey,
        uid: &Uid,
        annotations: &[(&str, Option<&str>)],
    ) -> Result<Option<RunView>, ClusterError> {
        let mut state = self.state();
        let Some(view) = state.run(run, uid) else {
            return Ok(None);
        };
        for (name, value) in annotations {
            match value {
                Some(value) => view
                    .annotations
                    .insert((*name).to_owned(), (*value).to_owned()),
                None => view.annotations.remove(*name),
            };
        }
        Ok(Some(view.clone()))
    }

    async fn read(&self, run: &PipelineRunKey) -> Result<Option<RunView>, ClusterError> {
        Ok(self.state().runs.get(run).cloned())
    }

    async fn list_runs(&self) -> Result<Listing<RunView>, ClusterError> {
        let runs = self.state().runs.values().cloned().collect();
        Ok(self.listing(runs, false))
    }

    async fn list_repositories(&self) -> Result<Listing<RepositoryView>, ClusterError> {
        Ok(self.listing(self.repositories.clone(), true))
    }

    async fn watch(&self) -> Result<Box<dyn ClusterWatch>, ClusterError> {
        let message = "manifests do not change; list them";
        let kind = ClusterErrorKind::Refused;
        Err(ClusterError::new(kind, "watch", "manifests", message))
    }
}
