//! What a test can make the server do wrong.

pub(crate) mod plan;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::operation::Operation;
use crate::shared::Shared;

/// A way in which a request goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It is done after this long.
    Delayed(Duration),
    /// It is done at once, and answered after this long.
    AnsweredLate(Duration),
    /// It is not done, and answered with `Unavailable` and this text.
    Refused(String),
    /// It is done, and answered with `etcdserver: request timed out`: its client cannot know
    /// whether it was done.
    TimedOut,
    /// It is not done, and answered with `etcdserver: revision of auth store is old`: users or
    /// roles were changed while it was under way. Its client is to get another token.
    AuthStoreOld,
    /// It is not done, and its connection ends.
    CutBefore,
    /// It is done, and its connection ends without an answer.
    CutAfter,
}

/// The faults of one server: they begin when they are asked for, and concern this server alone.
#[derive(Clone, Copy)]
pub struct Faults<'a> {
    shared: &'a Shared,
}

impl fmt::Debug for Faults<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faults")
    }
}

impl<'a> Faults<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Self {
        Self { shared }
    }

    /// Lets the next `times` requests of these kinds go wrong. Of several faults that concern a
    /// request, the one injected first is used up first. Does nothing for `times` of 0.
    ///
    /// Each renewal of a lease, and each creation of a watch, counts as a request.
    pub fn inject(
        &self,
        operations: impl IntoIterator<Item = Operation>,
        times: u64,
        fault: Fault,
    ) -> Injected {
        let operations = if times == 0 {
            Vec::new()
        } else {
            operations.into_iter().collect()
        };
        Injected(self.shared.plan.add(operations, times, fault))
    }

    /// Lets nothing more go wrong with requests and with the events of watches.
    pub fn clear(&self) {
        self.shared.plan.clear();
    }

    /// Loses the next responses with events, on whichever watch: its client never gets them.
    pub fn lose_events(&self, responses: u64) {
        self.shared.plan.lose_events(responses);
    }

    /// From now on each response with events waits this long before it is sent, one after the other,
    /// and with it all that comes after it on its stream.
    pub fn delay_events(&self, by: Duration) {
        self.shared.plan.delay_events(by);
    }

    /// Ends a lease at once, as if its time were over. Whether it was there.
    #[must_use]
    pub fn expire_lease(&self, id: i64) -> bool {
        self.shared.with_world(|world| world.end_lease(id).is_ok())
    }

    /// Lets the clock of the server jump ahead: leases and tokens end earlier by that much. Leases
    /// whose time is over have ended when this returns.
    pub fn jump_clock(&self, by: Duration) {
        self.shared.jump(by);
    }

    /// Takes the leader away. Requests wait for one, and are answered with
    /// `etcdserver: request timed out` after 7 s; serializable reads are done, except in transactions. Requests that want a
    /// leader are refused at once, and streams that want one end. No lease ends.
    pub fn lose_leader(&self) {
        self.shared.set_leader(false);
    }

    /// Elects a leader, after [`lose_leader`](Self::lose_leader). All leases last for their whole
    /// TTL again: the new leader does not know how long they have lasted.
    pub fn elect_leader(&self) {
        self.shared.set_leader(true);
    }

    /// Raises the alarm NOSPACE, or clears it: while it is raised, nothing can be written, and only
    /// deletions are done.
    pub fn exceed_quota(&self, exceeded: bool) {
        self.shared.with_world(|world| world.set_no_space(exceeded));
    }

    /// Cuts all connections. New ones are accepted.
    pub fn cut_connections(&self) {
        self.shared.cuts.send_modify(|cut| *cut += 1);
    }
}

/// A fault that was injected.
#[derive(Debug, Clone)]
pub struct Injected(Arc<AtomicU64>);

impl Injected {
    /// How many requests it has met.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
