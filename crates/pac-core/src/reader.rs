//! A store for those who only look: without a session, and without a change to any repository.

mod watch;

use std::sync::Arc;

pub use watch::{Change, RunChange, RunStep, StoreWatch};

use crate::driver::{Driver, ListFilter};
use crate::error::{Error, ErrorKind};
use crate::manager::{RepositoryStatus, RepositorySummary};
use crate::name::RepositoryKey;
use crate::state::RepositoryState;
use crate::value::SessionId;

/// Reads what controllers have put into a store, without being one of them.
///
/// It keeps nothing: every call shows the store as it is. What a process that died has left
/// behind is shown until a controller has seen to it;
/// [`dead_sessions`](Self::dead_sessions) tells it from the rest. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StoreReader {
    driver: Arc<dyn Driver>,
}

impl StoreReader {
    /// Over a driver, which managers may use at the same time.
    #[must_use]
    pub fn new(driver: Arc<dyn Driver>) -> Self {
        Self { driver }
    }

    /// Reads a repository: its limit, who runs, who waits, who ended lately. One read of all of
    /// it.
    ///
    /// # Errors
    /// `Corrupt` and `Incompatible` for a repository whose state cannot be understood, and those
    /// of the store.
    pub async fn status(&self, repository: &RepositoryKey) -> Result<RepositoryStatus, Error> {
        let snapshot = self.driver.load(repository, None).await?;
        let state = RepositoryState::from_snapshot(&snapshot).map_err(|reason| {
            Error::new(ErrorKind::Corrupt, "read", reason).in_repository(repository)
        })?;
        Ok(RepositoryStatus::of(repository, &state))
    }

    /// A page of the repositories that have state, in the order of their keys: at most `limit`,
    /// those after `after`. One read, whatever waits there.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(
        &self,
        after: Option<&RepositoryKey>,
        limit: usize,
    ) -> Result<Vec<RepositorySummary>, Error> {
        let page = self.driver.list(ListFilter::All, after, limit).await?;
        Ok(page.into_iter().map(RepositorySummary::of).collect())
    }

    /// The sessions that are dead and may still be shown as those of runs. The store may take the
    /// occasion to forget what it does not need any more.
    ///
    /// # Errors
    /// Those of the store: to see what is dead, it may have to be allowed to write.
    pub async fn dead_sessions(&self) -> Result<Vec<SessionId>, Error> {
        let dead = self.driver.dead_sessions().await?;
        Ok(dead.into_iter().map(|(session, _)| session).collect())
    }

    /// Follows one repository, or all of them, from now on. Reads no runs until they change.
    ///
    /// # Errors
    /// Those of the store. Later failures are part of what the watch tells.
    pub async fn watch(&self, only: Option<RepositoryKey>) -> Result<StoreWatch, Error> {
        StoreWatch::open(Arc::clone(&self.driver), only).await
    }
}
