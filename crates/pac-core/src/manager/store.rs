//! The driver, with deadlines and with permits for reads.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::contact::Contact;
use crate::driver::{BatchOutcome, Commit, Descriptor, Driver, Placement, RepositoryCommit};
use crate::error::{Error, ErrorKind};
use crate::name::RepositoryKey;
use crate::state::Snapshot;
use crate::value::{SessionId, Version};

/// Reads that may be on their way at once: a store that was away makes every repository be read
/// again.
const READS: usize = 64;
/// Of these, those that nobody waits for: callers always find a permit that only other callers
/// can take from them.
const BACKGROUND_READS: usize = 32;

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) driver: Arc<dyn Driver>,
    pub(super) descriptor: Descriptor,
    /// Whether it answers.
    pub(super) contact: Arc<Contact>,
    request_timeout: Duration,
    reads: Semaphore,
    background: Semaphore,
}

impl Store {
    pub(super) fn new(driver: Arc<dyn Driver>, request_timeout: Duration) -> Self {
        Self {
            descriptor: driver.descriptor(),
            driver,
            contact: Arc::default(),
            request_timeout,
            reads: Semaphore::new(READS),
            background: Semaphore::new(BACKGROUND_READS),
        }
    }

    /// Whether the store is in this process, and has no round trips.
    pub(super) fn is_in_process(&self) -> bool {
        self.descriptor.placement == Placement::InProcess
    }

    /// How many entries a plan may have before it starts no further run.
    pub(super) fn entry_budget(&self) -> usize {
        // The other half is for what commands change themselves, before anything starts.
        (self.descriptor.entries_per_commit / 2).max(1)
    }

    /// How many repositories are asked for in one page. A store in this process looks through
    /// all its repositories for every page, and has no requests to be kept short.
    pub(super) fn page(&self) -> usize {
        const PAGE: usize = 500;
        if self.is_in_process() {
            usize::MAX
        } else {
            PAGE
        }
    }

    /// Reads a repository, what changed after `since`, or all, for nobody but the manager: behind
    /// the reads of calls, until `asked` is ready because a call waits for it.
    pub(super) async fn load_for(
        &self,
        repository: &RepositoryKey,
        since: Option<Version>,
        asked: impl Future<Output = ()>,
    ) -> Result<Snapshot, Error> {
        let _background = tokio::select! {
            biased;
            () = asked => None,
            // Never closed: then nothing is limited.
            permit = self.background.acquire() => permit.ok(),
        };
        self.load(repository, since).await
    }

    /// Reads a repository for a call: what changed after `since`, or all.
    pub(super) async fn load(
        &self,
        repository: &RepositoryKey,
        since: Option<Version>,
    ) -> Result<Snapshot, Error> {
        let _permit = self.reads.acquire().await.ok();
        self.read(self.driver.load(repository, since), "load").await
    }

    /// Within the deadline of a request that changes nothing.
    pub(super) async fn read<T>(
        &self,
        request: impl Future<Output = Result<T, Error>>,
        operation: &'static str,
    ) -> Result<T, Error> {
        self.within_deadline(request, ErrorKind::Unavailable, operation)
            .await
    }

    /// Sends a batch.
    pub(super) fn commit(&self, session: SessionId, batch: Vec<RepositoryCommit>) -> Commit {
        self.driver.commit(session, batch)
    }

    /// The answer to a batch, one outcome for each of the `asked` repositories.
    pub(super) async fn answer(&self, commit: Commit, asked: usize) -> BatchOutcome {
        let answer = match commit {
            Commit::Done(answer) => {
                self.contact.heard(&answer);
                answer
            }
            Commit::Pending(request) => {
                let unknown = ErrorKind::Indeterminate;
                self.within_deadline(request, unknown, "commit").await
            }
        };
        checked(answer, asked)
    }

    /// Within the deadline of a request; `missed` is what a late answer means.
    pub(super) async fn within_deadline<T>(
        &self,
        request: impl Future<Output = Result<T, Error>>,
        missed: ErrorKind,
        operation: &'static str,
    ) -> Result<T, Error> {
        let answer = if self.is_in_process() {
            request.await
        } else {
            match timeout(self.request_timeout, request).await {
                Ok(answer) => answer,
                Err(_) => {
                    let message = "the store did not answer in time";
                    Err(Error::new(missed, operation, message))
                }
            }
        };
        self.contact.heard(&answer);
        answer
    }
}

/// An answer that has an outcome for each repository that it was asked for.
pub(super) fn checked(answer: BatchOutcome, asked: usize) -> BatchOutcome {
    match answer {
        Ok(outcomes) if outcomes.len() != asked => Err(Error::new(
            ErrorKind::Internal,
            "commit",
            "the driver answered for another number of repositories than it was asked",
        )),
        answer => answer,
    }
}
