//! Carries out the end of a manager: fence first, tell everybody, then tell the store.

use std::sync::Arc;

use tokio::time::{sleep, timeout};

use super::engine::Engine;
use super::lifecycle::End;
use super::registry::Cell;
use crate::error::{Error, ErrorKind};
use crate::protocol::Death;
use crate::value::SessionId;

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
                let ended = Ended(Arc::clone(self), None);
                self.executor.spawn(tell_store(ended));
            }
            // The session is left to expire.
            End::LastHandle | End::Runtime => {}
        }
    }

    /// Everybody who waits or watches in a repository hears that nothing more will come.
    pub(super) fn end_repository(self: &Arc<Self>, cell: &Arc<Cell>, why: &Error) {
        self.input(cell, |input| input.machine.end(why, input.effects));
        let mut inner = cell.lock();
        inner.unreadable = None;
        let steps = inner.steps.take();
        drop(inner);
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

/// Tells those that wait for the end of closing what came of it, in any case: also when the task
/// that tells the store never runs.
struct Ended(Arc<Engine>, Option<Result<(), Error>>);

impl Drop for Ended {
    fn drop(&mut self) {
        let dropped = || {
            let message = "the manager's runtime was shut down, or there is a bug, before the \
                           store was told; the session expires by itself";
            Err(Error::new(ErrorKind::Indeterminate, "close", message))
        };
        let result = self.1.take().unwrap_or_else(dropped);
        let result = result.map_err(Arc::new);
        self.0.lifecycle.closed.send_replace(Some(result));
    }
}

/// Gives back all that the manager has, then ends the session, whatever came of the first.
async fn tell_store(mut ended: Ended) {
    let engine = Arc::clone(&ended.0);
    let session = engine.fence.session().0;
    let disowned = Disowning(Arc::clone(&engine)).run(session).await;
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
