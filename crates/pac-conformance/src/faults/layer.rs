//! A driver over another one, with a fault in between.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use pac_core::driver::{
    BatchOutcome, Commit, CommitOutcome, Descriptor, Driver, ListFilter, RepositoryCommit,
    SessionTtl, Watch,
};
use pac_core::protocol::Death;
use pac_core::state::{Head, Snapshot};
use pac_core::{Error, RepositoryKey, Revision, SessionId};

/// What goes wrong. Everything passes through unless said otherwise.
#[async_trait]
pub trait Fault: Debug + Send + Sync + 'static {
    /// Happens before every request; an error is the answer instead of the store's.
    async fn before(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Happens after every request, before its answer arrives.
    async fn after(&self) {}

    /// Around [`Driver::descriptor`].
    fn descriptor(&self, inner: Descriptor) -> Descriptor {
        inner
    }

    /// Around [`Driver::keep_alive`].
    async fn keep_alive(&self, inner: &dyn Driver, session: SessionId) -> Result<(), Error> {
        inner.keep_alive(session).await
    }

    /// Around [`Driver::load`].
    async fn load(
        &self,
        inner: &dyn Driver,
        repository: &RepositoryKey,
        since: Option<Revision>,
    ) -> Result<Snapshot, Error> {
        inner.load(repository, since).await
    }

    /// Around [`Driver::commit`].
    async fn commit(
        &self,
        inner: &dyn Driver,
        session: SessionId,
        batch: Vec<RepositoryCommit>,
    ) -> Result<Vec<CommitOutcome>, Error> {
        commit_to(inner, session, batch).await
    }

    /// What becomes of a watch.
    fn watched(&self, watch: Box<dyn Watch>) -> Box<dyn Watch> {
        watch
    }
}

/// See the module.
#[derive(Debug)]
pub struct Faulty<F> {
    inner: Arc<dyn Driver>,
    fault: Arc<F>,
}

impl<F: Fault> Faulty<F> {
    /// The same store, with a fault on the way to it.
    pub fn over(inner: &Arc<dyn Driver>, fault: &Arc<F>) -> Arc<dyn Driver> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            fault: Arc::clone(fault),
        })
    }

    async fn pass<T>(
        &self,
        request: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        self.fault.before().await?;
        let answer = request.await;
        self.fault.after().await;
        answer
    }
}

#[async_trait]
impl<F: Fault> Driver for Faulty<F> {
    fn descriptor(&self) -> Descriptor {
        self.fault.descriptor(self.inner.descriptor())
    }

    async fn open_session(&self, ttl: SessionTtl) -> Result<SessionId, Error> {
        self.pass(self.inner.open_session(ttl)).await
    }

    async fn keep_alive(&self, session: SessionId) -> Result<(), Error> {
        self.pass(self.fault.keep_alive(&*self.inner, session))
            .await
    }

    async fn close_session(&self, session: SessionId) -> Result<(), Error> {
        self.pass(self.inner.close_session(session)).await
    }

    async fn dead_sessions(&self) -> Result<Vec<(SessionId, Death)>, Error> {
        self.pass(self.inner.dead_sessions()).await
    }

    async fn repositories_of(&self, session: SessionId) -> Result<Vec<RepositoryKey>, Error> {
        self.pass(self.inner.repositories_of(session)).await
    }

    async fn load(
        &self,
        repository: &RepositoryKey,
        since: Option<Revision>,
    ) -> Result<Snapshot, Error> {
        self.pass(self.fault.load(&*self.inner, repository, since))
            .await
    }

    fn commit(&self, session: SessionId, batch: Vec<RepositoryCommit>) -> Commit {
        let (inner, fault) = (Arc::clone(&self.inner), Arc::clone(&self.fault));
        Commit::pending(async move {
            fault.before().await?;
            let answer = fault.commit(&*inner, session, batch).await;
            fault.after().await;
            answer
        })
    }

    async fn watch(&self, session: SessionId) -> Result<Box<dyn Watch>, Error> {
        let watch = self.pass(self.inner.watch(session)).await?;
        Ok(self.fault.watched(watch))
    }

    async fn list(
        &self,
        filter: ListFilter,
        after: Option<&RepositoryKey>,
        limit: usize,
    ) -> Result<Vec<(RepositoryKey, Head)>, Error> {
        self.pass(self.inner.list(filter, after, limit)).await
    }
}

/// Commits as the store itself does.
pub(super) async fn commit_to(
    inner: &dyn Driver,
    session: SessionId,
    batch: Vec<RepositoryCommit>,
) -> BatchOutcome {
    match inner.commit(session, batch) {
        Commit::Done(outcome) => outcome,
        Commit::Pending(answer) => answer.await,
    }
}
