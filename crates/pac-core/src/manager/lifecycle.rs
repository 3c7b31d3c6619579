//! The beginning and the end of a manager. The end is a state that everything reads, and it is
//! entered once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::engine::Engine;
use super::registry::Cell;
use crate::error::{Error, ErrorKind};
use crate::protocol::Death;
use crate::value::SessionId;

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
    closed: watch::Sender<Option<Result<(), Arc<Error>>>>,
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
    fn enter(&self, end: End) -> bool {
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

impl Engine {
    /// The manager ends, by whatever cause: it holds nothing from here on, and every caller,
    /// waiter, holder and stream is told why. Then, in a task that nobody can drop, the store
    /// is told.
    pub(super) fn end(self: &Arc<Self>, end: End) {
        if !self.lifecycle.enter(end) {
            return;
        }
        // First the fence: no slot is given back while it may still be acted on.
        self.fence.close();
        let why = end.error("command");
        match end {
            End::Owner | End::LastHandle => tracing::debug!(%why, "the manager ends"),
            End::Part(_) | End::Runtime => tracing::error!(%why, "the manager ends"),
        }
        for cell in self.registry.all() {
            self.end_repository(&cell, &why);
        }
        self.grants.end();
        self.events.end();
        match end {
            End::Owner | End::Part(_) => {
                let engine = Arc::clone(self);
                self.executor.spawn(tell_store(engine));
            }
            // The session is left to expire.
            End::LastHandle | End::Runtime => {}
        }
    }

    /// Everybody who waits or watches in a repository hears that nothing more will come.
    pub(super) fn end_repository(self: &Arc<Self>, cell: &Arc<Cell>, why: &Error) {
        self.input(cell, |input| input.machine.end(why, input.effects));
        let steps = cell.lock().steps.take();
        drop(steps);
    }

    /// Closes the manager and waits until the store was told, or could not be.
    pub(super) async fn close(self: &Arc<Self>) -> Result<(), Error> {
        self.end(End::Owner);
        match self.lifecycle.end() {
            Some(End::Owner | End::Part(_)) => {}
            // Nobody is left to tell the store: the session expires by itself.
            Some(end) => return Err(end.error("close")),
            None => return Ok(()),
        }
        let mut closed = self.lifecycle.closed.subscribe();
        loop {
            if let Some(result) = &*closed.borrow_and_update() {
                return result
                    .as_ref()
                    .map_or_else(|e| Err(e.replicate()), |()| Ok(()));
            }
            if closed.changed().await.is_err() {
                return Err(self.lifecycle.no_answer("close"));
            }
        }
    }
}

/// Gives back all that the manager has, then ends the session, whatever came of the first.
async fn tell_store(engine: Arc<Engine>) {
    /// Whoever waits for the end of closing hears of it in any case.
    struct Ended(Arc<Engine>, Option<Result<(), Error>>);
    impl Drop for Ended {
        fn drop(&mut self) {
            let dropped = || {
                let message = "the manager's runtime was shut down, or there is a bug, before \
                               the store was told; the session expires by itself";
                Err(Error::new(ErrorKind::Indeterminate, "close", message))
            };
            let result = self.1.take().unwrap_or_else(dropped);
            let result = result.map_err(Arc::new);
            self.0.lifecycle.closed.send_replace(Some(result));
        }
    }
    let mut ended = Ended(Arc::clone(&engine), None);
    let session = engine.fence.session().0;
    let disowned = Disowning(engine.clone()).run(session).await;
    let unknown = ErrorKind::Indeterminate;
    let closed = engine.store.driver.close_session(session);
    let closed = engine.store.within_deadline(closed, unknown, "close").await;
    ended.1 = Some(match (disowned, closed) {
        // The session is over; what could not be given back is seen to by other controllers.
        (Err(error), Ok(())) | (_, Err(error)) => Err(error),
        (Ok(()), Ok(())) => Ok(()),
    });
}

/// Gives back what a session has, in a task of its own: a panic there does not keep the session
/// from being closed.
struct Disowning(Arc<Engine>);

impl Disowning {
    async fn run(self, session: SessionId) -> Result<(), Error> {
        let engine = Arc::clone(&self.0);
        let ttl = engine.fence.ttl().session;
        let within = engine.options.command_timeout;
        let (told, result) = tokio::sync::oneshot::channel();
        let working = Arc::clone(&engine);
        engine.executor.spawn(async move {
            let expiring = working.expire(session, Death::Session, "close");
            let expired = match timeout(within, expiring).await {
                Ok(expired) => expired,
                Err(_) => {
                    let message = "not everything could be given back within the command timeout";
                    Err(Error::new(ErrorKind::Unavailable, "close", message))
                }
            };
            let _ = told.send(expired);
        });
        // What is given back is given back by this session: it has to live until then.
        let renewing = async {
            loop {
                sleep(ttl / 3).await;
                let renewed = engine.store.driver.keep_alive(session);
                drop(timeout(ttl / 3, renewed).await);
            }
        };
        tokio::select! {
            result = result => result.unwrap_or_else(|_| {
                let message = "giving back what the manager had ended in a panic";
                Err(Error::new(ErrorKind::Internal, "close", message))
            }),
            () = renewing => Ok(()),
        }
    }
}
