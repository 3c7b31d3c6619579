//! The API of the cluster in memory: what a controller sees of it.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use pac_core::{FencingToken, PipelineRunKey, Uid};
use tokio::time::sleep;

use super::cluster::MemoryCluster;
use super::faults::{Requests, StartFault};
use super::watch::MemoryWatch;
use super::world::World;
use crate::cluster::{Cluster, ClusterWatch, EndOutcome, HoldOutcome, Listing, StartOutcome};
use crate::error::{ClusterError, ClusterErrorKind};
use crate::model::{NamespaceView, RepositoryView, RunView, SpecStatus};
use crate::vocabulary;

#[async_trait]
impl Cluster for MemoryCluster {
    async fn start(&self, run: &PipelineRunKey, uid: &Uid, token: FencingToken) -> StartOutcome {
        let asked = self
            .asked("start", run.as_str(), |requests| &mut requests.start)
            .await;
        if asked.is_err() {
            return StartOutcome::Unknown;
        }
        let outcome = meet_fault(&mut self.world(), run, uid, token);
        self.latency().await;
        outcome
    }

    async fn hold(&self, run: &PipelineRunKey, uid: &Uid) -> Result<HoldOutcome, ClusterError> {
        self.asked("hold", run.as_str(), |requests| &mut requests.hold)
            .await?;
        let mut world = self.world();
        let Some(view) = world.runs.get(run).filter(|view| view.uid == *uid) else {
            return Ok(HoldOutcome::Gone);
        };
        if view.has_started() || view.is_done() || view.spec_status.is_cancel() {
            return Ok(HoldOutcome::TooLate);
        }
        world.change(run, |view| {
            view.spec_status = SpecStatus::Pending;
            view.annotations
                .insert(vocabulary::HELD.to_owned(), "true".to_owned());
        });
        Ok(HoldOutcome::Held)
    }

    async fn request_end(
        &self,
        run: &PipelineRunKey,
        uid: &Uid,
        form: SpecStatus,
    ) -> Result<EndOutcome, ClusterError> {
        self.asked("request end", run.as_str(), |requests| {
            &mut requests.request_end
        })
        .await?;
        let mut world = self.world();
        let Some(view) = world.runs.get(run).filter(|view| view.uid == *uid) else {
            return Ok(EndOutcome::Gone);
        };
        if view.is_done() {
            return Ok(EndOutcome::Done);
        }
        let is_over = view.spec_status == SpecStatus::Cancelled;
        if form == SpecStatus::Cancelled && view.has_started() && !is_over {
            return Ok(EndOutcome::Runs);
        }
        let is_first = !view.spec_status.is_cancel();
        let spares_finally = form == SpecStatus::Cancelled;
        if is_first || (spares_finally && view.spec_status.is_graceful()) {
            world.change(run, |view| view.spec_status = form);
        }
        Ok(EndOutcome::Requested)
    }

    async fn annotate(
        &self,
        run: &PipelineRunKey,
        uid: &Uid,
        annotations: &[(&str, Option<&str>)],
    ) -> Result<Option<RunView>, ClusterError> {
        self.asked("annotate", run.as_str(), |requests| &mut requests.annotate)
            .await?;
        let mut world = self.world();
        if world.runs.get(run).is_none_or(|view| view.uid != *uid) {
            return Ok(None);
        }
        world.change(run, |view| {
            for (name, value) in annotations {
                match value {
                    Some(value) => view
                        .annotations
                        .insert((*name).to_owned(), (*value).to_owned()),
                    None => view.annotations.remove(*name),
                };
            }
        });
        Ok(world.runs.get(run).cloned())
    }

    async fn read(&self, run: &PipelineRunKey) -> Result<Option<RunView>, ClusterError> {
        self.asked("read", run.as_str(), |requests| &mut requests.read)
            .await?;
        let world = self.world();
        if world.faults.failing_reads {
            let message = "the server is currently unable to handle the request; try again";
            let kind = ClusterErrorKind::Unavailable;
            return Err(ClusterError::new(kind, "read", run.as_str(), message));
        }
        Ok(world.runs.get(run).cloned())
    }

    async fn list_runs(&self) -> Result<Listing<RunView>, ClusterError> {
        self.asked("list runs", "all", |requests| &mut requests.list_runs)
            .await?;
        let listing = {
            let world = self.world();
            let runs = world.runs.values();
            let one = world.followed_namespace.as_deref();
            let runs = runs.filter(|run| one.is_none_or(|one| one == run.key.namespace()));
            let listed = runs.filter(|run| !(world.lists_unended && run.is_done()));
            let items = listed.cloned().collect();
            let mut listing = Listing::new(items, Some(world.version()));
            listing.unreadable.clone_from(&world.unreadable_runs);
            listing
        };
        self.latency().await;
        Ok(listing)
    }

    async fn list_repositories(&self) -> Result<Listing<RepositoryView>, ClusterError> {
        self.asked("list repositories", "all", |requests| {
            &mut requests.list_repositories
        })
        .await?;
        let listing = {
            let world = self.world();
            let items = world.repositories.values().cloned().collect();
            let mut listing = Listing::new(items, Some(world.version()));
            listing
                .unreadable
                .clone_from(&world.unreadable_repositories);
            listing
        };
        self.latency().await;
        Ok(listing)
    }

    fn follows(&self, namespace: &str) -> bool {
        let world = self.world();
        let one = world.followed_namespace.as_deref();
        one.is_none_or(|one| one == namespace)
    }

    async fn list_namespaces(&self) -> Result<Option<Listing<NamespaceView>>, ClusterError> {
        self.asked("list namespaces", "all", |requests| {
            &mut requests.list_namespaces
        })
        .await?;
        let world = self.world();
        let items = world.namespaces.as_ref();
        let items = items.map(|namespaces| namespaces.values().cloned().collect());
        Ok(items.map(|items| Listing::new(items, Some(world.version()))))
    }

    async fn watch(&self) -> Result<Box<dyn ClusterWatch>, ClusterError> {
        self.asked("watch", "all", |requests| &mut requests.watch)
            .await?;
        let events = self.world().watch();
        Ok(Box::new(MemoryWatch {
            world: self.shared_world(),
            events,
            ahead: VecDeque::new(),
        }))
    }
}

/// A start, unless a fault comes between.
fn meet_fault(
    world: &mut World,
    run: &PipelineRunKey,
    uid: &Uid,
    token: FencingToken,
) -> StartOutcome {
    let World {
        faults,
        script,
        chance,
        refused,
        ..
    } = world;
    if refused.contains(run) {
        return StartOutcome::StillPending;
    }
    match script.next(faults, chance) {
        Some(StartFault::Conflict) => StartOutcome::StillPending,
        Some(StartFault::RequestLost) => StartOutcome::Unknown,
        Some(StartFault::AnswerLost) => {
            start(world, run, uid, token);
            StartOutcome::Unknown
        }
        None => start(world, run, uid, token),
    }
}

/// The conditional patch, and what a read says when its condition does not hold.
fn start(world: &mut World, run: &PipelineRunKey, uid: &Uid, token: FencingToken) -> StartOutcome {
    let Some(view) = world.runs.get(run).filter(|view| view.uid == *uid) else {
        return StartOutcome::Gone;
    };
    if view.spec_status != SpecStatus::Pending {
        let never = view.spec_status.is_cancel() && !view.has_started() && view.token().is_none();
        let ended_unstarted =
            view.is_done() && view.token().is_none() && view.spec_status.is_cancel();
        return if never || ended_unstarted {
            StartOutcome::Cancelled
        } else {
            StartOutcome::AlreadyStarted
        };
    }
    if let Some(repository) = view.repository() {
        let (limit, uid) = (world.limit(&repository), uid.clone());
        world.ledger.runs(&repository, &uid);
        world.ledger.start(run, &repository, limit);
    }
    world.change(run, |view| {
        view.spec_status = SpecStatus::None;
        view.annotations
            .insert(vocabulary::TOKEN.to_owned(), token.to_string());
    });
    StartOutcome::Started
}

impl MemoryCluster {
    /// Counts a request; an error when the API is away.
    async fn asked(
        &self,
        operation: &'static str,
        object: &str,
        kind: impl FnOnce(&mut Requests) -> &mut usize + Send,
    ) -> Result<(), ClusterError> {
        *kind(&mut self.world().requests) += 1;
        self.latency().await;
        if self.world().faults.away {
            let message = "connection refused; the cluster is away";
            let kind = ClusterErrorKind::Unavailable;
            return Err(ClusterError::new(kind, operation, object, message));
        }
        Ok(())
    }

    /// Half of what a request takes.
    async fn latency(&self) {
        let wait = {
            let mut world = self.world();
            let longest = world.faults.latency;
            longest.mul_f64(world.chance.f64() / 2.0)
        };
        if wait > Duration::ZERO {
            sleep(wait).await;
        }
    }
}
