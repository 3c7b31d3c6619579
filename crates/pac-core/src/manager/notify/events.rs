//! The stream of events.

use std::sync::{Mutex, PoisonError};

use tokio::sync::broadcast;

use crate::event::Event;

/// Events that a slow reader may be behind before it loses the oldest.
const EVENTS: usize = 1_024;

/// Where events are told; ended, its streams end too, those that are opened later at once.
#[derive(Debug)]
pub(in crate::manager) struct EventBus(Mutex<Option<broadcast::Sender<Event>>>);

impl Default for EventBus {
    fn default() -> Self {
        Self(Mutex::new(Some(broadcast::Sender::new(EVENTS))))
    }
}

impl EventBus {
    pub(in crate::manager) fn tell(&self, event: Event) {
        if let Some(sender) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // Nobody may be listening.
            let _ = sender.send(event);
        }
    }

    pub(in crate::manager) fn subscribe(&self) -> Events {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = match &*sender {
            Some(sender) => sender.subscribe(),
            // Its sender is gone as soon as this returns.
            None => broadcast::Sender::new(1).subscribe(),
        };
        Events(receiver)
    }

    pub(in crate::manager) fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The events of a manager from the moment on at which this was asked for.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

/// An [`Event`], or how many a slow reader has missed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Heard {
    /// The next event.
    Event(Event),
    /// So many events were dropped before the next one: read what matters again.
    Missed(u64),
}

impl Events {
    /// Waits for the next event; `None` when the manager was closed, has died or is gone.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.0.recv().await {
            Ok(event) => Some(Heard::Event(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Heard::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
