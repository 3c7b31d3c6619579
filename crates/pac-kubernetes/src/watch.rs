//! Following the cluster: one stream of runs, one of Repositories, one of Namespaces where there
//! are lanes, and reads of the runs that leave the selection.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, FuturesUnordered, StreamExt};
use pac_pipelines::model::RunView;
use pac_pipelines::{ClusterEvent, ClusterWatch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::cache::{Cache, Caches, Found};
use crate::client::{Client, Step, Steps};
use crate::cluster::lock;
use crate::error::Failure;
use crate::object::{NamespaceObject, Object, RepositoryObject, RunObject};

/// How long until a run is read again that has left the selection and has not ended.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// How many runs that have left the selection are read at once.
const READS: usize = 16;

/// How long the watch sleeps at most when nothing is due.
const IDLE: Duration = Duration::from_secs(60 * 60);

/// Where a cluster finds the caches of the watch that was opened last.
pub(crate) type Shown = Arc<Mutex<Option<Arc<Mutex<Caches>>>>>;

/// A run that has left the selection, and what a read of it says.
type Read = (String, RunView, Result<Option<RunObject>, Failure>);

/// The changes of a Kubernetes cluster. It never ends by itself: what breaks is opened anew, and
/// [`ClusterEvent::Missed`] says that events may have been lost.
pub(crate) struct KubernetesWatch {
    client: Client,
    runs: Steps<RunObject>,
    repositories: Steps<RepositoryObject>,
    /// Without lanes, nothing ever comes.
    namespaces: Steps<NamespaceObject>,
    caches: Arc<Mutex<Caches>>,
    shown: Shown,
    reads: FuturesUnordered<BoxFuture<'static, Read>>,
    /// Events that are known and not handed out yet.
    out: VecDeque<ClusterEvent>,
}

impl KubernetesWatch {
    /// Opens the streams, and takes the first lists in: they answer the lists that follow.
    pub(crate) async fn open(client: Client, shown: Shown) -> Result<Self, Failure> {
        let mut watch = Self {
            runs: client.watch_runs(),
            repositories: client.watch_repositories(),
            namespaces: client
                .watch_namespaces()
                .unwrap_or_else(|| stream::pending().boxed()),
            caches: Arc::default(),
            shown,
            reads: FuturesUnordered::new(),
            out: VecDeque::new(),
            client,
        };
        let deadline = watch.client.options().list_timeout;
        let filled = timeout(deadline, watch.fill()).await;
        filled.map_err(|_| Failure::late(deadline))??;
        *lock(&watch.shown) = Some(Arc::clone(&watch.caches));
        Ok(watch)
    }

    async fn fill(&mut self) -> Result<(), Failure> {
        let lanes = self.client.options().lanes;
        while lanes && !lock(&self.caches).namespaces.is_complete() {
            match self.namespaces.next().await {
                Some(step) => self.take_namespace(step?),
                None => return Ok(()),
            }
        }
        while !lock(&self.caches).repositories.is_complete() {
            match self.repositories.next().await {
                Some(step) => self.take_repository(step?),
                None => return Ok(()),
            }
        }
        while !lock(&self.caches).runs.is_complete() {
            match self.runs.next().await {
                Some(step) => self.take_run(step?),
                None => return Ok(()),
            }
        }
        // What was listed is asked for next.
        self.out.clear();
        Ok(())
    }

    fn take_run(&mut self, step: Step<RunObject>) {
        let mut caches = lock(&self.caches);
        match step {
            Step::Left(object) => {
                let (name, found) = (object.path(), object.view());
                caches.runs.left(&name, object.version());
                match found {
                    Ok(view) => {
                        let done = caches.stray(name, view, Instant::now());
                        self.out.extend(done.map(ClusterEvent::RunApplied));
                    }
                    Err(unreadable) => self.out.push_back(ClusterEvent::Unreadable(unreadable)),
                }
            }
            Step::Complete => {
                let before = caches.runs.complete();
                for (name, found) in before {
                    // One that had ended is told by the list's not having it.
                    if let Ok(view) = found {
                        let _ = caches.stray(name, view, Instant::now());
                    }
                }
                self.out.push_back(ClusterEvent::Missed);
            }
            step => {
                if let Step::Listed(object) | Step::Applied(object) = &step {
                    caches.strays.remove(&object.path());
                }
                let told = take(&mut caches.runs, step);
                self.out.extend(told.map(|found| match found {
                    Ok(view) => ClusterEvent::RunApplied(view),
                    Err(unreadable) => ClusterEvent::Unreadable(unreadable),
                }));
            }
        }
    }

    fn take_repository(&mut self, step: Step<RepositoryObject>) {
        let mut caches = lock(&self.caches);
        match step {
            Step::Left(object) => {
                caches.repositories.left(&object.path(), object.version());
                self.out.push_back(match object.view() {
                    Ok(view) => ClusterEvent::RepositoryDeleted(view),
                    // Which one is gone is known from the next list.
                    Err(_) => ClusterEvent::Missed,
                });
            }
            Step::Complete => {
                caches.repositories.complete();
                self.out.push_back(ClusterEvent::Missed);
            }
            step => {
                let told = take(&mut caches.repositories, step);
                self.out.extend(told.map(|found| match found {
                    Ok(view) => ClusterEvent::RepositoryApplied(view),
                    Err(unreadable) => ClusterEvent::Unreadable(unreadable),
                }));
            }
        }
    }

    fn take_namespace(&mut self, step: Step<NamespaceObject>) {
        let mut caches = lock(&self.caches);
        match step {
            Step::Left(object) => {
                caches.namespaces.left(&object.path(), object.version());
                self.out.push_back(match object.view() {
                    Ok(view) => ClusterEvent::NamespaceDeleted(view),
                    Err(_) => ClusterEvent::Missed,
                });
            }
            Step::Complete => {
                caches.namespaces.complete();
                self.out.push_back(ClusterEvent::Missed);
            }
            step => {
                let told = take(&mut caches.namespaces, step);
                self.out.extend(told.map(|found| match found {
                    Ok(view) => ClusterEvent::NamespaceApplied(view),
                    Err(unreadable) => ClusterEvent::Unreadable(unreadable),
                }));
            }
        }
    }

    /// Begins to read the runs that have left the selection and are due.
    fn read_strays(&mut self) {
        while self.reads.len() < READS {
            let Some((name, view)) = lock(&self.caches).take_stray(Instant::now()) else {
                return;
            };
            let client = self.client.clone();
            self.reads.push(Box::pin(async move {
                let answer = client.get(&view.key).await;
                (name, view, answer)
            }));
        }
    }

    /// Takes in what a read says of a run that has left the selection.
    fn take_read(&mut self, (name, last, answer): Read) {
        let mut caches = lock(&self.caches);
        let strays = &mut caches.strays;
        // It may have come back meanwhile, or have left once more.
        let Some(stray) = strays.get_mut(&name).filter(|stray| stray.due.is_none()) else {
            return;
        };
        stray.due = Some(Instant::now() + READ_AGAIN);
        let found = match answer {
            Ok(found) => found.map(|object| object.view()),
            Err(failure) => {
                tracing::debug!(run = %last.key, error = %failure, "a run cannot be read");
                return;
            }
        };
        match found {
            Some(Ok(now)) if now.uid == last.uid => {
                if now.is_done() {
                    strays.remove(&name);
                } else {
                    stray.view = now.clone();
                }
                self.out.push_back(ClusterEvent::RunApplied(now));
            }
            // It is there, and nobody knows more.
            Some(Err(unreadable)) => self.out.push_back(ClusterEvent::Unreadable(unreadable)),
            Some(Ok(_)) | None => {
                strays.remove(&name);
                self.out.push_back(ClusterEvent::RunDeleted(last));
            }
        }
    }
}

#[async_trait]
impl ClusterWatch for KubernetesWatch {
    async fn next(&mut self) -> Option<ClusterEvent> {
        loop {
            if let Some(event) = self.out.pop_front() {
                return Some(event);
            }
            self.read_strays();
            let due = lock(&self.caches).next_stray();
            let due = due.unwrap_or_else(|| Instant::now() + IDLE);
            let has_room = self.reads.len() < READS;
            tokio::select! {
                step = self.runs.next() => match step? {
                    Ok(step) => self.take_run(step),
                    Err(failure) => {
                        lock(&self.caches).runs.interrupted();
                        interrupted("PipelineRuns", &failure);
                    }
                },
                step = self.repositories.next() => match step? {
                    Ok(step) => self.take_repository(step),
                    Err(failure) => {
                        lock(&self.caches).repositories.interrupted();
                        interrupted("Repositories", &failure);
                    }
                },
                step = self.namespaces.next() => match step? {
                    Ok(step) => self.take_namespace(step),
                    Err(failure) => {
                        lock(&self.caches).namespaces.interrupted();
                        interrupted("Namespaces", &failure);
                    }
                },
                Some(read) = self.reads.next() => self.take_read(read),
                () = sleep_until(due), if has_room => {}
            }
        }
    }
}

impl fmt::Debug for KubernetesWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesWatch")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl Drop for KubernetesWatch {
    /// What is not followed any more answers no list.
    fn drop(&mut self) {
        let mut shown = lock(&self.shown);
        if shown
            .as_ref()
            .is_some_and(|shown| Arc::ptr_eq(shown, &self.caches))
        {
            *shown = None;
        }
    }
}

/// Takes in what needs no more than the cache. Answers with the object that has changed.
fn take<O: Object>(cache: &mut Cache<O::View>, step: Step<O>) -> Option<Found<O::View>> {
    match step {
        Step::Begun => cache.begin(),
        Step::Listed(object) => cache.listed(object.path(), object.version(), object.view()),
        Step::Applied(object) => {
            let found = object.view();
            cache.applied(object.path(), object.version(), found.clone());
            return Some(found);
        }
        // Both need more than the cache.
        Step::Complete | Step::Left(_) => {}
    }
    None
}

fn interrupted(what: &'static str, failure: &Failure) {
    tracing::warn!(what, error = %failure, "a watch is interrupted; it is opened again");
}
