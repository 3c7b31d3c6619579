//! The stream of hints that injects faults.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use pac_core::Error;
use pac_core::driver::{Watch, WatchEvent};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};

use super::fault::HintFault;
use super::plan::{Connection, Faults, Plan, cut};

pub(super) struct FaultyWatch {
    inner: Box<dyn Watch>,
    faults: Arc<Faults>,
    plan: Receiver<Plan>,
    /// Hints to deliver now.
    ready: VecDeque<WatchEvent>,
    /// Hints to deliver at these times, the next one first.
    late: VecDeque<(Instant, WatchEvent)>,
    /// The hint to deliver after the next one.
    overtaken: Option<WatchEvent>,
}

impl FaultyWatch {
    pub(super) fn new(inner: Box<dyn Watch>, faults: &Arc<Faults>) -> Self {
        Self {
            inner,
            faults: Arc::clone(faults),
            plan: faults.subscribe(),
            ready: VecDeque::new(),
            late: VecDeque::new(),
            overtaken: None,
        }
    }

    fn take(&mut self, mut event: WatchEvent) {
        self.faults.rewound().hint(&mut event);
        match self.faults.meet_hint() {
            None => self.tell(event),
            Some(HintFault::Drop) => {}
            Some(HintFault::Twice) => {
                self.tell(event.clone());
                self.tell(event);
            }
            Some(HintFault::Late(delay)) => {
                let at = Instant::now() + delay;
                let place = self.late.partition_point(|(other, _)| *other <= at);
                self.late.insert(place, (at, event));
            }
            Some(HintFault::Overtaken) => {
                if let Some(before) = self.overtaken.replace(event) {
                    self.ready.push_back(before);
                }
            }
        }
    }

    fn tell(&mut self, event: WatchEvent) {
        self.ready.push_back(event);
        self.ready.extend(self.overtaken.take());
    }
}

#[async_trait]
impl Watch for FaultyWatch {
    async fn next(&mut self) -> Result<WatchEvent, Error> {
        loop {
            let connection = self.plan.borrow_and_update().connection;
            if connection == Connection::Cut {
                return Err(cut("watch"));
            }
            if connection == Connection::Open
                && let Some(event) = self.ready.pop_front()
            {
                return Ok(event);
            }
            let due = self.late.front().map(|(at, _)| *at);
            // Each of these futures can be dropped without losing anything.
            tokio::select! {
                event = self.inner.next(), if connection == Connection::Open => {
                    self.take(event?);
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let (_, event) = self.late.pop_front().unwrap();
                    self.tell(event);
                }
                // The sender, in `faults`, still exists.
                changed = self.plan.changed() => changed.unwrap(),
            }
        }
    }
}
