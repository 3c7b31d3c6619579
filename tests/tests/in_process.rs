//! A store in this process, whose commits are made while the manager has the repository locked.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pac_concurrency::driver::protocol::Death;
use pac_concurrency::driver::state::{Head, Snapshot};
use pac_concurrency::driver::{
    Commit, Descriptor, Driver, ListFilter, RepositoryCommit, SessionTtl, Watch,
};
use pac_concurrency::{
    ConcurrencyManager, Error, Limit, ManagerOptions, MemoryDriver, MemoryOptions, RepositoryKey,
    RunOutcome, RunRequest, SessionId, SessionIdentity, SessionInfo, Timestamp, Turn, Version,
};
use pac_conformance::{durable, repository};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The memory driver, with a bug that shows in the next commit.
#[derive(Debug)]
struct Buggy {
    inner: MemoryDriver,
    panics: AtomicBool,
}

#[async_trait]
impl Driver for Buggy {
    fn descriptor(&self) -> Descriptor {
        self.inner.descriptor()
    }

    async fn open_session(
        &self,
        ttl: SessionTtl,
        identity: &SessionIdentity,
    ) -> Result<SessionId, Error> {
        self.inner.open_session(ttl, identity).await
    }

    async fn keep_alive(&self, session: SessionId) -> Result<(), Error> {
        self.inner.keep_alive(session).await
    }

    async fn close_session(&self, session: SessionId) -> Result<(), Error> {
        self.inner.close_session(session).await
    }

    async fn dead_sessions(&self) -> Result<Vec<(SessionId, Death)>, Error> {
        self.inner.dead_sessions().await
    }

    async fn sessions(
        &self,
        sessions: &[SessionId],
    ) -> Result<Vec<(SessionId, SessionInfo)>, Error> {
        self.inner.sessions(sessions).await
    }

    async fn repositories_of(&self, session: SessionId) -> Result<Vec<RepositoryKey>, Error> {
        self.inner.repositories_of(session).await
    }

    async fn load(&self, key: &RepositoryKey, since: Option<Version>) -> Result<Snapshot, Error> {
        self.inner.load(key, since).await
    }

    fn commit(&self, session: SessionId, batch: Vec<RepositoryCommit>) -> Commit {
        let panics = self.panics.swap(false, Ordering::SeqCst);
        assert!(!panics, "a bug of the driver");
        self.inner.commit(session, batch)
    }

    async fn clock(&self) -> Result<Timestamp, Error> {
        self.inner.clock().await
    }

    async fn watch(&self, session: SessionId) -> Result<Box<dyn Watch>, Error> {
        self.inner.watch(session).await
    }

    async fn list(
        &self,
        filter: ListFilter,
        after: Option<&RepositoryKey>,
        limit: usize,
    ) -> Result<Vec<(RepositoryKey, Head)>, Error> {
        self.inner.list(filter, after, limit).await
    }
}

/// Does work with a slot that it waits for.
async fn cycle(
    manager: &ConcurrencyManager,
    key: &RepositoryKey,
    request: RunRequest,
    work: impl FnOnce(),
) {
    let admission = manager.admit(key, request).await.unwrap();
    let lease = match admission.turn().await.unwrap() {
        Turn::Started(lease) => lease,
        turn => panic!("nobody ends this run, but: {turn:?}"),
    };
    work();
    manager.release(lease, RunOutcome::Completed).await.unwrap();
}

#[tokio::test]
async fn a_driver_that_panics_under_the_lock_leaves_the_repository_to_later_calls() {
    let driver = Arc::new(Buggy {
        inner: MemoryDriver::new(MemoryOptions::default()),
        panics: AtomicBool::new(false),
    });
    let open = ConcurrencyManager::open(Arc::<Buggy>::clone(&driver), ManagerOptions::default());
    let manager = open.await.unwrap();
    let key = repository("buggy");
    manager.set_limit(&key, Limit::new(1), None).await.unwrap();
    driver.panics.store(true, Ordering::SeqCst);
    let (clone, of) = (manager.clone(), key.clone());
    let call = tokio::spawn(async move { clone.admit(&of, durable("a")).await.map(drop) });
    assert!(call.await.unwrap_err().is_panic());
    // What the call may have left behind is taken back.
    let later = cycle(&manager, &key, durable("b"), || ());
    timeout(Duration::from_secs(5), later).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_that_meet_at_one_repository_all_get_on_and_never_exceed_its_limit() {
    const TASKS: usize = 16;
    const CYCLES: usize = 200;
    const LIMIT: usize = 3;
    let driver = Arc::new(MemoryDriver::new(MemoryOptions::default()));
    let open = ConcurrencyManager::open(driver, ManagerOptions::default());
    let manager = open.await.unwrap();
    let key = repository("met");
    let limit = Limit::new(LIMIT as u32);
    manager.set_limit(&key, limit, None).await.unwrap();
    let running = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (manager, key, running) = (manager.clone(), key.clone(), Arc::clone(&running));
        tasks.spawn(async move {
            for number in 0..CYCLES {
                let request = durable(&format!("r-{task}-{number}"));
                cycle(&manager, &key, request, || {
                    let others = running.fetch_add(1, Ordering::SeqCst);
                    assert!(others < LIMIT, "{others} run already");
                    running.fetch_sub(1, Ordering::SeqCst);
                })
                .await;
            }
        });
    }
    let all = async {
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
    };
    timeout(Duration::from_secs(60), all).await.unwrap();
    let status = manager.status(&key).await.unwrap();
    assert!(
        status.running.is_empty() && status.queued.is_empty(),
        "{status:?}"
    );
}
