//! Replays one repository of a trace.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::{
    Admission, ConcurrencyManager, Ended, Ending, Error, Group, Lease, Limit, LimitVersion,
    PipelineRunKey, RepositoryKey, RunRequest, RunStatus, Supersedes, Timestamp, Turn, Waiter,
    Weight,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::bug::internal;
use super::clock::ReplayClock;
use super::progress::Progress;
use super::record::{RepositoryRecord, RunOutcome, RunRecord};
use super::trace::{Event, Row};
use super::watchdog::{Earlier, Watchdog};

/// How long runs may wait for a slot that is free before the replay fails.
const STUCK: Duration = Duration::from_secs(60);

/// Replays one repository.
#[derive(Debug)]
pub(crate) struct RepositoryReplay {
    repository: RepositoryKey,
    managers: Arc<[ConcurrencyManager]>,
    clock: Arc<ReplayClock>,
    progress: Progress,
    watchdog: Watchdog,
    limit: Option<Limit>,
    runs: Vec<Run>,
    index: HashMap<PipelineRunKey, usize>,
    /// When running runs end, the next first. Cancelled runs are not removed.
    ends: BinaryHeap<Reverse<(Timestamp, usize)>>,
    waiting: HashSet<usize>,
    waiters: JoinSet<()>,
    turns: mpsc::UnboundedReceiver<(usize, Result<Turn, Error>)>,
    on_turn: mpsc::UnboundedSender<(usize, Result<Turn, Error>)>,
    unknown_cancels: Vec<(usize, PipelineRunKey)>,
}

/// A run of the trace that has arrived.
#[derive(Debug)]
struct Run {
    record: RunRecord,
    duration: Duration,
    /// The controller that admitted it.
    controller: usize,
    /// Present while the run holds its slot.
    lease: Option<Lease>,
}

/// What a run of the trace asks for.
struct Wishes {
    request: RunRequest,
    weight: Weight,
    group: Option<Group>,
    supersedes: Supersedes,
}

impl RepositoryReplay {
    pub(crate) fn new(
        repository: RepositoryKey,
        managers: Arc<[ConcurrencyManager]>,
        clock: Arc<ReplayClock>,
        progress: Progress,
    ) -> Self {
        let (on_turn, turns) = mpsc::unbounded_channel();
        Self {
            repository,
            managers,
            clock,
            progress,
            watchdog: Watchdog::default(),
            limit: None,
            runs: Vec::new(),
            index: HashMap::new(),
            ends: BinaryHeap::new(),
            waiting: HashSet::new(),
            waiters: JoinSet::new(),
            turns,
            on_turn,
            unknown_cancels: Vec::new(),
        }
    }

    /// Replays all rows, until the last run has ended.
    ///
    /// # Errors
    /// The first error of a call to a manager.
    pub(crate) async fn run(
        mut self,
        rows: Vec<(usize, Row)>,
    ) -> Result<(RepositoryRecord, Vec<(usize, PipelineRunKey)>), Error> {
        let mut rows = rows.into_iter().peekable();
        loop {
            let next_row = rows.peek().map(|(_, row)| row.at);
            let next_end = self.ends.peek().map(|Reverse((at, _))| *at);
            let next = match (next_end, next_row) {
                (None, None)
                    if self
                        .waiting
                        .iter()
                        .all(|run| self.watchdog.is_held_up(*run)) =>
                {
                    break;
                }
                (None, None) => {
                    self.next_turn().await?;
                    continue;
                }
                (Some(end), row) if row.is_none_or(|row| end <= row) => end,
                (_, row) => row.or(next_end).unwrap_or_else(|| self.clock.now()),
            };
            tokio::select! {
                biased;
                Some((run, turn)) = self.turns.recv() => self.turn(run, turn)?,
                () = self.clock.reach(next) => {
                    if next_end == Some(next) {
                        self.end().await?;
                    } else if let Some((index, row)) = rows.next() {
                        self.row(index, row).await?;
                        self.progress.row_done();
                    }
                }
            }
        }
        for run in &self.waiting {
            if let Some(run) = self.runs.get_mut(*run) {
                run.record.outcome = RunOutcome::Waiting;
            }
        }
        let mut record = RepositoryRecord {
            repository: self.repository,
            limit_changes: Vec::new(),
            peak_running: 0,
            starts_checked: 0,
            exceeded: Vec::new(),
            runs: self.runs.into_iter().map(|run| run.record).collect(),
        };
        self.watchdog.report(&mut record);
        Ok((record, self.unknown_cancels))
    }

    async fn row(&mut self, index: usize, row: Row) -> Result<(), Error> {
        let controller = index % self.managers.len();
        let version = LimitVersion::new(index as u64 + 1);
        match row.event {
            Event::Run {
                run,
                limit,
                duration,
                priority,
                weight,
                group,
                supersedes,
            } => {
                let uid = format!("line-{}", row.line).parse()?;
                let mut request = RunRequest::durable(run.clone(), uid).with_priority(priority);
                if weight != Weight::ONE {
                    request = request.with_weight(weight);
                }
                if let Some(group) = &group {
                    request = request.in_group(group.clone()).superseding(supersedes);
                }
                let wishes = Wishes {
                    request,
                    weight,
                    group,
                    supersedes,
                };
                let record = RunRecord {
                    line: row.line,
                    repository: self.repository.clone(),
                    run,
                    priority,
                    queued_at: None,
                    started_at: None,
                    completed_at: None,
                    outcome: RunOutcome::Completed,
                };
                let run = Run {
                    record,
                    duration,
                    controller,
                    lease: None,
                };
                self.arrive(run, (limit, version), wishes).await
            }
            Event::SetLimit(limit) => self.announce(controller, (limit, version)).await,
            Event::Cancel(run) => self.cancel(controller, row.line, run).await,
            Event::Pause(paused) => self.pause(controller, paused).await,
        }
    }

    async fn arrive(
        &mut self,
        mut run: Run,
        limit: (Limit, LimitVersion),
        wishes: Wishes,
    ) -> Result<(), Error> {
        let manager = self.manager(run.controller)?;
        self.announce(run.controller, limit).await?;
        let earlier = match &wishes.group {
            Some(group) if wishes.supersedes != Supersedes::None => self.watchdog.supersede(group),
            _ => Earlier::default(),
        };
        let index = self.runs.len();
        self.watchdog.arrived(index, wishes.weight, wishes.group);
        let admitted = manager.admit(&self.repository, wishes.request).await?;
        self.index.insert(run.record.run.clone(), index);
        match admitted {
            Admission::Started(lease) => {
                run.record.queued_at = self.moment(lease.queued_at());
                self.runs.push(run);
                self.start(index, lease)?;
            }
            Admission::Queued(waiter) => {
                run.record.queued_at = self.moment(waiter.queued_at());
                self.runs.push(run);
                self.wait(index, waiter);
            }
            other => return Err(internal(format!("a new run was answered {other:?}"))),
        }
        self.make_way(&manager, earlier, wishes.supersedes).await
    }

    /// Waits until the earlier runs of a group have ended: those that wait because they are superseded,
    /// those that run because they are asked to.
    async fn make_way(
        &mut self,
        manager: &ConcurrencyManager,
        earlier: Earlier,
        supersedes: Supersedes,
    ) -> Result<(), Error> {
        if !earlier.waiting.is_empty() {
            for run in &earlier.waiting {
                while self.waiting.contains(run) {
                    self.next_turn().await?;
                }
            }
            // Runs that one of them held up have started with the same commit.
            let status = manager.status(&self.repository).await?;
            let still: HashSet<_> = status.queued.into_iter().map(|run| run.run).collect();
            let names = self.waiting.iter().filter_map(|run| self.runs.get(*run));
            let names = names.map(|run| run.record.run.clone());
            let started: Vec<_> = names.filter(|name| !still.contains(name)).collect();
            self.started(&started).await?;
        }
        if supersedes == Supersedes::All {
            for run in earlier.running {
                self.end_as_asked(run).await?;
            }
        }
        Ok(())
    }

    /// Ends a run that is asked to, as soon as it hears of it.
    async fn end_as_asked(&mut self, index: usize) -> Result<(), Error> {
        let run = self.runs.get_mut(index);
        let Some((lease, controller)) =
            run.and_then(|run| Some((run.lease.take()?, run.controller)))
        else {
            return Ok(());
        };
        if timeout(STUCK, lease.cancel_requested()).await.is_err() {
            return Err(internal(format!("{} was not asked to end", lease.run())));
        }
        self.watchdog.ended(index);
        let manager = self.manager(controller)?;
        let cancelled = pac_concurrency::RunOutcome::Cancelled;
        let ending = manager.release(lease, cancelled).await?;
        self.ended(index, ending, RunOutcome::Cancelled).await
    }

    async fn pause(&mut self, controller: usize, paused: bool) -> Result<(), Error> {
        let manager = self.manager(controller)?;
        if !paused {
            // What starts because of it starts after it.
            self.watchdog.paused(self.clock.now(), false);
            let resumed = manager.resume(&self.repository).await?;
            return self.started(&resumed.promoted).await;
        }
        manager.pause(&self.repository, None).await?;
        self.watchdog.paused(self.clock.now(), true);
        Ok(())
    }

    /// Announces a limit unless it is in force already, and waits for the runs that it starts.
    async fn announce(
        &mut self,
        controller: usize,
        (limit, version): (Limit, LimitVersion),
    ) -> Result<(), Error> {
        if self.limit == Some(limit) {
            return Ok(());
        }
        let manager = self.manager(controller)?;
        let changed = manager
            .set_limit(&self.repository, limit, Some(version))
            .await?;
        self.limit = Some(limit);
        self.watchdog.announce(self.clock.now(), limit);
        self.started(&changed.promoted).await
    }

    fn wait(&mut self, run: usize, waiter: Waiter) {
        self.waiting.insert(run);
        let on_turn = self.on_turn.clone();
        while self.waiters.try_join_next().is_some() {}
        self.waiters.spawn(async move {
            let turn = waiter.await;
            // The receiver is gone if the replay has failed elsewhere.
            let _ = on_turn.send((run, turn));
        });
    }

    /// Waits until the runs that another run's end or a limit has started have received their
    /// leases.
    async fn started(&mut self, promoted: &[PipelineRunKey]) -> Result<(), Error> {
        let runs = promoted.iter().filter_map(|run| self.index.get(run));
        let mut due: BTreeSet<_> = runs.copied().collect();
        loop {
            due.retain(|run| self.waiting.contains(run));
            if due.is_empty() {
                return Ok(());
            }
            self.next_turn().await?;
        }
    }

    async fn next_turn(&mut self) -> Result<(), Error> {
        match timeout(STUCK, self.turns.recv()).await {
            Ok(Some((run, turn))) => self.turn(run, turn),
            Ok(None) | Err(_) => Err(internal(format!(
                "{} runs of {} got no slot although they could",
                self.waiting.len(),
                self.repository
            ))),
        }
    }

    fn turn(&mut self, run: usize, turn: Result<Turn, Error>) -> Result<(), Error> {
        // A run that was cancelled no longer waits; its end is recorded already.
        if !self.waiting.remove(&run) {
            return Ok(());
        }
        match turn? {
            Turn::Started(lease) => self.start(run, lease),
            // Gone: the store has forgotten the end of one among many already.
            Turn::Ended(pac_concurrency::RunOutcome::Superseded) | Turn::Gone
                if self.watchdog.is_superseded(run) =>
            {
                self.watchdog.ended(run);
                let now = self.clock.now();
                if let Some(run) = self.runs.get_mut(run) {
                    run.record.completed_at = Some(now);
                    run.record.outcome = RunOutcome::Superseded;
                }
                self.progress.run_done();
                Ok(())
            }
            turn => Err(internal(format!("a waiting run was told {turn:?}"))),
        }
    }

    fn start(&mut self, index: usize, lease: Lease) -> Result<(), Error> {
        let started = self.moment(lease.started_at());
        let at = started.ok_or_else(|| internal("a lease has no start".to_owned()))?;
        self.watchdog.started(index, at, self.clock.now());
        let run = self
            .runs
            .get_mut(index)
            .ok_or_else(|| internal("an unknown run started".to_owned()))?;
        run.record.started_at = Some(at);
        run.lease = Some(lease);
        self.ends.push(Reverse((at.plus(run.duration), index)));
        Ok(())
    }

    /// Ends the running run that is due next.
    async fn end(&mut self) -> Result<(), Error> {
        let Some(Reverse((_, index))) = self.ends.pop() else {
            return Ok(());
        };
        let Some(run) = self.runs.get_mut(index) else {
            return Ok(());
        };
        // The lease is gone if the run was cancelled.
        let Some(lease) = run.lease.take() else {
            return Ok(());
        };
        let controller = run.controller;
        self.watchdog.ended(index);
        let manager = self.manager(controller)?;
        let completed = pac_concurrency::RunOutcome::Completed;
        let ending = manager.release(lease, completed).await?;
        self.ended(index, ending, RunOutcome::Completed).await
    }

    async fn cancel(
        &mut self,
        controller: usize,
        line: usize,
        name: PipelineRunKey,
    ) -> Result<(), Error> {
        let index = self.index.get(&name).copied();
        let known = index.and_then(|index| Some((index, self.runs.get_mut(index)?)));
        let Some((index, run)) = known.filter(|(_, run)| run.record.completed_at.is_none()) else {
            self.unknown_cancels.push((line, name));
            return Ok(());
        };
        run.lease = None;
        self.watchdog.ended(index);
        self.waiting.remove(&index);
        let manager = self.manager(controller)?;
        let ending = manager.cancel(&self.repository, &name, None).await?;
        self.ended(index, ending, RunOutcome::Cancelled).await
    }

    async fn ended(
        &mut self,
        index: usize,
        ending: Ending,
        outcome: RunOutcome,
    ) -> Result<(), Error> {
        if ending.ended != Ended::Done {
            return Err(internal(format!("ending a run was answered {ending:?}")));
        }
        let (started, finished) = match ending.status() {
            RunStatus::Finished(run) => (run.started_at, run.finished_at),
            _ => (None, None),
        };
        let at = self.moment(finished).unwrap_or_else(|| self.clock.now());
        // If a run is cancelled at the moment of its start, it counts as started.
        let started = self.moment(started);
        if let Some(run) = self.runs.get_mut(index) {
            run.record.started_at = run.record.started_at.or(started);
            run.record.completed_at = Some(at);
            run.record.outcome = outcome;
        }
        self.progress.run_done();
        self.started(&ending.promoted).await
    }

    fn moment(&self, stamp: Option<Timestamp>) -> Option<Timestamp> {
        stamp.map(|stamp| self.clock.of_store(stamp))
    }

    fn manager(&self, controller: usize) -> Result<ConcurrencyManager, Error> {
        let manager = self.managers.get(controller);
        let missing = || internal(format!("there is no controller {controller}"));
        manager.cloned().ok_or_else(missing)
    }
}
