//! The plan of faults, and what it has counted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use pac_core::driver::{Descriptor, Driver};
use pac_core::{Error, ErrorKind, RepositoryKey};
use tokio::sync::watch;

use super::driver::Faulty;
use super::fault::{Countdown, Fault, HintFault, Request, When};
use super::ruin::Ruin;

/// A plan of faults between managers and their store. A new plan has none.
#[derive(Debug)]
pub struct Faults(watch::Sender<Plan>);

/// The traffic of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Reads of a repository.
    pub loads: u64,
    /// Commits to a repository; a batch has one or more.
    pub commits: u64,
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) connection: Connection,
    rules: Vec<(Vec<Request>, Fault, Countdown)>,
    hint_rules: Vec<(HintFault, Countdown)>,
    ruins: HashMap<RepositoryKey, Ruin>,
    describe: fn(Descriptor) -> Descriptor,
    random: Rng,
    requests: HashMap<Request, u64>,
    traffic: HashMap<RepositoryKey, Traffic>,
    hints_hit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    Open,
    Cut,
    Held,
}

impl Faults {
    /// A plan without faults; random choices are drawn from `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(Plan {
            connection: Connection::Open,
            rules: Vec::new(),
            hint_rules: Vec::new(),
            ruins: HashMap::new(),
            describe: |inner| inner,
            random: Rng::with_seed(seed),
            requests: HashMap::new(),
            traffic: HashMap::new(),
            hints_hit: 0,
        })))
    }

    /// A plan without faults, for tests that need no randomness.
    #[must_use]
    pub fn none() -> Arc<Self> {
        Self::seeded(0)
    }

    /// A remote store without a clock: every request and answer takes a few turns of the
    /// scheduler, commits go in batches of at most 16 repositories, and further commits gather
    /// while one batch is in flight.
    #[must_use]
    pub fn line() -> Arc<Self> {
        let line = Self::none();
        line.inject(Request::ALL, Fault::Turns(5), When::Always);
        line.describe(|inner| Descriptor {
            batches_in_flight: 1,
            repositories_per_batch: 16,
            entries_per_commit: 120,
            ..inner
        });
        line
    }

    /// A driver that reaches the store of `driver` through these faults.
    #[must_use]
    pub fn over(self: &Arc<Self>, driver: &Arc<dyn Driver>) -> Arc<dyn Driver> {
        Arc::new(Faulty::new(driver, self))
    }

    /// From now on every request fails at once, and watches break. If never opened again, this
    /// looks to other managers like a crash.
    pub fn cut(&self) {
        self.0.send_modify(|plan| plan.connection = Connection::Cut);
    }

    /// From now on requests and hints wait, as if the store or this process were paused.
    pub fn hold(&self) {
        self.0
            .send_modify(|plan| plan.connection = Connection::Held);
    }

    /// Undoes [`cut`](Self::cut) and [`hold`](Self::hold).
    pub fn open(&self) {
        self.0
            .send_modify(|plan| plan.connection = Connection::Open);
    }

    /// Adds a fault for these requests to those planned before. Faults happen in the order in
    /// which they were added; the first that ends a request ends it.
    pub fn inject(&self, requests: impl IntoIterator<Item = Request>, fault: Fault, when: When) {
        let requests = requests.into_iter().collect();
        let rule = (requests, fault, Countdown::from(when));
        self.0.send_modify(|plan| plan.rules.push(rule));
    }

    /// Adds a fault for hints. Of several faults that hit a hint, only the first happens.
    pub fn inject_hints(&self, fault: HintFault, when: When) {
        let rule = (fault, Countdown::from(when));
        self.0.send_modify(|plan| plan.hint_rules.push(rule));
    }

    /// From now on reads of a repository show it ruined in this way, until it is
    /// [mended](Self::mend).
    pub fn ruin(&self, repository: &RepositoryKey, ruin: Ruin) {
        let repository = repository.clone();
        self.0
            .send_modify(|plan| _ = plan.ruins.insert(repository, ruin));
    }

    /// From now on reads of a repository show it as it is.
    pub fn mend(&self, repository: &RepositoryKey) {
        self.0.send_modify(|plan| _ = plan.ruins.remove(repository));
    }

    /// Changes the driver's descriptor. Call it before a manager is opened.
    pub fn describe(&self, describe: fn(Descriptor) -> Descriptor) {
        self.0.send_modify(|plan| plan.describe = describe);
    }

    /// Removes all faults; hanging requests continue.
    pub fn clear(&self) {
        self.0.send_modify(|plan| {
            plan.connection = Connection::Open;
            plan.rules.clear();
            plan.hint_rules.clear();
            plan.ruins.clear();
        });
    }

    /// Whether all faults planned with [`When::Next`] have happened.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        let plan = self.0.borrow();
        let mut rules = plan.rules.iter().map(|(_, _, rule)| rule);
        rules.all(Countdown::is_used_up)
            && plan.hint_rules.iter().all(|(_, rule)| rule.is_used_up())
    }

    /// The number of requests of this kind, including failed ones.
    #[must_use]
    pub fn requests(&self, request: Request) -> u64 {
        self.0.borrow().requests.get(&request).copied().unwrap_or(0)
    }

    /// The traffic of one repository.
    #[must_use]
    pub fn traffic(&self, repository: &RepositoryKey) -> Traffic {
        self.0
            .borrow()
            .traffic
            .get(repository)
            .copied()
            .unwrap_or_default()
    }

    /// The traffic of all repositories together.
    #[must_use]
    pub fn total_traffic(&self) -> Traffic {
        let plan = self.0.borrow();
        let add = |sum: Traffic, one: &Traffic| Traffic {
            loads: sum.loads + one.loads,
            commits: sum.commits + one.commits,
        };
        plan.traffic.values().fold(Traffic::default(), add)
    }

    /// The number of hints that met a fault.
    #[must_use]
    pub fn hints_hit(&self) -> u64 {
        self.0.borrow().hints_hit
    }

    pub(super) fn descriptor(&self, inner: Descriptor) -> Descriptor {
        (self.0.borrow().describe)(inner)
    }

    pub(super) fn ruin_of(&self, repository: &RepositoryKey) -> Option<Ruin> {
        self.0.borrow().ruins.get(repository).copied()
    }

    pub(super) fn note(&self, repository: &RepositoryKey, add: impl FnOnce(&mut Traffic)) {
        self.unseen(|plan| add(plan.traffic.entry(repository.clone()).or_default()));
    }

    /// Determines the faults of a request made now. Waits while the connection is held.
    ///
    /// # Errors
    /// `Unavailable` when the connection is cut.
    pub(super) async fn meet(&self, request: Request) -> Result<Vec<Fault>, Error> {
        self.unseen(|plan| *plan.requests.entry(request).or_default() += 1);
        let mut plan = self.0.subscribe();
        let held = |plan: &Plan| plan.connection == Connection::Held;
        // The sender, `self`, still exists.
        if plan.wait_for(|plan| !held(plan)).await.unwrap().connection == Connection::Cut {
            return Err(cut(request.name()));
        }
        Ok(self.unseen(|plan| {
            let random = &mut plan.random;
            let mine = plan
                .rules
                .iter_mut()
                .filter(|(of, ..)| of.contains(&request));
            let hit = mine.filter_map(|(_, fault, rule)| rule.hits(random).then_some(*fault));
            hit.collect()
        }))
    }

    /// Determines the fault of a hint that arrives now.
    pub(super) fn meet_hint(&self) -> Option<HintFault> {
        self.unseen(|plan| {
            let random = &mut plan.random;
            let hit = |(fault, rule): &mut (_, Countdown)| rule.hits(random).then_some(*fault);
            let fault = plan.hint_rules.iter_mut().find_map(hit);
            plan.hints_hit += u64::from(fault.is_some());
            fault
        })
    }

    /// Waits until the plan no longer has this fault for this request.
    pub(super) async fn outlast(&self, fault: Fault, request: Request) {
        let lasts = |plan: &Plan| {
            let mut rules = plan.rules.iter();
            rules.any(|(of, planned, _)| *planned == fault && of.contains(&request))
        };
        drop(self.0.subscribe().wait_for(|plan| !lasts(plan)).await);
    }

    pub(super) fn drawn(&self, longest: Duration) -> Duration {
        self.unseen(|plan| longest.mul_f64(plan.random.f64()))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Plan> {
        self.0.subscribe()
    }

    /// Changes a part of the plan that no task waits for, without waking the tasks.
    fn unseen<T>(&self, change: impl FnOnce(&mut Plan) -> T) -> T {
        let mut result = None;
        self.0.send_if_modified(|plan| {
            result = Some(change(plan));
            false
        });
        result.unwrap()
    }
}

pub(super) fn cut(operation: &'static str) -> Error {
    let message = "the connection was cut by the test";
    Error::new(ErrorKind::Unavailable, operation, message)
}

/// The error of a request when the sender cannot know whether it was carried out.
pub(super) fn lost(request: Request) -> Error {
    let kind = if request.changes_something() {
        ErrorKind::Indeterminate
    } else {
        ErrorKind::Unavailable
    };
    Error::new(kind, request.name(), "the answer was lost by the test")
}
