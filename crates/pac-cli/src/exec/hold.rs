//! Checks whether this process still holds the slot.

use std::time::Duration;

use pac_concurrency::{ConcurrencyManager, Event, Events, Heard, Lease, RunStatus};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// A slot that is checked while the command runs.
#[derive(Debug)]
pub(crate) struct Hold<'a> {
    manager: &'a ConcurrencyManager,
    lease: &'a Lease,
    events: Events,
    tick: Interval,
}

impl<'a> Hold<'a> {
    pub(crate) fn new(manager: &'a ConcurrencyManager, lease: &'a Lease, ttl: Duration) -> Self {
        // Half of the margin by which the manager considers a session over before the store
        // does.
        let often = (ttl / 20).clamp(Duration::from_millis(20), Duration::from_secs(1));
        let mut tick = interval(often);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Self {
            manager,
            lease,
            events: manager.events(),
            tick,
        }
    }

    /// The reason why the slot is lost, if it is. Uses local clocks only, not the store.
    pub(crate) fn lost_now(&self) -> Option<String> {
        (!self.manager.holds(self.lease)).then(|| {
            let why = self.manager.health().dead.map_or_else(
                || "the session was not renewed within its TTL".to_owned(),
                |part| format!("the {part} of this process has ended"),
            );
            format!("{why}; somebody else may run in its place")
        })
    }

    /// Waits until the slot is lost, and returns the reason. Cancel-safe.
    pub(crate) async fn lost(&mut self) -> String {
        loop {
            if let Some(reason) = self.lost_now() {
                return reason;
            }
            tokio::select! {
                _ = self.tick.tick() => {}
                heard = self.events.next() => match heard {
                    Some(Heard::Event(Event::Ended { repository, run, outcome }))
                        if repository == *self.lease.repository() && run == *self.lease.run() =>
                    {
                        return outcome.map_or_else(
                            || format!("{repository} was removed"),
                            |outcome| format!("somebody ended the run: {outcome}"),
                        );
                    }
                    Some(Heard::Missed(_)) if !self.is_ours_at_the_store().await => {
                        return "the store has the run no more as ours".to_owned();
                    }
                    Some(_) => {}
                    None => return "this process's work at the store has ended".to_owned(),
                },
            }
        }
    }

    /// Asks the store whether the run still holds its slot. True also when the store does not
    /// answer.
    async fn is_ours_at_the_store(&self) -> bool {
        let (repository, run) = (self.lease.repository(), self.lease.run());
        match self.manager.run_status(repository, run).await {
            Ok(RunStatus::Started(run)) => run.token == self.lease.token(),
            Ok(_) => false,
            Err(_) => true,
        }
    }
}
