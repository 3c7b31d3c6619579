//! The queue of one Repository in memory, and what is to be done about it: decided from what the
//! cluster shows, without asking anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pac_core::{FencingToken, Limit, PipelineRunKey, Timestamp, Uid};

use super::decide::{Standing, decide};
use crate::integration::batches;
use crate::model::{PacState, RunView};

/// The queue of one Repository. Empty after a restart: the next plan fills it from the runs'
/// annotations.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    /// The runs that wait, next first; those that are being started keep their places here.
    waiting: Vec<(PipelineRunKey, Uid)>,
    /// The runs whose start was asked for. Each has a slot until its object shows what has become
    /// of it, or the start has certainly failed.
    starting: BTreeMap<PipelineRunKey, Starting>,
    /// The runs that have a slot by their objects, as of the last plan.
    running: BTreeSet<PipelineRunKey>,
    last_token: u64,
}

#[derive(Debug, Clone)]
struct Starting {
    uid: Uid,
    token: FencingToken,
    /// It is known to have started; its object does not show it yet.
    has_started: bool,
}

/// What the cluster and the clock say when a plan is made.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Circumstances {
    /// The limit in force; `None` where it cannot be understood, and nothing starts.
    pub limit: Option<Limit>,
    /// The time that creation times are compared with.
    pub now: Timestamp,
    /// How long a run waits for its execution order.
    pub order_wait: Duration,
}

impl Circumstances {
    /// A limit, the time now, and the wait for the execution order.
    #[must_use]
    pub fn new(limit: Option<Limit>, now: Timestamp, order_wait: Duration) -> Self {
        Self {
            limit,
            now,
            order_wait,
        }
    }
}

/// What is to be done in one Repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Plan {
    /// States that are to be written on runs.
    pub mark: Vec<(Arc<RunView>, PacState)>,
    /// Runs that are to be ended at once.
    pub end_at_once: Vec<Arc<RunView>>,
    /// Runs that are to be started, in this order.
    pub start: Vec<Start>,
    /// How long it takes until the next run is due that waits for its execution order.
    pub next_due: Option<Duration>,
}

/// A run that is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Start {
    /// The run.
    pub run: Arc<RunView>,
    /// Tells this start apart from every other one of the Repository whose run is still there. It
    /// is no fence: nothing counts on that outlives the runs.
    pub token: FencingToken,
    /// Its start was asked for before, and it is not known what came of that.
    pub is_again: bool,
}

impl Queue {
    /// Brings the queue to what the cluster shows, and says what is to be done. `runs` are all
    /// runs of the Repository; `seen_for` says for how long one has been known.
    ///
    /// Known runs keep their places; new ones go behind them, the runs of one event in their
    /// order. Each run of [`Plan::start`] has a slot from now on: say what came of its start by
    /// [`started`](Self::started) or [`not_started`](Self::not_started), or leave it, where that
    /// is not known.
    pub fn plan(
        &mut self,
        runs: &[Arc<RunView>],
        circumstances: Circumstances,
        seen_for: impl Fn(&RunView) -> Duration,
    ) -> Plan {
        let mut plan = Plan::default();
        let limited = circumstances
            .limit
            .is_none_or(|limit| limit.get().is_some());
        let mut held: BTreeMap<&PipelineRunKey, &Arc<RunView>> = BTreeMap::new();
        self.running.clear();
        for run in runs {
            let (standing, state) = decide(run, limited);
            plan.mark
                .extend(state.map(|state| (Arc::clone(run), state)));
            match standing {
                Standing::Nothing => {}
                Standing::Waits => {
                    held.insert(&run.key, run);
                }
                Standing::Runs => {
                    self.running.insert(run.key.clone());
                }
                Standing::EndsAtOnce => plan.end_at_once.push(Arc::clone(run)),
            }
            let token = run.token().map_or(0, FencingToken::get);
            self.last_token = self.last_token.max(token);
        }
        let waits =
            |key: &PipelineRunKey, uid: &Uid| held.get(key).is_some_and(|run| run.uid == *uid);
        self.starting.retain(|key, start| waits(key, &start.uid));
        self.waiting.retain(|(key, uid)| waits(key, uid));
        self.append_new(runs, &held, circumstances, seen_for, &mut plan);
        self.choose(&held, circumstances.limit, &mut plan);
        plan
    }

    /// A start was done; its slot is kept until the run's object shows it.
    pub fn started(&mut self, run: &PipelineRunKey) {
        if let Some(start) = self.starting.get_mut(run) {
            start.has_started = true;
        }
    }

    /// A start has certainly failed: the run gives its slot back, and has its old place.
    pub fn not_started(&mut self, run: &PipelineRunKey) {
        self.starting.remove(run);
    }

    /// The runs that have a slot: those that run, then those that are being started.
    pub fn running(&self) -> impl Iterator<Item = &PipelineRunKey> {
        self.running.iter().chain(self.starting.keys())
    }

    /// The runs that wait, next first.
    pub fn waiting(&self) -> impl Iterator<Item = &PipelineRunKey> {
        let runs = self.waiting.iter().map(|(run, _)| run);
        runs.filter(|run| !self.starting.contains_key(run))
    }

    /// Puts new runs behind the known ones.
    fn append_new(
        &mut self,
        runs: &[Arc<RunView>],
        held: &BTreeMap<&PipelineRunKey, &Arc<RunView>>,
        circumstances: Circumstances,
        seen_for: impl Fn(&RunView) -> Duration,
        plan: &mut Plan,
    ) {
        let known: BTreeSet<_> = self.waiting.iter().map(|(run, _)| run.clone()).collect();
        let is_new = |run: &RunView| held.contains_key(&run.key) && !known.contains(&run.key);
        if !runs.iter().any(|run| is_new(run)) {
            return;
        }
        // An event is as old as its oldest run, although that one runs or has ended meanwhile.
        let concerned = runs.iter().filter(|run| is_new(run) || run.has_order());
        let concerned: Vec<_> = concerned.cloned().collect();
        let batches = batches(
            &concerned,
            circumstances.now,
            circumstances.order_wait,
            seen_for,
        );
        let new = batches.due.iter().flatten().filter(|run| is_new(run));
        self.waiting
            .extend(new.map(|run| (run.key.clone(), run.uid.clone())));
        plan.next_due = batches.next_due;
    }

    /// Gives free slots to the first that wait; asks again for starts of which nothing is known.
    fn choose(
        &mut self,
        held: &BTreeMap<&PipelineRunKey, &Arc<RunView>>,
        limit: Option<Limit>,
        plan: &mut Plan,
    ) {
        for (key, uid) in &self.waiting {
            let Some(run) = held.get(key) else {
                continue;
            };
            if let Some(start) = self.starting.get(key) {
                if !start.has_started {
                    plan.start.push(Start {
                        run: Arc::clone(run),
                        token: start.token,
                        is_again: true,
                    });
                }
                continue;
            }
            let taken = self.running.len() + self.starting.len();
            let taken = u32::try_from(taken).unwrap_or(u32::MAX);
            if !limit.is_some_and(|limit| limit.admits(taken)) {
                continue;
            }
            self.last_token = self.last_token.saturating_add(1);
            let token = FencingToken::new(self.last_token);
            let start = Starting {
                uid: uid.clone(),
                token,
                has_started: false,
            };
            self.starting.insert(key.clone(), start);
            plan.start.push(Start {
                run: Arc::clone(run),
                token,
                is_again: false,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Condition, ConditionStatus, SpecStatus};
    use crate::vocabulary;

    fn held(name: &str, created: i64, order: &str) -> Arc<RunView> {
        let key = PipelineRunKey::new("ci", name).unwrap();
        let mut run = RunView::new(key, format!("uid-{name}").parse().unwrap());
        run.created = Some(Timestamp::from_unix_millis(created * 1_000));
        run.spec_status = SpecStatus::Pending;
        let state = (vocabulary::STATE.to_owned(), "queued".to_owned());
        let names: Vec<_> = order.split(' ').map(|name| format!("ci/{name}")).collect();
        let order = (vocabulary::EXECUTION_ORDER.to_owned(), names.join(","));
        run.annotations.extend([state, order]);
        Arc::new(run)
    }

    fn running(run: &Arc<RunView>) -> Arc<RunView> {
        let mut run = RunView::clone(run);
        run.spec_status = SpecStatus::None;
        Arc::new(run)
    }

    fn done(run: &Arc<RunView>) -> Arc<RunView> {
        let mut run = RunView::clone(&running(run));
        run.succeeded = Some(Condition::new(ConditionStatus::True, "Succeeded"));
        Arc::new(run)
    }

    fn plan(queue: &mut Queue, runs: &[Arc<RunView>], limit: u32) -> Vec<String> {
        let now = Timestamp::from_unix_millis(100_000);
        let limit = Some(Limit::new(limit));
        let circumstances = Circumstances::new(limit, now, Duration::from_secs(10));
        let plan = queue.plan(runs, circumstances, |_| Duration::ZERO);
        let start = plan.start.iter();
        start.map(|start| start.run.key.name().to_owned()).collect()
    }

    fn waiting(queue: &Queue) -> Vec<&str> {
        queue.waiting().map(PipelineRunKey::name).collect()
    }

    #[test]
    fn a_slot_is_kept_until_it_is_known_what_became_of_a_start() {
        let (a, b) = (held("a", 1, "a b"), held("b", 1, "a b"));
        let mut queue = Queue::default();
        let both = [a.clone(), b.clone()];
        assert_eq!(plan(&mut queue, &both, 1), ["a"]);
        // Nothing is known: the same run, again and again.
        assert_eq!(plan(&mut queue, &both, 1), ["a"]);
        queue.started(&a.key);
        // Its object does not show it yet, or an old event came late.
        assert_eq!(plan(&mut queue, &both, 1), [""; 0]);
        assert_eq!(plan(&mut queue, &[running(&a), b.clone()], 1), [""; 0]);
        assert_eq!(plan(&mut queue, &[done(&a), b.clone()], 1), ["b"]);
    }

    #[test]
    fn a_start_that_certainly_failed_keeps_its_place() {
        let runs = ["a", "b", "c"].map(|name| held(name, 1, "a b c"));
        let mut queue = Queue::default();
        assert_eq!(plan(&mut queue, &runs, 2), ["a", "b"]);
        queue.not_started(&runs[0].key);
        assert_eq!(waiting(&queue), ["a", "c"]);
        queue.not_started(&runs[1].key);
        assert_eq!(waiting(&queue), ["a", "b", "c"]);
        assert_eq!(plan(&mut queue, &runs, 1), ["a"]);
    }

    #[test]
    fn known_runs_keep_their_places() {
        let runs = [held("x", 1, "x"), held("b", 5, "b")];
        let mut queue = Queue::default();
        assert_eq!(plan(&mut queue, &runs, 1), ["x"]);
        // An older run that is heard of later.
        let [x, b] = runs;
        let runs = [x.clone(), b.clone(), held("a", 2, "a")];
        assert_eq!(plan(&mut queue, &runs, 1), ["x"]);
        assert_eq!(waiting(&queue), ["b", "a"]);
        // After a restart creation decides; an event is as old as its oldest run.
        let mut queue = Queue::default();
        let late = [held("z1", 0, "z1 z2"), held("z2", 9, "z1 z2")];
        let [z1, z2] = late;
        let runs = [x, b, held("a", 2, "a"), done(&z1), z2];
        assert_eq!(plan(&mut queue, &runs, 1), ["z2"]);
        assert_eq!(waiting(&queue), ["x", "a", "b"]);
    }

    #[test]
    fn a_new_run_of_an_old_name_comes_last() {
        let runs = [held("a", 1, "a b"), held("b", 1, "a b")];
        let mut queue = Queue::default();
        assert_eq!(plan(&mut queue, &runs, 1), ["a"]);
        let [a, b] = runs;
        let mut new = RunView::clone(&a);
        new.uid = "another".parse().unwrap();
        assert_eq!(plan(&mut queue, &[Arc::new(new), b], 1), ["b"]);
        assert_eq!(waiting(&queue), ["a"]);
    }

    #[test]
    fn without_a_limit_that_is_known_nothing_starts() {
        let runs = [held("a", 1, "a")];
        let mut queue = Queue::default();
        let now = Timestamp::from_unix_millis(100_000);
        let circumstances = Circumstances::new(None, now, Duration::from_secs(10));
        let plan = queue.plan(&runs, circumstances, |_| Duration::ZERO);
        assert_eq!(plan, Plan::default());
        assert_eq!(waiting(&queue), ["a"]);
    }

    #[test]
    fn tokens_count_up_from_the_highest_that_is_shown() {
        let mut queue = Queue::default();
        let mut shown = RunView::clone(&running(&held("old", 1, "old")));
        let token = (vocabulary::TOKEN.to_owned(), "41".to_owned());
        shown.annotations.extend([token]);
        let runs = [Arc::new(shown), held("a", 2, "a")];
        assert_eq!(plan(&mut queue, &runs, 2), ["a"]);
        let token = queue.starting.values().next().unwrap().token;
        assert_eq!(token, FencingToken::new(42));
    }
}
