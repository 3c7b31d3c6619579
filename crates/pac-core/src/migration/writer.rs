//! Commits to one repository after the other, each as often as it takes.

use std::time::{Duration, Instant};

use crate::driver::{Commit, CommitOutcome, Driver, RepositoryCommit, SessionTtl};
use crate::error::{Error, ErrorKind};
use crate::identity::SessionIdentity;
use crate::name::RepositoryKey;
use crate::protocol::Changes;
use crate::state::RepositoryState;
use crate::value::SessionId;

/// A session that commits, until it is closed.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    driver: &'a dyn Driver,
    session: SessionId,
    renewed: Instant,
}

/// The session lives for this long without a renewal: longer than any request takes.
const TTL: Duration = Duration::from_secs(60);

/// Attempts at one commit without any that succeeds.
const ATTEMPTS: u32 = 20;

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

impl<'a> Writer<'a> {
    pub(super) async fn open(driver: &'a dyn Driver) -> Result<Self, Error> {
        let ttl = SessionTtl::new(TTL, driver.descriptor().lease_ttl.max(TTL));
        let identity = SessionIdentity::of_this_process();
        Ok(Self {
            driver,
            session: driver.open_session(ttl, &identity).await?,
            renewed: Instant::now(),
        })
    }

    pub(super) fn driver(&self) -> &'a dyn Driver {
        self.driver
    }

    pub(super) fn session(&self) -> SessionId {
        self.session
    }

    pub(super) fn entries_per_commit(&self) -> usize {
        self.driver.descriptor().entries_per_commit.max(1)
    }

    /// Ends the session. If that fails, it ends by itself.
    pub(super) async fn close(self) {
        if let Err(error) = self.driver.close_session(self.session).await {
            tracing::info!(%error, "the session of the migration ends by itself");
        }
    }

    /// Commits what `change` makes of the state until it makes nothing more of it, and returns the
    /// state that was read last. Never writes twice what may have been written: every commit is
    /// planned on a fresh read and conditional on its revision.
    pub(super) async fn write(
        &mut self,
        repository: &RepositoryKey,
        change: impl Fn(&RepositoryState) -> Result<Option<Changes>, Error>,
    ) -> Result<RepositoryState, Error> {
        let mut attempts = 0;
        loop {
            if self.renewed.elapsed() > TTL / 4 {
                self.driver.keep_alive(self.session).await?;
                self.renewed = Instant::now();
            }
            let state = load(self.driver, repository).await?;
            let Some(changes) = change(&state)? else {
                return Ok(state);
            };
            match self.commit(repository, changes).await {
                Ok(true) => attempts = 0,
                Ok(false) if attempts < ATTEMPTS => attempts += 1,
                Ok(false) => {
                    let message = "others change it all the time: stop the controllers, and run \
                                   this again";
                    let error = Error::new(ErrorKind::Contended, "migrate", message);
                    return Err(error.in_repository(repository));
                }
                Err(error) if attempts < ATTEMPTS && may_pass(&error) => {
                    attempts += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether it was written; if not, the repository has changed meanwhile.
    pub(super) async fn commit(
        &self,
        repository: &RepositoryKey,
        changes: Changes,
    ) -> Result<bool, Error> {
        let batch = vec![RepositoryCommit {
            repository: repository.clone(),
            changes,
        }];
        let outcomes = match self.driver.commit(self.session, batch) {
            Commit::Done(outcomes) => outcomes?,
            Commit::Pending(answer) => answer.await?,
        };
        match outcomes.into_iter().next() {
            Some(CommitOutcome::Committed(_)) => Ok(true),
            Some(CommitOutcome::Conflict(_) | CommitOutcome::SessionDead(_)) => Ok(false),
            Some(CommitOutcome::Refused(error) | CommitOutcome::Failed(error)) => Err(error),
            None => {
                let message = "the driver gave no outcome";
                Err(Error::new(ErrorKind::Internal, "migrate", message))
            }
        }
    }
}

/// All of a repository.
pub(super) async fn load(
    driver: &dyn Driver,
    repository: &RepositoryKey,
) -> Result<RepositoryState, Error> {
    let snapshot = driver.load(repository, None).await?;
    RepositoryState::from_snapshot(&snapshot).map_err(|contradiction| {
        Error::new(ErrorKind::Corrupt, "migrate", contradiction).in_repository(repository)
    })
}

fn may_pass(error: &Error) -> bool {
    error.is_retryable() || error.kind() == ErrorKind::Indeterminate
}
