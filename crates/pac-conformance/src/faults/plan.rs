//! The plan of what goes wrong, and what has come of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use pac_core::driver::{Descriptor, Placement};
use pac_core::{Error, ErrorKind, RepositoryKey};
use tokio::sync::watch;

use super::fault::{Countdown, Fault, HintFault, Request, When};
use super::rewind::Rewound;
use super::ruin::Ruin;

/// What goes wrong between managers and their store. Nothing, unless it is told to.
#[derive(Debug)]
pub struct Faults(watch::Sender<Plan>);

/// How much came by.
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
    rules: Vec<Rule>,
    hint_rules: Vec<(HintFault, Countdown)>,
    ruins: HashMap<RepositoryKey, Ruin>,
    rewound: Rewound,
    describe: fn(Descriptor) -> Descriptor,
    random: Rng,
    requests: HashMap<Request, u64>,
    traffic: HashMap<RepositoryKey, Traffic>,
    hints_hit: u64,
}

/// One planned fault.
#[derive(Debug)]
struct Rule {
    requests: Vec<Request>,
    /// Only requests about this repository; all when `None`.
    repository: Option<RepositoryKey>,
    fault: Fault,
    countdown: Countdown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    Open,
    Cut,
    Held,
}

impl Faults {
    /// Nothing goes wrong yet; what is to happen by chance is drawn from `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(Plan {
            connection: Connection::Open,
            rules: Vec::new(),
            hint_rules: Vec::new(),
            ruins: HashMap::new(),
            rewound: Rewound::default(),
            describe: |inner| inner,
            random: Rng::with_seed(seed),
            requests: HashMap::new(),
            traffic: HashMap::new(),
            hints_hit: 0,
        })))
    }

    /// Nothing goes wrong yet, and nothing by chance.
    #[must_use]
    pub fn none() -> Arc<Self> {
        Self::seeded(0)
    }

    /// The end of a line, without a clock: nothing is done when it is first asked, commits go in
    /// batches of at most 16 repositories, and what comes meanwhile gathers for the next one.
    #[must_use]
    pub fn line() -> Arc<Self> {
        let line = Self::none();
        line.inject(Request::ALL, Fault::Turns(5), When::Always);
        line.describe(|inner| {
            let placement = Placement::Remote {
                batches_in_flight: 1,
            };
            inner.with_placement(placement).with_batches_of(16, 120)
        });
        line
    }

    /// How far each repository has gone back.
    pub(super) fn rewound(&self) -> Rewound {
        self.0.borrow().rewound.clone()
    }

    pub(super) fn set_rewound(&self, rewound: Rewound) {
        self.0.send_modify(|plan| plan.rewound = rewound);
    }

    /// From now on every request fails at once, and watches break. For good it is what a crash
    /// is to everybody else.
    pub fn cut(&self) {
        self.0.send_modify(|plan| plan.connection = Connection::Cut);
    }

    /// From now on requests and hints wait: the store, or this process, stands still.
    pub fn hold(&self) {
        self.0
            .send_modify(|plan| plan.connection = Connection::Held);
    }

    /// The connection is as it was before it was cut or held.
    pub fn open(&self) {
        self.0
            .send_modify(|plan| plan.connection = Connection::Open);
    }

    /// From now on this happens to these requests, beside what else is planned for them. Faults
    /// happen in the order in which they were planned; the first that ends a request ends it.
    pub fn inject(&self, requests: impl IntoIterator<Item = Request>, fault: Fault, when: When) {
        self.plan(requests, None, fault, when);
    }

    /// The same for one repository alone: its reads, and the commits to it. A batch that has it is
    /// one request and meets the fault as a whole. Of all other requests: nothing.
    pub fn inject_at(
        &self,
        repository: &RepositoryKey,
        requests: impl IntoIterator<Item = Request>,
        fault: Fault,
        when: When,
    ) {
        self.plan(requests, Some(repository.clone()), fault, when);
    }

    /// From now on this happens to hints; of several faults for one hint, the first.
    pub fn inject_hints(&self, fault: HintFault, when: When) {
        let rule = (fault, Countdown::from(when));
        self.0.send_modify(|plan| plan.hint_rules.push(rule));
    }

    /// From now on a repository is read so, until it is [mended](Self::mend).
    pub fn ruin(&self, repository: &RepositoryKey, ruin: Ruin) {
        let repository = repository.clone();
        self.0
            .send_modify(|plan| _ = plan.ruins.insert(repository, ruin));
    }

    /// A repository is read again as it is.
    pub fn mend(&self, repository: &RepositoryKey) {
        self.0.send_modify(|plan| _ = plan.ruins.remove(repository));
    }

    /// What the driver says of itself. To be told before a manager is opened.
    pub fn describe(&self, describe: fn(Descriptor) -> Descriptor) {
        self.0.send_modify(|plan| plan.describe = describe);
    }

    /// From now on nothing goes wrong any more, and what hangs goes on.
    pub fn clear(&self) {
        self.0.send_modify(|plan| {
            plan.connection = Connection::Open;
            plan.rules.clear();
            plan.hint_rules.clear();
            plan.ruins.clear();
        });
    }

    /// Whether all that was planned for the [next](When::Next) so many has happened.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        let plan = self.0.borrow();
        let mut rules = plan.rules.iter().map(|rule| &rule.countdown);
        rules.all(Countdown::is_used_up)
            && plan.hint_rules.iter().all(|(_, rule)| rule.is_used_up())
    }

    /// How many requests of this kind came by, including those that failed.
    #[must_use]
    pub fn requests(&self, request: Request) -> u64 {
        self.0.borrow().requests.get(&request).copied().unwrap_or(0)
    }

    /// What was asked of one repository.
    #[must_use]
    pub fn traffic(&self, repository: &RepositoryKey) -> Traffic {
        self.0
            .borrow()
            .traffic
            .get(repository)
            .copied()
            .unwrap_or_default()
    }

    /// What was asked of all repositories together.
    #[must_use]
    pub fn total_traffic(&self) -> Traffic {
        let plan = self.0.borrow();
        let add = |sum: Traffic, one: &Traffic| Traffic {
            loads: sum.loads + one.loads,
            commits: sum.commits + one.commits,
        };
        plan.traffic.values().fold(Traffic::default(), add)
    }

    /// How many hints met a fault.
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

    fn plan(
        &self,
        requests: impl IntoIterator<Item = Request>,
        repository: Option<RepositoryKey>,
        fault: Fault,
        when: When,
    ) {
        let rule = Rule {
            requests: requests.into_iter().collect(),
            repository,
            fault,
            countdown: Countdown::from(when),
        };
        self.0.send_modify(|plan| plan.rules.push(rule));
    }

    /// What happens to a request about these repositories that is made now. Waits while the
    /// connection is held.
    ///
    /// # Errors
    /// `Unavailable` when the connection is cut.
    pub(super) async fn meet(
        &self,
        request: Request,
        repositories: &[RepositoryKey],
    ) -> Result<Vec<Fault>, Error> {
        self.unseen(|plan| *plan.requests.entry(request).or_default() += 1);
        let mut plan = self.0.subscribe();
        let held = |plan: &Plan| plan.connection == Connection::Held;
        // The sender is there: it is `self`.
        if plan.wait_for(|plan| !held(plan)).await.unwrap().connection == Connection::Cut {
            return Err(cut(request.name()));
        }
        Ok(self.unseen(|plan| {
            let random = &mut plan.random;
            let mine = plan.rules.iter_mut().filter(|rule| {
                let one = rule.repository.as_ref();
                rule.requests.contains(&request) && one.is_none_or(|one| repositories.contains(one))
            });
            let hit = mine.filter_map(|rule| rule.countdown.hits(random).then_some(rule.fault));
            hit.collect()
        }))
    }

    /// What happens to a hint that comes now.
    pub(super) fn meet_hint(&self) -> Option<HintFault> {
        self.unseen(|plan| {
            let random = &mut plan.random;
            let hit = |(fault, rule): &mut (_, Countdown)| rule.hits(random).then_some(*fault);
            let fault = plan.hint_rules.iter_mut().find_map(hit);
            plan.hints_hit += u64::from(fault.is_some());
            fault
        })
    }

    /// Waits until this fault is planned for such requests no more.
    pub(super) async fn outlast(&self, fault: Fault, request: Request) {
        let lasts = |plan: &Plan| {
            let mut rules = plan.rules.iter();
            rules.any(|rule| rule.fault == fault && rule.requests.contains(&request))
        };
        drop(self.0.subscribe().wait_for(|plan| !lasts(plan)).await);
    }

    pub(super) fn drawn(&self, longest: Duration) -> Duration {
        self.unseen(|plan| longest.mul_f64(plan.random.f64()))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Plan> {
        self.0.subscribe()
    }

    /// A change of what nobody waits for.
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

/// The answer to a request whose fate its sender cannot know.
pub(super) fn lost(request: Request) -> Error {
    let kind = if request.changes_something() {
        ErrorKind::Indeterminate
    } else {
        ErrorKind::Unavailable
    };
    Error::new(kind, request.name(), "the answer was lost by the test")
}
