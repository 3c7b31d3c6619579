//! One process: a manager, its leases and its waiters.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pac_core::ErrorKind;
use pac_core::driver::Driver;
use pac_core::manager::{
    Admission, ConcurrencyManager, Grants, KeepAliveOn, Lease, ManagerOptions, Turn, Waiter,
};
use pac_core::state::RunOutcome;
use tokio::time::timeout;

use super::edge;
use super::moves::Line;
use crate::faults::Faults;
use crate::reference::{Asker, Place, Repository};

/// The lease TTL: longer than a whole sequence of moves takes.
pub(crate) const LEASE_TTL: Duration = Duration::from_secs(40 * 60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) manager: ConcurrencyManager,
    pub(crate) gate: Arc<Faults>,
    pub(crate) leases: Vec<Lease>,
    /// The waiters, with the uids of their runs.
    pub(crate) waiters: Vec<(u8, Waiter)>,
    /// The runs whose waiters it detached.
    pub(crate) detached: BTreeSet<u8>,
    /// The runs of other processes that it admitted without receiving the answer.
    pub(crate) unheard: BTreeSet<u8>,
    /// The tokens of durable leases that it dropped, whose runs go on.
    forgotten: BTreeSet<u64>,
    /// The stream of grants of runs without an owner, if it takes those.
    grants: Option<Grants>,
}

impl Process {
    pub(crate) async fn start(store: &Arc<dyn Driver>, line: Line, takes_ownerless: bool) -> Self {
        let gate = match line {
            Line::Direct | Line::Gated => Faults::none(),
            Line::Distant => Faults::line(),
        };
        let driver = match line {
            Line::Direct => Arc::clone(store),
            Line::Gated | Line::Distant => gate.over(store),
        };
        let options = ManagerOptions::default()
            .with_lease_ttl(LEASE_TTL)
            // A longer interval than usual, since sequences last hours of paused time.
            .with_sweep_interval(Duration::from_secs(10))
            .with_request_timeout(Duration::from_secs(24 * 60 * 60))
            .with_keep_alive_on(KeepAliveOn::Task);
        let manager = ConcurrencyManager::open(driver, options).await.unwrap();
        let grants = takes_ownerless.then(|| manager.grants().unwrap());
        Self {
            manager,
            gate,
            leases: Vec::new(),
            waiters: Vec::new(),
            detached: BTreeSet::new(),
            unheard: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            grants,
        }
    }

    pub(crate) fn session(&self) -> u64 {
        self.manager.session().get()
    }

    pub(crate) fn asker(&self) -> Asker {
        Asker {
            session: self.session(),
            takes_ownerless: self.takes_ownerless(),
        }
    }

    pub(crate) fn takes_ownerless(&self) -> bool {
        self.grants.is_some()
    }

    /// The names and uids of the runs that it waits for.
    pub(crate) fn awaited(&self) -> Vec<(u8, u8)> {
        let awaited = self.waiters.iter();
        let awaited = awaited.map(|(uid, waiter)| (edge::number(waiter.run()), *uid));
        awaited.collect()
    }

    /// Keeps the lease or the waiter of an admission.
    pub(crate) fn keep(&mut self, uid: u8, admission: Admission) {
        match admission {
            Admission::Started(lease) => self.keep_lease(lease),
            Admission::Queued(waiter) => {
                let known = (edge::number(waiter.run()), uid);
                self.detached.remove(&known.0);
                self.unheard.remove(&known.0);
                // The earlier waiter is dropped only after this one exists, so the place is not
                // given up.
                let before = self.awaited().iter().position(|other| *other == known);
                self.waiters.push((uid, waiter));
                if let Some(before) = before {
                    drop(self.waiters.remove(before));
                }
            }
            Admission::Finished(_) => {}
        }
    }

    /// Keeps a lease, unless it is known already or belongs to another session.
    fn keep_lease(&mut self, lease: Lease) {
        let known = self.leases.iter().any(|known| {
            known.run() == lease.run()
                && known.uid() == lease.uid()
                && known.token() == lease.token()
        });
        if !known && lease.session() == self.manager.session() {
            self.leases.push(lease);
        }
    }

    /// Drops a lease. If `ends`, this ends the run, as it does for an ephemeral one.
    pub(crate) fn drop_lease(&mut self, which: usize, ends: bool) {
        let lease = self.leases.remove(which);
        if !ends {
            self.forgotten.insert(lease.token().get());
        }
    }

    /// Reads what the waiters and the stream of grants have reported, and compares it with the
    /// store. After a `crowded` move they may also have reported a state in between.
    pub(crate) async fn hear(&mut self, store: &Repository, crowded: bool) -> Result<(), String> {
        for (uid, mut waiter) in std::mem::take(&mut self.waiters) {
            let told = timeout(Duration::from_millis(1), &mut waiter).await;
            let name = edge::number(waiter.run());
            let expected = self.due(store, name, uid);
            match told {
                Err(_) if expected == Due::Wait => self.waiters.push((uid, waiter)),
                Ok(Ok(Turn::Started(lease))) if expected == Due::Lease(lease.token().get()) => {
                    self.leases.push(lease);
                }
                Ok(Ok(Turn::Ended(outcome))) if expected == Due::Ended(outcome) => {}
                // The session that it waited in is over, and with it an ephemeral run.
                Ok(Err(error))
                    if error.kind() == ErrorKind::SessionLost
                        && expected == Due::Ended(RunOutcome::LeaseLost) => {}
                Ok(Ok(Turn::TakenOver)) if expected == Due::TakenOver => {}
                Ok(Ok(Turn::Gone)) if expected == Due::Gone => {}
                Ok(Ok(Turn::Started(lease))) if crowded && expected.is_over() => {
                    self.leases.push(lease);
                }
                Ok(Ok(_)) if crowded && expected.is_over() => {}
                told => {
                    return Err(format!(
                        "the waiter of run-{name} heard {told:?}, and it was time for {expected:?}"
                    ));
                }
            }
        }
        if let Some(grants) = &mut self.grants {
            while let Ok(Some(lease)) = timeout(Duration::from_millis(1), grants.next()).await {
                self.leases.push(lease);
            }
        }
        self.has_heard_of_all(store).await
    }

    fn due(&self, store: &Repository, name: u8, uid: u8) -> Due {
        let Some(run) = store.run(name).filter(|run| run.uid == uid) else {
            return Due::Gone;
        };
        let mine = self.session();
        match run.place {
            Place::Waiting { owner } if owner == Some(mine) => Due::Wait,
            // A second admission of the run has answered with the lease already.
            Place::Running { token, session, .. } if session == mine => match self.has(token) {
                true => Due::TakenOver,
                false => Due::Lease(token),
            },
            Place::Waiting { .. } | Place::Running { .. } => Due::TakenOver,
            Place::Over { how, .. } => Due::Ended(edge::outcome(how)),
        }
    }

    fn has(&self, token: u64) -> bool {
        self.leases.iter().any(|lease| lease.token().get() == token)
    }

    async fn has_heard_of_all(&mut self, store: &Repository) -> Result<(), String> {
        let mine = self.session();
        let waits = |name: &u8| {
            let place = store.run(*name).map(|run| run.place);
            matches!(place, Some(Place::Waiting { owner }) if owner.is_none_or(|of| of == mine))
        };
        for run in &store.runs {
            match run.place {
                Place::Running {
                    token,
                    session,
                    orphaned: false,
                } if session == mine => {
                    if self.unheard.contains(&run.name) && !self.has(token) {
                        self.forgotten.insert(token);
                    }
                    let lease = self
                        .leases
                        .iter()
                        .find(|lease| lease.token().get() == token);
                    if lease.is_none() && !self.forgotten.contains(&token) {
                        return Err(format!("nobody has been told that {run}"));
                    }
                    let Some(lease) = lease else { continue };
                    if !self.manager.holds(lease) {
                        return Err(format!("{run}, but its lease does not count as held"));
                    }
                    let asked = timeout(Duration::from_millis(1), lease.cancel_requested());
                    if asked.await.is_ok() != run.asked.is_some() {
                        return Err(format!("{run}, and its lease says otherwise"));
                    }
                    if lease.slots() != run.slots {
                        return Err(format!("{run}, and its lease has {:?}", lease.slots()));
                    }
                }
                Place::Waiting { owner } if owner == Some(mine) => {
                    let awaited = self.awaited().contains(&(run.name, run.uid));
                    let left = |names: &BTreeSet<u8>| names.contains(&run.name);
                    if !awaited && !left(&self.detached) && !left(&self.unheard) {
                        return Err(format!("{run}, and nobody there waits"));
                    }
                }
                _ => {}
            }
        }
        self.detached.retain(waits);
        self.unheard.retain(waits);
        let health = self.manager.health();
        match (health.dead, health.panics) {
            (None, 0) => Ok(()),
            _ => Err(format!("{health:?}")),
        }
    }
}

/// The expected report of a waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Wait,
    Lease(u64),
    Ended(RunOutcome),
    TakenOver,
    Gone,
}

impl Due {
    fn is_over(self) -> bool {
        matches!(self, Self::Ended(_) | Self::TakenOver | Self::Gone)
    }
}
