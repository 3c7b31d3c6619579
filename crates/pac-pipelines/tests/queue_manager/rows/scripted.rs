//! The cluster in memory, with one request of one run failing where a test says so.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use pac_core::{FencingToken, PipelineRunKey, Uid};
use pac_pipelines::model::{RepositoryView, RunView, SpecStatus};
use pac_pipelines::testing::MemoryCluster;
use pac_pipelines::{
    Cluster, ClusterError, ClusterErrorKind, ClusterWatch, EndOutcome, HoldOutcome, Listing,
    StartOutcome,
};
use tokio::sync::Notify;

/// Which request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Read,
    Start,
    Annotate,
}

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// The API cannot be reached; a start that was asked for certainly did not happen.
    Fails,
    /// The run is deleted just before.
    Vanishes,
    /// No answer ever comes, and nothing is done.
    Hangs,
}

#[derive(Debug)]
struct Line {
    request: Request,
    run: PipelineRunKey,
    mishap: Mishap,
    /// So many requests pass before.
    passes: usize,
}

/// A cluster with a script. Clones are the same cluster.
#[derive(Debug, Clone)]
pub(crate) struct Scripted {
    cluster: MemoryCluster,
    script: Arc<Mutex<Vec<Line>>>,
    hanging: Arc<Notify>,
}

impl Scripted {
    pub(crate) fn over(cluster: MemoryCluster) -> Self {
        Self {
            cluster,
            script: Arc::default(),
            hanging: Arc::default(),
        }
    }

    /// The request of this kind after so many that pass meets this, once.
    pub(crate) fn after(
        &self,
        passes: usize,
        request: Request,
        run: &PipelineRunKey,
        mishap: Mishap,
    ) {
        self.script.lock().unwrap().push(Line {
            request,
            run: run.clone(),
            mishap,
            passes,
        });
    }

    pub(crate) fn next(&self, request: Request, run: &PipelineRunKey, mishap: Mishap) {
        self.after(0, request, run, mishap);
    }

    /// Waits until a request hangs.
    pub(crate) async fn hangs(&self) {
        self.hanging.notified().await;
    }

    fn mishap(&self, request: Request, run: &PipelineRunKey) -> Option<Mishap> {
        let mut script = self.script.lock().unwrap();
        let mut lines = script.iter_mut();
        let at = lines.position(|line| line.request == request && line.run == *run)?;
        if script[at].passes > 0 {
            script[at].passes -= 1;
            return None;
        }
        Some(script.remove(at).mishap)
    }

    async fn meet(&self, request: Request, run: &PipelineRunKey) -> Result<(), ClusterError> {
        match self.mishap(request, run) {
            None => Ok(()),
            Some(Mishap::Fails) => {
                let kind = ClusterErrorKind::Unavailable;
                Err(ClusterError::new(
                    kind,
                    "request",
                    run.as_str(),
                    "connection refused",
                ))
            }
            Some(Mishap::Vanishes) => {
                self.cluster.delete(run);
                Ok(())
            }
            Some(Mishap::Hangs) => {
                self.hanging.notify_one();
                std::future::pending().await
            }
        }
    }
}

#[async_trait]
impl Cluster for Scripted {
    async fn start(&self, run: &PipelineRunKey, uid: &Uid, token: FencingToken) -> StartOutcome {
        match self.meet(Request::Start, run).await {
            Ok(()) => self.cluster.start(run, uid, token).await,
            Err(_) => StartOutcome::StillPending,
        }
    }

    async fn hold(&self, run: &PipelineRunKey, uid: &Uid) -> Result<HoldOutcome, ClusterError> {
        self.cluster.hold(run, uid).await
    }

    async fn request_end(
        &self,
        run: &PipelineRunKey,
        uid: &Uid,
        form: SpecStatus,
    ) -> Result<EndOutcome, ClusterError> {
        self.cluster.request_end(run, uid, form).await
    }

    async fn annotate(
        &self,
        run: &PipelineRunKey,
        uid: &Uid,
        annotations: &[(&str, Option<&str>)],
    ) -> Result<Option<RunView>, ClusterError> {
        self.meet(Request::Annotate, run).await?;
        self.cluster.annotate(run, uid, annotations).await
    }

    async fn read(&self, run: &PipelineRunKey) -> Result<Option<RunView>, ClusterError> {
        self.meet(Request::Read, run).await?;
        self.cluster.read(run).await
    }

    async fn list_runs(&self) -> Result<Listing<RunView>, ClusterError> {
        self.cluster.list_runs().await
    }

    async fn list_repositories(&self) -> Result<Listing<RepositoryView>, ClusterError> {
        self.cluster.list_repositories().await
    }

    async fn watch(&self) -> Result<Box<dyn ClusterWatch>, ClusterError> {
        self.cluster.watch().await
    }
}
