//! Looking at one Repository: read what the store knows, and plan.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use pac_core::manager::{QueuedRun, RepositoryStatus, RunStatus};
use pac_core::state::{RunKind, RunOutcome, Terms};
use pac_core::{Error, PipelineRunKey, Priority, RepositoryKey};
use tokio::time::Instant;

use super::decide::Known;
use super::engine::Engine;
use super::notices::What;
use super::options::Mode;
use super::phase::Phase;
use super::plan::{Item, Plan};
use super::rules::News;
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
        let news = match &status {
            Some(status) if dirty.all => self.news(repository, effective, status),
            _ => News::default(),
        };
        self.carry_out(repository, plan, news, effective).await
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
        let mut waiting: HashMap<PipelineRunKey, (Priority, Terms)> = HashMap::new();
        let mut runs: BTreeSet<PipelineRunKey> = dirty.runs.clone();
        runs.extend(others.iter().cloned());
        let mut status = None;
        if dirty.all || runs.len() > ONE_BY_ONE {
            let read = self.manager.status(repository).await?;
            known = Known::all(&read, session);
            let queued = read.queued.iter();
            let terms = |run: &QueuedRun| (run.priority, run.terms().clone());
            waiting.extend(queued.map(|run| (run.run.clone(), terms(run))));
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
            waiting.extend(statuses.iter().filter_map(waits_with));
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
                let waits = waiting.get(&run);
                waits.is_some_and(|(priority, terms)| {
                    let policies = seen.policies(repository, view);
                    policies.is_some_and(|wanted| !wanted.are_those_of(*priority, terms))
                })
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

/// The priority and the terms that a run waits with.
fn waits_with(status: &RunStatus) -> Option<(PipelineRunKey, (Priority, Terms))> {
    match status {
        RunStatus::Queued(run) => Some((run.run.clone(), (run.priority, run.terms().clone()))),
        _ => None,
    }
}
