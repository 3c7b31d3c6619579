//! The cluster behind a Kubernetes API.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use pac_core::{FencingToken, PipelineRunKey, Uid};
use pac_pipelines::model::{NamespaceView, RepositoryView, RunView, SpecStatus};
use pac_pipelines::{
    Cluster, ClusterError, ClusterErrorKind, ClusterWatch, EndOutcome, HoldOutcome, Listing,
    StartOutcome,
};

use crate::cache::Caches;
use crate::client::{Client, List};
use crate::decide::start_outcome;
use crate::error::{Failure, FailureKind, KubernetesError};
use crate::object::{Object, RunObject};
use crate::options::KubernetesOptions;
use crate::patch;
use crate::watch::KubernetesWatch;

/// How often a change is tried again that depends on a state which changed between the read and
/// the write. Nothing is repeated of which it is not certain that it was not done.
const ATTEMPTS: u32 = 5;

/// The PipelineRuns and Repositories of a Kubernetes cluster.
///
/// No request is repeated by itself, and each has a deadline. As long as a watch is open and hears
/// the cluster, the lists are answered from what it has seen, without a request. Cheap to clone;
/// clones share one pool of connections and one watch's cache.
#[derive(Debug, Clone)]
pub struct KubernetesCluster {
    client: Client,
    /// Those of the watch that was opened last, as long as it is open.
    caches: Arc<Mutex<Option<Arc<Mutex<Caches>>>>>,
}

impl KubernetesCluster {
    /// Reads the kubeconfig, or the service account of this pod, and makes a client. Opens no
    /// connection: whether the cluster answers is known after the first request. Call it within a
    /// tokio runtime. Dropped in flight, nothing is left.
    ///
    /// # Errors
    /// [`KubernetesError`] when there is no kubeconfig and no service account, or one that cannot
    /// be used.
    pub async fn connect(options: &KubernetesOptions) -> Result<Self, KubernetesError> {
        Ok(Self::of(Client::connect(options.clone()).await?))
    }

    pub(crate) fn of(client: Client) -> Self {
        Self {
            client,
            caches: Arc::default(),
        }
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Answers a list from the cache of an open watch, if it is complete and current.
    fn cached<T>(&self, list: impl FnOnce(&Caches) -> Option<T>) -> Option<T> {
        let caches = lock(&self.caches).clone()?;
        let caches = lock(&caches);
        list(&caches)
    }

    /// The run of this name and uid as it is now, or that there is none.
    async fn current(
        &self,
        operation: &'static str,
        run: &PipelineRunKey,
        uid: &Uid,
    ) -> Result<Option<(RunView, String)>, ClusterError> {
        let object = self.client.get(run).await;
        let object = object.map_err(|failure| failure.of_read(operation, run.as_str()))?;
        let Some(object) = object else {
            return Ok(None);
        };
        let version = object.metadata.resource_version.clone();
        let view = understood(operation, run, &object)?;
        Ok(Some(view)
            .filter(|view| view.uid == *uid)
            .map(|view| (view, version.unwrap_or_default())))
    }

    /// The run as it is after a start that failed; `None` when that cannot be read.
    async fn after_start(&self, run: &PipelineRunKey) -> Option<Option<RunObject>> {
        let found = self.client.get(run).await;
        found
            .inspect_err(|failure| {
                tracing::warn!(%run, error = %failure, "what became of a start cannot be read");
            })
            .ok()
    }
}

#[async_trait]
impl Cluster for KubernetesCluster {
    async fn start(&self, run: &PipelineRunKey, uid: &Uid, token: FencingToken) -> StartOutcome {
        let failure = match self.client.patch(run, patch::start(uid, token)).await {
            Ok(_) => return StartOutcome::Started,
            Err(failure) => failure,
        };
        log_start(run, &failure);
        let mut certain = failure.is_certain();
        let Some(mut found) = self.after_start(run).await else {
            return StartOutcome::Unknown;
        };
        if certain && let Some(version) = found.as_ref().and_then(RunObject::without_annotations) {
            let patch = patch::start_without_annotations(uid, token, version);
            match self.client.patch(run, patch).await {
                Ok(_) => return StartOutcome::Started,
                Err(failure) => {
                    log_start(run, &failure);
                    certain = failure.is_certain();
                }
            }
            match self.after_start(run).await {
                Some(now) => found = now,
                None => return StartOutcome::Unknown,
            }
        }
        match found.map(|object| object.view()).transpose() {
            Ok(found) => start_outcome(found.as_ref(), uid, certain),
            Err(unreadable) => {
                tracing::warn!(%run, error = %unreadable.error, "a run cannot be understood");
                StartOutcome::Unknown
            }
        }
    }

    async fn hold(&self, run: &PipelineRunKey, uid: &Uid) -> Result<HoldOutcome, ClusterError> {
        let operation = "hold";
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let Some((view, version)) = self.current(operation, run, uid).await? else {
                return Ok(HoldOutcome::Gone);
            };
            if view.has_started() || view.is_done() || view.spec_status.is_cancel() {
                return Ok(HoldOutcome::TooLate);
            }
            if view.spec_status == SpecStatus::Pending && view.is_held_for_us() {
                return Ok(HoldOutcome::Held);
            }
            match self.client.merge(run, patch::hold(uid, &version)).await {
                Ok(_) => return Ok(HoldOutcome::Held),
                Err(failure) => last = Some(undone(last, failure, operation, run)?),
            }
        }
        Err(given_up(last, operation, run))
    }

    async fn request_end(
        &self,
        run: &PipelineRunKey,
        uid: &Uid,
        form: SpecStatus,
    ) -> Result<EndOutcome, ClusterError> {
        let operation = "request end";
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let Some((view, version)) = self.current(operation, run, uid).await? else {
                return Ok(EndOutcome::Gone);
            };
            if view.is_done() {
                return Ok(EndOutcome::Done);
            }
            let at_once = form == SpecStatus::Cancelled;
            let is_over = view.spec_status == SpecStatus::Cancelled;
            if at_once && view.has_started() && !is_over {
                return Ok(EndOutcome::Runs);
            }
            if view.spec_status.is_cancel() && (is_over || !at_once) {
                return Ok(EndOutcome::Requested);
            }
            let patch = patch::end(uid, &version, &form);
            match self.client.merge(run, patch).await {
                Ok(_) => return Ok(EndOutcome::Requested),
                Err(failure) => last = Some(undone(last, failure, operation, run)?),
            }
        }
        Err(given_up(last, operation, run))
    }

    async fn annotate(
        &self,
        run: &PipelineRunKey,
        uid: &Uid,
        annotations: &[(&str, Option<&str>)],
    ) -> Result<Option<RunView>, ClusterError> {
        let operation = "annotate";
        let failure = match self
            .client
            .merge(run, patch::annotate(uid, annotations))
            .await
        {
            Ok(object) => return understood(operation, run, &object).map(Some),
            Err(failure) => failure,
        };
        match failure.kind {
            FailureKind::NotFound => Ok(None),
            // Also said where another run bears the name by now.
            FailureKind::Refused => match self.current(operation, run, uid).await? {
                None => Ok(None),
                Some(_) => Err(failure.of_write(operation, run.as_str())),
            },
            _ => Err(failure.of_write(operation, run.as_str())),
        }
    }

    async fn read(&self, run: &PipelineRunKey) -> Result<Option<RunView>, ClusterError> {
        let operation = "read";
        let object = self.client.get(run).await;
        let object = object.map_err(|failure| failure.of_read(operation, run.as_str()))?;
        let view = object.map(|object| understood(operation, run, &object));
        view.transpose()
    }

    async fn list_runs(&self) -> Result<Listing<RunView>, ClusterError> {
        if let Some(listing) = self.cached(Caches::list_runs) {
            return Ok(listing);
        }
        let list = self.client.runs().await;
        let list = list.map_err(|failure| failure.of_read("list runs", "PipelineRuns"))?;
        let mut listing = listing(&list);
        self.cached(|caches| {
            caches.add_strays(&mut listing);
            Some(())
        });
        Ok(listing)
    }

    async fn list_repositories(&self) -> Result<Listing<RepositoryView>, ClusterError> {
        if let Some(listing) = self.cached(Caches::list_repositories) {
            return Ok(listing);
        }
        let list = self.client.repositories().await;
        let list = list.map_err(|failure| failure.of_read("list repositories", "Repositories"))?;
        Ok(listing(&list))
    }

    fn follows(&self, namespace: &str) -> bool {
        self.client.options().follows(namespace)
    }

    async fn list_namespaces(&self) -> Result<Option<Listing<NamespaceView>>, ClusterError> {
        if !self.client.options().lanes {
            return Ok(None);
        }
        if let Some(listing) = self.cached(Caches::list_namespaces) {
            return Ok(Some(listing));
        }
        let list = self.client.namespaces().await;
        let list = list.map_err(|failure| failure.of_read("list namespaces", "Namespaces"))?;
        Ok(Some(listing(&list)))
    }

    async fn watch(&self) -> Result<Box<dyn ClusterWatch>, ClusterError> {
        let watch = KubernetesWatch::open(self.client.clone(), Arc::clone(&self.caches)).await;
        match watch {
            Ok(watch) => Ok(Box::new(watch)),
            Err(failure) => Err(failure.of_read("watch", "PipelineRuns and Repositories")),
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listing<O: Object>(list: &List<O>) -> Listing<O::View> {
    let mut listing = Listing::new(Vec::new(), list.version);
    for object in &list.items {
        match object.view() {
            Ok(view) => listing.items.push(view),
            Err(unreadable) => listing.unreadable.push(unreadable),
        }
    }
    listing
}

fn understood(
    operation: &'static str,
    run: &PipelineRunKey,
    object: &RunObject,
) -> Result<RunView, ClusterError> {
    object.view().map_err(|unreadable| {
        let kind = ClusterErrorKind::Unavailable;
        let message = unreadable.error.to_string();
        ClusterError::new(kind, operation, run.as_str(), message).caused_by(unreadable.error)
    })
}

/// A change that was certainly not done, so that it may be tried again after a further read; it is
/// an error where it may have been done, and where it was refused twice.
fn undone(
    last: Option<Failure>,
    failure: Failure,
    operation: &'static str,
    run: &PipelineRunKey,
) -> Result<Failure, ClusterError> {
    let is_refused_again = failure.kind == FailureKind::Refused
        && last.is_some_and(|last| last.kind == FailureKind::Refused);
    match failure.kind {
        FailureKind::NotFound | FailureKind::Conflict => Ok(failure),
        FailureKind::Refused if !is_refused_again => Ok(failure),
        _ => Err(failure.of_write(operation, run.as_str())),
    }
}

fn given_up(last: Option<Failure>, operation: &'static str, run: &PipelineRunKey) -> ClusterError {
    let message = format!("the run changed {ATTEMPTS} times between reading and writing it");
    let failure = last.unwrap_or_else(|| Failure::new(FailureKind::Conflict, message));
    failure.of_write(operation, run.as_str())
}

fn log_start(run: &PipelineRunKey, failure: &Failure) {
    tracing::debug!(%run, error = %failure, certain = failure.is_certain(), "a start failed");
}

#[cfg(test)]
mod tests;
