//! Starting a run that was granted a slot: a slot is given back only when it is certain that the
//! run did not start.

use std::sync::Arc;

use futures_util::future::FutureExt;
use pac_core::manager::{Admission, Lease};
use pac_core::state::{RunOutcome, Weight};
use pac_core::{Error, PipelineRunKey, RepositoryKey, Uid};
use tokio::time::{Instant, sleep};

use super::asked::NEVER_STARTED;
use super::decide::Known;
use super::engine::{Engine, backoff};
use super::notices::What;
use super::phase::Phase;
use super::work::Dirty;
use crate::cluster::{ClusterEvent, EndOutcome, StartOutcome};
use crate::model::{RunView, SpecStatus};
use crate::sections::is_section;

impl Engine {
    /// Deals with what an admission has come to.
    pub(super) fn admitted(self: &Arc<Self>, admission: Admission) {
        match admission {
            Admission::Started(lease) => self.begin(lease),
            // Its lease comes out of the stream of grants.
            Admission::Queued(waiter) => waiter.detach(),
            Admission::Finished(outcome) => {
                tracing::debug!(%outcome, "a run that has ended asked for a slot; passed over");
            }
        }
    }

    /// Starts a run in a task of its own, unless that is under way or there is nothing to start.
    pub(super) fn begin(self: &Arc<Self>, lease: Lease) {
        let (repository, run) = (lease.repository().clone(), lease.run().clone());
        // Another live controller has it, and starts it.
        if lease.session() != self.manager.session() {
            return;
        }
        if is_section(&repository) {
            self.look_at_sections([repository]);
            return;
        }
        let wants_start = {
            let seen = self.seen();
            let limited = seen
                .limit(&repository)
                .is_some_and(|l| l.limit.get().is_some());
            seen.run(&run)
                .filter(|view| view.uid == *lease.uid())
                .is_none_or(|view| {
                    // The store has it: a mark that is missing does not matter. One that belongs
                    // to another queue by now starts by that one.
                    seen.run_of(&repository, &run).is_some()
                        && matches!(Phase::of(view, limited), Phase::Held | Phase::HeldByUser)
                })
        };
        if !wants_start {
            self.look_at(&repository, run);
            return;
        }
        if let Some(left) = self.start_waits(&run, lease.uid()) {
            // A change of the run has it looked at before.
            let due = Instant::now() + left;
            return self.work.mark(&repository, Dirty::run(run), due);
        }
        if !self.claim_start(&run) {
            return;
        }
        let engine = Arc::clone(self);
        self.spawn(async move {
            let uid = lease.uid().clone();
            let claim = StartClaim {
                engine: &engine,
                repository: &repository,
                run: &run,
                is_open: true,
            };
            let left = engine.start(lease).await;
            let again = claim.end();
            // It may have been granted a slot in another queue meanwhile.
            let elsewhere = again.then(|| engine.seen().queue_of_known(&run)).flatten();
            if let Some(other) = elsewhere.filter(|other| *other != repository) {
                engine.look_at(&other, run.clone());
            }
            match left {
                Left::Settled if again => engine.look_at(&repository, run),
                Left::Settled => {}
                Left::Queued(admission) => {
                    let again = again || matches!(admission, Admission::Finished(_));
                    // Only now: its next lease may come at once.
                    engine.admitted(admission);
                    if again {
                        engine.look_at(&repository, run);
                    }
                }
                Left::Open(error) => {
                    if let Some(error) = error {
                        tracing::warn!(%run, %uid, %error, "a start is not settled; looking again");
                    }
                    engine.look_later(&repository, run);
                }
            }
        });
    }

    /// Starts a run, again and again until it is known what has become of it.
    async fn start(self: &Arc<Self>, mut lease: Lease) -> Left {
        let (run, uid) = (lease.run().clone(), lease.uid().clone());
        match self.count_what_runs(lease.repository(), &run).await {
            Ok(false) => {}
            // The slot may be one that is not free: the store grants it again when it is.
            Ok(true) => match self.manager.requeue(lease).await {
                Ok(Some(Admission::Started(next))) => lease = next,
                Ok(Some(queued)) => return Left::Queued(queued),
                Ok(None) => return Left::Open(None),
                Err(error) => return Left::Open(Some(error)),
            },
            Err(error) => return Left::Open(Some(error)),
        }
        let mut attempt = 0;
        // After an answer that was lost, a request may still be on its way to the cluster: from
        // then on the slot is not given back before the run is known to have started or ended.
        let mut is_ambiguous = false;
        loop {
            if !self.manager.holds(&lease) {
                return Left::Open(None);
            }
            if !is_ambiguous && lease.cancel_requested().now_or_never().is_some() {
                return self.end_granted(lease).await;
            }
            let mut outcome = {
                // Only for as long as the cluster is asked: one that refuses a run for hours, or
                // does not answer, must not keep the others from starting.
                let Ok(_permit) = self.starts.acquire().await else {
                    return Left::Open(None);
                };
                self.cluster.start(&run, &uid, lease.token()).await
            };
            if outcome == StartOutcome::Unknown {
                is_ambiguous = true;
                outcome = self.find_out(lease.repository(), &run, &uid).await;
            }
            match outcome {
                StartOutcome::Started | StartOutcome::AlreadyStarted => {
                    let token = lease.token();
                    tracing::info!(%run, %token, "started");
                    // Without a request of ours, Pipelines-as-Code or its user has started it.
                    if outcome == StartOutcome::Started || is_ambiguous {
                        let started = || Some(What::Started { token });
                        self.tell(lease.repository(), &run, &uid, started);
                        self.tell_unprepared(lease.repository(), &run, &uid);
                    }
                    self.seen().started(&run, &uid, lease.token());
                    return Left::Settled;
                }
                StartOutcome::Cancelled => {
                    // A graceful form must not run the `finally` tasks of what never ran, nor
                    // may they run without a slot.
                    let form = SpecStatus::Cancelled;
                    match self.cluster.request_end(&run, &uid, form).await {
                        // It is looked at as what runs.
                        Ok(EndOutcome::Runs) => return Left::Open(None),
                        Ok(_) => return self.give_back(lease).await,
                        Err(error) => {
                            tracing::warn!(%run, %error, "could not have a cancelled run ended");
                        }
                    }
                }
                StartOutcome::Gone => return self.give_back(lease).await,
                StartOutcome::StillPending if !is_ambiguous => {
                    let (repository, token) = (lease.repository().clone(), lease.token());
                    let requeued = self.manager.requeue(lease).await;
                    // Asked to end meanwhile, it has ended with that, and does not wait.
                    if let Ok(Some(Admission::Started(_) | Admission::Queued(_))) = &requeued {
                        let given_back = || Some(What::GivenBack { token });
                        self.tell(&repository, &run, &uid, given_back);
                    }
                    match requeued {
                        Ok(Some(Admission::Started(next))) => lease = next,
                        Ok(Some(queued)) => return Left::Queued(queued),
                        Ok(None) => return Left::Open(None),
                        Err(error) => return Left::Open(Some(error)),
                    }
                }
                _ => {}
            }
            sleep(backoff(attempt)).await;
            attempt += 1;
        }
    }

    /// Counts the runs of a Repository that run without a slot, before one more starts: the lease
    /// TTL of a controller may pass while its runs go on, and their slots are granted to others.
    /// True when there was one. Asks the store only where the cluster shows as many as may run.
    async fn count_what_runs(
        &self,
        repository: &RepositoryKey,
        starting: &PipelineRunKey,
    ) -> Result<bool, Error> {
        let running: Vec<_> = {
            let seen = self.seen();
            let limit = seen.limit(repository).and_then(|l| l.limit.get());
            let Some(limit) = limit else {
                return Ok(false);
            };
            let mode = self.options.mode;
            let others = seen
                .views_of(repository)
                .filter(|view| view.key != *starting);
            let running = others.filter(|view| Phase::in_mode(view, true, mode) == Phase::Running);
            let running: Vec<_> = running.map(Arc::clone).collect();
            let weights = running.iter();
            let weights = weights.map(|view| {
                let policies = seen.policies(repository, view);
                policies.map_or(Weight::ONE, |policies| policies.weight)
            });
            if weights.map(|weight| u64::from(weight.get())).sum::<u64>() < limit.into() {
                return Ok(false);
            }
            running
        };
        let status = self.manager.status(repository).await?;
        let known = Known::all(&status, self.manager.session());
        let is_settled = |view: &RunView| match known.get(&view.key) {
            // It is counted.
            Some(Known::Started { .. }) => true,
            // It has ended.
            Some(Known::Finished { uid, outcome }) => {
                *uid == view.uid && *outcome != RunOutcome::LeaseLost
            }
            _ => false,
        };
        let mut any = false;
        for view in running.iter().filter(|view| !is_settled(view)) {
            let admission = self
                .manager
                .adopt(repository, self.request(repository, view))
                .await?;
            any |= matches!(admission, Admission::Started(_));
        }
        Ok(any)
    }

    /// Reads what has become of a start whose answer was lost.
    async fn find_out(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
        uid: &Uid,
    ) -> StartOutcome {
        let view = match self.cluster.read(run).await {
            Ok(Some(view)) => view,
            Ok(None) => return StartOutcome::Gone,
            Err(error) => {
                tracing::warn!(%run, %error, "it is not known whether it has started; its slot is \
                     kept");
                return StartOutcome::Unknown;
            }
        };
        let is_other = view.uid != *uid;
        let phase = Phase::of(&view, true);
        let queue = self.seen().queue_of(&view);
        if queue.as_ref() == Some(repository) {
            self.observe(ClusterEvent::RunApplied(view));
        }
        match phase {
            _ if is_other => StartOutcome::Gone,
            Phase::Running | Phase::Done(_) => StartOutcome::AlreadyStarted,
            Phase::Ending { .. } => StartOutcome::Cancelled,
            _ => StartOutcome::StillPending,
        }
    }

    /// Tells, and logs, that Pipelines-as-Code has not prepared a run that was started.
    fn tell_unprepared(&self, repository: &RepositoryKey, run: &PipelineRunKey, uid: &Uid) {
        let Some(missing) = self.started_without(run, uid) else {
            return;
        };
        tracing::warn!(
            %run, "Pipelines-as-Code {missing}; the run was started all the same, and may fail: see \
             whether the watcher of Pipelines-as-Code works"
        );
        self.tell(repository, run, uid, || {
            Some(What::StartedUnprepared { missing })
        });
    }

    /// Has a run ended that was asked to end and has not started, and frees its slot.
    async fn end_granted(&self, lease: Lease) -> Left {
        let (repository, run) = (lease.repository().clone(), lease.run().clone());
        let seen = self.seen().run(&run).map(Arc::clone);
        let Some(view) = seen.filter(|view| view.uid == *lease.uid()) else {
            return Left::Open(None);
        };
        match self.end_held(&repository, &view, NEVER_STARTED).await {
            Ok(true) => self.give_back(lease).await,
            // It is looked at anew, as it is by then.
            Ok(false) => Left::Open(None),
            Err(error) => {
                tracing::warn!(%run, %error, "could not have a run ended that was asked to end");
                Left::Open(None)
            }
        }
    }

    async fn give_back(&self, lease: Lease) -> Left {
        match self.manager.release(lease, RunOutcome::Cancelled).await {
            Ok(_) => Left::Settled,
            Err(error) => Left::Open(Some(error)),
        }
    }
}

/// The right to start a run, which comes back also when the task that starts it panics.
pub(super) struct StartClaim<'a> {
    engine: &'a Engine,
    repository: &'a RepositoryKey,
    run: &'a PipelineRunKey,
    is_open: bool,
}

impl<'a> StartClaim<'a> {
    /// The right to start a run; `None`, and noted, when it is being started already.
    pub(super) fn take(
        engine: &'a Engine,
        repository: &'a RepositoryKey,
        run: &'a PipelineRunKey,
    ) -> Option<Self> {
        let is_open = engine.claim_start(run);
        is_open.then_some(Self {
            engine,
            repository,
            run,
            is_open,
        })
    }

    /// Gives the right back. True when there was a further reason to start the run meanwhile.
    pub(super) fn end(mut self) -> bool {
        self.is_open = false;
        self.engine.end_start(self.run)
    }
}

impl Drop for StartClaim<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.engine.end_start(self.run);
            self.engine.look_later(self.repository, self.run.clone());
        }
    }
}

/// How an attempt to start a run was left.
#[derive(Debug)]
enum Left {
    /// It runs, or will never.
    Settled,
    /// It waits again, or was asked to end and has ended with its slot.
    Queued(Admission),
    /// It has to be looked at again.
    Open(Option<Error>),
}
