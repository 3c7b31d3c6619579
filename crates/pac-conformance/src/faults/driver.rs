//! The driver with faults before it.

use std::sync::Arc;

use async_trait::async_trait;
use pac_core::driver::{
    Commit, CommitOutcome, Descriptor, Driver, ListFilter, RepositoryCommit, SessionTtl, Watch,
};
use pac_core::protocol::Death;
use pac_core::state::{Head, Snapshot};
use pac_core::{
    Error, ErrorKind, RepositoryKey, SessionId, SessionIdentity, SessionInfo, Timestamp, Version,
};
use tokio::task::yield_now;
use tokio::time::sleep;

use super::fault::{Fault, Request};
use super::plan::{Faults, lost};
use super::watch::FaultyWatch;

impl Faults {
    /// The same store, with these faults on the way to it.
    #[must_use]
    pub fn over(self: &Arc<Self>, driver: &Arc<dyn Driver>) -> Arc<dyn Driver> {
        Arc::new(Faulty::new(driver, self))
    }
}

#[derive(Debug, Clone)]
struct Faulty {
    inner: Arc<dyn Driver>,
    faults: Arc<Faults>,
}

impl Faulty {
    pub(super) fn new(inner: &Arc<dyn Driver>, faults: &Arc<Faults>) -> Self {
        Self {
            inner: Arc::clone(inner),
            faults: Arc::clone(faults),
        }
    }

    /// A request about these repositories with all that happens to it. What is in conflict is
    /// answered by `conflict`.
    async fn pass<T>(
        &self,
        request: Request,
        repositories: &[RepositoryKey],
        work: impl Future<Output = Result<T, Error>> + Send,
        conflict: impl FnOnce() -> Option<T> + Send,
    ) -> Result<T, Error> {
        let faults = self.faults.meet(request, repositories).await?;
        for fault in &faults {
            match *fault {
                Fault::Hang => self.faults.outlast(*fault, request).await,
                Fault::Panic => panic!("a bug that the test has put into `{}`", request.name()),
                Fault::LoseQuestion => return Err(lost(request)),
                Fault::Fail => {
                    let message = "the test lets this request fail";
                    return Err(Error::new(ErrorKind::Unavailable, request.name(), message));
                }
                Fault::Conflict | Fault::LoseAnswer | Fault::HoldAnswer => {}
                delay => self.delay(delay).await,
            }
        }
        let answer = match conflict().filter(|_| faults.contains(&Fault::Conflict)) {
            Some(conflict) => Ok(conflict),
            None => work.await,
        };
        for fault in &faults {
            match *fault {
                Fault::LoseAnswer => return Err(lost(request)),
                Fault::HoldAnswer => self.faults.outlast(*fault, request).await,
                fault => self.delay(fault).await,
            }
        }
        answer
    }

    async fn send<T>(
        &self,
        request: Request,
        work: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        self.pass(request, &[], work, || None).await
    }

    async fn delay(&self, fault: Fault) {
        match fault {
            Fault::Delay(time) => sleep(time).await,
            Fault::DelayUpTo(longest) => sleep(self.faults.drawn(longest)).await,
            Fault::Turns(turns) => {
                for _ in 0..turns {
                    yield_now().await;
                }
            }
            _ => {}
        }
    }
}

#[async_trait]
impl Driver for Faulty {
    fn descriptor(&self) -> Descriptor {
        self.faults.descriptor(self.inner.descriptor())
    }

    async fn open_session(
        &self,
        ttl: SessionTtl,
        identity: &SessionIdentity,
    ) -> Result<SessionId, Error> {
        let work = self.inner.open_session(ttl, identity);
        self.send(Request::OpenSession, work).await
    }

    async fn keep_alive(&self, session: SessionId) -> Result<(), Error> {
        let work = self.inner.keep_alive(session);
        self.send(Request::KeepAlive, work).await
    }

    async fn close_session(&self, session: SessionId) -> Result<(), Error> {
        let work = self.inner.close_session(session);
        self.send(Request::CloseSession, work).await
    }

    async fn dead_sessions(&self) -> Result<Vec<(SessionId, Death)>, Error> {
        let work = self.inner.dead_sessions();
        self.send(Request::DeadSessions, work).await
    }

    async fn sessions(
        &self,
        sessions: &[SessionId],
    ) -> Result<Vec<(SessionId, SessionInfo)>, Error> {
        let work = self.inner.sessions(sessions);
        self.send(Request::Sessions, work).await
    }

    async fn repositories_of(&self, session: SessionId) -> Result<Vec<RepositoryKey>, Error> {
        let work = self.inner.repositories_of(session);
        self.send(Request::RepositoriesOf, work).await
    }

    async fn load(
        &self,
        repository: &RepositoryKey,
        since: Option<Version>,
    ) -> Result<Snapshot, Error> {
        self.faults.note(repository, |traffic| traffic.loads += 1);
        let work = async {
            let rewound = self.faults.rewound();
            let since = since.map(|since| rewound.inwards(repository, since));
            let mut snapshot = match self.faults.ruin_of(repository) {
                None => self.inner.load(repository, since).await?,
                Some(ruin) => ruin.of(repository, self.inner.load(repository, None).await?)?,
            };
            rewound.snapshot(repository, &mut snapshot);
            Ok(snapshot)
        };
        let about = std::slice::from_ref(repository);
        self.pass(Request::Load, about, work, || None).await
    }

    fn commit(&self, session: SessionId, batch: Vec<RepositoryCommit>) -> Commit {
        let most = self.descriptor();
        assert!(
            batch.len() <= most.repositories_per_batch,
            "{} in a batch",
            batch.len()
        );
        for commit in &batch {
            let entries = commit.changes.entries.len();
            assert!(entries <= most.entries_per_commit, "{entries} in a commit");
            self.faults
                .note(&commit.repository, |traffic| traffic.commits += 1);
        }
        let this = self.clone();
        Commit::pending(async move {
            let refuse = |_: usize| CommitOutcome::Conflict(None);
            let about: Vec<_> = batch.iter().map(|part| part.repository.clone()).collect();
            let repositories = about.len();
            let conflict = move || Some((0..repositories).map(refuse).collect());
            let work = async {
                let rewound = this.faults.rewound();
                let mut batch = batch;
                rewound.commits(&mut batch);
                let mut outcomes = match this.inner.commit(session, batch) {
                    Commit::Done(outcome) => outcome,
                    Commit::Pending(answer) => answer.await,
                }?;
                for (repository, outcome) in about.iter().zip(&mut outcomes) {
                    rewound.outcome(repository, outcome);
                }
                Ok(outcomes)
            };
            this.pass(Request::Commit, &about, work, conflict).await
        })
    }

    async fn clock(&self) -> Result<Timestamp, Error> {
        let work = self.inner.clock();
        self.send(Request::Clock, work).await
    }

    async fn watch(&self, session: SessionId) -> Result<Box<dyn Watch>, Error> {
        let work = self.inner.watch(session);
        let watch = self.send(Request::Watch, work).await?;
        Ok(Box::new(FaultyWatch::new(watch, &self.faults)))
    }

    async fn list(
        &self,
        filter: ListFilter,
        after: Option<&RepositoryKey>,
        limit: usize,
    ) -> Result<Vec<(RepositoryKey, Head)>, Error> {
        let work = self.inner.list(filter, after, limit);
        let mut page = self.send(Request::List, work).await?;
        let rewound = self.faults.rewound();
        for (repository, head) in &mut page {
            rewound.listed(repository, &mut head.revision);
        }
        Ok(page)
    }
}
