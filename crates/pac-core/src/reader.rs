//! Read-only access to a store: opens no session and changes no repository.

mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use watch::{Change, RunChange, RunStep, StoreWatch};

use crate::driver::{Driver, ListFilter};
use crate::error::{Error, ErrorKind};
use crate::identity::SessionInfo;
use crate::manager::{RepositoryStatus, RepositorySummary};
use crate::name::RepositoryKey;
use crate::state::RepositoryState;
use crate::value::SessionId;

/// Reads the state that controllers have put into a store, without being a controller.
///
/// It keeps no cache: every call reads the store. Runs of a process that died are shown as they
/// are until a controller cleans them up; [`dead_sessions`](Self::dead_sessions) tells which
/// sessions are dead. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StoreReader {
    driver: Arc<dyn Driver>,
}

impl StoreReader {
    /// A reader over a driver, which managers may use at the same time.
    #[must_use]
    pub fn new(driver: Arc<dyn Driver>) -> Self {
        Self { driver }
    }

    /// Reads a repository: its limit and its running, waiting and recently finished runs. One
    /// read of the whole repository.
    ///
    /// # Errors
    /// `Corrupt` and `Incompatible` for a repository whose state cannot be understood, and the
    /// errors of the store.
    pub async fn status(&self, repository: &RepositoryKey) -> Result<RepositoryStatus, Error> {
        let snapshot = self.driver.load(repository, None).await?;
        let state = RepositoryState::from_snapshot(&snapshot).map_err(|reason| {
            Error::new(ErrorKind::Corrupt, "read", reason).in_repository(repository)
        })?;
        Ok(RepositoryStatus::of(repository, &state))
    }

    /// Lists the repositories that have state, in the order of their keys: at most `limit` of
    /// them, starting after `after`. One read, however many runs wait there.
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn list(
        &self,
        after: Option<&RepositoryKey>,
        limit: usize,
    ) -> Result<Vec<RepositorySummary>, Error> {
        let page = self.driver.list(ListFilter::All, after, limit).await?;
        Ok(page.into_iter().map(RepositorySummary::of).collect())
    }

    /// Reads who has opened these sessions, which are those of the runs of a
    /// [`status`](Self::status), and when. One that the store knows nothing of any more is left out:
    /// a dead session is known as long as it has runs. One read for all; on etcd, for every 60 or so.
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn sessions(
        &self,
        sessions: impl IntoIterator<Item = SessionId>,
    ) -> Result<BTreeMap<SessionId, SessionInfo>, Error> {
        let sessions: BTreeSet<SessionId> = sessions.into_iter().collect();
        if sessions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let sessions: Vec<SessionId> = sessions.into_iter().collect();
        let known = self.driver.sessions(&sessions).await?;
        Ok(known.into_iter().collect())
    }

    /// Lists the sessions that are dead but may still own runs. The store may use this call to
    /// delete records that it no longer needs.
    ///
    /// # Errors
    /// The errors of the store, `Unauthorised` included: a store may have to write to find out
    /// which sessions are dead.
    pub async fn dead_sessions(&self) -> Result<Vec<SessionId>, Error> {
        let dead = self.driver.dead_sessions().await?;
        Ok(dead.into_iter().map(|(session, _)| session).collect())
    }

    /// Watches one repository, or all of them, from now on. Reads runs only when they change.
    ///
    /// # Errors
    /// The errors of the store. Later failures are reported as [`Change`]s or by
    /// [`StoreWatch::next`].
    pub async fn watch(&self, only: Option<RepositoryKey>) -> Result<StoreWatch, Error> {
        StoreWatch::open(Arc::clone(&self.driver), only).await
    }
}
