//! A driver over another one that replaces some of its behaviour.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use pac_core::driver::{
    BatchOutcome, Commit, Descriptor, Driver, ListFilter, RepositoryCommit, SessionTtl, Watch,
};
use pac_core::protocol::Death;
use pac_core::state::{Head, Snapshot};
use pac_core::{Error, RepositoryKey, SessionId, SessionIdentity, SessionInfo, Timestamp, Version};

pub(crate) type Store = Arc<dyn Driver>;

/// The faulty behaviour of a store. Each default method calls the real store.
#[async_trait]
pub(crate) trait Wrong: Debug + Send + Sync + 'static {
    async fn open_session(
        &self,
        store: &Store,
        ttl: SessionTtl,
        identity: &SessionIdentity,
    ) -> Result<SessionId, Error> {
        store.open_session(ttl, identity).await
    }

    async fn keep_alive(&self, store: &Store, session: SessionId) -> Result<(), Error> {
        store.keep_alive(session).await
    }

    async fn dead_sessions(&self, store: &Store) -> Result<Vec<(SessionId, Death)>, Error> {
        store.dead_sessions().await
    }

    async fn sessions(
        &self,
        store: &Store,
        sessions: &[SessionId],
    ) -> Result<Vec<(SessionId, SessionInfo)>, Error> {
        store.sessions(sessions).await
    }

    async fn repositories_of(
        &self,
        store: &Store,
        session: SessionId,
    ) -> Result<Vec<RepositoryKey>, Error> {
        store.repositories_of(session).await
    }

    async fn load(
        &self,
        store: &Store,
        repository: &RepositoryKey,
        since: Option<Version>,
    ) -> Result<Snapshot, Error> {
        store.load(repository, since).await
    }

    async fn commit(
        &self,
        store: &Store,
        session: SessionId,
        batch: Vec<RepositoryCommit>,
    ) -> BatchOutcome {
        commit_to(store, session, batch).await
    }

    fn watch(&self, watch: Box<dyn Watch>) -> Box<dyn Watch> {
        watch
    }
}

/// Commits to the real store, and waits for the answer.
pub(crate) async fn commit_to(
    store: &Store,
    session: SessionId,
    batch: Vec<RepositoryCommit>,
) -> BatchOutcome {
    match store.commit(session, batch) {
        Commit::Done(outcome) => outcome,
        Commit::Pending(answer) => answer.await,
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct BrokenStore<W> {
    store: Store,
    wrong: Arc<W>,
}

impl<W: Wrong> BrokenStore<W> {
    pub(crate) fn over(store: Store, wrong: W) -> Store {
        let wrong = Arc::new(wrong);
        Arc::new(Self { store, wrong })
    }
}

#[async_trait]
impl<W: Wrong> Driver for BrokenStore<W> {
    fn descriptor(&self) -> Descriptor {
        self.store.descriptor()
    }

    async fn open_session(
        &self,
        ttl: SessionTtl,
        identity: &SessionIdentity,
    ) -> Result<SessionId, Error> {
        self.wrong.open_session(&self.store, ttl, identity).await
    }

    async fn keep_alive(&self, session: SessionId) -> Result<(), Error> {
        self.wrong.keep_alive(&self.store, session).await
    }

    async fn close_session(&self, session: SessionId) -> Result<(), Error> {
        self.store.close_session(session).await
    }

    async fn dead_sessions(&self) -> Result<Vec<(SessionId, Death)>, Error> {
        self.wrong.dead_sessions(&self.store).await
    }

    async fn sessions(
        &self,
        sessions: &[SessionId],
    ) -> Result<Vec<(SessionId, SessionInfo)>, Error> {
        self.wrong.sessions(&self.store, sessions).await
    }

    async fn repositories_of(&self, session: SessionId) -> Result<Vec<RepositoryKey>, Error> {
        self.wrong.repositories_of(&self.store, session).await
    }

    async fn load(
        &self,
        repository: &RepositoryKey,
        since: Option<Version>,
    ) -> Result<Snapshot, Error> {
        self.wrong.load(&self.store, repository, since).await
    }

    fn commit(&self, session: SessionId, batch: Vec<RepositoryCommit>) -> Commit {
        let (store, wrong) = (Arc::clone(&self.store), Arc::clone(&self.wrong));
        Commit::pending(async move { wrong.commit(&store, session, batch).await })
    }

    async fn clock(&self) -> Result<Timestamp, Error> {
        self.store.clock().await
    }

    async fn watch(&self, session: SessionId) -> Result<Box<dyn Watch>, Error> {
        Ok(self.wrong.watch(self.store.watch(session).await?))
    }

    async fn list(
        &self,
        filter: ListFilter,
        after: Option<&RepositoryKey>,
        limit: usize,
    ) -> Result<Vec<(RepositoryKey, Head)>, Error> {
        self.store.list(filter, after, limit).await
    }
}
