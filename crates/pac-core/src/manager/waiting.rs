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
    /// Runs of ours that wait without a waiter: their grants go to the stream.
    detached: HashSet<PipelineRunKey>,
    next: u64,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty() && self.detached.is_empty()
    }

    /// Has somebody waiting for the turn of `entry`.
    pub(super) fn add(&mut self, entry: &Entry) -> Place {
        let (sender, notice) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.attach(&entry.run);
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

    /// Leaves a run in the queue without a waiter.
    pub(super) fn detach(&mut self, run: &PipelineRunKey) {
        self.detached.insert(run.clone());
    }

    /// Whether the run was left in the queue; it is not any more.
    pub(super) fn attach(&mut self, run: &PipelineRunKey) -> bool {
        !self.detached.is_empty() && self.detached.remove(run)
    }

    /// Whether a run is waited for, or was detached.
    pub(super) fn knows(&self, run: &PipelineRunKey) -> bool {
        self.waiters.contains_key(run) || self.detached.contains(run)
    }

    /// The runs that are waited for or were detached.
    pub(super) fn runs(&self) -> impl Iterator<Item = &PipelineRunKey> {
        self.waiters.keys().chain(&self.detached)
    }

    /// The ticket that the waiters of a run wait with.
    pub(super) fn ticket(&self, run: &PipelineRunKey) -> Option<Ticket> {
        self.waiters.get(run)?.last().map(|waiter| waiter.ticket)
    }

    /// Says to all waiters of a run that there is nothing to wait for.
    pub(super) fn end(&mut self, run: &PipelineRunKey, farewell: Farewell) {
        self.attach(run);
        for waiter in self.waiters.remove(run).unwrap_or_default() {
            // One that was dropped in this instant gives its run up by itself.
            let _ = waiter.notice.send(Notice::Over(farewell));
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
