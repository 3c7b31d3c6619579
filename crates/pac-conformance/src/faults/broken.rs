//! Repositories whose records cannot be understood.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use pac_core::driver::{CommitOutcome, Driver, RepositoryCommit};
use pac_core::state::{EntryState, Snapshot};
use pac_core::{Error, ErrorKind, FencingToken, RepositoryKey, Revision, SessionId};

use super::layer::{Fault, commit_to};

/// What is wrong with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breakage {
    /// The driver says that it cannot read it.
    Unreadable,
    /// The driver says that a newer version wrote it.
    Newer,
    /// The head counts more waiting runs than there are.
    MiscountedQueue,
    /// The head counts fewer running runs than there are.
    MiscountedSlots,
    /// A run is there twice.
    Twice,
    /// A run has a token that the head has never given out.
    TokenFromNowhere,
}

/// A store in which some repositories are broken; see how they are treated.
#[derive(Debug, Default)]
pub struct BrokenRepositories(Mutex<HashMap<RepositoryKey, Record>>);

#[derive(Debug, Default)]
struct Record {
    breakage: Option<Breakage>,
    commits: u64,
    loads: u64,
}

impl BrokenRepositories {
    /// From now on it is read so.
    pub fn damage(&self, repository: &RepositoryKey, breakage: Breakage) {
        self.with(repository, |record| record.breakage = Some(breakage));
    }

    /// As if somebody had repaired it.
    pub fn mend(&self, repository: &RepositoryKey) {
        self.with(repository, |record| record.breakage = None);
    }

    /// How often somebody tried to commit to it.
    #[must_use]
    pub fn commits(&self, repository: &RepositoryKey) -> u64 {
        self.with(repository, |record| record.commits)
    }

    /// How often somebody tried to read it.
    #[must_use]
    pub fn loads(&self, repository: &RepositoryKey) -> u64 {
        self.with(repository, |record| record.loads)
    }

    fn with<T>(&self, repository: &RepositoryKey, look: impl FnOnce(&mut Record) -> T) -> T {
        look(
            self.0
                .lock()
                .unwrap()
                .entry(repository.clone())
                .or_default(),
        )
    }
}

#[async_trait]
impl Fault for BrokenRepositories {
    async fn load(
        &self,
        inner: &dyn Driver,
        repository: &RepositoryKey,
        since: Option<Revision>,
    ) -> Result<Snapshot, Error> {
        let breakage = self.with(repository, |record| {
            record.loads += 1;
            record.breakage
        });
        let Some(breakage) = breakage else {
            return inner.load(repository, since).await;
        };
        let refuse = |kind| Error::new(kind, "load", "says the test").in_repository(repository);
        let mut snapshot = inner.load(repository, None).await?;
        match breakage {
            Breakage::Unreadable => return Err(refuse(ErrorKind::Corrupt)),
            Breakage::Newer => return Err(refuse(ErrorKind::Incompatible)),
            Breakage::MiscountedQueue => snapshot.head.queued += 1,
            Breakage::MiscountedSlots => {
                snapshot.head.started = snapshot.head.started.saturating_sub(1);
            }
            Breakage::Twice => snapshot.entries.extend(snapshot.entries.first().cloned()),
            Breakage::TokenFromNowhere => {
                for entry in snapshot
                    .entries
                    .iter_mut()
                    .filter(|entry| entry.is_started())
                {
                    if let EntryState::Started { token, .. } = &mut Arc::make_mut(entry).state {
                        *token = FencingToken::new(u64::MAX);
                    }
                }
            }
        }
        Ok(snapshot)
    }

    async fn commit(
        &self,
        inner: &dyn Driver,
        session: SessionId,
        batch: Vec<RepositoryCommit>,
    ) -> Result<Vec<CommitOutcome>, Error> {
        for commit in &batch {
            self.with(&commit.repository, |record| record.commits += 1);
        }
        commit_to(inner, session, batch).await
    }
}
