//! The waiters of one repository.

use super::Repository;
use super::effects::{Effects, EndOfWaiting, Grant, Place, Turn, TurnMessage, WaiterId};
use super::env::Port;
use crate::hash::{HashMap, HashSet};
use crate::name::{PipelineRunKey, Uid};
use crate::state::{Entry, EntryState, RunKind};
use crate::value::{SessionId, Ticket};

#[derive(Debug)]
pub(super) struct Waiter<P: Port> {
    pub(super) id: WaiterId,
    /// Both tell the run from another one of its name, and from itself when it comes again.
    pub(super) uid: Uid,
    pub(super) ticket: Ticket,
    pub(super) kind: RunKind,
    pub(super) notice: P::Notice,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Waiters<P: Port> {
    /// By run; admitted more than once, the last one comes first.
    pub(super) by_run: HashMap<PipelineRunKey, Vec<Waiter<P>>>,
    /// Waiters that were detached while the end of their waiting was on its way to them.
    pub(super) detached: HashSet<u64>,
    pub(super) next: u64,
}

impl<P: Port> Default for Waiters<P> {
    fn default() -> Self {
        Self {
            by_run: HashMap::default(),
            detached: HashSet::default(),
            next: 0,
        }
    }
}

impl<P: Port> Waiters<P> {
    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.by_run.is_empty()
    }

    /// Adds a waiter for the turn of `entry`.
    pub(super) fn add(&mut self, entry: &Entry) -> Place<P> {
        let id = WaiterId(self.next);
        self.next += 1;
        let (notice, end) = P::place(id.0);
        let waiters = self.by_run.entry(entry.run.clone()).or_default();
        waiters.push(Waiter {
            id,
            uid: entry.uid.clone(),
            ticket: entry.ticket,
            kind: entry.kind,
            notice,
        });
        Place { waiter: id, end }
    }

    /// Takes a waiter out. `None` when it did not wait any more; true when it was the last for
    /// its run.
    pub(super) fn remove(&mut self, run: &PipelineRunKey, id: WaiterId) -> Option<bool> {
        let waiters = self.by_run.get_mut(run)?;
        let before = waiters.len();
        waiters.retain(|waiter| waiter.id != id);
        let removed = waiters.len() < before;
        let none = waiters.is_empty();
        if none {
            self.by_run.remove(run);
        }
        removed.then_some(none)
    }

    /// Whether a run is waited for.
    pub(super) fn knows(&self, run: &PipelineRunKey) -> bool {
        self.by_run.contains_key(run)
    }

    /// The uid and the ticket that the waiters of a run wait with.
    pub(super) fn awaited(&self, run: &PipelineRunKey) -> Option<(&Uid, Ticket)> {
        let last = self.by_run.get(run)?.last()?;
        Some((&last.uid, last.ticket))
    }

    /// Tells all waiters of a run that there is nothing to wait for.
    pub(super) fn end(
        &mut self,
        run: &PipelineRunKey,
        why: impl Fn() -> EndOfWaiting,
        effects: &mut Effects<P>,
    ) {
        for waiter in self.by_run.remove(run).unwrap_or_default() {
            effects.turns.push(waiter.over(why()));
        }
    }

    /// Tells the waiters of all runs for which `ends` has a reason.
    pub(super) fn end_where(
        &mut self,
        ends: impl Fn(&PipelineRunKey, RunKind) -> Option<EndOfWaiting>,
        effects: &mut Effects<P>,
    ) {
        let kind = |waiters: &[Waiter<P>]| waiters.last().map(|waiter| waiter.kind);
        let over = self
            .by_run
            .extract_if(|run, waiters| kind(waiters).is_none_or(|kind| ends(run, kind).is_some()));
        for (run, waiters) in over {
            let Some(kind) = kind(&waiters) else {
                continue;
            };
            for waiter in waiters {
                if let Some(why) = ends(&run, kind) {
                    effects.turns.push(waiter.over(why));
                }
            }
        }
    }

    /// Gives a grant to the last waiter of its run, and tells earlier ones that it is not
    /// theirs. Gives it back when nobody waits for the run.
    pub(super) fn start(&mut self, grant: Grant, effects: &mut Effects<P>) -> Option<Grant> {
        let mut waiters = self.by_run.remove(&grant.entry.run).unwrap_or_default();
        let Some(last) = waiters.pop() else {
            return Some(grant);
        };
        effects.turns.push(Turn {
            waiter: last.id,
            notice: last.notice,
            message: TurnMessage::Started(grant),
        });
        for earlier in waiters {
            effects.turns.push(earlier.over(EndOfWaiting::TakenOver));
        }
        None
    }

    /// Notes that a waiter was detached whose waiting has ended without its knowing.
    pub(super) fn detach_late(&mut self, id: WaiterId) {
        self.detached.insert(id.0);
    }

    /// Whether a waiter that could not be told of its end was detached; asked once.
    pub(super) fn was_detached(&mut self, id: WaiterId) -> bool {
        self.detached.remove(&id.0)
    }
}

impl<P: Port> Waiter<P> {
    fn over(self, why: EndOfWaiting) -> Turn<P> {
        Turn {
            waiter: self.id,
            notice: self.notice,
            message: TurnMessage::Over(why),
        }
    }
}

impl<P: Port> Repository<P> {
    /// Whether somebody waits here for the run that is the next to start, and `session` has a run
    /// that is before it.
    #[must_use]
    pub fn is_next_behind(&self, session: SessionId) -> bool {
        if self.waiters.is_empty() {
            return false;
        }
        self.state.as_ref().is_some_and(|state| {
            let mut queue = state.queue();
            let next = queue.find(|entry| entry.owner() != Some(session));
            let is_ours = next.is_some_and(|next| self.waiters.knows(&next.run));
            is_ours && state.entries().any(|entry| is_of(entry, session))
        })
    }
}

/// Whether a session waits for the run, or has its slot, be it as an orphan.
fn is_of(entry: &Entry, session: SessionId) -> bool {
    match entry.state {
        EntryState::Queued { owner } => owner == Some(session),
        EntryState::Started {
            session: holder, ..
        } => holder == session,
        EntryState::Finished { .. } => false,
    }
}
