//! Which waiting runs start, in which order, and with which slots.

use std::collections::BTreeSet;

use super::plan::Plan;
use crate::name::PipelineRunKey;
use crate::state::{Entry, EntryState, Head, Moment, Rank, RunKind, Terms, Weight};
use crate::value::SessionId;

/// A run that takes more slots than this is not told their numbers: its record would be long.
const MOST_NUMBERED: u16 = 256;

/// How many waiting runs are looked at for one that fits where the next one does not.
const LOOKED_AT: usize = 1_000;

impl Plan<'_> {
    /// Grants a slot with the next token to `session` for a run that is queued or started.
    pub(super) fn start(&mut self, entry: Entry, session: SessionId) {
        let grant = self.grant(&entry, session);
        self.change(entry, grant);
    }

    /// Like [`Self::start`], for a run that is new to the repository.
    pub(super) fn start_new(&mut self, entry: Entry, session: SessionId) {
        let grant = self.grant(&entry, session);
        self.put_new(grant(entry));
    }

    fn grant(&mut self, entry: &Entry, session: SessionId) -> impl FnOnce(Entry) -> Entry + use<> {
        let token = self.head.last_token.next();
        self.head.last_token = token;
        if session != self.issuer.session && !self.alive.contains(&session) {
            self.alive.push(session);
        }
        // A run that goes on with another session keeps its slots.
        let is_told = entry.terms().numbered && entry.weight().get() <= MOST_NUMBERED;
        let numbers = (is_told && !entry.is_started()).then(|| self.free_numbers(entry.weight()));
        move |mut entry| {
            if let (Some(terms), Some(slots)) = (&mut entry.terms, numbers) {
                terms.slots = slots;
            }
            entry.state = EntryState::Started {
                token,
                session,
                orphaned: false,
            };
            // Else it is running already; only its owner changes.
            if entry.started == Moment::NEVER {
                entry.started = Moment::AT_COMMIT;
            }
            entry
        }
    }

    /// The smallest numbers of slots that no run has. Costs as much as there are runs that have some.
    fn free_numbers(&self, weight: Weight) -> Vec<u32> {
        let mut used: BTreeSet<u32> = self.base.slot_numbers().collect();
        let changed = || self.overlay.entries();
        let before = changed().filter_map(|entry| self.base.entry(&entry.run));
        for entry in before.filter(|entry| entry.is_started()) {
            used.retain(|number| !entry.terms().slots.contains(number));
        }
        let now = changed().filter(|entry| entry.is_started());
        used.extend(now.flat_map(|entry| entry.terms().slots.iter().copied()));
        let free = (0..=u32::MAX).filter(|number| !used.contains(number));
        free.take(weight.get().into()).collect()
    }

    /// Queues a new run, then starts every run that can start.
    pub(super) fn arrive(&mut self, entry: Entry) {
        if self.head.queued == 0 && self.head.admits(entry.weight()) {
            // The same result as below, without inserting into the queue and removing again.
            let session = self.issuer.session;
            self.start_new(entry, session);
        } else {
            self.put_new(entry);
            self.promote();
        }
    }

    /// Starts waiting runs in order while there are slots for the next one, and returns them.
    ///
    /// Every command that may free a slot or add a waiter calls this or [`Self::arrive`], so no
    /// run can start above the limit or overtake a waiter, but for those that the repository lets
    /// [go before](Self::lighter) a run that does not fit.
    pub(super) fn promote(&mut self) -> Vec<PipelineRunKey> {
        let mut promoted = Vec::new();
        if self.head.queued == 0 {
            return promoted;
        }
        while self.head.admits(Weight::ONE) {
            let Some((next, session)) = self.next_waiter() else {
                break;
            };
            if self.budget_is_spent() {
                break;
            }
            let fits = self.head.admits(next.weight());
            let next = if fits {
                Some((next, session))
            } else {
                let lighter = self.lighter(&next);
                if lighter.is_some() {
                    self.note_passed(next);
                }
                lighter
            };
            let Some((next, session)) = next else {
                break;
            };
            promoted.push(next.run.clone());
            self.start(next, session);
        }
        promoted
    }

    /// Whether one of the issuer's waiting runs could start at once. Every commit starts all
    /// runs that can start, up to its budget. So this is true only after a commit that reached
    /// the budget, or after the owner of an earlier waiter died.
    pub(crate) fn could_start_own(&mut self) -> bool {
        let session = self.issuer.session;
        self.head.queued > 0
            && self.head.admits(Weight::ONE)
            && self.next_waiter().is_some_and(|(next, owner)| {
                if self.head.admits(next.weight()) {
                    return owner == session;
                }
                let lighter = self.lighter(&next);
                lighter.is_some_and(|(_, owner)| owner == session)
            })
    }

    /// The first waiter that can be granted a slot, and the session to grant it to. A durable
    /// run without a live owner goes to the issuer if the issuer can start it; else it keeps its
    /// place until a process that can start it issues a command. One that needs more slots than there
    /// are keeps its place until there are as many.
    fn next_waiter(&mut self) -> Option<(Entry, SessionId)> {
        let grantee = Grantee::of(self);
        let arrival = self.arrivals.iter().find_map(|(rank, run)| {
            let entry = self.overlay.get(run)?;
            Some((*rank, &**entry, grantee.of_entry(&self.head, entry)?))
        });
        // A base entry that this plan changed is in `arrivals` if it still waits.
        let (overlay, head) = (&self.overlay, &self.head);
        let passed = |entry: &Entry| {
            overlay.get(&entry.run).is_some() || grantee.of_entry(head, entry).is_none()
        };
        let base = self.base;
        let waiting = self
            .waiting
            .get_or_insert_with(|| base.queue_iter().peekable());
        while waiting.next_if(|entry| passed(entry)).is_some() {}
        let waiting = waiting.peek().map(AsRef::as_ref);
        match (arrival, waiting) {
            (Some((rank, entry, session)), Some(first)) if rank < Rank::of(first) => {
                Some((entry.clone(), session))
            }
            (Some((_, entry, session)), None) => Some((entry.clone(), session)),
            (_, Some(first)) => Some((first.clone(), grantee.of_entry(head, first)?)),
            (None, None) => None,
        }
    }

    /// Whether another run than this waits that would be granted slots as soon as there are any.
    pub(super) fn somebody_could_wait_before(&self, run: &PipelineRunKey) -> bool {
        let grantee = Grantee::of(self);
        let mut others = self.waiters().filter(|entry| entry.run != *run);
        others.any(|entry| grantee.of_entry(&self.head, entry).is_some())
    }

    /// The rules have changed: who was passed over may be the next one now.
    pub(super) fn look_again(&mut self) {
        self.waiting = None;
    }

    /// The first waiter that fits where `first`, which is the next one, does not: if the repository
    /// lets runs go before it, and not as many as may have done so yet.
    fn lighter(&self, first: &Entry) -> Option<(Entry, SessionId)> {
        if !self.may_be_passed(first) {
            return None;
        }
        let grantee = Grantee::of(self);
        self.waiters().take(LOOKED_AT).find_map(|entry| {
            let session = grantee.of_entry(&self.head, entry)?;
            let fits = self.head.admits(entry.weight());
            fits.then(|| (entry.clone(), session))
        })
    }

    fn may_be_passed(&self, first: &Entry) -> bool {
        let policy = self.head.policy.as_ref();
        let most = policy.and_then(|policy| policy.rules.backfill);
        most.is_some_and(|most| first.terms().passed < most.get())
    }

    /// Another run goes before the next one, which does not fit.
    fn note_passed(&mut self, first: Entry) {
        let terms = Terms {
            passed: first.terms().passed + 1,
            ..first.terms().clone()
        };
        self.change(first, |first| first.with_terms(terms));
    }

    /// All runs that wait, in order, as the commands applied so far have left them.
    pub(super) fn waiters(&self) -> impl Iterator<Item = &Entry> {
        let base = self.base.queue_iter();
        let mut base = base.filter(|entry| self.is_untouched(entry)).peekable();
        let arrived = |(_, run)| self.overlay.get(run);
        let mut arrivals = self.arrivals.iter().filter_map(arrived).peekable();
        std::iter::from_fn(move || {
            let next = match (base.peek(), arrivals.peek()) {
                (Some(known), Some(new)) if Rank::of(new) < Rank::of(known) => arrivals.next(),
                (Some(_), _) => base.next(),
                (None, _) => arrivals.next(),
            };
            next.map(AsRef::as_ref)
        })
    }

    /// Puts down what the first waiter needs that there are slots enough for at all, or the least of
    /// those that may go before it.
    pub(super) fn note_needs(&mut self) {
        let Some(policy) = &self.head.policy else {
            return;
        };
        let needs = if self.head.queued == 0 {
            0
        } else {
            let fits = |entry: &&Entry| self.head.has_slots_for(entry.weight());
            let mut possible = self.waiters().filter(fits);
            let first = possible.next();
            let least = first
                .filter(|first| first.weight().surplus() > 0 && self.may_be_passed(first))
                .and_then(|_| {
                    let others = possible.take(LOOKED_AT);
                    others.map(|entry| entry.weight().surplus()).min()
                });
            let needs = first.map_or(u32::MAX, |first| first.weight().surplus());
            least.map_or(needs, |least| least.min(needs))
        };
        if policy.needs != needs {
            self.head.policy_mut().needs = needs;
        }
    }
}

/// To whom a waiting run would be granted a slot.
#[derive(Clone, Copy)]
struct Grantee<'a> {
    issuer: super::Issuer,
    dead: &'a [SessionId],
}

impl<'a> Grantee<'a> {
    fn of(plan: &Plan<'a>) -> Self {
        Self {
            issuer: plan.issuer,
            dead: plan.dead,
        }
    }

    fn of_entry(self, head: &Head, entry: &Entry) -> Option<SessionId> {
        if !head.has_slots_for(entry.weight()) {
            return None;
        }
        match entry.state {
            EntryState::Queued { owner: Some(owner) } if !self.dead.contains(&owner) => Some(owner),
            EntryState::Queued { .. } => {
                let takes = self.issuer.takes_ownerless && entry.kind == RunKind::Durable;
                takes.then_some(self.issuer.session)
            }
            EntryState::Started { .. } | EntryState::Finished { .. } => None,
        }
    }
}
