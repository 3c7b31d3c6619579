//! The faults that are to come, and how one happens to a request.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tonic::Status;

use super::Fault;
use crate::connection::Line;
use crate::operation::Operation;
use crate::shared::status;
use crate::world::refusal::{Code, OLD_AUTH_REVISION, Refusal, TIMED_OUT};

/// When, in the course of a request, something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// Before it is done.
    Before,
    /// After it was done, before its answer.
    After,
}

/// What is to go wrong, in the order in which it was asked for.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    injections: Mutex<VecDeque<Injection>>,
    /// What happens to the events of watches.
    events: Mutex<Events>,
}

#[derive(Debug)]
struct Injection {
    operations: Vec<Operation>,
    fault: Fault,
    left: u64,
    hits: Arc<AtomicU64>,
}

/// What happens to the events of watches.
#[derive(Debug, Clone, Copy, Default)]
struct Events {
    /// So many responses with events are still to be lost.
    lost: u64,
    delay: Duration,
}

impl Plan {
    pub(super) fn add(
        &self,
        operations: Vec<Operation>,
        times: u64,
        fault: Fault,
    ) -> Arc<AtomicU64> {
        let hits = Arc::new(AtomicU64::new(0));
        let mut injections = self
            .injections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        injections.push_back(Injection {
            operations,
            fault,
            left: times,
            hits: Arc::clone(&hits),
        });
        hits
    }

    pub(super) fn clear(&self) {
        let mut injections = self
            .injections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        injections.clear();
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = Events::default();
    }

    /// What goes wrong with the next request of this kind.
    pub(crate) fn take(&self, operation: Operation) -> Option<Fault> {
        let mut injections = self
            .injections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut all = injections.iter_mut().enumerate();
        let (n, found) = all.find(|(_, i)| i.operations.contains(&operation))?;
        found.hits.fetch_add(1, Ordering::Relaxed);
        found.left = found.left.saturating_sub(1);
        let fault = found.fault.clone();
        if found.left == 0 {
            injections.remove(n);
        }
        Some(fault)
    }

    pub(super) fn lose_events(&self, responses: u64) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.lost += responses;
    }

    pub(super) fn delay_events(&self, by: Duration) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.delay = by;
    }

    /// For the next response with events: whether it is lost, and how long it waits otherwise.
    pub(crate) fn events(&self) -> (bool, Duration) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = events.lost > 0;
        events.lost = events.lost.saturating_sub(1);
        (lost, events.delay)
    }
}

impl Fault {
    /// Does what this fault does at this point. An error is the answer.
    pub(crate) async fn happen(&self, point: Point, line: &Line) -> Result<(), Status> {
        match (self, point) {
            (Self::Delayed(by), Point::Before) | (Self::AnsweredLate(by), Point::After) => {
                tokio::time::sleep(*by).await;
                Ok(())
            }
            (Self::Refused(text), Point::Before) => Err(status(Refusal {
                code: Code::Unavailable,
                text: text.clone().into(),
            })),
            (Self::TimedOut, Point::After) => Err(status(TIMED_OUT)),
            (Self::AuthStoreOld, Point::Before) => Err(status(OLD_AUTH_REVISION)),
            (Self::CutBefore, Point::Before) | (Self::CutAfter, Point::After) => {
                line.cut().await;
                Err(Status::unavailable("the connection was cut"))
            }
            _ => Ok(()),
        }
    }
}
