//! The end of a manager as a state: everything reads it, and it is entered once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind};

/// Why a manager has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Its owner closed it.
    Owner,
    /// Its last handle was dropped.
    LastHandle,
    /// One of its own parts has died.
    Part(&'static str),
    /// The runtime that it worked on was shut down.
    Runtime,
}

impl End {
    /// What a call is told that comes after the end, or is on its way then.
    pub(super) fn error(self, operation: &'static str) -> Error {
        let message = match self {
            Self::Owner => "the manager was closed by its owner; open a new one".to_owned(),
            Self::LastHandle => "the last handle of the manager was dropped".to_owned(),
            Self::Part(part) => {
                format!("the {part} of this manager has died, which is a bug; open a new one")
            }
            Self::Runtime => "the runtime of this manager was shut down; open a new one".to_owned(),
        };
        Error::new(ErrorKind::Closed, operation, message)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lifecycle {
    is_over: AtomicBool,
    end: Mutex<Option<(End, Instant)>>,
    over: watch::Sender<Option<End>>,
    /// What came of telling the store.
    pub(super) closed: watch::Sender<Option<Result<(), Arc<Error>>>>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            is_over: AtomicBool::new(false),
            end: Mutex::default(),
            over: watch::Sender::new(None),
            closed: watch::Sender::new(None),
        }
    }
}

impl Lifecycle {
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Why it is over, if it is.
    pub(super) fn end(&self) -> Option<End> {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.map(|(end, _)| end)
    }

    /// # Errors
    /// `Closed` once the manager has ended.
    pub(super) fn check(&self, operation: &'static str) -> Result<(), Error> {
        if !self.is_over() {
            return Ok(());
        }
        Err(self.no_answer(operation))
    }

    /// Why an answer does not come.
    pub(super) fn no_answer(&self, operation: &'static str) -> Error {
        let bug = || {
            let message = "the work ended before the answer came, which is a bug";
            Error::new(ErrorKind::Closed, operation, message)
        };
        self.end().map_or_else(bug, |end| end.error(operation))
    }

    /// Waits for the end. Cancel-safe.
    pub(super) async fn over(&self) -> End {
        let mut over = self.over.subscribe();
        loop {
            if let Some(end) = *over.borrow_and_update() {
                return end;
            }
            // The sender is part of `self`.
            let _ = over.changed().await;
        }
    }

    /// Whether what is left to be done is to be given up: the session is over for good.
    pub(super) fn gives_up(&self, ttl: Duration) -> bool {
        let end = *self.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.is_some_and(|(end, at)| end == End::Runtime || at.elapsed() > ttl)
            || self.closed.borrow().is_some()
    }

    /// Enters the end. False when it was entered before.
    pub(super) fn enter(&self, end: End) -> bool {
        let mut known = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some() {
            return false;
        }
        *known = Some((end, Instant::now()));
        drop(known);
        self.is_over.store(true, Ordering::SeqCst);
        self.over.send_replace(Some(end));
        true
    }
}
