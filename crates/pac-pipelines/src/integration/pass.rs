//! Looking at one Repository: read what the store knows, plan, and carry the plan out.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use pac_core::manager::{Admission, RepositoryStatus, RunStatus};
use pac_core::protocol::RunRequest;
use pac_core::state::{RunKind, RunOutcome};
use pac_core::{Error, Limit, PipelineRunKey, Priority, RepositoryKey};
use tokio::time::Instant;

use super::batch::batches;
use super::decide::Known;
use super::engine::Engine;
use super::limits::EffectiveLimit;
use super::notices::What;
use super::options::Mode;
use super::phase::Phase;
use super::plan::{Item, Plan};
use super::seen::RepositoryState;
use super::work::Dirty;
use crate::cluster::ClusterEvent;
use crate::error::PipelinesError;
use crate::model::{RunView, SpecStatus};
use crate::sections::is_section;

/// Up to so many runs are read from the store one by one, more with their whole repository.
const ONE_BY_ONE: usize = 8;

/// So many runs of one Repository that only the store has are read before anything else is done
/// there; the others follow a second later.
const READS_PER_LOOK: usize = 64;

/// How often an order may lead to runs with another one. Pipelines-as-Code gives each run of an event
/// the same.
const ROUNDS: usize = 4;

/// What came of looking at a Repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Report {
    pub(super) adopted: usize,
    pub(super) admitted: usize,
    pub(super) ended: usize,
}

impl Engine {
    /// Looks at a Repository. Has it looked at again by itself when something is due later.
    pub(super) async fn pass(
        self: &Arc<Self>,
        repository: &RepositoryKey,
        dirty: &Dirty,
    ) -> Result<Report, PipelinesError> {
        let is_ours = self.cluster.follows(repository.namespace());
        if self.options.mode == Mode::Observe || !is_ours {
            return Ok(Report::default());
        }
        if is_section(repository) {
            return self.section_pass(repository, dirty.listed).await;
        }
        let (state, effective, is_lane) = {
            let seen = self.seen();
            let state = seen.repository(repository).cloned();
            (state, seen.limit(repository), seen.is_lane(repository))
        };
        if is_lane && dirty.listed && self.is_forgotten(repository).await? {
            return Ok(Report::default());
        }
        match &state {
            _ if is_lane => {}
            Some(RepositoryState::Deleted(_)) => return self.remove(repository).await,
            None if dirty.listed => return self.remove_missing(repository).await,
            // What belongs to a Repository that is not there is left alone.
            None => {
                let message =
                    format!("there is no Repository {repository}; make it, or cancel the run");
                self.tell_held(repository, &message);
                return Ok(Report::default());
            }
            Some(_) => {}
        }
        let (items, status) = self.whole_events(repository, dirty).await?;
        let limited = effective.is_none_or(|effective| effective.limit.get().is_some());
        let other_limit = match self.options.mode {
            Mode::Gate => self.seen().limit_beside_annotation(repository),
            Mode::Alone | Mode::Takeover | Mode::Observe => None,
        };
        if let Some(limited_by) = &other_limit {
            self.tell_refused(repository, limited_by, &items);
        }
        let mut plan = Plan::of(items, limited, self.options.mode);
        if !plan.verify.is_empty() {
            self.verify(&mut plan, limited).await?;
        }
        if plan.bound_reads(READS_PER_LOOK) {
            let later = Instant::now() + Duration::from_secs(1);
            self.work.mark(repository, Dirty::listed(), later);
        }
        if other_limit.is_some() {
            // In two modes nothing new is admitted: the queue of Pipelines-as-Code starts these runs.
            plan.admit_new.clear();
        }
        self.refuse(repository, &mut plan);
        let limit = effective.filter(|effective| dirty.all && is_news(*effective, status.as_ref()));
        self.carry_out(repository, plan, limit, effective).await
    }

    /// The runs that are to be looked at, and with each new one all of its event. Orders that name
    /// runs of other orders, and so on, are followed [so far](ROUNDS).
    async fn whole_events(
        &self,
        repository: &RepositoryKey,
        dirty: &Dirty,
    ) -> Result<(Vec<Item>, Option<RepositoryStatus>), Error> {
        let mut others = Vec::new();
        let mut rounds = 0;
        loop {
            let (items, status) = self.items(repository, dirty, &others).await?;
            let more = self.others_of_events(repository, &items);
            if more.is_empty() || rounds == ROUNDS {
                return Ok((items, status));
            }
            others.extend(more);
            rounds += 1;
        }
    }

    /// The runs that are to be looked at, and the others, as the cluster shows them and the store knows
    /// them.
    async fn items(
        &self,
        repository: &RepositoryKey,
        dirty: &Dirty,
        others: &[PipelineRunKey],
    ) -> Result<(Vec<Item>, Option<RepositoryStatus>), Error> {
        let session = self.manager.session();
        let mut known: HashMap<PipelineRunKey, Known> = HashMap::new();
        let mut priorities: HashMap<PipelineRunKey, Priority> = HashMap::new();
        let mut runs: BTreeSet<PipelineRunKey> = dirty.runs.clone();
        runs.extend(others.iter().cloned());
        let mut status = None;
        if dirty.all || runs.len() > ONE_BY_ONE {
            let read = self.manager.status(repository).await?;
            known = Known::all(&read, session);
            let queued = read.queued.iter();
            priorities.extend(queued.map(|run| (run.run.clone(), run.priority)));
            if dirty.all {
                runs.extend(self.seen().runs_of(repository));
                runs.extend(live_of_pipelines(&read).cloned());
            }
            status = Some(read);
        } else {
            let reads = runs
                .iter()
                .map(|run| self.manager.run_status(repository, run));
            let statuses = try_join_all(reads).await?;
            priorities.extend(statuses.iter().filter_map(priority_of));
            let statuses = statuses.iter().map(|status| Known::of(status, session));
            known.extend(runs.iter().cloned().zip(statuses));
        }
        let seen = self.seen();
        let mut items = Vec::with_capacity(runs.len());
        for run in runs {
            let known = known.remove(&run).unwrap_or(Known::Unknown);
            let view = seen.run_of(repository, &run).cloned();
            let elsewhere = seen
                .run(&run)
                .filter(|other| view.is_none() && known.uid() == Some(&other.uid));
            let elsewhere = elsewhere.cloned();
            let is_moved = view.as_ref().is_some_and(|view| {
                let queued_at = priorities.get(&run);
                queued_at.is_some_and(|at| *at != seen.policies(repository, view).priority)
            });
            let is_unlisted = dirty.listed && !seen.has_run(&run);
            // Another run of its name is in another queue.
            let is_replaced = view.is_none() && elsewhere.is_none() && seen.run(&run).is_some();
            let is_gone = known
                .uid()
                .is_some_and(|uid| is_unlisted || is_replaced || seen.is_gone(&run, uid));
            items.push(Item {
                run,
                view,
                elsewhere,
                is_gone,
                known,
                is_moved,
            });
        }
        Ok((items, status))
    }

    /// The runs that come with new ones, by the order of their event, and are not among the items: they
    /// were seen while the store was read. Without them, a run could start before those that the order
    /// has first.
    fn others_of_events(&self, repository: &RepositoryKey, items: &[Item]) -> Vec<PipelineRunKey> {
        let looked_at: HashSet<_> = items.iter().map(|item| &item.run).collect();
        let seen = self.seen();
        let mut named: HashSet<PipelineRunKey> = HashSet::new();
        let held = |view: &&Arc<RunView>| {
            view.spec_status == SpecStatus::Pending && !view.is_done() && !view.is_foreign()
        };
        for item in items.iter().filter(|item| item.known == Known::Unknown) {
            // Each run of an event bears the same order.
            let view = item.view.as_ref().filter(held);
            if let Some(view) = view.filter(|view| !named.contains(&view.key))
                && let Some(order) = view.order()
            {
                named.extend(order.runs().iter().cloned());
                named.insert(view.key.clone());
            }
        }
        named.retain(|run| !looked_at.contains(run) && seen.run_of(repository, run).is_some());
        named.into_iter().collect()
    }

    /// Finds out which of two runs of one name there is; what is known of the other one ends.
    async fn verify(&self, plan: &mut Plan, limited: bool) -> Result<(), PipelinesError> {
        for (view, known) in std::mem::take(&mut plan.verify) {
            match self.cluster.read(&view.key).await? {
                Some(now) if now.uid == view.uid => {
                    if known.is_live() {
                        plan.end
                            .push((view.key.clone(), known, RunOutcome::Cancelled));
                    }
                    plan.add(view, Known::Unknown, limited, self.options.mode);
                }
                Some(now) => {
                    self.observe(ClusterEvent::RunDeleted(RunView::clone(&view)));
                    self.observe(ClusterEvent::RunApplied(now));
                }
                None => {
                    self.observe(ClusterEvent::RunDeleted(RunView::clone(&view)));
                }
            }
        }
        Ok(())
    }

    /// Carries a plan out: what runs is counted first, then the limit is announced, then what has
    /// ended frees its slot, and last come those that want one.
    async fn carry_out(
        self: &Arc<Self>,
        repository: &RepositoryKey,
        plan: Plan,
        limit: Option<EffectiveLimit>,
        effective: Option<EffectiveLimit>,
    ) -> Result<Report, PipelinesError> {
        let mut report = Report::default();
        let mut over = Vec::new();
        let adoptions = plan.adopt.iter().map(|view| {
            let request = self.request(repository, view);
            (view, self.manager.adopt(repository, request))
        });
        deal_with_all(adoptions, |view, admission| match admission {
            Admission::Finished(_) => over.push(view),
            _ => report.adopted += 1,
        })
        .await?;
        if let Some(limit) = limit {
            let change = self
                .manager
                .set_limit(repository, limit.limit, limit.version)
                .await?;
            if change.limit != limit.limit {
                tracing::warn!(
                    %repository, wanted = %limit.limit, in_force = %change.limit,
                    "the store has a limit of a newer version than the cluster shows: another \
                     controller has announced it, or the cluster was restored from a backup; in \
                     that case set the limit once with `pac limit`"
                );
            }
        }
        for (view, outcome) in &plan.adopt_and_release {
            let request = self.request(repository, view);
            if let Admission::Started(lease) = self.manager.adopt(repository, request).await? {
                self.manager.release(lease, *outcome).await?;
            }
            report.ended += 1;
        }
        let mut ends = plan.end;
        let asked = self
            .end_at_once(repository, plan.end_at_once, &mut ends)
            .await;
        let read = self.make_sure(repository, plan.gone, &mut ends).await;
        report.ended += ends.len();
        let ends = ends
            .iter()
            .map(|(run, known, outcome)| self.end(repository, run, known, *outcome));
        first_error(join_all(ends).await)?;
        for view in &plan.give_up {
            self.give_up(repository, view).await?;
            report.ended += 1;
        }
        for (view, known) in &plan.moved {
            self.leave(repository, view, known).await?;
        }
        for view in &plan.readmit {
            // Counted for a moment, so that its old place is known; then queued there.
            let request = self.request(repository, view);
            if let Admission::Started(lease) = self.manager.adopt(repository, request).await?
                && let Some(admission) = self.manager.requeue(lease).await?
            {
                self.tell_of(repository, view, What::Requeued);
                self.tell_queued(repository, view, &admission, true);
                self.admitted(admission);
            }
            report.admitted += 1;
        }
        let admissions = plan.admit.iter().map(|view| {
            let request = self.request(repository, view);
            (view, self.manager.admit(repository, request))
        });
        deal_with_all(admissions, |view, admission| match admission {
            Admission::Finished(_) => over.push(view),
            admission => {
                self.tell_queued(repository, view, &admission, true);
                self.admitted(admission);
                report.admitted += 1;
            }
        })
        .await?;
        if let Some(effective) = effective {
            report.admitted += self
                .admit_new(repository, &plan.admit_new, effective)
                .await?;
        }
        // Last, so that a cluster that is away holds nothing else up; it is asked again.
        let over = over.into_iter();
        let over = over.map(|view| self.end_in_cluster(repository, view));
        for is_asked in join_all(over).await {
            report.ended += usize::from(is_asked?);
        }
        asked?;
        read?;
        Ok(report)
    }

    /// Admits new runs, each event's together; those that wait for their order come back.
    async fn admit_new(
        self: &Arc<Self>,
        repository: &RepositoryKey,
        runs: &[Arc<RunView>],
        effective: EffectiveLimit,
    ) -> Result<usize, Error> {
        if runs.is_empty() {
            return Ok(0);
        }
        let batches = {
            let seen = self.seen();
            batches(runs, self.now(), self.options.order_wait, |run| {
                // Pipelines-as-Code writes no order where its own limit is not set, and nothing else
                // ever does. Without a limit it may be that the limit is yet to be heard of.
                let has_none = self.options.mode == Mode::Gate;
                match has_none && effective.limit.get().is_some() {
                    true => self.options.order_wait,
                    false => seen.seen_for(&run.key),
                }
            })
        };
        if let Some(left) = batches.next_due {
            let waiting = runs.iter().map(|run| run.key.clone());
            self.work
                .mark(repository, Dirty::runs(waiting), Instant::now() + left);
        }
        let mut admitted = 0;
        for batch in batches.due {
            let requests = batch
                .iter()
                .map(|view| self.request(repository, view))
                .collect();
            let (admissions, failed) = self.admit_all(repository, effective, requests).await;
            for (view, admission) in batch.iter().zip(admissions) {
                self.tell_invalid(repository, view);
                self.tell_queued(repository, view, &admission, false);
                self.admitted(admission);
                admitted += 1;
            }
            failed?;
        }
        Ok(admitted)
    }

    /// What a run asks the store with.
    pub(super) fn request(&self, repository: &RepositoryKey, view: &RunView) -> RunRequest {
        let request = RunRequest::durable(view.key.clone(), view.uid.clone());
        request.with_priority(self.seen().policies(repository, view).priority)
    }

    /// Tells of the runs that are left alone because their Repository is in two modes: the
    /// `concurrency_limit` of `limited_by` stands beside our annotation.
    fn tell_refused(&self, repository: &RepositoryKey, limited_by: &RepositoryKey, items: &[Item]) {
        for view in items.iter().filter(|item| !item.known.is_live()) {
            let Some(view) = &view.view else { continue };
            let waits = matches!(
                Phase::in_mode(view, true, self.options.mode),
                Phase::Held | Phase::HeldByUser
            );
            if waits && (view.is_of_pac() || view.is_held_for_us()) {
                let limited_by = limited_by.clone();
                self.tell_of(repository, view, What::InTwoModes { limited_by });
            }
        }
    }

    /// Admits runs in their order, with the limit that is in force, in one commit if the store has
    /// room for all of them: those that were, and what became of the rest. To be dealt with one and
    /// all, since a dropped place is given up.
    pub(super) async fn admit_all(
        &self,
        repository: &RepositoryKey,
        effective: EffectiveLimit,
        mut requests: Vec<RunRequest>,
    ) -> (Vec<Admission>, Result<(), Error>) {
        let limit = effective.version.map(|version| (effective.limit, version));
        let mut admitted = Vec::with_capacity(requests.len());
        if limit.is_none()
            && let Err(error) = self
                .manager
                .set_limit(repository, effective.limit, None)
                .await
        {
            return (admitted, Err(error));
        }
        let most = self.manager.most_at_once();
        while !requests.is_empty() {
            let rest = requests.split_off(requests.len().min(most));
            match self.manager.admit_all(repository, limit, requests).await {
                Ok(admissions) => admitted.extend(admissions),
                Err(error) => return (admitted, Err(error)),
            }
            requests = rest;
        }
        (admitted, Ok(()))
    }
}

/// Awaits all that was asked for, and deals with every answer before it fails with the first error: an
/// adoption that is dropped is taken back, and so is a place in the queue.
pub(super) async fn deal_with_all<T, A, E>(
    asked: impl Iterator<Item = (T, impl Future<Output = Result<A, E>>)>,
    mut deal: impl FnMut(T, A),
) -> Result<(), E> {
    let (about, asked): (Vec<T>, Vec<_>) = asked.unzip();
    let mut failed = Ok(());
    for (about, answer) in about.into_iter().zip(join_all(asked).await) {
        match answer {
            Ok(answer) => deal(about, answer),
            Err(error) => failed = failed.and(Err(error)),
        }
    }
    failed
}

/// The first failure of several calls that have all ended.
pub(super) fn first_error<T, E>(results: Vec<Result<T, E>>) -> Result<(), E> {
    results.into_iter().try_for_each(|result| result.map(drop))
}

/// Whether a limit is another than what the store has. Nothing is written for a Repository
/// without a limit of which the store has nothing.
fn is_news(effective: EffectiveLimit, status: Option<&RepositoryStatus>) -> bool {
    match status {
        None => true,
        Some(status) if !status.exists => effective.limit != Limit::UNLIMITED,
        Some(status) => status.limit != effective.limit,
    }
}

/// The runs that wait or hold a slot, but for those that others than controllers of PipelineRuns
/// put there, as `pac exec` does: those are not looked for in the cluster.
pub(super) fn live_of_pipelines(
    status: &RepositoryStatus,
) -> impl Iterator<Item = &PipelineRunKey> {
    let running = status.running.iter().map(|run| (&run.run, run.kind));
    let queued = status.queued.iter().map(|run| (&run.run, run.kind));
    let live = running.chain(queued);
    live.filter_map(|(run, kind)| (kind == RunKind::Durable).then_some(run))
}

/// The priority that a run waits with.
fn priority_of(status: &RunStatus) -> Option<(PipelineRunKey, Priority)> {
    match status {
        RunStatus::Queued(run) => Some((run.run.clone(), run.priority)),
        _ => None,
    }
}
