//! Who waits for the turn of which run.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::repository::Repository;
use crate::hash::{HashMap, HashSet};
use crate::name::PipelineRunKey;
use crate::state::{Entry, RunOutcome};
use crate::value::{FencingToken, SessionId, Ticket};

/// The end of a channel on which a waiter hears that its turn has come.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) notice: oneshot::Receiver<Notice>,
}

/// What is said there, once.
#[derive(Debug)]
pub(super) enum Notice {
    Started(Grant),
    Over(Farewell),
}

/// Why waiting is over without a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    Ended(RunOutcome),
    TakenOver,
    Gone,
    /// It was started in the name of a session that is over.
    Lost(SessionId),
}

/// What a lease is made of.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) repository: Arc<Repository>,
    pub(super) entry: Arc<Entry>,
    pub(super) token: FencingToken,
    pub(super) session: SessionId,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    /// Tells the run from another one of its name.
    ticket: Ticket,
    notice: oneshot::Sender<Notice>,
}

/// The waiters of one repository.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// By run; admitted more than once, the last one comes first.
    waiters: HashMap<PipelineRunKey, Vec<Waiter>>,
    /// Runs that waited without a waiter when the state was forgotten: what has become of them
    /// since is news, although nothing is known from before.
    left: HashSet<PipelineRunKey>,
    next: u64,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty() && self.left.is_empty()
    }

    /// Has somebody waiting for the turn of `entry`.
    pub(super) fn add(&mut self, entry: &Entry) -> Place {
        let (sender, notice) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        let waiters = self.waiters.entry(entry.run.clone()).or_default();
        waiters.push(Waiter {
            number,
            ticket: entry.ticket,
            notice: sender,
        });
        Place { number, notice }
    }

    /// Takes a waiter out. True when it was waiting, and was the last for this run.
    pub(super) fn remove(&mut self, run: &PipelineRunKey, number: u64) -> bool {
        let Some(waiters) = self.waiters.get_mut(run) else {
            return false;
        };
        let before = waiters.len();
        waiters.retain(|waiter| waiter.number != number);
        let removed = waiters.len() < before;
        let none = waiters.is_empty();
        if none {
            self.waiters.remove(run);
        }
        removed && none
    }

    /// Whether a run is waited for.
    pub(super) fn knows(&self, run: &PipelineRunKey) -> bool {
        self.waiters.contains_key(run)
    }

    /// The state is forgotten, and with it that this run waited.
    pub(super) fn leave(&mut self, run: &PipelineRunKey) {
        if !self.knows(run) {
            self.left.insert(run.clone());
        }
    }

    /// Whether a run waited when the state was forgotten; asked once.
    pub(super) fn find_again(&mut self, run: &PipelineRunKey) -> bool {
        !self.left.is_empty() && self.left.remove(run)
    }

    /// The ticket that the waiters of a run wait with.
    pub(super) fn ticket(&self, run: &PipelineRunKey) -> Option<Ticket> {
        self.waiters.get(run)?.last().map(|waiter| waiter.ticket)
    }

    /// Says to all waiters of a run that there is nothing to wait for.
    pub(super) fn end(&mut self, run: &PipelineRunKey, farewell: Farewell) {
        for waiter in self.waiters.remove(run).unwrap_or_default() {
            // One that was dropped in this instant gives its run up by itself.
            let _ = waiter.notice.send(Notice::Over(farewell));
        }
    }

    /// Everything was read: who waits for what is not there, waits in vain.
    pub(super) fn end_unknown(&mut self, exists: impl Fn(&PipelineRunKey) -> bool) {
        self.left.clear();
        let unknown = self.waiters.extract_if(|run, _| !exists(run));
        for waiter in unknown.flat_map(|(_, waiters)| waiters) {
            let _ = waiter.notice.send(Notice::Over(Farewell::Gone));
        }
    }

    /// Hands a grant to the last waiter of its run; earlier ones hear that it is not theirs.
    /// Gives it back when nobody was there to take it.
    pub(super) fn start(&mut self, mut grant: Grant) -> Option<Grant> {
        let mut waiters = self.waiters.remove(&grant.entry.run).unwrap_or_default();
        while let Some(waiter) = waiters.pop() {
            match waiter.notice.send(Notice::Started(grant)) {
                Err(Notice::Started(unheard)) => grant = unheard,
                Ok(()) | Err(Notice::Over(_)) => {
                    for earlier in waiters {
                        let _ = earlier.notice.send(Notice::Over(Farewell::TakenOver));
                    }
                    return None;
                }
            }
        }
        Some(grant)
    }
}
