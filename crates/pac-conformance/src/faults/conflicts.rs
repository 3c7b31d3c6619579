//! Conflicts that nobody else's commit is the cause of.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use pac_core::driver::{CommitOutcome, Driver, RepositoryCommit};
use pac_core::{Error, SessionId};

use super::layer::{Fault, commit_to};

/// Every so manieth commit is answered with a conflict and not written.
#[derive(Debug)]
pub struct Conflicts {
    every: u64,
    commits: AtomicU64,
}

impl Conflicts {
    /// Each commit whose number is a multiple of `every`.
    #[must_use]
    pub fn every(every: u64) -> Self {
        Self {
            every,
            commits: AtomicU64::default(),
        }
    }
}

#[async_trait]
impl Fault for Conflicts {
    async fn commit(
        &self,
        inner: &dyn Driver,
        session: SessionId,
        batch: Vec<RepositoryCommit>,
    ) -> Result<Vec<CommitOutcome>, Error> {
        let number = self.commits.fetch_add(1, Ordering::Relaxed) + 1;
        if !number.is_multiple_of(self.every) {
            return commit_to(inner, session, batch).await;
        }
        Ok(batch
            .iter()
            .map(|_| CommitOutcome::Conflict(None))
            .collect())
    }
}
