//! The connection that is there from beginning to end, as the rest of the driver sees it: it is up,
//! or somebody is making it anew.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use super::Session;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Link {
    session: watch::Sender<Option<Arc<Session>>>,
    hurry: Notify,
}

impl Link {
    /// The connection, unless it is down.
    pub(crate) fn session(&self) -> Option<Arc<Session>> {
        let session = self.session.borrow();
        session.clone().filter(|session| !session.is_closed())
    }

    /// Waits until the connection is up. Cancel-safe.
    pub(crate) async fn up(&self) -> Arc<Session> {
        let mut sessions = self.session.subscribe();
        loop {
            if let Some(session) = self.session() {
                return session;
            }
            // The sender is part of `self`.
            let _ = sessions.changed().await;
        }
    }

    /// The connection is up, or down.
    pub(crate) fn set(&self, session: Option<Arc<Session>>) {
        self.session.send_replace(session);
    }

    /// The server has answered on another connection: it is time to make this one, if it is down.
    pub(crate) fn hurry(&self) {
        if self.session.borrow().is_none() {
            self.hurry.notify_waiters();
        }
    }

    /// Waits until the server has answered on another connection. Cancel-safe.
    pub(crate) async fn hurried(&self) {
        self.hurry.notified().await;
    }
}
