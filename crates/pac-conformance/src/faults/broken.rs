//! One repository whose records cannot be understood.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use pac_core::driver::{CommitOutcome, Driver, RepositoryCommit};
use pac_core::state::{EntryState, Snapshot};
use pac_core::{Error, ErrorKind, FencingToken, RepositoryKey, Revision, SessionId};

use super::layer::{Fault, commit_to};

/// What is wrong with it.
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
    /// A run holds a token that the head has never given out.
    TokenFromNowhere,
}

/// A store in which one repository is broken; see how it is treated.
#[derive(Debug)]
pub struct BrokenRepository {
    repository: RepositoryKey,
    breakage: Mutex<Option<Breakage>>,
    commits: AtomicU64,
    loads: AtomicU64,
}

impl BrokenRepository {
    /// This repository, in this way.
    #[must_use]
    pub fn new(repository: &RepositoryKey, breakage: Breakage) -> Self {
        Self {
            repository: repository.clone(),
            breakage: Mutex::new(Some(breakage)),
            commits: AtomicU64::default(),
            loads: AtomicU64::default(),
        }
    }

    /// As if somebody had repaired it.
    pub fn heal(&self) {
        *self.breakage.lock().unwrap() = None;
    }

    /// How often somebody tried to commit to it.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }

    /// How often it was read while it was broken.
    #[must_use]
    pub fn loads(&self) -> u64 {
        self.loads.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Fault for BrokenRepository {
    async fn load(
        &self,
        inner: &dyn Driver,
        repository: &RepositoryKey,
        since: Option<Revision>,
    ) -> Result<Snapshot, Error> {
        let breakage = *self.breakage.lock().unwrap();
        let Some(breakage) = breakage.filter(|_| *repository == self.repository) else {
            return inner.load(repository, since).await;
        };
        self.loads.fetch_add(1, Ordering::SeqCst);
        let refuse = |kind| Error::new(kind, "load", "says the test").in_repository(repository);
        let mut snapshot = inner.load(repository, None).await?;
        match breakage {
            Breakage::Unreadable => return Err(refuse(ErrorKind::Corrupt)),
            Breakage::Newer => return Err(refuse(ErrorKind::Incompatible)),
            Breakage::MiscountedQueue => snapshot.head.queued += 1,
            Breakage::MiscountedSlots => snapshot.head.started -= 1,
            Breakage::Twice => {
                let twice = Arc::clone(&snapshot.entries[0]);
                snapshot.entries.push(twice);
            }
            Breakage::TokenFromNowhere => {
                let started = |entry: &&mut Arc<_>| is_started(entry);
                let entry = snapshot.entries.iter_mut().find(started).unwrap();
                if let EntryState::Started { token, .. } = &mut Arc::make_mut(entry).state {
                    *token = FencingToken::new(u64::MAX);
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
        let mine = |commit: &&RepositoryCommit| commit.repository == self.repository;
        let commits = batch.iter().filter(mine).count() as u64;
        self.commits.fetch_add(commits, Ordering::SeqCst);
        commit_to(inner, session, batch).await
    }
}

fn is_started(entry: &pac_core::state::Entry) -> bool {
    entry.is_started()
}
