//! A store that answers nothing but the opening of sessions.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use pac_core::driver::{CommitOutcome, Driver, RepositoryCommit};
use pac_core::state::Snapshot;
use pac_core::{Error, ErrorKind, RepositoryKey, Revision, SessionId};

use super::Fault;
use super::layer::commit_to;

/// While it is on, sessions can be opened, but neither kept nor used.
#[derive(Debug, Default)]
pub struct Outage(AtomicBool);

impl Outage {
    /// Begins or ends.
    pub fn set(&self, on: bool) {
        self.0.store(on, Ordering::Release);
    }

    fn check(&self) -> Result<(), Error> {
        if self.0.load(Ordering::Acquire) {
            let message = "the test has taken the store away";
            return Err(Error::new(ErrorKind::Unavailable, "outage", message));
        }
        Ok(())
    }
}

#[async_trait]
impl Fault for Outage {
    async fn keep_alive(&self, inner: &dyn Driver, session: SessionId) -> Result<(), Error> {
        self.check()?;
        inner.keep_alive(session).await
    }

    async fn load(
        &self,
        inner: &dyn Driver,
        repository: &RepositoryKey,
        since: Option<Revision>,
    ) -> Result<Snapshot, Error> {
        self.check()?;
        inner.load(repository, since).await
    }

    async fn commit(
        &self,
        inner: &dyn Driver,
        session: SessionId,
        batch: Vec<RepositoryCommit>,
    ) -> Result<Vec<CommitOutcome>, Error> {
        self.check()?;
        commit_to(inner, session, batch).await
    }
}
