//! A store at the end of a line: nothing is done when it is first asked, commits go in batches,
//! and what comes meanwhile gathers for the next one.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use pac_core::driver::{CommitOutcome, Descriptor, Driver, RepositoryCommit};
use pac_core::{Error, SessionId};
use tokio::task::yield_now;

use super::Fault;
use super::layer::commit_to;

/// Takes some turns of the scheduler each way, and counts what it is asked to commit.
#[derive(Debug, Default)]
pub struct Distant {
    batches: AtomicUsize,
    commits: AtomicUsize,
}

impl Distant {
    /// The most repositories that it takes in a batch.
    pub const BATCH: usize = 16;

    /// How many batches have come.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.batches.load(Ordering::Relaxed)
    }

    /// How many commits to a repository have come in them.
    #[must_use]
    pub fn commits(&self) -> usize {
        self.commits.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Fault for Distant {
    async fn before(&self) -> Result<(), Error> {
        self.after().await;
        Ok(())
    }

    async fn after(&self) {
        for _ in 0..5 {
            yield_now().await;
        }
    }

    fn descriptor(&self, inner: Descriptor) -> Descriptor {
        Descriptor {
            batches_in_flight: 1,
            repositories_per_batch: Self::BATCH,
            entries_per_commit: 120,
            ..inner
        }
    }

    async fn commit(
        &self,
        inner: &dyn Driver,
        session: SessionId,
        batch: Vec<RepositoryCommit>,
    ) -> Result<Vec<CommitOutcome>, Error> {
        assert!(batch.len() <= Self::BATCH, "{} in a batch", batch.len());
        assert!(
            batch
                .iter()
                .all(|commit| commit.changes.entries.len() <= 120)
        );
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.commits.fetch_add(batch.len(), Ordering::Relaxed);
        self.after().await;
        commit_to(inner, session, batch).await
    }
}
